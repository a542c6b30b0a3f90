//! Bounded durable FIFO on redb
