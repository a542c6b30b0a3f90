//! The edge↔fog protocol: one gRPC stream per edge over mutual TLS, with credit, resume and
//! cumulative acknowledgement.
//!
//! # Protocol, version 1
//! The edge opens `haar.uplink.v1.Uplink/Open` (HTTP/2, TLS 1.2 or 1.3, both sides with certificates of
//! the site's own CA; see `proto/uplink.proto`) and speaks first:
//!
//! 1. edge → **Hello**: who it is, its spool's incarnation (16 bytes drawn when the spool was made), the
//!    oldest and the next sequence in it, and the *base marks*: the marks in force just before the oldest.
//! 2. fog → **Welcome**: `resume_from`, within oldest..=next, and a credit. Or **Refused** with a reason
//!    and what to do, and the stream ends.
//! 3. edge → **Batch**, again and again: entries in sequence without gap or overlap, from `resume_from`.
//! 4. fog → **Ack**, whenever it likes: everything up to `durable_through` is committed and counted once; the
//!    edge may forget what lies before `keep_from` (never behind `durable_through` + 1); at most `credit`
//!    entries may be sent beyond `durable_through`. Acks are cumulative and the latest one counts.
//!
//! The highest sequence that the edge may send is therefore `durable_through + credit` (before the first ack:
//! `resume_from - 1 + credit`). The fog enforces the highest limit that it ever announced in the session.
//! Either side may end the stream at any time; the fog says why by **Refused**. A newer stream of an edge ends
//! its older one.
//!
//! # Identity
//! An edge is the first `dNSName` in its client certificate's subject alternative names. A Hello that names
//! another is refused. The fog is known by its certificate's name, as in HTTPS.
//!
//! A batch may name an Ed25519 key and bear its signature over the lane, the sequence and all entries (the module `signing`), so that it can
//! be shown later whose readings they were. A wrong signature ends the session; whether the key counts is for the
//! fog to say.
//!
//! # Limits
//! The constants of this module. A message over [`MAX_MESSAGE_BYTES`] is not even read.
//!
//! # Trust
//! Neither side trusts the other's bytes: what is decoded here is within limits and in sequence. Entries are
//! passed on undecoded; base marks are decoded.
//!
//! # What is not guaranteed
//! A batch whose send succeeded may or may not have arrived: only `durable_through` says so, and after a
//! reconnect the fog's `resume_from` may lie *before* what was acknowledged (it replays open windows). The fog
//! must know entries again by (edge, incarnation, sequence). Nothing orders one edge against another.
#![forbid(unsafe_code)]

use std::time::Duration;

mod ack;
mod client;
mod identity;
mod message;
mod server;
mod session;
mod signing;
mod wire;

#[cfg(test)]
mod tests;

pub use ack::AckSender;
pub use client::{
    AckReceiver, BatchSender, ClientTls, ConnectError, SendError, SessionEnd, Uplink, connect,
};
pub use message::{Ack, Batch, Hello, Refusal, RefusalReason, SessionId, Welcome};
pub use server::{BindError, Fog, LinkServer, ServeError, ServerTls};

/// The version in Hello. Another one is refused.
pub const PROTOCOL_VERSION: u32 = 1;
/// The most entries in a batch.
pub const MAX_BATCH_ENTRIES: usize = 4_096;
/// The most bytes that a batch's entries have together.
pub const MAX_BATCH_BYTES: usize = 2 * 1024 * 1024;
/// The most marks in a Hello: devices times subjects of one edge within a day.
pub const MAX_BASE_MARKS: usize = 16_384;
/// The most entries that may be in flight.
pub const MAX_CREDIT: u32 = 1 << 20;
/// The longest `traceparent` (version 00 of W3C Trace Context has 55 bytes).
pub const MAX_TRACEPARENT_BYTES: usize = 128;
/// The longest advice in a refusal.
pub const MAX_ADVICE_BYTES: usize = 1_024;
/// The longest message: a full batch with its framing, or a Hello full of marks.
pub const MAX_MESSAGE_BYTES: usize = MAX_BATCH_BYTES + 64 * 1024;
/// How long the TCP connection, the TLS handshake, and the exchange of Hello and Welcome may each take.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// An HTTP/2 ping is sent after this long, by both sides.
pub const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);
/// The connection is given up when a ping has no answer for this long.
pub const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(10);
/// HTTP/2 flow-control window of a stream: how much of an edge's data may lie in the fog's memory unread.
pub const STREAM_WINDOW_BYTES: u32 = 4 * 1024 * 1024;
/// Batches that wait in the edge's memory between [`BatchSender::send`] and the socket.
pub const OUTBOUND_BATCHES: usize = 2;
/// How long a stopping server waits for its connections to close.
pub const DRAIN_TIMEOUT: Duration = Duration::from_secs(5);

/// TLS by ring in the whole process, unless the process has chosen another provider before.
fn use_ring() {
    let _ = rustls::crypto::ring::default_provider().install_default();
}

/// An error and what is behind it in one line: the transport's own texts only say "transport error".
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(error) = next {
        let more = error.to_string();
        if !text.contains(&more) {
            text.push_str(": ");
            text.push_str(&more);
        }
        next = error.source();
    }
    text
}
