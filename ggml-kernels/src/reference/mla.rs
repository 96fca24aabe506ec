//! Absorbed MLA attention: causal softmax over latent rows that all heads share.

/// Sizes of an attention pass. The last query sees all rows, the one before it one less.
#[derive(Debug, Clone, Copy)]
pub struct Shape {
    pub tokens: usize,
    pub heads: usize,
    pub rows: usize,
    pub latent: usize,
    /// The first so many columns of a row are its values.
    pub rank: usize,
}

/// q: `[heads, tokens, latent]`; rows: `[rows, latent]`. Returns `[tokens, heads, rank]`.
pub fn attention(s: Shape, q: &[f32], rows: &[f32], scale: f32) -> Vec<f64> {
    let mut out = vec![0.0; s.tokens * s.heads * s.rank];
    for t in 0..s.tokens {
        let visible = s.rows - (s.tokens - 1 - t);
        for h in 0..s.heads {
            let q = &q[(h * s.tokens + t) * s.latent..][..s.latent];
            let score = |r: usize| -> f64 {
                let row = &rows[r * s.latent..][..s.latent];
                let dot: f64 = q
                    .iter()
                    .zip(row)
                    .map(|(&a, &b)| f64::from(a) * f64::from(b))
                    .sum();
                dot * f64::from(scale)
            };
            let scores: Vec<_> = (0..visible).map(score).collect();
            let max = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let weights: Vec<_> = scores.iter().map(|s| (s - max).exp()).collect();
            let sum: f64 = weights.iter().sum();
            let out = &mut out[(t * s.heads + h) * s.rank..][..s.rank];
            for (r, w) in weights.iter().enumerate() {
                for (o, &c) in out.iter_mut().zip(&rows[r * s.latent..]) {
                    *o += w / sum * f64::from(c);
                }
            }
        }
    }
    out
}

/// Neighbouring columns turned as pairs: pair `j` by `position * base^(-2j / width)`.
pub fn rotate(x: &[f32], position: usize, base: f64) -> Vec<f64> {
    let pair = |(j, pair): (usize, &[f32])| {
        let angle = position as f64 / base.powf(2.0 * j as f64 / x.len() as f64);
        let [a, b] = [pair[0], pair[1]].map(f64::from);
        [
            a * angle.cos() - b * angle.sin(),
            a * angle.sin() + b * angle.cos(),
        ]
    };
    x.chunks_exact(2).enumerate().flat_map(pair).collect()
}
