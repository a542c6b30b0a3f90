//! Pipeline definitions and what they mean
