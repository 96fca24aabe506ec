//! Root mean square norms of rows. The squares are summed in f64, where a product of two f32 is
//! exact, over sixteen lanes and a fixed tree.

use super::crew::Crew;
use super::share::Shared;
use super::simd::{Body, LANES, Simd, dispatch};

/// Values to a piece: fewer are not worth a worker.
const PIECE: usize = 1 << 14;

/// `out = x / sqrt(mean(x^2) + eps) * weight`, row by row. x, out: `[rows, n]`; weight: `[n]`.
pub fn rms_norm(crew: Crew<'_>, x: &[f32], weight: &[f32], eps: f32, out: &mut [f32]) {
    let n = weight.len();
    assert!(x.len() == out.len() && (x.is_empty() || x.len().is_multiple_of(n)));
    let rows = (PIECE / n.max(1)).max(1);
    crew.pool.run_chunks(out, rows * n, &|piece, out, _| {
        let x = &x[piece * rows * n..][..out.len()];
        for (x, out) in x.chunks_exact(n).zip(out.chunks_exact_mut(n)) {
            let norm = RmsNorm {
                x,
                weight,
                eps,
                out,
            };
            dispatch(crew.tier, norm);
        }
    });
}

/// `x += y`, then the norm of the sum.
pub fn add_rms_norm(
    crew: Crew<'_>,
    x: &mut [f32],
    y: &[f32],
    weight: &[f32],
    eps: f32,
    out: &mut [f32],
) {
    let n = weight.len();
    assert!(x.len() == out.len() && (x.is_empty() || x.len().is_multiple_of(n)));
    assert_eq!(x.len(), y.len());
    let rows = (PIECE / n.max(1)).max(1);
    let sums = Shared::new(x);
    crew.pool.run_chunks(out, rows * n, &|piece, out, _| {
        let start = piece * rows * n;
        // SAFETY: the range of this piece's `out`, which no other piece has.
        let sums = unsafe { sums.part(start..start + out.len()) };
        super::math::add(crew.tier, sums, &y[start..start + out.len()]);
        for (x, out) in sums.chunks_exact(n).zip(out.chunks_exact_mut(n)) {
            let norm = RmsNorm {
                x,
                weight,
                eps,
                out,
            };
            dispatch(crew.tier, norm);
        }
    });
}

/// One row.
pub(crate) struct RmsNorm<'x> {
    pub x: &'x [f32],
    pub weight: &'x [f32],
    pub eps: f32,
    pub out: &'x mut [f32],
}

impl Body for RmsNorm<'_> {
    type Out = ();
    #[inline(always)]
    fn run<S: Simd>(self, _: S) {
        let mut sums = [0f64; LANES];
        let (whole, rest) = self.x.as_chunks::<LANES>();
        for x in whole {
            for (sum, &x) in sums.iter_mut().zip(x) {
                *sum += f64::from(x) * f64::from(x);
            }
        }
        for (sum, &x) in sums.iter_mut().zip(rest) {
            *sum += f64::from(x) * f64::from(x);
        }
        for half in [8, 4, 2, 1] {
            for at in 0..half {
                sums[at] += sums[at + half];
            }
        }
        let mean = sums[0] / self.x.len() as f64;
        let scale = (1.0 / (mean + f64::from(self.eps)).sqrt()) as f32;
        for ((out, &x), &w) in self.out.iter_mut().zip(self.x).zip(self.weight) {
            *out = x * scale * w;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::{Pool, Tier};

    fn noise(n: usize, seed: u32) -> Vec<f32> {
        let at = |i: usize| ((i as u32).wrapping_mul(2_654_435_761) ^ seed) as f32 / 2e9 - 1.0;
        (0..n).map(at).collect()
    }

    #[test]
    fn a_norm_is_its_formula_and_the_same_bits_in_any_company() {
        let mut worst = 0f64;
        for (rows, n) in [(0, 5), (1, 1), (3, 17), (7, 48), (40, 2304), (200, 131)] {
            let (x, y, weight) = (noise(rows * n, 1), noise(rows * n, 7), noise(n, 3));
            let mut want: Option<(Vec<f32>, Vec<f32>)> = None;
            for threads in [1, 2, 3] {
                let pool = Pool::new(threads);
                for tier in Tier::available() {
                    let crew = Crew { pool: &pool, tier };
                    let mut out = vec![0.0; rows * n];
                    let mut sum = x.clone();
                    add_rms_norm(crew, &mut sum, &y, &weight, 1e-5, &mut out);
                    let mut alone = vec![0.0; n];
                    for row in 0..rows {
                        let range = row * n..(row + 1) * n;
                        rms_norm(crew, &sum[range.clone()], &weight, 1e-5, &mut alone);
                        assert_eq!(alone, out[range.clone()]);
                        worst = worst.max(error(&sum[range.clone()], &weight, &out[range]));
                    }
                    let want = want.get_or_insert_with(|| (sum.clone(), out.clone()));
                    assert!(want.0 == sum && want.1 == out, "{tier}, {threads} threads");
                }
            }
        }
        println!("rms_norm: {worst:.2e} from f64, relative");
        assert!(worst < 3e-7);
    }

    fn error(x: &[f32], weight: &[f32], out: &[f32]) -> f64 {
        let sum: f64 = x.iter().map(|&x| f64::from(x).powi(2)).sum();
        let root = (sum / x.len() as f64 + 1e-5f32 as f64).sqrt();
        let want = x.iter().zip(weight);
        let want = want.map(|(&x, &w)| f64::from(x) / root * f64::from(w));
        let off = want
            .zip(out)
            .map(|(w, &o)| (w - f64::from(o)).abs() / w.abs().max(1e-30));
        off.fold(0.0, f64::max)
    }
}
