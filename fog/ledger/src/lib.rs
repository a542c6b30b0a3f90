//! The transparency log of a site: leaves, tiles, checkpoints, proofs
