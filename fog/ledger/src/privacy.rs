//! What keeps a patient's data from whoever should not have it.
//!
//! - **Records at rest** ([`seal`]): every record is sealed under the data key of its patient, every
//!   data key under the site's [`RecordsKey`], which lies in a file beside the database.
//! - **Erasure** ([`erasure`]): destroying a patient's data key. Leaves, tree, checkpoints and every
//!   proof handed out before stay as they are.
//! - **Tiles** ([`scan()`]): a search for what must never stand in anything that is published.
//! - **Pseudonyms** ([`custodians`]): the key that makes them, divided among custodians who put it
//!   together only after the request stands in the consortium log.

pub(crate) mod erasure;
pub(crate) mod records_key;
pub(crate) mod seal;
