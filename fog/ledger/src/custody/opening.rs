//! What goes along with an item: its number and the key that opens its name in the log.
//!
//! # Format
//! The key is HMAC-SHA-256 (RFC 2104) under the issuer's secret over `haar-item-key-v1`, the number of
//! bytes of the issuer's name u8, the name, and the serial number. The item is HMAC-SHA-256 under that
//! key over `haar-item-v1` and the same.

use super::chain::{Chain, ItemKind};
use crate::consent::Token;
use crate::governance::{Digest, Hex, MemberName, State};
use crate::leaf::{LeafKey, LeafKind};
use crate::tables::Record;
use hmac::digest::KeyInit;
use hmac::{Hmac, Mac};
use serde::{Deserialize, Serialize};
use sha2::Sha256;
use std::collections::BTreeMap;
use std::fmt;
use zeroize::Zeroizing;

/// The most items that one member keeps account of.
pub const MAX_HOLDINGS: usize = 1 << 20;

const KEY_DOMAIN: &[u8] = b"haar-item-key-v1";
const ITEM_DOMAIN: &[u8] = b"haar-item-v1";

/// From which an issuer's item keys come. Who has it can find the issuer's items in the log.
pub struct CustodySecret(Zeroizing<[u8; 32]>);

/// The number of an item, and the key to its name. Confidential to those along the chain.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Opening {
    /// Who issued it.
    pub issuer: MemberName,
    /// Its serial number.
    pub serial: Token,
    key: Hex<32>,
}

/// Why an item is not what it is said to be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Flag {
    /// The log has no such item.
    #[error("the item was never issued under this number and key")]
    Unknown,
    /// Somebody else issued it.
    #[error("the item was issued by {0}, not by whom its papers say")]
    Issuer(MemberName),
    /// It is another sort of thing.
    #[error("the item was issued as a {0}")]
    Kind(ItemKind),
    /// The chain has ended.
    #[error("the item's chain has ended")]
    Ended,
    /// Who gives it does not have it.
    #[error("the item is held by {0}, not by who gives it")]
    Holder(MemberName),
    /// There is another with this number.
    #[error("another item has this issuer and serial number: one of them is a copy")]
    SerialTwice,
    /// Too many.
    #[error("at most {MAX_HOLDINGS} items are kept account of")]
    Full,
}

impl CustodySecret {
    /// From 32 fresh and uniformly random bytes, kept for as long as items are issued.
    pub fn new(secret: [u8; 32]) -> Self {
        Self(Zeroizing::new(secret))
    }

    /// The opening of the item that `issuer`, whose secret this is, gives this number.
    pub fn open(&self, issuer: MemberName, serial: Token) -> Opening {
        let key = Hex(mac(&self.0, KEY_DOMAIN, &issuer, &serial));
        Opening { issuer, serial, key }
    }
}

impl Opening {
    /// Its name in the log.
    pub fn item(&self) -> Digest {
        Hex(mac(&self.key.0, ITEM_DOMAIN, &self.issuer, &self.serial))
    }

    /// The chain of an item that `giver` wants to hand over as a `what`.
    ///
    /// # Errors
    /// If it is not what it is said to be.
    pub fn check<'a>(
        &self,
        what: ItemKind,
        giver: &MemberName,
        state: &'a State,
    ) -> Result<&'a Chain, Flag> {
        self.check_chain(what, giver, state.item(&self.item()))
    }

    /// As [`Opening::check`], with the chain that a server says the item has, if it has one.
    ///
    /// # Errors
    /// If it is not what it is said to be.
    pub fn check_chain<'a>(
        &self,
        what: ItemKind,
        giver: &MemberName,
        chain: Option<&'a Chain>,
    ) -> Result<&'a Chain, Flag> {
        let chain = chain.ok_or(Flag::Unknown)?;
        match (chain.issuer(), chain.holder()) {
            (Some(issuer), _) if *issuer != self.issuer => Err(Flag::Issuer(issuer.clone())),
            _ if chain.what != what => Err(Flag::Kind(chain.what)),
            _ if chain.ended.is_some() => Err(Flag::Ended),
            (_, Some(holder)) if holder != giver => Err(Flag::Holder(holder.clone())),
            _ => Ok(chain),
        }
    }

    /// The record that keeps it in a site's log. `key` must be fresh and uniformly random.
    pub fn record(&self, key: LeafKey) -> Record {
        let body = serde_json::to_vec(self).expect("three texts are always written");
        Record { kind: LeafKind::Custody, name: self.item().0, key, body }
    }
}

impl fmt::Debug for CustodySecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CustodySecret")
    }
}

impl fmt::Debug for Opening {
    /// Not the number, not the key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Opening({})", self.item())
    }
}

/// The items that a member has had in its hands, to see a number that comes twice.
#[derive(Default)]
pub struct Holdings(BTreeMap<(MemberName, Token), Digest>);

impl Holdings {
    /// Takes an item into account; the same one again is fine.
    ///
    /// # Errors
    /// If another item has the same issuer and number.
    pub fn add(&mut self, opening: &Opening) -> Result<(), Flag> {
        let number = (opening.issuer.clone(), opening.serial.clone());
        match self.0.get(&number) {
            Some(known) if *known != opening.item() => Err(Flag::SerialTwice),
            Some(_) => Ok(()),
            None if self.0.len() >= MAX_HOLDINGS => Err(Flag::Full),
            None => {
                self.0.insert(number, opening.item());
                Ok(())
            }
        }
    }
}

fn mac(key: &[u8; 32], domain: &[u8], issuer: &MemberName, serial: &Token) -> [u8; 32] {
    let mut block = Zeroizing::new([0; 64]);
    block[..32].copy_from_slice(key);
    let mut mac = <Hmac<Sha256> as KeyInit>::new((&*block).into());
    mac.update(domain);
    // A member's name has at most 64 bytes.
    mac.update(&[issuer.as_str().len() as u8]);
    mac.update(issuer.as_str().as_bytes());
    mac.update(serial.as_str().as_bytes());
    mac.finalize().into_bytes().into()
}
