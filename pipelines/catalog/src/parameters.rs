//! What a doctor sets for one patient: limits, target ranges, the saturation scale.
//!
//! A [`Parameters`] overrides the defaults for one subject from its effective time on, until a later version does. It is signed
//! by whoever answers for it; [`Ward`] takes it only with a signature of an authorised key, and finds what held at an event's time.
//!
//! # Format
//! Signed are the bytes of [`Parameters::canonical`]: the line `haar.invalid/patient-parameters/v1`, then one line each for
//! the subject (32 hexadecimal digits), the version, the effective time (microseconds since 1970), the saturation scale (`1` or `2`) and the reason; then
//! a line for each limit, in order of the signals: `<signal> <unit> <low> <high> <target low> <target high>`, `-`
//! for what is not set, numbers in Rust's shortest decimal form. Every line ends with a line feed. The signature is Ed25519 (RFC 8032), checked
//! strictly.
//!
//! # Limits
//! [`MAX_VERSIONS`] versions a subject, [`MAX_REASON_CHARS`] characters of reason, a limit a signal.
//!
//! # Trust
//! Keys come from the caller. Nothing here decides who may be a key, keeps a private key or reads a clock. Subjects are pseudonyms and stay
//! out of every error.

use ed25519_dalek::{Signature, VerifyingKey};
use haar_schema::{SignalId, SignalKind, Subject, Timestamp};
use haar_signals::news2::SpO2Scale;
use std::collections::BTreeMap;

/// The most versions of one subject's parameters.
pub const MAX_VERSIONS: usize = 1_000;
/// The longest reason.
pub const MAX_REASON_CHARS: usize = 500;

const HEAD: &str = "haar.invalid/patient-parameters/v1";

/// Limits of one signal, in its canonical unit. An end that is not set leaves the default in force.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Limit {
    /// UCUM unit of the numbers; must be the signal's own.
    pub unit: String,
    /// Alarm below.
    pub low: Option<f64>,
    /// Alarm above.
    pub high: Option<f64>,
    /// Lower end of the target range.
    pub target_low: Option<f64>,
    /// Upper end of the target range.
    pub target_high: Option<f64>,
}

/// One version of a patient's parameters.
#[derive(Clone, PartialEq, Debug)]
pub struct Parameters {
    /// The patient.
    pub subject: Subject,
    /// Counts up from 1.
    pub version: u32,
    /// Event time from which it holds.
    pub effective: Timestamp,
    /// NEWS2's scale of saturation; scale 2 only by a clinician's decision.
    pub spo2_scale: SpO2Scale,
    /// By signal.
    pub limits: BTreeMap<SignalId, Limit>,
    /// Why, one line for people.
    pub reason: String,
}

/// Why parameters are not taken.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ParameterError {
    /// No authorised key made the signature over these bytes.
    #[error("no authorised key signed these parameters as they are: have them signed again")]
    Signature,
    /// Not the next version.
    #[error("the next version of this patient's parameters is {wanted}, these say {found}")]
    Version {
        /// What comes next.
        wanted: u32,
        /// What was given.
        found: u32,
    },
    /// They would hold from before an earlier version.
    #[error(
        "a later version cannot hold from before an earlier one: choose a later effective time"
    )]
    Effective,
    /// A limit in another unit.
    #[error("limits of {signal} are in {wanted}, not in {found}: convert them")]
    Unit {
        /// Which signal.
        signal: &'static str,
        /// Its unit.
        wanted: &'static str,
        /// What was given.
        found: String,
    },
    /// A limit of a waveform, without a number, out of the signal's range, or out of order.
    #[error(
        "limits of {0} must be numbers within its range, rising from low over the target to high"
    )]
    Limit(&'static str),
    /// An empty reason, or one that is too long or has more than a line.
    #[error("the reason is one line of 1 to {MAX_REASON_CHARS} characters")]
    Reason,
    /// Over [`MAX_VERSIONS`].
    #[error("a patient has at most {MAX_VERSIONS} versions of parameters")]
    Full,
}

impl Parameters {
    /// The bytes that are signed: one form for one content.
    pub fn canonical(&self) -> Vec<u8> {
        let Self { subject, version, effective, spo2_scale, limits, reason } = self;
        let scale = match spo2_scale {
            SpO2Scale::One => 1,
            SpO2Scale::Two => 2,
        };
        let (subject, effective) = (subject.to_hex(), effective.micros());
        let mut text = format!("{HEAD}\n{subject}\n{version}\n{effective}\n{scale}\n{reason}\n");
        for (signal, limit) in limits {
            let number = |value: Option<f64>| {
                value.map_or_else(|| "-".to_owned(), |value| format!("{value:?}"))
            };
            let Limit { unit, low, high, target_low, target_high } = limit;
            let ends = [low, high, target_low, target_high].map(|end| number(*end)).join(" ");
            text.push_str(&format!("{} {unit} {ends}\n", signal.name()));
        }
        text.into_bytes()
    }

    /// Whether what is set makes sense, apart from signature and version.
    ///
    /// # Errors
    /// The first that does not.
    pub fn check(&self) -> Result<(), ParameterError> {
        let characters = self.reason.chars().count();
        if !(1..=MAX_REASON_CHARS).contains(&characters)
            || self.reason.chars().any(char::is_control)
        {
            return Err(ParameterError::Reason);
        }
        for (signal, limit) in &self.limits {
            let definition = signal.definition();
            if limit.unit != definition.unit {
                let (signal, wanted) = (definition.name, definition.unit);
                return Err(ParameterError::Unit { signal, wanted, found: limit.unit.clone() });
            }
            let ends = [limit.low, limit.target_low, limit.target_high, limit.high];
            let set: Vec<f64> = ends.into_iter().flatten().collect();
            let (least, most) = definition.plausible;
            let sound = set.iter().all(|end| (least..=most).contains(end))
                && set.windows(2).all(|pair| pair[0] < pair[1]);
            if !sound || definition.kind != SignalKind::Scalar {
                return Err(ParameterError::Limit(definition.name));
            }
        }
        Ok(())
    }
}

/// Whether one of the authorised keys signed these parameters as they are.
///
/// # Errors
/// [`ParameterError::Signature`] if none did.
pub fn verify(
    parameters: &Parameters,
    signature: &Signature,
    authorised: &[VerifyingKey],
) -> Result<(), ParameterError> {
    let bytes = parameters.canonical();
    match authorised.iter().any(|key| key.verify_strict(&bytes, signature).is_ok()) {
        true => Ok(()),
        false => Err(ParameterError::Signature),
    }
}

/// The parameters of all patients, each with its versions.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Ward {
    versions: BTreeMap<Subject, Vec<Parameters>>,
}

impl Ward {
    /// Takes the next version of a patient's parameters.
    ///
    /// # Errors
    /// If no authorised key signed it, it is not the next version, holds from before the one before, or makes no sense;
    /// nothing has changed then.
    pub fn set(
        &mut self,
        parameters: Parameters,
        signature: &Signature,
        authorised: &[VerifyingKey],
    ) -> Result<(), ParameterError> {
        verify(&parameters, signature, authorised)?;
        parameters.check()?;
        let before = self.versions.get(&parameters.subject).map_or(&[][..], Vec::as_slice);
        if before.len() >= MAX_VERSIONS {
            return Err(ParameterError::Full);
        }
        let wanted = before.len() as u32 + 1;
        if parameters.version != wanted {
            return Err(ParameterError::Version { wanted, found: parameters.version });
        }
        if before.last().is_some_and(|last| last.effective > parameters.effective) {
            return Err(ParameterError::Effective);
        }
        self.versions.entry(parameters.subject).or_default().push(parameters);
        Ok(())
    }

    /// What held for a patient at an event's time: the highest version that was effective then; of two from the same moment
    /// the later version. `None` where the defaults hold.
    pub fn at(&self, subject: Subject, event: Timestamp) -> Option<&Parameters> {
        let versions = self.versions.get(&subject)?;
        let effective = versions.partition_point(|version| version.effective <= event);
        versions.get(effective.checked_sub(1)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ed25519_dalek::{Signer, SigningKey};
    use expect_test::expect;
    use proptest::prelude::*;

    fn key(seed: u8) -> SigningKey {
        SigningKey::from_bytes(&[seed; 32])
    }

    fn parameters(version: u32, effective: i64) -> Parameters {
        let limit = Limit {
            unit: "%".into(),
            low: Some(85.0),
            target_low: Some(88.0),
            target_high: Some(92.5),
            high: None,
        };
        Parameters {
            subject: Subject::from_bytes([7; 16]),
            version,
            effective: Timestamp::from_micros(effective),
            spo2_scale: SpO2Scale::Two,
            limits: [(SignalId::SPO2, limit)].into(),
            reason: "hypercapnic failure".into(),
        }
    }

    fn set(ward: &mut Ward, parameters: Parameters) -> Result<(), ParameterError> {
        let signature = key(1).sign(&parameters.canonical());
        ward.set(parameters, &signature, &[key(2).verifying_key(), key(1).verifying_key()])
    }

    #[test]
    fn what_is_signed() {
        expect![[r#"
            haar.invalid/patient-parameters/v1
            07070707070707070707070707070707
            1
            10
            2
            hypercapnic failure
            spo2 % 85.0 - 88.0 92.5
        "#]]
        .assert_eq(&String::from_utf8(parameters(1, 10).canonical()).unwrap());
    }

    #[test]
    fn what_is_not_signed_by_an_authorised_key_is_refused() {
        let mut ward = Ward::default();
        let given = parameters(1, 10);
        let signature = key(1).sign(&given.canonical());
        for keys in [&[][..], &[key(2).verifying_key()]] {
            assert_eq!(ward.set(given.clone(), &signature, keys), Err(ParameterError::Signature));
        }
        let mut changed = given;
        changed.spo2_scale = SpO2Scale::One;
        let keys = [key(1).verifying_key()];
        assert_eq!(ward.set(changed, &signature, &keys), Err(ParameterError::Signature));
        assert_eq!(ward, Ward::default());
    }

    #[test]
    fn version_time_unit_and_limits_must_fit() {
        let mut ward = Ward::default();
        let wrong = |change: &dyn Fn(&mut Parameters)| {
            let mut given = parameters(1, 10);
            change(&mut given);
            set(&mut Ward::default(), given).unwrap_err().to_string()
        };
        let limit = |given: &mut Parameters, change: &dyn Fn(&mut Limit)| {
            given.limits.values_mut().for_each(change);
        };
        for (message, text) in [
            (wrong(&|given| given.version = 2), "is 1, these say 2"),
            (wrong(&|given| limit(given, &|limit| limit.unit = "1".into())), "are in %, not in 1"),
            (wrong(&|given| limit(given, &|limit| limit.high = Some(92.0))), "limits of spo2"),
            (wrong(&|given| limit(given, &|limit| limit.high = Some(101.0))), "limits of spo2"),
            (wrong(&|given| limit(given, &|limit| limit.low = Some(f64::NAN))), "limits of spo2"),
            (wrong(&|given| given.reason = "two\nlines".into()), "one line"),
        ] {
            assert!(message.contains(text), "{message}");
        }
        set(&mut ward, parameters(1, 10)).unwrap();
        assert_eq!(set(&mut ward, parameters(2, 9)), Err(ParameterError::Effective));
        let again = Err(ParameterError::Version { wanted: 2, found: 1 });
        assert_eq!(set(&mut ward, parameters(1, 10)), again);
        set(&mut ward, parameters(2, 10)).unwrap();
        let at = |event| {
            let subject = Subject::from_bytes([7; 16]);
            ward.at(subject, Timestamp::from_micros(event)).map(|held| held.version)
        };
        assert_eq!((at(9), at(10), at(11)), (None, Some(2), Some(2)));
        assert_eq!(ward.at(Subject::from_bytes([8; 16]), Timestamp::MAX), None);
    }

    proptest! {
        /// What holds at a time does not depend on which versions came after it.
        #[test]
        fn lookup_is_the_last_effective(times in prop::collection::vec(0i64..50, 1..12), event in 0i64..60) {
            let mut times = times;
            times.sort_unstable();
            let mut ward = Ward::default();
            for (at, time) in times.iter().enumerate() {
                set(&mut ward, parameters(at as u32 + 1, *time)).unwrap();
            }
            let wanted = times.iter().filter(|time| **time <= event).count() as u32;
            let held = ward.at(Subject::from_bytes([7; 16]), Timestamp::from_micros(event));
            prop_assert_eq!(held.map_or(0, |held| held.version), wanted);
        }
    }
}
