//! What a sequence keeps of a KDA layer: the same bytes however long it is.

use super::KdaShape;
use crate::cpu::aligned::Floats;

/// Tails of the convolutions and the matrices S.
#[derive(Debug, Clone, Default)]
pub struct KdaState {
    /// The last `taps - 1` rows of the projection, the newest last: `[taps - 1, inner]`.
    pub tail_q: Vec<f32>,
    pub tail_k: Vec<f32>,
    pub tail_v: Vec<f32>,
    /// `[heads, d_k, d_v]`.
    pub s: Floats,
}

impl KdaState {
    /// Before the first token.
    pub fn zeroed(shape: &KdaShape) -> KdaState {
        let tail = vec![0.0; (shape.taps - 1) * shape.inner()];
        KdaState {
            tail_q: tail.clone(),
            tail_k: tail.clone(),
            tail_v: tail,
            s: Floats::zeroed(shape.inner() * shape.head_dim),
        }
    }

    pub fn bytes(&self) -> usize {
        size_of::<f32>() * (3 * self.tail_q.len() + self.s.len())
    }

    pub(super) fn fits(&self, shape: &KdaShape) -> bool {
        let tail = (shape.taps - 1) * shape.inner();
        let tails = [&self.tail_q, &self.tail_k, &self.tail_v];
        tails.iter().all(|t| t.len() == tail) && self.s.len() == shape.inner() * shape.head_dim
    }
}
