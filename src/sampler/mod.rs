//! Pure: logits, parameters and a random stream to one token. Knows no text, no model and no clock.
//!
//! Order, as vLLM and llama.cpp define the steps:
//! 1. mask: tokens that a grammar forbids are out, whatever follows;
//! 2. `logit_bias`, added;
//! 3. penalties: repetition over prompt and output (a positive logit divided, a negative one
//!    multiplied), then frequency (times the count) and presence (once), both over output only;
//! 4. temperature; at 0 the largest logit wins here, the lowest token of equals;
//! 5. `top_k`; 6. `top_p`, of what `top_k` left; 7. `min_p`, relative to the likeliest token;
//! 8. one draw.
//!
//! A NaN counts as minus infinity. Infinities are taken as the largest and smallest finite logit.

use std::cmp::Ordering;
use std::collections::HashMap;

use rand_chacha::ChaCha12Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

use crate::request::{Sampling, Token, TokenLogprob, TokenMask};

pub struct Sampler {
    sampling: Sampling,
    /// A counter-based stream: the draw of an answer's token depends on the seed and on how many
    /// came before it, not on who drew those.
    rng: ChaCha12Rng,
    /// Tokens put out.
    len: u64,
    /// Distinct tokens of the prompt: empty unless the repetition penalty asks for them.
    prompt: Vec<Token>,
    /// How often each token was put out.
    output: HashMap<Token, u32>,
    /// Kept between calls, so that a step allocates nothing.
    edited: Vec<f32>,
    candidates: Vec<Candidate>,
    scratch: Vec<Candidate>,
}

#[derive(Debug, Clone, Copy)]
struct Candidate {
    token: Token,
    /// A logit over the temperature, then a weight: e to the distance from the largest.
    value: f32,
}

impl Candidate {
    /// Likeliest first; the lowest token of equals.
    fn order(&self, other: &Candidate) -> Ordering {
        let by_value = other.value.total_cmp(&self.value);
        by_value.then(self.token.cmp(&other.token))
    }
}

impl Sampler {
    /// `prompt` is what the repetition penalty counts beside the output. The seed is the caller's
    /// to choose where `sampling.seed` is `None`.
    pub fn new(sampling: &Sampling, seed: u64, prompt: &[Token]) -> Sampler {
        let mut seen = Vec::new();
        if sampling.repetition_penalty != 1.0 {
            seen.extend_from_slice(prompt);
            seen.sort_unstable();
            seen.dedup();
        }
        Sampler {
            sampling: sampling.clone(),
            rng: ChaCha12Rng::seed_from_u64(seed),
            len: 0,
            prompt: seen,
            output: HashMap::new(),
            edited: Vec::new(),
            candidates: Vec::new(),
            scratch: Vec::new(),
        }
    }

    /// Chooses the next token from `logits` (`[n_vocab]`) and counts it as put out. `None` only
    /// where nothing can be chosen: no logits, or a mask that allows none of their tokens.
    pub fn sample(&mut self, logits: &[f32], mask: Option<&TokenMask>) -> Option<Token> {
        let mut edited = std::mem::take(&mut self.edited);
        let logits = if self.edits_nothing() {
            logits
        } else {
            edited.clear();
            edited.extend_from_slice(logits);
            self.edit(&mut edited);
            &edited
        };
        let token = if self.sampling.temperature > 0.0 {
            self.draw(logits, mask)
        } else {
            greedy(logits, mask)
        };
        self.edited = edited;
        if let Some(token) = token {
            self.count(token);
        }
        token
    }

    /// Counts a token as put out that was chosen elsewhere: an answer that was cut goes on.
    pub fn count(&mut self, token: Token) {
        self.len += 1;
        *self.output.entry(token).or_default() += 1;
    }

    fn edits_nothing(&self) -> bool {
        let s = &self.sampling;
        s.logit_bias.is_empty()
            && s.repetition_penalty == 1.0
            && s.frequency_penalty == 0.0
            && s.presence_penalty == 0.0
    }

    /// Steps 2 and 3.
    fn edit(&self, logits: &mut [f32]) {
        let s = &self.sampling;
        for &(token, bias) in &s.logit_bias {
            if let Some(logit) = logits.get_mut(token as usize) {
                *logit += bias;
            }
        }
        if s.repetition_penalty != 1.0 {
            let fresh = |t: &&Token| self.prompt.binary_search(t).is_err();
            for &token in self.prompt.iter().chain(self.output.keys().filter(fresh)) {
                if let Some(logit) = logits.get_mut(token as usize) {
                    *logit = if *logit > 0.0 {
                        *logit / s.repetition_penalty
                    } else {
                        *logit * s.repetition_penalty
                    };
                }
            }
        }
        for (&token, &count) in &self.output {
            if let Some(logit) = logits.get_mut(token as usize) {
                *logit -= s.frequency_penalty * count as f32 + s.presence_penalty;
            }
        }
    }

    /// Steps 4 to 8.
    fn draw(&mut self, logits: &[f32], mask: Option<&TokenMask>) -> Option<Token> {
        let temperature = self.sampling.temperature;
        let candidates = &mut self.candidates;
        candidates.clear();
        let scaled = |(token, logit): (Token, f32)| Candidate {
            token,
            value: finite(finite(logit) / temperature),
        };
        candidates.extend(allowed(logits, mask).map(scaled));
        // Candidates stay in order of their tokens: the draw walks them so, and must not depend on
        // how a selection happened to leave them.
        if self.sampling.top_k > 0
            && let Some(last) = last_of_best(candidates, self.sampling.top_k, &mut self.scratch)
        {
            candidates.retain(|c| c.order(&last).is_le());
        }
        let largest = candidates.iter().map(|c| c.value).reduce(f32::max)?;
        for c in candidates.iter_mut() {
            c.value = (c.value - largest).exp();
        }
        let share = f64::from(self.sampling.top_p);
        if share < 1.0
            && let Some(last) = last_of_mass(candidates, share, &mut self.scratch)
        {
            candidates.retain(|c| c.order(&last).is_le());
        }
        if self.sampling.min_p > 0.0 {
            // The likeliest weighs exactly 1, and stays whatever was asked.
            let least = self.sampling.min_p.min(1.0);
            candidates.retain(|c| c.value >= least);
        }
        let total: f64 = candidates.iter().map(|c| f64::from(c.value)).sum();
        // Two words of the stream for each token.
        self.rng.set_word_pos(2 * u128::from(self.len));
        // 53 random bits: the same on every platform.
        let unit = (self.rng.next_u64() >> 11) as f64 / (1u64 << 53) as f64;
        let mut left = unit * total;
        let drawn = candidates.iter().find(|c| {
            left -= f64::from(c.value);
            left < 0.0
        });
        // Rounding may leave a crumb after the last one.
        drawn.or(candidates.last()).map(|c| c.token)
    }
}

fn finite(logit: f32) -> f32 {
    if logit.is_nan() {
        f32::MIN
    } else {
        logit.clamp(f32::MIN, f32::MAX)
    }
}

fn allowed(logits: &[f32], mask: Option<&TokenMask>) -> impl Iterator<Item = (Token, f32)> {
    let all = mask.is_none().then(|| (0..).zip(logits.iter().copied()));
    let some = mask.map(|m| {
        m.tokens()
            .map_while(|t| Some((t, *logits.get(t as usize)?)))
    });
    all.into_iter().flatten().chain(some.into_iter().flatten())
}

fn greedy(logits: &[f32], mask: Option<&TokenMask>) -> Option<Token> {
    let better = |best: (Token, f32), next: (Token, f32)| if next.1 > best.1 { next } else { best };
    allowed(logits, mask)
        .map(|(token, logit)| (token, finite(logit)))
        .reduce(better)
        .map(|(token, _)| token)
}

/// The last of the `n` best; `None` where there are no more than `n`. Linear, whatever `n`.
fn last_of_best(
    candidates: &[Candidate],
    n: usize,
    scratch: &mut Vec<Candidate>,
) -> Option<Candidate> {
    if n >= candidates.len() {
        return None;
    }
    scratch.clear();
    scratch.extend_from_slice(candidates);
    let (_, last, _) = scratch.select_nth_unstable_by(n - 1, Candidate::order);
    Some(*last)
}

/// The last of the shortest list of likeliest candidates whose weights reach `share` of the whole,
/// which is one candidate at least. Linear: each round looks at half of what the round before did.
fn last_of_mass(
    candidates: &[Candidate],
    share: f64,
    scratch: &mut Vec<Candidate>,
) -> Option<Candidate> {
    let whole: f64 = candidates.iter().map(|c| f64::from(c.value)).sum();
    // Candidates below this weigh less than the rest of the share even all together.
    let least = (1.0 - share) * whole / candidates.len() as f64;
    scratch.clear();
    scratch.extend(candidates.iter().filter(|c| f64::from(c.value) >= least));
    // All before `from` are in the list; the last one is among `from..to`.
    let (mut from, mut to, mut mass) = (0, scratch.len(), 0.0);
    while to - from > 1 {
        let half = (to - from) / 2;
        let open = &mut scratch[from..to];
        open.select_nth_unstable_by(half - 1, Candidate::order);
        let better: f64 = open[..half].iter().map(|c| f64::from(c.value)).sum();
        if mass + better >= share * whole {
            to = from + half;
        } else {
            mass += better;
            from += half;
        }
    }
    scratch.get(from).copied()
}

/// The log-probability of `token` under the unmodified `logits` (`[n_vocab]`), and the `n_top`
/// likeliest tokens, best first. Sums in f64: with 163840 terms f32 loses the third digit.
pub fn logprobs(logits: &[f32], token: Token, n_top: usize) -> TokenLogprob {
    let largest = logits.iter().copied().map(finite).fold(f32::MIN, f32::max);
    let distance = |logit: f32| f64::from(finite(logit)) - f64::from(largest);
    let sum: f64 = logits.iter().map(|&logit| distance(logit).exp()).sum();
    let log_sum = sum.ln();
    let logprob = |logit: f32| (distance(logit) - log_sum) as f32;

    let n_top = n_top.min(logits.len());
    let mut top: Vec<Candidate> = Vec::with_capacity(n_top + 1);
    for (token, &logit) in (0..).zip(logits).filter(|_| n_top > 0) {
        let value = finite(logit);
        let next = Candidate { token, value };
        if top.len() < n_top || next.order(&top[n_top - 1]).is_lt() {
            let at = top.partition_point(|c| c.order(&next).is_lt());
            top.insert(at, next);
            top.truncate(n_top);
        }
    }
    TokenLogprob {
        token,
        logprob: logits.get(token as usize).map(|&logit| logprob(logit)),
        top: top.iter().map(|c| (c.token, logprob(c.value))).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Logits of a given distribution.
    fn logits(weights: &[f32]) -> Vec<f32> {
        weights.iter().map(|w| w.ln()).collect()
    }

    fn many(sampling: &Sampling, logits: &[f32], mask: Option<&TokenMask>, n: u64) -> Vec<usize> {
        let mut counts = vec![0; logits.len()];
        for seed in 0..n {
            let token = Sampler::new(sampling, seed, &[]).sample(logits, mask);
            counts[token.expect("a token") as usize] += 1;
        }
        counts
    }

    fn with(change: impl FnOnce(&mut Sampling)) -> Sampling {
        let mut sampling = Sampling::default();
        change(&mut sampling);
        sampling
    }

    fn greedily(change: impl FnOnce(&mut Sampling)) -> Sampling {
        with(|s| {
            s.temperature = 0.0;
            change(s);
        })
    }

    #[test]
    fn at_temperature_zero_the_largest_logit_wins_and_the_lowest_token_of_equals() {
        let mut sampler = Sampler::new(&greedily(|_| {}), 1, &[]);
        assert_eq!(sampler.sample(&[0.0, 3.0, 3.0, -1.0], None), Some(1));
    }

    #[test]
    fn the_same_seed_gives_the_same_tokens() {
        let logits: Vec<f32> = (0..1000).map(|i| (i as f32 * 0.37).sin() * 4.0).collect();
        let run = |seed| {
            let mut sampler = Sampler::new(&with(|s| s.top_p = 0.95), seed, &[]);
            (0..20)
                .map(|_| sampler.sample(&logits, None).expect("a token"))
                .collect::<Vec<_>>()
        };
        assert_eq!(run(7), run(7));
        assert_ne!(run(7), run(8));
    }

    /// The stream itself, so that a library's change of algorithm is noticed.
    #[test]
    fn a_seed_means_the_same_tokens_for_ever() {
        let mut sampler = Sampler::new(&Sampling::default(), 42, &[]);
        let tokens: Vec<_> = (0..8).map(|_| sampler.sample(&[0.0; 100], None)).collect();
        assert_eq!(tokens, [52, 54, 63, 40, 3, 41, 73, 84].map(Some));
    }

    #[test]
    fn tokens_come_as_often_as_their_weights_say() {
        let counts = many(
            &Sampling::default(),
            &logits(&[0.5, 0.3, 0.2]),
            None,
            20_000,
        );
        for (count, want) in counts.iter().zip([10_000, 6_000, 4_000]) {
            assert!(count.abs_diff(want) < 300, "{counts:?}");
        }
    }

    #[test]
    fn an_answer_cut_anywhere_goes_on_with_the_same_draws() {
        let sampling = with(|s| {
            s.temperature = 1.5;
            s.frequency_penalty = 0.5;
        });
        let logits = logits(&[0.1, 0.2, 0.3, 0.4]);
        let mut whole = Sampler::new(&sampling, 9, &[]);
        let said: Vec<_> = (0..40).flat_map(|_| whole.sample(&logits, None)).collect();
        for cut in [0, 1, 7, 39] {
            let mut rest = Sampler::new(&sampling, 9, &[]);
            said[..cut].iter().for_each(|&t| rest.count(t));
            let rest: Vec<_> = (cut..40).flat_map(|_| rest.sample(&logits, None)).collect();
            assert_eq!(rest, said[cut..], "cut at {cut}");
        }
    }

    #[test]
    fn temperature_sharpens_and_flattens() {
        let logits = logits(&[0.8, 0.2]);
        let sharp = many(&with(|s| s.temperature = 0.5), &logits, None, 4000);
        let flat = many(&with(|s| s.temperature = 100.0), &logits, None, 4000);
        // 0.8^2 : 0.2^2 is 16 : 1.
        assert!(sharp[1].abs_diff(4000 / 17) < 60, "{sharp:?}");
        assert!(flat[1].abs_diff(2000) < 160, "{flat:?}");
    }

    #[test]
    fn top_k_top_p_and_min_p_cut_the_tail() {
        let logits = logits(&[0.1, 0.4, 0.05, 0.3, 0.15]);
        let kept = |sampling: &Sampling| -> Vec<usize> {
            let counts = many(sampling, &logits, None, 2000);
            (0..5).filter(|&i| counts[i] > 0).collect()
        };
        assert_eq!(kept(&with(|s| s.top_k = 2)), [1, 3]);
        assert_eq!(kept(&with(|s| s.top_k = 9)), [0, 1, 2, 3, 4]);
        assert_eq!(kept(&with(|s| s.top_p = 0.65)), [1, 3]);
        assert_eq!(kept(&with(|s| s.top_p = 0.75)), [1, 3, 4]);
        assert_eq!(kept(&with(|s| s.top_p = 0.0)), [1]);
        assert_eq!(kept(&with(|s| s.min_p = 0.3)), [1, 3, 4]);
        assert_eq!(kept(&with(|s| s.min_p = 2.0)), [1]);
        // Of the two that top_k leaves, the first alone has 4/7 of the mass.
        let both = with(|s| {
            s.top_k = 2;
            s.top_p = 0.55;
        });
        assert_eq!(kept(&both), [1]);
    }

    #[test]
    fn a_flat_distribution_keeps_its_share() {
        let flat: Vec<_> = (0..5000)
            .map(|token| Candidate { token, value: 1.0 })
            .collect();
        let last = last_of_mass(&flat, 0.5, &mut Vec::new()).expect("a last one");
        assert_eq!(last.token, 2499);
    }

    proptest::proptest! {
        /// The plain way: sort all, add up.
        #[test]
        fn the_share_is_that_of_a_full_sort(weights in proptest::collection::vec(0u16..400, 1..200), share in 0.0f64..1.0) {
            let candidates: Vec<_> = (0..).zip(&weights).map(|(token, &w)| Candidate { token, value: f32::from(w) + 1.0 }).collect();
            let whole: f64 = candidates.iter().map(|c| f64::from(c.value)).sum();
            let mut sorted = candidates.clone();
            sorted.sort_by(Candidate::order);
            let mut mass = 0.0;
            let want = sorted.iter().find(|c| {
                mass += f64::from(c.value);
                mass >= share * whole
            });
            let got = last_of_mass(&candidates, share, &mut Vec::new());
            proptest::prop_assert_eq!(got.map(|c| c.token), want.map(|c| c.token));
        }
    }

    #[test]
    fn a_bias_moves_a_token_and_one_outside_the_vocabulary_moves_nothing() {
        let sampling = greedily(|s| s.logit_bias = vec![(2, 5.0), (99, 100.0)]);
        assert_eq!(
            Sampler::new(&sampling, 0, &[]).sample(&[1.0, 2.0, 0.0], None),
            Some(2)
        );
    }

    #[test]
    fn the_bias_comes_before_the_penalties_and_repetition_before_the_others() {
        let biased = greedily(|s| {
            s.logit_bias = vec![(0, 3.0)];
            s.repetition_penalty = 4.0;
        });
        // (-1 + 3) / 4 beats 0; -1 * 4 + 3 would not.
        let mut sampler = Sampler::new(&biased, 0, &[0]);
        assert_eq!(sampler.sample(&[-1.0, 0.0], None), Some(0));
        let penalized = greedily(|s| {
            s.repetition_penalty = 2.0;
            s.presence_penalty = 1.5;
        });
        // 2 / 2 - 1.5 loses to 0; (2 - 1.5) / 2 would not.
        let mut sampler = Sampler::new(&penalized, 0, &[]);
        assert_eq!(sampler.sample(&[2.0, 0.0], None), Some(0));
        assert_eq!(sampler.sample(&[2.0, 0.0], None), Some(1));
    }

    #[test]
    fn presence_and_frequency_count_output_only() {
        let logits = [2.0, 1.5];
        for sampling in [
            greedily(|s| s.presence_penalty = 1.0),
            greedily(|s| s.frequency_penalty = 1.0),
        ] {
            let mut sampler = Sampler::new(&sampling, 0, &[0, 0, 0]);
            assert_eq!(sampler.sample(&logits, None), Some(0));
            assert_eq!(sampler.sample(&logits, None), Some(1));
        }
        let mut sampler = Sampler::new(&greedily(|s| s.frequency_penalty = 0.3), 0, &[]);
        let run: Vec<_> = (0..4).flat_map(|_| sampler.sample(&logits, None)).collect();
        assert_eq!(run, [0, 0, 1, 0]);
    }

    #[test]
    fn repetition_counts_the_prompt_and_pushes_both_signs_down() {
        let sampling = greedily(|s| s.repetition_penalty = 2.0);
        let mut sampler = Sampler::new(&sampling, 0, &[0, 0]);
        assert_eq!(sampler.sample(&[2.0, 1.5], None), Some(1));
        let mut sampler = Sampler::new(&sampling, 0, &[0]);
        assert_eq!(sampler.sample(&[-1.0, -1.5], None), Some(1));
    }

    #[test]
    fn a_mask_comes_before_everything() {
        let mask: TokenMask = [1, 40, 70].into_iter().collect();
        assert_eq!(mask.tokens().collect::<Vec<_>>(), [1, 40, 70]);
        assert!(mask.allows(40) && !mask.allows(41) && !mask.allows(4000));
        let logits: Vec<f32> = (0..64).map(|i| i as f32).collect();
        let sampling = greedily(|s| s.logit_bias = vec![(2, 100.0)]);
        let mut sampler = Sampler::new(&sampling, 0, &[]);
        assert_eq!(sampler.sample(&logits, Some(&mask)), Some(40));
        let counts = many(&with(|s| s.temperature = 50.0), &logits, Some(&mask), 500);
        assert_eq!(counts[1] + counts[40], 500);
        assert_eq!(sampler.sample(&logits, Some(&TokenMask::default())), None);
    }

    #[test]
    fn nan_and_infinity_harm_nobody() {
        let inf = f32::INFINITY;
        for logits in [
            vec![f32::NAN; 4],
            vec![-inf; 4],
            vec![inf; 4],
            vec![f32::NAN, 1.0, -inf, inf],
            vec![],
        ] {
            for sampling in [
                Sampling::default(),
                greedily(|_| {}),
                with(|s| s.top_p = 0.5),
                with(|s| s.top_k = 2),
                with(|s| s.temperature = 1e-30),
                with(|s| s.temperature = f32::NAN),
            ] {
                let token = Sampler::new(&sampling, 3, &[]).sample(&logits, None);
                assert_eq!(token.is_some(), !logits.is_empty());
            }
            let all = logprobs(&logits, 0, 3);
            assert!(all.logprob.is_none_or(|p| !p.is_nan()), "{logits:?}");
        }
        assert_eq!(
            Sampler::new(&Sampling::default(), 0, &[]).sample(&[f32::NAN, 1.0, -inf, inf], None),
            Some(3)
        );
    }

    #[test]
    fn log_probabilities_are_those_of_the_unmodified_distribution() {
        let got = logprobs(&logits(&[0.1, 0.6, 0.3]), 0, 2);
        assert!((got.logprob.expect("in range") - 0.1f32.ln()).abs() < 1e-6);
        let top: Vec<Token> = got.top.iter().map(|t| t.0).collect();
        assert_eq!(top, [1, 2]);
        assert!((got.top[0].1 - 0.6f32.ln()).abs() < 1e-6);
        // A large vocabulary of equals, far from zero.
        let flat = logprobs(&vec![1000.0; 163_840], 5, 3);
        assert!((flat.logprob.expect("in range") + 163_840f32.ln()).abs() < 1e-5);
        assert_eq!(flat.top.iter().map(|t| t.0).collect::<Vec<_>>(), [0, 1, 2]);
        assert_eq!(logprobs(&[1.0], 7, 0).logprob, None);
    }
}
