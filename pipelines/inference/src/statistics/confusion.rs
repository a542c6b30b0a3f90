//! Counting how a classifier did.

use serde::{Deserialize, Serialize};
use std::fmt;

/// How well one class is found. Shares are fractions of 1 and absent where they would be 0/0.
#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClassMetrics {
    /// Cases that truly are of the class.
    pub cases: u64,
    /// Share of these that were found.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sensitivity: Option<f64>,
    /// Positive predictive value: share of what was called so that truly is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ppv: Option<f64>,
    /// Harmonic mean of the two.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub f1: Option<f64>,
}

/// Cases by true class (row) and predicted class (column).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Confusion {
    names: &'static [&'static str],
    counts: Vec<Vec<u64>>,
}

impl Confusion {
    /// No case yet, of classes with these names.
    pub fn new(names: &'static [&'static str]) -> Self {
        Self { names, counts: vec![vec![0; names.len()]; names.len()] }
    }

    /// Counts a case by the numbers of its true and its predicted class; one with a number that is no class is not counted.
    pub fn add(&mut self, truth: usize, predicted: usize) {
        if let Some(count) = self.counts.get_mut(truth).and_then(|row| row.get_mut(predicted)) {
            *count += 1;
        }
    }

    /// Adds the counts of another over the same classes.
    pub fn merge(&mut self, other: &Self) {
        for (row, more) in self.counts.iter_mut().zip(&other.counts) {
            for (count, more) in row.iter_mut().zip(more) {
                *count += more;
            }
        }
    }

    /// The classes' names.
    pub const fn names(&self) -> &'static [&'static str] {
        self.names
    }

    /// The counts, true class by predicted class.
    pub fn counts(&self) -> &[Vec<u64>] {
        &self.counts
    }

    /// All cases.
    pub fn cases(&self) -> u64 {
        self.counts.iter().flatten().sum()
    }

    /// Share of all cases whose class was found; `None` without a case.
    pub fn accuracy(&self) -> Option<f64> {
        share((0..self.names.len()).map(|class| self.counts[class][class]).sum(), self.cases())
    }

    /// How well a class is found, by its number (less than that of the names).
    pub fn class(&self, class: usize) -> ClassMetrics {
        let hits = self.counts[class][class];
        let cases = self.counts[class].iter().sum();
        let called: u64 = self.counts.iter().map(|row| row[class]).sum();
        ClassMetrics {
            cases,
            sensitivity: share(hits, cases),
            ppv: share(hits, called),
            f1: share(2 * hits, cases + called),
        }
    }

    /// The mean F1 of classes, by number; `None` if one of them has none.
    pub fn mean_f1(&self, classes: impl IntoIterator<Item = usize>) -> Option<f64> {
        let all: Option<Vec<f64>> = classes.into_iter().map(|class| self.class(class).f1).collect();
        let all = all.filter(|all| !all.is_empty())?;
        Some(all.iter().sum::<f64>() / all.len() as f64)
    }
}

/// A table with a line for each class, in per cent.
impl fmt::Display for Confusion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let percent = |share: Option<f64>| match share {
            Some(share) => format!("{:.2}", share * 100.0),
            None => "-".into(),
        };
        let names = self.names.join("/");
        writeln!(f, "class        cases      Se %     PPV %      F1 %   called {names}")?;
        for (class, name) in self.names.iter().enumerate() {
            let metrics = self.class(class);
            let called: Vec<String> = self.counts[class].iter().map(u64::to_string).collect();
            writeln!(
                f,
                "{name:<10} {:>7} {:>9} {:>9} {:>9}   {}",
                metrics.cases,
                percent(metrics.sensitivity),
                percent(metrics.ppv),
                percent(metrics.f1),
                called.join("/"),
            )?;
        }
        write!(f, "accuracy {} % of {} cases", percent(self.accuracy()), self.cases())
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
        let mut confusion = Confusion::new(&["N", "S", "V"]);
        for (truth, predicted, times) in [(0, 0, 90), (0, 2, 2), (2, 2, 6), (2, 0, 2), (3, 0, 5)] {
            for _ in 0..times {
                confusion.add(truth, predicted);
            }
        }
        let v = confusion.class(2);
        assert_eq!((v.cases, v.sensitivity, v.ppv, v.f1), (8, Some(0.75), Some(0.75), Some(0.75)));
        assert_eq!(confusion.accuracy(), Some(0.96));
        assert_eq!(confusion.class(1).f1, None);
        assert_eq!(confusion.mean_f1([0, 1]), None);
        assert_eq!(confusion.mean_f1([2]), Some(0.75));
        let mut twice = confusion.clone();
        twice.merge(&confusion);
        assert_eq!(twice.cases(), 200);
        expect_test::expect![[r#"
            class        cases      Se %     PPV %      F1 %   called N/S/V
            N               92     97.83     97.83     97.83   90/0/2
            S                0         -         -         -   0/0/0
            V                8     75.00     75.00     75.00   2/0/6
            accuracy 96.00 % of 100 cases"#]]
        .assert_eq(&confusion.to_string());
    }
}
