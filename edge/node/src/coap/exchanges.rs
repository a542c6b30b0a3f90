//! Requests seen lately, so that a retransmission gets the same answer and is not a second reading: RFC 7252
//! sections 4.2, 4.3 and 4.5.

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::time::Duration;
use tokio::time::Instant;

/// For how long a message id of an endpoint means the same message (RFC 7252 section 4.8.2: EXCHANGE_LIFETIME).
pub(super) const EXCHANGE_LIFETIME: Duration = Duration::from_secs(247);
/// How many requests are remembered; beyond, the oldest is forgotten before its time.
pub(super) const MAX_EXCHANGES: usize = 16_384;

type Key = (SocketAddr, u16);

/// What is known of a message.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Seen {
    /// Not before.
    New,
    /// It waits for the spool.
    InProgress,
    /// It was answered with this datagram.
    Answered(Vec<u8>),
}

/// The memory of requests.
#[derive(Default)]
pub(super) struct Exchanges {
    answers: HashMap<Key, Entry>,
    /// Oldest first; rows of forgotten exchanges are passed over.
    order: VecDeque<(Key, Instant)>,
}

struct Entry {
    began: Instant,
    answer: Option<Vec<u8>>,
}

impl Exchanges {
    /// Notes a request and tells whether it was there before.
    pub(super) fn begin(&mut self, from: SocketAddr, message_id: u16, now: Instant) -> Seen {
        self.forget_old(now);
        let key = (from, message_id);
        if let Some(entry) = self.answers.get(&key) {
            return entry.answer.clone().map_or(Seen::InProgress, Seen::Answered);
        }
        self.answers.insert(key, Entry { began: now, answer: None });
        self.order.push_back((key, now));
        Seen::New
    }

    /// Keeps the answer for retransmissions.
    pub(super) fn answered(&mut self, from: SocketAddr, message_id: u16, answer: Vec<u8>) {
        if let Some(entry) = self.answers.get_mut(&(from, message_id)) {
            entry.answer = Some(answer);
        }
    }

    /// Forgets a request that was not taken: its retransmission is a new attempt.
    pub(super) fn forget(&mut self, from: SocketAddr, message_id: u16) {
        self.answers.remove(&(from, message_id));
    }

    fn forget_old(&mut self, now: Instant) {
        while let Some((key, began)) = self.order.front() {
            let expired = now.duration_since(*began) >= EXCHANGE_LIFETIME;
            if !expired && self.order.len() < MAX_EXCHANGES {
                return;
            }
            if self.answers.get(key).is_some_and(|entry| entry.began == *began) {
                self.answers.remove(key);
            }
            self.order.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(port: u16) -> SocketAddr {
        ([127, 0, 0, 1], port).into()
    }

    #[test]
    fn a_retransmission_gets_the_same_answer_until_the_id_may_be_used_again() {
        let mut exchanges = Exchanges::default();
        let start = Instant::now();
        assert_eq!(exchanges.begin(peer(1), 7, start), Seen::New);
        assert_eq!(exchanges.begin(peer(1), 7, start), Seen::InProgress);
        assert_eq!(exchanges.begin(peer(2), 7, start), Seen::New);
        exchanges.answered(peer(1), 7, vec![1]);
        let late = start + EXCHANGE_LIFETIME - Duration::from_secs(1);
        assert_eq!(exchanges.begin(peer(1), 7, late), Seen::Answered(vec![1]));
        assert_eq!(exchanges.begin(peer(1), 7, start + EXCHANGE_LIFETIME), Seen::New);
        exchanges.forget(peer(1), 7);
        assert_eq!(exchanges.begin(peer(1), 7, start + EXCHANGE_LIFETIME), Seen::New);
    }

    #[test]
    fn memory_is_bounded() {
        let mut exchanges = Exchanges::default();
        let now = Instant::now();
        for number in 0..3 * MAX_EXCHANGES {
            exchanges.begin(peer((number >> 16) as u16 + 1), number as u16, now);
        }
        assert!(exchanges.answers.len() <= MAX_EXCHANGES);
        assert!(exchanges.order.len() <= MAX_EXCHANGES);
    }
}
