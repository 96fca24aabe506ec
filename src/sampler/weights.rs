//! From a part of all weights to the token that lies there.

use ggml_kernels::cpu::Tier;
use ggml_kernels::cpu::weights::{PIECE, Scale, weights};

use crate::request::Token;

/// The first token with which the weights come to more than `left`; the last that weighs anything where
/// rounding leaves a crumb. `masses`: of the pieces of `logits`.
pub fn token_at(
    tier: Tier,
    logits: &[f32],
    scale: Scale,
    masses: &[f64],
    mut left: f64,
) -> Option<Token> {
    let mut found = None;
    for (at, &mass) in masses.iter().enumerate().filter(|(_, mass)| **mass > 0.0) {
        found = Some((at, left));
        if left < mass {
            break;
        }
        left -= mass;
    }
    let (at, mut left) = found?;
    let piece = logits.chunks(PIECE).nth(at)?;
    let mut all = [0.0; PIECE];
    let all = &mut all[..piece.len()];
    weights(tier, piece, scale, all);
    let mut last = None;
    for (i, &weight) in all.iter().enumerate().filter(|(_, weight)| **weight > 0.0) {
        last = Some((at * PIECE + i) as Token);
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
    use ggml_kernels::cpu::weights::{masses, tops};

    proptest::proptest! {
        #[test]
        fn a_token_lies_where_the_weights_before_it_come_to_its_part_of_the_whole(
            logits in proptest::collection::vec(-30.0f32..30.0, 1..700),
            temperature in 0.1f32..3.0, unit in 0.0f64..1.0,
        ) {
            let (tier, mut of_masses) = (Tier::detect(), Vec::new());
            let most = tops(tier, &logits, &mut Vec::new());
            let scale = Scale { most, temperature };
            let mass = masses(tier, &logits, scale, &mut of_masses);
            let weigh = |&l: &f32| (f64::from(l - most) / f64::from(temperature)).exp();
            let whole: f64 = logits.iter().map(weigh).sum();
            let token = token_at(tier, &logits, scale, &of_masses, unit * mass);
            let token = token.expect("one of them") as usize;
            let before: f64 = logits[..token].iter().map(weigh).sum();
            let with = before + weigh(&logits[token]);
            let (at, slack) = (unit * whole, 1e-5 * whole);
            proptest::prop_assert!(before - slack <= at && at <= with + slack);
        }
    }

    #[test]
    fn where_rounding_leaves_a_crumb_it_is_the_last_token_that_weighs_anything() {
        let logits = [1.0, 1.0, -1e9];
        let (tier, temperature, most) = (Tier::detect(), 1.0, 1.0);
        let scale = Scale { most, temperature };
        assert_eq!(token_at(tier, &logits, scale, &[2.0], 2.0), Some(1));
        assert_eq!(token_at(tier, &logits, scale, &[2.0], 0.0), Some(0));
        assert_eq!(token_at(tier, &[], scale, &[], 0.0), None);
    }
}
