//! Floats to pairs of bfloat16, in the orders that tiles want. A float is the sum of a high and a
//! low part, each rounded to nearest: 16 bits of its 24, all of an IEEE half.

use std::arch::x86_64::*;

use crate::cpu::mla::BLOCK;
use crate::cpu::mla::product::WIDTH;

/// Rows of sixteen words.
type Words = [__m512i; 16];

/// Values of a step of a product: a tile's row.
pub(super) const STEP: usize = 32;

/// Sixteen words of 32 values: high and low parts.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
fn split(x: [__m512; 2]) -> [__m512i; 2] {
    let high = round(x);
    let rest = [0, 1].map(|at| _mm512_sub_ps(x[at], floats(widen(high)[at])));
    [high, round(rest)]
}

#[inline]
#[target_feature(enable = "avx512f,avx512bf16")]
fn round(x: [__m512; 2]) -> __m512i {
    // SAFETY: both are 64 bytes of any bits.
    unsafe { std::mem::transmute::<__m512bh, __m512i>(_mm512_cvtne2ps_pbh(x[1], x[0])) }
}

/// Halves to the low halves of words.
#[inline]
#[target_feature(enable = "avx512f")]
fn widen(x: __m512i) -> [__m512i; 2] {
    let halves = [_mm512_castsi512_si256(x), _mm512_extracti64x4_epi64::<1>(x)];
    halves.map(|half| _mm512_cvtepu16_epi32(half))
}

#[inline]
#[target_feature(enable = "avx512f")]
fn floats(x: __m512i) -> __m512 {
    _mm512_castsi512_ps(_mm512_slli_epi32::<16>(x))
}

/// The low halves of `a` beside those of `b`.
#[inline]
#[target_feature(enable = "avx512f")]
fn beside(a: __m512i, b: __m512i) -> __m512i {
    _mm512_or_si512(a, _mm512_slli_epi32::<16>(b))
}

/// Up to 32 values, zeros behind the end.
#[inline]
#[target_feature(enable = "avx512f")]
fn load(x: &[f32]) -> [__m512; 2] {
    let part = |at: usize| {
        let n = x.len().saturating_sub(at).min(16);
        let x = &x[at.min(x.len())..];
        // SAFETY: reads n floats, which there are.
        unsafe { _mm512_maskz_loadu_ps(((1u32 << n) - 1) as u16, x.as_ptr()) }
    };
    [part(0), part(16)]
}

#[inline]
#[target_feature(enable = "avx512f")]
fn store(to: &mut [u32], at: usize, x: __m512i) {
    let to = &mut to[at..at + 16];
    // SAFETY: sixteen words.
    unsafe { _mm512_storeu_si512(to.as_mut_ptr().cast(), x) };
}

/// Rows to columns.
#[inline]
#[target_feature(enable = "avx512f")]
fn transpose(r: Words) -> Words {
    let mut t = r;
    for i in 0..8 {
        t[2 * i] = _mm512_unpacklo_epi32(r[2 * i], r[2 * i + 1]);
        t[2 * i + 1] = _mm512_unpackhi_epi32(r[2 * i], r[2 * i + 1]);
    }
    let mut u = t;
    for i in (0..16).step_by(4) {
        u[i] = _mm512_unpacklo_epi64(t[i], t[i + 2]);
        u[i + 1] = _mm512_unpackhi_epi64(t[i], t[i + 2]);
        u[i + 2] = _mm512_unpacklo_epi64(t[i + 1], t[i + 3]);
        u[i + 3] = _mm512_unpackhi_epi64(t[i + 1], t[i + 3]);
    }
    // Part L of u[4 i + c] is column 4 L + c of rows 4 i to 4 i + 3.
    let mut out = u;
    for c in 0..4 {
        let even = _mm512_shuffle_i32x4::<0x88>(u[c], u[4 + c]);
        let odd = _mm512_shuffle_i32x4::<0xdd>(u[c], u[4 + c]);
        let even_low = _mm512_shuffle_i32x4::<0x88>(u[8 + c], u[12 + c]);
        let odd_low = _mm512_shuffle_i32x4::<0xdd>(u[8 + c], u[12 + c]);
        out[c] = _mm512_shuffle_i32x4::<0x88>(even, even_low);
        out[4 + c] = _mm512_shuffle_i32x4::<0x88>(odd, odd_low);
        out[8 + c] = _mm512_shuffle_i32x4::<0xdd>(even, even_low);
        out[12 + c] = _mm512_shuffle_i32x4::<0xdd>(odd, odd_low);
    }
    out
}

/// High and low parts.
pub(super) struct Pair<'p> {
    pub high: &'p mut [u32],
    pub low: &'p mut [u32],
}

/// A tile's rows of `latent` values, `wide` apart: as they are for the scores
/// (`keys [64, padded / 2]`), and pairs of rows for the sums (`values [32, rank]`); `padded` and
/// `rank` are whole steps.
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
pub(super) fn rows(
    tile: &[f32],
    [wide, latent]: [usize; 2],
    [padded, rank]: [usize; 2],
    keys: &mut Pair<'_>,
    values: &mut Pair<'_>,
) {
    for r in (0..BLOCK).step_by(2) {
        let pair = [r, r + 1].map(|r| &tile[r * wide..][..latent]);
        for column in (0..padded).step_by(STEP) {
            let parts = pair.map(|row| split(load(&row[column..])));
            for (i, [high, low]) in parts.into_iter().enumerate() {
                let at = ((r + i) * padded + column) / 2;
                store(keys.high, at, high);
                store(keys.low, at, low);
            }
            if column < rank {
                let at = r / 2 * rank + column;
                for (part, to) in [&mut *values.high, &mut *values.low]
                    .into_iter()
                    .enumerate()
                {
                    let [a, b] = [0, 1].map(|i| widen(parts[i][part]));
                    store(to, at, beside(a[0], b[0]));
                    store(to, at + 16, beside(a[1], b[1]));
                }
            }
        }
    }
}

/// Queries `[pairs, latent]` times `scale` to `[padded / 2, WIDTH]`; lanes behind the last pair are
/// as it is.
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
pub(super) fn queries(q: &[f32], latent: usize, padded: usize, scale: f32, to: &mut Pair<'_>) {
    let pairs = q.len() / latent;
    let scale = _mm512_set1_ps(scale);
    for column in (0..padded).step_by(STEP) {
        for lane in (0..WIDTH).step_by(16) {
            let [mut high, mut low] = [[_mm512_setzero_si512(); 16]; 2];
            for i in 0..16 {
                let row = &q[(lane + i).min(pairs - 1) * latent..][..latent];
                let x = load(&row[column.min(latent)..]);
                [high[i], low[i]] = split([0, 1].map(|at| _mm512_mul_ps(x[at], scale)));
            }
            let parts = [(high, &mut *to.high), (low, &mut *to.low)];
            for (words, to) in parts {
                for (i, row) in transpose(words).into_iter().enumerate() {
                    store(to, (column / 2 + i) * WIDTH + lane, row);
                }
            }
        }
    }
}

/// Weights `[64, WIDTH]` to `[WIDTH, 64 / 2]`.
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
pub(super) fn weights(rows: &[f32], to: &mut Pair<'_>) {
    for start in (0..BLOCK).step_by(STEP) {
        for lane in (0..WIDTH).step_by(16) {
            let [mut high, mut low] = [[_mm512_setzero_si512(); 16]; 2];
            for i in 0..16 {
                let at = (start + 2 * i) * WIDTH + lane;
                let row = |at: usize| load(&rows[at..at + 16])[0];
                let parts = split([row(at), row(at + WIDTH)]);
                [high[i], low[i]] = parts.map(|part| {
                    let [a, b] = widen(part);
                    beside(a, b)
                });
            }
            let parts = [(high, &mut *to.high), (low, &mut *to.low)];
            for (words, to) in parts {
                for (i, row) in transpose(words).into_iter().enumerate() {
                    store(to, (lane + i) * BLOCK / 2 + start / 2, row);
                }
            }
        }
    }
}

/// Sums `[WIDTH, padded]` to `[rank, WIDTH]`.
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
pub(super) fn columns(sums: &[u32], padded: usize, rank: usize, to: &mut [u32]) {
    for column in (0..rank).step_by(16) {
        for lane in (0..WIDTH).step_by(16) {
            let mut words = [_mm512_setzero_si512(); 16];
            for (i, word) in words.iter_mut().enumerate() {
                let from = &sums[(lane + i) * padded + column..][..16];
                // SAFETY: sixteen words.
                *word = unsafe { _mm512_loadu_si512(from.as_ptr().cast()) };
            }
            let rows = transpose(words).into_iter().take(rank - column).enumerate();
            for (i, row) in rows {
                store(to, (column + i) * WIDTH + lane, row);
            }
        }
    }
}
