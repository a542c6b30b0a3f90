//! The fog's end of the acknowledgements: one value, the latest.

use crate::{Ack, MAX_CREDIT, Refusal};
use tokio::sync::watch;

/// Tells one edge what is durable. Cheap to clone; never waits; works until the session has ended, and does
/// nothing afterwards.
#[derive(Clone, Debug)]
pub struct AckSender(watch::Sender<Outgoing>);

/// What is to be told next.
#[derive(Clone, Default, Debug)]
pub(crate) struct Outgoing {
    pub(crate) ack: Option<Ack>,
    /// The highest sequence that any ack of this session allowed.
    pub(crate) limit: u64,
    pub(crate) refusal: Option<Refusal>,
}

impl AckSender {
    pub(crate) fn new() -> (Self, watch::Receiver<Outgoing>) {
        let (sender, receiver) = watch::channel(Outgoing::default());
        (Self(sender), receiver)
    }

    /// Announces what is durable. Only the latest value is sent, so this may be called for every epoch.
    /// `durable_through` and `keep_from` never go back: a smaller value is raised to the last one, and
    /// `keep_from` is held at or before `durable_through` + 1.
    pub fn send(&self, ack: Ack) {
        self.0.send_if_modified(|outgoing| {
            let last = outgoing.ack.unwrap_or_default();
            let durable_through = ack.durable_through.max(last.durable_through);
            let keep_from =
                ack.keep_from.min(durable_through.saturating_add(1)).max(last.keep_from);
            let ack = Ack { durable_through, keep_from, credit: ack.credit.min(MAX_CREDIT) };
            outgoing.limit = outgoing.limit.max(ack.limit());
            outgoing.ack.replace(ack) != Some(ack)
        });
    }

    /// Ends the session. The edge reconnects and is asked with a new Welcome where to go on.
    pub fn close(&self, refusal: Refusal) {
        self.0.send_modify(|outgoing| outgoing.refusal = Some(refusal));
    }

    /// Whether the session has ended.
    pub fn is_closed(&self) -> bool {
        self.0.is_closed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn acks_never_go_back_and_never_let_the_edge_forget_what_is_not_durable() {
        let (sender, receiver) = AckSender::new();
        sender.send(Ack { durable_through: 10, keep_from: 99, credit: 5 });
        assert_eq!(
            receiver.borrow().ack,
            Some(Ack { durable_through: 10, keep_from: 11, credit: 5 })
        );
        sender.send(Ack { durable_through: 4, keep_from: 2, credit: 1 });
        let outgoing = receiver.borrow().clone();
        assert_eq!(outgoing.ack, Some(Ack { durable_through: 10, keep_from: 11, credit: 1 }));
        assert_eq!(outgoing.limit, 15);
        drop(receiver);
        assert!(sender.is_closed());
    }
}
