//! Sums over all logits of a row, in loops that compile to vectors: a vocabulary has a hundred thousand
//! tokens and more. What stands in such a loop is always inlined: a call in it is ten times slower. A logit's weight is e to its distance from the largest, over the temperature.

/// Logits that are looked at together.
pub const PIECE: usize = 128;
/// Sums and maxima that are made side by side.
const LANES: usize = 16;

/// NaN as minus infinity, and infinities as the last numbers.
#[expect(clippy::manual_clamp, reason = "a clamp keeps NaN")]
#[inline(always)]
pub fn finite(logit: f32) -> f32 {
    logit.max(f32::MIN).min(f32::MAX)
}

/// e^x for x <= 0, within 1e-7 of itself; 0 below -87. Without branches and calls, so that loops of it
/// are vectors.
#[inline(always)]
pub fn exp(x: f32) -> f32 {
    // Adding it rounds to a whole number, which then lies in the last bits.
    const ROUND: f32 = 12_582_912.0;
    const LN2_HIGH: f32 = 0.693_359_4;
    const LN2_LOW: f32 = -2.121_944_4e-4;
    let near = x.max(-87.0);
    let shifted = near * std::f32::consts::LOG2_E + ROUND;
    let n = shifted - ROUND;
    let r = (near - n * LN2_HIGH) - n * LN2_LOW;
    // Cephes' polynomial of e^r on +-ln(2)/2.
    let mut p = 1.987_569_1e-4;
    for c in [
        1.398_2e-3,
        8.333_452e-3,
        4.166_579_6e-2,
        1.666_666_5e-1,
        0.5,
    ] {
        p = p * r + c;
    }
    let e = p * (r * r) + r + 1.0;
    let exponent = shifted.to_bits().wrapping_sub(ROUND.to_bits());
    let power = f32::from_bits(exponent.wrapping_add(127) << 23);
    if x < -87.0 { 0.0 } else { e * power }
}

/// The largest of all, and of every piece.
pub fn tops(logits: &[f32], tops: &mut Vec<f32>) -> f32 {
    tops.clear();
    tops.extend(logits.chunks(PIECE).map(top_of));
    tops.iter().fold(f32::MIN, |most, &top| most.max(top))
}

fn top_of(piece: &[f32]) -> f32 {
    let mut lanes = [f32::MIN; LANES];
    let (many, rest) = piece.as_chunks::<LANES>();
    for values in many {
        for i in 0..LANES {
            lanes[i] = lanes[i].max(values[i]);
        }
    }
    let most = lanes.iter().chain(rest).fold(f32::MIN, |m, &v| m.max(v));
    finite(most)
}

/// The weight of all, and of every piece.
pub fn masses(logits: &[f32], most: f32, temperature: f32, masses: &mut Vec<f64>) -> f64 {
    masses.clear();
    let pieces = logits.chunks(PIECE);
    masses.extend(pieces.map(|piece| mass_of(piece, most, temperature)));
    masses.iter().sum()
}

fn mass_of(piece: &[f32], most: f32, temperature: f32) -> f64 {
    let mut lanes = [0f32; LANES];
    let (many, rest) = piece.as_chunks::<LANES>();
    for values in many {
        for i in 0..LANES {
            lanes[i] += weight(values[i], most, temperature);
        }
    }
    let mut mass = 0.0;
    for lane in lanes {
        mass += f64::from(lane);
    }
    for &value in rest {
        mass += f64::from(weight(value, most, temperature));
    }
    mass
}

#[inline(always)]
pub fn weight(logit: f32, most: f32, temperature: f32) -> f32 {
    // Where the largest is divided too, it weighs 1 exactly, whatever the division rounds to.
    exp(finite(finite(logit) / temperature) - finite(most / temperature))
}

/// The first token with which the weights come to more than `left`; the last that weighs anything where
/// rounding leaves a crumb. `masses` as above.
pub fn token_at(
    logits: &[f32],
    (most, temperature): (f32, f32),
    masses: &[f64],
    mut left: f64,
) -> Option<u32> {
    let mut last = None;
    for (at, (piece, &mass)) in logits.chunks(PIECE).zip(masses).enumerate() {
        if left >= mass && mass > 0.0 {
            left -= mass;
            last = Some(at);
            continue;
        }
        if mass > 0.0 {
            let found = token_in(piece, (most, temperature), left);
            return found.map(|i| (at * PIECE + i) as u32);
        }
    }
    let at = last?;
    let piece = logits.chunks(PIECE).nth(at)?;
    let found = token_in(piece, (most, temperature), f64::INFINITY);
    found.map(|i| (at * PIECE + i) as u32)
}

fn token_in(piece: &[f32], (most, temperature): (f32, f32), mut left: f64) -> Option<usize> {
    let mut last = None;
    for (at, &logit) in piece.iter().enumerate() {
        let weight = weight(logit, most, temperature);
        if weight > 0.0 {
            last = Some(at);
        }
        left -= f64::from(weight);
        if left < 0.0 {
            break;
        }
    }
    last
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn e_to_a_power_is_within_a_few_units_of_the_last_place() {
        let mut worst = 0f64;
        for i in 0..870_000 {
            let x = -(i as f32) * 1e-4;
            let want = f64::from(x).exp();
            worst = worst.max((f64::from(exp(x)) - want).abs() / want);
        }
        println!("e^x on -87..0: {worst:.2e} of itself at worst");
        assert!(worst < 1.5e-7);
        assert_eq!((exp(0.0), exp(-87.1), exp(f32::MIN)), (1.0, 0.0, 0.0));
    }

    #[test]
    fn what_is_no_number_counts_as_the_least() {
        let (nan, inf) = (f32::NAN, f32::INFINITY);
        assert_eq!(finite(nan), f32::MIN);
        assert_eq!((finite(inf), finite(-inf)), (f32::MAX, f32::MIN));
        assert_eq!(tops(&[nan, 2.0, nan], &mut Vec::new()), 2.0);
        assert_eq!(tops(&[nan; 20], &mut Vec::new()), f32::MIN);
    }

    proptest::proptest! {
        #[test]
        fn sums_and_tops_are_those_of_a_plain_loop(
            logits in proptest::collection::vec(-30.0f32..30.0, 1..700),
            temperature in 0.1f32..3.0, unit in 0.0f64..1.0,
        ) {
            let (mut of_tops, mut of_masses) = (Vec::new(), Vec::new());
            let most = tops(&logits, &mut of_tops);
            let want = logits.iter().copied().fold(f32::MIN, f32::max);
            proptest::prop_assert_eq!(most, want);
            let mass = masses(&logits, most, temperature, &mut of_masses);
            let weigh = |&l: &f32| (f64::from(l - most) / f64::from(temperature)).exp();
            let whole: f64 = logits.iter().map(weigh).sum();
            proptest::prop_assert!((mass - whole).abs() < 1e-5 * whole, "{} {}", mass, whole);
            let token = token_at(&logits, (most, temperature), &of_masses, unit * mass);
            let token = token.expect("one of them") as usize;
            let before: f64 = logits[..token].iter().map(weigh).sum();
            let with = before + weigh(&logits[token]);
            let (at, slack) = (unit * whole, 1e-5 * whole);
            proptest::prop_assert!(before - slack <= at && at <= with + slack);
        }
    }
}
