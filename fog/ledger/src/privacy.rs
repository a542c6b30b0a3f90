//! What keeps a patient's data from whoever should not have it.
//!
//! - **Records at rest**: every record is sealed under the data key of its patient, every
//!   data key under the site's [`crate::RecordsKey`], which lies in a file beside the database.
//! - **Facts at rest**: what a site keeps beside its log is sealed the same way ([`crate::SiteLog::fact_sealer`]).
//! - **Erasure** ([`crate::SiteLog::erase`]): destroying a patient's data key. Leaves, tree, checkpoints and every
//!   proof handed out before stay as they are.
//! - **Tiles** ([`scan`]): a search for what must never stand in anything that is published.
//! - **Pseudonyms** ([`custodians`]): the key that makes them, divided among custodians who put it
//!   together only after the request stands in the consortium log.

pub mod custodians;
pub(crate) mod erasure;
pub(crate) mod facts;
pub(crate) mod records_key;
pub mod scan;
pub(crate) mod seal;
