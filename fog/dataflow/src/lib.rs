//! Epochs, windows and rollups on timely and differential dataflow.
#![forbid(unsafe_code)]

pub mod aggregate;
pub mod conclude;
pub mod deployment;
pub mod device;
mod explain;
pub mod item;
pub mod load;
pub mod operator;
pub mod rollup;
pub mod runtime;
pub mod window;
