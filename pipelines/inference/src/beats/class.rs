//! The five classes of beats.

use serde::{Deserialize, Serialize};
use std::fmt;

/// A class of heart beats after ANSI/AAMI EC57.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub enum BeatClass {
    /// Normal, bundle branch block, or an atrial or nodal escape.
    N,
    /// Supraventricular ectopic.
    S,
    /// Ventricular ectopic.
    V,
    /// Fusion of a ventricular and a normal beat.
    F,
    /// Paced, fusion with a paced beat, or not classifiable.
    Q,
}

impl BeatClass {
    /// All five, in the order of every array by class in this crate.
    pub const ALL: [Self; 5] = [Self::N, Self::S, Self::V, Self::F, Self::Q];

    /// Their letters, in the same order.
    pub const NAMES: [&'static str; 5] = ["N", "S", "V", "F", "Q"];

    /// Its place in [`BeatClass::ALL`].
    pub const fn index(self) -> usize {
        self as usize
    }

    /// Its letter, as a name.
    pub const fn name(self) -> &'static str {
        Self::NAMES[self as usize]
    }

    /// Its letter.
    pub const fn letter(self) -> char {
        match self {
            Self::N => 'N',
            Self::S => 'S',
            Self::V => 'V',
            Self::F => 'F',
            Self::Q => 'Q',
        }
    }

    /// The class of a beat annotation in the code of PhysioNet's databases; `None` for annotations
    /// that are no beat (rhythm changes, noise, waves).
    ///
    /// After EC57 and table I of de Chazal et al., IEEE Trans Biomed Eng 51(7):1196–1206, 2004: escape
    /// beats (`e`, `j`, and `n`, which MIT-BIH does not use) count as N, ventricular escapes (`E`) and
    /// R-on-T (`r`) as V. Flutter waves (`!`) are no beats.
    pub const fn from_annotation(symbol: char) -> Option<Self> {
        match symbol {
            'N' | 'L' | 'R' | 'B' | 'e' | 'j' | 'n' => Some(Self::N),
            'A' | 'a' | 'J' | 'S' => Some(Self::S),
            'V' | 'E' | 'r' => Some(Self::V),
            'F' => Some(Self::F),
            '/' | 'f' | 'Q' | '?' => Some(Self::Q),
            _ => None,
        }
    }
}

impl fmt::Display for BeatClass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.letter())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn letters_are_their_own_annotations() {
        for (index, class) in BeatClass::ALL.into_iter().enumerate() {
            assert_eq!(class.index(), index);
            assert_eq!(BeatClass::from_annotation(class.letter()), Some(class));
        }
        for symbol in "+~|!\"x[]".chars() {
            assert_eq!(BeatClass::from_annotation(symbol), None);
        }
    }
}
