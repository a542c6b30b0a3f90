//! The order to erase patients from a fog that runs, signed by somebody who may give it.
//!
//! # Format
//! A C2SP signed-note (<https://c2sp.org/signed-note>) of at most [`MAX_ORDER_BYTES`] whose text is the line `haar.invalid/erasure-order/v1`,
//! then one line each for the site log's origin, the time of signing (microseconds since 1970) and every patient's pseudonym (32
//! hexadecimal digits). Every line ends with a line feed. One content has one text.
//!
//! # Trust
//! Keys come from the caller. An order holds at one site, and for [`VALID_US`]: one that somebody kept must not erase a
//! patient who has come back.

use haar_ledger::{MAX_ERASED, SignedText};
use haar_schema::{Subject, Timestamp};

/// The longest order.
pub const MAX_ORDER_BYTES: usize = 64 * 1024;
/// How far the time of signing may be from the fog's: five minutes, in microseconds.
pub const VALID_US: i64 = 5 * 60 * 1_000_000;

const HEAD: &str = "haar.invalid/erasure-order/v1";

/// Whom to erase, and where.
#[derive(Clone, PartialEq, Eq)]
pub struct ErasureOrder {
    /// Origin of the site log.
    pub site: String,
    /// When it was signed.
    pub issued: Timestamp,
    /// The patients, 1 to [`MAX_ERASED`].
    pub subjects: Vec<Subject>,
}

/// Why an order is not followed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum OrderError {
    /// Not the text of an order.
    #[error("this is no erasure order; `haar erase --fog URL --key FILE --subject HEX` makes one")]
    Malformed,
    /// Nobody who may has signed it.
    #[error(
        "no key of erasure.trusted_keys has signed this order; put the signer's verifier key into the fog's configuration"
    )]
    Signature,
    /// It is for another site.
    #[error("the order is for the log {ordered}, this is {own}")]
    OtherSite {
        /// What it says.
        ordered: String,
        /// Where it came.
        own: String,
    },
    /// It is old, or from the future.
    #[error(
        "the order was signed at {0}, not within five minutes of now; sign it again, and look at both clocks"
    )]
    NotNow(Timestamp),
}

impl ErasureOrder {
    /// The text that is signed.
    pub fn text(&self) -> String {
        let Self { site, issued, subjects } = self;
        let mut text = format!("{HEAD}\n{site}\n{}\n", issued.micros());
        for subject in subjects {
            text.push_str(&subject.to_hex());
            text.push('\n');
        }
        text
    }

    /// The order in a note that one of the `authorised` verifier keys signed for the log `site`, if it holds `now`.
    ///
    /// # Errors
    /// See [`OrderError`].
    pub fn open(
        note: &[u8],
        authorised: &[String],
        site: &str,
        now: Timestamp,
    ) -> Result<Self, OrderError> {
        let SignedText { text, by } =
            SignedText::open(note, MAX_ORDER_BYTES, authorised).ok_or(OrderError::Malformed)?;
        let order = Self::parse(&text).ok_or(OrderError::Malformed)?;
        if by.is_empty() {
            return Err(OrderError::Signature);
        }
        if order.site != site {
            return Err(OrderError::OtherSite { ordered: order.site, own: site.to_owned() });
        }
        if now.micros_since(order.issued).unsigned_abs() > VALID_US.unsigned_abs() {
            return Err(OrderError::NotNow(order.issued));
        }
        Ok(order)
    }

    fn parse(text: &str) -> Option<Self> {
        let mut lines = text.strip_prefix(HEAD)?.strip_prefix('\n')?.lines();
        let site = lines.next()?.to_owned();
        let issued = Timestamp::from_micros(lines.next()?.parse().ok()?);
        let subjects: Vec<Subject> = lines.map(Subject::from_hex).collect::<Option<_>>()?;
        let mut once = subjects.clone();
        once.sort_unstable();
        once.dedup();
        if once.len() != subjects.len() || !(1..=MAX_ERASED).contains(&subjects.len()) {
            return None;
        }
        let order = Self { site, issued, subjects };
        // One content, one text.
        (order.text() == text).then_some(order)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use haar_ledger::Identity;

    const SITE: &str = "haar.test/site";
    const NOW: Timestamp = Timestamp::from_micros(1_000_000_000_000);

    fn officer() -> Identity {
        Identity::generate("haar.test/officer", [3; 32]).unwrap()
    }

    fn order() -> ErasureOrder {
        let subjects = [9, 2].map(|n| Subject::from_bytes([n; 16])).to_vec();
        ErasureOrder { site: SITE.into(), issued: NOW, subjects }
    }

    fn open(note: &[u8], now: Timestamp) -> Result<ErasureOrder, OrderError> {
        ErasureOrder::open(note, &[officer().vkey().to_string()], SITE, now)
    }

    #[test]
    fn an_order_is_followed_here_and_now_only() {
        let note = officer().sign(&order().text()).unwrap();
        assert!(open(&note, NOW).unwrap() == order());
        for off in [VALID_US, -VALID_US] {
            assert!(open(&note, NOW.plus_micros(off)).is_ok());
            let past = open(&note, NOW.plus_micros(off + off.signum()));
            assert_eq!(past.err(), Some(OrderError::NotNow(NOW)));
        }
        let elsewhere = ErasureOrder { site: "haar.test/other".into(), ..order() };
        let elsewhere = officer().sign(&elsewhere.text()).unwrap();
        assert!(matches!(open(&elsewhere, NOW), Err(OrderError::OtherSite { .. })));
        let other = Identity::generate("haar.test/officer", [4; 32]).unwrap();
        let forged = other.sign(&order().text()).unwrap();
        assert_eq!(open(&forged, NOW).err(), Some(OrderError::Signature));
        assert_eq!(ErasureOrder::open(&note, &[], SITE, NOW).err(), Some(OrderError::Signature));
    }

    #[test]
    fn what_is_no_order_is_refused() {
        let text = order().text();
        let twice = format!("{text}{}\n", "09".repeat(16));
        let nobody = ErasureOrder { subjects: vec![], ..order() }.text();
        let many = vec![Subject::from_bytes([1; 16]); MAX_ERASED + 1];
        let many = ErasureOrder { subjects: many, ..order() }.text();
        let spelt = text.replace("\n1000", "\n01000");
        for text in [twice, nobody, many, spelt, text.replace("v1", "v2"), text.to_uppercase()] {
            let note = officer().sign(&text).unwrap();
            assert_eq!(open(&note, NOW).err(), Some(OrderError::Malformed), "{text}");
        }
        assert_eq!(open(b"", NOW).err(), Some(OrderError::Malformed));
        assert_eq!(open(&[b'a'; MAX_ORDER_BYTES + 1], NOW).err(), Some(OrderError::Malformed));
    }
}
