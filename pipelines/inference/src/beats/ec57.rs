//! How beats are counted by ANSI/AAMI EC57.
//!
//! A fusion beat or one that nobody can classify is neither a right nor a wrong ventricular call: it is partly ventricular,
//! or unknown. The standard's comparison (ANSI/AAMI EC57:1998/(R)2008; its reference programme is `bxb` of PhysioNet's
//! WFDB software package; so do de Chazal et al., IEEE Trans Biomed Eng 51(7):1196-1206, 2004, equations 7–10) therefore
//! counts, with the true class as capital and the called one as small letter, o for missed and O for a detection that is no beat:
//!
//! - V: found `Vv`; missed `Vn + Vs + Vf + Vq + Vo`; false `Nv + Sv + Ov`, without `Fv` and `Qv`;
//! - S: found `Ss`; missed `Sn + Sv + Sf + Sq + So`; false `Ns + Vs + Fs + Os`, without `Qs`.
//!
//! [`Confusion::class`] counts every other call as false; for V the difference is large where fusion beats are many.

use super::BeatClass;
use crate::statistics::{ClassMetrics, Confusion};

/// Beats that an evaluation could not lay beside a call, and calls without a beat, by class.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Unmatched {
    /// Beats that were not detected, by their true class in the order of [`BeatClass::ALL`].
    pub missed: [u64; 5],
    /// Detections that are no beat, by the class they were called.
    pub extra: [u64; 5],
}

impl Unmatched {
    /// Adds the counts of another.
    pub fn merge(&mut self, other: &Self) {
        for at in 0..5 {
            self.missed[at] += other.missed[at];
            self.extra[at] += other.extra[at];
        }
    }
}

/// How well a class is found, by the rules above; N, F and Q, for which the standard has none, with every other call as false.
/// `confusion` is over the five classes in the order of [`BeatClass::ALL`].
pub fn ec57(confusion: &Confusion, unmatched: &Unmatched, class: BeatClass) -> ClassMetrics {
    let (own, counts) = (class.index(), confusion.counts());
    let left_out: &[BeatClass] = match class {
        BeatClass::V => &[BeatClass::F, BeatClass::Q],
        BeatClass::S => &[BeatClass::Q],
        _ => &[],
    };
    let hits = counts[own][own];
    let cases = counts[own].iter().sum::<u64>() + unmatched.missed[own];
    let false_calls = BeatClass::ALL
        .into_iter()
        .filter(|truth| *truth != class && !left_out.contains(truth))
        .map(|truth| counts[truth.index()][own])
        .sum::<u64>();
    let called = hits + false_calls + unmatched.extra[own];
    let share = |part: u64, whole: u64| (whole > 0).then(|| part as f64 / whole as f64);
    ClassMetrics {
        cases,
        sensitivity: share(hits, cases),
        ppv: share(hits, called),
        f1: share(2 * hits, cases + called),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fusion_beats_are_no_false_ventricular_ones_but_false_supraventricular_ones() {
        let mut confusion = Confusion::new(&BeatClass::NAMES);
        let calls = [('V', 'V', 8), ('V', 'N', 2), ('N', 'V', 1), ('S', 'V', 1), ('F', 'V', 5)];
        let more = [('Q', 'V', 3), ('S', 'S', 6), ('F', 'S', 1), ('Q', 'S', 9), ('V', 'S', 0)];
        for (truth, called, count) in calls.into_iter().chain(more) {
            let class = |letter| BeatClass::from_annotation(letter).unwrap().index();
            (0..count).for_each(|_| confusion.add(class(truth), class(called)));
        }
        let unmatched = Unmatched { missed: [0, 0, 2, 0, 0], extra: [4, 0, 0, 0, 0] };
        let v = ec57(&confusion, &unmatched, BeatClass::V);
        assert_eq!((v.cases, v.sensitivity, v.ppv), (12, Some(8.0 / 12.0), Some(0.8)));
        let s = ec57(&confusion, &unmatched, BeatClass::S);
        assert_eq!((s.cases, s.sensitivity, s.ppv), (7, Some(6.0 / 7.0), Some(6.0 / 7.0)));
        // Counted strictly, all of them are false.
        assert_eq!(confusion.class(BeatClass::V.index()).ppv, Some(8.0 / 18.0));
        let n = ec57(&confusion, &unmatched, BeatClass::N);
        assert_eq!((n.cases, n.ppv), (1, Some(0.0)));
        assert_eq!(ec57(&confusion, &Unmatched::default(), BeatClass::F).f1, Some(0.0));
    }
}
