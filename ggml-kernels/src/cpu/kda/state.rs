//! What a sequence keeps of a KDA layer: the same bytes however long it is.

use std::alloc::{Layout, handle_alloc_error};

use super::KdaShape;
use crate::cpu::pages::{Span, spans};

/// Tails of the convolutions and the matrices S.
#[derive(Debug)]
pub struct KdaState {
    /// The last `taps - 1` rows of the projection, the newest last: `[taps - 1, inner]`.
    pub tail_q: Span<f32>,
    pub tail_k: Span<f32>,
    pub tail_v: Span<f32>,
    /// `[heads, d_k, d_v]`.
    pub s: Span<f32>,
}

impl KdaState {
    /// Before the first token.
    pub fn zeroed(shape: &KdaShape) -> KdaState {
        let one = KdaState::of_layers(shape, 1).pop();
        one.expect("of one layer")
    }

    /// The same for several layers, whose memory comes and goes together.
    pub fn of_layers(shape: &KdaShape, layers: usize) -> Vec<KdaState> {
        let (tail, s) = (
            (shape.taps - 1) * shape.inner(),
            shape.inner() * shape.head_dim,
        );
        let lens = [tail, tail, tail, s].repeat(layers);
        let spans = spans(&lens).unwrap_or_else(|_| {
            let bytes = size_of::<f32>() * lens.iter().sum::<usize>();
            handle_alloc_error(Layout::array::<u8>(bytes).unwrap_or(Layout::new::<f32>()))
        });
        let mut spans = spans.into_iter();
        let mut next = || spans.next().expect("as many as lengths");
        let layer = |_| KdaState {
            tail_q: next(),
            tail_k: next(),
            tail_v: next(),
            s: next(),
        };
        (0..layers).map(layer).collect()
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
