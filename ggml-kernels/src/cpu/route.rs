//! The router's choice: which experts a token goes to, and with which weights. Gating is a sigmoid;
//! the chosen weights are normalised and scaled.

use super::crew::Crew;
use super::math;
use super::share::Shared;

pub use crate::ops::moe::Routing;

/// ggml's and the peers' guard against a sum of zero: the least F16 that is normal.
const LEAST_SUM: f32 = 6.103_515_6e-5;
/// Rows to a piece.
const PIECE: usize = 16;

/// logits: `[rows, experts]`; bias: `[experts]`, which only chooses. ids, weights:
/// `[rows, used]`, the best biased score first, the lower id first where scores are equal.
pub fn route(
    crew: Crew<'_>,
    logits: &[f32],
    bias: &[f32],
    routing: &Routing,
    ids: &mut [u32],
    weights: &mut [f32],
) {
    let (experts, used) = (bias.len(), routing.used);
    let rows = logits.len() / experts.max(1);
    assert!(logits.len() == rows * experts && ids.len() == rows * used);
    assert_eq!(ids.len(), weights.len());
    let size = experts / routing.groups.max(1);
    let open = if routing.groups_used < routing.groups {
        assert!(routing.groups_used > 0 && size * routing.groups == experts);
        size * routing.groups_used
    } else {
        experts
    };
    assert!(used <= open, "{used} experts used of {open}");
    let all_weights = Shared::new(weights);
    crew.pool.run_chunks(ids, PIECE * used, &|piece, ids, _| {
        let start = piece * PIECE * used;
        // SAFETY: the range of this piece's `ids`, which no other piece has.
        let weights = unsafe { all_weights.part(start..start + ids.len()) };
        let mut token = Token::new(experts, routing.groups);
        let rows = ids
            .chunks_exact_mut(used)
            .zip(weights.chunks_exact_mut(used));
        let logits = logits.chunks_exact(experts).skip(piece * PIECE);
        for ((ids, weights), logits) in rows.zip(logits) {
            token.route(logits, bias, routing, ids, weights);
        }
    });
}

/// What one token's choice needs.
struct Token {
    probs: Vec<f32>,
    scores: Vec<f32>,
    groups: Vec<f32>,
}

impl Token {
    fn new(experts: usize, groups: usize) -> Token {
        Token {
            probs: vec![0.0; experts],
            scores: vec![0.0; experts],
            groups: vec![0.0; groups],
        }
    }

    fn route(&mut self, logits: &[f32], bias: &[f32], r: &Routing, ids: &mut [u32], w: &mut [f32]) {
        for (at, p) in self.probs.iter_mut().enumerate() {
            *p = math::sigmoid(logits[at]);
            self.scores[at] = *p + bias[at];
        }
        if r.groups_used < r.groups {
            self.keep_best_groups(r);
        }
        for id in ids.iter_mut() {
            let best = take_best(&mut self.scores);
            *id = best as u32;
        }
        let mut sum = 0.0;
        for (w, &id) in w.iter_mut().zip(&*ids) {
            *w = self.probs[id as usize];
            sum += *w;
        }
        let sum = f32::max(sum, LEAST_SUM);
        w.iter_mut().for_each(|w| *w = *w / sum * r.scale);
    }

    /// Leaves the experts of the best groups alone in the choice. A group scores the sum of its two
    /// best (DeepSeek-V3's rule).
    fn keep_best_groups(&mut self, r: &Routing) {
        let size = self.scores.len() / r.groups;
        for (group, scores) in self.groups.iter_mut().zip(self.scores.chunks_exact(size)) {
            let [mut first, mut second] = [f32::NEG_INFINITY; 2];
            for &score in scores {
                if score > first {
                    (first, second) = (score, first);
                } else if score > second {
                    second = score;
                }
            }
            *group = if size > 1 { first + second } else { first };
        }
        for _ in 0..r.groups_used {
            take_best(&mut self.groups);
        }
        for (group, scores) in self.groups.iter().zip(self.scores.chunks_exact_mut(size)) {
            if !group.is_nan() {
                scores.fill(f32::NAN);
            }
        }
    }
}

/// The first of the greatest, which becomes NaN: no longer to be had. Where only NaN is left, the
/// last.
fn take_best(scores: &mut [f32]) -> usize {
    let mut best = scores.len() - 1;
    let mut most = f32::NAN;
    for (at, &score) in scores.iter().enumerate() {
        if score > most || most.is_nan() && !score.is_nan() {
            (best, most) = (at, score);
        }
    }
    scores[best] = f32::NAN;
    best
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::{Pool, Tier};
    use crate::reference::moe;

    fn noise(n: usize, seed: u32) -> Vec<f32> {
        let at = |i: usize| ((i as u32).wrapping_mul(2_654_435_761) ^ seed) as f32 / 5e8 - 4.0;
        (0..n).map(at).collect()
    }

    #[test]
    fn the_choice_is_the_reference_s_in_any_company() {
        let mut worst = 0f64;
        for (rows, experts, used, groups, groups_used) in [
            (0, 4, 2, 1, 1),
            (1, 1, 1, 1, 1),
            (5, 8, 8, 1, 1),
            (37, 24, 3, 4, 2),
            (70, 256, 8, 8, 4),
            (33, 10, 2, 10, 3),
        ] {
            let (logits, bias) = (noise(rows * experts, 5), noise(experts, 9));
            let bias: Vec<f32> = bias.iter().map(|b| b * 0.05).collect();
            let routing = Routing {
                used,
                groups,
                groups_used,
                scale: 2.446,
            };
            let mut first: Option<Vec<f32>> = None;
            for threads in [1, 3] {
                let pool = Pool::new(threads);
                for tier in Tier::available() {
                    let crew = Crew { pool: &pool, tier };
                    let mut ids = vec![0; rows * used];
                    let mut weights = vec![0.0; rows * used];
                    route(crew, &logits, &bias, &routing, &mut ids, &mut weights);
                    for row in 0..rows {
                        let logits = &logits[row * experts..(row + 1) * experts];
                        let want = moe::route(logits, &bias, routing);
                        for (at, (id, weight)) in want.into_iter().enumerate() {
                            assert_eq!(ids[row * used + at] as usize, id);
                            let off = f64::from(weights[row * used + at]) / weight - 1.0;
                            worst = worst.max(off.abs());
                        }
                    }
                    assert_eq!(*first.get_or_insert_with(|| weights.clone()), weights);
                }
            }
        }
        println!("route: {worst:.2e} from f64, relative");
        assert!(worst < 1e-6);
    }

    #[test]
    fn equal_scores_go_to_the_lower_id_and_nan_chooses_somebody() {
        let pool = Pool::new(1);
        let tier = Tier::detect();
        let crew = Crew { pool: &pool, tier };
        let routing = Routing {
            used: 3,
            groups: 1,
            groups_used: 1,
            scale: 1.0,
        };
        let (mut ids, mut weights) = ([0; 3], [0.0; 3]);
        let bias = [0.0; 5];
        let logits = [1.0, 2.0, 1.0, 2.0, 1.0];
        route(crew, &logits, &bias, &routing, &mut ids, &mut weights);
        assert_eq!(ids, [1, 3, 0]);
        route(
            crew,
            &[f32::NAN; 5],
            &bias,
            &routing,
            &mut ids,
            &mut weights,
        );
        assert!(ids.iter().all(|&id| id < 5));
    }
}
