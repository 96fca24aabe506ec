//! Splits that were gathered on their own, added in order: the sums of both, brought to the greater
//! of their greatest scores. A split where a query sees nothing gathered nothing.

use super::product::{WIDTH, half, half_mut};
use crate::cpu::math::exp_v;
use crate::cpu::simd::{Body, Simd};

/// Factors of what is there and of what is added.
pub(super) type Factors<V> = [[V; 2]; 2];

/// Greatest scores and sums of weights, `[2, WIDTH]` of both.
#[inline(always)]
pub(super) fn fold_head<S: Simd>(s: S, all: &mut [f32], one: &[f32]) -> Factors<S::V> {
    let (all, one) = (all.as_chunks_mut::<WIDTH>().0, one.as_chunks::<WIDTH>().0);
    let mut factors = [[s.splat(0.0); 2]; 2];
    for (vector, factors) in factors.iter_mut().enumerate() {
        let (a, b) = (s.load(half(&all[0], vector)), s.load(half(&one[0], vector)));
        let most = s.max(a, b);
        let (a, b) = (exp_v(s, s.sub(a, most)), exp_v(s, s.sub(b, most)));
        s.store(half_mut(&mut all[0], vector), most);
        let sum = s.load(half(&all[1], vector));
        let sum = s.fma(s.load(half(&one[1], vector)), b, s.mul(sum, a));
        s.store(half_mut(&mut all[1], vector), sum);
        *factors = [a, b];
    }
    factors
}

/// Weighted sums, any rows of [`WIDTH`] of both.
#[inline(always)]
pub(super) fn fold_sums<S: Simd>(s: S, by: &Factors<S::V>, all: &mut [f32], one: &[f32]) {
    let rows = all.as_chunks_mut::<WIDTH>().0.iter_mut();
    for (all, one) in rows.zip(one.as_chunks::<WIDTH>().0) {
        for (vector, [a, b]) in by.iter().enumerate() {
            let all = half_mut(all, vector);
            let sum = s.fma(s.load(half(one, vector)), *b, s.mul(s.load(all), *a));
            s.store(all, sum);
        }
    }
}

/// Some columns of a group that several workers share: its first part takes up the others.
pub(super) struct Columns<'f> {
    /// Its greatest scores and sums of weights, `[2, WIDTH]`.
    pub first: &'f [f32],
    /// The first part's columns, which are for this worker alone.
    pub columns: &'f mut [f32],
    /// Of each further part, in order: its two first rows, and the same columns.
    pub others: &'f mut dyn Iterator<Item = [&'f [f32]; 2]>,
}

impl Body for Columns<'_> {
    /// The group's greatest scores and sums of weights.
    type Out = [f32; 2 * WIDTH];
    #[inline(always)]
    fn run<S: Simd>(self, s: S) -> [f32; 2 * WIDTH] {
        let mut head = [0.0; 2 * WIDTH];
        head.copy_from_slice(self.first);
        for [one, columns] in self.others {
            let factors = fold_head(s, &mut head, one);
            fold_sums(s, &factors, self.columns, columns);
        }
        head
    }
}
