//! What a doctor sets for one patient: limits, target ranges, the saturation scale.
//!
//! A [`Parameters`] overrides the defaults for one subject from its effective time on, until a later version does. It is signed
//! by whoever answers for it; [`Ward`] takes it only with a signature of an authorised key, and finds what held at an event's time.
//! What it changes in a window is said in [`Pipeline::personalise`](crate::Pipeline::personalise) and
//! [`Pipeline::decide`](crate::Pipeline::decide).
//!
//! # Format
//! A C2SP signed-note (<https://c2sp.org/signed-note>) of at most [`MAX_NOTE_BYTES`] whose text is [`Parameters::text`]: the line `haar.invalid/patient-parameters/v1`, then one line each for
//! the subject (32 hexadecimal digits), the version, the effective time (microseconds since 1970), the saturation scale (`1` or `2`) and the reason; then
//! a line for each limit, in order of the signals: `<signal> <unit> <low> <high> <target low> <target high>`, `-`
//! for what is not set, numbers in Rust's shortest decimal form. Every line ends with a line feed. One content has one text.
//!
//! # Limits
//! [`MAX_VERSIONS`] versions a subject, [`MAX_REASON_CHARS`] characters of reason, a limit a signal.
//!
//! # Trust
//! Keys come from the caller. Nothing here decides who may be a key, keeps a private key or reads a clock. Subjects are pseudonyms and stay
//! out of every error.

use haar_identity::SignedText;
use haar_schema::{SignalId, SignalKind, Subject, Timestamp};
use haar_signals::news2::SpO2Scale;
use std::collections::BTreeMap;

/// The most versions of one subject's parameters.
pub const MAX_VERSIONS: usize = 1_000;
/// The longest reason.
pub const MAX_REASON_CHARS: usize = 500;
/// The longest signed note.
pub const MAX_NOTE_BYTES: usize = 64 * 1024;

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
    /// Not a signed note with parameters.
    #[error("not the signed parameters of a patient; `haar parameters sign` makes them")]
    Malformed,
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
    /// The text that is signed.
    pub fn text(&self) -> String {
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
        text
    }

    /// The parameters in a note that one of the `authorised` verifier keys signed.
    ///
    /// # Errors
    /// If it is no such note, or no authorised key signed it as it is.
    pub fn open(note: &[u8], authorised: &[String]) -> Result<Self, ParameterError> {
        Self::parse(&open(note, authorised)?)
    }

    /// Reads a note without looking at its signatures: one that was taken before, or that is only shown.
    ///
    /// # Errors
    /// [`ParameterError::Malformed`] if it is none of parameters.
    pub fn unverified(note: &[u8]) -> Result<Self, ParameterError> {
        let opened = SignedText::open(note, MAX_NOTE_BYTES, &[]);
        Self::parse(&opened.ok_or(ParameterError::Malformed)?.text)
    }

    /// Reads [`Self::text`].
    ///
    /// # Errors
    /// [`ParameterError::Malformed`] if no parameters have this text.
    pub fn parse(text: &str) -> Result<Self, ParameterError> {
        let parsed = read(text).ok_or(ParameterError::Malformed)?;
        // One content, one text: else two notes could say the same and differ.
        if parsed.text() == text { Ok(parsed) } else { Err(ParameterError::Malformed) }
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

fn read(text: &str) -> Option<Parameters> {
    let mut lines = text.lines();
    if lines.next()? != HEAD {
        return None;
    }
    let subject = Subject::from_hex(lines.next()?)?;
    let version = lines.next()?.parse().ok()?;
    let effective = Timestamp::from_micros(lines.next()?.parse().ok()?);
    let spo2_scale = match lines.next()? {
        "1" => SpO2Scale::One,
        "2" => SpO2Scale::Two,
        _ => return None,
    };
    let reason = lines.next()?.to_owned();
    let mut limits = BTreeMap::new();
    for line in lines {
        let mut words = line.split(' ');
        let signal = SignalId::by_name(words.next()?)?;
        let unit = words.next()?.to_owned();
        let mut end = || match words.next()? {
            "-" => Some(None),
            number => number.parse().ok().map(Some),
        };
        let (low, high, target_low, target_high) = (end()?, end()?, end()?, end()?);
        limits.insert(signal, Limit { unit, low, high, target_low, target_high });
    }
    Some(Parameters { subject, version, effective, spo2_scale, limits, reason })
}

/// The text of a note that an authorised key signed.
fn open(note: &[u8], authorised: &[String]) -> Result<String, ParameterError> {
    let SignedText { text, by } =
        SignedText::open(note, MAX_NOTE_BYTES, authorised).ok_or(ParameterError::Malformed)?;
    if by.is_empty() { Err(ParameterError::Signature) } else { Ok(text) }
}

/// The parameters of all patients, each with its versions.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Ward {
    versions: BTreeMap<Subject, Vec<Parameters>>,
}

impl Ward {
    /// Takes the next version of a patient's parameters, a note signed with one of the `authorised` verifier keys (C2SP
    /// signed-note).
    ///
    /// # Errors
    /// If no authorised key signed it, it is not the next version, holds from before the one before, or makes no sense;
    /// nothing has changed then.
    pub fn take(
        &mut self,
        note: &[u8],
        authorised: &[String],
    ) -> Result<&Parameters, ParameterError> {
        self.add(Parameters::open(note, authorised)?)
    }

    /// Takes again what was taken before, from wherever the caller has kept it: signatures are not looked at, since keys may
    /// have been withdrawn since.
    ///
    /// # Errors
    /// As [`Self::take`], but for the signature.
    pub fn restore(&mut self, note: &[u8]) -> Result<&Parameters, ParameterError> {
        self.add(Parameters::unverified(note)?)
    }

    /// Takes parameters whose signature was checked by [`Parameters::open`].
    ///
    /// # Errors
    /// Those of [`Self::check`]; nothing has changed then.
    pub fn add(&mut self, parameters: Parameters) -> Result<&Parameters, ParameterError> {
        self.check(&parameters)?;
        let versions = self.versions.entry(parameters.subject).or_default();
        versions.push(parameters);
        Ok(&versions[versions.len() - 1])
    }

    /// Whether these could be taken next.
    ///
    /// # Errors
    /// If they make no sense, are not the patient's next version, or hold from before the one before.
    pub fn check(&self, parameters: &Parameters) -> Result<(), ParameterError> {
        parameters.check()?;
        let before = self.versions(parameters.subject);
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
        Ok(())
    }

    /// Forgets a patient: the defaults hold, and versions count from 1 again.
    pub fn forget(&mut self, subject: Subject) {
        self.versions.remove(&subject);
    }

    /// All versions of a patient's parameters, in order.
    pub fn versions(&self, subject: Subject) -> &[Parameters] {
        self.versions.get(&subject).map_or(&[], Vec::as_slice)
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
    use expect_test::expect;
    use haar_ledger::Identity;
    use proptest::prelude::*;

    fn key(seed: u8) -> Identity {
        Identity::generate("haar.test/doctor", [seed; 32]).unwrap()
    }

    fn vkey(seed: u8) -> String {
        key(seed).vkey().to_string()
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
        let note = key(1).sign(&parameters.text()).unwrap();
        ward.take(&note, &[vkey(2), vkey(1)]).map(|taken| assert_eq!(*taken, parameters))
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
        .assert_eq(&parameters(1, 10).text());
        assert_eq!(Parameters::parse(&parameters(1, 10).text()), Ok(parameters(1, 10)));
    }

    #[test]
    fn what_is_not_signed_by_an_authorised_key_is_refused() {
        let mut ward = Ward::default();
        let note = key(1).sign(&parameters(1, 10).text()).unwrap();
        for keys in [vec![], vec![vkey(2)]] {
            assert_eq!(ward.take(&note, &keys).err(), Some(ParameterError::Signature));
        }
        let changed = String::from_utf8(note.clone()).unwrap().replace("85.0", "75.0");
        let refused = ward.take(changed.as_bytes(), &[vkey(1)]).err();
        assert_eq!(refused, Some(ParameterError::Signature));
        // Another text of the same content.
        let other = parameters(1, 10).text().replace("85.0", "85.00");
        let note = key(1).sign(&other).unwrap();
        assert_eq!(ward.take(&note, &[vkey(1)]).err(), Some(ParameterError::Malformed));
        assert_eq!(ward.take(b"no note", &[vkey(1)]).err(), Some(ParameterError::Malformed));
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
            (wrong(&|given| given.reason = "x".repeat(501)), "one line"),
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
