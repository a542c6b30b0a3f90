//! How long somebody stayed in which zone, from sightings that come now and then.
//!
//! A sighting says that somebody was seen in a zone at a time. Between two sightings the time belongs to the
//! zone of the first, unless they are further apart than the longest gap: then nobody knows, and it is counted
//! as unseen. After the last sighting nothing is counted.

use std::collections::BTreeMap;

/// At most so many zones; sightings in further ones count as unseen time. A hospital's beacons are fewer.
pub const MAX_ZONES: usize = 4_096;

/// Adds up the sightings of one person. `Z` names a zone.
#[derive(Clone, Debug)]
pub struct ZoneDwell<Z> {
    max_gap_us: i64,
    last: Option<(i64, Z)>,
    zones: BTreeMap<Z, Dwell>,
    unseen_us: i64,
}

/// What is known of one zone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Dwell {
    /// Time there, in microseconds.
    pub dwell_us: i64,
    /// How often it was entered: seen there after another zone, a gap, or nothing.
    pub visits: u64,
    /// When it was last seen there, in microseconds.
    pub last_us: i64,
}

impl<Z: Ord + Clone> ZoneDwell<Z> {
    /// With gaps of more than `max_gap_us` (not below zero) left out.
    pub fn new(max_gap_us: i64) -> Self {
        let max_gap_us = max_gap_us.max(0);
        Self { max_gap_us, last: None, zones: BTreeMap::new(), unseen_us: 0 }
    }

    /// Takes the next sighting. One that is earlier than the last is ignored, and said so with `false`.
    pub fn push(&mut self, time_us: i64, zone: Z) -> bool {
        let mut stays = false;
        if let Some((last_us, last)) = &self.last {
            if time_us < *last_us {
                return false;
            }
            let since = time_us.saturating_sub(*last_us);
            match self.zones.get_mut(last) {
                Some(dwell) if since <= self.max_gap_us => {
                    dwell.dwell_us = dwell.dwell_us.saturating_add(since);
                    stays = *last == zone;
                }
                _ => self.unseen_us = self.unseen_us.saturating_add(since),
            }
        }
        if self.zones.len() < MAX_ZONES || self.zones.contains_key(&zone) {
            let dwell = self.zones.entry(zone.clone()).or_default();
            dwell.visits += u64::from(!stays);
            dwell.last_us = time_us;
        }
        self.last = Some((time_us, zone));
        true
    }

    /// All zones that somebody was seen in, in their order.
    pub fn zones(&self) -> impl Iterator<Item = (&Z, Dwell)> {
        self.zones.iter().map(|(zone, dwell)| (zone, *dwell))
    }

    /// Time between sightings that belongs to no zone, in microseconds.
    pub fn unseen_us(&self) -> i64 {
        self.unseen_us
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn gaps_are_not_counted() {
        let mut dwell = ZoneDwell::new(60);
        let sightings = [(0, "ward"), (50, "ward"), (100, "hall"), (120, "ward"), (500, "ward")];
        assert!(sightings.into_iter().all(|(time_us, zone)| dwell.push(time_us, zone)));
        assert!(!dwell.push(499, "hall"));
        let found: Vec<(&str, Dwell)> = dwell.zones().map(|(zone, dwell)| (*zone, dwell)).collect();
        let expected = [
            ("hall", Dwell { dwell_us: 20, visits: 1, last_us: 100 }),
            ("ward", Dwell { dwell_us: 100, visits: 3, last_us: 500 }),
        ];
        assert_eq!((found.as_slice(), dwell.unseen_us()), (&expected[..], 380));
    }

    proptest! {
        #[test]
        fn all_time_is_somewhere(
            mut sightings in proptest::collection::vec((0i64..10_000, 0u8..4), 1..80),
            max_gap in 0i64..500,
        ) {
            sightings.sort_unstable();
            let mut dwell = ZoneDwell::new(max_gap);
            for (time_us, zone) in &sightings {
                dwell.push(*time_us, *zone);
            }
            let counted: i64 = dwell.zones().map(|(_, dwell)| dwell.dwell_us).sum();
            let span = sightings[sightings.len() - 1].0 - sightings[0].0;
            prop_assert_eq!(counted + dwell.unseen_us(), span);
        }
    }
}
