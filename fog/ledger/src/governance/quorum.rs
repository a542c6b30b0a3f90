//! How many of whom it takes.
//!
//! # Format
//! `"two-thirds"` (1 + ⌊2w/3⌋ of all members' weight w, the default), `{"at-least":k}`, `"all"`, or
//! `{"groups":{"name":…,"k":…,"of":[{"member":…},{"group":{…}}]}}`, nested at most [`MAX_DEPTH`] deep.
//! A member of weight w holds w cosigner keys and counts w in the group that it stands in; a group that
//! is reached counts 1 in the one around it. Exported as C2SP tlog-policy, where weights are plain keys.
//!
//! # Two quorums always meet
//! A rule that two disjoint sets of members could satisfy is refused: with it, two views of one log could
//! each be cosigned by enough members without one of them having lied.

use super::bodies::{ChangeKind, Member};
use super::names::{GroupName, MemberName};
use crate::leaf::LeafKind;
use crate::policy::usual_threshold;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

/// The most groups in one rule: what C2SP tlog-policy recommends that everybody supports.
pub const MAX_GROUPS: usize = 32;

/// How deep groups nest.
const MAX_DEPTH: usize = 4;

/// Members by name.
pub(crate) type Members = BTreeMap<MemberName, Member>;

/// One rule.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Quorum {
    /// 1 + ⌊2w/3⌋ of all weight w: fewer than a third may be false and two quorums share a true one.
    TwoThirds,
    /// This much of all weight.
    AtLeast(u32),
    /// Every member.
    All,
    /// Nested groups.
    Groups(Group),
}

/// `k` out of `of`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Group {
    /// Its name in the exported policy.
    pub name: GroupName,
    /// How much of the weight in it.
    pub k: u32,
    /// Who is in it.
    pub of: Vec<Part>,
}

/// A part of a [`Group`].
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Part {
    /// A member, counting its weight.
    Member(MemberName),
    /// A group, counting 1.
    Group(Group),
}

/// All rules of a consortium.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Quorums {
    /// Whose cosignatures make a checkpoint count.
    pub witness: Quorum,
    /// Whose ballots accept a proposal.
    pub ballot: Quorum,
    /// Where another rule holds for a kind of proposal.
    pub proposals: BTreeMap<ChangeKind, Quorum>,
    /// Where another rule holds for a kind of leaf that a commitment is of.
    pub commitments: BTreeMap<LeafKind, Quorum>,
}

/// Why a rule cannot be one for these members.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum QuorumError {
    /// Not between 1 and what there is.
    #[error("a quorum of {k} out of {of} cannot be: it must be between 1 and {of}")]
    Size {
        /// What is asked for.
        k: u32,
        /// What there is.
        of: u32,
    },
    /// Two sets of members with no member in common could both reach it.
    #[error(
        "two sets of members that share none could both reach this quorum, so it would not stop a \
         forked log; ask for more than half"
    )]
    Disjoint,
    /// Names somebody who is no member.
    #[error("the quorum names {0}, who is no member")]
    NoMember(MemberName),
    /// A member or a group stands in two places.
    #[error("{0} stands in two places of one quorum")]
    Twice(String),
    /// Too many groups, or nested too deep.
    #[error("a quorum has at most {MAX_GROUPS} groups, nested at most {MAX_DEPTH} deep")]
    TooLarge,
}

impl Default for Quorums {
    fn default() -> Self {
        Self {
            witness: Quorum::TwoThirds,
            ballot: Quorum::TwoThirds,
            proposals: BTreeMap::new(),
            commitments: BTreeMap::new(),
        }
    }
}

impl Quorums {
    /// The rule for a kind of proposal.
    pub fn for_proposal(&self, kind: ChangeKind) -> &Quorum {
        self.proposals.get(&kind).unwrap_or(&self.ballot)
    }

    /// The rule for cosignatures under a leaf: of a commitment's kind, or of anything else.
    pub fn for_leaf(&self, kind: Option<LeafKind>) -> &Quorum {
        kind.and_then(|kind| self.commitments.get(&kind)).unwrap_or(&self.witness)
    }

    pub(crate) fn check(&self, members: &Members) -> Result<(), QuorumError> {
        [&self.witness, &self.ballot]
            .into_iter()
            .chain(self.proposals.values())
            .chain(self.commitments.values())
            .try_for_each(|quorum| quorum.check(members))
    }
}

impl Quorum {
    /// Whether `members` can live under this rule.
    pub(crate) fn check(&self, members: &Members) -> Result<(), QuorumError> {
        let total = weight(members);
        let Self::Groups(group) = self else {
            let k = self.k(total);
            if k == 0 || k > total {
                return Err(QuorumError::Size { k, of: total });
            }
            return if 2 * k > total { Ok(()) } else { Err(QuorumError::Disjoint) };
        };
        let (mut seen, mut groups) = (BTreeSet::new(), BTreeSet::new());
        check_group(group, members, 1, &mut seen, &mut groups)?;
        if splits(group, members) { Err(QuorumError::Disjoint) } else { Ok(()) }
    }

    /// Whether those for whom `has` holds are enough.
    pub(crate) fn reached(&self, members: &Members, has: &dyn Fn(&MemberName) -> bool) -> bool {
        if let Self::Groups(group) = self {
            return group_reached(group, members, has);
        }
        let of = members.values().filter(|member| has(&member.name)).map(Member::weight).sum();
        self.k(weight(members)) <= of
    }

    /// The lines `group` and `quorum` of a C2SP tlog-policy.
    pub(crate) fn to_policy(&self, members: &Members) -> String {
        let mut text = String::new();
        let top = if let Self::Groups(group) = self {
            write_group(&mut text, group, members);
            group.name.to_string()
        } else {
            let names: Vec<_> = members.values().flat_map(witness_names).collect();
            let _ = writeln!(
                text,
                "group group:members {} {}",
                self.k(weight(members)),
                names.join(" ")
            );
            "members".to_owned()
        };
        let _ = writeln!(text, "quorum group:{top}");
        text
    }

    fn k(&self, total: u32) -> u32 {
        match self {
            Self::TwoThirds => usual_threshold(total as usize) as u32,
            Self::AtLeast(k) => *k,
            Self::All | Self::Groups(_) => total,
        }
    }
}

/// The names of a member's keys in an exported policy: its own, or numbered if it has several.
pub(crate) fn witness_names(member: &Member) -> Vec<String> {
    match member.cosigners.len() {
        1 => vec![member.name.to_string()],
        n => (1..=n).map(|key| format!("{}/{key}", member.name)).collect(),
    }
}

fn weight(members: &Members) -> u32 {
    members.values().map(Member::weight).sum()
}

fn part_weight(part: &Part, members: &Members) -> u32 {
    match part {
        Part::Member(name) => members.get(name).map_or(0, Member::weight),
        Part::Group(_) => 1,
    }
}

fn check_group<'a>(
    group: &'a Group,
    members: &Members,
    depth: usize,
    seen: &mut BTreeSet<&'a MemberName>,
    groups: &mut BTreeSet<&'a GroupName>,
) -> Result<(), QuorumError> {
    if !groups.insert(&group.name) {
        return Err(QuorumError::Twice(group.name.to_string()));
    }
    if depth > MAX_DEPTH || groups.len() > MAX_GROUPS {
        return Err(QuorumError::TooLarge);
    }
    for part in &group.of {
        match part {
            Part::Member(name) if !members.contains_key(name) => {
                return Err(QuorumError::NoMember(name.clone()));
            }
            Part::Member(name) if !seen.insert(name) => {
                return Err(QuorumError::Twice(name.to_string()));
            }
            Part::Member(_) => {}
            Part::Group(inner) => check_group(inner, members, depth + 1, seen, groups)?,
        }
    }
    let of = group.of.iter().map(|part| part_weight(part, members)).sum();
    if group.k == 0 || group.k > of {
        return Err(QuorumError::Size { k: group.k, of });
    }
    Ok(())
}

/// Whether two disjoint sets could both reach it. Weights are taken as if they could be cut anywhere, so
/// it may say yes where no real cut exists, never no where one does.
fn splits(group: &Group, members: &Members) -> bool {
    let (mut both, mut one) = (0, 0);
    for part in &group.of {
        match part {
            Part::Group(inner) if splits(inner, members) => both += 1,
            part => one += part_weight(part, members),
        }
    }
    2 * group.k.saturating_sub(both) <= one
}

fn group_reached(group: &Group, members: &Members, has: &dyn Fn(&MemberName) -> bool) -> bool {
    let holds = |part: &&Part| match part {
        Part::Member(name) => has(name),
        Part::Group(inner) => group_reached(inner, members, has),
    };
    let of: u32 = group.of.iter().filter(holds).map(|part| part_weight(part, members)).sum();
    group.k <= of
}

/// Inner groups first: a policy may name only what stands above.
fn write_group(text: &mut String, group: &Group, members: &Members) {
    let mut names = Vec::new();
    for part in &group.of {
        match part {
            Part::Member(name) => {
                names.extend(members.get(name).map(witness_names).unwrap_or_default())
            }
            Part::Group(inner) => {
                write_group(text, inner, members);
                names.push(format!("group:{}", inner.name));
            }
        }
    }
    let _ = writeln!(text, "group group:{} {} {}", group.name, group.k, names.join(" "));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::governance::tests::member;

    fn members(weights: &[(&str, usize)]) -> Members {
        let list = weights.iter().map(|(name, weight)| member(name, *weight).0);
        list.map(|member| (member.name.clone(), member)).collect()
    }

    fn group(name: &str, k: u32, of: Vec<Part>) -> Group {
        Group { name: name.parse().unwrap(), k, of }
    }

    fn part(name: &str) -> Part {
        Part::Member(name.parse().unwrap())
    }

    #[test]
    fn two_thirds_is_one_more_than_two_thirds() {
        for (n, k) in [(1, 1), (2, 2), (3, 3), (4, 3), (5, 4), (6, 5), (7, 5), (10, 7)] {
            assert_eq!(Quorum::TwoThirds.k(n), k, "of {n}");
        }
    }

    #[test]
    fn weights_count() {
        let members = members(&[("a", 3), ("b", 1), ("c", 1)]);
        let has = |names: &[&str]| {
            Quorum::TwoThirds.reached(&members, &|name: &MemberName| names.contains(&name.as_str()))
        };
        assert!(has(&["a", "b"]) && !has(&["a"]) && !has(&["b", "c"]));
        expect_test::expect![[r#"
            group group:members 4 a/1 a/2 a/3 b c
            quorum group:members
        "#]]
        .assert_eq(&Quorum::TwoThirds.to_policy(&members));
    }

    #[test]
    fn groups_nest() {
        let members = members(&[("a", 1), ("b", 1), ("c", 1), ("x", 2), ("y", 1)]);
        let quorum = Quorum::Groups(group(
            "top",
            2,
            vec![
                Part::Group(group("hospitals", 2, vec![part("a"), part("b"), part("c")])),
                Part::Group(group("others", 2, vec![part("x"), part("y")])),
            ],
        ));
        quorum.check(&members).unwrap();
        let has = |names: &[&str]| {
            quorum.reached(&members, &|name: &MemberName| names.contains(&name.as_str()))
        };
        assert!(has(&["a", "c", "x"]) && !has(&["a", "b", "c", "y"]) && !has(&["a", "x", "y"]));
        expect_test::expect![[r#"
            group group:hospitals 2 a b c
            group group:others 2 x/1 x/2 y
            group group:top 2 group:hospitals group:others
            quorum group:top
        "#]]
        .assert_eq(&quorum.to_policy(&members));
    }

    #[test]
    fn rules_that_cannot_be_are_refused() {
        let members = members(&[("a", 1), ("b", 1), ("c", 1), ("d", 1)]);
        assert_eq!(Quorum::AtLeast(2).check(&members), Err(QuorumError::Disjoint));
        assert_eq!(Quorum::AtLeast(5).check(&members), Err(QuorumError::Size { k: 5, of: 4 }));
        assert_eq!(Quorum::AtLeast(3).check(&members), Ok(()));
        let check = |k, of| Quorum::Groups(group("g", k, of)).check(&members);
        assert_eq!(check(1, vec![part("a"), part("b")]), Err(QuorumError::Disjoint));
        assert_eq!(check(1, vec![part("a")]), Ok(()));
        assert_eq!(check(2, vec![part("a"), part("a")]), Err(QuorumError::Twice("a".into())));
        assert_eq!(check(1, vec![part("z")]), Err(QuorumError::NoMember("z".parse().unwrap())));
        let any = |name, of| Part::Group(group(name, 1, of));
        let split =
            vec![any("h", vec![part("a"), part("b")]), any("i", vec![part("c"), part("d")])];
        assert_eq!(check(2, split), Err(QuorumError::Disjoint));
        let mut deep = group("g0", 1, vec![part("a")]);
        for level in 1..6 {
            deep = group(&format!("g{level}"), 1, vec![Part::Group(deep)]);
        }
        assert_eq!(Quorum::Groups(deep).check(&members), Err(QuorumError::TooLarge));
    }

    /// Whether a rule that was passed can be reached by two disjoint sets, by trying all of them.
    #[test]
    fn no_rule_that_passes_can_be_reached_twice_at_once() {
        let members = members(&[("a", 1), ("b", 2), ("c", 1), ("d", 1), ("e", 3)]);
        let names: Vec<_> = members.keys().cloned().collect();
        let mut passed = 0;
        for (outer, inner, rest) in (0..216).map(|n| (n / 36 + 1, n / 6 % 6 + 1, n % 6 + 1)) {
            let quorum = Quorum::Groups(group(
                "top",
                outer,
                vec![
                    Part::Group(group("x", inner, vec![part("a"), part("b"), part("c")])),
                    Part::Group(group("y", rest, vec![part("d"), part("e")])),
                ],
            ));
            if quorum.check(&members).is_err() {
                continue;
            }
            passed += 1;
            for set in 0u32..32 {
                let side = |set: u32| {
                    let names = &names;
                    move |name: &MemberName| {
                        set >> names.iter().position(|n| n == name).unwrap() & 1 == 1
                    }
                };
                let twice =
                    quorum.reached(&members, &side(set)) && quorum.reached(&members, &side(!set));
                assert!(!twice, "{quorum:?} by {set:05b}");
            }
        }
        assert!(passed > 5, "{passed}");
    }

    /// The exported policy, read by the one who verifies, says of every set of members what is said here.
    #[test]
    fn the_exported_policy_means_the_same() {
        let members = members(&[("a", 1), ("b", 2), ("c", 1), ("d", 1), ("e", 3)]);
        let inner = Part::Group(group("x", 3, vec![part("a"), part("b"), part("c")]));
        let nested = group("top", 4, vec![inner, part("d"), part("e")]);
        for quorum in [Quorum::TwoThirds, Quorum::AtLeast(5), Quorum::All, Quorum::Groups(nested)] {
            quorum.check(&members).unwrap();
            let mut text = String::new();
            for member in members.values() {
                for (name, key) in witness_names(member).iter().zip(&member.cosigners) {
                    let _ = writeln!(text, "witness {name} {key} {}", member.url);
                }
            }
            let policy: crate::Policy = (text + &quorum.to_policy(&members)).parse().unwrap();
            for set in 0u32..32 {
                let has = |name: &str| {
                    let name = name.split('/').next().unwrap();
                    set >> members.keys().position(|member| member.as_str() == name).unwrap() & 1
                        == 1
                };
                let exported = policy.is_quorum(|place| has(&policy.witnesses()[place].name));
                let here = quorum.reached(&members, &|name: &MemberName| has(name.as_str()));
                assert_eq!(exported, here, "{quorum:?} by {set:05b}");
            }
        }
    }
}
