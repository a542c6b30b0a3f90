//! Typed access to a TOML table, noting every mistake with its place.

use super::{MAX_NAME_BYTES, MAX_TEXT_CHARS, toml_string};
use crate::diagnostics::{Report, did_you_mean};
use crate::feature::Vocabulary;
use crate::rule::Rule;
use crate::window::{DurationError, duration, parse_duration};
use haar_schema::SampleRate;
use std::ops::{Range, RangeInclusive};
use toml::de::{DeTable, DeValue};

/// A table and where it stands.
pub(super) struct Table<'d, 'i> {
    entries: &'d DeTable<'i>,
    span: Range<usize>,
    /// How a message calls it.
    name: &'static str,
}

/// A key with its value, and where both stand.
pub(super) struct Field<'d, 'i> {
    key: &'static str,
    key_span: Range<usize>,
    value: &'d DeValue<'i>,
    span: Range<usize>,
}

impl<'d, 'i> Table<'d, 'i> {
    /// The field of that key, if it is there.
    pub(super) fn get(&self, key: &'static str) -> Option<Field<'d, 'i>> {
        let (found, value) = self.entries.get_key_value(key)?;
        Some(Field { key, key_span: found.span(), value: value.get_ref(), span: value.span() })
    }
}

/// Reads fields; every `None` it returns has a mistake noted for it.
pub(super) struct Reader<'r, 't> {
    report: &'r mut Report<'t>,
    /// The TOML had no syntax error, so that what is not there was not written.
    complete: bool,
}

impl<'r, 't> Reader<'r, 't> {
    pub(super) fn new(report: &'r mut Report<'t>, complete: bool) -> Self {
        Self { report, complete }
    }

    /// The outermost table.
    pub(super) fn root<'d, 'i>(
        &mut self,
        entries: &'d DeTable<'i>,
        name: &'static str,
        keys: &[&str],
    ) -> Table<'d, 'i> {
        self.known_keys(entries, keys);
        Table { entries, span: 0..0, name }
    }

    /// A field whose absence is a mistake.
    pub(super) fn required<'d, 'i>(
        &mut self,
        table: &Table<'d, 'i>,
        key: &'static str,
    ) -> Option<Field<'d, 'i>> {
        let field = table.get(key);
        if field.is_none() && self.complete {
            let message = format!("{} has no `{key}`", table.name);
            self.report.add(table.span.clone(), message, Some(format!("add {}", example(key))));
        }
        field
    }

    /// The field as a table with these keys.
    pub(super) fn table<'d, 'i>(
        &mut self,
        field: &Field<'d, 'i>,
        keys: &[&str],
    ) -> Option<Table<'d, 'i>> {
        let DeValue::Table(entries) = field.value else {
            return self.wrong_type(field, "a table", Some(format!("write `[{}]`", field.key)));
        };
        self.known_keys(entries, keys);
        Some(Table { entries, span: field.span.clone(), name: name_of(field.key) })
    }

    /// The field as a list of 1 to `most` tables with these keys.
    pub(super) fn tables<'d, 'i>(
        &mut self,
        field: &Field<'d, 'i>,
        most: usize,
        keys: &[&str],
    ) -> Option<Vec<Table<'d, 'i>>> {
        let suggestion = Some(format!("write `[[{}]]`", field.key));
        let DeValue::Array(items) = field.value else {
            return self.wrong_type(field, "a list of tables", suggestion);
        };
        if items.is_empty() || items.len() > most {
            let message = format!("`{}` has 1 to {most} entries, not {}", field.key, items.len());
            self.wrong(field, message, None);
            return None;
        }
        let mut tables = Vec::with_capacity(items.len());
        for item in items.iter() {
            let DeValue::Table(entries) = item.get_ref() else {
                return self.wrong_type(field, "a list of tables", suggestion);
            };
            self.known_keys(entries, keys);
            tables.push(Table { entries, span: item.span(), name: name_of(field.key) });
        }
        Some(tables)
    }

    /// The field as a string.
    pub(super) fn string(&mut self, field: &Field<'_, '_>) -> Option<String> {
        let DeValue::String(text) = field.value else {
            return self.wrong_type(field, "a string", None);
        };
        Some(text.clone().into_owned())
    }

    /// The field as a name: lower-case letters, digits, hyphens, beginning with a letter.
    pub(super) fn name(&mut self, field: &Field<'_, '_>) -> Option<String> {
        let name = self.string(field)?;
        let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        let fits = name.len() <= MAX_NAME_BYTES
            && name.starts_with(|c: char| c.is_ascii_lowercase())
            && name.chars().all(allowed);
        if fits {
            return Some(name);
        }
        let message = format!(
            "`{}` is lower-case letters, digits and hyphens, a letter first, at most \
             {MAX_NAME_BYTES} bytes",
            field.key
        );
        let likely: String = name
            .to_lowercase()
            .chars()
            .map(|c| if allowed(c) { c } else { '-' })
            .skip_while(|c| !c.is_ascii_lowercase())
            .take(MAX_NAME_BYTES)
            .collect();
        let suggestion = (!likely.is_empty()).then(|| format!("write `{likely}`"));
        self.wrong(field, message, suggestion);
        None
    }

    /// The field as a line for a person.
    pub(super) fn text(&mut self, field: &Field<'_, '_>) -> Option<String> {
        let text = self.string(field)?;
        if (1..=MAX_TEXT_CHARS).contains(&text.chars().count())
            && !text.chars().any(char::is_control)
        {
            return Some(text);
        }
        let message = format!("`{}` is one line of 1 to {MAX_TEXT_CHARS} characters", field.key);
        self.wrong(field, message, None);
        None
    }

    /// The field as a version, from 1.
    pub(super) fn version(&mut self, field: &Field<'_, '_>) -> Option<u32> {
        let DeValue::Integer(number) = field.value else {
            return self.wrong_type(
                field,
                "a whole number",
                Some("write `version = 1`".to_owned()),
            );
        };
        let version = u32::from_str_radix(number.as_str(), number.radix()).ok();
        let version = version.filter(|version| *version > 0);
        if version.is_none() {
            self.wrong(field, format!("`version` is from 1 to {}", u32::MAX), None);
        }
        version
    }

    /// The field as a rate in hertz.
    pub(super) fn rate(&mut self, field: &Field<'_, '_>) -> Option<SampleRate> {
        let hz: Option<f64> = match field.value {
            DeValue::Float(number) => number.as_str().parse().ok(),
            DeValue::Integer(number) => {
                i64::from_str_radix(number.as_str(), number.radix()).ok().map(|hz| hz as f64)
            }
            _ => {
                return self.wrong_type(
                    field,
                    "a number",
                    Some("write `rate_hz = 1.0`".to_owned()),
                );
            }
        };
        /// Far above every waveform that a bedside device sends.
        const MAX_HZ: f64 = 100_000.0;
        let millihertz = hz.filter(|hz| *hz <= MAX_HZ).map(|hz| (hz * 1_000.0).round());
        let rate = millihertz
            .filter(|millihertz| *millihertz >= 1.0)
            .and_then(|millihertz| SampleRate::from_millihertz(millihertz as u32));
        if rate.is_none() {
            self.wrong(field, format!("`{}` is from 0.001 to {MAX_HZ}", field.key), None);
        }
        rate
    }

    /// The field as one of these words.
    pub(super) fn one_of<T: Copy>(
        &mut self,
        field: &Field<'_, '_>,
        words: &[(&str, T)],
    ) -> Option<T> {
        let given = self.string(field)?;
        let found = words.iter().find(|(word, _)| *word == given);
        if found.is_none() {
            let all: Vec<String> = words.iter().map(|(word, _)| format!("`{word}`")).collect();
            let suggestion = did_you_mean(&given, words.iter().map(|(word, _)| *word));
            let message = match field.key {
                "features" => format!("`{given}` is no group of features of this family"),
                key => format!("`{given}` is no {key}"),
            };
            let suggestion = suggestion.unwrap_or_else(|| match all.is_empty() {
                true => "leave it out: this family has none".to_owned(),
                false => format!("write {}", all.join(" or ")),
            });
            self.wrong(field, message, Some(suggestion));
        }
        found.map(|(_, meaning)| *meaning)
    }

    /// The field as a list of some of these words.
    pub(super) fn words<T: Copy>(
        &mut self,
        field: &Field<'_, '_>,
        words: &[(&str, T)],
    ) -> Option<Vec<T>> {
        let DeValue::Array(items) = field.value else {
            return self.wrong_type(field, "a list of words", None);
        };
        let mut found = Vec::new();
        for item in items.iter() {
            let (key, key_span) = (field.key, field.key_span.clone());
            let one = Field { key, key_span, value: item.get_ref(), span: item.span() };
            found.push(self.one_of(&one, words));
        }
        // Every mistake is noted before the list is given up.
        found.into_iter().collect()
    }

    /// The field as a duration within these limits, in microseconds.
    pub(super) fn duration(
        &mut self,
        field: &Field<'_, '_>,
        limits_us: RangeInclusive<i64>,
    ) -> Option<i64> {
        if let DeValue::Integer(number) = field.value {
            let suggestion = Some(format!("write `\"{}s\"`", number.as_str()));
            return self.wrong_type(field, "a duration with its unit", suggestion);
        }
        let text = self.string(field)?;
        let (least, most) = (duration(*limits_us.start()), duration(*limits_us.end()));
        let (message, suggestion) = match parse_duration(&text) {
            Ok(us) if limits_us.contains(&us) => return Some(us),
            Ok(us) => {
                let nearest = if us < *limits_us.start() { &least } else { &most };
                let message = format!("`{}` is from {least} to {most} here", field.key);
                (message, Some(format!("write `\"{nearest}\"`")))
            }
            Err(error) => {
                let likely = match error {
                    DurationError::Unit => likely_duration(&text),
                    _ => None,
                };
                let usual = || "write a whole number and a unit, such as `\"60s\"`".to_owned();
                (error.to_string(), Some(likely.unwrap_or_else(usual)))
            }
        };
        self.wrong(field, message, suggestion);
        None
    }

    /// The field as a rule; its mistakes are placed inside the string.
    pub(super) fn rule(&mut self, field: &Field<'_, '_>, vocabulary: &Vocabulary) -> Option<Rule> {
        let text = self.string(field)?;
        Rule::compile(&text, vocabulary)
            .map_err(|mistakes| {
                let written = self.report.text().get(field.span.clone()).unwrap_or_default();
                for mistake in mistakes {
                    let start = toml_string::source_offset(written, mistake.range.start);
                    let end = toml_string::source_offset(written, mistake.range.end).max(start);
                    let span = field.span.start + start..field.span.start + end;
                    self.report.add(span, mistake.message, mistake.suggestion);
                }
            })
            .ok()
    }

    /// Notes a mistake in a field's value.
    pub(super) fn wrong(
        &mut self,
        field: &Field<'_, '_>,
        message: String,
        suggestion: Option<String>,
    ) {
        // Where the TOML itself is wrong, the value is what recovery made of it.
        if self.complete || !self.report.has_mistake_on_line_of(field.span.start) {
            self.report.add(field.span.clone(), message, suggestion);
        }
    }

    /// Notes that a table should not be there.
    pub(super) fn no_table(&mut self, field: &Field<'_, '_>, message: &str) {
        self.report.add(field.key_span.clone(), message, Some(format!("remove `[{}]`", field.key)));
    }

    fn wrong_type<T>(
        &mut self,
        field: &Field<'_, '_>,
        wanted: &str,
        suggestion: Option<String>,
    ) -> Option<T> {
        let given = match field.value {
            DeValue::String(_) => "a string",
            DeValue::Integer(_) => "a whole number",
            DeValue::Float(_) => "a decimal",
            DeValue::Boolean(_) => "a boolean",
            DeValue::Datetime(_) => "a date",
            DeValue::Array(_) => "a list",
            DeValue::Table(_) => "a table",
        };
        self.wrong(field, format!("`{}` is {wanted}, not {given}", field.key), suggestion);
        None
    }

    fn known_keys(&mut self, entries: &DeTable<'_>, keys: &[&str]) {
        for key in entries.keys() {
            let name = key.get_ref().as_ref();
            if !keys.contains(&name) {
                let near = did_you_mean(name, keys.iter().copied());
                let suggestion = near.unwrap_or_else(|| format!("known here: {}", keys.join(", ")));
                self.report.add(key.span(), format!("unknown key `{name}`"), Some(suggestion));
            }
        }
    }
}

/// How a message calls the table under a key.
fn name_of(key: &str) -> &'static str {
    match key {
        "window" => "`[window]`",
        "signals" => "this signal",
        "model" => "`[model]`",
        "flags" => "this flag",
        _ => "this table",
    }
}

/// A line that would fill in a required key.
fn example(key: &str) -> &'static str {
    match key {
        "id" => "`id = \"ward-vitals\"`",
        "version" => "`version = 1`",
        "title" => "`title = \"…\"`",
        "family" => "`family = \"vitals\"` or `family = \"ecg\"`",
        "window" => "`[window]` with `size = \"60s\"`",
        "size" => "`size = \"60s\"`",
        "signals" => "`[[signals]]` with `name` and `rate_hz`",
        "name" => "`name = \"…\"`",
        "rate_hz" => "`rate_hz = 1.0`, the readings a second that are expected",
        "flags" => "`[[flags]]` with `name`, `priority`, `text` and `when`",
        "priority" => "`priority = \"medium\"`",
        "text" => "`text = \"…\"`, for the person who has to act",
        "when" => "`when = \"…\"`, such as `when = \"heart_rate.mean > 130\"`",
        _ => "it",
    }
}

/// The duration that was meant where only the unit is wrong.
fn likely_duration(text: &str) -> Option<String> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let unit = match unit.trim().to_lowercase().as_str() {
        "" | "s" | "sec" | "secs" | "second" | "seconds" => "s",
        "ms" | "msec" | "millis" | "milliseconds" => "ms",
        "m" | "min" | "mins" | "minute" | "minutes" => "min",
        "h" | "hr" | "hour" | "hours" => "h",
        _ => return None,
    };
    Some(format!("write `\"{number}{unit}\"`"))
}
