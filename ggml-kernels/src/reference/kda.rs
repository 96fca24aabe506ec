//! KDA, one token after another (Kimi Linear technical report, arXiv 2510.26692, eq. 1).

/// Sizes of a KDA pass.
#[derive(Debug, Clone, Copy)]
pub struct Shape {
    pub tokens: usize,
    pub heads: usize,
    /// Of q, k and v alike.
    pub d: usize,
}

/// `S <- diag(e^g) S; S <- S + k (beta (v - k^T S))^T; o = q^T S / sqrt(d)`.
///
/// q, k, v, g: `[tokens, heads, d]`; beta: `[tokens, heads]`; state: `[heads, d_k, d_v]`,
/// overwritten. Returns o: `[tokens, heads, d]`.
pub fn recurrence(
    s: Shape,
    [q, k, v, g]: [&[f32]; 4],
    beta: &[f32],
    state: &mut [f64],
) -> Vec<f64> {
    let Shape { tokens, heads, d } = s;
    let mut out = vec![0.0; tokens * heads * d];
    for t in 0..tokens {
        for h in 0..heads {
            let at = (t * heads + h) * d;
            let state = &mut state[h * d * d..(h + 1) * d * d];
            // Gate first: the update must see the decayed state.
            for i in 0..d {
                let decay = f64::from(g[at + i]).exp();
                state[i * d..(i + 1) * d]
                    .iter_mut()
                    .for_each(|x| *x *= decay);
            }
            for j in 0..d {
                let seen: f64 = (0..d)
                    .map(|i| f64::from(k[at + i]) * state[i * d + j])
                    .sum();
                let delta = f64::from(beta[t * heads + h]) * (f64::from(v[at + j]) - seen);
                (0..d).for_each(|i| state[i * d + j] += f64::from(k[at + i]) * delta);
            }
            for j in 0..d {
                let o: f64 = (0..d)
                    .map(|i| f64::from(q[at + i]) * state[i * d + j])
                    .sum();
                out[at + j] = o / (d as f64).sqrt();
            }
        }
    }
    out
}

/// `silu(sum over taps of w[tap] x[t - taps + 1 + tap])`, zeros before the first token.
///
/// x: `[tokens, inner]`; weight: `[inner, taps]`. Returns `[tokens, inner]`.
pub fn causal_conv_silu(x: &[f32], weight: &[f32], inner: usize) -> Vec<f64> {
    let (tokens, taps) = (x.len() / inner, weight.len() / inner);
    let value = |t: usize, c: usize| -> f64 {
        let tap = |tap: usize| {
            let from = (t + tap).checked_sub(taps - 1)?;
            Some(f64::from(weight[c * taps + tap]) * f64::from(x[from * inner + c]))
        };
        let sum: f64 = (0..taps).filter_map(tap).sum();
        sum / (1.0 + (-sum).exp())
    };
    (0..tokens * inner)
        .map(|at| value(at / inner, at % inner))
        .collect()
}
