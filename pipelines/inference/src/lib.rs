//! Models on candle: manifest, weights, batched prediction, training
