//! The stays that sepsis is trained and evaluated on.

use crate::failure::Failure;
use haar_inference::sepsis::Case;
use haar_recordings::cinc2019::{EXTENSION, read_stay};
use haar_recordings::corpus::Corpus;
use std::path::Path;

/// What files that lie in no folder are reported under.
const NO_FOLDER: &str = "files";

/// The stays under a folder or in its archives, in order of their paths, by the folder they lie in; with `groups` only those in
/// folders of these names.
pub(crate) fn read_cases(data: &Path, groups: &[String]) -> Result<Vec<Case>, Failure> {
    let taken = |path: &str| {
        path.ends_with(EXTENSION)
            && (groups.is_empty() || groups.iter().any(|group| group == group_of(path)))
    };
    let corpus = Corpus::open(data, "a .psv file of the CinC 2019 challenge", taken)?;
    corpus
        .into_iter()
        .map(|file| {
            let stay = read_stay(&file.bytes)
                .map_err(|error| Failure::usage(format!("{}: {error}", file.path)))?;
            Ok(Case { id: file.case(), group: group_of(&file.path).to_owned(), stay })
        })
        .collect()
}

/// The folder that a file lies in.
fn group_of(path: &str) -> &str {
    path.rsplit('/').nth(1).filter(|name| *name != ".").unwrap_or(NO_FOLDER)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stays_are_grouped_by_folder() {
        for (path, group) in [
            ("./training_setA/p1.psv", "training_setA"),
            ("x/training_setB/p1.psv", "training_setB"),
            ("./p1.psv", NO_FOLDER),
            ("p1.psv", NO_FOLDER),
        ] {
            assert_eq!(group_of(path), group);
        }
        let folder = tempfile::tempdir().unwrap();
        let error = read_cases(folder.path(), &[]).unwrap_err().to_string();
        assert!(error.contains("CinC 2019"), "{error}");
        std::fs::write(folder.path().join("p.psv"), "HR|Temp\n1|2\n").unwrap();
        let error = read_cases(folder.path(), &[]).unwrap_err().to_string();
        assert!(error.contains("p.psv: no column `O2Sat`"), "{error}");
    }
}
