//! A simulated ward, and replay of recordings, over MQTT and CoAP.
//!
//! - [`Ward`]: patients with an ECG, plethysmogram, respiration and vitals that come from one body; their
//!   devices; a [`Scenario`] of illnesses and faults; and the [`truth`] about all that.
//! - [`replay::Replay`]: WFDB recordings as patients.
//! - [`transport::Publisher`]: sends either's frames over real sockets, at a pace.
//! - [`broker::Broker`]: an MQTT broker for demonstrations.
//!
//! The models read no clock and draw from a seed; what they are and whose, each module's head says. Only
//! `transport` and `broker` do I/O. The patients are drawn: no result on them says anything about people.
#![forbid(unsafe_code)]

pub mod broker;
pub mod ecg;
mod fault;
pub mod format;
mod frame;
pub mod patient;
pub mod pulse;
pub mod replay;
pub mod rhythm;
pub mod scenario;
pub mod transport;
pub mod truth;
pub mod vitals;
pub mod ward;

pub use frame::{Connector, Frame, FrameSource};
pub use scenario::{Device, Episode, Scenario, ScenarioError, What};
pub use ward::{Ward, WardError};
