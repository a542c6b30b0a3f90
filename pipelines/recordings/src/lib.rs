//! Research formats: WFDB signals and annotations
