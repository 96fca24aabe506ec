//! Formats of less than four bits for AVX2: points of a grid and their signs are looked up eight
//! bytes at a time.

use std::arch::x86_64::*;

use super::formats::{Block, Format};
use crate::cpu::quantized::grids::{FLIPS, Grid, SIGNS, grid};
use crate::cpu::quantized::unpack::scales_of_q3_k;
use crate::quant::TensorType;

#[derive(Clone, Copy)]
pub(super) struct Q2K;
#[derive(Clone, Copy)]
pub(super) struct Q3K;

/// Two bits of each of 32 bytes.
#[inline(always)]
unsafe fn two_bits(v: __m256i, group: usize) -> __m256i {
    // SAFETY: inlined where the processor has the instructions.
    unsafe {
        let down = _mm_cvtsi64_si128(2 * group as i64);
        _mm256_and_si256(_mm256_srl_epi16(v, down), _mm256_set1_epi8(3))
    }
}

impl Format for Q2K {
    const BYTES: usize = 84;
    const MINS: usize = 16;
    fn new() -> Self {
        Q2K
    }
    #[inline(always)]
    unsafe fn load(self, at: *const u8) -> Block {
        // SAFETY: 84 bytes, as promised; inlined where the processor has the instructions.
        unsafe {
            let both = _mm256_cvtepu8_epi16(_mm_loadu_si128(at.cast()));
            let half = [
                _mm256_loadu_si256(at.add(16).cast()),
                _mm256_loadu_si256(at.add(48).cast()),
            ];
            let mut q = [_mm256_setzero_si256(); 8];
            for (g, q) in q.iter_mut().enumerate() {
                *q = two_bits(half[g / 4], g % 4);
            }
            Block {
                q,
                scales: _mm256_and_si256(both, _mm256_set1_epi16(15)),
                mins: _mm256_srli_epi16::<4>(both),
                pair: at.add(80).cast::<u32>().read_unaligned(),
            }
        }
    }
}

impl Format for Q3K {
    const BYTES: usize = 110;
    const ZERO: i32 = 4;
    fn new() -> Self {
        Q3K
    }
    #[inline(always)]
    unsafe fn load(self, at: *const u8) -> Block {
        // SAFETY: 110 bytes, as promised; inlined where the processor has the instructions.
        unsafe {
            let [low, high] = scales_of_q3_k(&*at.add(96).cast::<[u8; 12]>());
            let scales = _mm256_cvtepu8_epi16(_mm_set_epi64x(high as i64, low as i64));
            let high = _mm256_loadu_si256(at.cast());
            let four = _mm256_set1_epi8(4);
            let half = [
                _mm256_loadu_si256(at.add(32).cast()),
                _mm256_loadu_si256(at.add(64).cast()),
            ];
            let mut q = [_mm256_setzero_si256(); 8];
            for (g, q) in q.iter_mut().enumerate() {
                let bit = _mm256_set1_epi8((1u8 << g) as i8);
                let set = _mm256_cmpeq_epi8(_mm256_and_si256(high, bit), bit);
                let low = two_bits(half[g / 4], g % 4);
                *q = _mm256_or_si256(low, _mm256_and_si256(set, four));
            }
            Block {
                q,
                scales: _mm256_sub_epi16(scales, _mm256_set1_epi16(32)),
                mins: _mm256_setzero_si256(),
                pair: at.add(108).cast::<u16>().read_unaligned().into(),
            }
        }
    }
}

/// 32 values: points of eight and their signs.
#[inline(always)]
unsafe fn signed(points: [u64; 4], signs: [u8; 4]) -> __m256i {
    // SAFETY: inlined where the processor has the instructions.
    unsafe {
        let [a, b, c, d] = points.map(u64::cast_signed);
        let q = _mm256_setr_epi64x(a, b, c, d);
        let [a, b, c, d] = signs.map(|signs| FLIPS[usize::from(signs)].cast_signed());
        _mm256_sign_epi8(q, _mm256_setr_epi64x(a, b, c, d))
    }
}

/// The signs in a word of four times seven bits.
#[inline(always)]
fn signs_in(word: u32) -> [u8; 4] {
    [0, 7, 14, 21].map(|at| SIGNS[(word >> at & 127) as usize])
}

/// The odd scales of each sixteen values, from eight scales in the highest bits of words.
#[inline(always)]
unsafe fn scales_of_words(words: [u32; 8]) -> __m256i {
    // SAFETY: inlined where the processor has the instructions.
    unsafe {
        let v = _mm256_srli_epi32::<28>(_mm256_loadu_si256(words.as_ptr().cast()));
        let v = _mm256_or_si256(v, _mm256_slli_epi32::<16>(v));
        _mm256_add_epi16(_mm256_add_epi16(v, v), _mm256_set1_epi16(1))
    }
}

/// The odd scales of each sixteen values, from sixteen nibbles.
#[inline(always)]
unsafe fn scales_of_nibbles(nibbles: u64) -> __m256i {
    // SAFETY: inlined where the processor has the instructions.
    unsafe {
        let v = _mm_cvtsi64_si128(nibbles as i64);
        let v = _mm_unpacklo_epi8(v, _mm_srli_epi16::<4>(v));
        let v = _mm256_cvtepu8_epi16(_mm_and_si128(v, _mm_set1_epi8(15)));
        _mm256_add_epi16(_mm256_add_epi16(v, v), _mm256_set1_epi16(1))
    }
}

macro_rules! grid_format {
    ($name:ident, bytes $bytes:literal, over $over:literal) => {
        #[derive(Clone, Copy)]
        pub(super) struct $name {
            points: &'static [u64],
        }

        impl Format for $name {
            const BYTES: usize = $bytes;
            const SIGNED: bool = true;
            const FACTOR: f32 = 1.0 / $over;
            fn new() -> Self {
                let Grid { points, .. } = grid(TensorType::$name);
                $name { points }
            }
            #[inline(always)]
            unsafe fn load(self, at: *const u8) -> Block {
                // SAFETY: the caller's promise of `BYTES`, which begin with a word. Inlined where
                // the processor has the instructions.
                unsafe {
                    let (q, scales) = self.parts(&*at.cast::<[u8; $bytes]>());
                    Block {
                        q,
                        scales,
                        mins: _mm256_setzero_si256(),
                        pair: at.cast::<u16>().read_unaligned().into(),
                    }
                }
            }
        }

        impl $name {
            #[inline(always)]
            fn point(self, at: usize) -> u64 {
                self.points[at]
            }
        }
    };
}
grid_format!(Iq2Xxs, bytes 66, over 8.0);
grid_format!(Iq2Xs, bytes 74, over 8.0);
grid_format!(Iq2S, bytes 82, over 8.0);
grid_format!(Iq3Xxs, bytes 98, over 4.0);
grid_format!(Iq3S, bytes 110, over 1.0);

/// Values and scales as a [`Block`] has them.
type Parts = ([__m256i; 8], __m256i);

#[inline(always)]
fn word(block: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([0, 1, 2, 3].map(|i| block[at + i]))
}

#[inline(always)]
fn nibbles<const N: usize>(block: &[u8], at: usize) -> u64 {
    (0..N).fold(0, |all, i| all | u64::from(block[at + i]) << (8 * i))
}

/// Makes the eight vectors of 32 values.
#[inline(always)]
unsafe fn each_32(values: impl Fn(usize) -> ([u64; 4], [u8; 4])) -> [__m256i; 8] {
    // SAFETY: inlined where the processor has the instructions.
    unsafe {
        let mut q = [_mm256_setzero_si256(); 8];
        for (g, q) in q.iter_mut().enumerate() {
            let (points, signs) = values(g);
            *q = signed(points, signs);
        }
        q
    }
}

impl Iq2Xxs {
    #[inline(always)]
    unsafe fn parts(self, block: &[u8; 66]) -> Parts {
        let words: [u32; 8] = std::array::from_fn(|g| word(block, 6 + 8 * g));
        let values = |g: usize| {
            let points = [0, 1, 2, 3].map(|i| self.point(block[2 + 8 * g + i].into()));
            (points, signs_in(words[g]))
        };
        // SAFETY: inlined where the processor has the instructions.
        unsafe { (each_32(values), scales_of_words(words)) }
    }
}

impl Iq2Xs {
    #[inline(always)]
    unsafe fn parts(self, block: &[u8; 74]) -> Parts {
        let values = |g: usize| {
            let words = [0, 1, 2, 3].map(|i| {
                let at = 2 + 8 * g + 2 * i;
                u16::from_le_bytes([block[at], block[at + 1]])
            });
            (
                words.map(|w| self.point((w & 511).into())),
                words.map(|w| SIGNS[usize::from(w >> 9)]),
            )
        };
        // SAFETY: inlined where the processor has the instructions.
        unsafe { (each_32(values), scales_of_nibbles(nibbles::<8>(block, 66))) }
    }
}

impl Iq2S {
    #[inline(always)]
    unsafe fn parts(self, block: &[u8; 82]) -> Parts {
        let values = |g: usize| {
            let points = [0, 1, 2, 3].map(|i| {
                let high = usize::from(block[66 + g] >> (2 * i) & 3);
                self.point(usize::from(block[2 + 4 * g + i]) | high << 8)
            });
            (points, [0, 1, 2, 3].map(|i| block[34 + 4 * g + i]))
        };
        // SAFETY: inlined where the processor has the instructions.
        unsafe { (each_32(values), scales_of_nibbles(nibbles::<8>(block, 74))) }
    }
}

impl Iq3Xxs {
    #[inline(always)]
    unsafe fn parts(self, block: &[u8; 98]) -> Parts {
        let words: [u32; 8] = std::array::from_fn(|g| word(block, 66 + 4 * g));
        let values = |g: usize| {
            let half = |i: usize| self.point(block[2 + 8 * g + i].into());
            let points = [0, 2, 4, 6].map(|i| half(i) | half(i + 1) << 32);
            (points, signs_in(words[g]))
        };
        // SAFETY: inlined where the processor has the instructions.
        unsafe { (each_32(values), scales_of_words(words)) }
    }
}

impl Iq3S {
    #[inline(always)]
    unsafe fn parts(self, block: &[u8; 110]) -> Parts {
        let values = |g: usize| {
            let half = |i: usize| {
                let high = usize::from(block[66 + g] >> i & 1);
                self.point(usize::from(block[2 + 8 * g + i]) | high << 8)
            };
            let points = [0, 2, 4, 6].map(|i| half(i) | half(i + 1) << 32);
            (points, [0, 1, 2, 3].map(|i| block[74 + 4 * g + i]))
        };
        // A scale for 32 values: twice each.
        let words: [u32; 8] =
            std::array::from_fn(|g| u32::from(block[106 + g / 2] >> (g % 2 * 4) & 15) << 28);
        // SAFETY: inlined where the processor has the instructions.
        unsafe { (each_32(values), scales_of_words(words)) }
    }
}
