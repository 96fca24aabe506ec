//! Blocks of 256 values, loaded: what `q4_k`, `q5_k` and `q6_k` are in registers.

use std::arch::x86_64::*;

use crate::cpu::quantized::unpack::scales_and_mins;

/// A block of 256, unpacked.
pub(in crate::cpu::quantized) struct Block {
    /// Values in their order, unsigned but where the format is signed.
    pub q: [__m256i; 8],
    /// The scale of each sixteen values.
    pub scales: __m256i,
    /// The minima of 16 values each, or of 32 in the low half.
    pub mins: __m256i,
    /// `d` and `dmin`.
    pub pair: u32,
}

pub(in crate::cpu::quantized) trait Format: Copy {
    const BYTES: usize;
    /// Values that share a minimum: 16 or 32, 0 where there are none.
    const MINS: usize = 0;
    /// What values are too high by: a power of two, or 0.
    const ZERO: i32 = 0;
    /// Whether values have signs.
    const SIGNED: bool = false;
    /// What `d` is multiplied by to be the scale of whole numbers.
    const FACTOR: f32 = 1.0;

    fn new() -> Self;

    /// # Safety
    /// As of [`Dots::dots`](super::Dots::dots), and `BYTES` can be read at `at`.
    unsafe fn load(self, at: *const u8) -> Block;
}

#[derive(Clone, Copy)]
pub(super) struct Q4K;
#[derive(Clone, Copy)]
pub(super) struct Q5K;
#[derive(Clone, Copy)]
pub(super) struct Q6K;

#[inline(always)]
unsafe fn k_head(at: *const u8) -> (__m256i, __m256i, u32) {
    // SAFETY: the caller's promise of at least 16 bytes; inlined where the processor has the
    // instructions.
    unsafe {
        let (scales, mins) = scales_and_mins(&*at.add(4).cast::<[u8; 12]>());
        let scales = _mm_cvtsi64_si128(scales as i64);
        let scales = _mm256_cvtepu8_epi16(_mm_unpacklo_epi8(scales, scales));
        let mins = _mm_cvtepu8_epi16(_mm_cvtsi64_si128(mins as i64));
        let pair = at.cast::<u32>().read_unaligned();
        (scales, _mm256_zextsi128_si256(mins), pair)
    }
}

/// Low nibbles of 32 bytes, and their high nibbles.
#[inline(always)]
unsafe fn nibbles(at: *const u8) -> [__m256i; 2] {
    // SAFETY: the caller's promise of 32 bytes; inlined where the processor has the instructions.
    unsafe {
        let v = _mm256_loadu_si256(at.cast());
        let low = _mm256_set1_epi8(15);
        let high = _mm256_and_si256(_mm256_srli_epi16::<4>(v), low);
        [_mm256_and_si256(v, low), high]
    }
}

impl Format for Q4K {
    const BYTES: usize = 144;
    const MINS: usize = 32;
    fn new() -> Self {
        Q4K
    }
    #[inline(always)]
    unsafe fn load(self, at: *const u8) -> Block {
        // SAFETY: 144 bytes, as promised.
        unsafe {
            let (scales, mins, pair) = k_head(at);
            // Not by a closure: see `mod.rs`.
            let (a, b) = (nibbles(at.add(16)), nibbles(at.add(48)));
            let (c, d) = (nibbles(at.add(80)), nibbles(at.add(112)));
            Block {
                q: [a[0], a[1], b[0], b[1], c[0], c[1], d[0], d[1]],
                scales,
                mins,
                pair,
            }
        }
    }
}

impl Format for Q5K {
    const BYTES: usize = 176;
    const MINS: usize = 32;
    fn new() -> Self {
        Q5K
    }
    #[inline(always)]
    unsafe fn load(self, at: *const u8) -> Block {
        // SAFETY: 176 bytes, as promised.
        unsafe {
            let (scales, mins, pair) = k_head(at);
            let high = _mm256_loadu_si256(at.add(16).cast());
            let bit = _mm256_set1_epi8(16);
            let two = |g: usize, down: i64| {
                let [a, b] = nibbles(at.add(48 + 32 * g));
                let up = _mm256_slli_epi16::<4>(_mm256_srl_epi16(high, _mm_cvtsi64_si128(down)));
                let more = _mm256_srl_epi16(high, _mm_cvtsi64_si128(down + 1));
                let more = _mm256_slli_epi16::<4>(more);
                [
                    _mm256_or_si256(a, _mm256_and_si256(up, bit)),
                    _mm256_or_si256(b, _mm256_and_si256(more, bit)),
                ]
            };
            let (a, b, c, d) = (two(0, 0), two(1, 2), two(2, 4), two(3, 6));
            Block {
                q: [a[0], a[1], b[0], b[1], c[0], c[1], d[0], d[1]],
                scales,
                mins,
                pair,
            }
        }
    }
}

/// 128 values: their low nibbles in 64 bytes, their high bits in 32.
#[inline(always)]
unsafe fn q6_k_half(low: *const u8, high: *const u8) -> [__m256i; 4] {
    // SAFETY: the caller's promise of those bytes; inlined where the processor has the instructions.
    unsafe {
        let bits = _mm256_set1_epi8(0x30);
        let (a, b) = (nibbles(low), nibbles(low.add(32)));
        let high = _mm256_loadu_si256(high.cast());
        let first = _mm256_and_si256(_mm256_slli_epi16::<4>(high), bits);
        let second = _mm256_and_si256(_mm256_slli_epi16::<2>(high), bits);
        let fourth = _mm256_and_si256(_mm256_srli_epi16::<2>(high), bits);
        [
            _mm256_or_si256(a[0], first),
            _mm256_or_si256(b[0], second),
            _mm256_or_si256(a[1], _mm256_and_si256(high, bits)),
            _mm256_or_si256(b[1], fourth),
        ]
    }
}

impl Format for Q6K {
    const BYTES: usize = 210;
    const ZERO: i32 = 32;
    fn new() -> Self {
        Q6K
    }
    #[inline(always)]
    unsafe fn load(self, at: *const u8) -> Block {
        // SAFETY: 210 bytes, as promised; inlined where the processor has the instructions.
        unsafe {
            let (a, b) = (
                q6_k_half(at, at.add(128)),
                q6_k_half(at.add(64), at.add(160)),
            );
            Block {
                q: [a[0], a[1], a[2], a[3], b[0], b[1], b[2], b[3]],
                scales: _mm256_cvtepi8_epi16(_mm_loadu_si128(at.add(192).cast())),
                mins: _mm256_setzero_si256(),
                pair: at.add(208).cast::<u16>().read_unaligned().into(),
            }
        }
    }
}
