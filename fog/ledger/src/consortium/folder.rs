//! A log as a folder of static files (C2SP tlog-tiles), for any web server.
//!
//! # Format
//! `checkpoint`, `tile/<level>/<index>[.p/<width>]` and `tile/entries/<index>[.p/<width>]`, of the tree that
//! the checkpoint speaks of. The partial forms of an earlier tree may lie beside them and are not read.
//!
//! Every file is written under another name, synced and renamed, and its folder synced; the checkpoint comes
//! last. So whatever happens in between, what the checkpoint there speaks of is there.

use super::tiles::{Published, Tiles, TilesError};
use crate::tree::{TILE_HEIGHT, TILE_WIDTH, hashes_at};
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use tlog_tiles::Tile;

/// Why a log was not written to a folder.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ExportError {
    /// The log.
    #[error(transparent)]
    Tiles(#[from] TilesError),
    /// Nothing has been published yet.
    #[error("the log has published nothing yet: there is nothing to export")]
    Nothing,
    /// The file system.
    #[error("{path}: {error}", path = .path.display())]
    File {
        /// Where.
        path: PathBuf,
        /// What it said.
        #[source]
        error: io::Error,
    },
}

impl Tiles {
    /// Writes the published log to `folder`. What is there already in full is not written again.
    ///
    /// # Errors
    /// If nothing is published, or the database or the file system fails. The checkpoint that was there
    /// before still holds then.
    pub fn export(&self, folder: &Path) -> Result<(), ExportError> {
        let Published { size, note } = self.published()?.ok_or(ExportError::Nothing)?;
        let file = |path: &Path, error| ExportError::File { path: path.to_owned(), error };
        for path in paths(size) {
            let target = folder.join(&path);
            if target.exists() {
                continue;
            }
            let bytes = self.resource(&path)?.ok_or(TilesError::Root)?;
            write_durably(&target, &bytes).map_err(|error| file(&target, error))?;
        }
        let target = folder.join("checkpoint");
        write_durably(&target, note.as_bytes()).map_err(|error| file(&target, error))
    }
}

/// Every file of a tree of `size` leaves but the checkpoint.
fn paths(size: u64) -> impl Iterator<Item = String> {
    let tiles_of = |hashes: u64| {
        (0..hashes.div_ceil(TILE_WIDTH))
            .map(move |index| (index, TILE_WIDTH.min(hashes - index * TILE_WIDTH)))
    };
    let entries = tiles_of(size).map(|(index, width)| entries_path(index, width));
    let levels = (0..).take_while(move |level| hashes_at(size, *level) > 0);
    let tiles = levels.flat_map(move |level| {
        tiles_of(hashes_at(size, level)).map(move |(index, width)| tile_path(level, index, width))
    });
    entries.chain(tiles)
}

/// The C2SP tlog-tiles path of a tile.
pub(super) fn tile_path(level: u8, index: u64, width: u64) -> String {
    // `tlog_tiles` writes Go's paths, with the height in front.
    let path = Tile::new(TILE_HEIGHT, level, index, width as u32, false).path();
    path.replacen(&format!("tile/{TILE_HEIGHT}/"), "tile/", 1)
}

/// The C2SP tlog-tiles path of a bundle.
pub(crate) fn entries_path(index: u64, width: u64) -> String {
    let path = Tile::new(TILE_HEIGHT, 0, index, width as u32, true).path();
    path.replacen(&format!("tile/{TILE_HEIGHT}/data/"), "tile/entries/", 1)
}

fn write_durably(target: &Path, bytes: &[u8]) -> io::Result<()> {
    let parent = target.parent().unwrap_or(Path::new("."));
    make_durably(parent)?;
    let mut unfinished = target.as_os_str().to_owned();
    unfinished.push(".new");
    let mut file = File::create(&unfinished)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&unfinished, target)?;
    File::open(parent)?.sync_all()
}

/// Makes a folder and those above it; that it is there is synced in the one above.
fn make_durably(folder: &Path) -> io::Result<()> {
    if folder.is_dir() {
        return Ok(());
    }
    let parent = folder.parent().filter(|parent| !parent.as_os_str().is_empty());
    let parent = parent.unwrap_or(Path::new("."));
    make_durably(parent)?;
    match fs::create_dir(folder) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    File::open(parent)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_those_of_the_specification() {
        assert_eq!(entries_path(273, 112), "tile/entries/273.p/112");
        assert_eq!(entries_path(1_234_067, 256), "tile/entries/x001/x234/067");
        let all: Vec<_> = paths(70_000).collect();
        assert_eq!(all.len(), 274 + 274 + 2 + 1);
        assert_eq!(
            all[274 + 273..][..4],
            ["tile/0/273.p/112", "tile/1/000", "tile/1/001.p/17", "tile/2/000.p/1"]
        );
    }
}
