//! What meets each weight while a model reads a text: squares of the columns' inputs, summed over
//! tokens, each expert's on its own. Sums in f64: a long text adds millions of squares.

use std::collections::HashMap;

use ggml_kernels::graph::{Node, Observer};
use quantize::imatrix::Sums;
use quantize::schema;

use super::{MeasureError, PIECE, Step, Text, went_on};
use crate::engine::{Engine, Want};

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
            engine.forward_observed(&mut sequence, tokens, Want::All, &mut collector)?;
            if let Some((tensor, what)) = collector.fault.take() {
                return Err(MeasureError::Activations { tensor, what });
            }
            went_on(step, tokens.len())?;
        }
    }
    Ok(collector.finish())
}

struct Collector {
    weights: HashMap<String, Weight>,
    /// The first tensor that could not be followed, and why.
    fault: Option<(String, &'static str)>,
}

struct Weight {
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
            let weight = Weight {
                row: spec.shape[0] as usize,
                matrices,
                experts,
                squares: Vec::new(),
                counts: vec![0; if experts { matrices } else { 1 }],
            };
            (spec.name, weight)
        });
        Self {
            weights: weights.collect(),
            fault: None,
        }
    }

    fn finish(self) -> Vec<Sums> {
        let met = self.weights.into_iter();
        let met = met.filter(|(_, weight)| !weight.squares.is_empty());
        let sums = met.map(|(name, weight)| Sums {
            name,
            squares: weight.squares,
            counts: weight.counts,
        });
        sums.collect()
    }
}

impl Observer for Collector {
    fn wants(&mut self, node: &Node<'_>) -> bool {
        let product = matches!(node.op(), "MUL_MAT" | "MUL_MAT_ID");
        product
            && node
                .source_name(0)
                .is_some_and(|name| self.weights.contains_key(name))
    }

    fn observe(&mut self, node: &Node<'_>) {
        let Some((name, weight)) = node.source_name(0).and_then(|name| {
            let weight = self.weights.get_mut(name)?;
            Some((name, weight))
        }) else {
            return;
        };
        let followed = if weight.experts {
            weight.follow_experts(node)
        } else {
            weight.follow(node)
        };
        if let Err(why) = followed {
            self.fault.get_or_insert((name.to_owned(), why));
        }
    }
}

impl Weight {
    /// Inputs `[row, tokens, matrices]`, whatever their strides; with more stacks of inputs than
    /// matrices, each matrix meets several.
    fn follow(&mut self, node: &Node<'_>) -> Result<(), &'static str> {
        self.squares.resize(self.matrices * self.row, 0.0);
        let mut rows = 0;
        let read = node.each_source_row(1, &mut |[_, stack, _], x| {
            self.add(stack % self.matrices, x);
            rows += 1;
        });
        self.counts[0] += rows / self.matrices as u64;
        self.judge(read)
    }

    /// Inputs `[row, used or 1, tokens]` and who takes them, `[used, tokens]`.
    fn follow_experts(&mut self, node: &Node<'_>) -> Result<(), &'static str> {
        self.squares.resize(self.matrices * self.row, 0.0);
        let (Some(ids), Some([_, slots, ..])) = (node.source_indices(2), node.source_ne(1)) else {
            return self.judge(false);
        };
        let read = node.each_source_row(1, &mut |[slot, token, _], x| {
            for (at, &expert) in ids[token].iter().enumerate() {
                // One input for all the token's experts, or one each.
                if at % slots == slot {
                    self.counts[expert as usize] += 1;
                    self.add(expert as usize, x);
                }
            }
        });
        self.judge(read)
    }

    fn judge(&self, read: bool) -> Result<(), &'static str> {
        if !read {
            return Err("not f32");
        }
        if self.squares.iter().all(|x| x.is_finite()) {
            Ok(())
        } else {
            Err("not finite")
        }
    }

    fn add(&mut self, matrix: usize, x: &[f32]) {
        let squares = &mut self.squares[matrix * self.row..(matrix + 1) * self.row];
        for (sum, &x) in squares.iter_mut().zip(x) {
            *sum += f64::from(x) * f64::from(x);
        }
    }
}
