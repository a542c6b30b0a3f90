use super::*;
use crate::{Actor, Cause, Condition, Deed, RaisedFlag};
use haar_schema::Priority;
use proptest::prelude::*;
use std::fmt::Write;

const SECOND: i64 = 1_000_000;

/// Short times, so that a test can go through all of them.
const POLICY: &str = r#"
stale_after = "15m"
silent_after = "1h"
[priority.high]
windows = "2 of 3"
hold = "10s"
clear = 2
latching = true
remind_every = "3m"
acknowledged_for = "10m"
pause_at_most = "2m"
episode_gap = "1m"
[priority.low]
windows = "1 of 1"
hold = "0s"
clear = 1
remind_every = "never"
episode_gap = "30s"
[[flags]]
name = "lead-off"
condition = "technical"
[[suppress]]
by = "lead-off"
flags = ["asystole", "fast"]
at_most = "2m"
[[suppress]]
by = "tired"
flags = ["asystole", "fast"]
at_most = "2m"
"#;

fn machine() -> Alarms {
    Alarms::new(Policy::parse("test", POLICY).unwrap())
}

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_micros(seconds * SECOND)
}

/// A window of patient `who` that ends at `end` and raises these flags.
fn window(who: u8, end: i64, raised: &[(&str, Priority)]) -> Input {
    let raised = raised.iter().map(|(flag, priority)| RaisedFlag {
        flag: (*flag).to_owned(),
        priority: *priority,
        condition: Condition::Limit,
        text: format!("{flag} is there"),
    });
    Input::Window(Window {
        subject: Some(Subject::from_bytes([who; 16])),
        pipeline: "vitals".into(),
        end: at(end),
        id: None,
        raised: raised.collect(),
        undetermined: Vec::new(),
    })
}

fn act(alarms: &Alarms, deed: Deed) -> Input {
    let by = Actor::try_from("nurse 7".to_owned()).unwrap();
    Input::Action(Action { alarm: alarms.open()[0].alarm, by, deed })
}

/// Runs inputs at fog times; one line a transition.
fn told(out: &[Transition]) -> String {
    let mut text = String::new();
    for t in out {
        let seconds = t.at_us.micros() / SECOND;
        let (flag, from, to, cause) = (&t.flag, t.from.as_str(), t.to.as_str(), t.cause.as_str());
        write!(text, "{seconds} s, {flag}: {from} > {to}, {cause}").unwrap();
        if let Some(by) = &t.suppressed_by {
            write!(text, " by {by}").unwrap();
        }
        if !t.notify.is_empty() {
            write!(text, " -> {}", t.notify.join(" ")).unwrap();
        }
        text.push('\n');
    }
    text
}

const ASYSTOLE: (&str, Priority) = ("asystole", Priority::High);
const LEAD_OFF: (&str, Priority) = ("lead-off", Priority::Low);
const TIRED: (&str, Priority) = ("tired", Priority::Low);

#[test]
fn an_alarm_waits_sounds_reminds_climbs_latches_and_ends() {
    let mut alarms = machine();
    let mut out = Vec::new();
    for (end, raised) in [(0, true), (10, true), (20, true), (30, false), (40, false)] {
        let flags = if raised { &[ASYSTOLE][..] } else { &[] };
        out.extend(alarms.step(at(end), &window(1, end, flags)).unwrap());
    }
    for now in (50..=400).step_by(10) {
        out.extend(alarms.step(at(now), &Input::Tick).unwrap());
    }
    let acknowledge = act(&alarms, Deed::Acknowledge);
    out.extend(alarms.step(at(401), &acknowledge).unwrap());
    expect_test::expect![[r#"
        0 s, asystole: inactive > pending, raised
        10 s, asystole: pending > active, held -> ward
        40 s, asystole: active > latched, cleared -> ward
        130 s, asystole: latched > latched, escalation -> charge-nurse
        310 s, asystole: latched > latched, escalation -> doctor
        401 s, asystole: latched > ended, acknowledged -> ward charge-nurse doctor
    "#]]
    .assert_eq(&told(&out));
    assert!(alarms.open().is_empty());
}

#[test]
fn an_acknowledged_one_is_silent_until_the_episode_is_over() {
    let mut alarms = machine();
    let mut out = Vec::new();
    let mut go = |alarms: &mut Alarms, now: i64, input: &Input| {
        out.extend(alarms.step(at(now), input).unwrap());
    };
    for end in [0, 10] {
        go(&mut alarms, end, &window(1, end, &[ASYSTOLE]));
    }
    let acknowledge = act(&alarms, Deed::Acknowledge);
    go(&mut alarms, 15, &acknowledge);
    // Over, back within the minute, over, back after it.
    for (end, raised) in
        [(20, 0), (30, 0), (60, 1), (70, 1), (80, 0), (90, 0), (160, 1), (170, 1), (180, 1)]
    {
        let flags = if raised == 1 { &[ASYSTOLE][..] } else { &[] };
        go(&mut alarms, end, &window(1, end, flags));
    }
    // Acknowledged and there for longer than an acknowledgement lasts.
    let acknowledge = act(&alarms, Deed::Acknowledge);
    go(&mut alarms, 185, &acknowledge);
    go(&mut alarms, 700, &window(1, 700, &[ASYSTOLE]));
    go(&mut alarms, 785, &Input::Tick);
    expect_test::expect![[r#"
        0 s, asystole: inactive > pending, raised
        10 s, asystole: pending > active, held -> ward
        15 s, asystole: active > acknowledged, acknowledged -> ward
        30 s, asystole: acknowledged > ended, cleared -> ward
        70 s, asystole: ended > acknowledged, returned
        90 s, asystole: acknowledged > ended, cleared -> ward
        160 s, asystole: inactive > pending, raised
        170 s, asystole: pending > active, held -> ward
        185 s, asystole: active > acknowledged, acknowledged -> ward
        785 s, asystole: acknowledged > ended, acknowledgement-expired -> ward
        785 s, asystole: inactive > active, raised -> ward
    "#]]
    .assert_eq(&told(&out));
    let episodes: BTreeSet<AlarmId> = out.iter().map(|t| t.alarm).collect();
    assert_eq!(episodes.len(), 3);
}

#[test]
fn a_pause_ends_by_time_or_by_hand() {
    let mut alarms = machine();
    for end in [0, 10] {
        alarms.step(at(end), &window(1, end, &[ASYSTOLE])).unwrap();
    }
    let pause = act(&alarms, Deed::Pause { for_us: 60 * SECOND });
    let mut out = alarms.step(at(20), &pause).unwrap();
    assert_eq!(out[0].until_us, Some(at(80)));
    assert!(matches!(alarms.step(at(21), &pause), Err(StepError::Phase { .. })));
    out.extend(alarms.step(at(79), &Input::Tick).unwrap());
    out.extend(alarms.step(at(80), &Input::Tick).unwrap());
    out.extend(alarms.step(at(81), &pause).unwrap());
    for end in [82, 83] {
        out.extend(alarms.step(at(end), &window(1, end, &[])).unwrap());
    }
    let resume = act(&alarms, Deed::Resume);
    out.extend(alarms.step(at(84), &resume).unwrap());
    expect_test::expect![[r#"
        20 s, asystole: active > paused, paused -> ward
        80 s, asystole: paused > active, pause-expired -> ward
        81 s, asystole: active > paused, paused -> ward
        84 s, asystole: paused > latched, resumed -> ward
    "#]]
    .assert_eq(&told(&out));
    let long = act(&alarms, Deed::Pause { for_us: 121 * SECOND });
    assert_eq!(alarms.step(at(85), &long), Err(StepError::PauseLength { most_s: 120 }));
    let nobody = Action {
        alarm: AlarmId::from_bytes([0; 32]),
        by: Actor::try_from("x".to_owned()).unwrap(),
        deed: Deed::Acknowledge,
    };
    assert_eq!(alarms.step(at(85), &Input::Action(nobody)), Err(StepError::NoSuchAlarm));
}

#[test]
fn what_a_technical_alarm_explains_is_recorded_and_does_not_sound() {
    let mut alarms = machine();
    let mut out = Vec::new();
    for (end, flags) in [
        (0, &[ASYSTOLE, LEAD_OFF][..]),
        (10, &[ASYSTOLE, LEAD_OFF]),
        (20, &[ASYSTOLE]),
        (30, &[ASYSTOLE, LEAD_OFF]),
    ] {
        out.extend(alarms.step(at(end), &window(1, end, flags)).unwrap());
    }
    // What sounds already goes on. Of another patient: suppressed until its limit.
    for end in (40..=180).step_by(10) {
        out.extend(alarms.step(at(end), &window(2, end, &[ASYSTOLE, LEAD_OFF])).unwrap());
    }
    out.retain(|t| t.flag == "asystole");
    expect_test::expect![[r#"
        0 s, asystole: inactive > pending, raised
        10 s, asystole: pending > suppressed, held by lead-off
        20 s, asystole: suppressed > active, suppression-over -> ward
        40 s, asystole: inactive > pending, raised
        50 s, asystole: pending > suppressed, held by lead-off
        170 s, asystole: suppressed > active, suppression-over -> ward
    "#]]
    .assert_eq(&told(&out));
}

/// The built-in policy: a device is judged by another pipeline than the one that flags its numbers.
#[test]
fn a_faulty_sensor_explains_what_is_raised_on_its_signal_and_on_no_other() {
    let mut alarms = Alarms::new(Policy::default());
    let of_device = |end: i64, flag: &str| {
        let doubtful = flag.ends_with("doubtful");
        let priority = if doubtful { Priority::Information } else { Priority::Low };
        match window(1, end, &[(flag, priority)]) {
            Input::Window(own) => Input::Window(Window { pipeline: "device-faults".into(), ..own }),
            other => other,
        }
    };
    let hypoxia = [("hypoxia", Priority::High), ("tachycardia", Priority::Medium)];
    let mut out = Vec::new();
    for (end, flag) in [(0, "spo2-doubtful"), (30, "spo2-fault"), (60, "spo2-fault")] {
        out.extend(alarms.step(at(end), &of_device(end, flag)).unwrap());
    }
    for end in (70..=380).step_by(10) {
        out.extend(alarms.step(at(end), &window(1, end, &hypoxia)).unwrap());
        if end % 30 == 0 {
            out.extend(alarms.step(at(end), &of_device(end, "spo2-fault")).unwrap());
        }
    }
    assert!(out.iter().filter(|t| t.flag.starts_with("spo2")).all(|t| {
        t.condition == Condition::Technical && (t.flag == "spo2-fault" || t.notify.is_empty())
    }));
    out.retain(|t| t.flag != "spo2-doubtful");
    expect_test::expect![[r#"
        30 s, spo2-fault: inactive > pending, raised
        60 s, spo2-fault: pending > active, held -> ward
        70 s, hypoxia: inactive > pending, raised
        70 s, tachycardia: inactive > pending, raised
        80 s, hypoxia: pending > suppressed, held by spo2-fault
        90 s, tachycardia: pending > active, held -> ward
        200 s, hypoxia: suppressed > active, suppression-over -> ward
    "#]]
    .assert_eq(&told(&out));
}

#[test]
fn a_lower_one_that_is_not_technical_suppresses_nothing() {
    let mut alarms = machine();
    let mut out = Vec::new();
    for end in [0, 10] {
        out.extend(alarms.step(at(end), &window(1, end, &[ASYSTOLE, TIRED])).unwrap());
    }
    assert!(out.iter().any(|t| t.flag == "asystole" && t.to == Phase::Active));
}

#[test]
fn history_is_recorded_and_does_not_sound() {
    let mut alarms = machine();
    let mut out = Vec::new();
    for end in [0, 10] {
        out.extend(alarms.step(at(1_000 + end), &window(1, end, &[ASYSTOLE])).unwrap());
    }
    // The backlog is over, and it is still there.
    out.extend(alarms.step(at(1_020), &window(1, 990, &[ASYSTOLE])).unwrap());
    // An older window than the newest says nothing.
    out.extend(alarms.step(at(1_021), &window(1, 980, &[])).unwrap());
    out.extend(alarms.step(at(1_021), &window(1, 970, &[])).unwrap());
    expect_test::expect![[r#"
        1000 s, asystole: inactive > pending, raised
        1010 s, asystole: pending > suppressed, held by stale
        1020 s, asystole: suppressed > active, suppression-over -> ward
    "#]]
    .assert_eq(&told(&out));
}

#[test]
fn without_windows_a_condition_is_over_and_all_is_forgotten() {
    let mut alarms = machine();
    let mut out = alarms.step(at(0), &window(1, 0, &[TIRED])).unwrap();
    alarms.take_changes();
    assert!(alarms.is_idle_at(at(3_599)));
    out.extend(alarms.step(at(3_600), &Input::Tick).unwrap());
    expect_test::expect![[r#"
        0 s, tired: inactive > active, raised -> ward
        3600 s, tired: active > ended, no-data -> ward
    "#]]
    .assert_eq(&told(&out));
    assert_eq!(alarms.take_changes().len(), 1);
    alarms.step(at(3_600 + 86_400), &Input::Tick).unwrap();
    let key = Subject::from_bytes([1; 16]).to_bytes().to_vec();
    assert_eq!(alarms.take_changes(), [(key, None)]);
    assert!(alarms.is_idle_at(Timestamp::MAX));
}

#[test]
fn limits_refuse_and_count() {
    let mut alarms = machine();
    let flags: Vec<String> =
        (0..crate::MAX_ALARMS_PER_PATIENT + 3).map(|n| format!("f{n}")).collect();
    let raised: Vec<_> = flags.iter().map(|flag| (flag.as_str(), Priority::Low)).collect();
    alarms.step(at(0), &window(1, 0, &raised)).unwrap();
    assert_eq!(alarms.open().len(), crate::MAX_ALARMS_PER_PATIENT);
    assert_eq!(alarms.refused(), 3);
}

#[test]
fn a_transition_is_canonical_json() {
    let mut alarms = machine();
    let out = alarms.step(at(0), &window(1, 0, &[TIRED])).unwrap();
    let json = out[0].to_json();
    expect_test::expect![[r#"{"alarm":"66bd9a90dee5f8c7cdefd8e9d425fdc39d493e721442be3c0d7ca4fc45bceffd","number":0,"subject":"01010101010101010101010101010101","flag":"tired","priority":"low","condition":"limit","text":"tired is there","from":"inactive","to":"active","cause":"raised","at_us":0,"event_us":0,"window":null,"by":null,"until_us":null,"suppressed_by":null,"level":1,"notify":["ward"]}"#]].assert_eq(&String::from_utf8(json.clone()).unwrap());
    assert_eq!(Transition::from_json(&json).unwrap(), out[0]);
}

#[test]
fn foreign_rows_are_refused() {
    let policy = || Policy::default();
    let restore = |key: &[u8], row: &[u8]| Alarms::restore(policy(), [(key, row)]).unwrap_err();
    assert_eq!(restore(&[1; 16], &[9, 0]), RestoreError::Version(9));
    assert_eq!(restore(&[1; 15], &[1, 0]), RestoreError::Damaged);
    assert_eq!(restore(&[1; 16], &[1, 255]), RestoreError::Damaged);
    assert_eq!(restore(&[1; 16], &[]), RestoreError::Damaged);
}

/// What a generated step does.
#[derive(Clone, Debug)]
enum Move {
    /// Of this patient: bits say which of [`FLAGS`] it raises; the rest of the numbers: pipeline, undetermined.
    Window(u8, u8, bool, u8),
    Tick,
    /// Acts on one of the open alarms.
    Act(usize, u8),
}

const FLAGS: [(&str, Priority); 5] =
    [ASYSTOLE, LEAD_OFF, TIRED, ("fast", Priority::Medium), ("asystole", Priority::Low)];

/// A move, and how many seconds after the one before.
fn moves() -> impl Strategy<Value = Vec<(i64, Move)>> {
    let window =
        (0u8..2, 0u8..32, any::<bool>(), 0u8..5).prop_map(|(who, flags, other, undetermined)| {
            Move::Window(who, flags, other, undetermined)
        });
    let one = prop_oneof![
        8 => window,
        3 => Just(Move::Tick),
        1 => (0usize..4, 0u8..3).prop_map(|(which, deed)| Move::Act(which, deed)),
    ];
    let pause = prop_oneof![9 => 0i64..12, 1 => 60i64..900];
    prop::collection::vec((pause, one), 1..120)
}

fn input(alarms: &Alarms, now: i64, one: &Move) -> Option<Input> {
    match one {
        Move::Tick => Some(Input::Tick),
        Move::Window(who, flags, other, undetermined) => {
            let raised: Vec<_> = (0..FLAGS.len())
                .filter(|bit| flags >> bit & 1 == 1)
                .map(|bit| FLAGS[bit])
                .collect();
            let Input::Window(mut window) = window(*who, now, &raised) else { return None };
            if *other {
                window.pipeline = "ecg".into();
            }
            let name = FLAGS[usize::from(*undetermined)].0;
            if !window.raised.iter().any(|raised| raised.flag == name) {
                window.undetermined.push(name.to_owned());
            }
            Some(Input::Window(window))
        }
        Move::Act(which, deed) => {
            let alarm = alarms.open().get(*which)?.alarm;
            let by = Actor::try_from("nurse 7".to_owned()).unwrap();
            let deed = match deed {
                0 => Deed::Acknowledge,
                1 => Deed::Pause { for_us: 30 * SECOND },
                _ => Deed::Resume,
            };
            Some(Input::Action(Action { alarm, by, deed }))
        }
    }
}

/// Runs the moves; before the move with this number everything is written down and read again.
fn play(moves: &[(i64, Move)], restart: Option<usize>) -> Vec<Transition> {
    let (mut alarms, mut now, mut out) = (machine(), 0, Vec::new());
    let mut rows: BTreeMap<Vec<u8>, Vec<u8>> = BTreeMap::new();
    for (number, (pause, one)) in moves.iter().enumerate() {
        now += pause;
        if restart == Some(number) {
            alarms = Alarms::restore(alarms.policy().clone(), &rows).unwrap();
        }
        if let Some(input) = input(&alarms, now, one) {
            out.extend(alarms.step(at(now), &input).unwrap_or_default());
        }
        for (key, row) in alarms.take_changes() {
            match row {
                Some(row) => rows.insert(key, row),
                None => rows.remove(&key),
            };
        }
    }
    out
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn transitions_follow_the_graph_and_count_up(moves in moves()) {
        let mut last: BTreeMap<AlarmId, (Phase, u32)> = BTreeMap::new();
        for t in play(&moves, None) {
            let (from, number) = last.get(&t.alarm).copied().unwrap_or((Phase::Inactive, 0));
            prop_assert_eq!(t.from, from, "{}", t.flag);
            prop_assert_eq!(t.number, number);
            prop_assert!(t.from.may_become(t.to), "{:?} to {:?}", t.from, t.to);
            last.insert(t.alarm, (t.to, number + 1));
        }
    }

    #[test]
    fn nothing_sounds_again_in_an_episode_that_was_acknowledged(moves in moves()) {
        let mut acknowledged = BTreeSet::new();
        for t in play(&moves, None) {
            let sounds = t.to.sounds() || matches!(t.cause, Cause::Reminder | Cause::Escalation);
            prop_assert!(!(sounds && acknowledged.contains(&t.alarm)), "{}", told(&[t]));
            if t.cause == Cause::Acknowledged {
                acknowledged.insert(t.alarm);
            }
        }
    }

    #[test]
    fn only_what_is_technical_or_higher_suppresses(moves in moves()) {
        for t in play(&moves, None) {
            if t.to == Phase::Suppressed {
                let by = t.suppressed_by.as_deref();
                prop_assert!(by == Some("lead-off") || by == Some("stale"), "{:?}", by);
            }
        }
    }

    #[test]
    fn a_restart_changes_nothing(moves in moves(), when in any::<prop::sample::Index>()) {
        let restart = when.index(moves.len());
        prop_assert_eq!(play(&moves, Some(restart)), play(&moves, None));
    }

    #[test]
    fn an_alarm_that_is_there_and_sounds_to_nobody_is_known(moves in moves()) {
        // Whatever the moves: within a tick's reach, each open alarm is in a phase that fits its condition.
        let (mut alarms, mut now) = (machine(), 0);
        for (pause, one) in &moves {
            now += pause;
            if let Some(input) = input(&alarms, now, one) {
                let _ = alarms.step(at(now), &input);
            }
            for alarm in alarms.open() {
                let fits = match alarm.phase {
                    Phase::Pending | Phase::Latched => !alarm.present,
                    Phase::Active | Phase::Acknowledged | Phase::Suppressed => alarm.present,
                    Phase::Paused => true,
                    Phase::Inactive | Phase::Ended => false,
                };
                prop_assert!(fits, "{:?} present {}", alarm.phase, alarm.present);
            }
        }
    }
}
