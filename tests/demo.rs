//! The demo, as somebody runs it who has just cloned the repository: what it prints can be pasted, and a second run in the same folder works.

use crate::programs;
use std::path::Path;
use std::process::{Command, Output};

fn demo(dir: &Path, seconds: &str) -> String {
    let shown = Command::new(programs::own("haar"))
        .args(["demo", "--seconds", seconds, "--dir"])
        .arg(dir)
        .output()
        .unwrap();
    let (out, err) =
        (String::from_utf8_lossy(&shown.stdout), String::from_utf8_lossy(&shown.stderr));
    assert!(shown.status.success(), "{out}{err}");
    assert!(out.ends_with("\nnothing lost, every proof holds\n"), "{out}");
    assert!(!err.contains("ERROR"), "{err}");
    out.into_owned()
}

/// Runs the line that begins so, as a shell does.
fn pasted(printed: &str, head: &str) -> Output {
    let line = printed.lines().find_map(|line| line.strip_prefix(head)).unwrap();
    Command::new("sh").args(["-c", line]).output().unwrap()
}

#[test]
fn what_the_demo_prints_can_be_pasted() {
    let folder = tempfile::tempdir().unwrap();
    let printed = demo(folder.path(), "8");
    let members = printed.lines().find(|line| line.starts_with("members ")).unwrap();
    let words: Vec<&str> = members.split_ascii_whitespace().collect();
    let [_, witnessed, "of", leaves, "leaves", ..] = words[..] else { panic!("{members}") };
    let [witnessed, leaves] = [witnessed, leaves].map(|word| word.parse::<u64>().unwrap());
    // An alarm may take a step after the members were asked last.
    assert!(witnessed > 100 && leaves - witnessed < 20, "{members}");
    for head in ["a proof   ", "witnessed ", "the log   "] {
        let done = pasted(&printed, head);
        let said = String::from_utf8_lossy(&done.stdout);
        assert!(done.status.success() && said.contains("PASS"), "{head}: {done:?}");
        if head.starts_with("witnessed") {
            assert!(said.matches("  witness  ").count() >= 3, "{said}");
            assert!(!said.contains("NOT PINNED"), "{said}");
        }
    }
    for (head, file) in [("a proof   ", "flag"), ("witnessed ", "witnessed")] {
        let path = folder.path().join(format!("{file}.tlog-proof"));
        let mut bytes = std::fs::read(&path).unwrap();
        // In the line behind the head: what the proof opens.
        let at = bytes.iter().position(|byte| *byte == b'\n').unwrap() + 40;
        bytes[at] ^= 1;
        std::fs::write(&path, bytes).unwrap();
        assert!(!pasted(&printed, head).status.success(), "{head}");
    }
    demo(folder.path(), "3");
}
