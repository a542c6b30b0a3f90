//! How long windows are and how they follow each other.

/// Size, slide and allowed lateness, in microseconds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Windowing {
    pub(super) size_us: i64,
    pub(super) slide_us: i64,
    pub(super) lateness_us: i64,
}

impl Windowing {
    /// `None` unless `slide` is positive and divides `size`, and lateness is not negative.
    pub const fn new(size_us: i64, slide_us: i64, lateness_us: i64) -> Option<Self> {
        if slide_us > 0 && size_us >= slide_us && size_us % slide_us == 0 && lateness_us >= 0 {
            Some(Self { size_us, slide_us, lateness_us })
        } else {
            None
        }
    }

    /// Width of a pane.
    pub const fn pane_us(&self) -> i64 {
        self.slide_us
    }

    /// How many panes a window has.
    pub(super) const fn panes(&self) -> i64 {
        self.size_us / self.slide_us
    }

    /// The number of the pane that a time is in.
    pub(super) const fn pane_of(&self, at_us: i64) -> i64 {
        at_us.div_euclid(self.slide_us)
    }

    /// Where the first window with this pane ends.
    pub(super) const fn first_end(&self, pane: i64) -> i64 {
        pane.saturating_add(1).saturating_mul(self.slide_us)
    }

    /// Where the last window with this pane ends.
    pub(super) const fn last_end(&self, pane: i64) -> i64 {
        pane.saturating_mul(self.slide_us).saturating_add(self.size_us)
    }
}
