//! Who asks a site's read API: requests that are signed by a registered key.
//!
//! # Format
//! HTTP message signatures (RFC 9421), one profile of it. A request has exactly these two fields:
//!
//! ```text
//! Signature-Input: haar=("@method" "@request-target");created=<POSIX seconds>;keyid="<name of the key>";alg="ed25519";nonce="<32 hexadecimal digits>";tag="<origin of the site's log>"
//! Signature: haar=:<base 64 of the Ed25519 signature>:
//! ```
//!
//! in this order and spelling; what a general implementation makes of these components it accepts, but other
//! components or parameters are refused here. A request has no body, so none is covered.
//!
//! # Limits and trust
//! A signature counts for [`MAX_SKEW_S`] before and after its time, and once ([`Nonces`]), at the one site that
//! its tag names. The bytes that are signed do not end in a newline and so are no signed note: a key that signs
//! requests cannot be made to sign a statement by it, nor the other way.
//!
//! # Not guaranteed
//! That nobody reads along: that is TLS. A node that restarts has forgotten which signatures it saw.

use haar_identity::base64;
use haar_identity::{Identity, VerifierKey};
use sha2::{Digest, Sha256};
use std::collections::HashMap;

/// How far a signature's time may be from the site's, in seconds.
pub const MAX_SKEW_S: u64 = 30;

/// The most signatures that are remembered, so that none counts twice; beyond it requests are refused.
pub const MAX_NONCES: usize = 65_536;

/// The longest field that is read.
const MAX_FIELD_BYTES: usize = 1_024;

const COMPONENTS: &str = r#"("@method" "@request-target")"#;

/// Why a request counts for nobody's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RequestError {
    /// No signature of the one form.
    #[error("the request bears no RFC 9421 signature of the form that this site reads")]
    Malformed,
    /// Made for another site.
    #[error("the request was signed for another site")]
    Site,
    /// Too old, or from the future.
    #[error("the signature's time is more than {MAX_SKEW_S} s from this site's; check the clock")]
    Time,
    /// It does not fit.
    #[error("the request is not signed by a registered key that counts")]
    Signature,
    /// It came before.
    #[error("the same signed request came before; sign another")]
    Repeated,
    /// Too many at once.
    #[error("too many requests in a minute; wait")]
    Busy,
}

/// The two fields of a signed request.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RequestSignature {
    /// `Signature-Input`.
    pub input: String,
    /// `Signature`.
    pub signature: String,
}

/// What a signature says of itself; not checked.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SignedRequest {
    params: String,
    key: String,
    created_s: u64,
    site: String,
    signature: [u8; 64],
}

impl RequestSignature {
    /// Signs a request to `target` (path and query, as they are sent) for the site whose log has the origin
    /// `site`. `nonce` must be fresh.
    pub fn sign(
        method: &str,
        target: &str,
        site: &str,
        created_s: u64,
        nonce: [u8; 16],
        identity: &Identity,
    ) -> Self {
        let params = params(created_s, identity.origin(), &hex::encode(nonce), site);
        let signed = identity.sign_bytes(&base(method, target, &params));
        let signature = format!("haar=:{}:", base64::encode(&signed));
        Self { input: format!("haar={params}"), signature }
    }
}

impl SignedRequest {
    /// Reads the two fields.
    ///
    /// # Errors
    /// Unless they have the one form.
    pub fn parse(input: &str, signature: &str) -> Result<Self, RequestError> {
        Self::read(input, signature).ok_or(RequestError::Malformed)
    }

    fn read(input: &str, signature: &str) -> Option<Self> {
        if input.len() > MAX_FIELD_BYTES || signature.len() > MAX_FIELD_BYTES {
            return None;
        }
        let given = input.strip_prefix("haar=")?;
        let rest = given.strip_prefix(COMPONENTS)?.strip_prefix(";created=")?;
        let (created, rest) = rest.split_once(";keyid=\"")?;
        let (key, rest) = rest.split_once("\";alg=\"ed25519\";nonce=\"")?;
        let (nonce, rest) = rest.split_once("\";tag=\"")?;
        let site = rest.strip_suffix('"')?;
        let created_s: u64 = created.parse().ok()?;
        let sound = nonce.len() == 32
            && [key, nonce, site]
                .iter()
                .all(|text| !text.is_empty() && !text.contains(['"', '\\']));
        let signature = signature.strip_prefix("haar=:")?.strip_suffix(':')?;
        let signature = base64::decode_array(signature)?;
        let params = params(created_s, key, nonce, site);
        let one_form = sound && params == given;
        let (key, site) = (key.to_owned(), site.to_owned());
        one_form.then_some(Self { params, key, created_s, site, signature })
    }

    /// When it was signed, as it says, in POSIX seconds.
    pub fn created_s(&self) -> u64 {
        self.created_s
    }

    /// SHA-256 of what was signed of the signature itself, which names key, nonce, time and site.
    pub fn id(&self) -> [u8; 32] {
        Sha256::digest(&self.params).into()
    }

    /// The name of the key that is said to have signed.
    pub fn key_name(&self) -> &str {
        &self.key
    }

    /// Checks it for a request that came to the site `site` at `now_s`, under one of `keys`; which one it was.
    ///
    /// # Errors
    /// If it does not count, or came before.
    pub fn check<'a>(
        &self,
        method: &str,
        target: &str,
        site: &str,
        now_s: u64,
        mut keys: impl Iterator<Item = &'a VerifierKey>,
        nonces: &mut Nonces,
    ) -> Result<&'a VerifierKey, RequestError> {
        if self.site != site {
            return Err(RequestError::Site);
        }
        if self.created_s.abs_diff(now_s) > MAX_SKEW_S {
            return Err(RequestError::Time);
        }
        let bytes = base(method, target, &self.params);
        let fits =
            |key: &&VerifierKey| key.origin() == self.key && key.verifies(&bytes, &self.signature);
        let key = keys.find(fits).ok_or(RequestError::Signature)?;
        nonces.take(self.id(), self.created_s, now_s)?;
        Ok(key)
    }
}

/// The signatures that have counted while they could count again.
#[derive(Default)]
pub struct Nonces {
    /// By [`SignedRequest::id`], when they were signed.
    seen: HashMap<[u8; 32], u64>,
}

impl Nonces {
    /// With those that have counted before: id, and when each was signed.
    pub fn restore(seen: impl IntoIterator<Item = ([u8; 32], u64)>) -> Self {
        Self { seen: seen.into_iter().collect() }
    }

    fn take(&mut self, id: [u8; 32], created_s: u64, now_s: u64) -> Result<(), RequestError> {
        if self.seen.contains_key(&id) {
            return Err(RequestError::Repeated);
        }
        if self.seen.len() >= MAX_NONCES {
            self.seen.retain(|_, created_s| created_s.abs_diff(now_s) <= MAX_SKEW_S);
        }
        if self.seen.len() >= MAX_NONCES {
            return Err(RequestError::Busy);
        }
        self.seen.insert(id, created_s);
        Ok(())
    }
}

fn params(created_s: u64, key: &str, nonce: &str, site: &str) -> String {
    format!(
        r#"{COMPONENTS};created={created_s};keyid="{key}";alg="ed25519";nonce="{nonce}";tag="{site}""#
    )
}

/// The signature base, RFC 9421 section 2.5.
fn base(method: &str, target: &str, params: &str) -> Vec<u8> {
    format!("\"@method\": {method}\n\"@request-target\": {target}\n\"@signature-params\": {params}")
        .into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SITE: &str = "hospital.example/site";
    const TARGET: &str = "/v1/access/records/00?kind=vitals";

    fn doctor() -> Identity {
        Identity::generate("doctor.example", [3; 32]).unwrap()
    }

    fn signed(at_s: u64, nonce: u8) -> RequestSignature {
        RequestSignature::sign("GET", TARGET, SITE, at_s, [nonce; 16], &doctor())
    }

    fn check(
        signature: &RequestSignature,
        target: &str,
        site: &str,
        now_s: u64,
        nonces: &mut Nonces,
    ) -> Result<(), RequestError> {
        let read = SignedRequest::parse(&signature.input, &signature.signature)?;
        let (doctor, keys) = (doctor(), Identity::generate("doctor.example", [4; 32]).unwrap());
        let keys = [keys.vkey().clone(), doctor.vkey().clone()];
        read.check("GET", target, site, now_s, keys.iter(), nonces).map(drop)
    }

    #[test]
    fn a_request_counts_once_here_and_now() {
        let (one, mut nonces) = (signed(1_000, 1), Nonces::default());
        assert_eq!(check(&one, "/other", SITE, 1_000, &mut nonces), Err(RequestError::Signature));
        assert_eq!(check(&one, TARGET, "b/site", 1_000, &mut nonces), Err(RequestError::Site));
        assert_eq!(check(&one, TARGET, SITE, 1_031, &mut nonces), Err(RequestError::Time));
        assert_eq!(check(&one, TARGET, SITE, 969, &mut nonces), Err(RequestError::Time));
        assert_eq!(check(&one, TARGET, SITE, 1_030, &mut nonces), Ok(()));
        assert_eq!(check(&one, TARGET, SITE, 1_030, &mut nonces), Err(RequestError::Repeated));
        assert_eq!(check(&signed(1_000, 2), TARGET, SITE, 1_030, &mut nonces), Ok(()));
    }

    #[test]
    fn only_the_one_form_is_read() {
        let one = signed(1_000, 1);
        let refused = |from: &str, to: &str| {
            let input = one.input.replacen(from, to, 1);
            assert_ne!(input, one.input);
            let read = SignedRequest::parse(&input, &one.signature);
            assert_eq!(read, Err(RequestError::Malformed), "{input}");
        };
        refused("haar=", "sig1=");
        refused("\"@method\" ", "");
        refused("created=1000", "created=+1000");
        refused("created=1000", "created=01000");
        refused(";alg", ";expires=1;alg");
        refused("ed25519", "rsa-pss-sha512");
        refused("doctor", "doc\\\\tor");
        let cut = &one.signature[..one.signature.len() - 1];
        assert_eq!(SignedRequest::parse(&one.input, cut), Err(RequestError::Malformed));
        let mut nonces = Nonces::default();
        let input = one.input.replace("doctor.example", "other.example");
        let other = RequestSignature { input, signature: one.signature.clone() };
        assert_eq!(check(&other, TARGET, SITE, 1_000, &mut nonces), Err(RequestError::Signature));
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let mut nonces = Nonces::default();
        for n in 0..MAX_NONCES {
            let mut id = [0; 32];
            id[..8].copy_from_slice(&n.to_le_bytes());
            nonces.take(id, 1_000, 1_000).unwrap();
        }
        let more = [0xff; 32];
        assert_eq!(nonces.take(more, 1_000, 1_000), Err(RequestError::Busy));
        assert_eq!(nonces.take(more, 1_100, 1_100), Ok(()));
        assert_eq!(nonces.seen.len(), 1);
    }
}
