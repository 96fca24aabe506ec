//! A model's weights where ggml finds them: mapped, or copied into the device's memory.

use std::collections::HashMap;
use std::sync::Arc;

use ggml_kernels::backend::Backend;
use ggml_kernels::quant::TensorType;
use ggml_kernels::storage::{self, Placement};
use quantize::schema::{self, Hparams, Role};

use crate::engine::Experts;
use crate::engine::error::Unfit;
use crate::engine::layers::{self, Bind, EXPERTS, Mlp};
use crate::engine::model::Model;

/// Every tensor, where a pass finds it.
#[derive(Debug)]
pub(super) struct Weights {
    pub hparams: Hparams,
    pub storages: Vec<storage::Weights>,
    pub parts: layers::Parts<Weight, Weight>,
    pub names: Names,
}

/// A tensor of one of the model's storages.
#[derive(Debug, Clone, Copy)]
pub(super) struct Weight {
    storage: usize,
    pub at: usize,
}

impl Weight {
    pub fn storage(self, all: &[storage::Weights]) -> &storage::Weights {
        &all[self.storage]
    }
}

/// What each tensor's name stands for.
pub(super) type Names = HashMap<String, (Option<usize>, Role)>;

impl Weights {
    /// Layers below `gpu_layers` go to the device; `None`: all. Their experts may stay.
    pub fn place(
        model: &Model,
        backend: &Backend,
        gpu_layers: Option<usize>,
        experts: Experts,
    ) -> Result<Self, Unfit> {
        let (file, h) = (&model.file, model.hparams());
        let (mut mapped, mut copied, mut split) = (Vec::new(), Vec::new(), Vec::new());
        let mut found = HashMap::new();
        for spec in &model.specs {
            let tensor = model.tensor(&spec.name)?;
            if spec.role == Role::MlaKvB {
                for (role, values) in [Role::MlaKB, Role::MlaVB]
                    .into_iter()
                    .zip(model.split_kv_b(spec.layer)?.into_iter().flatten())
                {
                    found.insert((spec.layer, role), (SPLIT, split.len()));
                    split.push((owned(h, spec.layer, role), bytes(&values)));
                }
                continue;
            }
            let placement = Placement {
                name: spec.name.clone(),
                ty: tensor.ty,
                ne: tensor.ne.map(|n| n as usize),
            };
            let stays = experts == Experts::Cpu && EXPERTS.contains(&spec.role);
            let is_below = |l| gpu_layers.is_none_or(|n| l < n);
            let to_device = !stays && spec.layer.is_none_or(is_below);
            let copy = match spec.role {
                // Few bytes, and what nobody can change under us is seen once to have an order.
                Role::RouterBias => to_device,
                _ if backend.is_cpu() => false,
                // A row a token is read, which not every device can do of every type.
                Role::TokenEmbd => backend.reads_rows_of(&placement),
                _ => to_device,
            };
            let place = if copy {
                copied.push((placement, file.data(tensor)));
                (COPIED, copied.len() - 1)
            } else {
                mapped.push((placement, tensor.offset));
                (MAPPED, mapped.len() - 1)
            };
            found.insert((spec.layer, spec.role), place);
        }
        let map: &Arc<_> = file.map();
        let split: Vec<_> = split
            .iter()
            .map(|(p, b): &(Placement, Vec<u8>)| (p.clone(), b.as_slice()))
            .collect();
        let storages = vec![
            storage::Weights::mapped(map, &mapped)?,
            storage::Weights::copied(backend, &copied)?,
            storage::Weights::copied(backend, &split)?,
        ];
        let mut places = Places(found);
        Ok(Self {
            parts: layers::Parts::bind(h, model.has(Role::Output), &mut places)?,
            names: names(places.0.into_keys()),
            hparams: h.clone(),
            storages,
        })
    }
}

/// Storages, by where their tensors lie.
const MAPPED: usize = 0;
const COPIED: usize = 1;
const SPLIT: usize = 2;

fn owned(h: &Hparams, layer: Option<usize>, role: Role) -> Placement {
    let shape = role.shape(h);
    Placement {
        name: schema::name(layer, role),
        ty: TensorType::F32,
        ne: [shape[0] as usize, shape[1] as usize, shape[2] as usize, 1],
    }
}

fn bytes(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|v| v.to_ne_bytes()).collect()
}

fn names(tensors: impl Iterator<Item = (Option<usize>, Role)>) -> Names {
    let name = |(layer, role)| (schema::name(layer, role), (layer, role));
    tensors.map(name).collect()
}

struct Places(HashMap<(Option<usize>, Role), (usize, usize)>);

impl Bind for Places {
    type Matrix = Weight;
    type Vector = Weight;
    type Experts = Mlp<Weight>;

    fn matrix(&mut self, layer: Option<usize>, role: Role) -> Result<Weight, Unfit> {
        let found = self.0.get(&(layer, role));
        let &(storage, at) = found.ok_or_else(|| Unfit::Missing(schema::name(layer, role)))?;
        Ok(Weight { storage, at })
    }

    fn vector(&mut self, layer: Option<usize>, role: Role) -> Result<Weight, Unfit> {
        self.matrix(layer, role)
    }

    fn experts(&mut self, layer: Option<usize>) -> Result<Mlp<Weight>, Unfit> {
        Mlp::bind(layer, EXPERTS, self)
    }
}
