//! The product of matrices that [`crate::Convolution`] is made of.
//!
//! A block of up to [`BLOCK_ROWS`] (with AVX-512 [`WIDE_BLOCK_ROWS`]) rows by [`PANEL`] columns is summed in registers while the right matrix streams by in
//! panels of just that width (Goto, van de Geijn, "Anatomy of high-performance matrix multiplication", ACM TOMS 34(3),
//! 2008). The left matrix may overlap itself, row upon row: that is what makes a convolution a product without
//! copying its windows apart.
//!
//! Every element is one sum in the order of the inner index, whichever block it falls into: neither the number of rows
//! nor their neighbours change its bits. Processors with and without fused multiplication differ in the last bits.

use pulp::{Arch, Simd, WithSimd};

/// Columns that are summed at once: one register of AVX-512, two of AVX, four of NEON.
pub(crate) const PANEL: usize = 16;
/// Rows that are summed at once: with two registers each, twelve of AVX's sixteen.
const BLOCK_ROWS: usize = 6;
/// The same with one register each, of AVX-512's thirty-two: enough sums for none to wait for its last one.
const WIDE_BLOCK_ROWS: usize = 12;

/// The left matrix: element (row, inner) is `values[row * row_step + inner * inner_step]`.
#[derive(Clone, Copy)]
pub(crate) struct Left<'a> {
    pub(crate) values: &'a [f32],
    pub(crate) rows: usize,
    pub(crate) row_step: usize,
    pub(crate) inner: usize,
    pub(crate) inner_step: usize,
}

/// The right matrix, cut into panels of [`PANEL`] columns, the last one filled up with zeros.
#[derive(Clone, Debug)]
pub(crate) struct Panels {
    values: Vec<f32>,
    inner: usize,
    columns: usize,
}

impl Panels {
    /// From a matrix whose element (inner, column) `at` gives.
    pub(crate) fn new(inner: usize, columns: usize, at: impl Fn(usize, usize) -> f32) -> Self {
        let mut values = vec![0.0; inner * columns.next_multiple_of(PANEL)];
        for (panel, chunk) in values.chunks_exact_mut((inner * PANEL).max(1)).enumerate() {
            for (row, chunk) in chunk.chunks_exact_mut(PANEL).enumerate() {
                for (column, value) in (panel * PANEL..columns).zip(chunk) {
                    *value = at(row, column);
                }
            }
        }
        Self { values, inner, columns }
    }
}

/// `out = left * right + bias`, rows one behind the other, below zero cut off if `relu`. NaN stays NaN.
///
/// Sizes must fit: `bias` has a value by column, `out` rows × columns, and there is at
/// least one inner element.
pub(crate) fn product(
    arch: Arch,
    left: Left<'_>,
    right: &Panels,
    bias: Option<&[f32]>,
    relu: bool,
    out: &mut [f32],
) {
    assert_eq!(left.inner, right.inner);
    assert_eq!(out.len(), left.rows * right.columns);
    if left.inner_step == 1 {
        arch.dispatch(Product::<'_, true> { left, right, bias, relu, out });
    } else {
        arch.dispatch(Product::<'_, false> { left, right, bias, relu, out });
    }
}

/// `DENSE`: the left matrix's rows are without holes.
struct Product<'a, const DENSE: bool> {
    left: Left<'a>,
    right: &'a Panels,
    bias: Option<&'a [f32]>,
    relu: bool,
    out: &'a mut [f32],
}

impl<const DENSE: bool> WithSimd for Product<'_, DENSE> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        match S::F32_LANES {
            4 => self.run::<S, 4>(simd),
            8 => self.run::<S, 2>(simd),
            16 => self.run::<S, 1>(simd),
            _ => self.run::<pulp::Scalar, PANEL>(pulp::Scalar),
        }
    }
}

impl<const DENSE: bool> Product<'_, DENSE> {
    /// `V` registers make a panel.
    #[inline(always)]
    fn run<S: Simd, const V: usize>(self, simd: S) {
        let Self { left, right, bias, relu, out } = self;
        let columns = right.columns;
        let panels = right.values.chunks_exact((right.inner * PANEL).max(1));
        for (panel, first_column) in panels.zip((0..columns).step_by(PANEL)) {
            let width = PANEL.min(columns - first_column);
            let mut start = [0.0; PANEL];
            if let Some(bias) = bias {
                start[..width].copy_from_slice(&bias[first_column..first_column + width]);
            }
            let mut first_row = 0;
            // Blocks of nearly one size: a last block of a single row would wait for its own sums.
            let most = if V == 1 { WIDE_BLOCK_ROWS } else { BLOCK_ROWS };
            for blocks in (1..=left.rows.div_ceil(most)).rev() {
                let rows = (left.rows - first_row).div_ceil(blocks);
                let block = Block { left, first_row, panel, start, relu };
                let out = &mut out[first_row * columns + first_column..];
                match rows {
                    1 => block.run::<S, V, 1, DENSE>(simd, out, columns, width),
                    2 => block.run::<S, V, 2, DENSE>(simd, out, columns, width),
                    3 => block.run::<S, V, 3, DENSE>(simd, out, columns, width),
                    4 => block.run::<S, V, 4, DENSE>(simd, out, columns, width),
                    5 => block.run::<S, V, 5, DENSE>(simd, out, columns, width),
                    6 => block.run::<S, V, 6, DENSE>(simd, out, columns, width),
                    7 => block.run::<S, V, 7, DENSE>(simd, out, columns, width),
                    8 => block.run::<S, V, 8, DENSE>(simd, out, columns, width),
                    9 => block.run::<S, V, 9, DENSE>(simd, out, columns, width),
                    10 => block.run::<S, V, 10, DENSE>(simd, out, columns, width),
                    11 => block.run::<S, V, 11, DENSE>(simd, out, columns, width),
                    _ => block.run::<S, V, 12, DENSE>(simd, out, columns, width),
                }
                first_row += rows;
            }
        }
    }
}

struct Block<'a> {
    left: Left<'a>,
    first_row: usize,
    panel: &'a [f32],
    start: [f32; PANEL],
    relu: bool,
}

impl Block<'_> {
    #[inline(always)]
    fn run<S: Simd, const V: usize, const ROWS: usize, const DENSE: bool>(
        &self,
        simd: S,
        out: &mut [f32],
        columns: usize,
        width: usize,
    ) {
        let Left { values, row_step, inner, inner_step, .. } = self.left;
        let reach = if DENSE { inner } else { inner.saturating_sub(1) * inner_step + 1 };
        let rows: [&[f32]; ROWS] = std::array::from_fn(|row| {
            let from = (self.first_row + row) * row_step;
            &values[from..from + reach]
        });
        let (start, _) = S::as_simd_f32s(&self.start);
        let mut sums: [[S::f32s; V]; ROWS] = [std::array::from_fn(|lane| start[lane]); ROWS];
        let (panel, _) = S::as_simd_f32s(self.panel);
        let panel = &panel.as_chunks::<V>().0[..inner];
        for at in 0..inner {
            let right = panel[at];
            for (sums, row) in sums.iter_mut().zip(rows) {
                let left = simd.splat_f32s(row[if DENSE { at } else { at * inner_step }]);
                for (sum, right) in sums.iter_mut().zip(right) {
                    *sum = simd.mul_add_f32s(left, right, *sum);
                }
            }
        }
        let zero = simd.splat_f32s(0.0);
        let mut row = [0.0; PANEL];
        for (sums, out) in sums.iter().zip(out.chunks_mut(columns)) {
            let (parts, _) = S::as_mut_simd_f32s(&mut row);
            for (part, sum) in parts.iter_mut().zip(sums) {
                let below = simd.less_than_f32s(*sum, zero);
                *part = if self.relu { simd.select_f32s(below, zero, *sum) } else { *sum };
            }
            out[..width].copy_from_slice(&row[..width]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rand::{RngExt, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn it_is_the_product(rows in 0_usize..40, inner in 1_usize..30, columns in 1_usize..40, step in 1_usize..4, seed: u64) {
            let mut rng = ChaCha8Rng::seed_from_u64(seed);
            let mut random = |count: usize| -> Vec<f32> { (0..count).map(|_| rng.random_range(-1.0..1.0)).collect() };
            let (values, right, bias) = (random(rows * 5 + inner * step + 1), random(inner * columns), random(columns));
            let left = Left { values: &values, rows, row_step: 5, inner, inner_step: step };
            let panels = Panels::new(inner, columns, |row, column| right[row * columns + column]);
            let mut out = vec![f32::NAN; rows * columns];
            product(Arch::new(), left, &panels, Some(&bias), true, &mut out);
            for (at, out) in out.iter().enumerate() {
                let (row, column) = (at / columns, at % columns);
                let sum: f32 = (0..inner).map(|i| values[row * 5 + i * step] * right[i * columns + column]).sum();
                prop_assert!((out - (sum + bias[column]).max(0.0)).abs() < 1e-4);
            }
            // Without bias and cut, one row at a time.
            let mut alone = vec![f32::NAN; columns];
            product(Arch::new(), left, &panels, None, false, &mut out);
            for (row, out) in out.chunks(columns).enumerate() {
                let left = Left { values: &values[row * 5..], rows: 1, ..left };
                product(Arch::new(), left, &panels, None, false, &mut alone);
                prop_assert_eq!(out, &alone);
            }
        }
    }

    #[test]
    fn what_is_no_number_stays_none() {
        let left = Left { values: &[f32::NAN], rows: 1, row_step: 1, inner: 1, inner_step: 1 };
        let mut out = [0.0];
        product(Arch::new(), left, &Panels::new(1, 1, |_, _| 1.0), None, true, &mut out);
        assert!(out[0].is_nan());
    }
}
