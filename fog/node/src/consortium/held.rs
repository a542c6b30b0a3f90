//! What edges keep although it is committed here: until what came of it has come as far as the configuration demands.

use crate::store::Position;
use haar_schema::EdgeId;
use std::collections::{BTreeMap, VecDeque};

/// Positions of edges that wait for a level, at most; beyond that the newest two are joined.
const MAX_HELD: usize = 1_024;

/// What edges keep until the consortium log has what came of it.
pub(crate) struct Held {
    waiting: VecDeque<(u64, Vec<(EdgeId, Position)>)>,
    released: BTreeMap<EdgeId, Position>,
}

impl Held {
    /// Everything that is committed in a site log of `size` leaves waits.
    pub(crate) fn new(size: u64, positions: Vec<(EdgeId, Position)>) -> Self {
        Self { waiting: VecDeque::from([(size, positions)]), released: BTreeMap::new() }
    }

    pub(crate) fn hold(&mut self, size: u64, positions: &[(EdgeId, Position)]) {
        self.waiting.push_back((size, positions.to_vec()));
        if self.waiting.len() > MAX_HELD
            && let (Some((size, newer)), Some((at, older))) =
                (self.waiting.pop_back(), self.waiting.back_mut())
        {
            // They are cumulative: the newer of an edge says everything.
            older.retain(|(edge, _)| newer.iter().all(|(own, _)| own != edge));
            older.extend(newer);
            *at = size;
        }
    }

    /// What led to the first `size` leaves may be forgotten; the edges that this concerns.
    pub(crate) fn release(&mut self, size: u64) -> Vec<EdgeId> {
        let mut edges = Vec::new();
        while self.waiting.front().is_some_and(|(needed, _)| *needed <= size) {
            for (edge, position) in self.waiting.pop_front().map(|(_, all)| all).unwrap_or_default()
            {
                edges.push(edge.clone());
                self.released.insert(edge, position);
            }
        }
        edges
    }

    /// From where an edge must keep, if `position` is what is committed of it.
    pub(crate) fn keep_from(&self, edge: &EdgeId, position: &Position) -> u64 {
        let released =
            self.released.get(edge).filter(|own| own.incarnation == position.incarnation);
        released.map_or(0, |own| own.keep_from)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn position(keep_from: u64) -> Position {
        Position { incarnation: [1; 16], durable_through: keep_from + 9, keep_from }
    }

    #[test]
    fn an_edge_keeps_until_what_came_of_it_has_the_level() {
        let edge: EdgeId = "edge-1".parse().unwrap();
        let at = |n| vec![(edge.clone(), position(n))];
        let mut held = Held::new(5, at(10));
        assert_eq!(held.keep_from(&edge, &position(10)), 0);
        held.hold(8, &at(20));
        held.hold(9, &at(30));
        assert!(held.release(4).is_empty());
        assert_eq!(held.release(8), [edge.clone(), edge.clone()]);
        assert_eq!(held.keep_from(&edge, &position(30)), 20);
        // A new spool is none of which something was released.
        let other = Position { incarnation: [2; 16], ..position(30) };
        assert_eq!(held.keep_from(&edge, &other), 0);
        assert_eq!(held.release(9), std::slice::from_ref(&edge));
        assert_eq!(held.keep_from(&edge, &position(30)), 30);
    }

    #[test]
    fn what_waits_is_bounded_and_nothing_is_released_early() {
        let edges: Vec<EdgeId> = (0..3).map(|n| format!("edge-{n}").parse().unwrap()).collect();
        let mut held = Held::new(0, Vec::new());
        for n in 1..=3_000_u64 {
            held.hold(n, &[(edges[n as usize % 3].clone(), position(n))]);
            assert!(held.waiting.len() <= MAX_HELD);
        }
        held.release(1_000);
        assert!(held.keep_from(&edges[1], &position(3_000)) <= 1_000);
        held.release(3_000);
        for (n, edge) in edges.iter().enumerate() {
            assert_eq!(held.keep_from(edge, &position(0)) % 3, n as u64);
            assert!(held.keep_from(edge, &position(0)) >= 2_998);
        }
    }
}
