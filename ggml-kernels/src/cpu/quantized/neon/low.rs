//! Formats of less than four bits for NEON: points of a grid and their signs are looked up eight bytes
//! at a time.

use std::arch::aarch64::*;

use super::formats::{Block, Format, widen};
use crate::cpu::quantized::grids::{FLIPS, Grid, SIGNS, grid};
use crate::cpu::quantized::unpack::scales_of_q3_k;
use crate::quant::TensorType;

#[derive(Clone, Copy)]
pub(super) struct Q2K;
#[derive(Clone, Copy)]
pub(super) struct Q3K;

/// Part `i` of sixteen of a block's values, of whose two bits 64 bytes have four to a byte.
#[inline(always)]
unsafe fn two_bits(at: *const u8, i: usize) -> uint8x16_t {
    // SAFETY: the caller's promise of 64 bytes; inlined where the processor has the instructions.
    unsafe {
        let v = vld1q_u8(at.add(i / 8 * 32 + i % 2 * 16));
        let down = vdupq_n_s8(-2 * (i / 2 % 4) as i8);
        vandq_u8(vshlq_u8(v, down), vdupq_n_u8(3))
    }
}

/// Sixteen bytes as words.
#[inline(always)]
unsafe fn words(v: uint8x16_t) -> [int16x8_t; 2] {
    // SAFETY: inlined where the processor has the instructions.
    unsafe {
        [
            vreinterpretq_s16_u16(vmovl_u8(vget_low_u8(v))),
            vreinterpretq_s16_u16(vmovl_high_u8(v)),
        ]
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
    unsafe fn load(self, at: *const u8, to: &mut Block) {
        // SAFETY: 84 bytes, as promised; inlined where the processor has the instructions.
        unsafe {
            let both = vld1q_u8(at);
            for (i, q) in to.q.iter_mut().enumerate() {
                *q = vreinterpretq_s8_u8(two_bits(at.add(16), i));
            }
            widen(words(vandq_u8(both, vdupq_n_u8(15))), &mut to.scales);
            to.mins = words(vshrq_n_u8::<4>(both));
            to.pair = at.add(80).cast::<u32>().read_unaligned();
        }
    }
}

impl Format for Q3K {
    const BYTES: usize = 110;
    const GROUP: usize = 16;
    fn new() -> Self {
        Q3K
    }
    #[inline(always)]
    unsafe fn load(self, at: *const u8, to: &mut Block) {
        // SAFETY: 110 bytes, as promised; inlined where the processor has the instructions.
        unsafe {
            let [low, high] = scales_of_q3_k(&*at.add(96).cast::<[u8; 12]>());
            let scales = vcombine_u8(vcreate_u8(low), vcreate_u8(high));
            let [a, b] = words(scales);
            let zero = vdupq_n_s16(32);
            let four = vdupq_n_u8(4);
            for (i, q) in to.q.iter_mut().enumerate() {
                // A bit to each 32 values, which is set where they are not 4 lower.
                let set = vtstq_u8(vld1q_u8(at.add(i % 2 * 16)), vdupq_n_u8(1 << (i / 2)));
                let lower = vreinterpretq_s8_u8(vbicq_u8(four, set));
                *q = vsubq_s8(vreinterpretq_s8_u8(two_bits(at.add(32), i)), lower);
            }
            widen([vsubq_s16(a, zero), vsubq_s16(b, zero)], &mut to.scales);
            to.pair = at.add(108).cast::<u16>().read_unaligned().into();
        }
    }
}

/// 16 values: points of eight and their signs.
#[inline(always)]
unsafe fn signed(points: [u64; 2], signs: [u8; 2]) -> int8x16_t {
    // SAFETY: inlined where the processor has the instructions.
    unsafe {
        let q = vcombine_s8(vcreate_s8(points[0]), vcreate_s8(points[1]));
        let [a, b] = [FLIPS[usize::from(signs[0])], FLIPS[usize::from(signs[1])]];
        vmulq_s8(q, vcombine_s8(vcreate_s8(a), vcreate_s8(b)))
    }
}

/// Eight signs of the four times seven bits in a word.
#[inline(always)]
fn signs_in(word: u32, i: usize) -> u8 {
    SIGNS[(word >> (7 * i) & 127) as usize]
}

#[inline(always)]
fn word(block: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([block[at], block[at + 1], block[at + 2], block[at + 3]])
}

/// The odd number that four bits stand for.
#[inline(always)]
fn odd(four_bits: u32) -> i32 {
    (2 * (four_bits & 15) + 1).cast_signed()
}

/// What a type of a grid is made of.
trait OfGrid: Copy {
    const LEN: usize;
    /// Which eight magnitudes the values `8 i..` have, and their signs.
    fn point(self, block: &[u8], i: usize) -> (u64, u8);
    /// The scale of a group of values.
    fn scale(block: &[u8], group: usize) -> i32;
}

#[inline(always)]
unsafe fn of_grid<G: OfGrid + Format>(grid: G, at: *const u8, to: &mut Block) {
    // SAFETY: the caller's promise of so many bytes, which begin with a word. Inlined where the
    // processor has the instructions.
    unsafe {
        let block = std::slice::from_raw_parts(at, G::LEN);
        for (i, q) in to.q.iter_mut().enumerate() {
            let (a, b) = (grid.point(block, 2 * i), grid.point(block, 2 * i + 1));
            *q = signed([a.0, b.0], [a.1, b.1]);
        }
        for (group, scale) in to.scales[..256 / G::GROUP].iter_mut().enumerate() {
            *scale = G::scale(block, group);
        }
        to.pair = at.cast::<u16>().read_unaligned().into();
    }
}

macro_rules! grid_format {
    ($name:ident, bytes $bytes:literal, over $over:literal, group $group:literal) => {
        #[derive(Clone, Copy)]
        pub(super) struct $name {
            points: &'static [u64],
        }

        impl Format for $name {
            const BYTES: usize = $bytes;
            const GROUP: usize = $group;
            const FACTOR: f32 = 1.0 / $over;
            fn new() -> Self {
                let Grid { points, .. } = grid(TensorType::$name);
                $name { points }
            }
            #[inline(always)]
            unsafe fn load(self, at: *const u8, to: &mut Block) {
                // SAFETY: the caller's promise.
                unsafe { of_grid(self, at, to) }
            }
        }
    };
}
grid_format!(Iq2Xxs, bytes 66, over 8.0, group 32);
grid_format!(Iq2Xs, bytes 74, over 8.0, group 16);
grid_format!(Iq2S, bytes 82, over 8.0, group 16);
grid_format!(Iq3Xxs, bytes 98, over 4.0, group 32);
grid_format!(Iq3S, bytes 110, over 1.0, group 32);

impl OfGrid for Iq2Xxs {
    const LEN: usize = 66;
    #[inline(always)]
    fn point(self, block: &[u8], i: usize) -> (u64, u8) {
        let signs = signs_in(word(block, 6 + i / 4 * 8), i % 4);
        (
            self.points[usize::from(block[2 + i / 4 * 8 + i % 4])],
            signs,
        )
    }
    #[inline(always)]
    fn scale(block: &[u8], group: usize) -> i32 {
        odd(word(block, 6 + 8 * group) >> 28)
    }
}

impl OfGrid for Iq2Xs {
    const LEN: usize = 74;
    #[inline(always)]
    fn point(self, block: &[u8], i: usize) -> (u64, u8) {
        let word = u16::from_le_bytes([block[2 + 2 * i], block[3 + 2 * i]]);
        (
            self.points[usize::from(word & 511)],
            SIGNS[usize::from(word >> 9)],
        )
    }
    #[inline(always)]
    fn scale(block: &[u8], group: usize) -> i32 {
        odd(u32::from(block[66 + group / 2] >> (group % 2 * 4)))
    }
}

impl OfGrid for Iq2S {
    const LEN: usize = 82;
    #[inline(always)]
    fn point(self, block: &[u8], i: usize) -> (u64, u8) {
        let high = usize::from(block[66 + i / 4] >> (i % 4 * 2) & 3);
        (
            self.points[usize::from(block[2 + i]) | high << 8],
            block[34 + i],
        )
    }
    #[inline(always)]
    fn scale(block: &[u8], group: usize) -> i32 {
        odd(u32::from(block[74 + group / 2] >> (group % 2 * 4)))
    }
}

impl OfGrid for Iq3Xxs {
    const LEN: usize = 98;
    #[inline(always)]
    fn point(self, block: &[u8], i: usize) -> (u64, u8) {
        let half = |i: usize| self.points[usize::from(block[2 + i])];
        let signs = signs_in(word(block, 66 + i / 4 * 4), i % 4);
        (half(2 * i) | half(2 * i + 1) << 32, signs)
    }
    #[inline(always)]
    fn scale(block: &[u8], group: usize) -> i32 {
        odd(word(block, 66 + 4 * group) >> 28)
    }
}

impl OfGrid for Iq3S {
    const LEN: usize = 110;
    #[inline(always)]
    fn point(self, block: &[u8], i: usize) -> (u64, u8) {
        let half = |i: usize| {
            let high = usize::from(block[66 + i / 8] >> (i % 8) & 1);
            self.points[usize::from(block[2 + i]) | high << 8]
        };
        (half(2 * i) | half(2 * i + 1) << 32, block[74 + i])
    }
    #[inline(always)]
    fn scale(block: &[u8], group: usize) -> i32 {
        odd(u32::from(block[106 + group / 2] >> (group % 2 * 4)))
    }
}
