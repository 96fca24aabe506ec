//! A model's weights in the card's memory: matrices in the form that the kernels read, small vectors as
//! floats.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;

use ggml_kernels::cuda::driver::{Buffer, Device};
use ggml_kernels::cuda::weights::{Stack, WeightType};
use ggml_kernels::quant::{TensorType, dequantize};
use half::f16;
use quantize::schema::{self, Hparams, Mixer, Role};

use super::fit::{check_room, check_sizes, taken, weight_type};
use super::place::Place;
use super::upload::{Queue, Uploader};
use crate::engine::error::Unfit;
use crate::engine::layers::{Bind, EXPERTS, Mlp, Parts};
use crate::engine::model::Model;

#[cfg(test)]
mod tests;

/// Matrices that are used twice, such as an embedding that is the output too, are there once.
/// Routed experts may be elsewhere.
pub(super) type Bound = Parts<Arc<Stack>, Buffer<f32>, Option<Mlp<Arc<Stack>>>>;

#[derive(Debug)]
pub(super) struct Weights {
    pub parts: Bound,
    /// For each MLA layer, in their order.
    pub expanding: Vec<Expanding>,
}

/// What cache rows `[norm(c), k_r]` are expanded by in passes of many rows: one matrix each, in f16.
#[derive(Debug)]
pub(super) struct Expanding {
    /// `[heads * nope, rank]`: row `head * nope + n`.
    pub k: Arc<Stack>,
    /// `[heads * v, rank]`.
    pub v: Arc<Stack>,
}

/// What the weights take of the card, known before any is taken. Types and sizes that no kernel takes
/// are refused here.
#[derive(Debug, Clone, Copy)]
pub(super) struct Needed {
    /// For good.
    pub weights: u64,
    /// While they come.
    pub beside: u64,
    /// Bytes of the file's longest row.
    widest_row: usize,
    experts: Place,
}

impl Needed {
    pub fn of(model: &Model, experts: Place) -> Result<Needed, Unfit> {
        let h = model.hparams();
        check_sizes(h)?;
        let mut count = Count {
            model,
            experts,
            seen: HashMap::new(),
            bytes: 0,
            widest_row: 0,
        };
        Parts::<(), (), ()>::bind(h, model.has(Role::Output), &mut count)?;
        for layer in mla_layers(h) {
            for (role, size) in expanding_sizes(h) {
                if !is_expanding(wanted(model, Some(layer), role)?.ty, role) {
                    count.take(WeightType::F16, size, role, layer)?;
                }
            }
        }
        Ok(Needed {
            weights: count.bytes,
            beside: Uploader::needed(count.widest_row) as u64,
            widest_row: count.widest_row,
            experts,
        })
    }
}

impl Weights {
    /// Brings them to the card. `needed`: what was said of the same model.
    pub fn upload(model: &Model, needed: Needed, device: &Device) -> Result<Weights, Unfit> {
        check_room(device, needed.weights + needed.beside)?;
        let h = model.hparams();
        let uploader = Uploader::new(
            model.file.clone(),
            device,
            needed.widest_row,
            needed.weights,
        );
        uploader.run(|queue| {
            let mut binder = Binder {
                model,
                device,
                experts: needed.experts,
                queue,
                bound: HashMap::new(),
            };
            let parts = Parts::bind(h, model.has(Role::Output), &mut binder)?;
            let expanding = mla_layers(h).map(|layer| binder.expanding(layer));
            Ok(Weights {
                expanding: expanding.collect::<Result<_, _>>()?,
                parts,
            })
        })
    }
}

fn mla_layers(h: &Hparams) -> impl Iterator<Item = usize> + '_ {
    let layers = h.layers.iter().enumerate();
    layers
        .filter(|(_, l)| l.mixer == Mixer::Mla)
        .map(|(at, _)| at)
}

/// Sizes of an MLA layer's [`Expanding`].
fn expanding_sizes(h: &Hparams) -> [(Role, [usize; 3]); 2] {
    let mla = &h.mla;
    [(Role::MlaKB, mla.qk_nope), (Role::MlaVB, mla.v)]
        .map(|(role, width)| (role, [1, mla.heads * width, mla.kv_lora_rank]))
}

/// The matrix of the file is the one that rows are expanded by: of values, in f16. That of keys is
/// transposed in each head.
fn is_expanding(ty: WeightType, role: Role) -> bool {
    ty == WeightType::F16 && role == Role::MlaVB
}

/// What a matrix will be on the card.
#[derive(Debug, Clone, Copy)]
struct Wanted {
    ty: WeightType,
    /// Matrices, rows, cols.
    size: [usize; 3],
    source: Source,
}

/// Where its bytes come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Source {
    /// The file's own.
    File,
    /// Its values in F32.
    Floats,
    /// Its values in F16.
    Halves,
}

fn wanted(model: &Model, layer: Option<usize>, role: Role) -> Result<Wanted, Unfit> {
    let shape = role.shape(model.hparams());
    let ne = |at: usize| shape.get(at).map_or(1, |&n| n as usize);
    let (ty, source) = match split_of(model, layer, role)? {
        Some(TensorType::F32) => (WeightType::F32, Source::Floats),
        // Values of other types are known to no more digits than f16 has.
        Some(_) => (WeightType::F16, Source::Halves),
        None => {
            let name = schema::name(layer, role);
            match model.tensor(&name)?.ty {
                // What files have for rows that no K-quant can be: few, and small.
                TensorType::Q4_1 | TensorType::Q5_0 | TensorType::Q5_1 => {
                    (WeightType::F16, Source::Halves)
                }
                ty => (weight_type(&name, ty)?, Source::File),
            }
        }
    };
    let size = [ne(2), ne(1), ne(0)];
    Ok(Wanted { ty, size, source })
}

/// The type of the undivided `kv_b` that old files have for this matrix.
fn split_of(model: &Model, layer: Option<usize>, role: Role) -> Result<Option<TensorType>, Unfit> {
    if !matches!(role, Role::MlaKB | Role::MlaVB) {
        return Ok(None);
    }
    let whole = |s: &&schema::TensorSpec| s.layer == layer && s.role == Role::MlaKvB;
    let whole = model.specs.iter().find(whole);
    whole.map(|s| Ok(model.tensor(&s.name)?.ty)).transpose()
}

/// Counts bytes.
struct Count<'m> {
    model: &'m Model,
    experts: Place,
    seen: HashMap<(Option<usize>, Role), ()>,
    bytes: u64,
    widest_row: usize,
}

impl Count<'_> {
    fn take(
        &mut self,
        ty: WeightType,
        [count, rows, cols]: [usize; 3],
        role: Role,
        layer: impl Into<Option<usize>>,
    ) -> Result<(), Unfit> {
        let row = ty.row_bytes(cols).ok_or_else(|| Unfit::CardSize {
            what: "a row",
            got: cols,
            wanted: format!(
                "whole blocks of {ty:?} in {}",
                schema::name(layer.into(), role)
            ),
        })?;
        self.bytes += taken(count * rows * row);
        self.widest_row = self.widest_row.max(row);
        Ok(())
    }
}

impl Bind for Count<'_> {
    type Matrix = ();
    type Vector = ();
    type Experts = ();

    fn matrix(&mut self, layer: Option<usize>, role: Role) -> Result<(), Unfit> {
        if self.seen.insert((layer, role), ()).is_some() {
            return Ok(());
        }
        let Wanted { ty, size, .. } = wanted(self.model, layer, role)?;
        self.take(ty, size, role, layer)
    }

    fn vector(&mut self, layer: Option<usize>, role: Role) -> Result<(), Unfit> {
        let tensor = self.model.tensor(&schema::name(layer, role))?;
        self.bytes += taken(tensor.elements() as usize * size_of::<f32>());
        Ok(())
    }

    fn experts(&mut self, layer: Option<usize>) -> Result<(), Unfit> {
        match self.experts {
            Place::Card => Mlp::bind(layer, EXPERTS, self).map(|_| ()),
            Place::Processor => Ok(()),
        }
    }
}

/// Asks for what is bound to be brought.
struct Binder<'m, 'q> {
    model: &'m Model,
    device: &'q Device,
    experts: Place,
    queue: &'q Queue<'m>,
    bound: HashMap<(Option<usize>, Role), Arc<Stack>>,
}

impl<'m> Binder<'m, '_> {
    fn bring(
        &self,
        ty: WeightType,
        size: [usize; 3],
        bytes: impl Into<Cow<'m, [u8]>>,
    ) -> Result<Arc<Stack>, Unfit> {
        let stack = Arc::new(Stack::zeroed(self.device, ty, size)?);
        self.queue.upload(bytes.into(), stack.clone())?;
        Ok(stack)
    }

    fn expanding(&self, layer: usize) -> Result<Expanding, Unfit> {
        let h = self.model.hparams();
        let [k, v] = expanding_sizes(h).map(|(role, size)| {
            let bound = &self.bound[&(Some(layer), role)];
            if is_expanding(bound.ty(), role) {
                return Ok(bound.clone());
            }
            let mut values = values(self.model, Some(layer), role)?;
            if role == Role::MlaKB {
                values = transposed(&values, h.mla.kv_lora_rank, h.mla.qk_nope);
            }
            self.bring(WeightType::F16, size, halves(&values))
        });
        Ok(Expanding { k: k?, v: v? })
    }
}

impl Bind for Binder<'_, '_> {
    type Matrix = Arc<Stack>;
    type Vector = Buffer<f32>;
    type Experts = Option<Mlp<Arc<Stack>>>;

    fn matrix(&mut self, layer: Option<usize>, role: Role) -> Result<Arc<Stack>, Unfit> {
        if let Some(bound) = self.bound.get(&(layer, role)) {
            return Ok(bound.clone());
        }
        let Wanted { ty, size, source } = wanted(self.model, layer, role)?;
        let bytes: Cow<'_, [u8]> = match source {
            Source::File => {
                let tensor = self.model.tensor(&schema::name(layer, role))?;
                self.model.file.data(tensor).into()
            }
            Source::Floats => floats(&values(self.model, layer, role)?).into(),
            Source::Halves => halves(&values(self.model, layer, role)?).into(),
        };
        let stack = self.bring(ty, size, bytes)?;
        self.bound.insert((layer, role), stack.clone());
        Ok(stack)
    }

    fn vector(&mut self, layer: Option<usize>, role: Role) -> Result<Buffer<f32>, Unfit> {
        Ok(self.device.upload(&values(self.model, layer, role)?)?)
    }

    fn experts(&mut self, layer: Option<usize>) -> Result<Self::Experts, Unfit> {
        match self.experts {
            Place::Card => Mlp::bind(layer, EXPERTS, self).map(Some),
            Place::Processor => Ok(None),
        }
    }
}

/// A tensor's values; of `k_b` and `v_b` also where the file has them undivided.
fn values(model: &Model, layer: Option<usize>, role: Role) -> Result<Vec<f32>, Unfit> {
    if split_of(model, layer, role)?.is_some()
        && let Some([k_b, v_b]) = model.split_kv_b(layer)?
    {
        return Ok(if role == Role::MlaKB { k_b } else { v_b });
    }
    let name = schema::name(layer, role);
    let tensor = model.tensor(&name)?;
    let mut values = vec![0.0; tensor.elements() as usize];
    let read = dequantize(tensor.ty, model.file.data(tensor), &mut values);
    read.map_err(|why| Unfit::Tensor { name, why })?;
    Ok(values)
}

/// Every matrix `[rows, cols]` of a stack as `[cols, rows]`.
fn transposed(values: &[f32], rows: usize, cols: usize) -> Vec<f32> {
    let mut turned = Vec::with_capacity(values.len());
    for matrix in values.chunks_exact(rows * cols) {
        for col in 0..cols {
            turned.extend(matrix.iter().skip(col).step_by(cols));
        }
    }
    turned
}

fn floats(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|v| v.to_le_bytes()).collect()
}

fn halves(values: &[f32]) -> Vec<u8> {
    let bytes = values.iter().flat_map(|&v| f16::from_f32(v).to_le_bytes());
    bytes.collect()
}
