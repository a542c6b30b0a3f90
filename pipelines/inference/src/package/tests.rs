use super::*;
use haar_recordings::corpus::CaseId;

pub(crate) fn draft() -> Draft {
    let member = |value: f32| -> BTreeMap<String, Tensor> {
        [("x".to_owned(), Tensor::new(&[value, 1.0], &Device::Cpu).unwrap())].into()
    };
    Draft {
        manifest: Manifest {
            id: "test-model".into(),
            version: 1,
            task: "test".into(),
            title: "A model for tests".into(),
            date: "2026-11-22".into(),
            members: 2,
            inputs: vec![InputSpec {
                name: "x".into(),
                unit: "mV".into(),
                shape: vec![2],
                rate_millihertz: None,
            }],
            outputs: OutputSpec::probabilities(["a", "b"]),
            weights: WeightsFile::default(),
            data: Vec::new(),
            training: TrainingRun {
                seed: 1,
                epochs: 1,
                folds: 2,
                command: "haar train test".into(),
                settings: BTreeMap::new(),
            },
            metrics: Metrics::default(),
        },
        members: vec![member(1.0), member(2.0)],
        lineage: Lineage::new([(CaseId(u64::MAX), 1), (CaseId(7), 0)]),
        card: "For tests.".into(),
    }
}

#[test]
fn what_is_written_is_loaded_and_has_one_name() {
    let folder = tempfile::tempdir().unwrap();
    draft().write(folder.path()).unwrap();
    let package = Package::load(folder.path()).unwrap();
    let (text, weights) = draft().encode().unwrap();
    assert_eq!(package.reference(), Package::from_parts(&text, &weights).unwrap().reference());
    assert_eq!(package.members(), 2);
    assert_eq!(package.member(1)["x"].to_vec1::<f32>().unwrap(), [2.0, 1.0]);
    assert!(package.member(2).is_empty());
    let lineage = package.lineage();
    assert_eq!(lineage, &draft().lineage);
    assert_eq!(lineage.held_out_by(CaseId(u64::MAX)), Some(1));
    assert_eq!(lineage.members_for(CaseId(7), 2), 0..1);
    assert_eq!(lineage.members_for(CaseId(8), 2), 0..2);
    let card = std::fs::read_to_string(folder.path().join("CARD.md")).unwrap();
    assert!(card.contains(&package.manifest().weights.sha256), "{card}");
}

#[test]
fn what_does_not_fit_is_refused() {
    let (text, weights) = draft().encode().unwrap();
    let package = Package::from_parts(&text, &weights).unwrap();
    let (inputs, outputs) = (draft().manifest.inputs, draft().manifest.outputs);
    package.check("test", &inputs, &outputs).unwrap();
    let error = package.check("other", &inputs, &outputs).unwrap_err();
    assert!(matches!(error, LoadError::Task { .. }), "{error}");
    let mut microvolts = inputs.clone();
    microvolts[0].unit = "uV".into();
    let error = package.check("test", &microvolts, &outputs).unwrap_err();
    assert!(matches!(error, LoadError::Inputs { .. }), "{error}");
    let error = package.check("test", &inputs, &OutputSpec::probabilities(["b", "a"])).unwrap_err();
    assert!(matches!(error, LoadError::Outputs { .. }), "{error}");

    let mut flipped = weights.clone();
    *flipped.last_mut().unwrap() ^= 1;
    let error = Package::from_parts(&text, &flipped).unwrap_err();
    assert!(matches!(error, LoadError::Hash { .. }), "{error}");
    for (from, to) in [
        ("members = 2", "members = 1"),
        ("members = 2", "members = 0"),
        ("test-model", "../model"),
        ("weights.safetensors", "../weights"),
        ("version = 1", "version = 1\nsurprise = 2"),
    ] {
        let changed = text.replace(from, to);
        assert_ne!(changed, text, "{from}");
        assert!(Package::from_parts(&changed, &weights).is_err(), "{to}");
    }
}

#[test]
fn a_network_takes_its_parameters_and_nothing_else() {
    let member = draft().members[0].clone();
    assert_eq!(take_parameters(member.clone(), &[("x", &[2])]).unwrap().len(), 1);
    for shapes in [&[("x", &[3_usize][..])][..], &[], &[("x", &[2]), ("y", &[2])]] {
        assert!(take_parameters(member.clone(), shapes).is_err());
    }
}
