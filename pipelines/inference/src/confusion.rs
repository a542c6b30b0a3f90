//! Counting how a classifier did.

use crate::BeatClass;
use serde::{Deserialize, Serialize};
use std::fmt;

/// Beats by true class (row) and predicted class (column), both in the order of [`BeatClass::ALL`].
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Confusion(pub [[u64; 5]; 5]);

/// How well one class is found. Shares are fractions of 1 and `None` where they would be 0/0.
#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClassMetrics {
    /// Beats that truly are of the class.
    pub beats: u64,
    /// Share of these that were found.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sensitivity: Option<f64>,
    /// Positive predictive value: share of what was called so that truly is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ppv: Option<f64>,
    /// Harmonic mean of the two.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub f1: Option<f64>,
}

impl Confusion {
    /// Counts one beat.
    pub fn add(&mut self, truth: BeatClass, predicted: BeatClass) {
        self.0[truth.index()][predicted.index()] += 1;
    }

    /// Adds the counts of another.
    pub fn merge(&mut self, other: &Self) {
        for (row, more) in self.0.iter_mut().zip(&other.0) {
            for (count, more) in row.iter_mut().zip(more) {
                *count += more;
            }
        }
    }

    /// All beats counted.
    pub fn beats(&self) -> u64 {
        self.0.iter().flatten().sum()
    }

    /// Share of all beats whose class was found; `None` without a beat.
    pub fn accuracy(&self) -> Option<f64> {
        share((0..5).map(|class| self.0[class][class]).sum(), self.beats())
    }

    /// How well one class is found.
    pub fn class(&self, class: BeatClass) -> ClassMetrics {
        let index = class.index();
        let hits = self.0[index][index];
        let beats = self.0[index].iter().sum();
        let called: u64 = self.0.iter().map(|row| row[index]).sum();
        ClassMetrics {
            beats,
            sensitivity: share(hits, beats),
            ppv: share(hits, called),
            f1: share(2 * hits, beats + called),
        }
    }
}

/// A table with a line for each class, in per cent.
impl fmt::Display for Confusion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let percent = |share: Option<f64>| match share {
            Some(share) => format!("{:.2}", share * 100.0),
            None => "-".into(),
        };
        writeln!(f, "class     beats      Se %     PPV %      F1 %   called N/S/V/F/Q")?;
        for class in BeatClass::ALL {
            let metrics = self.class(class);
            writeln!(
                f,
                "{class}     {:>9} {:>9} {:>9} {:>9}   {}",
                metrics.beats,
                percent(metrics.sensitivity),
                percent(metrics.ppv),
                percent(metrics.f1),
                self.0[class.index()].map(|count| count.to_string()).join("/"),
            )?;
        }
        write!(f, "accuracy {} % of {} beats", percent(self.accuracy()), self.beats())
    }
}

fn share(part: u64, whole: u64) -> Option<f64> {
    (whole > 0).then(|| part as f64 / whole as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_of_the_right_whole() {
        let mut confusion = Confusion::default();
        for (truth, predicted, times) in [
            (BeatClass::N, BeatClass::N, 90),
            (BeatClass::N, BeatClass::V, 2),
            (BeatClass::V, BeatClass::V, 6),
            (BeatClass::V, BeatClass::N, 2),
        ] {
            for _ in 0..times {
                confusion.add(truth, predicted);
            }
        }
        let v = confusion.class(BeatClass::V);
        assert_eq!((v.beats, v.sensitivity, v.ppv, v.f1), (8, Some(0.75), Some(0.75), Some(0.75)));
        assert_eq!(confusion.accuracy(), Some(0.96));
        let s = confusion.class(BeatClass::S);
        assert_eq!((s.beats, s.sensitivity, s.ppv, s.f1), (0, None, None, None));
        let mut twice = confusion;
        twice.merge(&confusion);
        assert_eq!(twice.beats(), 200);
        expect_test::expect![[r#"
            class     beats      Se %     PPV %      F1 %   called N/S/V/F/Q
            N            92     97.83     97.83     97.83   90/0/2/0/0
            S             0         -         -         -   0/0/0/0/0
            V             8     75.00     75.00     75.00   2/0/6/0/0
            F             0         -         -         -   0/0/0/0/0
            Q             0         -         -         -   0/0/0/0/0
            accuracy 96.00 % of 100 beats"#]]
        .assert_eq(&confusion.to_string());
    }
}
