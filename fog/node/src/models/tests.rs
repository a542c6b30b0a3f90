use super::*;
use crate::config::EdgeKeys;
use crate::consortium::roll::Roll;
use crate::consortium::roll::tests::state;
use crate::store::Epoch;
use haar_inference::Builtin;
use haar_inference::registry::{Action, History};
use haar_ledger::governance::Role;
use haar_ledger::{Held, Identity, LeafKind, Record};
use sha2::{Digest as _, Sha256};
use std::path::Path;

fn officer() -> Identity {
    Identity::generate("hospital.example/officer", [3; 32]).unwrap()
}

fn store(dir: &Path) -> Store {
    Store::open(dir, Identity::generate("haar.test/site", [7; 32]).unwrap()).unwrap()
}

fn config(dir: &Path) -> ModelsConfig {
    ModelsConfig { registry: Some(dir.join("models")), ..ModelsConfig::default() }
}

/// These alone decide.
fn authorised(keys: &[Identity]) -> Signers {
    let keys = keys.iter().map(|key| key.vkey().to_string()).collect();
    Signers::new(keys, None, roll())
}

/// That of a site of which the members' log was not read yet.
fn roll() -> Roll {
    Roll::new("a.example/site", EdgeKeys::Optional)
}

fn metrics() -> Metrics {
    Metrics::new("haar-fog").unwrap()
}

/// A built-in model under another version: another hash, the same scores.
fn add(dir: &Path, id: &str, version: u32) -> ModelRef {
    let own = |builtin: &&Builtin| builtin.package().unwrap().reference().id == id;
    let builtin = BUILTIN.iter().find(own).unwrap();
    let folder = dir.join(format!("{id}-{version}"));
    std::fs::create_dir(&folder).unwrap();
    let line = builtin.manifest.lines().find(|line| line.starts_with("version = ")).unwrap();
    let manifest = builtin.manifest.replacen(line, &format!("version = {version}"), 1);
    std::fs::write(folder.join("manifest.toml"), manifest).unwrap();
    std::fs::write(folder.join("weights.safetensors"), builtin.weights).unwrap();
    std::fs::write(folder.join("CARD.md"), "A copy for a test.\n").unwrap();
    Registry::at(dir.join("models")).add(&folder).unwrap()
}

/// Signs a decision into the registry.
fn decide(dir: &Path, action: Action, model: &ModelRef, effective_us: i64) -> Vec<u8> {
    decide_as(&officer(), dir, action, model, effective_us)
}

fn decide_as(
    who: &Identity,
    dir: &Path,
    action: Action,
    model: &ModelRef,
    effective_us: i64,
) -> Vec<u8> {
    let registry = Registry::at(dir.join("models"));
    let keys = [officer().vkey().to_string(), who.vkey().to_string()];
    let mut history = registry.history(&keys).unwrap();
    let next = history.next(action, model.clone(), effective_us, "for a test".into()).unwrap();
    let note = who.sign(&next.text()).unwrap();
    registry.append(&mut history, &note).unwrap();
    note
}

/// Commits what was taken up, as an epoch does.
fn commit(store: &Store, taken: Vec<Taken>, at_us: i64) {
    let mut epoch = Epoch { at: Timestamp::from_micros(at_us), ..Epoch::default() };
    for (place, taken) in (0..).zip(taken) {
        let name = Sha256::digest(&taken.note).into();
        let record =
            Record { kind: LeafKind::ModelStatement, name, key: [1; 32], body: taken.note };
        epoch.records.push(Held { keyholder: None, record });
        epoch.decisions.push((taken.number, taken.from_us, place));
    }
    store.commit(&epoch).unwrap();
}

#[test]
fn without_a_registry_the_built_in_models_are_live() {
    let dir = tempfile::tempdir().unwrap();
    let models =
        Models::open(&ModelsConfig::default(), authorised(&[]), &store(dir.path()), &metrics())
            .unwrap();
    assert!(models.decided.taken.is_empty() && models.follower.is_none());
    let now = models.deployments.now();
    let (_, step) = now.beats.at(0);
    assert!(step.shadow.is_none());
    let expected = &models.expected[&step.live.reference().sha256];
    assert!(expected.len() == 5 && expected.values().sum::<u64>() > 1_000, "{expected:?}");
    assert_eq!(models.expected.len(), 4, "of beats, rhythms, faults and groups");
}

#[test]
fn a_decision_holds_from_when_it_was_taken_up_also_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let two = add(dir, BeatModel::ID, 902);
    {
        let store = store(dir);
        let models =
            Models::open(&config(dir), authorised(&[officer()]), &store, &metrics()).unwrap();
        let (mut decided, mut follower) = (models.decided, models.follower.unwrap());
        // Both hold from a time that is over when they are seen; the second from later on than the first is taken up.
        decide(dir, Action::Shadow, &two, 100);
        assert!(follower.look());
        let taken = decided.take(Timestamp::from_micros(5_000));
        assert_eq!(taken.iter().map(|own| own.from_us).collect::<Vec<_>>(), [5_000]);
        assert_eq!(taken[0].expected.keys().collect::<Vec<_>>(), [&two.sha256]);
        commit(&store, taken, 5_000);
        decide(dir, Action::Promote, &two, 9_000);
        assert!(follower.look());
        commit(&store, decided.take(Timestamp::from_micros(6_000)), 6_000);
        assert!(follower.look() && decided.take(Timestamp::from_micros(6_500)).is_empty());
        assert_steps(&models.deployments.now(), &two);
    }
    let store = store(dir);
    let models = Models::open(&config(dir), authorised(&[officer()]), &store, &metrics()).unwrap();
    assert_steps(&models.deployments.now(), &two);
    assert!(models.decided.taken.is_empty(), "both are in the log");
    // Decided while the node was down: not from before its last commit.
    drop(models);
    decide(dir, Action::Rollback, &two_before(), 9_000);
    commit(&store, Vec::new(), 12_000);
    let mut models =
        Models::open(&config(dir), authorised(&[officer()]), &store, &metrics()).unwrap();
    let taken = models.decided.take(Timestamp::from_micros(20_000));
    assert_eq!(taken.iter().map(|own| own.from_us).collect::<Vec<_>>(), [12_000]);
    let now = models.deployments.now();
    assert_eq!(now.beats.live(11_999).name(), &two);
    assert_eq!(now.beats.live(12_000).name(), &two_before());
}

/// What was live before: the built-in one.
fn two_before() -> ModelRef {
    BeatModel::built_in().unwrap().name().clone()
}

fn assert_steps(now: &Deployments, two: &ModelRef) {
    let at = |us| {
        let (_, step) = now.beats.at(us);
        (step.live.name().clone(), step.shadow.as_ref().map(|own| own.name().clone()))
    };
    let built_in = two_before();
    assert_eq!(at(4_999), (built_in.clone(), None));
    assert_eq!(at(5_000), (built_in.clone(), Some(two.clone())));
    assert_eq!(at(8_999), (built_in, Some(two.clone())));
    assert_eq!(at(9_000), (two.clone(), None));
}

#[test]
fn every_kind_of_model_is_replaced_while_the_node_runs() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let store = store(dir);
    let models = Models::open(&config(dir), authorised(&[officer()]), &store, &metrics()).unwrap();
    let (mut decided, mut follower) = (models.decided, models.follower.unwrap());
    let mut added = BTreeMap::new();
    for builtin in BUILTIN {
        let id = builtin.package().unwrap().reference().id.clone();
        let model = add(dir, &id, 903);
        decide(dir, Action::Shadow, &model, 1);
        decide(dir, Action::Promote, &model, 1);
        added.insert(id, model);
    }
    assert!(follower.look());
    assert_eq!(decided.take(Timestamp::from_micros(10)).len(), 2 * BUILTIN.len());
    let now = models.deployments.now();
    let names = [
        now.beats.live(10).name(),
        now.rhythm.live(10).name(),
        now.faults.live(10).name(),
        now.conditions.live(10).name(),
        now.sepsis.live(10).name(),
        now.personal.live(10).name(),
    ];
    for name in names {
        assert_eq!(name, &added[&name.id]);
    }
}

#[test]
fn what_does_not_hold_is_not_followed_and_the_models_go_on() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let two = add(dir, BeatModel::ID, 904);
    let store = store(dir);
    let metrics = metrics();
    let models = Models::open(&config(dir), authorised(&[officer()]), &store, &metrics).unwrap();
    let (mut decided, mut follower) = (models.decided, models.follower.unwrap());
    let registry = dir.join("models");
    let refused = || {
        let text = metrics.encode();
        let line = |line: &&str| line.starts_with("haar_fog_model_decisions_refused_total");
        text.lines()
            .find(line)
            .map_or(0.0, |line| line.split(' ').next_back().unwrap().parse().unwrap())
    };
    // By nobody who is trusted.
    let mallory = Identity::generate("hospital.example/mallory", [4; 32]).unwrap();
    let history = History::new(&[]).unwrap();
    let next = history.next(Action::Shadow, two.clone(), 1, "forged".into()).unwrap();
    let statements = registry.join("statements");
    std::fs::create_dir_all(&statements).unwrap();
    std::fs::write(statements.join("000001.note"), mallory.sign(&next.text()).unwrap()).unwrap();
    assert!(follower.look() && follower.look());
    assert_eq!(refused(), 2.0, "each look counts");
    assert!(decided.take(Timestamp::from_micros(10)).is_empty());
    std::fs::remove_file(statements.join("000001.note")).unwrap();
    // A model that was changed after it was added.
    let weights = registry.join("models/ecg-beats").join(&two.sha256).join("weights.safetensors");
    let sound = std::fs::read(&weights).unwrap();
    let mut changed = sound.clone();
    changed[sound.len() - 1] ^= 1;
    std::fs::write(&weights, changed).unwrap();
    decide(dir, Action::Shadow, &two, 1);
    assert!(follower.look());
    assert_eq!(refused(), 3.0);
    assert!(decided.take(Timestamp::from_micros(10)).is_empty());
    assert!(matches!(
        Models::open(&config(dir), authorised(&[officer()]), &store, &metrics),
        Err(ModelsError::Registry(_))
    ));
    // Mended, it is followed.
    std::fs::write(&weights, sound).unwrap();
    assert!(follower.look());
    let taken = decided.take(Timestamp::from_micros(10));
    assert_eq!(taken.len(), 1);
    commit(&store, taken, 10);
    // What was followed is not to vanish.
    std::fs::remove_file(statements.join("000001.note")).unwrap();
    assert!(follower.look());
    assert_eq!(refused(), 4.0);
    assert!(matches!(
        Models::open(&config(dir), authorised(&[officer()]), &store, &metrics),
        Err(ModelsError::Rewritten(1))
    ));
}

#[test]
fn what_a_revoked_key_signs_is_not_followed_and_what_it_signed_stays() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let [two, three] = [905, 906].map(|version| add(dir, BeatModel::ID, version));
    let store = store(dir);
    let successor = Identity::generate("hospital.example/officer", [5; 32]).unwrap();
    let roll = roll();
    // The first key stands in the configuration, the next in the members' log alone.
    let keys = vec![officer().vkey().to_string()];
    let signers = || Signers::new(keys.clone(), Some(Role::Model), roll.clone());
    let open = || Models::open(&config(dir), signers(), &store, &metrics());
    decide(dir, Action::Shadow, &two, 1);
    let models = open().unwrap();
    let (mut decided, mut follower) = (models.decided, models.follower.unwrap());
    let mut take = |us| decided.take(Timestamp::from_micros(us));
    assert!(follower.look() && take(5).is_empty(), "nobody has read who decides");
    roll.renew(Some(&state(&[(&officer(), Role::Model)], None)));
    assert!(follower.look());
    commit(&store, take(10), 10);
    assert_eq!(store.decisions().unwrap().len(), 1);

    roll.renew(Some(&state(&[(&officer(), Role::Model)], Some(&officer()))));
    decide(dir, Action::Promote, &two, 20);
    let refused = follower.hand_over().unwrap_err();
    assert!(matches!(refused, ModelsError::Revoked(2)), "{refused}");
    assert!(follower.look() && take(30).is_empty());
    assert!(matches!(open(), Err(ModelsError::Revoked(2))));
    // Who may decide signs the next one, and with it what came before.
    let registered = [(&officer(), Role::Model), (&successor, Role::Model)];
    roll.renew(Some(&state(&registered, Some(&officer()))));
    decide_as(&successor, dir, Action::Shadow, &three, 40);
    assert!(follower.look());
    let taken = take(50);
    assert_eq!(taken.iter().map(|own| own.number).collect::<Vec<_>>(), [2, 3]);
    commit(&store, taken, 50);
    // A start asks nobody for signatures under what was followed, not even who may decide.
    roll.renew(None);
    assert_eq!(open().unwrap().deployments.now().beats.live(60).name(), &two);
    // A key of another role decides nothing.
    let clinician = Identity::generate("hospital.example/doctor", [6; 32]).unwrap();
    roll.renew(Some(&state(&[(&clinician, Role::Clinician), (&successor, Role::Model)], None)));
    let registry = Registry::at(dir.join("models"));
    let trusted = [officer(), successor].map(|key| key.vkey().to_string());
    let history = registry.history(&trusted).unwrap();
    let next = history.next(Action::Withdraw, three, 60, "for a test".into()).unwrap();
    let note = clinician.sign(&next.text()).unwrap();
    std::fs::write(dir.join("models/statements/000004.note"), note).unwrap();
    assert!(matches!(follower.hand_over(), Err(ModelsError::Registry(_))));
}
