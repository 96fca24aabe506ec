//! What is done to each head of MLA beside attention: its rotated columns, and the gate on its
//! output. Plain loops of products and sums, which come out alike on every tier.

use super::crew::Crew;
use super::math;

/// Values to a piece: fewer are not worth a worker.
const PIECE: usize = 1 << 14;

/// How far the rotated columns of each row are turned: neighbouring columns are a pair, and pair
/// `j` of `width / 2` is turned by `position * base^(-2j / width)`.
#[derive(Debug, Default)]
pub struct Turns {
    width: usize,
    /// `[rows, width / 2]` cosines and sines.
    pairs: Vec<[f32; 2]>,
}

impl Turns {
    /// For rows at these positions. `width` is even. Angles in f64: of a long text's they would keep
    /// few digits in f32.
    pub fn fill(&mut self, width: usize, base: f32, positions: impl Iterator<Item = usize>) {
        assert!(width.is_multiple_of(2), "{width} columns in pairs");
        self.width = width;
        self.pairs.clear();
        let speed = |pair: usize| f64::from(base).powf(-2.0 * pair as f64 / width as f64);
        let speeds: Vec<f64> = (0..width / 2).map(speed).collect();
        for position in positions {
            let turn = |speed: &f64| {
                let (sin, cos) = (position as f64 * speed).sin_cos();
                [cos as f32, sin as f32]
            };
            self.pairs.extend(speeds.iter().map(turn));
        }
    }

    /// Leaves the turns of some rows alone, whose numbers rise.
    pub fn keep(&mut self, rows: &[usize]) {
        let half = self.width / 2;
        for (to, &from) in rows.iter().enumerate() {
            self.pairs
                .copy_within(from * half..(from + 1) * half, to * half);
        }
        self.pairs.truncate(rows.len() * half);
    }

    /// Turns the columns from `from` on of every head, `x [rows, heads, stride]`, in place.
    pub fn turn(&self, crew: Crew<'_>, x: &mut [f32], heads: usize, from: usize) {
        let half = self.width / 2;
        let rows = self.pairs.len().checked_div(half).unwrap_or(0);
        let Some(stride) = x.len().checked_div(rows * heads) else {
            return assert!(x.is_empty(), "rows without positions");
        };
        assert_eq!(x.len(), rows * heads * stride, "rows of {heads} heads");
        assert!(from + self.width <= stride, "columns of a head");
        let by = (PIECE / (heads * stride)).max(1);
        crew.pool
            .run_chunks(x, by * heads * stride, &|piece, x, _| {
                let pairs = self.pairs[piece * by * half..].chunks_exact(half);
                for (row, pairs) in x.chunks_exact_mut(heads * stride).zip(pairs) {
                    for head in row.chunks_exact_mut(stride) {
                        let columns = head[from..from + self.width].as_chunks_mut::<2>().0;
                        for ([a, b], [cos, sin]) in columns.iter_mut().zip(pairs) {
                            (*a, *b) = (*a * cos - *b * sin, *a * sin + *b * cos);
                        }
                    }
                }
            });
    }
}

/// `x[head] *= sigmoid(gates[head])`: x `[rows, heads, width]`, gates `[rows, heads]`.
pub fn open_heads(crew: Crew<'_>, x: &mut [f32], gates: &[f32]) {
    let Some(width) = x.len().checked_div(gates.len()) else {
        return assert!(x.is_empty(), "heads without gates");
    };
    assert_eq!(x.len(), gates.len() * width, "a gate for each head");
    let by = (PIECE / width.max(1)).max(1);
    crew.pool.run_chunks(x, by * width, &|piece, x, _| {
        let heads = x.chunks_exact_mut(width.max(1));
        for (head, &gate) in heads.zip(&gates[piece * by..]) {
            let open = math::sigmoid(gate);
            head.iter_mut().for_each(|x| *x *= open);
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::{Pool, Tier};
    use crate::reference::mla;

    fn noise(n: usize, seed: u32) -> Vec<f32> {
        let at = |i: usize| ((i as u32).wrapping_mul(2_654_435_761) ^ seed) as f32 / 5e8 - 4.0;
        (0..n).map(at).collect()
    }

    fn bits(x: &[f32]) -> Vec<u32> {
        x.iter().map(|x| x.to_bits()).collect()
    }

    #[test]
    fn columns_are_turned_as_the_reference_turns_them_in_any_company() {
        let pools = [1, 3].map(Pool::new);
        let mut worst = 0f64;
        for (heads, from, width, rest) in
            [(1, 40, 8, 0), (3, 5, 2, 4), (16, 128, 64, 0), (2, 0, 6, 1)]
        {
            let stride = from + width + rest;
            let positions: Vec<usize> = (0..90).map(|i| i * i * 37).collect();
            let x = noise(positions.len() * heads * stride, 3);
            let turned = |crew: Crew<'_>, positions: &[usize], x: &[f32]| {
                let (mut turns, mut x) = (Turns::default(), x.to_vec());
                turns.fill(width, 6e6, positions.iter().copied());
                turns.turn(crew, &mut x, heads, from);
                x
            };
            let tier = Tier::detect();
            let whole = turned(
                Crew {
                    pool: &pools[1],
                    tier,
                },
                &positions,
                &x,
            );
            let rows = x
                .chunks_exact(heads * stride)
                .zip(whole.chunks_exact(heads * stride));
            for (&position, (x, got)) in positions.iter().zip(rows) {
                let alone = turned(
                    Crew {
                        pool: &pools[0],
                        tier,
                    },
                    &[position],
                    x,
                );
                assert_eq!(bits(&alone), bits(got), "position {position}");
                for (x, got) in x.chunks_exact(stride).zip(got.chunks_exact(stride)) {
                    let columns = from..from + width;
                    let want = mla::rotate(&x[columns.clone()], position, 6e6);
                    for (got, want) in got[columns].iter().zip(want) {
                        worst = worst.max((f64::from(*got) - want).abs());
                    }
                    assert_eq!(
                        (&got[..from], &got[from + width..]),
                        (&x[..from], &x[from + width..])
                    );
                }
            }
        }
        println!("turns: {worst:.2e} from f64");
        assert!(worst < 1e-6);
    }

    #[test]
    fn rows_that_are_kept_are_turned_as_before() {
        let pool = Pool::new(2);
        let tier = Tier::detect();
        let crew = Crew { pool: &pool, tier };
        let mut x = noise(6 * 4, 7);
        let mut turns = Turns::default();
        turns.fill(4, 100.0, [3, 8, 9, 40, 41, 77].into_iter());
        let mut some = [&x[4..8], &x[12..16], &x[20..]].concat();
        turns.turn(crew, &mut x, 1, 0);
        turns.keep(&[1, 3, 5]);
        turns.turn(crew, &mut some, 1, 0);
        assert_eq!(
            bits(&some),
            bits(&[&x[4..8], &x[12..16], &x[20..]].concat())
        );
        turns.keep(&[]);
        turns.turn(crew, &mut [], 1, 0);
    }

    #[test]
    fn a_gate_opens_its_head_alone() {
        let pool = Pool::new(3);
        let crew = Crew {
            pool: &pool,
            tier: Tier::detect(),
        };
        for (rows, heads, width) in [(0, 3, 4), (1, 1, 1), (40, 3, 200), (2, 16, 5000)] {
            let (x, gates) = (noise(rows * heads * width, 1), noise(rows * heads, 2));
            let mut got = x.clone();
            open_heads(crew, &mut got, &gates);
            for (at, got) in got.iter().enumerate() {
                let gate = f64::from(gates[at / width]);
                let want = f64::from(x[at]) / (1.0 + (-gate).exp());
                assert!((f64::from(*got) - want).abs() < 1e-6, "{at}: {got}, {want}");
            }
        }
    }
}
