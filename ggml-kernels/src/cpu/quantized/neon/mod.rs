//! The law with NEON: four rows of weights at a time, unpacked once for all rows of activations
//! beside them. `formats` and `low` have blocks of 256 in registers, `by_256` and `by_32` how four
//! rows of either kind meet the activations, `bytes` what multiplies: the dot products of the tier
//! `neon-dot`, what every NEON has in their place, and the matrix products of the tier `neon-i8mm`,
//! which take activations two rows at a time.

mod by_256;
mod by_32;
mod bytes;
mod formats;
mod low;

use std::arch::aarch64::*;

use crate::cpu::activations::QuantizedRow;
use crate::cpu::products::task::Task;
use crate::cpu::simd::neon::from_halves;
use crate::cpu::tier::Kind;
use crate::quant::TensorType;
use by_32::{Q4_0, Q8_0};
use bytes::{Bytes, Dot, Plain};
use formats::{Q4K, Q5K, Q6K};
use low::{Iq2S, Iq2Xs, Iq2Xxs, Iq3S, Iq3Xxs, Q2K, Q3K};

/// Rows of weights at a time.
const ROWS: usize = 4;
/// Rows of activations at a time, by dot products.
const FEW: usize = 4;
/// The same by matrix products.
const MANY: usize = 8;

/// Runs the task.
///
/// # Safety
/// The processor has the instructions of `kind`, a tier of NEON.
pub(crate) unsafe fn run(kind: Kind, task: &Task<'_>) {
    // SAFETY: the caller's promise, here and below.
    unsafe {
        match task.matrix.ty() {
            TensorType::Q4K => each::<Q4K>(kind, task),
            TensorType::Q5K => each::<Q5K>(kind, task),
            TensorType::Q6K => each::<Q6K>(kind, task),
            TensorType::Q2K => each::<Q2K>(kind, task),
            TensorType::Q3K => each::<Q3K>(kind, task),
            TensorType::Iq2Xxs => each::<Iq2Xxs>(kind, task),
            TensorType::Iq2Xs => each::<Iq2Xs>(kind, task),
            TensorType::Iq2S => each::<Iq2S>(kind, task),
            TensorType::Iq3Xxs => each::<Iq3Xxs>(kind, task),
            TensorType::Iq3S => each::<Iq3S>(kind, task),
            TensorType::Q8_0 => each::<Q8_0>(kind, task),
            _ => each::<Q4_0>(kind, task),
        }
    }
}

/// How four rows of a format meet rows of activations. Both functions must be inlined into one that
/// has the instructions.
trait Dots {
    /// A lane to each row of weights.
    ///
    /// # Safety
    /// The processor has NEON and what `B` takes; the rows of both sides have the same number of whole
    /// blocks.
    unsafe fn dots<B: Bytes, const C: usize>(
        rows: [&[u8]; ROWS],
        x: [QuantizedRow<'_>; C],
    ) -> [float32x4_t; C];

    /// The same by matrix products, each row of activations beside another.
    ///
    /// # Safety
    /// As above, with NEON's matrix products.
    unsafe fn pairs<const P: usize>(
        rows: [&[u8]; ROWS],
        x: [[QuantizedRow<'_>; 2]; P],
    ) -> [[float32x4_t; 2]; P];

    /// Row `at` of the activations in this format's form.
    fn row<'x>(task: &'x Task<'_>, at: usize) -> QuantizedRow<'x>;
}

unsafe fn each<F: Dots>(kind: Kind, task: &Task<'_>) {
    let most = if kind == Kind::NeonI8mm { MANY } else { FEW };
    let mut first = task.rows.start;
    // Four rows of weights stay in the nearest cache while all activations pass by.
    while first < task.rows.end {
        let end = (first + ROWS).min(task.rows.end);
        let group = Group { task, first, end };
        let pairs = task.input.chunks(most).zip(task.output.chunks(most));
        for (input, output) in pairs {
            // SAFETY: the caller's promise; a tier has the instructions of those before it.
            unsafe {
                match (kind, input.len()) {
                    (Kind::Neon, 1) => group.plain::<F, 1>(input, output),
                    (Kind::Neon, 2) => group.plain::<F, 2>(input, output),
                    (Kind::Neon, 3) => group.plain::<F, 3>(input, output),
                    (Kind::Neon, _) => group.plain::<F, 4>(input, output),
                    (_, 1) => group.dot::<F, 1>(input, output),
                    (Kind::NeonI8mm, 2) => group.i8mm::<F, 1>(input, output),
                    (Kind::NeonI8mm, 3..=4) => group.i8mm::<F, 2>(input, output),
                    (Kind::NeonI8mm, 5..=6) => group.i8mm::<F, 3>(input, output),
                    (Kind::NeonI8mm, _) => group.i8mm::<F, 4>(input, output),
                    (_, 2) => group.dot::<F, 2>(input, output),
                    (_, 3) => group.dot::<F, 3>(input, output),
                    (_, _) => group.dot::<F, 4>(input, output),
                }
            }
        }
        first = end;
    }
}

/// Four rows of a task, or what is left of them.
struct Group<'g> {
    task: &'g Task<'g>,
    first: usize,
    end: usize,
}

impl Group<'_> {
    #[target_feature(enable = "neon")]
    unsafe fn plain<F: Dots, const C: usize>(&self, input: &[u32], output: &[u32]) {
        // SAFETY: the caller's promise.
        unsafe { self.dots::<F, Plain, C>(input, output) }
    }

    #[target_feature(enable = "neon,dotprod")]
    unsafe fn dot<F: Dots, const C: usize>(&self, input: &[u32], output: &[u32]) {
        // SAFETY: as above.
        unsafe { self.dots::<F, Dot, C>(input, output) }
    }

    #[inline(always)]
    unsafe fn dots<F: Dots, B: Bytes, const C: usize>(&self, input: &[u32], output: &[u32]) {
        let x: [_; C] = std::array::from_fn(|c| F::row(self.task, input[c] as usize));
        let rows = self.task.matrix.rows_from::<ROWS>(self.first, self.end);
        // SAFETY: the caller's promise; a matrix's rows and the activations' have `cols` values.
        let dots = unsafe { F::dots::<B, C>(rows, x) };
        for (dots, &output) in dots.into_iter().zip(output) {
            self.put(dots, output);
        }
    }

    /// `2 P` rows of activations, or one less: the last one then meets itself.
    #[target_feature(enable = "neon,dotprod,i8mm")]
    unsafe fn i8mm<F: Dots, const P: usize>(&self, input: &[u32], output: &[u32]) {
        let row = |at: usize| F::row(self.task, input[at.min(input.len() - 1)] as usize);
        let x: [_; P] = std::array::from_fn(|p| [row(2 * p), row(2 * p + 1)]);
        let rows = self.task.matrix.rows_from::<ROWS>(self.first, self.end);
        // SAFETY: as above.
        let dots = unsafe { F::pairs::<P>(rows, x) };
        for (dots, &output) in dots.into_iter().flatten().zip(output) {
            self.put(dots, output);
        }
    }

    #[inline(always)]
    fn put(&self, dots: float32x4_t, output: u32) {
        let out = self.task.target.at(output, self.first..self.end);
        let mut values = [0f32; ROWS];
        // SAFETY: four floats, and a vector was made already.
        unsafe { vst1q_f32(values.as_mut_ptr(), dots) };
        out.copy_from_slice(&values[..self.end - self.first]);
    }
}

/// Across: the sum of the lanes of each.
#[inline(always)]
unsafe fn sums([a, b, c, d]: [int32x4_t; 4]) -> int32x4_t {
    // SAFETY: inlined where the processor has the instructions.
    unsafe { vpaddq_s32(vpaddq_s32(a, b), vpaddq_s32(c, d)) }
}

/// Four pairs of halves, one to a row: the first of each, the second of each.
#[inline(always)]
unsafe fn scale_pairs(pairs: [u32; ROWS]) -> [float32x4_t; 2] {
    // SAFETY: four words are one register; inlined where the processor has the instructions.
    unsafe {
        let v = vreinterpretq_u16_u32(vld1q_u32(pairs.as_ptr()));
        let (first, second) = (vuzp1q_u16(v, v), vuzp2q_u16(v, v));
        [
            from_halves(vget_low_u16(first)),
            from_halves(vget_low_u16(second)),
        ]
    }
}

/// Of four rows the first two twice each, then the others.
#[inline(always)]
unsafe fn by_two(v: float32x4_t) -> [float32x4_t; 2] {
    // SAFETY: inlined where the processor has the instructions.
    unsafe { [vzip1q_f32(v, v), vzip2q_f32(v, v)] }
}

/// The scales of two rows of activations by turns.
#[inline(always)]
unsafe fn scales_of(x: &[QuantizedRow<'_>; 2], at: usize) -> float32x4_t {
    // SAFETY: block `at` lies inside the rows, as the caller promises; inlined where the processor has
    // the instructions.
    unsafe {
        let [a, b] = [x[0].scales, x[1].scales].map(|scales| scales.as_ptr().add(at));
        vzip1q_f32(vld1q_dup_f32(a), vld1q_dup_f32(b))
    }
}

/// What two pairs of rows give with a pair of activations, `[row][activation]` each, to a lane for
/// each row.
#[inline(always)]
unsafe fn apart([a, b]: [float32x4_t; 2]) -> [float32x4_t; 2] {
    // SAFETY: inlined where the processor has the instructions.
    unsafe { [vuzp1q_f32(a, b), vuzp2q_f32(a, b)] }
}
