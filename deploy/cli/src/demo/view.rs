//! What `haar demo` shows while it runs: in place on a terminal, plain lines elsewhere.
//!
//! It writes to standard error, so that standard output holds nothing but the result. Without a
//! terminal there is one line every [`PLAIN_EVERY`] and no escape code; `NO_COLOR`
//! (<https://no-color.org>) is respected. Every line fits a terminal of 60 columns; what is
//! longer, such as the text of a flag, is cut at the terminal's edge.

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::io::{self, Write};
use std::time::Duration;

/// How often a plain line is written.
const PLAIN_EVERY: Duration = Duration::from_secs(5);
/// How many of the last flags are shown.
pub const LAST_FLAGS: usize = 5;
/// The terminal is drawn at most this often per second.
const DRAWS_PER_S: u8 = 10;

/// The state of the demo at one moment.
#[derive(Clone, Default)]
pub struct Snapshot {
    /// Since the start.
    pub elapsed: Duration,
    /// How long it will run; `None` until Ctrl-C.
    pub total: Option<Duration>,
    /// Readings taken in since the start.
    pub readings: u64,
    /// Readings per second, lately.
    pub readings_per_s: f64,
    /// Entries in the edge's spool that the fog has not committed.
    pub spool_depth: u64,
    /// Windows committed.
    pub windows: u64,
    /// Flagged windows committed.
    pub flags: u64,
    /// Leaves in the site log.
    pub log_size: u64,
    /// Of them, how many the members have witnessed.
    pub witnessed: u64,
    /// Whether the edge is connected to the devices' broker.
    pub broker_connected: bool,
    /// Whether the edge is connected to the fog.
    pub uplink_connected: bool,
    /// The last flags, one line each, the latest last; at most [`LAST_FLAGS`] are shown.
    pub last_flags: Vec<String>,
}

/// The view; ends with [`View::finish`].
pub struct View {
    kind: Kind,
}

enum Kind {
    Terminal { clock: ProgressBar, lines: Vec<ProgressBar> },
    Plain { last: Option<Duration>, flags: u64 },
}

impl View {
    /// A view on standard error; in place if that `is_terminal`.
    pub fn start(is_terminal: bool) -> Self {
        if !is_terminal {
            return Self { kind: Kind::Plain { last: None, flags: 0 } };
        }
        let all = MultiProgress::with_draw_target(ProgressDrawTarget::stderr_with_hz(DRAWS_PER_S));
        let clock = all.add(ProgressBar::new(1));
        let lines = (0..NUMBER_LINES + LAST_FLAGS)
            .map(|_| all.add(ProgressBar::no_length().with_style(style("{wide_msg}"))))
            .collect();
        Self { kind: Kind::Terminal { clock, lines } }
    }

    /// Shows this state.
    pub fn update(&mut self, now: &Snapshot) {
        match &mut self.kind {
            Kind::Terminal { clock, lines } => draw(clock, lines, now),
            Kind::Plain { last, flags } => {
                let due = last.is_none_or(|last| now.elapsed >= last + PLAIN_EVERY);
                if due {
                    let is_new = now.flags > *flags;
                    (*last, *flags) = (Some(now.elapsed), now.flags);
                    // Nobody reads a closed standard error; the demo goes on.
                    let _ = writeln!(io::stderr().lock(), "{}", plain(now, is_new));
                }
            }
        }
    }

    /// Leaves the last numbers on the terminal and the cursor below them.
    pub fn finish(self) {
        if let Kind::Terminal { clock, lines } = self.kind {
            for line in lines {
                if line.message().is_empty() {
                    line.finish_and_clear();
                } else {
                    line.abandon();
                }
            }
            clock.abandon();
        }
    }
}

/// Lines of numbers under the clock.
const NUMBER_LINES: usize = 3;

fn draw(clock: &ProgressBar, lines: &[ProgressBar], now: &Snapshot) {
    let elapsed = now.elapsed.as_secs();
    match now.total {
        Some(total) => {
            clock.set_style(style("haar demo  {wide_bar:.cyan}  {msg}"));
            clock.set_length(total.as_millis().try_into().unwrap_or(u64::MAX));
            clock.set_position(now.elapsed.as_millis().try_into().unwrap_or(u64::MAX));
            clock.set_message(format!("{elapsed}/{} s", total.as_secs()));
        }
        None => {
            clock.set_style(style("haar demo  {msg}"));
            clock.set_message(format!("{elapsed} s, stop with Ctrl-C"));
        }
    }
    let flags = now.last_flags.iter().rev().take(LAST_FLAGS).rev();
    let texts = numbers(now).into_iter().chain(flags.map(|flag| format!("  flag  {flag}")));
    for (line, text) in lines.iter().zip(texts.chain(std::iter::repeat(String::new()))) {
        if line.message() != text {
            line.set_message(text);
        }
    }
}

fn numbers(now: &Snapshot) -> [String; NUMBER_LINES] {
    let state = |connected| if connected { "connected" } else { "not connected" };
    [
        format!(
            "  readings {:>11}  {:>9.0}/s   spool {:>9}",
            now.readings, now.readings_per_s, now.spool_depth
        ),
        format!(
            "  windows  {:>11}  flags {:>5}   log   {:>9} leaves",
            now.windows, now.flags, now.log_size
        ),
        format!(
            "  broker {}, fog {}, witnessed {}",
            state(now.broker_connected),
            state(now.uplink_connected),
            now.witnessed
        ),
    ]
}

fn plain(now: &Snapshot, is_new: bool) -> String {
    let mut line = format!(
        "{:>4} s  readings {} ({:.0}/s)  spool {}  windows {}  flags {}  log {} ({} witnessed)",
        now.elapsed.as_secs(),
        now.readings,
        now.readings_per_s,
        now.spool_depth,
        now.windows,
        now.flags,
        now.log_size,
        now.witnessed
    );
    for (what, connected) in [("broker", now.broker_connected), ("fog", now.uplink_connected)] {
        if !connected {
            line.push_str(&format!("  {what} not connected"));
        }
    }
    if let Some(flag) = now.last_flags.last().filter(|_| is_new) {
        line.push_str("  last flag: ");
        line.push_str(flag);
    }
    line
}

/// A template written in this file; one with a mistake would show plain messages.
fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template)
        .unwrap_or_else(|_| ProgressStyle::default_spinner())
        .progress_chars("━╸─")
}

#[cfg(test)]
mod tests {
    use super::*;

    const NARROW_COLUMNS: usize = 60;

    fn busy() -> Snapshot {
        Snapshot {
            elapsed: Duration::from_secs(12),
            total: Some(Duration::from_secs(30)),
            readings: 12_345_678,
            readings_per_s: 12_345.6,
            spool_depth: 123_456,
            windows: 123_456,
            flags: 12,
            log_size: 123_468,
            witnessed: 123_400,
            broker_connected: true,
            uplink_connected: false,
            last_flags: vec!["bed-1 news2-high".into(), "bed-2 ectopic-run".into()],
        }
    }

    #[test]
    fn numbers_fit_a_narrow_terminal() {
        let none = Snapshot::default();
        for line in numbers(&busy()).into_iter().chain(numbers(&none)) {
            assert!(line.chars().count() <= NARROW_COLUMNS, "{line}");
        }
    }

    #[test]
    fn a_plain_line_has_everything_and_no_escape() {
        let line = plain(&busy(), true);
        expect_test::expect!["  12 s  readings 12345678 (12346/s)  spool 123456  windows 123456  flags 12  log 123468 (123400 witnessed)  fog not connected  last flag: bed-2 ectopic-run"]
            .assert_eq(&line);
        assert!(!plain(&busy(), false).contains("last flag"));
    }
}
