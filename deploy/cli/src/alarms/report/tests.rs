use super::*;
use haar_recordings::wfdb::{Format, write_record};
use std::fmt::Write as _;

fn args(data: &Path, records: &[&str]) -> Args {
    Args {
        data: data.to_owned(),
        records: records.iter().map(|name| (*name).to_owned()).collect(),
        pipelines: Vec::new(),
        policy: None,
        json: true,
        report: None,
    }
}

fn counted(args: &Args) -> Result<Summary, Failure> {
    measure(args).map(|(summary, _)| summary)
}

/// Two minutes of a monitor that shows a heart rate of 80 and, of SpO₂, what `spo2` says of each second.
fn monitored(spo2: impl Fn(usize) -> &'static str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
    let mut rows = "Time [s], HR, PULSE, RESP, SpO2\n".to_owned();
    for second in 0..120 {
        writeln!(rows, "{second},80,80,15,{}", spo2(second)).unwrap();
    }
    write("x_Numerics.csv", &rows);
    write("x_Signals.csv", "Time [s], RESP\n0,0.5\n");
    write("x_Breaths.csv", "breaths ann1, breaths ann2\n0,0\n");
    folder
}

#[test]
fn hypoxia_is_counted_by_hand() {
    // Half a window of readings is there from the window that ends at 30 s on: ten windows to 120 s.
    let folder = monitored(|_| "85");
    let summary = counted(&args(folder.path(), &["x"])).unwrap();
    assert_eq!((summary.recordings, summary.patients), (1, 1));
    assert_eq!(summary.total.count.each(), [10, 1, 1, 1, 1]);
    let rate = 24.0 * 3_600.0 / 120.0;
    assert_eq!(summary.total.per_patient_day.each(), [10, 1, 1, 1, 1].map(|n| f64::from(n) * rate));
    let alarm = &summary.alarms[0];
    // "2 of 3" and 10 s: the second window sounds.
    assert_eq!(
        (alarm.flag.as_str(), alarm.sounded_s, alarm.delay_s),
        ("hypoxia", Some(40.0), Some(10.0))
    );
    assert_eq!((summary.delay_s.median, summary.delay_s.p90), (Some(10.0), Some(10.0)));
    assert_eq!(summary.suppression.share, Some(0.0));
}

#[test]
fn a_policy_file_changes_the_machine_and_nothing_before_it() {
    let folder = monitored(|_| "85");
    let path = folder.path().join("policy.toml");
    std::fs::write(&path, "[priority.high]\nwindows = \"9 of 12\"\n").unwrap();
    let mut patient = args(folder.path(), &[]);
    patient.policy = Some(path.clone());
    let summary = counted(&patient).unwrap();
    assert_eq!(summary.total.count.each(), [10, 1, 1, 1, 1]);
    assert_eq!(summary.alarms[0].delay_s, Some(80.0));
    std::fs::write(&path, "[priority.high]\nwindows = \"11 of 12\"\n").unwrap();
    assert_eq!(counted(&patient).unwrap().total.count.each(), [10, 1, 1, 0, 0]);
    std::fs::write(&path, "[priority.hihg]\n").unwrap();
    let error = counted(&patient).err().unwrap().to_string();
    assert!(error.contains("policy.toml:1:"), "{error}");
}

#[test]
fn an_end_of_the_recording_is_no_fault_of_a_sensor() {
    let quiet = monitored(|_| "97");
    let summary = counted(&args(quiet.path(), &[])).unwrap();
    assert_eq!(summary.total.count.each(), [0; 5]);
    assert_eq!((summary.suppression.share, summary.delay_s.median), (None, None));
    // A finger that slips out in the middle of it is one.
    let slipped = monitored(|second| if second < 60 { "97" } else { "NaN" });
    let summary = counted(&args(slipped.path(), &[])).unwrap();
    assert_eq!(summary.by_flag.len(), 1);
    assert_eq!(
        (summary.by_flag[0].flag.as_str(), summary.by_flag[0].condition),
        ("sensor-gaps", "technical")
    );
    assert_eq!(summary.total.count.full, 1);
}

#[test]
fn same_input_same_output() {
    let folder = monitored(|second| if second % 50 < 40 { "85" } else { "99" });
    let once = || {
        let summary = counted(&args(folder.path(), &[])).unwrap();
        assert!(summary.total.count.windows > 0);
        (serde_json::to_string(&summary).unwrap(), show::text(&summary))
    };
    assert_eq!(once(), once());
}

#[test]
fn wfdb_records_are_found_and_those_without_an_ecg_named() {
    let folder = tempfile::tempdir().unwrap();
    let mut mv = vec![0.0_f32; 60 * 250];
    for beat in (200..mv.len() - 1).step_by(200) {
        mv[beat - 1..=beat + 1].copy_from_slice(&[0.5, 1.0, 0.5]);
    }
    write_record(folder.path(), "a", Format::F16, 250.0, 200.0, &[("II", &mv)]).unwrap();
    write_record(folder.path(), "b", Format::F16, 250.0, 200.0, &[("RESP", &mv)]).unwrap();
    let summary = counted(&args(folder.path(), &[])).unwrap();
    assert_eq!((summary.recordings, summary.left_out.as_slice()), (1, &["b".to_owned()][..]));
    assert!((summary.hours - 1.0 / 60.0).abs() < 1e-9);
    let only = counted(&args(folder.path(), &["b"])).err().unwrap();
    assert!(only.to_string().starts_with("no recording in "), "{only}");
    let missing = counted(&args(folder.path(), &["a", "c"])).err().unwrap();
    assert!(missing.to_string().starts_with("no recording called c in "), "{missing}");
}

#[test]
fn charted_hours_are_one_reading_each() {
    let folder = tempfile::tempdir().unwrap();
    let mut head: Vec<&str> =
        haar_recordings::cinc2019::VARIABLES.iter().map(|variable| variable.name).collect();
    head.extend(["Age", "Gender", "HospAdmTime", "ICULOS"]);
    let mut text = head.join("|");
    for hour in 1..=3 {
        let temperature = if hour == 2 { "36.8" } else { "38.9" };
        let cells = head.iter().map(|name| match *name {
            "Temp" => temperature.to_owned(),
            "ICULOS" => hour.to_string(),
            _ => "NaN".to_owned(),
        });
        write!(text, "\n{}", cells.collect::<Vec<_>>().join("|")).unwrap();
    }
    std::fs::write(folder.path().join("p1.psv"), text).unwrap();
    let summary = counted(&args(folder.path(), &["p1"])).unwrap();
    assert_eq!((summary.patients, summary.hours), (1, 3.0));
    // A reading is in six windows of a minute, 10 s apart; two fevers are two hours apart.
    assert_eq!(summary.total.count.each(), [12, 2, 2, 2, 2]);
    assert_eq!((summary.delay_s.median, summary.delay_s.p90), (Some(20.0), Some(20.0)));
}

#[test]
fn the_page_has_the_figures() {
    let folder = monitored(|_| "85");
    let mut patient = args(folder.path(), &[]);
    patient.report = Some(folder.path().join("alarms.html"));
    run(&patient).unwrap();
    let page = std::fs::read_to_string(folder.path().join("alarms.html")).unwrap();
    for expected in ["hypoxia (high, limit)", "7200.0 (10)", "nobody acknowledges", "x (0.03 h)"] {
        assert!(page.contains(expected), "{expected}");
    }
}

#[test]
fn recorded_alarms_are_drawn() {
    let data = std::env::var_os("HAAR_DATA").expect("set HAAR_DATA to the recordings, see README");
    let mut one = args(&PathBuf::from(data).join("mitdb"), &["104", "122"]);
    one.report = Some("unused".into());
    let (summary, strips) = measure(&one).unwrap();
    // In the one nothing sounds; of the other the first alarm is shown, and the ten seconds before it.
    let [strip] = &strips[..] else { panic!("one strip") };
    let first = &summary.alarms[0];
    assert_eq!((strip.record.as_str(), first.record.as_str()), ("104", "104"));
    assert!(strip.caption.contains(&format!("{:.0} s: {}", first.sounded_s.unwrap(), first.flag)));
    assert_eq!(strip.strip.samples.len(), 3_600);
}

fn recorded(set: &str, records: &[&str]) -> Summary {
    let data = std::env::var_os("HAAR_DATA").expect("set HAAR_DATA to the recordings, see README");
    counted(&args(&PathBuf::from(data).join(set), records)).unwrap()
}

#[test]
fn recorded_alarms_grow_fewer_from_step_to_step() {
    let monitors = recorded("bidmc", &["bidmc_03", "bidmc_13", "bidmc_19", "bidmc_25"]);
    let arrhythmias = recorded("mitdb", &["114", "201", "230"]);
    for summary in [&monitors, &arrhythmias] {
        let lines = summary.by_flag.iter().map(|line| line.figures.count);
        for count in lines.chain([summary.total.count]) {
            let ordered = count.full <= count.delayed
                && count.delayed <= count.runs
                && count.undelayed <= count.runs
                && count.runs <= count.windows;
            assert!(ordered, "{count:?}");
        }
        let total = summary.total.count;
        assert!(total.full > 0 && 20 * total.full < total.windows, "{total:?}");
        assert!(2 * total.full <= total.undelayed.max(total.runs), "{total:?}");
        let delay = summary.delay_s.median.unwrap();
        assert!((0.0..=60.0).contains(&delay), "{delay}");
        for alarm in &summary.alarms {
            assert!(alarm.sounded_s.is_none_or(|at| at <= 1_810.0) && alarm.delay_s >= Some(0.0));
        }
    }
    // By its annotations 201 is in atrial fibrillation for a third of the time, and 230 never.
    let fibrillation = |record: &str| {
        let of = |alarm: &&tally::Alarm| {
            alarm.record == record && alarm.flag == "possible-atrial-fibrillation"
        };
        arrhythmias.alarms.iter().filter(of).count()
    };
    assert!(fibrillation("201") > 0);
    assert_eq!(fibrillation("230"), 0);
    assert!((monitors.hours - 4.0 * 8.0 / 60.0).abs() < 0.01, "{}", monitors.hours);
    let again = recorded("mitdb", &["114", "201", "230"]);
    assert_eq!(
        serde_json::to_string(&again).unwrap(),
        serde_json::to_string(&arrhythmias).unwrap()
    );
}
