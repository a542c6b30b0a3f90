//! Patients' own courses: once an hour each vital sign is held against what is usual for this patient.
//!
//! The windows that an epoch commits drive them, in order, and their rows are written with the epoch: after a kill they stand where the log
//! says, and windows that a replay brings again are not seen twice. A window is looked at if it is the first of its patient that
//! reaches a full hour of event time; corrections are not, since the course has gone on.
//!
//! A reading outside the interval of 95 % by the patient's own course raises `<signal>-unusual`, of priority *information*: of six signals that
//! are usual in every way about seven a day are raised, so it is a mark on the record for whoever looks, and tells nobody.
//! Evidence are the reading, the forecast and the interval's ends; the model is named by its hash.
//!
//! # Limits and non-guarantees
//! [`MAX_COURSES`] patients; of more the one who was silent longest is forgotten, and begins anew. What
//! [`haar_inference::personal`] says of coverage holds. A model that replaces another goes on with the courses as they are.

use crate::facts::{ChangedRow, Facts};
use haar_dataflow::conclude::Concluded;
use haar_dataflow::deployment::{Said, Step, Timeline, USUAL};
use haar_inference::personal::{COVERAGES, Judgement, Normals, PersonalState, SIGNALS};
use haar_schema::{Evidence, Feature, FlaggedEvent, ModelRef, Priority, SignalId, Subject};

/// Patients whose courses are kept.
pub(crate) const MAX_COURSES: usize = 100_000;
/// Share of the readings below which the mean of a window is no reading.
const COVERAGE_MIN: f64 = 0.5;
const HOUR_US: i64 = 3_600_000_000;

/// All courses.
pub(crate) struct Courses {
    states: Facts<PersonalState>,
}

impl Courses {
    /// As they were. Rows that this version does not understand are dropped, and said: those patients begin anew.
    pub(crate) fn restore(rows: impl IntoIterator<Item = (Subject, Vec<u8>)>) -> Self {
        let (states, dropped) = Facts::restore(rows, MAX_COURSES, PersonalState::newest);
        if dropped > 0 {
            tracing::warn!(dropped, "courses of patients are not understood; they begin anew");
        }
        Self { states }
    }

    /// Looks at a window that is to be committed, and adds the flags that the patient's course raises.
    pub(crate) fn judge(
        &mut self,
        window: &mut Concluded,
        models: &Timeline<Normals>,
        said: &mut Said,
    ) {
        let key = &window.digest.key;
        let (first, last) = (key.start_us.floor_to(HOUR_US), key.end_us.floor_to(HOUR_US));
        if window.digest.revision > 0 || first == last {
            return;
        }
        let (subject, at, edge) = (key.subject, last, key.edge.clone());
        let (_, Step { live, shadow, .. }) = models.at(key.end_us.micros());
        for (signal, _) in SIGNALS {
            let value = |statistic: &str| {
                let feature = window.digest.features.get(&format!("{}.{statistic}", signal.name()));
                feature.and_then(|feature| feature.get())
            };
            let (Some(mean), Some(coverage)) = (value("mean"), value("coverage")) else { continue };
            if coverage < COVERAGE_MIN {
                continue;
            }
            let state = self.states.get_or_begin(subject);
            let mut beside = shadow.as_ref().map(|shadow| (shadow, state.clone()));
            let Some(judgement) = live.observe(state, signal, mean, at) else { continue };
            self.states.changed(subject);
            let word = USUAL[usize::from(is_unusual(&judgement))];
            said.live(live.reference(), &edge).add(word);
            if let Some((shadow, state)) = &mut beside
                && let Some(own) = shadow.observe(state, signal, mean, at)
            {
                let own = USUAL[usize::from(is_unusual(&own))];
                said.shadow(shadow.reference(), &edge).compare(own, word);
            }
            if is_unusual(&judgement) {
                raise(window, signal, mean, &judgement, live.reference());
            }
        }
    }

    /// The patient was erased.
    pub(crate) fn forget(&mut self, subject: Subject) {
        self.states.forget(subject);
    }

    /// The rows that have changed since they were last taken.
    pub(crate) fn take_changes(&mut self) -> Vec<ChangedRow> {
        self.states.take_changes()
    }
}

/// Whether a reading is outside the widest interval of the patient's own course.
fn is_unusual(judgement: &Judgement) -> bool {
    judgement.personal && judgement.unusual == Some(WIDEST)
}

fn raise(
    window: &mut Concluded,
    signal: SignalId,
    mean: f64,
    judgement: &Judgement,
    model: &ModelRef,
) {
    let name = signal.name();
    let flag = format!("{}-unusual", name.replace('_', "-"));
    let (low, high) = judgement.intervals[COVERAGES.len() - 1];
    let evidence = [
        ("expected", judgement.expected),
        ("mean", mean),
        ("usual_high", high),
        ("usual_low", low),
    ];
    let evidence = evidence.map(|(what, value)| Evidence {
        feature: format!("{name}.{what}"),
        value: Feature::value(value),
    });
    let digest = &mut window.digest;
    digest.flags.push(flag.clone());
    window.flagged.push(FlaggedEvent {
        window: digest.id,
        revision: digest.revision,
        key: digest.key.clone(),
        flag,
        priority: Priority::Information,
        text: format!("{} is outside what is usual for this patient.", signal.definition().title),
        rule: format!("{name}.mean < {name}.usual_low || {name}.mean > {name}.usual_high"),
        evidence: evidence.into(),
        model: Some(model.clone()),
        condition: None,
        scores: Vec::new(),
        strip: None,
    });
}

/// The interval that a reading must lie outside of.
const WIDEST: f64 = COVERAGES[COVERAGES.len() - 1];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::facts::ROW_VERSION;
    use haar_dataflow::item::Lane;
    use haar_schema::{Features, InputsDigest, PipelineRef, Timestamp, WindowDigest, WindowKey};
    use std::collections::BTreeMap;

    /// By the built-in model.
    fn judge(courses: &mut Courses, window: &mut Concluded) {
        let models = Timeline::constant(Normals::builtin().unwrap());
        courses.judge(window, &models, &mut Said::default());
    }

    fn window(end_us: i64, rate: f64) -> Concluded {
        let key = WindowKey {
            edge: "edge-1".parse().unwrap(),
            subject: Subject::from_bytes([7; 16]),
            pipeline: "ward-vitals".to_owned(),
            start_us: Timestamp::from_micros(end_us - 60_000_000),
            end_us: Timestamp::from_micros(end_us),
        };
        let features: Features = [
            ("heart_rate.mean".to_owned(), Feature::value(rate)),
            ("heart_rate.coverage".to_owned(), Feature::value(1.0)),
        ]
        .into();
        Concluded {
            lane: Lane(0),
            seq: 1,
            ingested_us: 0,
            digest: WindowDigest {
                id: key.id(),
                revision: 0,
                key,
                pipeline: PipelineRef {
                    id: "ward-vitals".to_owned(),
                    version: 1,
                    sha256: String::new(),
                },
                inputs: InputsDigest { observations: 60, sha256: String::new() },
                model: None,
                features,
                flags: Vec::new(),
            },
            flagged: Vec::new(),
            undetermined: Vec::new(),
        }
    }

    /// Steady around 72 for a day, then 95: usual in everybody, not for this patient.
    #[test]
    fn what_is_unusual_for_the_patient_is_flagged_also_after_a_restart() {
        let mut courses = Courses::restore([]);
        let mut rows = BTreeMap::new();
        for hour in 1..=24 {
            let mut usual = window(hour * HOUR_US, 72.0 + (hour % 3) as f64);
            judge(&mut courses, &mut usual);
            assert!(usual.flagged.is_empty(), "hour {hour}: {:?}", usual.flagged);
            // Windows of the same hour change nothing.
            let mut between = window(hour * HOUR_US + 600_000_000, 95.0);
            let mut again = window(hour * HOUR_US + 10_000_000, 95.0);
            judge(&mut courses, &mut between);
            judge(&mut courses, &mut again);
            assert!(between.flagged.is_empty() && again.flagged.is_empty());
            for (subject, row) in courses.take_changes() {
                rows.insert(subject, row.unwrap());
            }
            // As after a kill, every hour.
            courses = Courses::restore(rows.clone());
        }
        let mut unusual = window(25 * HOUR_US, 95.0);
        judge(&mut courses, &mut unusual);
        let event = &unusual.flagged[0];
        assert_eq!(
            (event.flag.as_str(), event.priority),
            ("heart-rate-unusual", Priority::Information)
        );
        assert_eq!(unusual.digest.flags, ["heart-rate-unusual"]);
        let value = |name: &str| {
            let evidence = event.evidence.iter().find(|own| own.feature == name).unwrap();
            evidence.value.get().unwrap()
        };
        assert!((70.0..76.0).contains(&value("heart_rate.expected")));
        assert!(value("heart_rate.usual_high") < 95.0);
        let model = event.model.as_ref().unwrap();
        assert_eq!((model.id.as_str(), model.sha256.len()), ("personal-normal", 64));
        // A correction of the window is no new reading.
        let mut corrected = window(26 * HOUR_US, 140.0);
        corrected.digest.revision = 1;
        judge(&mut courses, &mut corrected);
        assert!(corrected.flagged.is_empty());
    }

    #[test]
    fn a_row_of_another_version_begins_anew() {
        let subject = Subject::from_bytes([1; 16]);
        for row in [vec![], vec![9, 1, 2], vec![ROW_VERSION, 255]] {
            assert!(Courses::restore([(subject, row)]).states.is_empty());
        }
    }
}
