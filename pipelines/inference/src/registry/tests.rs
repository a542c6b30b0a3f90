use super::*;
use signed_note::{Note, Signer, StandardSigner};

struct Officer {
    signer: StandardSigner,
    vkey: String,
}

fn officer(name: &str) -> Officer {
    let (secret, vkey) = signed_note::generate_key(&mut rand_core_06::OsRng, name);
    Officer { signer: StandardSigner::new(&secret).unwrap(), vkey }
}

impl Officer {
    fn sign(&self, statement: &Statement) -> Vec<u8> {
        let mut note = Note::new(statement.text().as_bytes(), &[]).unwrap();
        note.add_sigs(&[&self.signer as &dyn Signer]).unwrap();
        note.to_bytes()
    }
}

fn model(letter: char) -> ModelRef {
    ModelRef { id: "ecg-beats".into(), sha256: letter.to_string().repeat(64) }
}

/// Decides, and says what is then live and in shadow.
fn decide(
    history: &mut History,
    by: &Officer,
    action: Action,
    letter: char,
    at: i64,
) -> Result<(Option<ModelRef>, Option<ModelRef>), Refused> {
    let statement = history.next(action, model(letter), at, "for a test".into())?;
    history.push(&by.sign(&statement)).unwrap();
    let now = history.now("ecg-beats");
    Ok((now.live, now.shadow))
}

#[test]
fn a_model_goes_live_after_shadow_and_comes_back() {
    let anna = officer("hospital.example/anna");
    let mut history = History::new(std::slice::from_ref(&anna.vkey)).unwrap();
    let mut decide = |action, letter, at| decide(&mut history, &anna, action, letter, at);
    assert_eq!(decide(Action::Promote, 'a', 10), Err(Refused::NotInShadow));
    assert_eq!(decide(Action::Shadow, 'a', 10), Ok((None, Some(model('a')))));
    assert_eq!(decide(Action::Withdraw, 'b', 11), Err(Refused::NoShadow));
    assert_eq!(decide(Action::Promote, 'a', 9), Err(Refused::TooEarly));
    assert_eq!(decide(Action::Promote, 'a', 20), Ok((Some(model('a')), None)));
    assert_eq!(decide(Action::Shadow, 'a', 20), Err(Refused::Live));
    assert_eq!(decide(Action::Shadow, 'b', 30), Ok((Some(model('a')), Some(model('b')))));
    assert_eq!(decide(Action::Promote, 'b', 40), Ok((Some(model('b')), None)));
    assert_eq!(decide(Action::Rollback, 'c', 50), Err(Refused::NotBefore));
    assert_eq!(decide(Action::Rollback, 'a', 50), Ok((Some(model('a')), None)));
    // Before that the built-in one was live: its hash is named, whichever it is.
    assert_eq!(decide(Action::Rollback, 'c', 60), Ok((None, None)));
    assert_eq!(decide(Action::Rollback, 'c', 70), Err(Refused::NothingBefore));

    assert_eq!(history.at("ecg-beats", 45).live, Some(model('b')));
    assert_eq!(history.at("ecg-beats", 19).shadow, Some(model('a')));
    assert_eq!(history.at("other", 45), Deployment::default());
    let times: Vec<i64> = history.timeline("ecg-beats").into_keys().collect();
    assert_eq!(times, [10, 20, 30, 40, 50, 60]);
}

#[test]
fn what_was_not_signed_or_does_not_follow_is_refused() {
    let (anna, mallory) = (officer("hospital.example/anna"), officer("hospital.example/mallory"));
    let keys = std::slice::from_ref(&anna.vkey);
    let mut history = History::new(keys).unwrap();
    let first = history.next(Action::Shadow, model('a'), 1, "first".into()).unwrap();
    let error = history.push(&mallory.sign(&first)).unwrap_err();
    assert_eq!(error, HistoryError::Signature { number: 1 });
    let note = anna.sign(&first);
    let altered = String::from_utf8(note.clone()).unwrap().replace("first", "other");
    let error = history.push(altered.as_bytes()).unwrap_err();
    assert_eq!(error, HistoryError::Signature { number: 1 });
    history.push(&note).unwrap();
    // The same once more, or one that was made for another chain.
    assert_eq!(history.push(&note).unwrap_err(), HistoryError::Chain { number: 2 });
    let second = history.next(Action::Promote, model('a'), 2, "second".into()).unwrap();
    let orphan = Statement { previous: [7; 32], ..second.clone() };
    assert_eq!(history.push(&anna.sign(&orphan)).unwrap_err(), HistoryError::Chain { number: 2 });
    history.push(&anna.sign(&second)).unwrap();
    assert!(matches!(
        History::open(&[anna.sign(&second)], keys).unwrap_err(),
        HistoryError::Chain { number: 1 }
    ));
    for reason in ["", "two\nlines", &"x".repeat(MAX_REASON_CHARS + 1)] {
        let statement = history.next(Action::Shadow, model('b'), 3, reason.into()).unwrap();
        assert!(Statement::parse(&statement.text()).is_err(), "{reason:?}");
    }
}

/// A model in a folder of its own.
fn packed(version: u32) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let tensor = candle_core::Tensor::zeros(3, candle_core::DType::F32, &candle_core::Device::Cpu);
    let draft = crate::package::Draft {
        manifest: Manifest { version, ..crate::package::tests::draft().manifest },
        members: vec![[("output.bias".to_owned(), tensor.unwrap())].into()],
        lineage: crate::package::Lineage::default(),
        card: "For tests.".into(),
    };
    draft.write(folder.path()).unwrap();
    folder
}

#[test]
fn a_registry_keeps_models_and_decisions() {
    let root = tempfile::tempdir().unwrap();
    let registry = Registry::at(root.path().join("registry"));
    let anna = officer("hospital.example/anna");
    let keys = std::slice::from_ref(&anna.vkey);
    assert!(registry.models().unwrap().is_empty());
    assert!(registry.history(keys).unwrap().decisions().is_empty());
    let two = registry.add(packed(2).path()).unwrap();
    let one = registry.add(packed(1).path()).unwrap();
    assert_eq!(registry.add(packed(1).path()).unwrap(), one);
    let listed: Vec<ModelRef> =
        registry.models().unwrap().into_iter().map(|listed| listed.reference).collect();
    assert_eq!(listed, [one.clone(), two.clone()]);
    assert_eq!(registry.package(&one).unwrap().manifest().version, 1);
    assert!(matches!(registry.package(&model('a')), Err(RegistryError::Unknown(_))));

    let mut history = registry.history(keys).unwrap();
    let mut notes = Vec::new();
    for (action, model) in [(Action::Shadow, &one), (Action::Promote, &one), (Action::Shadow, &two)]
    {
        let next = history.next(action, model.clone(), 5, "for a test".into()).unwrap();
        notes.push(anna.sign(&next));
        registry.append(&mut history, &notes[notes.len() - 1]).unwrap();
    }
    let read = registry.history(keys).unwrap();
    assert_eq!(read.decisions(), history.decisions());
    assert_eq!(read.now(&one.id).live, Some(one.clone()));
    // Two who decide at once: the second is told.
    let mut stale = History::open(&notes[..2], keys).unwrap();
    let late = stale.next(Action::Shadow, two.clone(), 6, "late".into()).unwrap();
    let error = registry.append(&mut stale, &anna.sign(&late)).unwrap_err();
    assert!(matches!(error, RegistryError::Raced { .. }), "{error}");

    // A statement that is gone from the middle is missed; a model that was changed is not loaded.
    std::fs::remove_file(root.path().join("registry/statements/000002.note")).unwrap();
    let error = registry.history(keys).unwrap_err();
    assert!(
        matches!(error, RegistryError::History(HistoryError::Missing { number: 2 })),
        "{error}"
    );
    let manifest = registry.folder(&one).join("manifest.toml");
    let text = std::fs::read_to_string(&manifest).unwrap().replace("version = 1", "version = 9");
    std::fs::write(&manifest, text).unwrap();
    assert!(matches!(registry.package(&one), Err(RegistryError::Changed { .. })));
    assert!(matches!(registry.models(), Err(RegistryError::Changed { .. })));
}
