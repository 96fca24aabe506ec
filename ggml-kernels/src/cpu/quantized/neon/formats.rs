//! Blocks of 256 values, loaded: what `q4_k`, `q5_k` and `q6_k` are in registers.

use std::arch::aarch64::*;

use crate::cpu::quantized::unpack::scales_and_mins;

/// A block of 256, unpacked.
pub(super) struct Block {
    /// Values in their order.
    pub q: [int8x16_t; 16],
    /// The scale of each group of values.
    pub scales: [i32; 16],
    /// The minima of 16 values each, or of 32 in the first register.
    pub mins: [int16x8_t; 2],
    /// `d` and `dmin`.
    pub pair: u32,
}

pub(super) trait Format: Copy {
    const BYTES: usize;
    /// Values that share a scale: 16 or 32.
    const GROUP: usize;
    /// Values that share a minimum: 16 or 32, 0 where there are none.
    const MINS: usize = 0;
    /// What `d` is multiplied by to be the scale of whole numbers.
    const FACTOR: f32 = 1.0;

    fn new() -> Self;

    /// To memory that is used again: moved, a block of so many registers would be copied.
    ///
    /// # Safety
    /// As of [`Dots::dots`](super::Dots::dots), and `BYTES` can be read at `at`.
    unsafe fn load(self, at: *const u8, to: &mut Block);
}

impl Block {
    /// # Safety
    /// Must be inlined where the processor has the instructions.
    #[inline(always)]
    pub(super) unsafe fn empty() -> Block {
        // SAFETY: as promised.
        unsafe {
            Block {
                q: [vdupq_n_s8(0); 16],
                scales: [0; 16],
                mins: [vdupq_n_s16(0); 2],
                pair: 0,
            }
        }
    }
}

#[derive(Clone, Copy)]
pub(super) struct Q4K;
#[derive(Clone, Copy)]
pub(super) struct Q5K;
#[derive(Clone, Copy)]
pub(super) struct Q6K;

/// Sixteen words, wider.
///
/// # Safety
/// Must be inlined where the processor has the instructions.
#[inline(always)]
pub(super) unsafe fn widen(words: [int16x8_t; 2], wide: &mut [i32; 16]) {
    // SAFETY: sixteen words are four registers; inlined where the processor has the instructions.
    unsafe {
        for (i, words) in words.into_iter().enumerate() {
            let to = wide.as_mut_ptr().add(8 * i);
            vst1q_s32(to, vmovl_s16(vget_low_s16(words)));
            vst1q_s32(to.add(4), vmovl_high_s16(words));
        }
    }
}

/// Scales and minima of the first sixteen bytes of a block of `q4_k` or `q5_k`.
#[inline(always)]
unsafe fn k_head(at: *const u8, to: &mut Block) {
    // SAFETY: the caller's promise of at least 16 bytes; inlined where the processor has the
    // instructions.
    unsafe {
        let (scales, mins) = scales_and_mins(&*at.add(4).cast::<[u8; 12]>());
        let wide = |bytes: u64| vreinterpretq_s16_u16(vmovl_u8(vcreate_u8(bytes)));
        let none = vdupq_n_s16(0);
        widen([wide(scales), none], &mut to.scales);
        to.mins[0] = wide(mins);
        to.pair = at.cast::<u32>().read_unaligned();
    }
}

/// The low and the high nibbles of sixteen bytes.
#[inline(always)]
unsafe fn nibbles(at: *const u8) -> [uint8x16_t; 2] {
    // SAFETY: the caller's promise of 16 bytes; inlined where the processor has the instructions.
    unsafe {
        let v = vld1q_u8(at);
        [vandq_u8(v, vdupq_n_u8(15)), vshrq_n_u8::<4>(v)]
    }
}

/// The bits of `mask` in `v` moved up by `up` places, or down.
#[inline(always)]
unsafe fn moved(v: uint8x16_t, up: i8, mask: u8) -> uint8x16_t {
    // SAFETY: inlined where the processor has the instructions.
    unsafe { vandq_u8(vshlq_u8(v, vdupq_n_s8(up)), vdupq_n_u8(mask)) }
}

impl Format for Q4K {
    const BYTES: usize = 144;
    const GROUP: usize = 32;
    const MINS: usize = 32;
    fn new() -> Self {
        Q4K
    }
    #[inline(always)]
    unsafe fn load(self, at: *const u8, to: &mut Block) {
        // SAFETY: 144 bytes, as promised; inlined where the processor has the instructions.
        unsafe {
            for i in 0..8 {
                // Of 32 bytes the low nibbles, then the high ones.
                let [low, high] = nibbles(at.add(16 + 16 * i));
                let first = i / 2 * 4 + i % 2;
                to.q[first] = vreinterpretq_s8_u8(low);
                to.q[first + 2] = vreinterpretq_s8_u8(high);
            }
            k_head(at, to);
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
    unsafe fn load(self, at: *const u8, to: &mut Block) {
        // SAFETY: 176 bytes, as promised; inlined where the processor has the instructions.
        unsafe {
            let bits = [vld1q_u8(at.add(16)), vld1q_u8(at.add(32))];
            for i in 0..8 {
                let [low, high] = nibbles(at.add(48 + 16 * i));
                let (first, bits) = (i / 2 * 4 + i % 2, bits[i % 2]);
                // A bit to each group of 32.
                let up = 4 - (i / 2 * 2) as i8;
                to.q[first] = vreinterpretq_s8_u8(vorrq_u8(low, moved(bits, up, 16)));
                to.q[first + 2] = vreinterpretq_s8_u8(vorrq_u8(high, moved(bits, up - 1, 16)));
            }
            k_head(at, to);
        }
    }
}

impl Format for Q6K {
    const BYTES: usize = 210;
    const GROUP: usize = 16;
    fn new() -> Self {
        Q6K
    }
    #[inline(always)]
    unsafe fn load(self, at: *const u8, to: &mut Block) {
        // SAFETY: 210 bytes, as promised; inlined where the processor has the instructions.
        unsafe {
            let zero = vdupq_n_s8(32);
            for i in 0..8 {
                let [low, high] = nibbles(at.add(16 * i));
                // 64 bytes of low nibbles, then high ones, have two bits each in 32 bytes.
                let (half, place) = (i / 4, i % 4);
                let bits = vld1q_u8(at.add(128 + 32 * half + 16 * (place % 2)));
                let up = 4 - (place / 2 * 2) as i8;
                let first = 8 * half + place;
                let value = |v, bits| vsubq_s8(vreinterpretq_s8_u8(vorrq_u8(v, bits)), zero);
                to.q[first] = value(low, moved(bits, up, 0x30));
                to.q[first + 4] = value(high, moved(bits, up - 4, 0x30));
            }
            let few = vld1q_s8(at.add(192).cast());
            let words = [vmovl_s8(vget_low_s8(few)), vmovl_high_s8(few)];
            widen(words, &mut to.scales);
            to.pair = at.add(208).cast::<u16>().read_unaligned().into();
        }
    }
}
