//! The law with AVX-512 and VNNI for many rows of activations: 32 rows of weights are unpacked once
//! into bytes with rows as lanes, and then meet up to six rows of activations at a time, so that
//! nothing is summed across.

use std::arch::x86_64::*;
use std::cell::RefCell;

use super::avx512::{Format, Format32, Q4_0, Q4K, Q5K, Q6K, Q8_0};
use super::avx512::{Iq2S, Iq2Xs, Iq2Xxs, Iq3S, Iq3Xxs, Q2K, Q3K};
use crate::cpu::activations::{Activations, QuantizedRow};
use crate::cpu::aligned::Floats;
use crate::cpu::products::task::Task;
use crate::quant::TensorType;

/// Rows of weights at a time: two vectors of lanes.
const ROWS: usize = 32;
/// The most rows of activations at a time: two vectors of sums for each fit the registers.
const MOST: usize = 6;

thread_local! {
    /// A worker's unpacked weights.
    static PANEL: RefCell<Floats> = RefCell::new(Floats::zeroed(0));
}

/// Runs the task.
///
/// # Safety
/// The processor has the instructions of the tier `avx512`.
pub(crate) unsafe fn many(task: &Task<'_>) {
    // SAFETY: the caller's promise, here and below.
    unsafe {
        match task.matrix.ty() {
            TensorType::Q4K => each_panel::<Q4K>(task),
            TensorType::Q5K => each_panel::<Q5K>(task),
            TensorType::Q6K => each_panel::<Q6K>(task),
            TensorType::Q2K => each_panel::<Q2K>(task),
            TensorType::Q3K => each_panel::<Q3K>(task),
            TensorType::Iq2Xxs => each_panel::<Iq2Xxs>(task),
            TensorType::Iq2Xs => each_panel::<Iq2Xs>(task),
            TensorType::Iq2S => each_panel::<Iq2S>(task),
            TensorType::Iq3Xxs => each_panel::<Iq3Xxs>(task),
            TensorType::Iq3S => each_panel::<Iq3S>(task),
            TensorType::Q8_0 => each_panel::<Q8_0>(task),
            _ => each_panel::<Q4_0>(task),
        }
    }
}

/// How a format is unpacked and multiplied. Every function must be inlined into one with the
/// instructions of the tier, and wants a processor that has them.
trait Tile {
    /// Vectors of a panel for rows of `bytes`.
    fn vectors(bytes: usize) -> usize;

    /// Unpacks half a panel (`half`: 0 or 1) into `panel`, which has [`Tile::vectors`].
    unsafe fn unpack(rows: [&[u8]; 16], half: usize, panel: *mut __m512i);

    /// The panel of rows of `bytes` times `C` rows of activations.
    unsafe fn multiply<const C: usize>(
        bytes: usize,
        panel: *const __m512i,
        x: [QuantizedRow<'_>; C],
    ) -> [[__m512; C]; 2];

    fn row(activations: &Activations, at: usize) -> QuantizedRow<'_>;
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx512vbmi,avx2,fma,f16c")]
unsafe fn each_panel<F: Tile>(task: &Task<'_>) {
    let bytes = task.matrix.row_bytes();
    let groups = task.input.len().div_ceil(MOST).max(1);
    let size = task.input.len().div_ceil(groups).max(1);
    PANEL.with_borrow_mut(|panel| {
        panel.grow(F::vectors(bytes) * 16);
        let panel = panel.as_mut_ptr().cast::<__m512i>();
        for first in task.rows.clone().step_by(ROWS) {
            let end = task.rows.end.min(first + ROWS);
            for half in 0..2 {
                let rows = task.matrix.rows_from::<16>(first + half * 16, end);
                // SAFETY: the panel has the vectors that it needs, aligned; the caller's promise.
                unsafe { F::unpack(rows, half, panel) };
            }
            let pairs = task.input.chunks(size).zip(task.output.chunks(size));
            for (input, output) in pairs {
                // SAFETY: the panel was filled; the caller's promise.
                unsafe {
                    match input.len() {
                        1 => group::<F, 1>(task, first, end, panel, input, output),
                        2 => group::<F, 2>(task, first, end, panel, input, output),
                        3 => group::<F, 3>(task, first, end, panel, input, output),
                        4 => group::<F, 4>(task, first, end, panel, input, output),
                        5 => group::<F, 5>(task, first, end, panel, input, output),
                        _ => group::<F, 6>(task, first, end, panel, input, output),
                    }
                }
            }
        }
    });
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx512vbmi,avx2,fma,f16c")]
unsafe fn group<F: Tile, const C: usize>(
    task: &Task<'_>,
    first: usize,
    end: usize,
    panel: *const __m512i,
    input: &[u32],
    output: &[u32],
) {
    let x: [_; C] = std::array::from_fn(|c| F::row(task.activations, input[c] as usize));
    // SAFETY: the caller's promise.
    let sums = unsafe { F::multiply::<C>(task.matrix.row_bytes(), panel, x) };
    for (c, &output) in output.iter().enumerate() {
        let mut values = [0f32; ROWS];
        // SAFETY: twice sixteen floats.
        unsafe {
            _mm512_storeu_ps(values.as_mut_ptr(), sums[0][c]);
            _mm512_storeu_ps(values.as_mut_ptr().add(16), sums[1][c]);
        }
        let out = task.target.at(output, first..end);
        out.copy_from_slice(&values[..end - first]);
    }
}

/// Sixteen rows of sixteen words become their columns, `step` vectors apart.
#[inline(always)]
unsafe fn transpose(v: [__m512i; 16], out: *mut __m512i, step: usize) {
    // SAFETY: the caller's promise of room; inlined where the processor has the instructions.
    unsafe {
        let mut t = [_mm512_setzero_si512(); 16];
        for i in 0..8 {
            t[2 * i] = _mm512_unpacklo_epi32(v[2 * i], v[2 * i + 1]);
            t[2 * i + 1] = _mm512_unpackhi_epi32(v[2 * i], v[2 * i + 1]);
        }
        // u[4 * i + j]: column j of each quarter, rows 4 i to 4 i + 3.
        let mut u = [_mm512_setzero_si512(); 16];
        for i in 0..4 {
            let (a, b) = (4 * i, 4 * i + 2);
            u[4 * i] = _mm512_unpacklo_epi64(t[a], t[b]);
            u[4 * i + 1] = _mm512_unpackhi_epi64(t[a], t[b]);
            u[4 * i + 2] = _mm512_unpacklo_epi64(t[a + 1], t[b + 1]);
            u[4 * i + 3] = _mm512_unpackhi_epi64(t[a + 1], t[b + 1]);
        }
        for j in 0..4 {
            let (a, b) = (u[j], u[4 + j]);
            let (c, d) = (u[8 + j], u[12 + j]);
            let low = _mm512_shuffle_i32x4::<0x88>(a, b);
            let high = _mm512_shuffle_i32x4::<0xdd>(a, b);
            let low2 = _mm512_shuffle_i32x4::<0x88>(c, d);
            let high2 = _mm512_shuffle_i32x4::<0xdd>(c, d);
            // Quarters 0 and 2 of rows 0..8 and 8..16, then 1 and 3.
            let columns = [
                _mm512_shuffle_i32x4::<0x88>(low, low2),
                _mm512_shuffle_i32x4::<0x88>(high, high2),
                _mm512_shuffle_i32x4::<0xdd>(low, low2),
                _mm512_shuffle_i32x4::<0xdd>(high, high2),
            ];
            for (quarter, column) in columns.into_iter().enumerate() {
                _mm512_store_si512(out.add((4 * quarter + j) * step), column);
            }
        }
    }
}

/// Sixteen halves, one a row, as floats.
#[inline(always)]
unsafe fn widen(halves: [u16; 16]) -> __m512i {
    // SAFETY: sixteen halves; inlined where the processor has the instructions.
    unsafe {
        let v = _mm512_cvtph_ps(_mm256_loadu_si256(halves.as_ptr().cast()));
        _mm512_castps_si512(v)
    }
}

/// Byte `at` of each row's eight, in byte `to` of the row's lane; zeros around it.
#[inline(always)]
unsafe fn pick(rows: [__m512i; 2], at: usize, to: usize) -> __m512i {
    // SAFETY: inlined where the processor has the instructions.
    unsafe {
        let lanes = _mm512_setr_epi32(
            0, 8, 16, 24, 32, 40, 48, 56, 64, 72, 80, 88, 96, 104, 112, 120,
        );
        let index = _mm512_add_epi32(lanes, _mm512_set1_epi32(at as i32));
        let index = _mm512_sll_epi32(index, _mm_cvtsi64_si128(8 * to as i64));
        _mm512_maskz_permutex2var_epi8(0x1111_1111_1111_1111 << to, rows[0], index, rows[1])
    }
}

/// What makes signed values of at most 63 unsigned ones.
const RAISED: i32 = 64;

/// Where in a block's vectors what lies: values (64, two rows of lanes each), scales,
/// pairs of minima, `d` and `dmin`.
struct Places {
    scales: usize,
    mins: usize,
    d: usize,
    all: usize,
}

/// How many times eight groups of `size` values a block has; none of no values.
const fn eights(size: usize) -> usize {
    match size {
        0 => 0,
        size => 32 / size,
    }
}

const fn places<F: Format>() -> Places {
    let groups = 256 / F::GROUP;
    let mins = 4 * eights(F::MINS);
    Places {
        scales: 128,
        mins: 128 + 2 * groups,
        d: 128 + 2 * groups + 2 * mins,
        all: 128 + 2 * groups + 2 * mins + 4,
    }
}

impl<F: Format> Tile for F {
    fn vectors(bytes: usize) -> usize {
        bytes / F::BYTES * places::<F>().all
    }

    fn row(activations: &Activations, at: usize) -> QuantizedRow<'_> {
        activations.by_256().row(at)
    }

    #[inline(always)]
    unsafe fn unpack(rows: [&[u8]; 16], half: usize, panel: *mut __m512i) {
        let p = places::<F>();
        let ahead = rows[0].len() * ROWS;
        // SAFETY: block `at` of every row lies inside it; the panel has room, as promised. Inlined
        // where the processor has the instructions.
        unsafe {
            let format = F::new();
            let mut q = [[_mm512_setzero_si512(); 16]; 4];
            for at in 0..rows[0].len() / F::BYTES {
                let out = panel.add(at * p.all + half);
                let (mut scales, mut mins) = ([[0u64; 16]; 2], [[0u64; 16]; 2]);
                let (mut d, mut dmin) = ([0u16; 16], [0u16; 16]);
                for r in 0..16 {
                    let start = rows[r].as_ptr().add(at * F::BYTES);
                    for line in 0..F::BYTES.div_ceil(64) {
                        let line = start.wrapping_add(ahead + 64 * line);
                        _mm_prefetch::<_MM_HINT_T1>(line.cast());
                    }
                    let block = format.load(start);
                    for (g, (q, mut values)) in q.iter_mut().zip(block.q).enumerate() {
                        if F::SIGNED {
                            let raised = _mm512_set1_epi8(RAISED as i8);
                            let signed = _mm512_add_epi8(raised, values);
                            values = _mm512_mask_sub_epi8(signed, block.signs[g], raised, values);
                        }
                        q[r] = values;
                    }
                    let bytes = format.bytes(start);
                    for half in 0..2 {
                        scales[half][r] = bytes.scales[half];
                        mins[half][r] = bytes.mins[half];
                    }
                    (d[r], dmin[r]) = (block.pair as u16, (block.pair >> 16) as u16);
                }
                for (g, q) in q.iter().enumerate() {
                    transpose(*q, out.add(g * 32), 2);
                }
                let load = |x: &[u64; 16]| {
                    let at = x.as_ptr();
                    [
                        _mm512_loadu_si512(at.cast()),
                        _mm512_loadu_si512(at.add(8).cast()),
                    ]
                };
                for (half, scales) in scales.iter().map(load).enumerate().take(eights(F::GROUP)) {
                    for g in 0..8 {
                        let signed = _mm512_srai_epi32::<24>(pick(scales, g, 3));
                        *out.add(p.scales + 2 * (8 * half + g)) = signed;
                    }
                }
                for (half, mins) in mins.iter().map(load).enumerate().take(eights(F::MINS)) {
                    for g in 0..4 {
                        let (low, high) = (pick(mins, 2 * g, 0), pick(mins, 2 * g + 1, 2));
                        *out.add(p.mins + 2 * (4 * half + g)) = _mm512_or_si512(low, high);
                    }
                }
                let factor = _mm512_set1_ps(F::FACTOR);
                let d = _mm512_mul_ps(_mm512_castsi512_ps(widen(d)), factor);
                *out.add(p.d) = _mm512_castps_si512(d);
                *out.add(p.d + 2) = widen(dmin);
            }
        }
    }

    #[inline(always)]
    unsafe fn multiply<const C: usize>(
        bytes: usize,
        panel: *const __m512i,
        x: [QuantizedRow<'_>; C],
    ) -> [[__m512; C]; 2] {
        let p = places::<F>();
        let (groups, steps) = (256 / F::GROUP, F::GROUP / 4);
        let zero = if F::SIGNED { RAISED } else { F::ZERO };
        // SAFETY: the panel holds as many blocks as a row of `bytes`, and so do the activations.
        // Inlined where the processor has the instructions.
        unsafe {
            let mut a = [[_mm512_setzero_ps(); C]; 2];
            let mut b = [[_mm512_setzero_ps(); C]; 2];
            for at in 0..bytes / F::BYTES {
                let block = panel.add(at * p.all);
                let values: [_; C] = std::array::from_fn(|c| x[c].values.as_ptr().add(at * 256));
                let mut whole = [[_mm512_setzero_si512(); C]; 2];
                for g in 0..groups {
                    let mut dots = [[_mm512_setzero_si512(); C]; 2];
                    if zero > 0 {
                        for c in 0..C {
                            let sums = if F::GROUP == 32 {
                                x[c].sums_32
                            } else {
                                x[c].sums_16
                            };
                            let sum = i32::from(*sums.as_ptr().add(at * groups + g));
                            let sum = _mm512_set1_epi32(-zero * sum);
                            dots[0][c] = sum;
                            dots[1][c] = sum;
                        }
                    }
                    for step in 0..steps {
                        let word = g * steps + step;
                        let w = [*block.add(2 * word), *block.add(2 * word + 1)];
                        for c in 0..C {
                            let values = values[c].add(4 * word).cast::<i32>();
                            let values = _mm512_set1_epi32(values.read_unaligned());
                            for r in 0..2 {
                                dots[r][c] = _mm512_dpbusd_epi32(dots[r][c], w[r], values);
                            }
                        }
                    }
                    for r in 0..2 {
                        let scales = *block.add(p.scales + 2 * g + r);
                        for c in 0..C {
                            let dots = _mm512_mullo_epi32(dots[r][c], scales);
                            whole[r][c] = _mm512_add_epi32(whole[r][c], dots);
                        }
                    }
                }
                for r in 0..2 {
                    let d = _mm512_castsi512_ps(*block.add(p.d + r));
                    let dmin = _mm512_castsi512_ps(*block.add(p.d + 2 + r));
                    for c in 0..C {
                        let scale = _mm512_set1_ps(*x[c].scales.as_ptr().add(at));
                        let sum = _mm512_cvtepi32_ps(whole[r][c]);
                        a[r][c] = _mm512_fmadd_ps(_mm512_mul_ps(d, scale), sum, a[r][c]);
                        if F::MINS > 0 {
                            let sums = if F::MINS == 32 {
                                x[c].sums_32
                            } else {
                                x[c].sums_16
                            };
                            let pairs = 4 * eights(F::MINS);
                            let sums = sums.as_ptr().cast::<i32>().add(at * pairs);
                            let mut sum = _mm512_setzero_si512();
                            for g in 0..pairs {
                                let pair = _mm512_set1_epi32(sums.add(g).read_unaligned());
                                let mins = *block.add(p.mins + 2 * g + r);
                                sum = _mm512_dpwssd_epi32(sum, mins, pair);
                            }
                            let sum = _mm512_cvtepi32_ps(sum);
                            b[r][c] = _mm512_fmadd_ps(_mm512_mul_ps(dmin, scale), sum, b[r][c]);
                        }
                    }
                }
            }
            if F::MINS > 0 {
                for r in 0..2 {
                    for c in 0..C {
                        a[r][c] = _mm512_sub_ps(a[r][c], b[r][c]);
                    }
                }
            }
            a
        }
    }
}

/// Vectors of a block of 32: eight words, two rows of lanes each, and `d`.
const BLOCK_32: usize = 18;

#[inline(always)]
unsafe fn unpack_32<F: Format32>(rows: [&[u8]; 16], half: usize, panel: *mut __m512i) {
    let blocks = rows[0].len() / F::BYTES;
    // SAFETY: the blocks `at` and, where there are two, `at + 1` of every row lie inside it; the
    // panel has room for an even number of blocks. Inlined where the processor has the
    // instructions.
    unsafe {
        for at in (0..blocks).step_by(2) {
            let is_pair = at + 1 < blocks;
            let mut q = [_mm512_setzero_si512(); 16];
            let mut d = [[0u16; 16]; 2];
            for r in 0..16 {
                let start = rows[r].as_ptr().add(at * F::BYTES);
                d[0][r] = start.cast::<u16>().read_unaligned();
                q[r] = _mm512_zextsi256_si512(F::load(start));
                if is_pair {
                    let start = start.add(F::BYTES);
                    d[1][r] = start.cast::<u16>().read_unaligned();
                    q[r] = _mm512_inserti64x4::<1>(q[r], F::load(start));
                }
            }
            let mut columns = [_mm512_setzero_si512(); 16];
            transpose(q, columns.as_mut_ptr(), 1);
            for (at, d) in (at..).zip(d) {
                let out = panel.add(at * BLOCK_32 + half);
                for word in 0..8 {
                    *out.add(2 * word) = columns[at % 2 * 8 + word];
                }
                *out.add(16) = widen(d);
            }
        }
    }
}

#[inline(always)]
unsafe fn multiply_32<F: Format32, const C: usize>(
    bytes: usize,
    panel: *const __m512i,
    x: [QuantizedRow<'_>; C],
) -> [[__m512; C]; 2] {
    // SAFETY: the panel holds as many blocks as a row of `bytes`, and so do the activations.
    // Inlined where the processor has the instructions.
    unsafe {
        let mut a = [[_mm512_setzero_ps(); C]; 2];
        for at in 0..bytes / F::BYTES {
            let block = panel.add(at * BLOCK_32);
            let mut dots = [[_mm512_setzero_si512(); C]; 2];
            for c in 0..C {
                let sum = i32::from(*x[c].sums_32.as_ptr().add(at));
                let sum = _mm512_set1_epi32(-F::ZERO * sum);
                dots[0][c] = sum;
                dots[1][c] = sum;
            }
            for word in 0..8 {
                let w = [*block.add(2 * word), *block.add(2 * word + 1)];
                for c in 0..C {
                    let values = x[c].values.as_ptr().add(at * 32 + 4 * word);
                    let values = _mm512_set1_epi32(values.cast::<i32>().read_unaligned());
                    for r in 0..2 {
                        dots[r][c] = _mm512_dpbusd_epi32(dots[r][c], w[r], values);
                    }
                }
            }
            for r in 0..2 {
                let d = _mm512_castsi512_ps(*block.add(16 + r));
                for c in 0..C {
                    let scale = _mm512_set1_ps(*x[c].scales.as_ptr().add(at));
                    let dots = _mm512_cvtepi32_ps(dots[r][c]);
                    a[r][c] = _mm512_fmadd_ps(_mm512_mul_ps(d, scale), dots, a[r][c]);
                }
            }
        }
        a
    }
}

macro_rules! tile_32 {
    ($($name:ident)+) => {$(
        impl Tile for $name {
            fn vectors(bytes: usize) -> usize {
                (bytes / $name::BYTES).next_multiple_of(2) * BLOCK_32
            }
            fn row(activations: &Activations, at: usize) -> QuantizedRow<'_> {
                activations.by_32().row(at)
            }
            #[inline(always)]
            unsafe fn unpack(rows: [&[u8]; 16], half: usize, panel: *mut __m512i) {
                // SAFETY: the caller's promise.
                unsafe { unpack_32::<$name>(rows, half, panel) }
            }
            #[inline(always)]
            unsafe fn multiply<const C: usize>(
                bytes: usize,
                panel: *const __m512i,
                x: [QuantizedRow<'_>; C],
            ) -> [[__m512; C]; 2] {
                // SAFETY: the caller's promise.
                unsafe { multiply_32::<$name, C>(bytes, panel, x) }
            }
        }
    )+};
}
tile_32!(Q8_0 Q4_0);
