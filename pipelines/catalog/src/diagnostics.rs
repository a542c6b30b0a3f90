//! Mistakes in a pipeline definition, each with its place and what to do about it.
//!
//! A definition is written by hand, so all its mistakes are told at once. Lines and columns count
//! from 1; a column is a character, as editors count. The rendered form quotes the definition: show
//! it to whoever wrote the file, it is no log line.

use annotate_snippets::{AnnotationKind, Level, Renderer, Snippet};
use std::fmt;
use std::ops::Range;

/// The most mistakes that are kept; a file with more is not a definition with slips but another file.
pub const MAX_DIAGNOSTICS: usize = 100;

/// One mistake.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Diagnostic {
    /// Line of the key or value that is wrong, from 1.
    pub line: usize,
    /// Column of its first character, from 1.
    pub column: usize,
    /// What is wrong.
    pub message: String,
    /// What to write instead, where that can be told.
    pub suggestion: Option<String>,
    /// Bytes of the text.
    span: Range<usize>,
}

/// Every mistake found in one definition, in the order of the text. Never empty.
///
/// `Display` is the plain rendering.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Diagnostics {
    file_name: String,
    text: String,
    found: Vec<Diagnostic>,
    not_kept: usize,
}

impl Diagnostics {
    /// The mistakes in the order of the text.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &Diagnostic> {
        self.found.iter()
    }

    /// How many mistakes there are, those beyond [`MAX_DIAGNOSTICS`] included.
    pub fn count(&self) -> usize {
        self.found.len() + self.not_kept
    }

    /// The file's name as it was given.
    pub fn file_name(&self) -> &str {
        &self.file_name
    }

    /// For a person: each mistake under the line it is in. `colour` adds ANSI escapes.
    pub fn render(&self, colour: bool) -> String {
        let renderer = if colour { Renderer::styled() } else { Renderer::plain() };
        let mut rendered = String::new();
        for diagnostic in &self.found {
            let place = Snippet::source(self.text.as_str())
                .path(self.file_name.as_str())
                .annotation(AnnotationKind::Primary.span(diagnostic.span.clone()));
            let mut group = Level::ERROR.primary_title(diagnostic.message.as_str()).element(place);
            if let Some(suggestion) = &diagnostic.suggestion {
                group = group.element(Level::HELP.message(suggestion.as_str()));
            }
            rendered.push_str(&renderer.render(&[group]));
            rendered.push('\n');
        }
        if self.not_kept > 0 {
            rendered.push_str(&format!("and {} mistakes more\n", self.not_kept));
        }
        rendered
    }
}

impl fmt::Display for Diagnostics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.render(false).trim_end())
    }
}

impl std::error::Error for Diagnostics {}

/// Collects mistakes while a definition is read.
pub(crate) struct Report<'t> {
    file_name: &'t str,
    text: &'t str,
    found: Vec<Diagnostic>,
    not_kept: usize,
}

impl<'t> Report<'t> {
    pub(crate) fn new(file_name: &'t str, text: &'t str) -> Self {
        Self { file_name, text, found: Vec::new(), not_kept: 0 }
    }

    pub(crate) fn text(&self) -> &'t str {
        self.text
    }

    pub(crate) fn is_clean(&self) -> bool {
        self.found.is_empty()
    }

    /// Notes a mistake at these bytes of the text.
    pub(crate) fn add(
        &mut self,
        span: Range<usize>,
        message: impl Into<String>,
        suggestion: Option<String>,
    ) {
        if self.found.len() == MAX_DIAGNOSTICS {
            self.not_kept += 1;
            return;
        }
        let span = within(self.text, span);
        let (line, column) = position(self.text, span.start);
        self.found.push(Diagnostic { line, column, message: message.into(), suggestion, span });
    }

    /// Whether a mistake is noted on the line of this byte.
    pub(crate) fn has_mistake_on_line_of(&self, offset: usize) -> bool {
        let (line, _) = position(self.text, within(self.text, offset..offset).start);
        self.found.iter().any(|diagnostic| diagnostic.line == line)
    }

    /// The mistakes. Without one, the file as a whole is said to be wrong.
    pub(crate) fn finish(mut self) -> Diagnostics {
        if self.found.is_empty() {
            self.add(0..0, "not a pipeline definition", None);
        }
        self.found.sort_by_key(|diagnostic| (diagnostic.span.start, diagnostic.span.end));
        Diagnostics {
            file_name: self.file_name.to_owned(),
            text: self.text.to_owned(),
            found: self.found,
            not_kept: self.not_kept,
        }
    }
}

/// `did you mean …?` with the names nearest to `given`, or nothing if none is near.
pub(crate) fn did_you_mean<'n>(
    given: &str,
    names: impl IntoIterator<Item = &'n str>,
) -> Option<String> {
    /// Below this two names merely share letters.
    const NEAR: f64 = 0.6;
    const SHOWN: usize = 3;
    let mut near: Vec<(f64, &str)> = names
        .into_iter()
        .map(|name| (strsim::normalized_damerau_levenshtein(given, name), name))
        .filter(|(similarity, _)| *similarity >= NEAR)
        .collect();
    near.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(b.1)));
    // What is much nearer than the rest is meant; the rest would only distract.
    let best = near.first()?.0;
    let shown: Vec<String> = near
        .iter()
        .filter(|(similarity, _)| *similarity > best - 0.1)
        .take(SHOWN)
        .map(|(_, name)| format!("`{name}`"))
        .collect();
    Some(format!("did you mean {}?", shown.join(" or ")))
}

/// The span moved into the text and onto its characters.
fn within(text: &str, span: Range<usize>) -> Range<usize> {
    let start = text.floor_char_boundary(span.start.min(text.len()));
    let end = text.ceil_char_boundary(span.end.clamp(start, text.len()));
    start..end
}

/// Line and column of a byte, from 1.
fn position(text: &str, offset: usize) -> (usize, usize) {
    let before = &text[..offset];
    let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
    (before.matches('\n').count() + 1, before[line_start..].chars().count() + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_characters() {
        assert_eq!(position("ä\nöü", 0), (1, 1));
        assert_eq!(position("ä\nöü", 5), (2, 2));
        assert_eq!(position("ä\n", 3), (2, 1));
        assert_eq!(within("ä", 1..9), 0..2);
    }

    #[test]
    fn near_names_are_suggested() {
        let names = ["heart_rate", "respiration_rate", "spo2"];
        assert_eq!(did_you_mean("hart_rate", names).as_deref(), Some("did you mean `heart_rate`?"));
        assert_eq!(did_you_mean("potassium", names), None);
    }

    #[test]
    fn mistakes_are_counted_beyond_what_is_kept() {
        let mut report = Report::new("x.toml", "text");
        for _ in 0..MAX_DIAGNOSTICS + 2 {
            report.add(0..1, "wrong", None);
        }
        let diagnostics = report.finish();
        assert_eq!(diagnostics.iter().len(), MAX_DIAGNOSTICS);
        assert_eq!(diagnostics.count(), MAX_DIAGNOSTICS + 2);
        assert!(diagnostics.to_string().ends_with("and 2 mistakes more"));
    }
}
