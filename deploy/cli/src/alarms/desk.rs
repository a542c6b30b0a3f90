//! The commands that ask a running fog.
//!
//! Whoever may reach its admin address may act; the fog records the name that is given, and nothing here proves it.

use crate::failure::Failure;
use crate::fog::{Fog, text, time};
use clap::Args as ClapArgs;
use serde_json::{Value, json};
use std::fmt::Write;

/// Digits of an alarm's id that tell it apart in a list.
const SHORT_ID: usize = 12;

#[derive(Debug, ClapArgs)]
pub(super) struct Look {
    #[command(flatten)]
    fog: Fog,
}

#[derive(Debug, ClapArgs)]
pub(super) struct History {
    /// Steps before this leaf; default the newest.
    #[arg(long, value_name = "LEAF")]
    before: Option<u64>,
    /// How many.
    #[arg(long, default_value_t = 50)]
    limit: usize,
    #[command(flatten)]
    fog: Fog,
}

#[derive(Debug, ClapArgs)]
pub(super) struct Act {
    /// The alarm's id, or as much of its beginning as only one alarm has.
    alarm: String,
    /// Who acts: a name or staff number. It is committed with the action.
    #[arg(long, value_name = "NAME")]
    by: String,
    #[command(flatten)]
    fog: Fog,
}

#[derive(Debug, ClapArgs)]
pub(super) struct Pause {
    #[command(flatten)]
    act: Act,
    /// How long, in seconds; the policy says how long is allowed.
    #[arg(long)]
    seconds: u32,
}

/// The alarms that are not over.
pub(super) fn list(look: &Look) -> Result<(), Failure> {
    look.fog.show(&look.fog.get("/v1/alarms")?, alarms_table);
    Ok(())
}

/// One page of the history.
pub(super) fn history(page: &History) -> Result<(), Failure> {
    let before = page.before.map_or(String::new(), |leaf| format!("&before={leaf}"));
    let path = format!("/v1/alarms/history?limit={}{before}", page.limit);
    page.fog.show(&page.fog.get(&path)?, history_table);
    Ok(())
}

/// What waits and what was given up.
pub(super) fn outbox(look: &Look) -> Result<(), Failure> {
    look.fog.show(&look.fog.get("/v1/alarms/outbox")?, outbox_table);
    Ok(())
}

/// A pause.
pub(super) fn pause(pause: &Pause) -> Result<(), Failure> {
    act(&pause.act, "pause", Some(pause.seconds))
}

/// Somebody acts on an alarm.
pub(super) fn act(act: &Act, deed: &str, seconds: Option<u32>) -> Result<(), Failure> {
    let id = whole_id(&act.fog.get("/v1/alarms")?, &act.alarm)?;
    let mut body = json!({ "by": act.by });
    if let Some(seconds) = seconds {
        body["seconds"] = json!(seconds);
    }
    let path = format!("/v1/alarms/{id}/{deed}");
    let committed = act.fog.post(&path, "application/json", body.to_string().into_bytes())?;
    act.fog.show(&committed, |committed| {
        let leaves: Vec<String> =
            committed["leaves"].as_array().into_iter().flatten().map(Value::to_string).collect();
        let last = committed["transitions"].as_array().and_then(|steps| steps.last());
        let now = last.map_or("as it was", |step| text(&step["to"]));
        format!("{now}; committed as leaf {}\n", leaves.join(", "))
    });
    Ok(())
}

/// The one open alarm whose id begins so.
fn whole_id(open: &Value, beginning: &str) -> Result<String, Failure> {
    let ids = open.as_array().into_iter().flatten().map(|alarm| text(&alarm["alarm"]));
    let fitting: Vec<&str> = ids.filter(|id| id.starts_with(&beginning.to_lowercase())).collect();
    match fitting.as_slice() {
        [id] => Ok((*id).to_owned()),
        [] => Err(Failure::usage(format!(
            "no open alarm has an id that begins with {beginning}; `haar alarms list` shows those that are"
        ))),
        several => Err(Failure::usage(format!(
            "{} open alarms have ids that begin with {beginning}; give more digits",
            several.len()
        ))),
    }
}

fn alarms_table(open: &Value) -> String {
    let alarms = open.as_array().map_or(&[][..], Vec::as_slice);
    if alarms.is_empty() {
        return "no alarm is open\n".to_owned();
    }
    let mut table = format!(
        "{:<12}  {:<11}  {:<12}  {:<27}  {:<28}  text\n",
        "alarm", "priority", "state", "since", "flag"
    );
    for alarm in alarms {
        let id = text(&alarm["alarm"]);
        // Writing into a String cannot fail.
        let _ = writeln!(
            table,
            "{:<12}  {:<11}  {:<12}  {:<27}  {:<28}  {}",
            id.get(..SHORT_ID).unwrap_or(id),
            text(&alarm["priority"]),
            text(&alarm["phase"]),
            time(&alarm["since_us"]),
            text(&alarm["flag"]),
            text(&alarm["text"]),
        );
    }
    table
}

fn history_table(page: &Value) -> String {
    let mut table = format!(
        "{:>8}  {:<27}  {:<12}  {:<8}  {:<28}  {:<12}  cause\n",
        "leaf", "time", "alarm", "priority", "flag", "state"
    );
    for step in page["steps"].as_array().into_iter().flatten() {
        let id = text(&step["alarm"]);
        let by = step["by"].as_str().map_or(String::new(), |by| format!(" by {by}"));
        let _ = writeln!(
            table,
            "{:>8}  {:<27}  {:<12}  {:<8}  {:<28}  {:<12}  {}{by}",
            step["leaf"].to_string(),
            time(&step["at_us"]),
            id.get(..SHORT_ID).unwrap_or(id),
            text(&step["priority"]),
            text(&step["flag"]),
            text(&step["to"]),
            text(&step["cause"]),
        );
    }
    if let Some(before) = page["before"].as_u64() {
        let _ = writeln!(table, "earlier steps: --before {before}");
    }
    table
}

fn outbox_table(standing: &Value) -> String {
    let mut table = String::new();
    for target in standing["targets"].as_array().into_iter().flatten() {
        let _ = writeln!(
            table,
            "{}: {} wait, the oldest since {}, up to {} attempts",
            text(&target["target"]),
            target["waiting"],
            time(&target["oldest_us"]),
            target["attempts_max"],
        );
    }
    if table.is_empty() {
        table.push_str("nothing waits\n");
    }
    for letter in standing["dead_letters"].as_array().into_iter().flatten() {
        let _ = writeln!(
            table,
            "given up {}: leaf {} to {} ({}, {} attempts)",
            time(&letter["at_us"]),
            letter["leaf"],
            text(&letter["target"]),
            text(&letter["reason"]),
            letter["attempts"],
        );
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::expect;

    #[test]
    fn an_id_is_completed_if_only_one_begins_so() {
        let open = json!([{ "alarm": "abc1" }, { "alarm": "abd2" }]);
        assert_eq!(whole_id(&open, "ABC").unwrap(), "abc1");
        assert!(whole_id(&open, "ab").unwrap_err().to_string().starts_with("2 open alarms"));
        assert!(whole_id(&open, "x").unwrap_err().to_string().starts_with("no open alarm"));
    }

    #[test]
    fn tables_are_for_people() {
        let step = json!({ "leaf": 7, "at_us": 1_000_000, "alarm": "ab12", "priority": "high", "flag": "hypoxia", "to": "acknowledged", "cause": "acknowledged", "by": "nurse 7" });
        let page = json!({ "steps": [step], "before": 7 });
        expect![[r#"
                leaf  time                         alarm         priority  flag                          state         cause
                   7  1970-01-01T00:00:01Z         ab12          high      hypoxia                       acknowledged  acknowledged by nurse 7
            earlier steps: --before 7
        "#]]
        .assert_eq(&history_table(&page));
        let standing = json!({
            "targets": [{ "target": "pager", "waiting": 2, "oldest_us": 1_000_000, "attempts_max": 3 }],
            "dead_letters": [{ "at_us": 2_000_000, "leaf": 9, "target": "mail", "reason": "expired", "attempts": 5 }],
        });
        expect![[r#"
            pager: 2 wait, the oldest since 1970-01-01T00:00:01Z, up to 3 attempts
            given up 1970-01-01T00:00:02Z: leaf 9 to mail (expired, 5 attempts)
        "#]]
        .assert_eq(&outbox_table(&standing));
        assert_eq!(alarms_table(&json!([])), "no alarm is open\n");
    }
}
