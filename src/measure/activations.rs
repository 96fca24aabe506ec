//! What meets each weight while a model reads a text: squares of the columns' inputs, summed over
//! tokens, each expert's on its own. Sums in f64: a long text adds millions of squares.

use std::collections::HashMap;

use quantize::imatrix::Sums;
use quantize::schema::{self, Role};

use super::{MeasureError, PIECE, Step, Text, went_on};
use crate::engine::{Engine, Lane, Listener, Tap, Want};

/// Reads `text`; the sums of every weight that took part in a product, in no order.
pub fn collect(
    engine: &mut Engine,
    text: &Text,
    step: Step<'_>,
) -> Result<Vec<Sums>, MeasureError> {
    let mut collector = Collector::new(engine);
    for chunk in text.each() {
        let mut sequence = engine.sequence()?;
        for tokens in chunk.chunks(PIECE) {
            // All positions: with fewer wanted, the last layer's experts would see only those.
            let lane = Lane {
                sequence: &mut sequence,
                tokens,
                want: Want::All,
            };
            engine.forward_heard(&mut [lane], &mut collector)?;
            if let Some((tensor, what)) = collector.fault.take() {
                return Err(MeasureError::Activations { tensor, what });
            }
            went_on(step, tokens.len())?;
        }
    }
    Ok(collector.finish())
}

struct Collector {
    weights: HashMap<(Option<usize>, Role), Weight>,
    /// The first tensor that could not be followed, and why.
    fault: Option<(String, &'static str)>,
}

struct Weight {
    name: String,
    row: usize,
    matrices: usize,
    experts: bool,
    /// `[matrices, row]`; empty until a token comes by.
    squares: Vec<f64>,
    /// One for each expert, or one.
    counts: Vec<u64>,
}

impl Collector {
    fn new(engine: &Engine) -> Self {
        let specs = schema::tensors(engine.model().hparams());
        let weights = specs.into_iter().map(|spec| {
            let matrices = spec.shape.get(2).map_or(1, |&n| n as usize);
            let experts = spec.role.is_stacked_experts();
            let at = (spec.layer, spec.role);
            let weight = Weight {
                row: spec.shape[0] as usize,
                matrices,
                experts,
                squares: Vec::new(),
                counts: vec![0; if experts { matrices } else { 1 }],
                name: spec.name,
            };
            (at, weight)
        });
        Self {
            weights: weights.collect(),
            fault: None,
        }
    }

    fn finish(self) -> Vec<Sums> {
        let met = self.weights.into_values();
        let met = met.filter(|weight| !weight.squares.is_empty());
        let sums = met.map(|weight| Sums {
            name: weight.name,
            squares: weight.squares,
            counts: weight.counts,
        });
        sums.collect()
    }
}

impl Listener for Collector {
    fn hear(&mut self, tap: Tap<'_>) {
        let Tap::Input {
            layer,
            role,
            matrix,
            rows,
        } = tap
        else {
            return;
        };
        let Some(weight) = self.weights.get_mut(&(layer, role)) else {
            return;
        };
        if !weight.add(matrix, rows) {
            let tensor = weight.name.clone();
            self.fault.get_or_insert((tensor, "not finite"));
        }
    }
}

impl Weight {
    /// False: what met it is not finite.
    fn add(&mut self, matrix: usize, rows: &[f32]) -> bool {
        self.squares.resize(self.matrices * self.row, 0.0);
        let squares = &mut self.squares[matrix * self.row..(matrix + 1) * self.row];
        for x in rows.chunks_exact(self.row) {
            for (sum, &x) in squares.iter_mut().zip(x) {
                *sum += f64::from(x) * f64::from(x);
            }
        }
        let count = if self.experts { matrix } else { 0 };
        // Heads share a count: each meets every token.
        if self.experts || matrix == 0 {
            self.counts[count] += (rows.len() / self.row) as u64;
        }
        squares.iter().all(|x| x.is_finite())
    }
}
