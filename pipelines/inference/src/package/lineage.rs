//! Whom a model was trained on.

use candle_core::{DType, Device, Tensor};
use haar_recordings::corpus::CaseId;
use std::collections::BTreeMap;

const CASE: &str = "lineage.case";
const FOLD: &str = "lineage.fold";

/// The patients' files that a model was trained on, by content, and the fold that each was in. The member with the
/// fold's number has not seen it.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Lineage(BTreeMap<CaseId, u8>);

impl Lineage {
    /// Of files and their folds.
    pub fn new(folds: impl IntoIterator<Item = (CaseId, u8)>) -> Self {
        Self(folds.into_iter().collect())
    }

    /// The member that was trained without this file; `None` if no member was trained with it.
    pub fn held_out_by(&self, case: CaseId) -> Option<usize> {
        self.0.get(&case).map(|fold| usize::from(*fold))
    }

    /// Files in it.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether no file is in it.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Which of `members` numbers to ask about a file: the one that has not seen it, or all.
    pub fn members_for(&self, case: CaseId, members: usize) -> std::ops::Range<usize> {
        match self.held_out_by(case) {
            Some(member) if member < members => member..member + 1,
            _ => 0..members,
        }
    }

    /// As tensors.
    pub(super) fn tensors(&self) -> candle_core::Result<[(String, Tensor); 2]> {
        // The bits of the id; safetensors of candle have no u64.
        let cases: Vec<i64> = self.0.keys().map(|case| case.0.cast_signed()).collect();
        let folds: Vec<u8> = self.0.values().copied().collect();
        let length = self.0.len();
        Ok([
            (CASE.into(), Tensor::from_vec(cases, length, &Device::Cpu)?),
            (FOLD.into(), Tensor::from_vec(folds, length, &Device::Cpu)?),
        ])
    }

    /// Takes the lineage out of a file's tensors; the name of one that does not fit.
    pub(super) fn take_from(tensors: &mut BTreeMap<String, Tensor>) -> Result<Self, String> {
        let (Some(cases), Some(folds)) = (tensors.remove(CASE), tensors.remove(FOLD)) else {
            return Err(CASE.into());
        };
        if cases.dtype() != DType::I64 || folds.dtype() != DType::U8 || cases.dims() != folds.dims()
        {
            return Err(FOLD.into());
        }
        let cases = cases.to_vec1::<i64>().map_err(|_| CASE.to_owned())?;
        let folds = folds.to_vec1::<u8>().map_err(|_| FOLD.to_owned())?;
        Ok(Self::new(cases.into_iter().map(|bits| CaseId(bits.cast_unsigned())).zip(folds)))
    }
}
