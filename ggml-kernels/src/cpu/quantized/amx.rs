//! The law with tiles of AMX, for many rows of activations and weights of a K type. A weight times
//! its group's scale is a number of 16 bits; its low and its high byte are two tiles, so that the
//! exact sum of a whole block of 256 comes out of the tile unit in two halves and is turned into
//! floats once, thirty-two rows of weights by sixteen of activations at a time.

mod tiles;

use std::arch::x86_64::*;
use std::cell::RefCell;

use super::avx512::{Format, Q4K, Q5K, Q6K};
use crate::cpu::activations::QuantizedRow;
use crate::cpu::products::task::Task;
use crate::quant::TensorType;
use tiles::Tiles;

/// Rows of activations to a tile.
const TOKENS: usize = 16;
/// Rows of weights to a tile, and how many tiles of them share one of activations.
const ROWS: usize = 16;
const GROUPS: usize = 2;
/// Fewer rows of activations than this do not repay the unpacking.
pub(crate) const LEAST: usize = 8;

/// A tile: four values of a row of weights to a word, sixteen words of sixteen rows.
type Tile = [u8; 1024];

/// One block of 256 of [`GROUPS`] x [`ROWS`] rows of weights.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Weights {
    /// Unsigned low bytes of each 64 values.
    low: [[Tile; 4]; GROUPS],
    /// Signed high bytes.
    high: [[Tile; 4]; GROUPS],
    /// Minima `2 p` and `2 p + 1` of each row.
    mins: [[[[i16; 2]; ROWS]; 4]; GROUPS],
    d: [[f32; ROWS]; GROUPS],
    dmin: [[f32; ROWS]; GROUPS],
}

/// Sums of low and of high bytes: `[group][token][row]`.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Sums {
    low: [[[i32; ROWS]; TOKENS]; GROUPS],
    high: [[[i32; ROWS]; TOKENS]; GROUPS],
}

impl Weights {
    const NONE: Weights = Weights {
        low: [[[0; 1024]; 4]; GROUPS],
        high: [[[0; 1024]; 4]; GROUPS],
        mins: [[[[0; 2]; ROWS]; 4]; GROUPS],
        d: [[0.0; ROWS]; GROUPS],
        dmin: [[0.0; ROWS]; GROUPS],
    };
}

impl Sums {
    const NONE: Sums = Sums {
        low: [[[0; ROWS]; TOKENS]; GROUPS],
        high: [[[0; ROWS]; TOKENS]; GROUPS],
    };
}

/// What a worker keeps.
#[derive(Default)]
struct Scratch {
    weights: Vec<Weights>,
    /// Rows of activations that do not follow each other, brought together.
    values: Vec<i8>,
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

/// Who multiplies tiles.
trait Unit {
    /// The sums of a block of 256: token `t`'s values are at `values[t * stride..]`.
    fn multiply(&self, values: &[i8], stride: usize, weights: &Weights, sums: &mut Sums);
}

/// Runs the task, whose weights are of a K type.
///
/// # Safety
/// The processor has the instructions of the tier `amx`, and this process may use tiles.
pub(crate) unsafe fn many(task: &Task<'_>) {
    // SAFETY: the caller's promise.
    let tiles = unsafe { Tiles::configure() };
    // SAFETY: as above; the kind with tiles has the instructions of AVX-512.
    unsafe { by_type(task, &tiles) };
}

/// # Safety
/// The processor has the instructions of the tier `avx512`.
unsafe fn by_type<U: Unit>(task: &Task<'_>, unit: &U) {
    SCRATCH.with_borrow_mut(|scratch| {
        // SAFETY: the caller's promise.
        unsafe {
            match task.matrix.ty() {
                TensorType::Q4K => strips::<Q4K, U>(task, unit, scratch),
                TensorType::Q5K => strips::<Q5K, U>(task, unit, scratch),
                _ => strips::<Q6K, U>(task, unit, scratch),
            }
        }
    });
}

/// # Safety
/// The processor has the instructions of the tier `avx512`.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx512vbmi,avx2,fma,f16c")]
unsafe fn strips<F: Format, U: Unit>(task: &Task<'_>, unit: &U, scratch: &mut Scratch) {
    let blocks = task.matrix.cols() / 256;
    scratch.weights.resize(blocks, Weights::NONE);
    scratch.values.resize(TOKENS * task.matrix.cols(), 0);
    for first in task.rows.clone().step_by(GROUPS * ROWS) {
        for (at, weights) in scratch.weights.iter_mut().enumerate() {
            for group in 0..GROUPS {
                let first = first + group * ROWS;
                let rows = task.matrix.rows_from::<ROWS>(first, task.rows.end);
                // SAFETY: the caller's promise; `at` is a block of every row.
                unsafe { unpack::<F>(rows, at, weights, group) };
            }
        }
        let pairs = task.input.chunks(TOKENS).zip(task.output.chunks(TOKENS));
        for (input, output) in pairs {
            strip::<F, U>(task, unit, scratch, first, input, output);
        }
    }
}

/// The rows of weights in `scratch`, from `first` on, times up to [`TOKENS`] rows of activations.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx512vbmi,avx2,fma,f16c")]
fn strip<F: Format, U: Unit>(
    task: &Task<'_>,
    unit: &U,
    scratch: &mut Scratch,
    first: usize,
    input: &[u32],
    output: &[u32],
) {
    let activations = task.activations.by_256();
    let cols = task.matrix.cols();
    let x = |t: usize| activations.row(input[t] as usize);
    let follow = input.windows(2).all(|pair| pair[0] + 1 == pair[1]);
    let values = if follow && input.len() == TOKENS {
        activations.rows_from(input[0] as usize)
    } else {
        let rows = scratch.values.chunks_exact_mut(cols.max(1));
        for (t, values) in rows.take(input.len()).enumerate() {
            values.copy_from_slice(x(t).values);
        }
        &scratch.values
    };
    let mut sums = Sums::NONE;
    let mut a = [[[0f32; ROWS]; TOKENS]; GROUPS];
    let mut b = [[[0f32; ROWS]; TOKENS]; GROUPS];
    for (at, weights) in scratch.weights.iter().enumerate() {
        unit.multiply(&values[at * 256..], cols, weights, &mut sums);
        for t in 0..input.len() {
            let x = x(t);
            for group in 0..GROUPS {
                let (a, b) = (&mut a[group][t], &mut b[group][t]);
                fold::<F>(weights, &sums, (group, t), at, x, a, b);
            }
        }
    }
    for (t, &output) in output.iter().enumerate() {
        for group in 0..GROUPS {
            let start = first + group * ROWS;
            let rows = start..(start + ROWS).min(task.rows.end);
            if rows.is_empty() {
                continue;
            }
            let pairs = a[group][t].iter().zip(&b[group][t]);
            for (out, (a, b)) in task.target.at(output, rows).iter_mut().zip(pairs) {
                *out = if F::MINS { a - b } else { *a };
            }
        }
    }
}

/// Adds what block `at` gives sixteen rows of weights and one of activations.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx512vbmi,avx2,fma,f16c")]
#[inline]
fn fold<F: Format>(
    weights: &Weights,
    sums: &Sums,
    (group, t): (usize, usize),
    at: usize,
    x: QuantizedRow<'_>,
    a: &mut [f32; ROWS],
    b: &mut [f32; ROWS],
) {
    let scale = _mm512_set1_ps(x.scales[at]);
    let (low, high) = (
        integers(&sums.low[group][t]),
        integers(&sums.high[group][t]),
    );
    let whole = _mm512_add_epi32(low, _mm512_slli_epi32::<8>(high));
    let d = _mm512_mul_ps(floats(&weights.d[group]), scale);
    let sum = _mm512_fmadd_ps(d, _mm512_cvtepi32_ps(whole), floats(a));
    store(a, sum);
    if F::MINS {
        let pairs = x.sums_32[at * 8..(at + 1) * 8].as_chunks::<2>().0;
        let mut least = _mm512_setzero_si512();
        for (mins, [low, high]) in weights.mins[group].iter().zip(pairs) {
            let pair = _mm512_set1_epi32(i32::from(*high) << 16 | i32::from(*low as u16));
            // SAFETY: sixteen pairs of 16 bits are one vector.
            let mins = unsafe { _mm512_loadu_si512(mins.as_ptr().cast()) };
            least = _mm512_dpwssd_epi32(least, mins, pair);
        }
        let dmin = _mm512_mul_ps(floats(&weights.dmin[group]), scale);
        let sum = _mm512_fmadd_ps(dmin, _mm512_cvtepi32_ps(least), floats(b));
        store(b, sum);
    }
}

#[target_feature(enable = "avx512f")]
#[inline]
fn integers(x: &[i32; 16]) -> __m512i {
    // SAFETY: sixteen words are one vector.
    unsafe { _mm512_loadu_si512(x.as_ptr().cast()) }
}

#[target_feature(enable = "avx512f")]
#[inline]
fn floats(x: &[f32; 16]) -> __m512 {
    // SAFETY: sixteen floats are one vector.
    unsafe { _mm512_loadu_ps(x.as_ptr()) }
}

#[target_feature(enable = "avx512f")]
#[inline]
fn store(x: &mut [f32; 16], v: __m512) {
    // SAFETY: sixteen floats are one vector.
    unsafe { _mm512_storeu_ps(x.as_mut_ptr(), v) };
}

/// Block `at` of sixteen rows.
///
/// # Safety
/// The processor has the instructions of the tier `avx512`, and every row has that block.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx512vbmi,avx2,fma,f16c")]
unsafe fn unpack<F: Format>(rows: [&[u8]; ROWS], at: usize, to: &mut Weights, group: usize) {
    let none = _mm512_setzero_si512();
    let mut low = [[none; ROWS]; 4];
    let mut high = [[none; ROWS]; 4];
    let zero = _mm512_set1_epi16(if F::MINS { 0 } else { 32 });
    let byte = _mm512_set1_epi16(0xff);
    for (r, row) in rows.iter().enumerate() {
        let block = &row[at * F::BYTES..(at + 1) * F::BYTES];
        // SAFETY: a whole block; inlined here, where the instructions are.
        let block = unsafe { F::load(block.as_ptr()) };
        for g in 0..4 {
            // The scale of four values, for both pairs of them.
            let scale = block.scales[g];
            let scale = _mm512_or_si512(scale, _mm512_slli_epi32::<16>(scale));
            let times = |q| _mm512_mullo_epi16(_mm512_sub_epi16(q, zero), scale);
            let even = times(_mm512_and_si512(block.q[g], byte));
            let odd = times(_mm512_srli_epi16::<8>(block.q[g]));
            low[g][r] = _mm512_or_si512(_mm512_and_si512(even, byte), _mm512_slli_epi16::<8>(odd));
            let odd = _mm512_andnot_si512(byte, odd);
            high[g][r] = _mm512_or_si512(_mm512_srli_epi16::<8>(even), odd);
        }
        let half = |bits: u32| half::f16::from_bits(bits as u16).to_f32();
        to.d[group][r] = half(block.pair);
        if F::MINS {
            to.dmin[group][r] = half(block.pair >> 16);
            let mut mins = [0i16; 16];
            // SAFETY: sixteen values of 16 bits are one vector.
            unsafe { _mm256_storeu_si256(mins.as_mut_ptr().cast(), block.sides) };
            for (to, pair) in to.mins[group].iter_mut().zip(mins.as_chunks::<2>().0) {
                to[r] = *pair;
            }
        }
    }
    for g in 0..4 {
        transpose(&low[g], &mut to.low[group][g]);
        transpose(&high[g], &mut to.high[group][g]);
    }
}

/// Word `w` of row `r` becomes word `r` of row `w`.
#[target_feature(enable = "avx512f")]
fn transpose(rows: &[__m512i; 16], to: &mut Tile) {
    let mut pairs = *rows;
    for i in (0..16).step_by(2) {
        pairs[i] = _mm512_unpacklo_epi32(rows[i], rows[i + 1]);
        pairs[i + 1] = _mm512_unpackhi_epi32(rows[i], rows[i + 1]);
    }
    let mut fours = pairs;
    for i in (0..16).step_by(4) {
        for (h, half) in [pairs[i], pairs[i + 1]].into_iter().enumerate() {
            fours[i + 2 * h] = _mm512_unpacklo_epi64(half, pairs[i + h + 2]);
            fours[i + 2 * h + 1] = _mm512_unpackhi_epi64(half, pairs[i + h + 2]);
        }
    }
    let mut out = fours;
    for i in 0..4 {
        let [a, b, c, d] = [0, 4, 8, 12].map(|j| fours[i + j]);
        let (ab, cd) = (
            _mm512_shuffle_i32x4::<0x88>(a, b),
            _mm512_shuffle_i32x4::<0x88>(c, d),
        );
        out[i] = _mm512_shuffle_i32x4::<0x88>(ab, cd);
        out[i + 8] = _mm512_shuffle_i32x4::<0xdd>(ab, cd);
        let (ab, cd) = (
            _mm512_shuffle_i32x4::<0xdd>(a, b),
            _mm512_shuffle_i32x4::<0xdd>(c, d),
        );
        out[i + 4] = _mm512_shuffle_i32x4::<0x88>(ab, cd);
        out[i + 12] = _mm512_shuffle_i32x4::<0xdd>(ab, cd);
    }
    for (v, to) in out.iter().zip(to.as_chunks_mut::<64>().0) {
        // SAFETY: 64 bytes are one vector.
        unsafe { _mm512_storeu_si512(to.as_mut_ptr().cast(), *v) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::products::task::Target;
    use crate::cpu::share::Shared;
    use crate::cpu::{Activations, Crew, Matrix, Pool, Tier};
    use crate::quant::quantize_rows;

    /// What the tile unit does, in words.
    struct Slow;

    impl Unit for Slow {
        fn multiply(&self, values: &[i8], stride: usize, weights: &Weights, sums: &mut Sums) {
            let byte = |tiles: &[Tile; 4], k: usize, row: usize| {
                tiles[k / 64][k % 64 / 4 * 64 + row * 4 + k % 4]
            };
            for group in 0..GROUPS {
                for t in 0..TOKENS {
                    for row in 0..ROWS {
                        let (mut low, mut high) = (0, 0);
                        for (k, x) in values[t * stride..][..256].iter().enumerate() {
                            let x = i32::from(*x);
                            low += x * i32::from(byte(&weights.low[group], k, row));
                            high += x * i32::from(byte(&weights.high[group], k, row) as i8);
                        }
                        sums.low[group][t][row] = low;
                        sums.high[group][t][row] = high;
                    }
                }
            }
        }
    }

    #[test]
    fn tiles_give_the_bits_of_the_kernel_for_few_rows() {
        if Tier::of(crate::cpu::Kind::Avx512).is_none() {
            return;
        }
        let pool = Pool::new(1);
        let tier = Tier::SCALAR;
        for ty in [TensorType::Q4K, TensorType::Q5K, TensorType::Q6K] {
            for (rows, cols, tokens) in [(1, 256, 1), (40, 512, 16), (33, 768, 37), (64, 256, 8)] {
                let x: Vec<f32> = (0..cols * (rows + tokens))
                    .map(|i| ((i * i) as f32 * 0.37).sin())
                    .collect();
                let (w, x) = x.split_at(cols * rows);
                let mut words = vec![0u16; ty.row_bytes(cols).unwrap() * rows / 2];
                // SAFETY: words are bytes.
                let bytes = unsafe { words.align_to_mut::<u8>().1 };
                quantize_rows(ty, w, cols, None, bytes).unwrap();
                let matrix = Matrix::new(ty, rows, cols, bytes).unwrap();
                let mut activations = Activations::default();
                activations.fill(Crew { pool: &pool, tier }, x, cols, [ty]);
                // Turned round, so that they do not follow each other.
                let turned: Vec<u32> = (0..tokens as u32).rev().collect();
                for input in [&activations.places, &turned] {
                    let run = |work: &dyn Fn(&Task<'_>)| {
                        let mut out = vec![0f32; tokens * rows];
                        // SAFETY: one thread.
                        let target = unsafe { Target::new(Shared::new(&mut out), rows, 0) };
                        work(&Task {
                            matrix,
                            rows: 0..rows,
                            activations: &activations,
                            input,
                            output: &activations.places,
                            target: &target,
                        });
                        out
                    };
                    let want = run(&crate::cpu::quantized::scalar::by_256);
                    // SAFETY: asked above.
                    let got = run(&|task| unsafe { by_type(task, &Slow) });
                    assert_eq!(got, want, "{ty} {rows} {cols} {tokens}");
                    if Tier::of(crate::cpu::Kind::Amx).is_some() {
                        // SAFETY: asked here.
                        let got = run(&|task| unsafe { many(task) });
                        assert_eq!(got, want, "{ty} {rows} {cols} {tokens} on tiles");
                    }
                }
            }
        }
    }
}
