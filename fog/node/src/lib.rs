//! The fog node: ingest, dataflow, commit, query
