//! The house rules that a machine can check. What CONTRIBUTING.md and README.md say about the
//! layout is read from there, so that they stay true.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// What stands at the top of the repository, dotfiles aside.
const TOP_LEVEL: [&str; 14] = [
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "Cargo.lock",
    "Cargo.toml",
    "LICENSE-APACHE",
    "LICENSE-MIT",
    "README.md",
    "SECURITY.md",
    "benches",
    "deploy",
    "edge",
    "fog",
    "pipelines",
    "tests",
];
/// A file longer than this wants a second look, which the test's output asks for.
const LONG_FILE_LINES: usize = 600;
/// A file longer than this fails.
const MAX_FILE_LINES: usize = 900;
/// What the edge binary must never link, by the beginning of the package's name.
const NOT_AT_THE_EDGE: [&str; 5] =
    ["timely", "differential-dataflow", "candle", "haar-ledger", "haar-dataflow"];
/// Files in which the marks of unfinished work are looked for.
const TEXT_FILES: [&str; 8] = ["rs", "toml", "md", "proto", "css", "js", "yml", "yaml"];

#[test]
fn the_top_level_is_what_was_agreed() {
    let found: BTreeSet<String> = fs::read_dir(root())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| !name.starts_with('.') && !ignored().contains(name))
        .collect();
    let agreed: BTreeSet<String> = TOP_LEVEL.map(str::to_owned).into();
    let extra: Vec<_> = found.difference(&agreed).collect();
    let missing: Vec<_> = agreed.difference(&found).collect();
    assert!(extra.is_empty() && missing.is_empty(), "extra {extra:?}, missing {missing:?}");
}

#[test]
fn nothing_is_left_undone_or_skipped() {
    // Put together here so that this file does not find itself.
    let marks = [
        concat!("TO", "DO"),
        concat!("FIX", "ME"),
        concat!("todo", "!("),
        concat!("unimplemented", "!("),
        concat!("#[ig", "nore"),
    ];
    let mut found = Vec::new();
    for file in files() {
        if !TEXT_FILES.iter().any(|extension| file.extension().is_some_and(|e| e == *extension)) {
            continue;
        }
        for (index, line) in fs::read_to_string(&file).unwrap().lines().enumerate() {
            if marks.iter().any(|mark| line.contains(mark)) {
                found.push(format!("{}:{}: {}", shown(&file), index + 1, line.trim()));
            }
        }
    }
    assert!(found.is_empty(), "unfinished or skipped:\n{}", found.join("\n"));
}

#[test]
fn files_stay_readable() {
    let mut too_long = Vec::new();
    for file in files().into_iter().filter(|file| file.extension().is_some_and(|e| e == "rs")) {
        let lines = fs::read_to_string(&file).unwrap().lines().count();
        if lines > MAX_FILE_LINES {
            too_long.push(format!("{}: {lines} lines", shown(&file)));
        } else if lines > LONG_FILE_LINES {
            println!("wants a second look: {} has {lines} lines", shown(&file));
        }
    }
    assert!(too_long.is_empty(), "over {MAX_FILE_LINES} lines: {too_long:?}");
}

#[test]
fn every_crate_forbids_unsafe_code_and_takes_the_workspace_lints() {
    for member in members() {
        let lints = manifest(&member);
        let workspace = lints.get("lints").and_then(|lints| lints.get("workspace"));
        assert_eq!(
            workspace.and_then(toml::Value::as_bool),
            Some(true),
            "{member}/Cargo.toml: write `[lints]` `workspace = true`"
        );
        for crate_root in crate_roots(&root().join(&member)) {
            let text = fs::read_to_string(&crate_root).unwrap();
            assert!(
                text.contains("#![forbid(unsafe_code)]"),
                "{}: write `#![forbid(unsafe_code)]` at the top",
                shown(&crate_root)
            );
        }
    }
}

#[test]
fn the_code_map_in_the_readme_is_the_code() {
    let readme = fs::read_to_string(root().join("README.md")).unwrap();
    let map = section(&readme, "## Code map");
    for member in members() {
        assert!(map.contains(&member), "README.md, Code map: {member} is not in it");
    }
    // Words in backticks that have a slash and nothing that a path has not.
    for path in map.split('`').skip(1).step_by(2).filter(|word| word.contains('/')) {
        let is_path = path.chars().all(|c| c.is_ascii_alphanumeric() || "/._-".contains(c));
        if is_path {
            assert!(root().join(path).exists(), "README.md, Code map: {path} does not exist");
        }
    }
}

#[test]
fn crates_import_only_what_their_layer_may() {
    let text = fs::read_to_string(root().join("CONTRIBUTING.md")).unwrap();
    // | `edge/node` | `schema`, `spool` |
    let allowed: BTreeMap<&str, BTreeSet<&str>> = section(&text, "## Who may import whom")
        .lines()
        .filter_map(|line| {
            let mut cells = line
                .split('|')
                .skip(1)
                .map(|cell| cell.split('`').skip(1).step_by(2).collect::<BTreeSet<&str>>());
            let (name, may) = (cells.next()?, cells.next()?);
            name.into_iter().next().map(|name| (name, may))
        })
        .collect();
    for member in members() {
        if ["deploy/cli", "benches", "tests"].contains(&member.as_str()) {
            continue;
        }
        let may = allowed.get(member.as_str()).unwrap_or_else(|| {
            panic!("CONTRIBUTING.md, Who may import whom: a row for `{member}` is missing")
        });
        let manifest = manifest(&member);
        let imports = manifest.get("dependencies").and_then(toml::Value::as_table);
        for import in imports.into_iter().flat_map(|table| table.keys()) {
            if let Some(import) = import.strip_prefix("haar-") {
                assert!(may.contains(import), "{member} may not import {import}");
            }
        }
    }
    let named: BTreeSet<String> = allowed.keys().map(|name| (*name).to_owned()).collect();
    let gone: Vec<_> = named.difference(&members().into_iter().collect()).cloned().collect();
    assert!(gone.is_empty(), "CONTRIBUTING.md, Who may import whom: no such crate {gone:?}");
}

#[test]
fn the_edge_binary_stays_small() {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args(["tree", "-p", "haar-edge", "-e", "normal", "--prefix", "none", "--format", "{p}"])
        .args(["--locked", "--offline"])
        .current_dir(root())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let tree = String::from_utf8(output.stdout).unwrap();
    assert!(tree.contains("haar-spool"), "not a tree: {tree}");
    for package in tree.lines() {
        let banned = NOT_AT_THE_EDGE.iter().any(|name| package.starts_with(name));
        assert!(!banned, "haar-edge depends on {package}: see `cargo tree -p haar-edge -i …`");
    }
}

#[test]
fn the_changelog_says_what_is_not_yet_released() {
    let changelog = fs::read_to_string(root().join("CHANGELOG.md")).unwrap();
    let unreleased = section(&changelog, "## [Unreleased]");
    assert!(unreleased.lines().any(|line| line.starts_with("- ")), "Unreleased is empty");
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

fn shown(file: &Path) -> String {
    file.strip_prefix(root()).unwrap_or(file).display().to_string()
}

fn manifest(folder: &str) -> toml::Table {
    let path = root().join(folder).join("Cargo.toml");
    fs::read_to_string(path).unwrap().parse().unwrap()
}

/// The folders of the workspace's members, as written in the root manifest.
fn members() -> Vec<String> {
    let root = manifest("");
    let members = root["workspace"]["members"].as_array().unwrap();
    members.iter().map(|member| member.as_str().unwrap().to_owned()).collect()
}

/// The files that are roots of a crate: library, programs, and tests and benches of their own.
fn crate_roots(member: &Path) -> Vec<PathBuf> {
    let mut roots: Vec<PathBuf> = ["src/lib.rs", "src/main.rs", "main.rs"]
        .into_iter()
        .map(|file| member.join(file))
        .filter(|file| file.is_file())
        .collect();
    let bins = fs::read_dir(member.join("src/bin")).into_iter().flatten();
    roots.extend(bins.map(|entry| entry.unwrap().path()).filter(|path| path.is_file()));
    roots
}

/// What stands at the top but is not part of the repository: the lines `/name` of .gitignore.
fn ignored() -> Vec<String> {
    let lines = fs::read_to_string(root().join(".gitignore")).unwrap();
    lines.lines().filter_map(|line| line.strip_prefix('/')).map(str::to_owned).collect()
}

/// All files of the repository.
fn files() -> Vec<PathBuf> {
    let aside: Vec<PathBuf> = ignored()
        .iter()
        .map(String::as_str)
        .chain([".git"])
        .map(|name| root().join(name))
        .collect();
    let (mut folders, mut files) = (vec![root()], Vec::new());
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let entry = entry.unwrap();
            let kind = entry.file_type().unwrap();
            if aside.contains(&entry.path()) {
                continue;
            }
            if kind.is_dir() {
                folders.push(entry.path());
            } else if kind.is_file() {
                files.push(entry.path());
            }
        }
    }
    files.sort();
    files
}

/// The text under a heading of the second level, up to the next.
fn section<'a>(text: &'a str, heading: &str) -> &'a str {
    let start = text.find(&format!("{heading}\n")).unwrap_or_else(|| panic!("no `{heading}`"));
    let behind = &text[start + heading.len()..];
    behind.split("\n## ").next().unwrap()
}
