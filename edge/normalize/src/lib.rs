//! Device profiles: bytes to observations, without I/O
