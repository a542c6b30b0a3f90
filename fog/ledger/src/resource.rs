//! The paths of C2SP tlog-tiles.

use crate::tree::{TILE_HEIGHT, TILE_WIDTH};
use tlog_tiles::Tile;

/// The highest level that a path may name (C2SP tlog-tiles).
const MAX_LEVEL: u8 = 63;

/// What a path names.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Resource {
    Checkpoint,
    Tile { level: u8, index: u64, width: usize },
    Entries { index: u64, width: usize },
}

impl Resource {
    /// Reads a path without a leading slash; `None` unless it is the one canonical path of something.
    pub(crate) fn parse(path: &str) -> Option<Self> {
        if path == "checkpoint" {
            return Some(Self::Checkpoint);
        }
        let (kind, rest) = path.strip_prefix("tile/")?.split_once('/')?;
        // `tlog_tiles` reads Go's paths, which have the height in front and say "data" for entries.
        // It panics on the levels and widths that are refused here.
        let kind = match kind {
            "entries" => "data",
            level if level.parse::<u8>().ok()? <= MAX_LEVEL => level,
            _ => return None,
        };
        if let Some((_, width)) = rest.rsplit_once(".p/") {
            let width = width.parse::<u64>().ok()?;
            if !(1..TILE_WIDTH).contains(&width) {
                return None;
            }
        }
        let tile = Tile::from_path(&format!("tile/{TILE_HEIGHT}/{kind}/{rest}")).ok()?;
        let (index, width) = (tile.level_index(), tile.width() as usize);
        Some(if tile.is_data() {
            Self::Entries { index, width }
        } else {
            Self::Tile { level: tile.level(), index, width }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_paths_of_the_specification() {
        let parse = Resource::parse;
        assert_eq!(parse("checkpoint"), Some(Resource::Checkpoint));
        assert_eq!(
            parse("tile/0/x001/x234/067"),
            Some(Resource::Tile { level: 0, index: 1_234_067, width: 256 })
        );
        assert_eq!(parse("tile/2/000.p/1"), Some(Resource::Tile { level: 2, index: 0, width: 1 }));
        assert_eq!(
            parse("tile/entries/273.p/112"),
            Some(Resource::Entries { index: 273, width: 112 })
        );
    }

    #[test]
    fn other_spellings_name_nothing() {
        for path in [
            "",
            "/checkpoint",
            "checkpoint/",
            "tile",
            "tile/",
            "tile/0",
            "tile/0/",
            "tile/0/0",
            "tile/0/0000",
            "tile/00/000",
            "tile/+0/000",
            "tile/64/000",
            "tile/255/000",
            "tile/data/000",
            "tile/8/0/000",
            "tile/0/000.p/0",
            "tile/0/000.p/00",
            "tile/0/000.p/256",
            "tile/0/000.p/01",
            "tile/0/000.p/",
            "tile/0/001/000",
            "tile/0/x000/000",
            "tile/0/xx01/000",
            "tile/0/000.p/1.p/1",
            "tile/0/../000",
            "tile/entries/entries",
            "tile/0/000.p/000.p/1",
        ] {
            assert_eq!(Resource::parse(path), None, "{path}");
        }
    }

    proptest! {
        #[test]
        fn no_path_panics(path in "(tile/)?[0-9x/.pdatenris]{0,40}") {
            let _ = Resource::parse(&path);
        }
    }
}
