//! The lanes without instructions by name: one float, and an array of sixteen.

use super::{Arith, LANES, SIGNLESS, Simd};

/// One lane.
#[derive(Debug, Clone, Copy)]
pub(crate) struct One;

/// Sixteen lanes, one after another.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sixteen;

/// `2^n` for a whole `n` in the range of normal numbers: added to 2^23 + 127, it is the last bits
/// of the sum, which the shift moves to the exponent's place.
fn power_of_two(n: f32) -> f32 {
    f32::from_bits((n + 8_388_735.0).to_bits() << 23)
}

impl Arith for One {
    type V = f32;
    #[inline(always)]
    fn splat(self, x: f32) -> f32 {
        x
    }
    #[inline(always)]
    fn add(self, a: f32, b: f32) -> f32 {
        a + b
    }
    #[inline(always)]
    fn sub(self, a: f32, b: f32) -> f32 {
        a - b
    }
    #[inline(always)]
    fn mul(self, a: f32, b: f32) -> f32 {
        a * b
    }
    #[inline(always)]
    fn div(self, a: f32, b: f32) -> f32 {
        a / b
    }
    #[inline(always)]
    fn fma(self, a: f32, b: f32, c: f32) -> f32 {
        a.mul_add(b, c)
    }
    #[inline(always)]
    fn min(self, a: f32, b: f32) -> f32 {
        if a < b { a } else { b }
    }
    #[inline(always)]
    fn max(self, a: f32, b: f32) -> f32 {
        if a > b { a } else { b }
    }
    #[inline(always)]
    fn where_less(self, a: f32, b: f32, x: f32, y: f32) -> f32 {
        if a < b { x } else { y }
    }
    #[inline(always)]
    fn scale(self, a: f32, n: f32) -> f32 {
        // In two halves, since 2^-152 and 2^128 are no normal numbers; the first is exact.
        let half = (n * 0.5).floor();
        a * power_of_two(half) * power_of_two(n - half)
    }
}

macro_rules! each_lane {
    ($($name:ident($($arg:ident),+);)+) => {$(
        #[inline(always)]
        fn $name(self, $($arg: [f32; LANES]),+) -> [f32; LANES] {
            std::array::from_fn(|at| One.$name($($arg[at]),+))
        }
    )+};
}

impl Arith for Sixteen {
    type V = [f32; LANES];
    #[inline(always)]
    fn splat(self, x: f32) -> [f32; LANES] {
        [x; LANES]
    }
    each_lane! {
        add(a, b);
        sub(a, b);
        mul(a, b);
        div(a, b);
        fma(a, b, c);
        min(a, b);
        max(a, b);
        where_less(a, b, x, y);
        scale(a, n);
    }
}

impl Simd for Sixteen {
    const WIDE: bool = false;

    #[inline(always)]
    unsafe fn read(self, at: *const f32) -> [f32; LANES] {
        // SAFETY: the caller's promise.
        unsafe { at.cast::<[f32; LANES]>().read() }
    }
    #[inline(always)]
    unsafe fn write(self, at: *mut f32, v: [f32; LANES]) {
        // SAFETY: the caller's promise.
        unsafe { at.cast::<[f32; LANES]>().write(v) }
    }
    #[inline(always)]
    fn prefetch(self, _: &[u8]) {}
    #[inline(always)]
    fn halves(self, x: &[u8; 2 * LANES]) -> [f32; LANES] {
        std::array::from_fn(|at| half::f16::from_le_bytes([x[2 * at], x[2 * at + 1]]).to_f32())
    }
    #[inline(always)]
    fn bhalves(self, x: &[u8; 2 * LANES]) -> [f32; LANES] {
        std::array::from_fn(|at| half::bf16::from_le_bytes([x[2 * at], x[2 * at + 1]]).to_f32())
    }
    #[inline(always)]
    fn bytes(self, x: &[u8; LANES]) -> [f32; LANES] {
        x.map(|byte| f32::from(byte.cast_signed()))
    }
    #[inline(always)]
    fn greatest(self, v: [f32; LANES]) -> u32 {
        v.iter().fold(0, |most, x| most.max(x.to_bits() & SIGNLESS))
    }
    #[inline(always)]
    fn low_bytes(self, v: [f32; LANES]) -> [i8; LANES] {
        v.map(|x| x.to_bits() as i8)
    }
    #[inline(always)]
    fn sum_bytes(self, x: &[i8; LANES]) -> i16 {
        x.iter().map(|&x| i16::from(x)).sum()
    }
}
