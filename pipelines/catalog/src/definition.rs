//! The definition file: TOML in, a [`Definition`] or all of its mistakes out.
//!
//! # Format
//! ```toml
//! id = "ward-vitals"            # lower case, digits, hyphens
//! version = 1                   # 1 or more
//! title = "Vital signs"
//! family = "vitals"             # or "ecg", "device", "pulse"
//! features = ["qsofa", "mews"]  # absent: none but those that every window of the family has
//!
//! [window]
//! size = "60s"                  # a multiple of slide
//! slide = "10s"                 # absent: tumbling
//! lateness = "30s"              # absent: none
//!
//! [[signals]]
//! name = "heart_rate"
//! rate_hz = 1.0                 # expected; for coverage
//!
//! [model]                       # for ecg and device
//! id = "ecg-beats"              # or "ecg-rhythm"; for device "device-faults", also where it is absent
//!
//! [[flags]]
//! name = "tachycardia"
//! priority = "medium"           # information, low, medium, high
//! text = "For the person who has to act."
//! when = "heart_rate.mean > 130"
//! ```
//!
//! # Limits
//! The constants below, those of [`crate::rule`] and those of [`crate::window`].
//!
//! # Trust
//! A definition is written by the operator of a fog. It can be wrong, and it is untrusted in so far as no
//! text may panic or use unbounded memory here.

mod reader;
mod toml_string;

use crate::Family;
use crate::device::FAULT_MODEL;
use crate::diagnostics::{Diagnostics, Report, did_you_mean};
use crate::feature::Vocabulary;
use crate::group::Group;
use crate::rule::Rule;
use crate::window::{
    MAX_ECG_SIZE_US, MAX_LATENESS_US, MAX_SIZE_US, MIN_SLIDE_US, WindowSpec, duration,
};
use haar_schema::{Priority, SampleRate, SignalId, SignalKind, SignalSet};
use reader::{Field, Reader};
use toml::de::DeTable;

/// The longest definition.
pub const MAX_DEFINITION_BYTES: usize = 64 * 1024;
/// The most signals of a pipeline.
pub const MAX_SIGNALS: usize = 32;
/// The most flags of a pipeline.
pub const MAX_FLAGS: usize = 64;
/// The longest `id` or flag name, in bytes.
pub const MAX_NAME_BYTES: usize = 64;
/// The longest `title`, and `text` of a flag, in characters.
pub const MAX_TEXT_CHARS: usize = 240;

const FAMILIES: [(&str, Family); 4] = [
    ("vitals", Family::Vitals),
    ("ecg", Family::Ecg),
    ("device", Family::Device),
    ("pulse", Family::Pulse),
];

/// What a definition says, checked.
#[derive(Debug)]
pub(crate) struct Definition {
    pub(crate) id: String,
    pub(crate) version: u32,
    pub(crate) title: String,
    pub(crate) family: Family,
    pub(crate) window: WindowSpec,
    pub(crate) signals: Vec<(SignalId, SampleRate)>,
    /// Ascending, each once.
    pub(crate) groups: Vec<Group>,
    pub(crate) model: Option<String>,
    pub(crate) flags: Vec<Flag>,
}

/// One flag, its rule compiled.
#[derive(Debug)]
pub(crate) struct Flag {
    pub(crate) name: String,
    pub(crate) priority: Priority,
    pub(crate) text: String,
    pub(crate) rule: Rule,
}

/// Reads a definition.
pub(crate) fn parse(file_name: &str, text: &str) -> Result<Definition, Diagnostics> {
    let mut report = Report::new(file_name, text);
    if text.len() > MAX_DEFINITION_BYTES {
        let message = format!("a definition has at most {MAX_DEFINITION_BYTES} bytes");
        report.add(0..0, message, None);
        return Err(report.finish());
    }
    let (root, errors) = DeTable::parse_recoverable(text);
    for error in &errors {
        report.add(error.span().unwrap_or(0..0), error.message(), None);
    }
    let mut reader = Reader::new(&mut report, errors.is_empty());
    match read(&mut reader, root.get_ref()) {
        Some(definition) if report.is_clean() => Ok(definition),
        _ => Err(report.finish()),
    }
}

fn read(reader: &mut Reader<'_, '_>, root: &DeTable<'_>) -> Option<Definition> {
    const KEYS: &[&str] =
        &["id", "version", "title", "family", "features", "window", "signals", "model", "flags"];
    let root = reader.root(root, "the definition", KEYS);
    let id = reader.required(&root, "id").and_then(|field| reader.name(&field));
    let version = reader.required(&root, "version").and_then(|field| reader.version(&field));
    let title = reader.required(&root, "title").and_then(|field| reader.text(&field));
    let family =
        reader.required(&root, "family").and_then(|field| reader.one_of(&field, &FAMILIES));
    let window = reader.required(&root, "window").and_then(|field| window(reader, &field, family));
    let signals =
        reader.required(&root, "signals").and_then(|field| signals(reader, &field, family));
    let groups = match root.get("features") {
        Some(field) => groups(reader, &field, family),
        None => Some(Vec::new()),
    };
    let model = match root.get("model") {
        Some(field) => model(reader, &field, family).map(Some),
        None => Some((family == Some(Family::Device)).then(|| FAULT_MODEL.to_owned())),
    };
    let set = signals.iter().flatten().map(|(signal, _)| *signal).collect::<SignalSet>();
    let own_model = model.as_ref().and_then(Option::as_deref);
    let own_groups = groups.as_deref().unwrap_or(&Group::ALL);
    let vocabulary = Vocabulary::new(family, set, signals.is_some(), own_model, own_groups);
    let flags =
        reader.required(&root, "flags").and_then(|field| flags(reader, &field, &vocabulary));
    Some(Definition {
        id: id?,
        version: version?,
        title: title?,
        family: family?,
        window: window?,
        signals: signals?,
        groups: groups?,
        model: model?,
        flags: flags?,
    })
}

fn window(
    reader: &mut Reader<'_, '_>,
    field: &Field<'_, '_>,
    family: Option<Family>,
) -> Option<WindowSpec> {
    let table = reader.table(field, &["size", "slide", "lateness"])?;
    let longest = match family {
        Some(Family::Ecg | Family::Pulse) => MAX_ECG_SIZE_US,
        _ => MAX_SIZE_US,
    };
    let size = reader.required(&table, "size");
    let size_us = size.as_ref().and_then(|field| reader.duration(field, MIN_SLIDE_US..=longest));
    let slide_us = match table.get("slide") {
        Some(field) => reader.duration(&field, MIN_SLIDE_US..=longest),
        None => size_us,
    };
    let lateness_us = match table.get("lateness") {
        Some(field) => reader.duration(&field, 0..=MAX_LATENESS_US),
        None => Some(0),
    };
    let (size, size_us, slide_us) = (size?, size_us?, slide_us?);
    if size_us % slide_us != 0 {
        let slides = [size_us / slide_us, size_us / slide_us + 1];
        let fitting: Vec<String> = (slides.iter().map(|count| count * slide_us))
            .filter(|fitting| (1..=longest).contains(fitting))
            .map(|fitting| format!("`\"{}\"`", duration(fitting)))
            .collect();
        let message = format!("the size is no multiple of the slide, {}", duration(slide_us));
        reader.wrong(&size, message, Some(format!("write {}", fitting.join(" or "))));
        return None;
    }
    Some(WindowSpec { size_us, slide_us, lateness_us: lateness_us? })
}

fn signals(
    reader: &mut Reader<'_, '_>,
    field: &Field<'_, '_>,
    family: Option<Family>,
) -> Option<Vec<(SignalId, SampleRate)>> {
    let tables = reader.tables(field, MAX_SIGNALS, &["name", "rate_hz"])?;
    let mut signals: Vec<(SignalId, SampleRate)> = Vec::new();
    let mut sound = true;
    for table in &tables {
        let name = reader.required(table, "name");
        let signal = name.as_ref().and_then(|name| signal(reader, name, family));
        let rate = reader.required(table, "rate_hz").and_then(|field| reader.rate(&field));
        if let (Some(name), Some(signal)) = (&name, signal)
            && signals.iter().any(|(other, _)| *other == signal)
        {
            reader.wrong(name, format!("the signal `{}` is listed twice", signal.name()), None);
            sound = false;
            continue;
        }
        match (signal, rate) {
            (Some(signal), Some(rate)) => signals.push((signal, rate)),
            _ => sound = false,
        }
    }
    if sound
        && family == Some(Family::Pulse)
        && signals.iter().all(|(own, _)| *own != SignalId::PPG)
    {
        let suggestion = Some("add a `[[signals]]` with `name = \"ppg\"`".to_owned());
        let message = "a pipeline of family `pulse` reads `ppg`, and may read others beside it";
        reader.wrong(field, message.to_owned(), suggestion);
        return None;
    }
    sound.then_some(signals)
}

fn signal(
    reader: &mut Reader<'_, '_>,
    field: &Field<'_, '_>,
    family: Option<Family>,
) -> Option<SignalId> {
    let name = reader.string(field)?;
    let fits = |signal: SignalId| match family {
        Some(Family::Vitals | Family::Device) => signal.definition().kind == SignalKind::Scalar,
        Some(Family::Ecg) => signal == SignalId::ECG,
        Some(Family::Pulse) => signal.definition().kind == SignalKind::Waveform,
        None => true,
    };
    let names = || SignalId::all().filter(|signal| fits(*signal)).map(SignalId::name);
    match SignalId::by_name(&name) {
        Some(signal) if fits(signal) => Some(signal),
        Some(_) => {
            let listed: Vec<String> = names().map(|name| format!("`{name}`")).collect();
            let family = family.map_or("any", Family::as_str);
            reader.wrong(
                field,
                format!("a pipeline of family `{family}` does not read `{name}`"),
                Some(format!("it reads {}", listed.join(", "))),
            );
            None
        }
        None => {
            reader.wrong(field, format!("unknown signal `{name}`"), did_you_mean(&name, names()));
            None
        }
    }
}

/// The groups of features that are asked for.
fn groups(
    reader: &mut Reader<'_, '_>,
    field: &Field<'_, '_>,
    family: Option<Family>,
) -> Option<Vec<Group>> {
    let fits = |group: &Group| family.is_none_or(|family| group.family() == family);
    let words: Vec<(&str, Group)> =
        Group::ALL.into_iter().filter(fits).map(|group| (group.as_str(), group)).collect();
    let mut groups = reader.words(field, &words)?;
    groups.sort_unstable();
    groups.dedup();
    Some(groups)
}

fn model(
    reader: &mut Reader<'_, '_>,
    field: &Field<'_, '_>,
    family: Option<Family>,
) -> Option<String> {
    if let Some(family @ (Family::Vitals | Family::Pulse)) = family {
        reader.no_table(field, &format!("a pipeline of family `{family}` has no model"));
        return None;
    }
    let table = reader.table(field, &["id"])?;
    let field = reader.required(&table, "id")?;
    let name = reader.name(&field)?;
    if family == Some(Family::Device) && name != FAULT_MODEL {
        let message = format!("a pipeline of family `device` is judged by `{FAULT_MODEL}`");
        reader.wrong(&field, message, Some(format!("write `\"{FAULT_MODEL}\"`")));
        return None;
    }
    Some(name)
}

fn flags(
    reader: &mut Reader<'_, '_>,
    field: &Field<'_, '_>,
    vocabulary: &Vocabulary,
) -> Option<Vec<Flag>> {
    const PRIORITIES: &[(&str, Priority)] = &[
        ("information", Priority::Information),
        ("low", Priority::Low),
        ("medium", Priority::Medium),
        ("high", Priority::High),
    ];
    let tables = reader.tables(field, MAX_FLAGS, &["name", "priority", "text", "when"])?;
    let mut names: Vec<String> = Vec::new();
    let mut flags = Vec::new();
    for table in &tables {
        let name_field = reader.required(table, "name");
        let name = name_field.as_ref().and_then(|field| reader.name(field));
        if let (Some(field), Some(name)) = (&name_field, &name) {
            if names.contains(name) {
                let suggestion = Some("each flag has a name of its own".to_owned());
                reader.wrong(field, format!("there are two flags `{name}`"), suggestion);
            }
            names.push(name.clone());
        }
        let priority =
            reader.required(table, "priority").and_then(|field| reader.one_of(&field, PRIORITIES));
        let text = reader.required(table, "text").and_then(|field| reader.text(&field));
        let rule = reader.required(table, "when").and_then(|field| reader.rule(&field, vocabulary));
        if let (Some(name), Some(priority), Some(text), Some(rule)) = (name, priority, text, rule) {
            flags.push(Flag { name, priority, text, rule });
        }
    }
    (flags.len() == tables.len()).then_some(flags)
}

#[cfg(test)]
mod tests;
