//! Two models' logits at one position after another, to how far apart they are. Pure: knows no
//! engine. All in nats, f64.

use crate::request::Token;

/// A mean and its standard error.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Estimate {
    pub mean: f64,
    pub error: f64,
}

/// Running sums over positions.
#[derive(Debug, Default)]
struct Moments {
    n: f64,
    sum: f64,
    squares: f64,
}

impl Moments {
    fn add(&mut self, x: f64) {
        self.n += 1.0;
        self.sum += x;
        self.squares += x * x;
    }

    fn estimate(&self) -> Estimate {
        let mean = self.sum / self.n;
        let variance = (self.squares / self.n - mean * mean).max(0.0);
        let error = (variance / (self.n - 1.0).max(1.0)).sqrt();
        Estimate { mean, error }
    }
}

/// Collects positions. One f32 of each is kept, for quantiles.
#[derive(Debug, Default)]
pub struct Divergence {
    surprise_a: Moments,
    surprise_b: Moments,
    more_surprise: Moments,
    kl: Moments,
    kls: Vec<f32>,
    same_first: u64,
}

/// What is known after the last position.
#[derive(Debug, Clone, PartialEq)]
pub struct Summary {
    pub positions: usize,
    /// exp of the mean of -ln p(next token).
    pub perplexity_a: Estimate,
    pub perplexity_b: Estimate,
    /// Perplexity of B over A's, from the paired differences.
    pub ratio: Estimate,
    /// KL(A || B): what is lost by believing B where A is right.
    pub kl: Estimate,
    pub kl_median: f64,
    pub kl_99: f64,
    pub kl_999: f64,
    pub kl_most: f64,
    /// Share of positions where both put the same token first.
    pub top_1: f64,
}

impl Divergence {
    /// Logits of both models for the token after a position, and the one that came.
    pub fn add(&mut self, a: &[f32], b: &[f32], next: Token) {
        let (first_a, norm_a) = normalizer(a);
        let (first_b, norm_b) = normalizer(b);
        let kl: f64 = a
            .iter()
            .zip(b)
            .map(|(&a, &b)| {
                let ln_a = f64::from(a) - norm_a;
                ln_a.exp() * (ln_a - (f64::from(b) - norm_b))
            })
            .sum();
        // Never negative but by rounding.
        let kl = kl.max(0.0);
        let surprise_a = norm_a - f64::from(a[next as usize]);
        let surprise_b = norm_b - f64::from(b[next as usize]);
        self.surprise_a.add(surprise_a);
        self.surprise_b.add(surprise_b);
        self.more_surprise.add(surprise_b - surprise_a);
        self.kl.add(kl);
        self.kls.push(kl as f32);
        self.same_first += u64::from(first_a == first_b);
    }

    /// Of at least one position.
    pub fn summary(mut self) -> Summary {
        self.kls.sort_unstable_by(f32::total_cmp);
        Summary {
            positions: self.kls.len(),
            perplexity_a: exp(self.surprise_a.estimate()),
            perplexity_b: exp(self.surprise_b.estimate()),
            ratio: exp(self.more_surprise.estimate()),
            kl: self.kl.estimate(),
            kl_median: quantile(&self.kls, 0.5),
            kl_99: quantile(&self.kls, 0.99),
            kl_999: quantile(&self.kls, 0.999),
            kl_most: quantile(&self.kls, 1.0),
            top_1: self.same_first as f64 / self.kl.n,
        }
    }
}

/// The first of the largest logits, and ln of the sum of exp.
fn normalizer(row: &[f32]) -> (usize, f64) {
    let mut first = 0;
    for (at, &x) in row.iter().enumerate() {
        if x > row[first] {
            first = at;
        }
    }
    let most = f64::from(row[first]);
    let sum: f64 = row.iter().map(|&x| (f64::from(x) - most).exp()).sum();
    (first, most + sum.ln())
}

/// exp of a mean; its error to first order.
fn exp(of: Estimate) -> Estimate {
    let mean = of.mean.exp();
    let error = mean * of.error;
    Estimate { mean, error }
}

/// Of sorted values, between the two nearest.
fn quantile(sorted: &[f32], share: f64) -> f64 {
    let Some(last) = sorted.len().checked_sub(1) else {
        return f64::NAN;
    };
    let place = share * last as f64;
    let below = place.floor() as usize;
    let (low, high) = (sorted[below], sorted[(below + 1).min(last)]);
    f64::from(low) + (place - below as f64) * f64::from(high - low)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn close(got: f64, wanted: f64) {
        assert!((got - wanted).abs() < 1e-6, "got {got}, wanted {wanted}");
    }

    #[test]
    fn equal_logits_have_no_divergence_at_all() {
        let mut divergence = Divergence::default();
        let row = [0.3, -7.25, 11.5, 2.0];
        for next in 0..4 {
            divergence.add(&row, &row, next);
        }
        let got = divergence.summary();
        assert_eq!((got.kl.mean, got.kl_most, got.top_1), (0.0, 0.0, 1.0));
        assert_eq!(got.perplexity_a, got.perplexity_b);
        assert_eq!(
            got.ratio,
            Estimate {
                mean: 1.0,
                error: 0.0
            }
        );
    }

    #[test]
    fn two_coins_diverge_by_the_textbook_amount() {
        // p = 3/4, 1/4 against q = 1/2, 1/2; a constant added to all logits changes nothing.
        let (p, q) = ([3f32.ln() + 5.0, 5.0], [-2.0f32, -2.0]);
        let mut divergence = Divergence::default();
        divergence.add(&p, &q, 1);
        divergence.add(&q, &p, 0);
        let got = divergence.summary();
        let forth = 0.75 * 1.5f64.ln() + 0.25 * 0.5f64.ln();
        let back = 0.5 * (2.0f64 / 3.0).ln() + 0.5 * 2f64.ln();
        close(got.kl.mean, (forth + back) / 2.0);
        close(got.kl_most, forth.max(back));
        close(got.kl_median, (forth + back) / 2.0);
        // Surprises of A: ln 4, ln 2; of B: ln 2, ln 4/3.
        close(got.perplexity_a.mean, 8f64.sqrt());
        close(got.perplexity_b.mean, (8f64 / 3.0).sqrt());
        close(got.ratio.mean, (1f64 / 3.0).sqrt());
        // q's first two are equal: the first of them counts, which is p's first too.
        assert_eq!(got.top_1, 1.0);
    }

    #[test]
    fn quantiles_lie_between_the_two_nearest() {
        let values: Vec<f32> = (0..=1000).map(|x| x as f32).collect();
        close(quantile(&values, 0.999), 999.0);
        close(quantile(&values[..=500], 0.999), 499.5);
        close(quantile(&values[..1], 0.999), 0.0);
    }

    #[test]
    fn errors_are_those_of_the_mean() {
        let mut moments = Moments::default();
        [1.0, 2.0, 3.0, 4.0]
            .into_iter()
            .for_each(|x| moments.add(x));
        let got = moments.estimate();
        close(got.mean, 2.5);
        // Sample variance 5/3 over 4.
        close(got.error, (5.0f64 / 12.0).sqrt());
    }
}
