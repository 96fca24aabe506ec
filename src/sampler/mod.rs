//! Pure: logits, parameters and a random stream to one token. Where nothing edits the logits, a device
//! may keep them and do the beginning of it: see [`Sampler::draw_of`]. Knows no text, no model and no clock.
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

mod logprobs;
mod weights;

use std::cmp::Ordering;
use std::collections::HashMap;

use ggml_kernels::cpu::Tier;
use ggml_kernels::cpu::weights::{PIECE, Scale, finite, masses, tops};
use rand_chacha::ChaCha12Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

use crate::request::{Draw, Few, Sampling, Token, TokenMask};
pub use logprobs::logprobs;
use weights::token_at;

pub struct Sampler {
    sampling: Sampling,
    /// Only how fast it is depends on it.
    tier: Tier,
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
    tops: Vec<f32>,
    masses: Vec<f64>,
}

#[derive(Debug, Clone, Copy)]
struct Candidate {
    token: Token,
    /// A logit over the temperature, then a weight: e to the distance from the largest.
    value: f32,
}

impl Candidate {
    fn scaled((token, logit): (Token, f32), temperature: f32) -> Candidate {
        let value = finite(finite(logit) / temperature);
        Candidate { token, value }
    }

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
            tier: Tier::detect(),
            rng: ChaCha12Rng::seed_from_u64(seed),
            len: 0,
            prompt: seen,
            output: HashMap::new(),
            edited: Vec::new(),
            candidates: Vec::new(),
            scratch: Vec::new(),
            tops: Vec::new(),
            masses: Vec::new(),
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
        let temperature = self.sampling.temperature;
        let token = match mask {
            None if temperature > 0.0 => self.draw_of_all(logits),
            None => self.likeliest(logits),
            Some(mask) if temperature > 0.0 => {
                self.candidates.clear();
                let scaled = allowed(logits, mask).map(|t| Candidate::scaled(t, temperature));
                self.candidates.extend(scaled);
                self.draw(None)
            }
            Some(mask) => likeliest_of(allowed(logits, mask)),
        };
        self.edited = edited;
        if let Some(token) = token {
            self.count(token);
        }
        token
    }

    /// The next draw, for who has the logits elsewhere; `None` where they are edited first.
    pub fn draw_of(&mut self) -> Option<Draw> {
        let unit = self.unit();
        let s = &self.sampling;
        self.edits_nothing().then_some(Draw {
            temperature: s.temperature,
            top_k: s.top_k,
            top_p: s.top_p,
            min_p: s.min_p,
            unit,
        })
    }

    /// As [`Sampler::sample`], of the few that are left of all logits.
    pub fn sample_few(&mut self, few: &Few) -> Option<Token> {
        let temperature = self.sampling.temperature;
        self.candidates.clear();
        let scaled = few
            .tokens
            .iter()
            .map(|&t| Candidate::scaled(t, temperature));
        self.candidates.extend(scaled);
        let token = self.draw(Some(few.mass));
        if let Some(token) = token {
            self.count(token);
        }
        token
    }

    /// Counts a token as put out that was chosen elsewhere: by a device, or an answer that was cut goes on.
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

    /// Where in the weights the next token lies, in [0, 1).
    fn unit(&mut self) -> f64 {
        // Two words of the stream for each token.
        self.rng.set_word_pos(2 * u128::from(self.len));
        // 53 random bits: the same on every platform.
        (self.rng.next_u64() >> 11) as f64 / (1u64 << 53) as f64
    }

    fn likeliest(&mut self, logits: &[f32]) -> Option<Token> {
        let most = tops(self.tier, logits, &mut self.tops);
        let piece = self.tops.iter().position(|&top| top == most)? * PIECE;
        let rest = (piece as Token..).zip(logits[piece..].iter().copied());
        likeliest_of(rest.take(PIECE))
    }

    /// Steps 4 to 8, of all logits: what no cut can leave is passed over piece by piece.
    fn draw_of_all(&mut self, logits: &[f32]) -> Option<Token> {
        let unit = self.unit();
        let Sampling {
            temperature,
            top_k,
            top_p,
            min_p,
            ..
        } = self.sampling;
        let (tier, most) = (self.tier, tops(self.tier, logits, &mut self.tops));
        let scale = Scale { most, temperature };
        // The logit of a token of that weight, or a little less.
        let of_weight = |weight: f64| {
            let distance = f64::from(temperature) * (weight.ln() - 1e-3);
            (f64::from(most) + distance - 1e-5 * f64::from(most).abs()) as f32
        };
        let (least, whole) = if top_k > 0 {
            (last_of_tops(&mut self.tops, top_k), None)
        } else if top_p < 1.0 {
            let whole = masses(tier, logits, scale, &mut self.masses);
            // Lighter ones weigh less than the rest of the share even all together.
            let least = (1.0 - f64::from(top_p)) * whole / logits.len() as f64;
            (of_weight(least), Some(whole))
        } else if min_p > 0.0 {
            (of_weight(f64::from(min_p.min(1.0))), None)
        } else {
            let whole = masses(tier, logits, scale, &mut self.masses);
            return token_at(tier, logits, scale, &self.masses, unit * whole);
        };
        self.candidates.clear();
        for (at, piece) in logits.chunks(PIECE).enumerate() {
            let tokens = ((at * PIECE) as Token..).zip(piece.iter().copied());
            let left = tokens.filter(|&(_, logit)| finite(logit) >= least);
            let scaled = left.map(|t| Candidate::scaled(t, temperature));
            self.candidates.extend(scaled);
        }
        self.draw(whole)
    }

    /// Steps 5 to 8, of the candidates. `mass`: all tokens' weight, where not all are candidates.
    fn draw(&mut self, mass: Option<f64>) -> Option<Token> {
        let unit = self.unit();
        let candidates = &mut self.candidates;
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
        // Of what `top_k` left, which are candidates.
        let mass = mass.filter(|_| self.sampling.top_k == 0);
        if share < 1.0
            && let Some(last) = last_of_mass(candidates, share, mass, &mut self.scratch)
        {
            candidates.retain(|c| c.order(&last).is_le());
        }
        if self.sampling.min_p > 0.0 {
            // The likeliest weighs exactly 1, and stays whatever was asked.
            let least = self.sampling.min_p.min(1.0);
            candidates.retain(|c| c.value >= least);
        }
        let total: f64 = candidates.iter().map(|c| f64::from(c.value)).sum();
        let mut left = unit * total;
        let drawn = candidates.iter().find(|c| {
            left -= f64::from(c.value);
            left < 0.0
        });
        // Rounding may leave a crumb after the last one.
        drawn.or(candidates.last()).map(|c| c.token)
    }
}

fn allowed(logits: &[f32], mask: &TokenMask) -> impl Iterator<Item = (Token, f32)> {
    let tokens = mask.tokens();
    tokens.map_while(|t| Some((t, *logits.get(t as usize)?)))
}

fn likeliest_of(tokens: impl Iterator<Item = (Token, f32)>) -> Option<Token> {
    let better = |best: (Token, f32), next: (Token, f32)| if next.1 > best.1 { next } else { best };
    tokens
        .map(|(token, logit)| (token, finite(logit)))
        .reduce(better)
        .map(|(token, _)| token)
}

/// A logit that the `n` best reach: as many pieces have one of it or more. `tops` loses its order.
fn last_of_tops(tops: &mut [f32], n: usize) -> f32 {
    if n > tops.len() {
        return f32::MIN;
    }
    let (_, last, _) = tops.select_nth_unstable_by(n - 1, |a, b| b.total_cmp(a));
    *last
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
/// `mass`: the whole, where lighter tokens than the candidates are part of it.
fn last_of_mass(
    candidates: &[Candidate],
    share: f64,
    mass: Option<f64>,
    scratch: &mut Vec<Candidate>,
) -> Option<Candidate> {
    let own: f64 = candidates.iter().map(|c| f64::from(c.value)).sum();
    let whole = mass.unwrap_or(own);
    // Candidates below this weigh less than the rest of the share even all together.
    let least = (own - share * whole) / candidates.len() as f64;
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

#[cfg(test)]
mod tests;
