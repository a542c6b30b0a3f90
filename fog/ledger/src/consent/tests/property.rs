//! Cedar's answers against a plain reading of the rules.

use super::*;
use proptest::prelude::*;
use proptest::sample::select;

/// Who asks and by what name: the keys of [`registered`].
fn readers() -> [String; 6] {
    let patients = ["subject-1", "subject-2"].map(patient_key_name);
    let [one, two] = patients;
    [one, two, "dr-a".into(), "dr-b".into(), "insurer".into(), "researcher".into()]
}

fn scopes() -> impl Strategy<Value = Option<Scope>> {
    select(vec![None, claim("1"), claim("2"), study("1"), study("2")])
}

fn grants() -> impl Strategy<Value = Grant> {
    let who = select(vec![
        (GranteeRole::Clinician, "dr-a", Purpose::Treatment),
        (GranteeRole::Clinician, "dr-b", Purpose::Treatment),
        (GranteeRole::Member, "a", Purpose::Treatment),
        (GranteeRole::Insurer, "insurer", Purpose::Payment),
        (GranteeRole::Researcher, "researcher", Purpose::Research),
        (GranteeRole::Researcher, "dr-a", Purpose::Research),
    ]);
    let kinds = proptest::collection::btree_set(select(DataKind::ALL), 1..4);
    (who, select(vec!["1", "2"]), kinds, 0u64..4, 1u64..4).prop_map(
        |((role, name, purpose), number, kinds, from, length)| {
            let scope = match role {
                GranteeRole::Insurer => claim(number),
                GranteeRole::Researcher => study(number),
                _ => None,
            };
            let period = Interval::new(from, from + length).unwrap();
            Grant { kinds, period, ..grant(role, name, purpose, scope) }
        },
    )
}

/// The table in the README, in other words than those of the policies.
fn allowed(request: &AccessRequest, grants: &[Grant], view_age_s: u64) -> bool {
    let who = request.who.name();
    let clinician = request.who.role() == Role::Clinician && request.action == Action::Read;
    if clinician && request.purpose == Purpose::Emergency {
        return true;
    }
    let granted = |role, name: &str, scope: &Option<Scope>| {
        grants.iter().any(|grant| {
            grant.grantee.role == role
                && grant.grantee.name.as_str() == name
                && grant.kinds.contains(&request.data.kind)
                && grant.purpose == request.purpose
                && grant.scope == *scope
                && grant.period.contains(request.now_s)
        })
    };
    view_age_s <= MAX_VIEW_AGE_S
        && match (request.who.role(), request.action) {
            (Role::Patient, Action::Read) => who == patient_key_name(request.data.subject.as_str()),
            (Role::Clinician, Action::Read) => {
                request.purpose == Purpose::Treatment
                    && (granted(GranteeRole::Clinician, who, &None)
                        || granted(GranteeRole::Member, request.who.member().as_str(), &None))
            }
            (Role::Insurer, Action::Read) => match &request.scope {
                Some(Scope::Claim(number)) => {
                    request.data.claims.contains(number)
                        && granted(GranteeRole::Insurer, who, &request.scope)
                }
                _ => false,
            },
            (Role::Researcher, Action::ReadPseudonymised) => {
                granted(GranteeRole::Researcher, who, &request.scope)
            }
            _ => false,
        }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(192))]

    #[test]
    fn cedar_says_what_the_table_says(
        grants in proptest::collection::vec(grants(), 0..6),
        asked in proptest::collection::vec(
            (0usize..6, any::<bool>(), select(Purpose::ALL), scopes(), select(DataKind::ALL), 0u64..8,
             select(vec![0, 60, 61])),
            24,
        ),
    ) {
        let (consortium, patient) = registered();
        let decider = Decider::new(bundle_hash()).unwrap();
        let mut consents = Consents::default();
        for grant in &grants {
            consents.add(&signed(&consortium, &patient, &Statement::Grant(grant.clone()))).unwrap();
        }
        let readers = readers();
        for (who, identified, purpose, scope, kind, now_s, view_age_s) in asked {
            let mut request = ask(&consortium, &readers[who], purpose, scope);
            request.action = if identified { Action::Read } else { Action::ReadPseudonymised };
            (request.data.kind, request.now_s) = (kind, now_s);
            request.data.claims = [token("1")].into();
            let decision = decider.decide(&request, &consents, view_age_s);
            prop_assert_eq!(
                decision.allowed,
                allowed(&request, &grants, view_age_s),
                "{:?} by {:?}: {:?}", request, grants, decision
            );
            prop_assert!(!decision.allowed || !decision.reasons.is_empty());
        }
    }
}
