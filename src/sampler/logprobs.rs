//! Log-probabilities of the unmodified distribution.

use ggml_kernels::cpu::Tier;
use ggml_kernels::cpu::weights::{PIECE, Scale, finite, masses, tops};

use super::{Candidate, last_of_tops};
use crate::request::{Token, TokenLogprob};

/// The log-probability of `token` under the unmodified `logits` (`[n_vocab]`), and the `n_top`
/// likeliest tokens, best first. Pieces are summed in f64: with 163840 terms f32 loses the third digit.
pub fn logprobs(logits: &[f32], token: Token, n_top: usize) -> TokenLogprob {
    let mut pieces = Vec::with_capacity(logits.len().div_ceil(PIECE));
    let tier = Tier::detect();
    let largest = tops(tier, logits, &mut pieces);
    let scale = Scale {
        most: largest,
        temperature: 1.0,
    };
    let log_sum = masses(tier, logits, scale, &mut Vec::new()).ln();
    let distance = |logit: f32| f64::from(finite(logit)) - f64::from(largest);
    let logprob = |logit: f32| (distance(logit) - log_sum) as f32;

    let n_top = n_top.min(logits.len());
    let mut top: Vec<Candidate> = Vec::new();
    if n_top > 0 {
        let least = last_of_tops(&mut pieces, n_top);
        let all = (0..).zip(logits.iter().map(|&logit| finite(logit)));
        let best = all.filter(|&(_, value)| value >= least);
        top.extend(best.map(|(token, value)| Candidate { token, value }));
        // Of a small vocabulary all may have come.
        top.select_nth_unstable_by(n_top - 1, Candidate::order);
        top.truncate(n_top);
        top.sort_unstable_by(Candidate::order);
    }
    TokenLogprob {
        token,
        logprob: logits.get(token as usize).map(|&logit| logprob(logit)),
        top: top.iter().map(|c| (c.token, logprob(c.value))).collect(),
    }
}
