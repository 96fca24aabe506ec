//! Formats of less than four bits for AVX-512. A block's points of a grid are looked up all at once
//! in vectors that hold the grid as numbers of magnitudes, so nothing is gathered from memory.

use std::arch::x86_64::*;

use super::formats::{Block, Bytes, Format, widen_8};
use crate::cpu::quantized::grids::{
    self, MAGNITUDES_2, MAGNITUDES_3, MAGNITUDES_3_ODD, SIGNS, grid,
};
use crate::cpu::quantized::unpack::scales_of_q3_k;
use crate::quant::TensorType;

#[derive(Clone, Copy)]
pub(in crate::cpu::quantized) struct Q2K;
#[derive(Clone, Copy)]
pub(in crate::cpu::quantized) struct Q3K;

/// Two bits of each of 64 values: those of 32 bytes from bit `2 * pair` on, then from the next two.
#[inline(always)]
unsafe fn two_bits(at: *const u8, pair: i64) -> __m512i {
    // SAFETY: the caller's promise of 32 bytes; inlined where the processor has the instructions.
    unsafe {
        let v = _mm512_broadcast_i64x4(_mm256_loadu_si256(at.cast()));
        let (low, high) = (2 * pair, 2 * pair + 2);
        let down = _mm512_setr_epi64(low, low, low, low, high, high, high, high);
        _mm512_and_si512(_mm512_srlv_epi64(v, down), _mm512_set1_epi8(3))
    }
}

impl Format for Q2K {
    const BYTES: usize = 84;
    const GROUP: usize = 16;
    const MINS: usize = 16;
    fn new() -> Self {
        Q2K
    }
    #[inline(always)]
    unsafe fn bytes(self, at: *const u8) -> Bytes {
        const LOW: u64 = 0x0f0f_0f0f_0f0f_0f0f;
        // SAFETY: 84 bytes, as promised.
        let both = unsafe { at.cast::<[u64; 2]>().read_unaligned() };
        Bytes {
            scales: both.map(|b| b & LOW),
            mins: both.map(|b| b >> 4 & LOW),
        }
    }
    #[inline(always)]
    unsafe fn load(self, at: *const u8) -> Block {
        // SAFETY: 84 bytes, as promised; inlined where the processor has the instructions.
        unsafe {
            let both = _mm256_cvtepu8_epi16(_mm_loadu_si128(at.cast()));
            let scales = _mm256_and_si256(both, _mm256_set1_epi16(15));
            Block {
                q: [
                    two_bits(at.add(16), 0),
                    two_bits(at.add(16), 2),
                    two_bits(at.add(48), 0),
                    two_bits(at.add(48), 2),
                ],
                signs: [0; 4],
                scales,
                mins: _mm256_srli_epi16::<4>(both),
                pair: at.add(80).cast::<u32>().read_unaligned(),
            }
        }
    }
}

impl Format for Q3K {
    const BYTES: usize = 110;
    const GROUP: usize = 16;
    const MINS: usize = 0;
    const ZERO: i32 = 4;
    fn new() -> Self {
        Q3K
    }
    #[inline(always)]
    unsafe fn bytes(self, at: *const u8) -> Bytes {
        // SAFETY: 110 bytes, as promised.
        let scales = unsafe { scales_of_q3_k(&*at.add(96).cast::<[u8; 12]>()) };
        let down = |byte: u8| byte.wrapping_sub(32);
        Bytes {
            scales: scales.map(|s| u64::from_le_bytes(s.to_le_bytes().map(down))),
            mins: [0; 2],
        }
    }
    #[inline(always)]
    unsafe fn load(self, at: *const u8) -> Block {
        // SAFETY: 110 bytes, as promised; inlined where the processor has the instructions.
        unsafe {
            let [low, high] = scales_of_q3_k(&*at.add(96).cast::<[u8; 12]>());
            let scales = _mm256_cvtepu8_epi16(_mm_set_epi64x(high as i64, low as i64));
            let scales = _mm256_sub_epi16(scales, _mm256_set1_epi16(32));
            let high = _mm512_broadcast_i64x4(_mm256_loadu_si256(at.cast()));
            let four = _mm512_set1_epi8(4);
            let mut q = [_mm512_setzero_si512(); 4];
            for (g, q) in q.iter_mut().enumerate() {
                let low = two_bits(at.add(32 + g / 2 * 32), (g % 2 * 2) as i64);
                let (first, second) = (1u8 << (2 * g), 2u8 << (2 * g));
                let bits = _mm512_inserti64x4::<1>(
                    _mm512_set1_epi8(first as i8),
                    _mm256_set1_epi8(second as i8),
                );
                let set = _mm512_test_epi8_mask(high, bits);
                *q = _mm512_mask_add_epi8(low, set, low, four);
            }
            Block {
                q,
                signs: [0; 4],
                scales,
                mins: _mm256_setzero_si256(),
                pair: at.add(108).cast::<u16>().read_unaligned().into(),
            }
        }
    }
}

/// For each of 32 words the entry of `codes` that it names, of `64 * N`.
#[inline(always)]
unsafe fn look_up<const N: usize>(codes: &[u16], at: __m512i) -> __m512i {
    debug_assert_eq!(codes.len(), 64 * N);
    // SAFETY: `64 * N` words; inlined where the processor has the instructions.
    unsafe {
        // Not by a closure: see `mod.rs`.
        let mut parts = [_mm512_setzero_si512(); N];
        for (i, part) in parts.iter_mut().enumerate() {
            let low = _mm512_loadu_si512(codes.as_ptr().add(64 * i).cast());
            let high = _mm512_loadu_si512(codes.as_ptr().add(64 * i + 32).cast());
            *part = _mm512_permutex2var_epi16(low, at, high);
        }
        let (mut count, mut bit) = (N, 64);
        while count > 1 {
            let set = _mm512_test_epi16_mask(at, _mm512_set1_epi16(bit));
            for i in 0..count / 2 {
                parts[i] = _mm512_mask_mov_epi16(parts[2 * i], set, parts[2 * i + 1]);
            }
            (count, bit) = (count / 2, bit << 1);
        }
        parts[0]
    }
}

/// The magnitudes of points of eight, from 32 codes of twice eight bits.
#[inline(always)]
unsafe fn magnitudes_of_8(codes: __m512i) -> [__m512i; 4] {
    // SAFETY: inlined where the processor has the instructions.
    unsafe {
        let table = _mm_set1_epi32(i32::from_le_bytes(MAGNITUDES_2.map(|m| m)));
        let table = _mm512_broadcast_i32x4(table);
        let fields = _mm512_set1_epi64(0x0e0c_0a08_0604_0200);
        let wide = |eight: __m128i| {
            let v = _mm512_multishift_epi64_epi8(fields, _mm512_cvtepu16_epi64(eight));
            _mm512_shuffle_epi8(table, _mm512_and_si512(v, _mm512_set1_epi8(3)))
        };
        [
            wide(_mm512_castsi512_si128(codes)),
            wide(_mm512_extracti32x4_epi32::<1>(codes)),
            wide(_mm512_extracti32x4_epi32::<2>(codes)),
            wide(_mm512_extracti32x4_epi32::<3>(codes)),
        ]
    }
}

/// The magnitudes of points of four, from twice 32 codes of four times three bits.
#[inline(always)]
unsafe fn magnitudes_of_4(codes: [__m512i; 2], table: [u8; 8]) -> [__m512i; 4] {
    // SAFETY: inlined where the processor has the instructions.
    unsafe {
        let table = _mm512_set1_epi64(i64::from_le_bytes(table));
        let fields = _mm512_set1_epi64(0x2926_2320_0906_0300);
        let wide = |sixteen: __m256i| {
            let v = _mm512_multishift_epi64_epi8(fields, _mm512_cvtepu16_epi32(sixteen));
            _mm512_shuffle_epi8(table, _mm512_and_si512(v, _mm512_set1_epi8(7)))
        };
        [
            wide(_mm512_castsi512_si256(codes[0])),
            wide(_mm512_extracti64x4_epi64::<1>(codes[0])),
            wide(_mm512_castsi512_si256(codes[1])),
            wide(_mm512_extracti64x4_epi64::<1>(codes[1])),
        ]
    }
}

/// The bytes of signs that 32 numbers of seven bits stand for; their eighth bits may be anything.
#[inline(always)]
unsafe fn signs_of_7(sevens: __m512i) -> __m512i {
    // SAFETY: 128 bytes; inlined where the processor has the instructions.
    unsafe {
        let low = _mm512_loadu_si512(SIGNS.as_ptr().cast());
        let high = _mm512_loadu_si512(SIGNS.as_ptr().add(64).cast());
        _mm512_permutex2var_epi8(low, sevens, high)
    }
}

/// A bit for each of 256 values.
#[inline(always)]
unsafe fn masks(bytes: __m256i) -> [u64; 4] {
    let mut masks = [0u64; 4];
    // SAFETY: 32 bytes; inlined where the processor has the instructions.
    unsafe { _mm256_storeu_si256(masks.as_mut_ptr().cast(), bytes) };
    masks
}

/// Of eight words of 32 bits, each in the low half of a lane: four times seven bits of signs, and
/// above them a scale.
#[inline(always)]
unsafe fn signs_and_scales(words: __m512i) -> ([u64; 4], __m256i) {
    // SAFETY: inlined where the processor has the instructions.
    unsafe {
        let fields = _mm512_set1_epi64(0x1515_1515_150e_0700);
        let signs = signs_of_7(_mm512_multishift_epi64_epi8(fields, words));
        let scales = _mm512_srli_epi64::<28>(words);
        let scales = _mm512_add_epi64(_mm512_add_epi64(scales, scales), _mm512_set1_epi64(1));
        let bytes = _mm512_cvtepi64_epi8(scales);
        (
            masks(_mm512_cvtepi64_epi32(signs)),
            _mm256_zextsi128_si256(_mm_cvtepu8_epi16(bytes)),
        )
    }
}

/// The scales of eight words of signs and scales, a byte each.
unsafe fn scale_bytes<const STEP: usize>(words: *const u8) -> u64 {
    (0..8).fold(0, |all, at| {
        // SAFETY: the caller's promise of eight words, `STEP` bytes apart.
        let word = unsafe { words.add(STEP * at).cast::<u32>().read_unaligned() };
        all | u64::from(2 * (word >> 28) + 1) << (8 * at)
    })
}

/// Sixteen odd scales of eight bytes, the low nibble's first.
#[inline(always)]
fn odd_scales(nibbles: u64) -> [u64; 2] {
    let half = |bytes: u32| {
        let mut all = 0u64;
        for at in 0..8 {
            let nibble = u64::from(bytes >> (4 * at) & 15);
            all |= (2 * nibble + 1) << (8 * at);
        }
        all
    };
    [half(nibbles as u32), half((nibbles >> 32) as u32)]
}

/// The same, 16 bits each.
#[inline(always)]
unsafe fn wide_odd(nibbles: u64) -> __m256i {
    // SAFETY: inlined where the processor has the instructions.
    unsafe {
        let v = _mm_cvtsi64_si128(nibbles as i64);
        let v = _mm_unpacklo_epi8(v, _mm_srli_epi16::<4>(v));
        let v = _mm_and_si128(v, _mm_set1_epi8(15));
        let v = _mm256_cvtepu8_epi16(v);
        _mm256_add_epi16(_mm256_add_epi16(v, v), _mm256_set1_epi16(1))
    }
}

macro_rules! grid_format {
    ($name:ident, bytes $bytes:literal, group $group:literal, over $over:literal) => {
        #[derive(Clone, Copy)]
        pub(in crate::cpu::quantized) struct $name {
            codes: &'static [u16],
        }

        impl Format for $name {
            const BYTES: usize = $bytes;
            const GROUP: usize = $group;
            const MINS: usize = 0;
            const SIGNED: bool = true;
            const FACTOR: f32 = 1.0 / $over;
            fn new() -> Self {
                let grids::Grid { codes, .. } = grid(TensorType::$name);
                $name { codes }
            }
            #[inline(always)]
            unsafe fn bytes(self, at: *const u8) -> Bytes {
                // SAFETY: the caller's promise.
                let scales = unsafe { $name::scales(at) };
                Bytes {
                    scales,
                    mins: [0; 2],
                }
            }
            #[inline(always)]
            unsafe fn load(self, at: *const u8) -> Block {
                // SAFETY: the caller's promise; `BYTES` begin with a word. Inlined where the
                // processor has the instructions.
                unsafe {
                    let (q, signs, scales) = self.parts(at);
                    Block {
                        q,
                        signs,
                        scales,
                        mins: _mm256_setzero_si256(),
                        pair: at.cast::<u16>().read_unaligned().into(),
                    }
                }
            }
        }
    };
}
grid_format!(Iq2Xxs, bytes 66, group 32, over 8.0);
grid_format!(Iq2Xs, bytes 74, group 16, over 8.0);
grid_format!(Iq2S, bytes 82, group 16, over 8.0);
grid_format!(Iq3Xxs, bytes 98, group 32, over 4.0);
grid_format!(Iq3S, bytes 110, group 32, over 1.0);

/// Magnitudes, signs, and scales as a [`Block`] has them.
type Parts = ([__m512i; 4], [u64; 4], __m256i);

impl Iq2Xxs {
    unsafe fn scales(at: *const u8) -> [u64; 2] {
        // SAFETY: 66 bytes, as promised: eight pairs of words from byte 2 on.
        [unsafe { scale_bytes::<8>(at.add(6)) }, 0]
    }

    #[inline(always)]
    unsafe fn parts(self, at: *const u8) -> Parts {
        // SAFETY: 66 bytes, as promised; inlined where the processor has the instructions.
        unsafe {
            let v = _mm512_loadu_si512(at.add(2).cast());
            let points = _mm512_cvtepu8_epi16(_mm512_cvtepi64_epi32(v));
            let (signs, scales) = signs_and_scales(_mm512_srli_epi64::<32>(v));
            (
                magnitudes_of_8(look_up::<4>(self.codes, points)),
                signs,
                scales,
            )
        }
    }
}

impl Iq2Xs {
    unsafe fn scales(at: *const u8) -> [u64; 2] {
        // SAFETY: 74 bytes, as promised.
        odd_scales(unsafe { at.add(66).cast::<u64>().read_unaligned() })
    }

    #[inline(always)]
    unsafe fn parts(self, at: *const u8) -> Parts {
        // SAFETY: 74 bytes, as promised; inlined where the processor has the instructions.
        unsafe {
            let v = _mm512_loadu_si512(at.add(2).cast());
            let sevens = _mm512_cvtepi16_epi8(_mm512_srli_epi16::<9>(v));
            let signs = signs_of_7(_mm512_castsi256_si512(sevens));
            (
                magnitudes_of_8(look_up::<8>(self.codes, v)),
                masks(_mm512_castsi512_si256(signs)),
                wide_odd(at.add(66).cast::<u64>().read_unaligned()),
            )
        }
    }
}

impl Iq2S {
    unsafe fn scales(at: *const u8) -> [u64; 2] {
        // SAFETY: 82 bytes, as promised.
        odd_scales(unsafe { at.add(74).cast::<u64>().read_unaligned() })
    }

    #[inline(always)]
    unsafe fn parts(self, at: *const u8) -> Parts {
        // SAFETY: 82 bytes, as promised; inlined where the processor has the instructions.
        unsafe {
            let low = _mm512_cvtepu8_epi16(_mm256_loadu_si256(at.add(2).cast()));
            let high = _mm512_cvtepu8_epi64(_mm_loadl_epi64(at.add(66).cast()));
            let fields = _mm512_set1_epi64(0x0606_0606_0604_0200);
            let high = _mm512_multishift_epi64_epi8(fields, high);
            let high = _mm512_and_si512(high, _mm512_set1_epi8(3));
            let high = _mm512_cvtepu8_epi16(_mm512_cvtepi64_epi32(high));
            let points = _mm512_or_si512(low, _mm512_slli_epi16::<8>(high));
            (
                magnitudes_of_8(look_up::<16>(self.codes, points)),
                at.add(34).cast::<[u64; 4]>().read_unaligned(),
                wide_odd(at.add(74).cast::<u64>().read_unaligned()),
            )
        }
    }
}

impl Iq3Xxs {
    unsafe fn scales(at: *const u8) -> [u64; 2] {
        // SAFETY: 98 bytes, as promised: eight words from byte 66 on.
        [unsafe { scale_bytes::<4>(at.add(66)) }, 0]
    }

    #[inline(always)]
    unsafe fn parts(self, at: *const u8) -> Parts {
        // SAFETY: 98 bytes, as promised; inlined where the processor has the instructions.
        unsafe {
            let words = _mm512_cvtepu32_epi64(_mm256_loadu_si256(at.add(66).cast()));
            let (signs, scales) = signs_and_scales(words);
            let first = _mm512_cvtepu8_epi16(_mm256_loadu_si256(at.add(2).cast()));
            let second = _mm512_cvtepu8_epi16(_mm256_loadu_si256(at.add(34).cast()));
            let codes = [
                look_up::<4>(self.codes, first),
                look_up::<4>(self.codes, second),
            ];
            (magnitudes_of_4(codes, MAGNITUDES_3), signs, scales)
        }
    }
}

impl Iq3S {
    unsafe fn scales(at: *const u8) -> [u64; 2] {
        // SAFETY: 110 bytes, as promised.
        let nibbles = unsafe { at.add(106).cast::<u32>().read_unaligned() };
        [odd_scales(nibbles.into())[0], 0]
    }

    #[inline(always)]
    unsafe fn parts(self, at: *const u8) -> Parts {
        // SAFETY: 110 bytes, as promised; inlined where the processor has the instructions.
        unsafe {
            let high = at.add(66).cast::<[u32; 2]>().read_unaligned();
            let more = _mm512_set1_epi16(256);
            let mut codes = [_mm512_setzero_si512(); 2];
            for (half, codes) in codes.iter_mut().enumerate() {
                let points = _mm256_loadu_si256(at.add(2 + 32 * half).cast());
                let points = _mm512_cvtepu8_epi16(points);
                let points = _mm512_mask_add_epi16(points, high[half], points, more);
                *codes = look_up::<8>(self.codes, points);
            }
            (
                magnitudes_of_4(codes, MAGNITUDES_3_ODD),
                at.add(74).cast::<[u64; 4]>().read_unaligned(),
                widen_8(Iq3S::scales(at)[0]),
            )
        }
    }
}
