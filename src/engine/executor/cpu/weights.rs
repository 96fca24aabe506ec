//! A model's weights where the kernels find them: matrices in the mapped file as they are, small
//! vectors as floats.

use std::collections::HashMap;
use std::ops::Range;

use ggml_kernels::cpu::matrix::{Matrix, Stack};
use ggml_kernels::cpu::products::Product;
use ggml_kernels::quant::{TensorType, dequantize};
use quantize::schema::{self, Ffn, Role};

use crate::engine::error::Unfit;
use crate::engine::layers::{Bind, EXPERTS, Mlp, Parts};
use crate::engine::model::Model;

/// One matrix or several of the same size: `[count, rows, cols]`, cols contiguous.
#[derive(Debug)]
pub(super) struct Held {
    pub ty: TensorType,
    count: usize,
    rows: usize,
    cols: usize,
    bytes: Bytes,
}

#[derive(Debug)]
enum Bytes {
    /// Of the mapped file.
    Mapped(Range<usize>),
    Owned(Vec<u8>),
}

pub(super) type Bound = Parts<Held, Vec<f32>>;

impl Held {
    fn new(
        name: &str,
        ty: TensorType,
        ne: [usize; 3],
        bytes: Bytes,
        map: &[u8],
    ) -> Result<Held, Unfit> {
        let [cols, rows, count] = ne;
        let held = Held {
            ty,
            count,
            rows,
            cols,
            bytes,
        };
        let checked = Stack::new(ty, count, rows, cols, held.bytes(map));
        checked.map_err(|why| Unfit::Tensor {
            name: name.to_owned(),
            why,
        })?;
        Ok(held)
    }

    fn bytes<'m>(&'m self, map: &'m [u8]) -> &'m [u8] {
        match &self.bytes {
            Bytes::Mapped(range) => &map[range.clone()],
            Bytes::Owned(bytes) => bytes,
        }
    }

    pub fn count(&self) -> usize {
        self.count
    }

    pub fn one_values(&self) -> usize {
        self.rows * self.cols
    }

    pub fn one_bytes(&self) -> usize {
        self.ty.row_bytes(self.cols).unwrap_or(0) * self.rows
    }

    /// Bytes of matrix `at`.
    pub fn one<'m>(&'m self, map: &'m [u8], at: usize) -> &'m [u8] {
        let bytes = self.one_bytes();
        &self.bytes(map)[at * bytes..(at + 1) * bytes]
    }

    /// Bytes of row `at`.
    pub fn row<'m>(&'m self, map: &'m [u8], at: usize) -> &'m [u8] {
        let bytes = self.bytes(map);
        let row = bytes.len() / (self.count * self.rows);
        &bytes[at * row..(at + 1) * row]
    }

    pub fn matrix<'m>(&'m self, map: &'m [u8]) -> Matrix<'m> {
        self.stack(map).get(0)
    }

    /// Its product with an input, to be written to `out`.
    pub fn product<'m, 'o>(&'m self, map: &'m [u8], out: &'o mut [f32]) -> Product<'m, 'o> {
        let matrix = self.matrix(map);
        Product { matrix, out }
    }

    pub fn stack<'m>(&'m self, map: &'m [u8]) -> Stack<'m> {
        let stack = Stack::new(self.ty, self.count, self.rows, self.cols, self.bytes(map));
        stack.expect("checked when it was bound, and never changed")
    }
}

pub(super) fn bind(model: &Model) -> Result<Bound, Unfit> {
    let mut split = HashMap::new();
    for spec in model.specs.iter().filter(|s| s.role == Role::MlaKvB) {
        if let Some([k_b, v_b]) = model.split_kv_b(spec.layer)? {
            split.insert((spec.layer, Role::MlaKB), k_b);
            split.insert((spec.layer, Role::MlaVB), v_b);
        }
    }
    let mut binder = Binder { model, split };
    Parts::bind(model.hparams(), model.has(Role::Output), &mut binder)
}

/// Every sparse layer's routed experts, by layer, and nothing else.
pub(super) fn experts(model: &Model) -> Result<Vec<Option<Mlp<Held>>>, Unfit> {
    let split = HashMap::new();
    let mut binder = Binder { model, split };
    let layers = model.hparams().layers.iter().enumerate();
    layers
        .map(|(at, layer)| match layer.ffn {
            Ffn::Dense => Ok(None),
            Ffn::Sparse => binder.experts(Some(at)).map(Some),
        })
        .collect()
}

struct Binder<'m> {
    model: &'m Model,
    /// What old files keep undivided.
    split: HashMap<(Option<usize>, Role), Vec<f32>>,
}

impl Bind for Binder<'_> {
    type Matrix = Held;
    type Vector = Vec<f32>;
    type Experts = Mlp<Held>;

    fn matrix(&mut self, layer: Option<usize>, role: Role) -> Result<Held, Unfit> {
        let (name, map) = (schema::name(layer, role), self.model.file.map());
        if let Some(values) = self.split.remove(&(layer, role)) {
            let shape = role.shape(self.model.hparams());
            let ne = [shape[0], shape[1], shape[2]].map(|n| n as usize);
            let bytes = values.iter().flat_map(|v| v.to_ne_bytes()).collect();
            return Held::new(&name, TensorType::F32, ne, Bytes::Owned(bytes), map);
        }
        let tensor = self.model.tensor(&name)?;
        let ne = [tensor.ne[0], tensor.ne[1], tensor.ne[2]].map(|n| n as usize);
        let range = tensor.offset..tensor.offset + self.model.file.data(tensor).len();
        Held::new(&name, tensor.ty, ne, Bytes::Mapped(range), map)
    }

    fn vector(&mut self, layer: Option<usize>, role: Role) -> Result<Vec<f32>, Unfit> {
        let name = schema::name(layer, role);
        let tensor = self.model.tensor(&name)?;
        let mut values = vec![0.0; tensor.elements() as usize];
        let read = dequantize(tensor.ty, self.model.file.data(tensor), &mut values);
        read.map_err(|why| Unfit::Tensor { name, why })?;
        Ok(values)
    }

    fn experts(&mut self, layer: Option<usize>) -> Result<Mlp<Held>, Unfit> {
        Mlp::bind(layer, EXPERTS, self)
    }
}
