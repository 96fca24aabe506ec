//! Blocks of 256 values, loaded: what `q4_k`, `q5_k` and `q6_k` are in registers.

use std::arch::x86_64::*;

use crate::cpu::quantized::unpack::scales_and_mins;

/// A block of 256 in registers.
pub(in crate::cpu::quantized) struct Block {
    /// Unsigned values in their order.
    pub q: [__m512i; 4],
    /// Which of them are negative; only where the format is signed.
    pub signs: [u64; 4],
    /// The scale of each four values, 16 bits in a lane of 32.
    pub scales: [__m512i; 4],
    /// Minima (8 or 16 of 16 bits) or, where values are too high by something, scales (16 of 16
    /// bits).
    pub sides: __m256i,
    /// `d` and `dmin`.
    pub pair: u32,
}

/// A block's scales and minima, a byte each.
#[derive(Clone, Copy)]
pub(in crate::cpu::quantized) struct Bytes {
    pub scales: [u64; 2],
    pub mins: [u64; 2],
}

pub(in crate::cpu::quantized) trait Format: Copy {
    const BYTES: usize;
    /// Values that share a scale: 16 or 32.
    const GROUP: usize;
    /// Values that share a minimum: 16 or 32, 0 where there are none.
    const MINS: usize;
    /// What values are too high by: a power of two, or 0.
    const ZERO: i32 = 0;
    /// Whether signs lie beside the values.
    const SIGNED: bool = false;
    /// What `d` is multiplied by to be the scale of whole numbers.
    const FACTOR: f32 = 1.0;

    fn new() -> Self;

    /// # Safety
    /// As of [`Few::dots`](super::Few::dots), and `BYTES` can be read at `at`.
    unsafe fn load(self, at: *const u8) -> Block;

    /// # Safety
    /// As of `load`.
    unsafe fn bytes(self, at: *const u8) -> Bytes;
}

#[derive(Clone, Copy)]
pub(in crate::cpu::quantized) struct Q4K;
#[derive(Clone, Copy)]
pub(in crate::cpu::quantized) struct Q5K;
#[derive(Clone, Copy)]
pub(in crate::cpu::quantized) struct Q6K;

/// Scales (bytes) to lanes: vector `g` holds groups `2 g` and `2 g + 1` of 32 values.
#[inline(always)]
pub(in crate::cpu::quantized) unsafe fn spread_8(scales: u64) -> [__m512i; 4] {
    // SAFETY: inlined where the processor has the instructions.
    unsafe {
        let v = _mm512_castsi128_si512(_mm_cvtsi64_si128(scales as i64));
        let lanes = _mm512_inserti64x4::<1>(_mm512_setzero_si512(), _mm256_set1_epi32(1));
        let spread = |g: i32| {
            let index = _mm512_add_epi32(lanes, _mm512_set1_epi32(2 * g));
            _mm512_maskz_permutexvar_epi8(0x1111_1111_1111_1111, index, v)
        };
        [spread(0), spread(1), spread(2), spread(3)]
    }
}

/// Sixteen scales to lanes: vector `g` holds groups `4 g` to `4 g + 3` of 16 values.
#[inline(always)]
pub(in crate::cpu::quantized) unsafe fn spread_16(scales: __m256i) -> [__m512i; 4] {
    // SAFETY: inlined where the processor has the instructions.
    unsafe {
        let v = _mm512_castsi256_si512(scales);
        let lanes = _mm512_setr_epi32(0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3);
        let spread = |g: i32| {
            let index = _mm512_add_epi32(lanes, _mm512_set1_epi32(4 * g));
            _mm512_maskz_permutexvar_epi16(0x5555_5555, index, v)
        };
        [spread(0), spread(1), spread(2), spread(3)]
    }
}

/// Low nibbles of 32 bytes, then their high nibbles.
#[inline(always)]
unsafe fn nibbles_64(at: *const u8) -> __m512i {
    // SAFETY: the caller's promise of 32 bytes; inlined where the processor has the instructions.
    unsafe {
        let v = _mm512_broadcast_i64x4(_mm256_loadu_si256(at.cast()));
        let v = _mm512_srlv_epi64(v, _mm512_setr_epi64(0, 0, 0, 0, 4, 4, 4, 4));
        _mm512_and_si512(v, _mm512_set1_epi8(15))
    }
}

/// Of a block that begins like `q4_k`: in each quarter the eight scales, then the eight minima, a
/// byte each.
#[inline(always)]
unsafe fn k_sides(at: *const u8) -> __m512i {
    // SAFETY: the caller's promise of 16 bytes; inlined where the processor has the instructions.
    unsafe {
        // `d` and `dmin`, then three words of four bytes: six bits of scales 0 to 3 and of minima 0
        // to 3, and four of both of the others, whose last two are the first words' high ones.
        let all = _mm512_broadcast_i32x4(_mm_loadu_si128(at.cast()));
        let words =
            |a: i32, b: i32, c: i32, d: i32| _mm512_broadcast_i32x4(_mm_setr_epi32(a, b, c, d));
        const A: i32 = 0x0706_0504;
        const B: i32 = 0x0b0a_0908;
        const C: i32 = 0x0f0e_0d0c;
        const NONE: i32 = 0x8080_8080_u32 as i32;
        let low = _mm512_shuffle_epi8(all, words(A, C, B, C));
        let low = _mm512_srlv_epi32(low, words(0, 0, 0, 4));
        let masks = words(0x3f3f_3f3f, 0x0f0f_0f0f, 0x3f3f_3f3f, 0x0f0f_0f0f);
        let low = _mm512_and_si512(low, masks);
        let high = _mm512_srli_epi32::<2>(_mm512_shuffle_epi8(all, words(NONE, A, NONE, B)));
        // low | (high & 0x30)
        _mm512_ternarylogic_epi64::<0xf8>(low, high, _mm512_set1_epi8(0x30))
    }
}

/// Scale `2 G` in the lanes of the lower half, the next in those of the upper, 16 bits of 32.
#[inline(always)]
unsafe fn spread<const G: i32>(sides: __m512i) -> __m512i {
    // SAFETY: inlined where the processor has the instructions.
    unsafe {
        let lane = |scale: i32| _mm256_set1_epi32(0x8080_8000_u32 as i32 | scale);
        let index = _mm512_inserti64x4::<1>(_mm512_castsi256_si512(lane(2 * G)), lane(2 * G + 1));
        _mm512_shuffle_epi8(sides, index)
    }
}

/// Scales, minima, `d` and `dmin` of a block that begins like `q4_k`.
#[inline(always)]
unsafe fn k_head(at: *const u8) -> ([__m512i; 4], __m256i, u32) {
    // SAFETY: the caller's promise of at least 16 bytes; inlined where the processor has the
    // instructions.
    unsafe {
        let sides = k_sides(at);
        let scales = [
            spread::<0>(sides),
            spread::<1>(sides),
            spread::<2>(sides),
            spread::<3>(sides),
        ];
        let mins = _mm_unpackhi_epi8(_mm512_castsi512_si128(sides), _mm_setzero_si128());
        let pair = at.cast::<u32>().read_unaligned();
        (scales, _mm256_zextsi128_si256(mins), pair)
    }
}

impl Format for Q4K {
    const BYTES: usize = 144;
    const GROUP: usize = 32;
    const MINS: usize = 32;
    fn new() -> Self {
        Q4K
    }
    #[inline(always)]
    unsafe fn bytes(self, at: *const u8) -> Bytes {
        // SAFETY: 16 bytes and more, as promised.
        let (scales, mins) = unsafe { scales_and_mins(&*at.add(4).cast::<[u8; 12]>()) };
        Bytes {
            scales: [scales, 0],
            mins: [mins, 0],
        }
    }
    #[inline(always)]
    unsafe fn load(self, at: *const u8) -> Block {
        // SAFETY: 144 bytes, as promised.
        unsafe {
            let (scales, sides, pair) = k_head(at);
            // Not by a closure: see `mod.rs`.
            let q = [
                nibbles_64(at.add(16)),
                nibbles_64(at.add(48)),
                nibbles_64(at.add(80)),
                nibbles_64(at.add(112)),
            ];
            Block {
                q,
                signs: [0; 4],
                scales,
                sides,
                pair,
            }
        }
    }
}

impl Format for Q5K {
    const BYTES: usize = 176;
    const GROUP: usize = 32;
    const MINS: usize = 32;
    fn new() -> Self {
        Q5K
    }
    #[inline(always)]
    unsafe fn bytes(self, at: *const u8) -> Bytes {
        // SAFETY: 16 bytes and more, as promised.
        let (scales, mins) = unsafe { scales_and_mins(&*at.add(4).cast::<[u8; 12]>()) };
        Bytes {
            scales: [scales, 0],
            mins: [mins, 0],
        }
    }
    #[inline(always)]
    unsafe fn load(self, at: *const u8) -> Block {
        // SAFETY: 176 bytes, as promised.
        unsafe {
            let (scales, sides, pair) = k_head(at);
            let high = _mm512_broadcast_i64x4(_mm256_loadu_si256(at.add(16).cast()));
            let ones = _mm512_inserti64x4::<1>(_mm512_set1_epi8(1), _mm256_set1_epi8(2));
            let sixteen = _mm512_set1_epi8(16);
            let bits = [
                ones,
                _mm512_slli_epi16::<2>(ones),
                _mm512_slli_epi16::<4>(ones),
                _mm512_slli_epi16::<6>(ones),
            ];
            let mut q = [_mm512_setzero_si512(); 4];
            for g in 0..4 {
                let low = nibbles_64(at.add(48 + 32 * g));
                let set = _mm512_test_epi8_mask(high, bits[g]);
                q[g] = _mm512_mask_add_epi8(low, set, low, sixteen);
            }
            Block {
                q,
                signs: [0; 4],
                scales,
                sides,
                pair,
            }
        }
    }
}

impl Format for Q6K {
    const BYTES: usize = 210;
    const GROUP: usize = 16;
    const MINS: usize = 0;
    const ZERO: i32 = 32;
    fn new() -> Self {
        Q6K
    }
    #[inline(always)]
    unsafe fn bytes(self, at: *const u8) -> Bytes {
        // SAFETY: 210 bytes, as promised.
        unsafe {
            let at = at.add(192).cast::<u64>();
            Bytes {
                scales: [at.read_unaligned(), at.add(1).read_unaligned()],
                mins: [0; 2],
            }
        }
    }
    #[inline(always)]
    unsafe fn load(self, at: *const u8) -> Block {
        // SAFETY: 210 bytes, as promised; inlined where the processor has the instructions.
        unsafe {
            let low = _mm512_set1_epi8(15);
            let high = _mm512_set1_epi8(0x30);
            let up = _mm512_setr_epi64(4, 4, 4, 4, 2, 2, 2, 2);
            let down = _mm512_setr_epi64(0, 0, 0, 0, 2, 2, 2, 2);
            let half = |n: usize| {
                let a = _mm512_loadu_si512(at.add(64 * n).cast());
                let b = _mm256_loadu_si256(at.add(128 + 32 * n).cast());
                let b = _mm512_broadcast_i64x4(b);
                let first = _mm512_and_si512(a, low);
                let second = _mm512_and_si512(_mm512_srli_epi16::<4>(a), low);
                // (b & high) | first
                (
                    _mm512_ternarylogic_epi64::<0xf8>(first, _mm512_sllv_epi64(b, up), high),
                    _mm512_ternarylogic_epi64::<0xf8>(second, _mm512_srlv_epi64(b, down), high),
                )
            };
            let (a, b) = (half(0), half(1));
            let sides = _mm256_cvtepi8_epi16(_mm_loadu_si128(at.add(192).cast()));
            Block {
                q: [a.0, a.1, b.0, b.1],
                signs: [0; 4],
                scales: spread_16(sides),
                sides,
                pair: at.add(208).cast::<u16>().read_unaligned().into(),
            }
        }
    }
}
