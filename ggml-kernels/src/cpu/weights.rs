//! What drawing a token needs of all logits of a row, of which a vocabulary has a hundred thousand and
//! more. A logit weighs e to its distance from the largest, over the temperature. NaN counts as the
//! least number, infinities as the last ones that are numbers. Every tier gives the same bits. Chooses
//! nothing.

use super::Tier;
use super::math::exp_v;
use super::simd::{Arith, Body, LANES, One, Simd, dispatch};

/// Logits that are looked at together.
pub const PIECE: usize = 128;

pub fn finite(logit: f32) -> f32 {
    finite_v(One, logit)
}

/// What weights are held against.
#[derive(Debug, Clone, Copy)]
pub struct Scale {
    /// The largest logit, finite: it weighs 1.
    pub most: f32,
    /// More than 0.
    pub temperature: f32,
}

/// The largest of every piece; of all.
pub fn tops(tier: Tier, logits: &[f32], tops: &mut Vec<f32>) -> f32 {
    tops.clear();
    dispatch(tier, Tops { logits, tops });
    tops.iter().copied().fold(f32::MIN, f32::max)
}

/// The weight of every piece; of all.
pub fn masses(tier: Tier, logits: &[f32], scale: Scale, masses: &mut Vec<f64>) -> f64 {
    masses.clear();
    let all = Masses {
        logits,
        scale,
        masses,
    };
    dispatch(tier, all);
    masses.iter().sum()
}

/// The weight of each.
pub fn weights(tier: Tier, logits: &[f32], scale: Scale, weights: &mut [f32]) {
    assert_eq!(logits.len(), weights.len(), "weights");
    let each = Weights {
        logits,
        scale,
        weights,
    };
    dispatch(tier, each);
}

// In this order NaN becomes the least; a clamp would keep it.
#[inline(always)]
fn finite_v<A: Arith>(s: A, x: A::V) -> A::V {
    s.min(s.max(x, s.splat(f32::MIN)), s.splat(f32::MAX))
}

#[inline(always)]
fn weight_v<A: Arith>(s: A, x: A::V, scale: Scale) -> A::V {
    let over = |x| finite_v(s, s.div(x, s.splat(scale.temperature)));
    exp_v(s, s.sub(over(finite_v(s, x)), over(s.splat(scale.most))))
}

/// The last values of a row, and as many of `rest` after them as fill a vector.
fn filled(values: &[f32], rest: f32) -> [f32; LANES] {
    let mut all = [rest; LANES];
    all[..values.len()].copy_from_slice(values);
    all
}

struct Tops<'l> {
    logits: &'l [f32],
    tops: &'l mut Vec<f32>,
}

impl Body for Tops<'_> {
    type Out = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        for piece in self.logits.chunks(PIECE) {
            let (whole, rest) = piece.as_chunks::<LANES>();
            let mut most = finite_v(s, s.load(&filled(rest, f32::MIN)));
            for x in whole {
                most = s.max(s.load(x), most);
            }
            let mut lanes = [0.0; LANES];
            s.store(&mut lanes, finite_v(s, most));
            self.tops.push(lanes.into_iter().fold(f32::MIN, f32::max));
        }
    }
}

struct Masses<'l> {
    logits: &'l [f32],
    scale: Scale,
    masses: &'l mut Vec<f64>,
}

impl Body for Masses<'_> {
    type Out = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        for piece in self.logits.chunks(PIECE) {
            let (whole, rest) = piece.as_chunks::<LANES>();
            let mut last = [0.0; LANES];
            s.store(
                &mut last,
                weight_v(s, s.load(&filled(rest, 0.0)), self.scale),
            );
            last[rest.len()..].fill(0.0);
            let mut mass = s.load(&last);
            for x in whole {
                mass = s.add(mass, weight_v(s, s.load(x), self.scale));
            }
            self.masses.push(f64::from(s.sum(mass)));
        }
    }
}

struct Weights<'l> {
    logits: &'l [f32],
    scale: Scale,
    weights: &'l mut [f32],
}

impl Body for Weights<'_> {
    type Out = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let (whole, rest) = self.logits.as_chunks::<LANES>();
        let (to, to_rest) = self.weights.as_chunks_mut::<LANES>();
        for (x, to) in whole.iter().zip(to) {
            s.store(to, weight_v(s, s.load(x), self.scale));
        }
        let mut last = [0.0; LANES];
        s.store(
            &mut last,
            weight_v(s, s.load(&filled(rest, 0.0)), self.scale),
        );
        to_rest.copy_from_slice(&last[..rest.len()]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(n: usize) -> Vec<f32> {
        let logit = |i: usize| (i * 7919 % 1009) as f32 * 0.04 - 20.0;
        (0..n).map(logit).collect()
    }

    const LENGTHS: [usize; 9] = [0, 1, 15, 16, 17, 127, 128, 129, 1000];

    #[test]
    fn sums_and_tops_are_those_of_a_plain_loop_in_f64() {
        let tier = Tier::detect();
        let mut worst = 0f64;
        for n in LENGTHS {
            let logits = row(n);
            for temperature in [0.1, 0.7, 1.0, 3.0] {
                let (mut of_tops, mut of_masses) = (Vec::new(), Vec::new());
                let most = tops(tier, &logits, &mut of_tops);
                assert_eq!(most, logits.iter().copied().fold(f32::MIN, f32::max));
                let scale = Scale { most, temperature };
                let mass = masses(tier, &logits, scale, &mut of_masses);
                let mut each = vec![0.0; n];
                weights(tier, &logits, scale, &mut each);
                let weigh = |&l: &f32| (f64::from(l - most) / f64::from(temperature)).exp();
                for (at, piece) in logits.chunks(PIECE).enumerate() {
                    let want: f64 = piece.iter().map(weigh).sum();
                    // What is lighter may be 0: e^-104 and less.
                    if want > 1e-30 {
                        worst = worst.max((of_masses[at] - want).abs() / want);
                    }
                    let own = each[at * PIECE..].iter().take(PIECE);
                    let own: f64 = own.map(|&w| f64::from(w)).sum();
                    assert!((of_masses[at] - own).abs() <= 1e-6 * own);
                    let top = piece.iter().copied().fold(f32::MIN, f32::max);
                    assert_eq!(of_tops[at], top);
                }
                let want: f64 = logits.iter().map(weigh).sum();
                assert!((mass - want).abs() <= 2e-5 * want, "{n}: {mass} of {want}");
            }
        }
        // Of distances of two hundred, whose quotient is rounded to f32.
        println!("a piece's weight: {worst:.1e} of itself at worst");
        assert!(worst < 2e-5);
    }

    #[test]
    fn every_tier_gives_the_same_bits() {
        let all = |tier| {
            let (mut of_tops, mut of_masses, mut of_weights) = (Vec::new(), Vec::new(), Vec::new());
            for n in LENGTHS {
                let mut logits = row(n);
                logits.extend([f32::NAN, f32::INFINITY, f32::NEG_INFINITY]);
                let (mut one, mut other) = (Vec::new(), Vec::new());
                let most = tops(tier, &logits, &mut one);
                let temperature = 0.7;
                let scale = Scale { most, temperature };
                masses(tier, &logits, scale, &mut other);
                of_tops.extend(one.into_iter().map(f32::to_bits));
                of_masses.extend(other.into_iter().map(f64::to_bits));
                let mut each = vec![0.0; logits.len()];
                weights(tier, &logits, scale, &mut each);
                of_weights.extend(each.into_iter().map(f32::to_bits));
            }
            (of_tops, of_masses, of_weights)
        };
        let tiers = Tier::available();
        for &tier in &tiers {
            assert!(all(tier) == all(tiers[0]), "{tier}");
        }
    }

    #[test]
    fn what_is_no_number_counts_as_the_least() {
        let (nan, inf) = (f32::NAN, f32::INFINITY);
        assert_eq!(finite(nan), f32::MIN);
        assert_eq!((finite(inf), finite(-inf)), (f32::MAX, f32::MIN));
        for tier in Tier::available() {
            for at in [0, 5, 16, 19] {
                let mut logits = [nan; 20];
                assert_eq!(tops(tier, &logits, &mut Vec::new()), f32::MIN);
                let temperature = 1.0;
                let most = f32::MIN;
                let scale = Scale { most, temperature };
                assert_eq!(masses(tier, &logits, scale, &mut Vec::new()), 20.0);
                logits[at] = 2.0;
                let most = tops(tier, &logits, &mut Vec::new());
                assert_eq!(most, 2.0, "{tier} {at}");
                let scale = Scale { most, temperature };
                assert_eq!(masses(tier, &logits, scale, &mut Vec::new()), 1.0);
            }
        }
    }
}
