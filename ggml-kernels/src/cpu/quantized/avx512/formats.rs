//! Blocks of 256 values, loaded: what `q4_k`, `q5_k` and `q6_k` are in registers.

use std::arch::x86_64::*;

use crate::cpu::quantized::unpack::scales_and_mins;

/// A block of 256 in registers.
pub(in crate::cpu::quantized) struct Block {
    /// Unsigned values in their order.
    pub q: [__m512i; 4],
    /// Which of them are negative; only where the format is signed.
    pub signs: [u64; 4],
    /// The scales of 16 values each, or of 32 in the low half: 16 bits each.
    pub scales: __m256i,
    /// The minima of 16 values each, or of 32 in the low half.
    pub mins: __m256i,
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

/// Twice 32 bytes. Loads of 64 would nearly all cross a line, and memory gives a tenth less to those.
#[inline(always)]
unsafe fn halves(low: *const u8, high: *const u8) -> __m512i {
    // SAFETY: the caller's promise of 32 bytes each; inlined where the processor has the instructions.
    unsafe {
        let low = _mm512_castsi256_si512(_mm256_loadu_si256(low.cast()));
        _mm512_inserti64x4::<1>(low, _mm256_loadu_si256(high.cast()))
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

/// Eight bytes to the low half's words.
#[inline(always)]
pub(in crate::cpu::quantized) unsafe fn widen_8(bytes: u64) -> __m256i {
    // SAFETY: inlined where the processor has the instructions.
    unsafe { _mm256_zextsi128_si256(_mm_cvtepu8_epi16(_mm_cvtsi64_si128(bytes as i64))) }
}

/// Scales and minima of a block that begins like `q4_k`.
#[inline(always)]
unsafe fn k_bytes(at: *const u8) -> Bytes {
    // SAFETY: the caller's promise of at least 16 bytes.
    let (scales, mins) = unsafe { scales_and_mins(&*at.add(4).cast::<[u8; 12]>()) };
    Bytes {
        scales: [scales, 0],
        mins: [mins, 0],
    }
}

/// Scales, minima, `d` and `dmin` of a block that begins like `q4_k`. Unpacked where vectors are not:
/// those instructions are what a row waits for.
#[inline(always)]
unsafe fn k_head(at: *const u8) -> (__m256i, __m256i, u32) {
    // SAFETY: the caller's promise of at least 16 bytes; inlined where the processor has the
    // instructions.
    unsafe {
        let bytes = k_bytes(at);
        (
            widen_8(bytes.scales[0]),
            widen_8(bytes.mins[0]),
            at.cast::<u32>().read_unaligned(),
        )
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
        unsafe { k_bytes(at) }
    }
    #[inline(always)]
    unsafe fn load(self, at: *const u8) -> Block {
        // SAFETY: 144 bytes, as promised.
        unsafe {
            let (scales, mins, pair) = k_head(at);
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
                mins,
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
        unsafe { k_bytes(at) }
    }
    #[inline(always)]
    unsafe fn load(self, at: *const u8) -> Block {
        // SAFETY: 176 bytes, as promised.
        unsafe {
            let (scales, mins, pair) = k_head(at);
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
                mins,
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
                let a = halves(at.add(64 * n), at.add(64 * n + 32));
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
            Block {
                q: [a.0, a.1, b.0, b.1],
                signs: [0; 4],
                scales: _mm256_cvtepi8_epi16(_mm_loadu_si128(at.add(192).cast())),
                mins: _mm256_setzero_si256(),
                pair: at.add(208).cast::<u16>().read_unaligned().into(),
            }
        }
    }
}
