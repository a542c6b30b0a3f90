//! Whether a flag holds, by what one pipeline's windows say: delay at the beginning, hysteresis at the end.

use crate::policy::Rule;
use haar_schema::Timestamp;
use serde::{Deserialize, Serialize};

/// The last windows of one pipeline, as votes on one flag. Windows in which the rule could not be decided
/// do not vote.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Source {
    /// One bit a window, the newest lowest; set: raised.
    recent: u64,
    /// End of the newest window that voted.
    pub(crate) latest: Timestamp,
    /// End of the first raised window since the flag was last quiet.
    since: Timestamp,
    /// Whether anything has voted yet, so that `latest` is a time.
    voted: bool,
    pub(crate) held: bool,
}

impl Source {
    /// Takes a window's vote. One that ends with the newest (a correction of it) takes its place; an older
    /// one must not be given.
    pub(crate) fn vote(&mut self, raised: bool, end: Timestamp, rule: &Rule) {
        let is_correction = self.voted && end == self.latest;
        let before = if is_correction { self.recent & !1 } else { self.recent << 1 };
        self.recent = before | u64::from(raised);
        let in_view = self.recent & mask(rule.of);
        if !self.held && in_view == u64::from(raised) && !is_correction {
            self.since = end;
        }
        (self.voted, self.latest) = (true, end);
        if self.held {
            if self.recent & mask(rule.clear) == 0 {
                self.silence();
            }
        } else {
            self.held = raised
                && in_view.count_ones() >= u32::from(rule.raised)
                && end.micros_since(self.since) >= rule.hold_us;
        }
    }

    /// Whether it was raised lately and does not hold (yet).
    pub(crate) fn is_pending(&self, rule: &Rule) -> bool {
        !self.held && self.recent & mask(rule.of) != 0
    }

    /// Forgets all votes: the condition is over, or nothing is known of it any more.
    pub(crate) fn silence(&mut self) {
        (self.recent, self.held) = (0, false);
    }
}

const fn mask(windows: u8) -> u64 {
    if windows >= 64 { u64::MAX } else { (1 << windows) - 1 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Policy;
    use haar_schema::Priority;

    /// Windows 10 s apart: `1` raised, `0` not, `c` the newest again and not raised. What holds after each.
    fn held(rule: &Rule, votes: &str) -> String {
        let mut source = Source::default();
        let mut end = Timestamp::from_millis(0);
        let mut shown = String::new();
        for vote in votes.chars() {
            if vote != 'c' {
                end = end.plus_micros(10_000_000);
            }
            source.vote(vote == '1', end, rule);
            shown.push(if source.held {
                'H'
            } else if source.is_pending(rule) {
                'p'
            } else {
                '.'
            });
        }
        shown
    }

    fn rule(text: &str) -> Rule {
        let text = format!("[priority.high]\n{text}");
        Policy::parse("test", &text).unwrap().rule("x", Priority::High).clone()
    }

    #[test]
    fn m_of_n_and_the_way_back() {
        let rule = rule("windows = \"2 of 3\"\nhold = \"0s\"\nclear = 2");
        assert_eq!(held(&rule, "0100011010100"), ".ppp.pHHHHHH.");
        assert_eq!(held(&rule, "11c0"), "pHH.");
        assert_eq!(held(&rule, "1c01"), "p..p");
    }

    #[test]
    fn a_minimum_time() {
        let rule = rule("windows = \"2 of 3\"\nhold = \"20s\"\nclear = 1");
        assert_eq!(held(&rule, "111011"), "ppH.pp");
        let one = self::rule("windows = \"1 of 1\"\nhold = \"0s\"\nclear = 1");
        assert_eq!(held(&one, "0110"), ".HH.");
    }

    #[test]
    fn sixty_four_windows_fit() {
        let rule = rule("windows = \"64 of 64\"\nhold = \"0s\"\nclear = 64");
        assert!(held(&rule, &"1".repeat(64)).ends_with("pH"));
        assert!(held(&rule, &("1".repeat(64) + &"0".repeat(64))).ends_with("H."));
    }
}
