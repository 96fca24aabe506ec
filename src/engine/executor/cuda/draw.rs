//! How a draw is put to the card, and when what comes of it is enough. Decides nothing about the token
//! where several are left: the sampler does.

use ggml_kernels::cuda::draw::{Cut, Drawn as Found, MOST_FEW, Wish};

use crate::engine::{Drawn, Want};
use crate::request::{Draw, Few};

/// Nothing, where all logits are wanted.
pub(super) fn wish(want: &Want) -> Wish {
    match want {
        Want::Drawn(draw) => wish_of(draw),
        Want::Nothing | Want::Last | Want::All => Wish::Nothing,
    }
}

/// The first cut decides how many come: the sampler makes the others.
fn wish_of(draw: &Draw) -> Wish {
    let &Draw {
        temperature, unit, ..
    } = draw;
    if temperature <= 0.0 {
        return Wish::Likeliest;
    }
    let few = |cut| Wish::Few { temperature, cut };
    match draw.top_k {
        0 if draw.top_p < 1.0 => few(Cut::Mass(draw.top_p.max(0.0))),
        0 if draw.min_p > 0.0 => few(Cut::Weight(draw.min_p.min(1.0))),
        0 => Wish::Any { temperature, unit },
        best if best <= MOST_FEW / 2 => few(Cut::Best(best)),
        // As many again may lie beside the last of them.
        _ => Wish::Nothing,
    }
}

/// `None`: the token cannot be told without all logits.
pub(super) fn enough(want: &Want, found: Found) -> Option<Drawn> {
    let Want::Drawn(draw) = want else { return None };
    match found {
        Found::Token(token) => Some(Drawn::Token(token)),
        Found::TooMany => None,
        Found::Few(few) => {
            let few = Few {
                mass: f64::from(few.mass),
                tokens: few.tokens,
            };
            let by_mass = draw.top_k == 0 && draw.top_p < 1.0;
            let is_enough = !few.tokens.is_empty() && (!by_mass || weighs(&few, draw));
            is_enough.then_some(Drawn::Few(few))
        }
    }
}

/// What the card's sums of f32 are held to be wrong by, at most, of the whole.
const ROUNDING: f64 = 1e-5;

/// Whether the few are the share of the whole that `top_p` leaves.
fn weighs(few: &Few, draw: &Draw) -> bool {
    let most = few.tokens.iter().map(|&(_, logit)| logit);
    let most = most.fold(f32::MIN, f32::max);
    let weight = |&(_, logit): &(u32, f32)| f64::from(((logit - most) / draw.temperature).exp());
    let mass: f64 = few.tokens.iter().map(weight).sum();
    mass >= (f64::from(draw.top_p) + ROUNDING) * few.mass
}

#[cfg(test)]
mod tests {
    use super::*;
    use ggml_kernels::cuda::draw::Few as FoundFew;

    fn draw(top_k: usize, top_p: f32, min_p: f32) -> Draw {
        Draw {
            temperature: 1.0,
            top_k,
            top_p,
            min_p,
            unit: 0.25,
        }
    }

    fn cut(draw: Draw) -> Option<Cut> {
        match wish(&Want::Drawn(draw)) {
            Wish::Few { cut, .. } => Some(cut),
            _ => None,
        }
    }

    #[test]
    fn the_first_cut_that_the_sampler_makes_decides_how_many_come() {
        assert_eq!(cut(draw(40, 0.9, 0.1)), Some(Cut::Best(40)));
        assert_eq!(cut(draw(0, 0.9, 0.1)), Some(Cut::Mass(0.9)));
        assert_eq!(cut(draw(0, 1.0, 0.1)), Some(Cut::Weight(0.1)));
        let any = Wish::Any {
            temperature: 1.0,
            unit: 0.25,
        };
        assert_eq!(wish(&Want::Drawn(draw(0, 1.0, 0.0))), any);
        let greedy = Draw {
            temperature: 0.0,
            ..draw(40, 0.9, 0.0)
        };
        assert_eq!(wish(&Want::Drawn(greedy)), Wish::Likeliest);
    }

    #[test]
    fn more_than_come_are_not_asked_for_nor_is_anything_where_logits_are() {
        let many = Want::Drawn(draw(MOST_FEW / 2 + 1, 1.0, 0.0));
        for want in [many, Want::Nothing, Want::Last, Want::All] {
            assert_eq!(wish(&want), Wish::Nothing);
        }
    }

    #[test]
    fn few_that_weigh_less_than_the_share_are_not_enough() {
        let found = |mass| {
            Found::Few(FoundFew {
                tokens: vec![(3, 1.0), (9, 1.0)],
                mass,
            })
        };
        let want = Want::Drawn(draw(0, 0.9, 0.0));
        assert!(enough(&want, found(2.2)).is_some());
        assert_eq!(enough(&want, found(2.3)), None);
        // Who wants the best two of them has them.
        assert!(enough(&Want::Drawn(draw(2, 0.9, 0.0)), found(2.3)).is_some());
        assert_eq!(enough(&want, Found::TooMany), None);
    }
}
