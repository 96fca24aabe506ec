//! The router's choice and the experts, one token at a time.

use crate::ops::moe::Routing;

/// The chosen experts of one token with their weights, best first. Ties go to the lower index.
pub fn route(logits: &[f32], bias: &[f32], r: Routing) -> Vec<(usize, f64)> {
    let probs: Vec<f64> = logits
        .iter()
        .map(|&l| 1.0 / (1.0 + (-f64::from(l)).exp()))
        .collect();
    let mut scores: Vec<f64> = probs
        .iter()
        .zip(bias)
        .map(|(p, &b)| p + f64::from(b))
        .collect();
    if r.groups_used < r.groups {
        let size = scores.len() / r.groups;
        let of_group = |group: &[f64]| {
            let mut sorted = group.to_vec();
            sorted.sort_by(|a, b| b.total_cmp(a));
            sorted.iter().take(2).sum::<f64>()
        };
        let groups: Vec<f64> = scores.chunks(size).map(of_group).collect();
        let kept = best(&groups, r.groups_used);
        for (at, score) in scores.iter_mut().enumerate() {
            if !kept.contains(&(at / size)) {
                *score = f64::NEG_INFINITY;
            }
        }
    }
    let chosen = best(&scores, r.used);
    let sum: f64 = chosen.iter().map(|&e| probs[e]).sum();
    let weight = |&e: &usize| (e, probs[e] / sum * f64::from(r.scale));
    chosen.iter().map(weight).collect()
}

fn best(scores: &[f64], k: usize) -> Vec<usize> {
    let mut order: Vec<_> = (0..scores.len()).collect();
    order.sort_by(|&a, &b| scores[b].total_cmp(&scores[a]));
    order.truncate(k);
    order
}

/// `down(min(silu(gate x), limit) * clamp(up x, -limit, limit))`; gate and up: `[ff, hidden]`, down:
/// `[hidden, ff]`.
pub fn expert(x: &[f32], [gate, up, down]: [&[f32]; 3], limit: f32) -> Vec<f64> {
    let limit = f64::from(limit);
    let dot =
        |row: &[f32], x: &[f64]| -> f64 { row.iter().zip(x).map(|(&a, b)| f64::from(a) * b).sum() };
    let x: Vec<f64> = x.iter().map(|&v| v.into()).collect();
    let act = |(g, u): (&[f32], &[f32])| {
        let g = dot(g, &x);
        (g / (1.0 + (-g).exp())).min(limit) * dot(u, &x).clamp(-limit, limit)
    };
    let rows = gate.chunks(x.len()).zip(up.chunks(x.len()));
    let act: Vec<f64> = rows.map(act).collect();
    down.chunks(act.len()).map(|row| dot(row, &act)).collect()
}
