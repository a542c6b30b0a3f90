//! Patterns of topics and paths: levels between slashes, of which two are captures.

/// Such as `ward/{patient}/{device}/vitals`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct PathPattern(Vec<Level>);

#[derive(Clone, PartialEq, Eq, Debug)]
enum Level {
    Literal(String),
    Patient,
    Device,
}

/// What the captures hold.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Captures<'a> {
    pub patient: &'a str,
    pub device: &'a str,
}

impl PathPattern {
    /// Reads a pattern; the error says what is wrong with it.
    pub(crate) fn parse(text: &str) -> Result<Self, &'static str> {
        if text.starts_with('/') {
            return Err("leave out the slash in front");
        }
        let level = |text: &str| match text {
            "{patient}" => Ok(Level::Patient),
            "{device}" => Ok(Level::Device),
            "" => Err("a level between two slashes is empty"),
            other if other.contains(['{', '}', '+', '#']) => {
                Err("a level is plain text, {patient} or {device}; there are no other wildcards")
            }
            other => Ok(Level::Literal(other.to_owned())),
        };
        let levels = text.split('/').map(level).collect::<Result<Vec<_>, _>>()?;
        let count = |capture| levels.iter().filter(|level| **level == capture).count();
        if count(Level::Patient) != 1 || count(Level::Device) != 1 {
            return Err("it needs {patient} once and {device} once");
        }
        Ok(Self(levels))
    }

    /// The captures, if the path matches.
    pub(crate) fn captures<'a>(&self, path: &'a str) -> Option<Captures<'a>> {
        let mut found = Captures { patient: "", device: "" };
        let mut levels = path.split('/');
        for level in &self.0 {
            let text = levels.next()?;
            match level {
                Level::Literal(literal) if literal == text => {}
                Level::Literal(_) => return None,
                Level::Patient => found.patient = text,
                Level::Device => found.device = text,
            }
        }
        levels.next().is_none().then_some(found)
    }

    /// As MQTT topic filter.
    pub(crate) fn topic_filter(&self) -> String {
        let levels = self.0.iter().map(|level| match level {
            Level::Literal(text) => text,
            Level::Patient | Level::Device => "+",
        });
        levels.collect::<Vec<_>>().join("/")
    }

    /// Whether some path matches both.
    pub(crate) fn overlaps(&self, other: &Self) -> bool {
        self.0.len() == other.0.len()
            && self.0.iter().zip(&other.0).all(|levels| match levels {
                (Level::Literal(a), Level::Literal(b)) => a == b,
                _ => true,
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn captures_are_whole_levels() {
        let pattern = PathPattern::parse("ward/{patient}/{device}/vitals").unwrap();
        let found = pattern.captures("ward/p 1/m-2/vitals").unwrap();
        assert_eq!((found.patient, found.device), ("p 1", "m-2"));
        for other in ["ward/p/m/vitals/x", "ward/p/m", "Ward/p/m/vitals", "/ward/p/m/vitals", ""] {
            assert!(pattern.captures(other).is_none(), "{other}");
        }
        assert_eq!(pattern.topic_filter(), "ward/+/+/vitals");
    }

    #[test]
    fn bad_patterns_are_told_why() {
        for bad in [
            "/a/{patient}/{device}",
            "a/{patient}",
            "a//{patient}/{device}",
            "+/{patient}/{device}",
            "{patient}/{device}/{device}",
            "{bed}/{patient}/{device}",
        ] {
            assert!(PathPattern::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn overlap_is_seen_through_captures() {
        let parse = |text| PathPattern::parse(text).unwrap();
        assert!(parse("a/{patient}/{device}").overlaps(&parse("{device}/{patient}/x")));
        assert!(!parse("a/{patient}/{device}").overlaps(&parse("b/{patient}/{device}")));
        assert!(!parse("a/{patient}/{device}").overlaps(&parse("a/{patient}/{device}/x")));
    }
}
