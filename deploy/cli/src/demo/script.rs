//! The flags held against what the simulated ward's script did to its patients.
//!
//! What the script expects is found if the flag that stands for it was raised for that patient at any time
//! since the episode began; an illness sets in slowly, so that a short run may end before its flag. Episodes
//! that a run did not reach are not counted. Other flags of a patient in an episode (a fast heart in septic
//! shock) are neither expected nor wrong; flags before a patient's first episode are false alarms.

use super::report::FlagEntry;
use haar_schema::{Subject, Timestamp};
use haar_simulator::truth::{ExpectedFlag, Truth, TruthError, read_truth};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::BufReader;
use std::path::Path;

/// How the flags compare.
#[derive(Default, PartialEq, Eq, Debug)]
pub struct Score {
    /// Expected ones that were raised.
    pub found: usize,
    /// Patient and flag of those that were not.
    pub missing: Vec<String>,
    /// Flagged windows of patients to whom nothing had happened yet.
    pub false_alarms: usize,
}

/// Holds the flags of a run against the truth file that the ward wrote beside it.
///
/// # Errors
/// If the file cannot be read.
pub fn score(
    truth: &Path,
    flags: &[FlagEntry],
    names: &BTreeMap<Subject, String>,
) -> Result<Score, TruthError> {
    let mut end = Timestamp::MIN;
    let mut expected = Vec::new();
    let mut ill_since = BTreeMap::new();
    for line in read_truth(BufReader::new(File::open(truth)?)) {
        match line? {
            Truth::Expected { patient, flag, from_us, .. } => {
                expected.extend(name(flag).map(|flag| (patient, flag, from_us)));
            }
            Truth::Episode { patient, from_us, .. } => {
                let since = ill_since.entry(patient).or_insert(from_us);
                *since = from_us.min(*since);
            }
            Truth::Vitals { at_us, .. } => end = end.max(at_us),
            Truth::Beat { .. } | Truth::Ward { .. } => {}
        }
    }
    let raised: Vec<(&str, &str, Timestamp)> = flags
        .iter()
        .filter_map(|FlagEntry { event, .. }| {
            let patient = names.get(&event.key.subject)?;
            Some((patient.as_str(), event.flag.as_str(), event.key.end_us))
        })
        .collect();
    let mut score = Score::default();
    for (patient, flag, from) in expected.into_iter().filter(|(_, _, from)| *from < end) {
        let is_it = |raised: &&(&str, &str, Timestamp)| {
            raised.0 == patient && raised.1 == flag && raised.2 > from
        };
        match raised.iter().find(is_it) {
            Some(_) => score.found += 1,
            None => score.missing.push(format!("{patient} {flag}")),
        }
    }
    let is_false = |raised: &&(&str, &str, Timestamp)| {
        ill_since.get(raised.0).is_none_or(|since| raised.2 <= *since)
    };
    score.false_alarms = raised.iter().filter(is_false).count();
    Ok(score)
}

/// The flag that stands for an expected one; a clock that is wrong is counted by the edge and has no flag.
fn name(flag: ExpectedFlag) -> Option<&'static str> {
    match flag {
        ExpectedFlag::AtrialFibrillation => Some("possible-atrial-fibrillation"),
        ExpectedFlag::VentricularEctopy => Some("ventricular-ectopy"),
        ExpectedFlag::News2 => Some("news2-high"),
        ExpectedFlag::Fever => Some("fever"),
        ExpectedFlag::LeadOff => Some("ecg-quality-low"),
        ExpectedFlag::MonitorStuck => Some("heart-rate-fault"),
        ExpectedFlag::Clock => None,
    }
}
