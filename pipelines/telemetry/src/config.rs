//! Reading a node's one configuration file: TOML of bounded length. What its keys mean is the node's.

use serde::de::DeserializeOwned;
use std::path::{Path, PathBuf};

/// The longest configuration file, in bytes.
pub const MAX_CONFIG_BYTES: u64 = 1 << 20;

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read the configuration {path}: {error}", path = .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        error: std::io::Error,
    },
    /// The file is larger than any configuration.
    #[error("{path} has {bytes} bytes; a configuration has at most {MAX_CONFIG_BYTES}", path = .path.display())]
    TooLong {
        /// The file.
        path: PathBuf,
        /// Its length.
        bytes: u64,
    },
    /// Not the TOML of a configuration; the text names line, column and key.
    #[error("{path}: {error}\n{example} shows every key", path = .path.display())]
    Syntax {
        /// The file.
        path: PathBuf,
        /// The example that documents every key.
        example: &'static str,
        /// What is wrong.
        #[source]
        error: Box<toml::de::Error>,
    },
    /// A value that makes no sense.
    #[error("{key} {problem}")]
    Value {
        /// The key.
        key: &'static str,
        /// What is wrong, and what to write.
        problem: String,
    },
}

/// Reads the file `path`, of which `example` documents every key. Relative paths in it are not resolved here.
///
/// # Errors
/// If it cannot be read, is too long, or is not such a configuration.
pub fn read_config<T: DeserializeOwned>(
    path: &Path,
    example: &'static str,
) -> Result<T, ConfigError> {
    let read = |error| ConfigError::Read { path: path.to_owned(), error };
    let bytes = std::fs::metadata(path).map_err(read)?.len();
    if bytes > MAX_CONFIG_BYTES {
        return Err(ConfigError::TooLong { path: path.to_owned(), bytes });
    }
    let text = std::fs::read_to_string(path).map_err(read)?;
    let syntax =
        |error| ConfigError::Syntax { path: path.to_owned(), example, error: Box::new(error) };
    toml::from_str(&text).map_err(syntax)
}
