//! From the text of a policy to a [`Policy`], or the place of its first mistake.

use super::{
    DEFAULT_POLICY, MAX_ENTRIES, MAX_NAME_BYTES, MAX_POLICY_BYTES, MAX_ROSTER, MAX_TIME_US,
    MAX_VOTES, Policy, Rule, Step, Suppression, index,
};
use crate::Condition;
use haar_schema::Priority;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::ops::Range;
use toml::Spanned;

/// Below this likeness (Jaro–Winkler) two names merely share letters.
const SUGGEST_FROM: f64 = 0.75;

/// Why there is no policy.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PolicyError {
    /// Over [`MAX_POLICY_BYTES`].
    #[error("{file}: an alarm policy has at most {MAX_POLICY_BYTES} bytes, this one has {bytes}")]
    TooLong {
        /// The file.
        file: String,
        /// Its length.
        bytes: usize,
    },
    /// A mistake in it.
    #[error("{file}:{line}:{column}: {problem}{}", .meant.as_ref().map(|name| format!("; did you mean `{name}`?")).unwrap_or_default())]
    Mistake {
        /// The file.
        file: String,
        /// Line of the key or value, from 1.
        line: usize,
        /// Column of its first character, from 1.
        column: usize,
        /// What is wrong, and what to write.
        problem: String,
        /// The known name that is most like the one written.
        meant: Option<String>,
    },
}

/// A mistake and the bytes of the text that it is in.
type Misplaced = (Range<usize>, String);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    stale_after: Option<Spanned<String>>,
    silent_after: Option<Spanned<String>>,
    #[serde(default)]
    priority: Priorities,
    flags: Option<Spanned<Vec<FlagEntry>>>,
    suppress: Option<Spanned<Vec<SuppressEntry>>>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Priorities {
    information: RuleEntry,
    low: RuleEntry,
    medium: RuleEntry,
    high: RuleEntry,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct RuleEntry {
    windows: Option<Spanned<String>>,
    hold: Option<Spanned<String>>,
    clear: Option<Spanned<u8>>,
    latching: Option<bool>,
    remind_every: Option<Spanned<String>>,
    acknowledged_for: Option<Spanned<String>>,
    pause_at_most: Option<Spanned<String>>,
    episode_gap: Option<Spanned<String>>,
    escalate: Option<Spanned<Vec<StepEntry>>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct StepEntry {
    after: Spanned<String>,
    to: Spanned<Vec<Spanned<String>>>,
}

/// `flatten` and `deny_unknown_fields` exclude each other, hence the keys once more.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FlagEntry {
    name: Spanned<String>,
    condition: Option<Condition>,
    windows: Option<Spanned<String>>,
    hold: Option<Spanned<String>>,
    clear: Option<Spanned<u8>>,
    latching: Option<bool>,
    remind_every: Option<Spanned<String>>,
    acknowledged_for: Option<Spanned<String>>,
    pause_at_most: Option<Spanned<String>>,
    episode_gap: Option<Spanned<String>>,
    escalate: Option<Spanned<Vec<StepEntry>>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SuppressEntry {
    by: Spanned<String>,
    flags: Spanned<Vec<Spanned<String>>>,
    at_most: Spanned<String>,
}

pub(super) fn parse(file_name: &str, text: &str) -> Result<Policy, PolicyError> {
    if text.len() > MAX_POLICY_BYTES {
        return Err(PolicyError::TooLong { file: file_name.to_owned(), bytes: text.len() });
    }
    let file: File = toml::from_str(text).map_err(|error| {
        let span = error.span().unwrap_or(0..0);
        mistake(file_name, text, span, error.message().to_owned(), suggestion(error.message()))
    })?;
    overlay(built_in(), file)
        .map_err(|(span, problem)| mistake(file_name, text, span, problem, None))
}

/// The built-in policy. A test holds that its file is without a mistake.
pub(super) fn built_in() -> Policy {
    let nothing = Rule {
        raised: 1,
        of: 1,
        hold_us: 0,
        clear: 1,
        latching: false,
        remind_us: None,
        acknowledged_for_us: MAX_TIME_US,
        pause_us_max: MAX_TIME_US,
        gap_us: 0,
        escalate: Vec::new(),
    };
    let empty = Policy {
        stale_after_us: MAX_TIME_US,
        silent_after_us: MAX_TIME_US,
        priorities: std::array::from_fn(|_| nothing.clone()),
        flags: BTreeMap::new(),
        suppressions: Vec::new(),
    };
    let file = toml::from_str::<File>(DEFAULT_POLICY).ok();
    file.and_then(|file| overlay(empty.clone(), file).ok()).unwrap_or(empty)
}

fn overlay(base: Policy, file: File) -> Result<Policy, Misplaced> {
    let mut policy = base;
    if let Some(text) = &file.stale_after {
        policy.stale_after_us = time(text)?;
    }
    if let Some(text) = &file.silent_after {
        policy.silent_after_us = time(text)?;
    }
    let Priorities { information, low, medium, high } = file.priority;
    for (priority, entry) in [
        (Priority::Information, information),
        (Priority::Low, low),
        (Priority::Medium, medium),
        (Priority::High, high),
    ] {
        entry.overlay(&mut policy.priorities[index(priority)])?;
    }
    match file.flags {
        Some(entries) => policy.flags = flags(&policy.priorities, entries)?,
        // The built-in entries differ from the file's priorities in what they name, not in the rest.
        None if !policy.flags.is_empty() => {
            if let Ok(File { flags: Some(entries), .. }) = toml::from_str(DEFAULT_POLICY) {
                policy.flags = flags(&policy.priorities, entries)?;
            }
        }
        None => {}
    }
    if let Some(entries) = file.suppress {
        policy.suppressions = suppressions(entries)?;
    }
    Ok(policy)
}

/// Of each flag that a policy names: its condition if it says so, and its rule by priority.
type ByFlag = BTreeMap<String, (Option<Condition>, [Rule; 4])>;

fn flags(
    priorities: &[Rule; 4],
    entries: Spanned<Vec<FlagEntry>>,
) -> Result<ByFlag, Misplaced> {
    let entries = at_most(entries, MAX_ENTRIES, "flags")?;
    let mut flags = BTreeMap::new();
    for entry in entries {
        let flag = name(&entry.name)?;
        let rule = RuleEntry {
            windows: entry.windows,
            hold: entry.hold,
            clear: entry.clear,
            latching: entry.latching,
            remind_every: entry.remind_every,
            acknowledged_for: entry.acknowledged_for,
            pause_at_most: entry.pause_at_most,
            episode_gap: entry.episode_gap,
            escalate: entry.escalate,
        };
        let mut rules = priorities.clone();
        for own in &mut rules {
            rule.overlay(own)?;
        }
        if flags.insert(flag.clone(), (entry.condition, rules)).is_some() {
            return Err((entry.name.span(), format!("the flag `{flag}` is listed twice")));
        }
    }
    Ok(flags)
}

fn suppressions(entries: Spanned<Vec<SuppressEntry>>) -> Result<Vec<Suppression>, Misplaced> {
    let entries = at_most(entries, MAX_ENTRIES, "suppressions")?;
    entries
        .into_iter()
        .map(|entry| {
            let by = name(&entry.by)?;
            let listed = at_most(entry.flags, MAX_ENTRIES, "flags")?;
            let flags = listed.iter().map(|flag| match flag.get_ref().as_str() {
                "*" => Ok("*".to_owned()),
                own if own == by => {
                    Err((flag.span(), format!("`{by}` cannot suppress itself; leave it out")))
                }
                _ => name(flag),
            });
            let flags = flags.collect::<Result<_, _>>()?;
            Ok(Suppression { by, flags, at_most_us: time(&entry.at_most)? })
        })
        .collect()
}

impl RuleEntry {
    fn overlay(&self, rule: &mut Rule) -> Result<(), Misplaced> {
        if let Some(text) = &self.windows {
            (rule.raised, rule.of) = votes(text)?;
        }
        if let Some(text) = &self.hold {
            rule.hold_us = time(text)?;
        }
        if let Some(clear) = &self.clear {
            if !(1..=MAX_VOTES).contains(clear.get_ref()) {
                let problem = format!("`clear` must be between 1 and {MAX_VOTES} windows");
                return Err((clear.span(), problem));
            }
            rule.clear = *clear.get_ref();
        }
        if let Some(latching) = self.latching {
            rule.latching = latching;
        }
        if let Some(text) = &self.remind_every {
            rule.remind_us = if text.get_ref() == "never" { None } else { Some(positive(text)?) };
        }
        for (text, own) in [
            (&self.acknowledged_for, &mut rule.acknowledged_for_us),
            (&self.pause_at_most, &mut rule.pause_us_max),
        ] {
            if let Some(text) = text {
                *own = positive(text)?;
            }
        }
        if let Some(text) = &self.episode_gap {
            rule.gap_us = time(text)?;
        }
        if let Some(steps) = &self.escalate {
            rule.escalate = roster(steps)?;
        }
        Ok(())
    }
}

fn roster(entries: &Spanned<Vec<StepEntry>>) -> Result<Vec<Step>, Misplaced> {
    let too_many = |span, of: &str| (span, format!("at most {MAX_ROSTER} {of}"));
    if entries.get_ref().len() > MAX_ROSTER {
        return Err(too_many(entries.span(), "steps of an escalation"));
    }
    let mut steps: Vec<Step> = Vec::new();
    for entry in entries.get_ref() {
        let after_us = time(&entry.after)?;
        if steps.last().is_some_and(|last| last.after_us >= after_us) {
            let problem = "steps stand in the order of their times, each later than the one before";
            return Err((entry.after.span(), problem.to_owned()));
        }
        if !(1..=MAX_ROSTER).contains(&entry.to.get_ref().len()) {
            return Err(too_many(entry.to.span(), "contacts of a step, and at least one"));
        }
        let to = entry.to.get_ref().iter().map(name).collect::<Result<_, _>>()?;
        steps.push(Step { after_us, to });
    }
    Ok(steps)
}

/// `m of n`.
fn votes(text: &Spanned<String>) -> Result<(u8, u8), Misplaced> {
    let numbers = text.get_ref().split_once(" of ").and_then(|(raised, of)| {
        Some((raised.trim().parse::<u8>().ok()?, of.trim().parse::<u8>().ok()?))
    });
    match numbers {
        Some((raised, of)) if 1 <= raised && raised <= of && of <= MAX_VOTES => Ok((raised, of)),
        _ => Err((
            text.span(),
            format!("write windows as `\"2 of 3\"`: at least 1, of at most {MAX_VOTES}"),
        )),
    }
}

/// A whole number with `s`, `m` or `h`, in microseconds.
fn time(text: &Spanned<String>) -> Result<i64, Misplaced> {
    let written = text.get_ref();
    let parsed = [("s", 1), ("m", 60), ("h", 3_600)].iter().find_map(|(unit, seconds)| {
        let number: u32 = written.strip_suffix(unit)?.parse().ok()?;
        Some(i64::from(number) * seconds * 1_000_000)
    });
    match parsed {
        Some(time_us) if time_us <= MAX_TIME_US => Ok(time_us),
        Some(_) => Err((text.span(), "the longest time is 168h".to_owned())),
        None => Err((text.span(), "write a time as `\"10s\"`, `\"3m\"` or `\"1h\"`".to_owned())),
    }
}

fn positive(text: &Spanned<String>) -> Result<i64, Misplaced> {
    match time(text)? {
        0 => Err((text.span(), "this time must be longer than nothing".to_owned())),
        time_us => Ok(time_us),
    }
}

fn name(text: &Spanned<String>) -> Result<String, Misplaced> {
    let name = text.get_ref();
    let plain = name.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b));
    if plain && (1..=MAX_NAME_BYTES).contains(&name.len()) {
        return Ok(name.clone());
    }
    let problem =
        format!("a name has 1 to {MAX_NAME_BYTES} letters, digits, dots, hyphens and underscores");
    Err((text.span(), problem))
}

fn at_most<T>(list: Spanned<Vec<T>>, most: usize, what: &str) -> Result<Vec<T>, Misplaced> {
    if list.get_ref().len() > most {
        return Err((list.span(), format!("at most {most} {what}")));
    }
    Ok(list.into_inner())
}

/// The known key that is most like the unknown one in serde's message
/// ``unknown field `lathing`, expected one of `windows`, `latching`…``
fn suggestion(message: &str) -> Option<String> {
    let unknown_of = |kind| message.strip_prefix(kind);
    let rest = unknown_of("unknown field ").or_else(|| unknown_of("unknown variant "))?;
    let mut names = rest.split('`').skip(1).step_by(2);
    let unknown = names.next()?;
    names
        .map(|name| (strsim::jaro_winkler(unknown, name), name))
        .filter(|(likeness, _)| *likeness >= SUGGEST_FROM)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, name)| name.to_owned())
}

fn mistake(
    file: &str,
    text: &str,
    span: Range<usize>,
    problem: String,
    meant: Option<String>,
) -> PolicyError {
    let before = &text[..text.floor_char_boundary(span.start.min(text.len()))];
    let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
    PolicyError::Mistake {
        file: file.to_owned(),
        line: before.matches('\n').count() + 1,
        column: before[line_start..].chars().count() + 1,
        problem,
        meant,
    }
}
