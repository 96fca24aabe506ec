//! Where a target tensor's rows come from: one hub tensor, one per expert, a part of an undivided
//! `kv_b_proj`, or a tensor of another GGUF. Knows the transpositions; refuses shapes that the schema
//! does not want.

use crate::checkpoint::{Checkpoint, HubTensor};
use crate::error::Error;
use crate::schema::{GateLaw, Hparams, Role, TensorSpec};
use ggml_kernels::gguf::{GgufFile, TensorInfo};
use ggml_kernels::quant::{QuantError, TensorType, dequantize};

/// Rows of one target tensor, as f32, in the target's order.
pub struct Source<'a> {
    /// Element type of the input.
    pub ty: TensorType,
    rows: Rows<'a>,
}

enum Rows<'a> {
    /// The same values in the same order.
    Direct(&'a [u8]),
    /// `sign` times exp of the same values.
    Exp { data: &'a [u8], sign: f32 },
    /// One matrix per expert, each of this many rows.
    Stacked { experts: Vec<&'a [u8]>, rows: usize },
    /// `[heads, nope + v, rank]`, of which the key part is wanted transposed: a row is one head's
    /// column of the latent.
    KeyPart {
        data: &'a [u8],
        nope: usize,
        v: usize,
        rank: usize,
    },
    /// The value part of the same, as it is.
    ValuePart {
        data: &'a [u8],
        nope: usize,
        v: usize,
        rank: usize,
    },
}

impl<'a> Source<'a> {
    /// Finds the rows of `spec` in a checkpoint. `None`: the tensor is left out (tied output).
    pub fn in_checkpoint(from: &'a Checkpoint, spec: &TensorSpec) -> Result<Option<Self>, Error> {
        let h = &from.config.hparams;
        let named = h.kin.hub_name(spec.role);
        if spec.role == Role::Output && from.config.tied && from.tensor(named).is_none() {
            return Ok(None);
        }
        let find = |name: &str, shape: &[usize]| find(from, name, shape);
        // Slowest first.
        let shape: Vec<usize> = spec.shape.iter().rev().map(|&n| n as usize).collect();
        let (mla, moe) = (&h.mla, &h.moe);
        let name = match spec.layer {
            Some(layer) => format!("model.layers.{layer}.{named}"),
            None => named.to_owned(),
        };
        let stacked = || {
            let one = |e: usize| find(&name.replace("{}", &e.to_string()), &shape[1..]);
            let experts = (0..moe.experts).map(one).collect::<Result<Vec<_>, _>>()?;
            // Mixed precision within one tensor would need a type per expert.
            let ty = experts[0].ty;
            if let Some(other) = experts.iter().find(|t| t.ty != ty) {
                let what = format!("{name}: experts of both {ty} and {}", other.ty);
                return Err(Error::input(other.shard, what));
            }
            Ok(Some(Self {
                ty,
                rows: Rows::Stacked {
                    experts: experts.iter().map(|t| t.data).collect(),
                    rows: shape[1],
                },
            }))
        };
        match spec.role {
            role if role.is_stacked_experts() => stacked(),
            Role::KdaA => {
                let tensor = find(&name, &shape)?;
                let sign = match h.kda.gate {
                    GateLaw::Softplus => -1.0,
                    GateLaw::Bounded { .. } => 1.0,
                };
                let data = tensor.data;
                Ok(Some(Self {
                    ty: tensor.ty,
                    rows: Rows::Exp { data, sign },
                }))
            }
            Role::MlaKB | Role::MlaVB => {
                let (nope, v, rank) = (mla.qk_nope, mla.v, mla.kv_lora_rank);
                let wanted = [mla.heads * (nope + v), rank];
                let tensor = find(&name, &wanted)?;
                let data = tensor.data;
                let rows = match spec.role {
                    Role::MlaKB => Rows::KeyPart {
                        data,
                        nope,
                        v,
                        rank,
                    },
                    _ => Rows::ValuePart {
                        data,
                        nope,
                        v,
                        rank,
                    },
                };
                Ok(Some(Self {
                    ty: tensor.ty,
                    rows,
                }))
            }
            _ => {
                let tensor = find(&name, &shape)?;
                Ok(Some(Self {
                    ty: tensor.ty,
                    rows: Rows::Direct(tensor.data),
                }))
            }
        }
    }

    /// The rows of a tensor of another file.
    pub fn in_gguf(from: &'a GgufFile, tensor: &TensorInfo) -> Self {
        Self {
            ty: tensor.ty,
            rows: Rows::Direct(from.data(tensor)),
        }
    }

    /// The whole tensor's bytes, where the input has them in the target's order.
    pub fn bytes(&self) -> Option<&'a [u8]> {
        match self.rows {
            Rows::Direct(data) => Some(data),
            _ => None,
        }
    }

    /// Fills `out` with whole rows of `row` values, from row `first` on. With stacked experts the
    /// rows asked for lie in one expert.
    pub fn read(&self, first: usize, row: usize, out: &mut [f32]) -> Result<(), QuantError> {
        match &self.rows {
            Rows::Direct(data) => self.plain(data, first, row, out),
            Rows::Exp { data, sign } => {
                self.plain(data, first, row, out)?;
                out.iter_mut().for_each(|x| *x = sign * x.exp());
                Ok(())
            }
            Rows::Stacked { experts, rows } => {
                self.plain(experts[first / rows], first % rows, row, out)
            }
            Rows::KeyPart {
                data,
                nope,
                v,
                rank,
            } => {
                let mut latent = vec![0.0; *rank];
                // Row r of the target is column r % rank of head r / rank. Each source row
                // crosses all columns, so it is read once per call, not once per value.
                let last = first + out.len() / row;
                for head in first / rank..last.div_ceil(*rank) {
                    let columns = first.max(head * rank)..last.min((head + 1) * rank);
                    for i in 0..*nope {
                        self.plain(data, head * (nope + v) + i, *rank, &mut latent)?;
                        for r in columns.clone() {
                            out[(r - first) * row + i] = latent[r - head * rank];
                        }
                    }
                }
                Ok(())
            }
            Rows::ValuePart {
                data,
                nope,
                v,
                rank,
            } => {
                for (r, out) in (first..).zip(out.chunks_exact_mut(row)) {
                    let source = r / v * (nope + v) + nope + r % v;
                    self.plain(data, source, *rank, out)?;
                }
                Ok(())
            }
        }
    }

    fn plain(
        &self,
        data: &[u8],
        first: usize,
        row: usize,
        out: &mut [f32],
    ) -> Result<(), QuantError> {
        let ty = self.ty;
        let bytes = |n: usize| {
            let block = ty.block_size();
            ty.row_bytes(n)
                .ok_or(QuantError::RowLength { ty, row, block })
        };
        let start = bytes(first * row)?;
        let end = start + bytes(out.len())?;
        let Some(data) = data.get(start..end) else {
            return Err(QuantError::Length {
                what: "rows",
                got: data.len(),
                wanted: end,
            });
        };
        dequantize(ty, data, out)
    }
}

fn find<'a>(from: &'a Checkpoint, name: &str, wanted: &[usize]) -> Result<HubTensor<'a>, Error> {
    let Some(tensor) = from.tensor(name) else {
        return Err(Error::input(
            &from.dir,
            format!("tensor `{name}` is missing"),
        ));
    };
    // Vectors come with any number of ones around them: A_log as [1, 1, H, 1], say.
    let squeezed = |shape: &[usize]| {
        shape
            .iter()
            .copied()
            .filter(|&n| n != 1)
            .collect::<Vec<_>>()
    };
    if squeezed(tensor.shape) != squeezed(wanted) {
        let what = format!(
            "{name}: shape {:?}, config.json wants {wanted:?}",
            tensor.shape
        );
        return Err(Error::input(tensor.shard, what));
    }
    Ok(tensor)
}

/// Values of a tensor.
pub fn elements(spec: &TensorSpec) -> u64 {
    spec.shape.iter().product()
}

/// Largest sizes that a checkpoint may state, checked by writing and reading them back.
pub fn bounded(h: &Hparams) -> Result<(), crate::schema::SchemaError> {
    let mut metadata = ggml_kernels::gguf::Metadata::default();
    h.write(&mut metadata);
    Hparams::from_metadata(&metadata).map(|_| ())
}
