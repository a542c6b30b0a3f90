//! What a device sends, and where frames come from.

use bytes::Bytes;
use haar_schema::{DeviceId, Timestamp};
use std::fmt;

/// One message of one device.
#[derive(Clone, PartialEq)]
pub struct Frame {
    /// The patient's number, from 0; frames of one patient keep their order on the way.
    pub bed: u32,
    /// The patient as the topic or path names him.
    pub patient: String,
    /// The device as the topic or path names it.
    pub device: DeviceId,
    /// By which protocol, and where to.
    pub connector: Connector,
    /// When it leaves the device, in true simulated time.
    pub at: Timestamp,
    /// The message; at most [`crate::format::MAX_FRAME_BYTES`].
    pub payload: Bytes,
    /// How many readings (observations) are in it.
    pub readings: u32,
    /// It was sent before, byte for byte; its readings must not count again.
    pub repeat: bool,
}

/// A protocol, and an address within it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Connector {
    /// An MQTT topic.
    Mqtt(String),
    /// A CoAP path, without a leading slash.
    Coap(String),
}

impl fmt::Debug for Frame {
    /// Without payload and patient.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Frame")
            .field("device", &self.device)
            .field("at", &self.at)
            .field("bytes", &self.payload.len())
            .field("readings", &self.readings)
            .field("repeat", &self.repeat)
            .finish_non_exhaustive()
    }
}

/// Where frames come from: the simulated [`crate::Ward`] or the [`crate::replay::Replay`] of recordings.
pub trait FrameSource {
    /// The frames that leave before or at `time`, in order of [`Frame::at`], each once. Everything up to `time` is
    /// made at once, so ask in small steps.
    fn next_until(&mut self, time: Timestamp) -> Vec<Frame>;

    /// What was made but has not left yet (frames held back), in order.
    fn finish(&mut self) -> Vec<Frame>;

    /// `true` when nothing will come any more. A ward never ends.
    fn is_over(&self) -> bool;
}
