//! Labelled temperature and humidity of TelosB motes (Suthaharan, Alzahrani, Rajasegarar, Leckie, Palaniswami,
//! "Labelled data collection for anomaly detection in wireless sensor networks", ISSNIP 2010).
//!
//! # Format
//! CSV with the columns `reading`, `mote_id`, `indoor`, `humidity`, `temperature`, `label`. A reading's number counts in steps of
//! [`INTERVAL_S`]; there is no wall clock. Label 1 is an event that was introduced on purpose (hot steam at the mote).
//!
//! # Limits
//! [`MAX_READINGS`] in one table.

use crate::corpus::CaseId;
use std::collections::BTreeMap;

/// Seconds between readings.
pub const INTERVAL_S: f64 = 5.0;
/// The most rows of one table.
pub const MAX_READINGS: usize = 10_000_000;

const HEADER: &[u8] = b"reading,mote_id,indoor,humidity,temperature,label";

/// One row.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct MoteReading {
    /// Seconds since reading 0.
    pub time_s: f64,
    /// Relative humidity, corrected by temperature, in percent.
    pub humidity_percent: f32,
    /// In degrees Celsius.
    pub temperature_c: f32,
    /// Whether an introduced event was going on.
    pub event: bool,
}

/// One mote's readings, in order of the table.
#[derive(Clone, PartialEq, Debug)]
pub struct Mote {
    /// Names the mote by its rows.
    pub case: CaseId,
    /// Whether it stood indoors.
    pub indoor: bool,
    /// What it read.
    pub readings: Vec<MoteReading>,
}

/// Why a table is not readable.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SuthaharanError {
    /// Not a CSV with the columns that are needed.
    #[error("not a table of reading, mote_id, indoor, humidity, temperature, label: {0}")]
    Table(String),
    /// Over [`MAX_READINGS`].
    #[error("more than {MAX_READINGS} rows; split the table by mote")]
    TooMany,
}

/// Whether a file begins as such a table does.
pub fn is_suthaharan(bytes: &[u8]) -> bool {
    bytes.starts_with(HEADER)
}

/// The motes of a table, by their number.
///
/// # Errors
/// If the table is not readable or too long.
pub fn read(bytes: &[u8]) -> Result<Vec<Mote>, SuthaharanError> {
    if !is_suthaharan(bytes) {
        return Err(SuthaharanError::Table("other columns".into()));
    }
    let mut motes: BTreeMap<u32, (Mote, Vec<u8>)> = BTreeMap::new();
    let mut reader = csv::Reader::from_reader(bytes);
    for (at, row) in reader.deserialize().enumerate() {
        if at >= MAX_READINGS {
            return Err(SuthaharanError::TooMany);
        }
        let (reading, mote, indoor, humidity_percent, temperature_c, label): Row =
            row.map_err(|error| SuthaharanError::Table(error.to_string()))?;
        let (mote, rows) = motes.entry(mote).or_insert_with(|| {
            let mote = Mote { case: CaseId(0), indoor: indoor != 0, readings: Vec::new() };
            (mote, Vec::new())
        });
        let time_s = f64::from(reading) * INTERVAL_S;
        mote.readings.push(MoteReading {
            time_s,
            humidity_percent,
            temperature_c,
            event: label != 0,
        });
        for value in [reading as f32, humidity_percent, temperature_c] {
            rows.extend_from_slice(&value.to_le_bytes());
        }
    }
    let named = |(mote, rows): (Mote, Vec<u8>)| Mote { case: CaseId::of(&rows), ..mote };
    Ok(motes.into_values().map(named).collect())
}

type Row = (u32, u32, u8, f32, f32, u8);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_go_to_their_motes() {
        let table = "reading,mote_id,indoor,humidity,temperature,label\n\
            1,1,0,43.82,30.21,0\n2,1,0,43.79,30.2,1\n1,4,1,50,20,0\n";
        let motes = read(table.as_bytes()).unwrap();
        assert_eq!(motes.len(), 2);
        assert!(!motes[0].indoor && motes[1].indoor);
        let last = motes[0].readings[1];
        assert_eq!((last.time_s, last.humidity_percent, last.temperature_c), (10.0, 43.79, 30.2));
        assert!(last.event);
        // What a mote is called in the table does not name it.
        let renumbered = table.replace(",4,1,", ",7,1,");
        assert_eq!(read(renumbered.as_bytes()).unwrap()[1].case, motes[1].case);
    }

    #[test]
    fn another_table_is_refused() {
        assert!(matches!(read(b"a,b\n"), Err(SuthaharanError::Table(_))));
        let broken = [HEADER, b"\n1,x,0,1,1,0\n"].concat();
        assert!(matches!(read(&broken), Err(SuthaharanError::Table(_))));
    }
}
