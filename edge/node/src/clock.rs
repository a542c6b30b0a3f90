//! The wall clock. Read where a frame arrives and where the watermarks tick, nowhere else.

use haar_schema::Timestamp;
use std::time::SystemTime;

/// The time now, by the edge's clock.
pub(crate) fn now() -> Timestamp {
    let since = |duration: std::time::Duration| i64::try_from(duration.as_micros());
    let micros = match SystemTime::now().duration_since(SystemTime::UNIX_EPOCH) {
        Ok(after) => since(after).unwrap_or(i64::MAX),
        Err(before) => -since(before.duration()).unwrap_or(i64::MAX),
    };
    Timestamp::from_micros(micros)
}
