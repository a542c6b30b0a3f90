//! The edge-fog protocol: gRPC with credit, resume and cumulative acknowledgement
