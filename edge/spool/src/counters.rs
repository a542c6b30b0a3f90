//! The numbers that are kept beside the entries, written in every transaction that changes them.

/// Twelve u64; the order is the order on disk.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Counters {
    pub next_seq: u64,
    pub oldest_seq: u64,
    pub bytes: u64,
    pub waveform_entries: u64,
    pub waveform_bytes: u64,
    /// No entry before this one is a waveform: shedding goes on from here.
    pub shed_cursor: u64,
    pub shed_entries: u64,
    pub shed_bytes: u64,
    pub next_frame: u64,
    pub next_quarantine: u64,
    pub quarantine_bytes: u64,
    pub quarantine_dropped: u64,
}

/// Length of the encoded [`Counters`].
pub(crate) const COUNTERS_BYTES: usize = 12 * 8;

impl Counters {
    pub(crate) const NEW: Self = Self {
        next_seq: 1,
        oldest_seq: 1,
        bytes: 0,
        waveform_entries: 0,
        waveform_bytes: 0,
        shed_cursor: 1,
        shed_entries: 0,
        shed_bytes: 0,
        next_frame: 0,
        next_quarantine: 0,
        quarantine_bytes: 0,
        quarantine_dropped: 0,
    };

    pub(crate) fn encode(&self) -> [u8; COUNTERS_BYTES] {
        let mut bytes = [0; COUNTERS_BYTES];
        let all = [
            self.next_seq,
            self.oldest_seq,
            self.bytes,
            self.waveform_entries,
            self.waveform_bytes,
            self.shed_cursor,
            self.shed_entries,
            self.shed_bytes,
            self.next_frame,
            self.next_quarantine,
            self.quarantine_bytes,
            self.quarantine_dropped,
        ];
        for (place, number) in bytes.chunks_exact_mut(8).zip(all) {
            place.copy_from_slice(&number.to_le_bytes());
        }
        bytes
    }

    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; COUNTERS_BYTES] = bytes.try_into().ok()?;
        let (numbers, _) = bytes.as_chunks::<8>();
        let at = |index: usize| u64::from_le_bytes(numbers[index]);
        let counters = Self {
            next_seq: at(0),
            oldest_seq: at(1),
            bytes: at(2),
            waveform_entries: at(3),
            waveform_bytes: at(4),
            shed_cursor: at(5),
            shed_entries: at(6),
            shed_bytes: at(7),
            next_frame: at(8),
            next_quarantine: at(9),
            quarantine_bytes: at(10),
            quarantine_dropped: at(11),
        };
        (counters.oldest_seq >= 1 && counters.oldest_seq <= counters.next_seq).then_some(counters)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_come_back() {
        let counters = Counters { next_seq: 9, bytes: 77, quarantine_dropped: 3, ..Counters::NEW };
        assert_eq!(Counters::decode(&counters.encode()), Some(counters));
        assert_eq!(Counters::decode(&[0; COUNTERS_BYTES]), None);
        assert_eq!(Counters::decode(&[0; 8]), None);
    }
}
