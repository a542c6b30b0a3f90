//! Boosted trees: what a network of this size does not reach on tables with gaps.
//!
//! A [`Forest`] is a sum of small trees over named numbers that may be missing; it is grown on histograms
//! ([`grow`]), kept as tensors in the same safetensors as networks are, and explained exactly ([`Forest::explain`]).
//!
//! Sources: gradient boosting with second derivatives, regularised leaves and a learned way for what is missing (Chen,
//! Guestrin, "XGBoost", KDD 2016, equations 5–7 and algorithm 3); leaf-wise growth on histograms (Ke et al.,
//! "LightGBM", NIPS 2017); attribution (Lundberg et al., "From local explanations to global understanding with
//! explainable AI for trees", Nat Mach Intell 2, 2020, algorithm 2).

mod bins;
mod explain;
mod forest;
mod grow;
mod kept;

pub use explain::Shares;
pub use forest::{Forest, ForestError, MAX_FEATURES, MAX_NODES_PER_TREE, MAX_TREES};
pub use grow::{Growth, Table, grow};
pub use kept::KeepError;
pub(crate) use kept::{forget, keep, numbered, restore};
