//! ggml's computed nodes as the taps that every executor has.

use ggml_kernels::graph::{Node, Observer};

use super::weights::Names;
use crate::engine::tap::{Listener, Point, Tap};

pub(super) struct Observed<'l> {
    names: &'l Names,
    listener: &'l mut dyn Listener,
}

impl<'l> Observed<'l> {
    pub fn new(names: &'l Names, listener: &'l mut dyn Listener) -> Self {
        Self { names, listener }
    }
}

fn point(node: &str) -> Option<Point> {
    match node {
        "embd" => Some(Point::Embedding),
        "result_norm" => Some(Point::OutputNorm),
        _ => {
            let layer = node.strip_prefix("l_out-")?.parse().ok()?;
            Some(Point::After { layer })
        }
    }
}

impl Observer for Observed<'_> {
    fn wants(&mut self, node: &Node<'_>) -> bool {
        let product = matches!(node.op(), "MUL_MAT" | "MUL_MAT_ID");
        let known = |name: &str| self.names.contains_key(name);
        point(node.name()).is_some() || product && node.source_name(0).is_some_and(known)
    }

    fn observe(&mut self, node: &Node<'_>) {
        if let (Some(at), Some(rows)) = (point(node.name()), node.values()) {
            self.listener.hear(Tap::Hidden { at, rows: &rows });
        }
        let weight = node.source_name(0).and_then(|name| self.names.get(name));
        let Some(&(layer, role)) = weight else { return };
        let listener = &mut *self.listener;
        let mut hear = |matrix, rows: &[f32]| {
            listener.hear(Tap::Input {
                layer,
                role,
                matrix,
                rows,
            });
        };
        match node.op() {
            // Inputs `[row, used or 1, tokens]` and who takes them, `[used, tokens]`.
            "MUL_MAT_ID" => {
                let (Some(ids), Some([_, slots, ..])) = (node.source_indices(2), node.source_ne(1))
                else {
                    return;
                };
                node.each_source_row(1, &mut |[slot, token, _], x| {
                    // One input for all the token's experts, or one each.
                    let takers = ids[token].iter().enumerate();
                    for (_, &expert) in takers.filter(|(at, _)| at % slots == slot) {
                        hear(expert as usize, x);
                    }
                });
            }
            // Inputs `[row, tokens, stacks]`; with more stacks than matrices, each meets several.
            "MUL_MAT" => {
                let matrices = node.source_ne(0).map_or(1, |ne| ne[2].max(1));
                node.each_source_row(1, &mut |[_, stack, _], x| hear(stack % matrices, x));
            }
            _ => {}
        }
    }
}
