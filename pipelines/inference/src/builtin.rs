//! The models that come with Haar.

use crate::package::{LoadError, Package};

/// A model that is built in: its folder, file by file.
#[derive(Clone, Copy, Debug)]
pub struct Builtin {
    /// The text of `manifest.toml`.
    pub manifest: &'static str,
    /// `weights.safetensors`.
    pub weights: &'static [u8],
    /// The text of `CARD.md`.
    pub card: &'static str,
}

macro_rules! builtin {
    ($($folder:literal),*) => {
        &[$(Builtin {
            manifest: include_str!(concat!("../models/", $folder, "/manifest.toml")),
            weights: include_bytes!(concat!("../models/", $folder, "/weights.safetensors")),
            card: include_str!(concat!("../models/", $folder, "/CARD.md")),
        }),*]
    };
}

/// The models that come with Haar, by id.
pub const BUILTIN: &[Builtin] = builtin!(
    "condition-group",
    "device-faults",
    "ecg-beats",
    "ecg-rhythm",
    "personal-normal",
    "sepsis"
);

impl Builtin {
    /// Checked like any other model.
    ///
    /// # Errors
    /// None that a build which passed its tests can give.
    pub fn package(&self) -> Result<Package, LoadError> {
        Package::from_parts(self.manifest, self.weights)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_built_in_model_is_whole_small_and_has_its_card() {
        for builtin in BUILTIN {
            let package = builtin.package().unwrap();
            let manifest = package.manifest();
            assert!(builtin.card.contains(&manifest.weights.sha256), "{}", manifest.id);
            assert!(builtin.weights.len() <= 2 << 20, "{}", manifest.id);
            // Whoever was trained on says who.
            let cases: u64 = manifest.data.iter().map(|data| data.cases).sum();
            assert_eq!(package.lineage().is_empty(), cases == 0, "{}", manifest.id);
            assert!(!manifest.data.is_empty() && !manifest.metrics.evaluation.is_empty());
        }
        let ids: Vec<String> = BUILTIN
            .iter()
            .map(|builtin| builtin.package().unwrap().manifest().id.clone())
            .collect();
        assert!(ids.is_sorted(), "{ids:?}");
    }
}
