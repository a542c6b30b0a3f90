//! The edge box: device protocols in, durable spool, uplink out
