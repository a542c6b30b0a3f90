//! WFDB records: a header (`.hea`), signal files (`.dat`, `.mat`) and annotations (`.atr`, …).
//!
//! **Why not a crate.** `wfdb` 0.1.6 decodes the signal formats, but has no annotations, does not verify
//! the header's checksums, and gives a truncated file back as a shorter one without a word. Evaluation
//! must not run on half a recording, so these few hundred lines are our own.
//!
//! **Format.** WFDB Applications Guide: header(5), signal(5), annot(5). Read here: single-segment
//! records; signal formats 16 (two's complement, little-endian) and 212 (pairs of 12 bits in three
//! bytes), several signals interleaved in one file, a byte offset in front of the samples; annotations in
//! the MIT format with SKIP, NUM, SUB, CHN and AUX. Refused with an error that says so: other formats,
//! multi-segment records, several samples per frame, and skew.
//!
//! **Limits.** [`MAX_HEADER_BYTES`], [`MAX_SIGNALS`], [`MAX_VALUES`], [`MAX_ANNOTATION_BYTES`],
//! [`MAX_RECORDS`].
//!
//! **Trust.** The files are outside data. A header may name files only in its own folder. Every length is
//! checked before it is used, and a signal file must hold what the header promises, with the checksum that
//! the header gives (a sum of 16 bits: it finds accidents, not intent).
//!
//! **Not guaranteed.** A header's initial values are not compared with the samples (565 published
//! headers of the 2017 challenge have them wrong). Annotation times are in the ticks of their file, which
//! for every PhysioNet arrhythmia database are the record's samples.

mod annotation;
mod header;
mod record;
mod write;

pub use annotation::{Annotation, AnnotationError, MAX_ANNOTATION_BYTES, read_annotations};
pub use header::{
    BaseDate, BaseTime, Format, Header, HeaderProblem, MAX_HEADER_BYTES, MAX_SIGNALS, SignalSpec,
};
pub use record::{FindError, MAX_RECORDS, MAX_VALUES, Record, RecordError, find_records};
pub use write::{WriteError, write_record};
