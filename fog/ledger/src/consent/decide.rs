//! Access, decided by Cedar.
//!
//! # The bundle
//! `policies/access.cedar` and `policies/access.cedarschema`, built in. Its hash is SHA-256 over, for each
//! file in the order of their names: name, newline, length in decimal, newline, bytes.
//!
//! # When in doubt
//! Denied: what cannot be put to Cedar, and what Cedar reports an error on, even if a policy allows it.

use super::codes::{DataKind, Purpose, Scope, Token};
use super::pseudonym::patient_key_name;
use super::statement::{Consents, Grant};
use crate::governance::{Digest, MemberName, RegisteredKey, Role};
use cedar_policy::{
    Authorizer, Context, Entities, Entity, EntityUid, PolicySet, Request, RestrictedExpression,
    Schema, ValidationMode, Validator,
};
use std::collections::{BTreeSet, HashMap, HashSet};
use std::str::FromStr;

/// How old the site's view of the consortium log may be, in seconds. `access.cedar` says the same.
pub const MAX_VIEW_AGE_S: u64 = 60;

const FILES: [(&str, &str); 2] = [
    ("access.cedar", include_str!("../../policies/access.cedar")),
    ("access.cedarschema", include_str!("../../policies/access.cedarschema")),
];

/// The hash of the built-in bundle.
pub fn bundle_hash() -> Digest {
    let mut bytes = Vec::new();
    for (name, text) in FILES {
        bytes.extend(format!("{name}\n{}\n{text}", text.len()).into_bytes());
    }
    Digest::of(&bytes)
}

/// Who asks, as the register of keys has it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Principal {
    role: Role,
    name: String,
    member: MemberName,
}

impl Principal {
    /// The holder of a key; `None` if the key is revoked.
    pub fn of(key: &RegisteredKey) -> Option<Self> {
        let name = key.key.name().to_owned();
        key.revoked.is_none().then(|| Self { role: key.role, name, member: key.member.clone() })
    }

    /// What it is.
    pub fn role(&self) -> Role {
        self.role
    }

    /// The name of its key.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The member that it stands under.
    pub fn member(&self) -> &MemberName {
        &self.member
    }
}

/// How something is read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Action {
    /// Under the patient's pseudonym of the site.
    Read,
    /// Under the pseudonym of a study.
    ReadPseudonymised,
}

/// What is read.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Data {
    /// Whose it is.
    pub subject: Token,
    /// What it is.
    pub kind: DataKind,
    /// From when it is, in seconds since 1970.
    pub event_s: u64,
    /// The claims that it belongs to, as the site's billing says.
    pub claims: BTreeSet<Token>,
}

/// Somebody wants to read something.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AccessRequest {
    /// Who.
    pub who: Principal,
    /// How.
    pub action: Action,
    /// Why.
    pub purpose: Purpose,
    /// For which claim or study.
    pub scope: Option<Scope>,
    /// What.
    pub data: Data,
    /// Now, in seconds since 1970.
    pub now_s: u64,
}

/// What was decided.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Decision {
    /// Whether it may be read.
    pub allowed: bool,
    /// The policies that decided so, by their `@id`; none if no policy allows it.
    pub reasons: Vec<String>,
    /// It is allowed as an emergency only: patient and members are to be told.
    pub break_glass: bool,
    /// How old the site's view was, in seconds.
    pub view_age_s: u64,
    /// The bundle of policies.
    pub bundle: Digest,
}

/// Why nothing can be decided here.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BundleError {
    /// The consortium has agreed on other policies.
    #[error(
        "the consortium's access policies are {expected}, this build has {found}: update haar, or have \
         the members agree on these (haar ledger propose change-policy)"
    )]
    Other {
        /// What the log says.
        expected: Digest,
        /// What is built in.
        found: Digest,
    },
    /// The built-in bundle does not hold together; a fault of this build.
    #[error("the built-in access policies cannot be used; this is a fault of the build")]
    Broken,
}

/// Decides on access.
pub struct Decider {
    policies: PolicySet,
    schema: Schema,
    bundle: Digest,
}

impl Decider {
    /// With the built-in bundle, if it is the one that the consortium's state names.
    ///
    /// # Errors
    /// If it is not.
    pub fn new(expected: Digest) -> Result<Self, BundleError> {
        let bundle = bundle_hash();
        if bundle != expected {
            return Err(BundleError::Other { expected, found: bundle });
        }
        let broken = |_| BundleError::Broken;
        let policies = PolicySet::from_str(FILES[0].1).map_err(|_| BundleError::Broken)?;
        let (schema, _) = Schema::from_cedarschema_str(FILES[1].1).map_err(broken)?;
        let checked = Validator::new(schema.clone()).validate(&policies, ValidationMode::Strict);
        if !checked.validation_passed() {
            return Err(BundleError::Broken);
        }
        Ok(Self { policies, schema, bundle })
    }

    /// Decides, from the grants in `consents`, by a site whose view of the log is `view_age_s` old.
    pub fn decide(
        &self,
        request: &AccessRequest,
        consents: &Consents,
        view_age_s: u64,
    ) -> Decision {
        let data = &request.data;
        let grants: Vec<_> =
            consents.in_force(&data.subject, request.now_s, data.event_s).collect();
        let (allowed, reasons) = self.ask(request, &grants, view_age_s).unwrap_or_default();
        let break_glass = allowed && request.purpose == Purpose::Emergency;
        Decision { allowed, reasons, break_glass, view_age_s, bundle: self.bundle }
    }

    /// `None` if it cannot be put to Cedar.
    fn ask(
        &self,
        request: &AccessRequest,
        grants: &[&Grant],
        view_age_s: u64,
    ) -> Option<(bool, Vec<String>)> {
        let (who, resource) = (principal(&request.who)?, resource(&request.data, grants)?);
        let action = match request.action {
            Action::Read => r#"Haar::Action::"read""#,
            Action::ReadPseudonymised => r#"Haar::Action::"readPseudonymised""#,
        };
        let scope = request.scope.as_ref().map(Scope::text).unwrap_or_default();
        let age = i64::try_from(view_age_s).unwrap_or(i64::MAX);
        let context = Context::from_pairs([
            ("purpose".to_owned(), text(request.purpose.code())),
            ("scope".to_owned(), text(&scope)),
            ("viewAge".to_owned(), RestrictedExpression::new_long(age)),
        ])
        .ok()?;
        let action = EntityUid::from_str(action).ok()?;
        let asked =
            Request::new(who.uid(), action, resource.uid(), context, Some(&self.schema)).ok()?;
        let entities = Entities::from_entities([who, resource], Some(&self.schema)).ok()?;
        let response = Authorizer::new().is_authorized(&asked, &self.policies, &entities);
        if response.diagnostics().errors().next().is_some() {
            return None;
        }
        let named = |id| self.policies.annotation(id, "id").unwrap_or_default().to_owned();
        let mut reasons: Vec<_> = response.diagnostics().reason().map(named).collect();
        reasons.sort();
        Some((response.decision() == cedar_policy::Decision::Allow, reasons))
    }
}

fn principal(who: &Principal) -> Option<Entity> {
    let kind = match who.role {
        Role::Patient => "Patient",
        Role::Clinician => "Clinician",
        Role::Insurer => "Insurer",
        Role::Researcher => "Researcher",
        _ => return None,
    };
    let attributes = [("name", text(&who.name)), ("member", text(who.member.as_str()))];
    entity(&format!("Haar::{kind}"), &who.name, attributes)
}

fn resource(data: &Data, grants: &[&Grant]) -> Option<Entity> {
    let mut granted = Vec::new();
    for grant in grants {
        for kind in grant.kinds.iter().filter(|kind| **kind == data.kind) {
            let scope = grant.scope.as_ref().map(Scope::text).unwrap_or_default();
            let fields = [
                ("role".to_owned(), text(grant.grantee.role.code())),
                ("name".to_owned(), text(grant.grantee.name.as_str())),
                ("kind".to_owned(), text(kind.code())),
                ("purpose".to_owned(), text(grant.purpose.code())),
                ("scope".to_owned(), text(&scope)),
            ];
            granted.push(RestrictedExpression::new_record(fields).ok()?);
        }
    }
    let claims = data.claims.iter().map(|claim| text(&Scope::Claim(claim.clone()).text()));
    let attributes = [
        ("owner", text(&patient_key_name(data.subject.as_str()))),
        ("kind", text(data.kind.code())),
        ("claims", RestrictedExpression::new_set(claims)),
        ("grants", RestrictedExpression::new_set(granted)),
    ];
    entity("Haar::Data", "asked", attributes)
}

fn entity<const N: usize>(
    kind: &str,
    id: &str,
    attributes: [(&str, RestrictedExpression); N],
) -> Option<Entity> {
    let uid = EntityUid::from_type_name_and_id(kind.parse().ok()?, id.parse().ok()?);
    let attributes: HashMap<_, _> =
        attributes.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
    Entity::new(uid, attributes, HashSet::new()).ok()
}

fn text(value: &str) -> RestrictedExpression {
    RestrictedExpression::new_string(value.to_owned())
}
