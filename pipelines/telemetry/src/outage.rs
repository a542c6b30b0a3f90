//! Something that is asked again and again, and does not answer: said once, not every second.

/// Failures in a row before it is said: one may be a restart, or two programs that start together.
const SAID_AT: u32 = 2;

/// Whether something is away, for a log line when that begins and one when it is over.
#[derive(Clone, Debug, Default)]
pub struct Outage {
    failures: u32,
}

impl Outage {
    /// It failed; whether to say so now.
    pub fn begins(&mut self) -> bool {
        self.failures = self.failures.saturating_add(1);
        self.failures == SAID_AT
    }

    /// It did not fail; whether that is worth saying, because it was said that it did.
    pub fn ends(&mut self) -> bool {
        std::mem::take(&mut self.failures) >= SAID_AT
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outage_is_said_once_and_so_is_its_end() {
        let mut outage = Outage::default();
        assert!(!outage.begins() && !outage.ends(), "one failure is none");
        let said: Vec<bool> = (0..5).map(|_| outage.begins()).collect();
        assert_eq!(said, [false, true, false, false, false]);
        assert!(outage.ends() && !outage.ends());
    }
}
