//! Exponential and its kin, and what is applied element by element. One body for a float and for
//! every tier: the bits do not depend on who computes them.

use super::Tier;
use super::simd::{Arith, Body, LANES, One, Simd, dispatch};

/// Adding it rounds to a whole number: 1.5 * 2^23.
const ROUND: f32 = 12_582_912.0;
/// ln 2 in two parts; the first has zeros at its end, so that a product with a small whole number
/// is exact.
const LN2_HIGH: f32 = 0.693_359_4;
const LN2_LOW: f32 = -2.121_944_4e-4;

/// e^x. 0 below -104, infinity above 89.
#[inline(always)]
pub(crate) fn exp_v<A: Arith>(s: A, x: A::V) -> A::V {
    // In this order NaN stays NaN.
    let x = s.max(s.splat(-105.0), s.min(s.splat(89.0), x));
    let round = s.splat(ROUND);
    let n = s.fma(x, s.splat(std::f32::consts::LOG2_E), round);
    let n = s.sub(n, round);
    let r = s.fma(n, s.splat(-LN2_HIGH), x);
    let r = s.fma(n, s.splat(-LN2_LOW), r);
    // Minimax on |r| <= ln 2 / 2 (Cephes).
    let mut p = s.splat(1.987_569_1e-4);
    for c in [
        1.398_2e-3,
        8.333_452e-3,
        4.166_579_6e-2,
        1.666_666_5e-1,
        0.5,
    ] {
        p = s.fma(p, r, s.splat(c));
    }
    let p = s.fma(s.mul(r, r), p, r);
    s.scale(s.add(p, s.splat(1.0)), n)
}

/// 1 / (1 + e^-x).
#[inline(always)]
pub(crate) fn sigmoid_v<A: Arith>(s: A, x: A::V) -> A::V {
    let one = s.splat(1.0);
    let e = exp_v(s, s.sub(s.splat(0.0), x));
    s.div(one, s.add(one, e))
}

/// x / (1 + e^-x).
#[inline(always)]
pub(crate) fn silu_v<A: Arith>(s: A, x: A::V) -> A::V {
    let e = exp_v(s, s.sub(s.splat(0.0), x));
    s.div(x, s.add(s.splat(1.0), e))
}

/// ln(1 + e^x) = max(x, 0) + ln(1 + e^-|x|), and with u = e^-|x| and z = u / (2 + u)
/// ln(1 + u) = 2 (z + z^3 / 3 + z^5 / 5 + ...), z <= 1/3.
#[inline(always)]
pub(crate) fn softplus_v<A: Arith>(s: A, x: A::V) -> A::V {
    let zero = s.splat(0.0);
    let u = exp_v(s, s.min(s.sub(zero, x), x));
    let z = s.div(u, s.add(s.splat(2.0), u));
    let square = s.mul(z, z);
    let mut p = s.splat(1.0 / 15.0);
    for odd in [13.0, 11.0, 9.0, 7.0, 5.0, 3.0] {
        p = s.fma(p, square, s.splat(1.0 / odd));
    }
    let p = s.fma(s.mul(p, square), z, z);
    s.fma(p, s.splat(2.0), s.max(zero, x))
}

/// e^x, within 2 units of the last place.
pub fn exp(x: f32) -> f32 {
    exp_v(One, x)
}

/// 1 / (1 + e^-x).
pub fn sigmoid(x: f32) -> f32 {
    sigmoid_v(One, x)
}

/// x / (1 + e^-x).
pub fn silu(x: f32) -> f32 {
    silu_v(One, x)
}

/// ln(1 + e^x).
pub fn softplus(x: f32) -> f32 {
    softplus_v(One, x)
}

/// `inout[i] = f(inout[i], other[i])`, sixteen at a time.
macro_rules! each_pair {
    ($(#[$doc:meta])* $name:ident, $body:ident, |$s:ident, $inout:ident, $other:ident| $value:expr) => {
        struct $body<'x> {
            inout: &'x mut [f32],
            other: &'x [f32],
        }

        impl Body for $body<'_> {
            type Out = ();
            #[inline(always)]
            fn run<S: Simd>(self, $s: S) {
                let (whole, rest) = self.inout.as_chunks_mut::<LANES>();
                let (others, other_rest) = self.other.as_chunks::<LANES>();
                for (x, y) in whole.iter_mut().zip(others) {
                    let ($inout, $other) = ($s.load(x), $s.load(y));
                    $s.store(x, $value);
                }
                let [mut x, mut y] = [[0.0; LANES]; 2];
                x[..rest.len()].copy_from_slice(rest);
                y[..rest.len()].copy_from_slice(other_rest);
                let ($inout, $other) = ($s.load(&x), $s.load(&y));
                $s.store(&mut x, $value);
                rest.copy_from_slice(&x[..rest.len()]);
            }
        }

        $(#[$doc])*
        pub fn $name(tier: Tier, inout: &mut [f32], other: &[f32]) {
            assert_eq!(inout.len(), other.len(), stringify!($name));
            dispatch(tier, $body { inout, other });
        }
    };
}

each_pair! {
    /// `inout += other`.
    add, Add, |s, x, y| s.add(x, y)
}
each_pair! {
    /// `inout *= sigmoid(other)`: a gate that opens its row.
    mul_sigmoid, MulSigmoid, |s, x, y| s.mul(x, sigmoid_v(s, y))
}

/// `up = min(silu(gate), limit) * clamp(up, -limit, limit)`; a limit of infinity bounds nothing.
pub fn silu_mul(tier: Tier, gate: &[f32], up: &mut [f32], limit: f32) {
    assert_eq!(gate.len(), up.len(), "silu_mul");
    dispatch(tier, SiluMul { gate, up, limit });
}

struct SiluMul<'x> {
    gate: &'x [f32],
    up: &'x mut [f32],
    limit: f32,
}

impl Body for SiluMul<'_> {
    type Out = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let (least, most) = (s.splat(-self.limit), s.splat(self.limit));
        // In this order NaN stays NaN.
        let value = |gate: S::V, up: S::V| {
            let up = s.max(least, s.min(most, up));
            s.mul(s.min(most, silu_v(s, gate)), up)
        };
        let (ups, up_rest) = self.up.as_chunks_mut::<LANES>();
        let (gates, gate_rest) = self.gate.as_chunks::<LANES>();
        for (up, gate) in ups.iter_mut().zip(gates) {
            s.store(up, value(s.load(gate), s.load(up)));
        }
        let [mut up, mut gate] = [[0.0; LANES]; 2];
        up[..up_rest.len()].copy_from_slice(up_rest);
        gate[..gate_rest.len()].copy_from_slice(gate_rest);
        let last = value(s.load(&gate), s.load(&up));
        s.store(&mut up, last);
        up_rest.copy_from_slice(&up[..up_rest.len()]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::simd::Sixteen;

    /// The worst distance in units of the last place of the true value.
    fn worst(f: fn(f32) -> f32, truth: fn(f64) -> f64, from: f32, to: f32) -> f64 {
        let steps = 2_000_000;
        let at = |i: i32| from + (to - from) * (i as f32 / steps as f32);
        let off = |x: f32| {
            let want = truth(x.into());
            let nearest = (want as f32).abs().max(f32::MIN_POSITIVE);
            let unit = f64::from(nearest.next_up()) - f64::from(nearest);
            (f64::from(f(x)) - want).abs() / unit
        };
        (0..=steps).map(|i| off(at(i))).fold(0.0, f64::max)
    }

    /// Name, function, the true one, the bound.
    type Case = (&'static str, fn(f32) -> f32, fn(f64) -> f64, f64);

    #[test]
    fn functions_are_within_three_units_of_the_last_place() {
        let cases: [Case; 4] = [
            ("exp", exp, f64::exp, 1.5),
            ("sigmoid", sigmoid, |x| 1.0 / (1.0 + (-x).exp()), 3.0),
            ("silu", silu, |x| x / (1.0 + (-x).exp()), 3.0),
            ("softplus", softplus, |x| x.exp().ln_1p(), 3.0),
        ];
        for (name, f, truth, bound) in cases {
            let small = worst(f, truth, -1.0, 1.0);
            let large = worst(f, truth, -87.0, 87.0);
            println!("{name}: {small:.2} units on (-1, 1), {large:.2} on (-87, 87)");
            assert!(small < bound && large < bound, "{name}: {small} {large}");
        }
    }

    #[test]
    fn the_ends_of_the_range_are_clean() {
        for x in [-104.0, -186.0, -1e30, f32::NEG_INFINITY] {
            assert_eq!((exp(x), sigmoid(x)), (0.0, 0.0), "{x}");
        }
        assert_eq!(exp(-103.0), 1e-45);
        assert_eq!(exp(0.0), 1.0);
        for x in [89.0, 1e30, f32::INFINITY] {
            assert_eq!((exp(x), sigmoid(x)), (f32::INFINITY, 1.0), "{x}");
            assert_eq!((silu(x), softplus(x)), (x, x));
        }
        assert_eq!(silu(-200.0), 0.0);
        for f in [exp, sigmoid, silu, softplus] {
            assert!(f(f32::NAN).is_nan());
        }
    }

    struct All<'x>(&'x [f32]);

    impl Body for All<'_> {
        type Out = Vec<u32>;
        #[inline(always)]
        fn run<S: Simd>(self, s: S) -> Vec<u32> {
            let mut bits = Vec::new();
            for x in self.0.as_chunks::<LANES>().0 {
                let v = s.load(x);
                let results = [exp_v(s, v), sigmoid_v(s, v), silu_v(s, v), softplus_v(s, v)];
                for v in results {
                    let mut out = [0.0; LANES];
                    s.store(&mut out, v);
                    bits.extend(out.map(f32::to_bits));
                }
                bits.push(s.sum(exp_v(s, v)).to_bits());
            }
            bits
        }
    }

    #[test]
    fn every_tier_gives_the_same_bits() {
        let x: Vec<f32> = (0..160_000)
            .map(|i| (i - 80_000) as f32 * 1.37e-3)
            .collect();
        let want = All(&x).run(Sixteen);
        assert_eq!(want[5], exp(x[5]).to_bits());
        for tier in Tier::available() {
            assert!(dispatch(tier, All(&x)) == want, "{tier}");
        }
    }

    #[test]
    fn bounds_hold_what_is_gated_on_one_side_and_what_gates_on_both() {
        let gate: Vec<f32> = (0..100).map(|i| i as f32 * 0.4 - 20.0).collect();
        let up: Vec<f32> = (0..100)
            .map(|i| (i * 37 % 100) as f32 * 0.1 - 5.0)
            .collect();
        for tier in Tier::available() {
            for limit in [0.2, 1.5, 7.0] {
                let mut got = up.clone();
                silu_mul(tier, &gate, &mut got, limit);
                for i in 0..100 {
                    let want = silu(gate[i]).min(limit) * up[i].clamp(-limit, limit);
                    assert_eq!(got[i].to_bits(), want.to_bits(), "{tier} {limit} {i}");
                }
                let mut lost = [f32::NAN, 1.0];
                silu_mul(tier, &[1.0, f32::NAN], &mut lost, limit);
                assert!(lost.iter().all(|x| x.is_nan()), "{tier}: {lost:?}");
            }
        }
    }

    #[test]
    fn slices_of_any_length_are_as_their_elements() {
        for n in [0, 1, 15, 16, 17, 100] {
            let gate: Vec<f32> = (0..n).map(|i| i as f32 * 0.3 - 9.0).collect();
            let up: Vec<f32> = (0..n).map(|i| 1.0 - i as f32 * 0.01).collect();
            for tier in Tier::available() {
                let mut got = up.clone();
                silu_mul(tier, &gate, &mut got, f32::INFINITY);
                for i in 0..n {
                    assert_eq!(got[i].to_bits(), (silu(gate[i]) * up[i]).to_bits());
                }
                mul_sigmoid(tier, &mut got, &gate);
                add(tier, &mut got, &up);
                for i in 0..n {
                    let opened = silu(gate[i]) * up[i] * sigmoid(gate[i]);
                    assert_eq!(got[i].to_bits(), (opened + up[i]).to_bits());
                }
            }
        }
    }
}
