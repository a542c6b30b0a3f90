//! A secret that several custodians keep, none of them alone: the key that makes pseudonyms.
//!
//! The key is divided into `m` shares by Shamir's scheme over GF(256) (Shamir, How to share a secret,
//! 1979; crate `blahaj`), any `k` of which give it back and any fewer nothing. It is put together only when the
//! consortium log has a *request* to do so, cosigned as the policy wants: whoever is asked for a share can
//! see that all members see it too.
//!
//! # Format
//! A share is a file of mode 0600 with six lines:
//!
//! ```text
//! haar-custodian-share-v1
//! escrow <64 hexadecimal digits>
//! threshold <k>
//! share <number, 1 to m> of <m>
//! data <base64>
//! check <64 hexadecimal digits>
//! ```
//!
//! *Escrow* is HMAC-SHA-256 under the secret over `haar-escrow-v1`, k and m: it names the secret, tells
//! nothing of a random one, and says after recovery whether the shares were right. *Check* is SHA-256 of the lines
//! before it: it finds a damaged share before the shares are put together.
//!
//! # The request
//! An entry of kind `reidentification` with the body `{"escrow":"<hex>","reason":"<text>"}`. The reason names no patient: the
//! log is read by all members.
//!
//! # Not guaranteed
//! Software cannot stop `k` custodians who agree among themselves. What the request buys is that an honest
//! custodian has a rule to go by, and that [`recover`] leaves a trace wherever it is the tool that is
//! used. Shares are not encrypted: each is for one custodian's eyes and disk. Whoever puts the key together has
//! it from then on.

use crate::entry::{Entry, EntryKind};
use blahaj::{Share as Points, Sharks};
use haar_identity::base64;
use hmac::digest::KeyInit;
use hmac::{Hmac, Mac};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;
use zeroize::Zeroizing;

/// The most custodians.
pub const MAX_CUSTODIANS: u8 = 32;
/// The longest secret.
pub const MAX_SECRET_BYTES: usize = 1024;
/// The longest share file.
pub const MAX_SHARE_BYTES: usize = 4 * 1024;
/// The longest reason of a request.
pub const MAX_REASON_BYTES: usize = 1024;

const HEADER: &str = "haar-custodian-share-v1";

/// Names a secret without telling it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct EscrowId([u8; 32]);

impl EscrowId {
    fn of(secret: &[u8], threshold: u8, custodians: u8) -> Result<Self, CustodianError> {
        let mac = <Hmac<Sha256> as KeyInit>::new_from_slice(secret);
        let mut mac = mac.map_err(|_| CustodianError::Secret)?;
        mac.update(b"haar-escrow-v1");
        mac.update(&[threshold, custodians]);
        Ok(Self(mac.finalize().into_bytes().into()))
    }
}

impl fmt::Display for EscrowId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl FromStr for EscrowId {
    type Err = CustodianError;
    fn from_str(text: &str) -> Result<Self, CustodianError> {
        let mut id = [0; 32];
        hex::decode_to_slice(text, &mut id).map_err(|_| CustodianError::Malformed)?;
        if hex::encode(id) == text { Ok(Self(id)) } else { Err(CustodianError::Malformed) }
    }
}

/// What one custodian keeps.
#[derive(Clone)]
pub struct Share {
    escrow: EscrowId,
    threshold: u8,
    number: u8,
    custodians: u8,
    data: Zeroizing<Vec<u8>>,
}

/// Why a secret was not divided or not put together.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CustodianError {
    /// A threshold that makes no sense.
    #[error(
        "of 2 to {MAX_CUSTODIANS} custodians at least 2 and at most all must agree; {threshold} of \
         {custodians} is not that"
    )]
    Threshold {
        /// How many must agree.
        threshold: u8,
        /// Of how many.
        custodians: u8,
    },
    /// Too long or too short.
    #[error("the secret must have 16 to {MAX_SECRET_BYTES} bytes")]
    Secret,
    /// Not a share.
    #[error("not a custodian's share, or it was altered")]
    Malformed,
    /// Shares of several secrets.
    #[error("share {0} belongs to another secret than the first one")]
    OtherEscrow(u8),
    /// One share twice.
    #[error("share {0} was given twice")]
    Twice(u8),
    /// Too few.
    #[error("{have} shares were given and {need} are needed")]
    TooFew {
        /// How many were given.
        have: usize,
        /// How many must agree.
        need: u8,
    },
    /// What came out is not the secret.
    #[error("the shares do not give the secret that they name: at least one of them is forged")]
    Forged,
    /// The entry is not a request for this secret.
    #[error("the entry in the log is no request to open this secret: {0}")]
    Request(&'static str),
}

/// Divides `secret` among `custodians`, any `threshold` of whom can put it together.
///
/// The coefficients come from the operating system's generator, by way of `blahaj`.
///
/// # Errors
/// If the numbers make no sense or the secret has a length that none has.
pub fn split(
    secret: &[u8],
    threshold: u8,
    custodians: u8,
) -> Result<(EscrowId, Vec<Share>), CustodianError> {
    if !(2..=MAX_CUSTODIANS).contains(&custodians) || !(2..=custodians).contains(&threshold) {
        return Err(CustodianError::Threshold { threshold, custodians });
    }
    if !(16..=MAX_SECRET_BYTES).contains(&secret.len()) {
        return Err(CustodianError::Secret);
    }
    let escrow = EscrowId::of(secret, threshold, custodians)?;
    let share = |(number, points): (u8, Points)| {
        let data = Zeroizing::new(Vec::from(&points));
        Share { escrow, threshold, number, custodians, data }
    };
    let points = Sharks(threshold).dealer(secret);
    Ok((escrow, (1..=custodians).zip(points).map(share).collect()))
}

/// A request to put a secret together, as it stands in the log.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Request {
    escrow: String,
    reason: String,
}

impl Request {
    /// The body of a `reidentification` entry.
    ///
    /// # Errors
    /// If the reason is empty or too long.
    pub fn new(escrow: EscrowId, reason: &str) -> Result<Self, CustodianError> {
        if !(1..=MAX_REASON_BYTES).contains(&reason.len()) {
            return Err(CustodianError::Request("a reason of 1 to 1024 bytes is needed"));
        }
        Ok(Self { escrow: escrow.to_string(), reason: reason.to_owned() })
    }

    /// Why it is to be opened.
    pub fn reason(&self) -> &str {
        &self.reason
    }
}

/// Puts a secret together from shares, once the log has `request`. That the entry is in a log that counts is the
/// caller's to have checked with [`crate::verify_entry`], pinning whoever may request.
///
/// # Errors
/// If the entry is no request for this secret, or the shares are too few, of several secrets, or forged.
pub fn recover(
    request: &crate::VerifiedEntry,
    shares: &[Share],
) -> Result<Zeroizing<Vec<u8>>, CustodianError> {
    let first = shares.first().ok_or(CustodianError::TooFew { have: 0, need: 2 })?;
    if !request.signer_pinned {
        return Err(CustodianError::Request("nobody said whose signature on it counts"));
    }
    requested(&request.entry, first.escrow)?;
    let mut numbers = BTreeSet::new();
    for share in shares {
        let same = (share.escrow, share.threshold, share.custodians)
            == (first.escrow, first.threshold, first.custodians);
        if !same {
            return Err(CustodianError::OtherEscrow(share.number));
        }
        if !numbers.insert(share.number) {
            return Err(CustodianError::Twice(share.number));
        }
    }
    if shares.len() < usize::from(first.threshold) {
        return Err(CustodianError::TooFew { have: shares.len(), need: first.threshold });
    }
    let points: Result<Vec<Points>, _> =
        shares.iter().map(|share| Points::try_from(share.data.as_slice())).collect();
    let points = points.map_err(|_| CustodianError::Malformed)?;
    let secret = Sharks(first.threshold).recover(&points).map_err(|_| CustodianError::Forged)?;
    let secret = Zeroizing::new(secret);
    if EscrowId::of(&secret, first.threshold, first.custodians)? == first.escrow {
        Ok(secret)
    } else {
        Err(CustodianError::Forged)
    }
}

fn requested(entry: &Entry, escrow: EscrowId) -> Result<(), CustodianError> {
    if entry.kind() != EntryKind::Reidentification {
        return Err(CustodianError::Request("it is of another kind"));
    }
    let body: Request =
        entry.body().map_err(|_| CustodianError::Request("its body is another one"))?;
    if body.escrow != escrow.to_string() {
        return Err(CustodianError::Request("it names another secret"));
    }
    Ok(())
}

impl Share {
    /// The secret that it is of.
    pub fn escrow(&self) -> EscrowId {
        self.escrow
    }

    /// Its number, from 1.
    pub fn number(&self) -> u8 {
        self.number
    }

    /// How many must agree.
    pub fn threshold(&self) -> u8 {
        self.threshold
    }

    /// The file's content.
    pub fn to_text(&self) -> Zeroizing<String> {
        let lines = format!(
            "{HEADER}\nescrow {}\nthreshold {}\nshare {} of {}\ndata {}\n",
            self.escrow,
            self.threshold,
            self.number,
            self.custodians,
            Zeroizing::new(base64::encode(&self.data)).as_str()
        );
        let check = hex::encode(Sha256::digest(&lines));
        Zeroizing::new(lines + &format!("check {check}\n"))
    }

    fn read(text: &str) -> Option<Self> {
        let mut lines = text.lines();
        let mut field = |name: &str| lines.next()?.strip_prefix(name);
        field(HEADER)?;
        let escrow = field("escrow ")?.parse().ok()?;
        let threshold = field("threshold ")?.parse().ok()?;
        let (number, custodians) = field("share ")?.split_once(" of ")?;
        let (number, custodians) = (number.parse().ok()?, custodians.parse().ok()?);
        let data = Zeroizing::new(base64::decode(field("data ")?)?);
        // The first byte is the point at which the polynomials were taken.
        let fits = (2..=MAX_CUSTODIANS).contains(&custodians)
            && (2..=custodians).contains(&threshold)
            && (1..=custodians).contains(&number)
            && data.first() == Some(&number)
            && (17..=MAX_SECRET_BYTES + 1).contains(&data.len());
        fits.then_some(Self { escrow, threshold, number, custodians, data })
    }
}

impl FromStr for Share {
    type Err = CustodianError;

    fn from_str(text: &str) -> Result<Self, CustodianError> {
        let share = Some(text).filter(|text| text.len() <= MAX_SHARE_BYTES).and_then(Self::read);
        match share {
            // With the check line, this says that no byte was altered.
            Some(share) if share.to_text().as_str() == text => Ok(share),
            _ => Err(CustodianError::Malformed),
        }
    }
}

impl fmt::Debug for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Share({} of {}, escrow {})", self.number, self.custodians, self.escrow)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entry_proof::tests::{entry_of, plain, policy};
    use crate::fixtures::identity;
    use crate::{Trust, VerifiedEntry, prove_entry, verify_entry};
    use proptest::prelude::*;

    const SECRET: [u8; 32] = [0x5a; 32];

    fn witnessed(kind: EntryKind, escrow: EscrowId) -> VerifiedEntry {
        let body = Request::new(escrow, "court order 17").unwrap();
        let entry = entry_of(kind, &body, &identity());
        let proof = prove_entry(&plain(&entry, 0..3), &entry, identity().vkey(), None).to_text();
        let keys = [identity().vkey().clone()];
        verify_entry(&proof, &policy(), Trust::Pinned(&keys)).unwrap()
    }

    #[test]
    fn any_three_of_five_and_no_two() {
        let (escrow, shares) = split(&SECRET, 3, 5).unwrap();
        let request = witnessed(EntryKind::Reidentification, escrow);
        for a in 0..5 {
            for b in 0..5 {
                let two = [shares[a].clone(), shares[b].clone()];
                let refused = recover(&request, &two).unwrap_err();
                let twice = CustodianError::Twice(two[0].number());
                let few = CustodianError::TooFew { have: 2, need: 3 };
                assert_eq!(refused, if a == b { twice } else { few });
                for c in (0..5).filter(|c| a < b && b < *c) {
                    let three = [&two[..], &[shares[c].clone()]].concat();
                    assert_eq!(*recover(&request, &three).unwrap(), SECRET);
                }
            }
        }
        assert_eq!(*recover(&request, &shares).unwrap(), SECRET);
        // Two shares give nothing: with the threshold lowered in their files, another secret comes out.
        let two: Vec<_> =
            shares[..2].iter().cloned().map(|s| Share { threshold: 2, ..s }).collect();
        assert_eq!(recover(&request, &two).unwrap_err(), CustodianError::Forged);
    }

    #[test]
    fn nothing_is_put_together_without_its_request() {
        let (escrow, shares) = split(&SECRET, 2, 3).unwrap();
        let (other, foreign) = split(&[7; 32], 2, 3).unwrap();
        for (request, why) in [
            (witnessed(EntryKind::Custody, escrow), "it is of another kind"),
            (witnessed(EntryKind::Reidentification, other), "it names another secret"),
        ] {
            assert_eq!(recover(&request, &shares).unwrap_err(), CustodianError::Request(why));
        }
        let request = witnessed(EntryKind::Reidentification, escrow);
        let unpinned = VerifiedEntry { signer_pinned: false, ..request.clone() };
        assert!(matches!(recover(&unpinned, &shares), Err(CustodianError::Request(_))));
        let mixed = [shares[0].clone(), foreign[1].clone()];
        assert_eq!(recover(&request, &mixed).unwrap_err(), CustodianError::OtherEscrow(2));
        let mut forged = shares[1].clone();
        forged.data[5] ^= 1;
        let mixed = [shares[0].clone(), forged];
        assert_eq!(recover(&request, &mixed).unwrap_err(), CustodianError::Forged);
        assert!(recover(&request, &[]).is_err());
    }

    #[test]
    fn numbers_that_make_no_sense_are_refused() {
        for (threshold, custodians) in [(0, 3), (1, 3), (4, 3), (2, 33), (1, 1)] {
            assert!(split(&SECRET, threshold, custodians).is_err(), "{threshold} of {custodians}");
        }
        assert_eq!(split(&[1; 15], 2, 3).unwrap_err(), CustodianError::Secret);
    }

    #[test]
    fn a_share_has_one_text() {
        let (_, shares) = split(&SECRET, 3, 5).unwrap();
        let text = shares[4].to_text();
        let read: Share = text.parse().unwrap();
        assert_eq!(read.to_text(), text);
        assert!(!text.contains(&haar_identity::base64::encode(&SECRET)));
        for byte in 0..text.len() {
            let mut altered = text.as_bytes().to_vec();
            altered[byte] ^= 1;
            let altered = String::from_utf8(altered).unwrap();
            assert!(altered.parse::<Share>().is_err(), "byte {byte}");
        }
        assert!(format!("{}\n", text.as_str()).parse::<Share>().is_err());
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "(haar-custodian-share-v1\n)?[a-z0-9 \n+/=]{0,200}") {
            prop_assert!(text.parse::<Share>().is_err());
        }
    }
}
