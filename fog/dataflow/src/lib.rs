//! Epochs, windows and rollups on timely and differential dataflow
