//! Whose signatures make a checkpoint count: trust policies.
//!
//! # Format
//! C2SP tlog-policy, line based: `log <vkey> [<url>]`, `witness <name> <vkey> [<url>]`,
//! `group <name> all|any|<k> <member>…`, `quorum <name>|none`; empty lines and lines that begin with `#` mean
//! nothing. Stricter than C2SP: the file is UTF-8, and has at most [`MAX_POLICY_BYTES`] and
//! [`MAX_DEFINITIONS`] lines of each kind.
//!
//! # Weights
//! The format has none, and lists a name in one group only. So a member that weighs *w* holds *w* cosigner
//! keys, and a weighted threshold is a plain one over keys.
//!
//! # Signatures that are not known
//! C2SP has readers ignore them, and so does [`Policy::check`]: a checkpoint may carry cosignatures of
//! witnesses that this reader has never heard of. A line that bears the name and id of a *known* key and does
//! not fit is an error.

use crate::checkpoint::{CheckpointError, Head};
use crate::cosignature::{CosignatureError, CosignerKey};
use haar_identity::VerifierKey;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{self, Write};
use std::str::FromStr;

/// The longest policy file.
pub const MAX_POLICY_BYTES: usize = 256 * 1024;
/// The most logs, witnesses and groups, of each.
pub const MAX_DEFINITIONS: usize = 256;

/// A policy.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Policy {
    logs: Vec<PolicyLog>,
    witnesses: Vec<PolicyWitness>,
    groups: Vec<Group>,
    quorum: Option<Member>,
}

/// A log that is accepted.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PolicyLog {
    /// Its key.
    pub key: VerifierKey,
    /// Where it is.
    pub url: Option<String>,
}

/// A witness that counts.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PolicyWitness {
    /// By which groups name it.
    pub name: String,
    /// Its key.
    pub key: CosignerKey,
    /// Its submission prefix (C2SP tlog-witness).
    pub url: Option<String>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
struct Group {
    name: String,
    threshold: usize,
    members: Vec<Member>,
}

/// By place among witnesses or groups.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Member {
    Witness(usize),
    Group(usize),
}

/// Who must have cosigned.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Rule {
    /// This witness, by name.
    Witness(String),
    /// At least so many of these.
    AtLeast(usize, Vec<Rule>),
}

/// A checkpoint that satisfies a policy.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Cosigned {
    /// The log's origin.
    pub origin: String,
    /// How many leaves.
    pub size: u64,
    /// The RFC 6962 root over them.
    pub root: [u8; 32],
    /// The log's key whose signature was checked.
    pub log: VerifierKey,
    /// The witnesses whose cosignatures were checked, by name, with their times in POSIX seconds.
    pub witnesses: Vec<(String, u64)>,
}

/// Why a text is no policy.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PolicySyntaxError {
    /// Over a limit.
    #[error(
        "a policy has at most {MAX_POLICY_BYTES} bytes and {MAX_DEFINITIONS} logs, witnesses and groups each"
    )]
    TooLong,
    /// A line that means nothing here.
    #[error("line {line} of the policy: {problem}")]
    Line {
        /// Counted from 1.
        line: usize,
        /// What is wrong.
        problem: &'static str,
    },
    /// A name or URL that cannot stand in a policy.
    #[error(
        "a name or URL of a policy is one word without control characters, and a name is not `none`"
    )]
    Word,
    /// No quorum.
    #[error("the policy has no quorum line; end it with `quorum <name>` (or `quorum none`)")]
    NoQuorum,
}

/// Why a checkpoint does not count under a policy.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PolicyError {
    /// It is none, or not of a log that the policy names.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// A witness's line does not fit.
    #[error(transparent)]
    Cosignature(#[from] CosignatureError),
    /// Too few cosigned.
    #[error("the quorum is not reached: cosigned by {}", if .have.is_empty() { "nobody".to_owned() } else { .have.join(", ") })]
    Quorum {
        /// The witnesses that did.
        have: Vec<String>,
    },
}

/// The usual threshold over `n` votes: more than two thirds.
pub const fn usual_threshold(n: usize) -> usize {
    1 + 2 * n / 3
}

impl Policy {
    /// A policy from its parts. A rule's groups are named by their place.
    ///
    /// # Errors
    /// If a name or URL is not one word, a witness is there twice or twice in the rule, the rule names one that is
    /// not there, or a threshold cannot be met.
    pub fn new(
        logs: Vec<PolicyLog>,
        witnesses: Vec<PolicyWitness>,
        rule: Option<&Rule>,
    ) -> Result<Self, PolicySyntaxError> {
        let urls = logs.iter().map(|log| &log.url).chain(witnesses.iter().map(|own| &own.url));
        let names = witnesses.iter().map(|own| own.name.as_str());
        // White space in a word would begin another word, or another line.
        let words = urls.flatten().all(|url| is_word(url))
            && names.clone().all(is_name)
            && rule.is_none_or(names_are_words);
        if !words {
            return Err(PolicySyntaxError::Word);
        }
        let taken: BTreeSet<&str> = names.collect();
        let mut text = String::new();
        for log in &logs {
            line(&mut text, "log", &[log.key.as_str()], log.url.as_deref());
        }
        for PolicyWitness { name, key, url } in &witnesses {
            line(&mut text, "witness", &[name, key.as_str()], url.as_deref());
        }
        let mut groups = 0;
        let quorum = match rule {
            Some(rule) => write_rule(rule, &taken, &mut text, &mut groups),
            None => "none".to_owned(),
        };
        line(&mut text, "quorum", &[&quorum], None);
        // One reader checks both what people write and what the log's state gives.
        text.parse()
    }

    /// The logs that are accepted.
    pub fn logs(&self) -> &[PolicyLog] {
        &self.logs
    }

    /// The witnesses that count.
    pub fn witnesses(&self) -> &[PolicyWitness] {
        &self.witnesses
    }

    /// Since when a quorum vouches for a checkpoint that was [checked](Policy::check): the latest time, in POSIX
    /// seconds, at or after which enough witnesses have cosigned it. `None` if no witness is needed.
    pub fn vouched_s(&self, cosigned: &Cosigned) -> Option<u64> {
        let since = |time_s: u64| {
            self.is_quorum(|place| {
                let name = &self.witnesses[place].name;
                cosigned.witnesses.iter().any(|(own, at)| own == name && *at >= time_s)
            })
        };
        cosigned.witnesses.iter().map(|(_, time)| *time).filter(|time| since(*time)).max()
    }

    /// Whether these witnesses, by place among [`Policy::witnesses`], are enough.
    pub fn is_quorum(&self, cosigned: impl Fn(usize) -> bool) -> bool {
        let Some(quorum) = self.quorum else { return true };
        // Groups name earlier ones only, so one pass decides them all.
        let mut decided: Vec<bool> = Vec::with_capacity(self.groups.len());
        for group in &self.groups {
            let holds = |member: &Member| match *member {
                Member::Witness(place) => cosigned(place),
                Member::Group(place) => decided[place],
            };
            let met =
                group.members.iter().filter(|member| holds(member)).count() >= group.threshold;
            decided.push(met);
        }
        match quorum {
            Member::Witness(place) => cosigned(place),
            Member::Group(place) => decided[place],
        }
    }

    /// Checks that a checkpoint note is signed by a log of the policy and cosigned by a quorum.
    ///
    /// # Errors
    /// If it is not, or a signature of a known key does not fit.
    pub fn check(&self, note: &[u8]) -> Result<Cosigned, PolicyError> {
        let signed = self.signed(note)?;
        let count = |place: usize| {
            let name = &self.witnesses[place].name;
            signed.witnesses.iter().any(|(own, _)| own == name)
        };
        if self.is_quorum(count) {
            return Ok(signed);
        }
        let have = signed.witnesses.into_iter().map(|(name, _)| name).collect();
        Err(PolicyError::Quorum { have })
    }

    /// As [`Policy::check`], without asking whether the witnesses are enough.
    ///
    /// # Errors
    /// As there, but for [`PolicyError::Quorum`].
    pub fn signed(&self, note: &[u8]) -> Result<Cosigned, PolicyError> {
        let keys: Vec<_> = self.logs.iter().map(|log| log.key.clone()).collect();
        let (head, log) = Head::open_cosigned(note, &keys)?;
        let mut witnesses = Vec::new();
        for witness in &self.witnesses {
            if let Some(time) = witness.key.verify(&head.note)? {
                witnesses.push((witness.name.clone(), time));
            }
        }
        let Head { origin, size, root, .. } = head;
        Ok(Cosigned { origin, size, root, log, witnesses })
    }

    /// The policy as a file, in its plainest form.
    pub fn to_text(&self) -> String {
        let mut text = String::new();
        for log in &self.logs {
            line(&mut text, "log", &[log.key.as_str()], log.url.as_deref());
        }
        for witness in &self.witnesses {
            line(
                &mut text,
                "witness",
                &[&witness.name, witness.key.as_str()],
                witness.url.as_deref(),
            );
        }
        for group in &self.groups {
            let threshold = group.threshold.to_string();
            let mut words = vec![group.name.as_str(), &threshold];
            words.extend(group.members.iter().map(|member| self.name(*member)));
            line(&mut text, "group", &words, None);
        }
        line(&mut text, "quorum", &[self.quorum.map_or("none", |quorum| self.name(quorum))], None);
        text
    }

    fn name(&self, member: Member) -> &str {
        match member {
            Member::Witness(place) => &self.witnesses[place].name,
            Member::Group(place) => &self.groups[place].name,
        }
    }
}

impl fmt::Display for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.to_text())
    }
}

impl FromStr for Policy {
    type Err = PolicySyntaxError;

    fn from_str(text: &str) -> Result<Self, PolicySyntaxError> {
        if text.len() > MAX_POLICY_BYTES {
            return Err(PolicySyntaxError::TooLong);
        }
        let mut draft = Draft::default();
        for (at, line) in text.split('\n').enumerate() {
            draft
                .read(line)
                .map_err(|problem| PolicySyntaxError::Line { line: at + 1, problem })?;
            let policy = &draft.policy;
            let most = policy.logs.len().max(policy.witnesses.len()).max(policy.groups.len());
            if most > MAX_DEFINITIONS {
                return Err(PolicySyntaxError::TooLong);
            }
        }
        if draft.quorum_seen { Ok(draft.policy) } else { Err(PolicySyntaxError::NoQuorum) }
    }
}

/// A policy while its lines are read.
#[derive(Default)]
struct Draft {
    policy: Policy,
    names: BTreeMap<String, Member>,
    listed: BTreeSet<Member>,
    quorum_seen: bool,
}

impl Default for Policy {
    /// No logs, no witnesses, no quorum: accepts nothing.
    fn default() -> Self {
        Self { logs: Vec::new(), witnesses: Vec::new(), groups: Vec::new(), quorum: None }
    }
}

impl Draft {
    fn read(&mut self, line: &str) -> Result<(), &'static str> {
        if line.chars().any(|c| c.is_ascii_control() && c != '\t') {
            return Err("control characters other than tab and newline are not allowed");
        }
        let words: Vec<&str> = line.split([' ', '\t']).filter(|word| !word.is_empty()).collect();
        match words.as_slice() {
            [] => Ok(()),
            [first, ..] if first.starts_with('#') => Ok(()),
            ["log", key] => self.log(key, None),
            ["log", key, url] => self.log(key, Some(url)),
            ["witness", name, key] => self.witness(name, key, None),
            ["witness", name, key, url] => self.witness(name, key, Some(url)),
            ["group", name, threshold, members @ ..] => self.group(name, threshold, members),
            ["quorum", name] => self.quorum(name),
            _ => Err("expected `log`, `witness`, `group` or `quorum` with its words"),
        }
    }

    fn log(&mut self, key: &str, url: Option<&str>) -> Result<(), &'static str> {
        let key: VerifierKey = key.parse().map_err(|_| "the log's verifier key is malformed")?;
        if self.policy.logs.iter().any(|log| public(log.key.as_str()) == public(key.as_str())) {
            return Err("this log's key is there already");
        }
        self.policy.logs.push(PolicyLog { key, url: url.map(str::to_owned) });
        Ok(())
    }

    fn witness(&mut self, name: &str, key: &str, url: Option<&str>) -> Result<(), &'static str> {
        let key: CosignerKey =
            key.parse().map_err(|_| "the witness's key is malformed (it must be of type 4)")?;
        let same = |own: &PolicyWitness| public(own.key.as_str()) == public(key.as_str());
        if self.policy.witnesses.iter().any(same) {
            return Err("this witness's key is there already");
        }
        self.define(name, Member::Witness(self.policy.witnesses.len()))?;
        let (name, url) = (name.to_owned(), url.map(str::to_owned));
        self.policy.witnesses.push(PolicyWitness { name, key, url });
        Ok(())
    }

    fn group(&mut self, name: &str, threshold: &str, members: &[&str]) -> Result<(), &'static str> {
        let threshold = match threshold {
            "all" => members.len(),
            "any" => 1,
            k => {
                let number = k.parse().map_err(|_| "the threshold is `all`, `any` or a number")?;
                // `01` and `+1` are other spellings of a number.
                if usize::to_string(&number) != k {
                    return Err("the threshold is `all`, `any` or a number");
                }
                number
            }
        };
        if !(1..=members.len()).contains(&threshold) {
            return Err("the threshold is from 1 to the number of members");
        }
        let mut places = Vec::with_capacity(members.len());
        for member in members {
            let place =
                *self.names.get(*member).ok_or("a member is not defined on a line before")?;
            if !self.listed.insert(place) {
                return Err("a member is in a group already");
            }
            places.push(place);
        }
        self.define(name, Member::Group(self.policy.groups.len()))?;
        self.policy.groups.push(Group { name: name.to_owned(), threshold, members: places });
        Ok(())
    }

    fn quorum(&mut self, name: &str) -> Result<(), &'static str> {
        if self.quorum_seen {
            return Err("there is a quorum line already");
        }
        self.quorum_seen = true;
        self.policy.quorum = match name {
            "none" => None,
            name => {
                Some(*self.names.get(name).ok_or("the quorum is not defined on a line before")?)
            }
        };
        Ok(())
    }

    fn define(&mut self, name: &str, member: Member) -> Result<(), &'static str> {
        if name == "none" {
            return Err("`none` is no name for a witness or group");
        }
        match self.names.insert(name.to_owned(), member) {
            None => Ok(()),
            Some(_) => Err("this name is there already"),
        }
    }
}

/// The public key in a vkey, without its type. Names have no plus, base 64 may.
fn public(vkey: &str) -> Option<Vec<u8>> {
    let typed = haar_identity::base64::decode(vkey.splitn(3, '+').nth(2)?)?;
    typed.get(1..).map(<[u8]>::to_vec)
}

/// Whether this is one word of a line.
fn is_word(text: &str) -> bool {
    !text.is_empty() && !text.chars().any(|c| c.is_ascii_control() || c == ' ')
}

fn is_name(text: &str) -> bool {
    is_word(text) && text != "none"
}

fn names_are_words(rule: &Rule) -> bool {
    match rule {
        Rule::Witness(name) => is_name(name),
        Rule::AtLeast(_, rules) => rules.iter().all(names_are_words),
    }
}

/// Writes a rule's groups, the inner ones first; the name by which the outer one goes.
fn write_rule(
    rule: &Rule,
    taken: &BTreeSet<&str>,
    text: &mut String,
    groups: &mut usize,
) -> String {
    match rule {
        Rule::Witness(name) => name.clone(),
        Rule::AtLeast(threshold, rules) => {
            let names: Vec<String> =
                rules.iter().map(|rule| write_rule(rule, taken, text, groups)).collect();
            // A witness may have such a name.
            let name = loop {
                *groups += 1;
                let name = format!("group-{groups}");
                if !taken.contains(name.as_str()) {
                    break name;
                }
            };
            let threshold = threshold.to_string();
            let mut words = vec![name.as_str(), &threshold];
            words.extend(names.iter().map(String::as_str));
            line(text, "group", &words, None);
            name
        }
    }
}

fn line(text: &mut String, kind: &str, words: &[&str], url: Option<&str>) {
    // Writing to a string does not fail.
    let _ = write!(text, "{kind} {}", words.join(" "));
    if let Some(url) = url {
        let _ = write!(text, " {url}");
    }
    text.push('\n');
}

#[cfg(test)]
mod tests;
