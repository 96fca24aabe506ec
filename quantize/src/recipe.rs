//! Which type each tensor becomes: a pure function of file type, role, layer and row length,
//! shown whole by `--dry-run`.
//!
//! Defaults: norms, convolutions, decay, router and biases stay F32. The small projections that
//! steer the state and the latent (`ssm_*`, `attn_kv_a_mqa`, `attn_k_b`, `attn_v_b`) stay at Q8_0 or
//! better where that is next to free: they are 0.15% of the 48B model's parameters. Medium mixes
//! spend what they have above their base where a bit less did most harm when one kind of tensor at
//! a time was quantized (docs/quantization.md): most on the output, then on the embedding, KDA's
//! values and outputs and what steers the state; `ffn_down` of the experts before gate and up.
//! What files of less than three bits and a half spend is [`low`]'s.

mod file_type;
mod low;

pub use file_type::FileType;

use crate::schema::{self, Hparams, Role, TensorSpec};
use ggml_kernels::quant::TensorType;
use regex::Regex;
use std::str::FromStr;

/// `--tensor-type REGEX=TYPE`: tensors whose names match get this type. The last match counts.
#[derive(Debug, Clone)]
pub struct Override {
    pub pattern: Regex,
    pub ty: TensorType,
}

impl FromStr for Override {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let (pattern, ty) = text.rsplit_once('=').ok_or("wanted REGEX=TYPE")?;
        let ty: TensorType = ty.parse().map_err(|e| format!("{e}"))?;
        if ty == TensorType::I32 {
            return Err("i32 does not hold weights".into());
        }
        let pattern = Regex::new(pattern).map_err(|e| e.to_string())?;
        Ok(Self { pattern, ty })
    }
}

/// What a tensor becomes, and why it is not what was asked for.
#[derive(Debug, Clone, PartialEq)]
pub struct Choice {
    pub ty: TensorType,
    pub note: Option<String>,
}

/// Chooses the type of one tensor.
pub fn choose(h: &Hparams, spec: &TensorSpec, to: FileType, overrides: &[Override]) -> Choice {
    if spec.role.is_always_f32() {
        let ty = TensorType::F32;
        let asked = overrides
            .iter()
            .any(|o| o.pattern.is_match(&spec.name) && o.ty != ty);
        let note = asked.then(|| "always f32".to_owned());
        return Choice { ty, note };
    }
    let chosen = overrides
        .iter()
        .rev()
        .find(|o| o.pattern.is_match(&spec.name));
    let ty = match chosen {
        Some(chosen) => chosen.ty,
        None => by_default(h, spec, to),
    };
    fit(ty, spec.shape[0] as usize)
}

fn by_default(h: &Hparams, spec: &TensorSpec, to: FileType) -> TensorType {
    let base = to.base();
    if !base.is_quantized() {
        // The router decides which experts run: an f16 or bf16 file keeps its logits exact too.
        return match spec.role {
            Role::Router => TensorType::F32,
            _ => base,
        };
    }
    let medium = to.is_medium();
    match spec.role {
        Role::Router => TensorType::F32,
        // Few even in small models, and the most sensitive of all by far.
        Role::KdaBeta | Role::MlaGate => TensorType::Q8_0,
        role if steers(role) && steering_is_small(h) => TensorType::Q8_0,
        role if to.is_low() => low::choose(h, role, to),
        // MXFP4 is a type for experts; everything else in such files is Q8_0.
        _ if to == FileType::Mxfp4 && !spec.role.is_stacked_experts() => TensorType::Q8_0,
        Role::KdaFA | Role::KdaFB | Role::KdaGA | Role::KdaGB => more(base),
        Role::Output => more(more(base)),
        Role::TokenEmbd if medium => more(base),
        Role::KdaV | Role::KdaOutput if medium => more(base),
        // Whole gates are as large as the projections beside them; the decay's steers the state.
        Role::KdaF if medium => more(base),
        // Every token passes through it.
        Role::FfnDown if medium => more(base),
        Role::DownExps if to == FileType::Q3KM => more(base),
        Role::DownExps if medium && has_more_bits(spec.layer, h.layers.len()) => more(base),
        _ => base,
    }
}

/// Projections that steer the state and the latent.
fn steers(role: Role) -> bool {
    matches!(
        role,
        Role::KdaFA | Role::KdaFB | Role::KdaGA | Role::KdaGB | Role::KdaBeta
    ) || matches!(
        role,
        Role::MlaQA | Role::MlaGate | Role::MlaKvA | Role::MlaKB | Role::MlaVB | Role::MlaKvB
    )
}

/// Whether keeping them at Q8_0 costs a 4-bit file less than 1% of its size: in the 48B model they
/// are 0.15% of the parameters, in the 11M demo model 5.5%.
fn steering_is_small(h: &Hparams) -> bool {
    let (mut steering, mut all) = (0, 0);
    for spec in schema::tensors(h) {
        let values: u64 = spec.shape.iter().product();
        all += values;
        steering += if steers(spec.role) { values } else { 0 };
    }
    steering * 100 <= all
}

/// The first and last eighth of the layers and every third between: the choice that llama.cpp's
/// medium mixes make.
fn has_more_bits(layer: Option<usize>, n: usize) -> bool {
    layer.is_some_and(|at| at < n / 8 || at >= 7 * n / 8 || (at - n / 8) % 3 == 2)
}

/// The next finer type.
fn more(ty: TensorType) -> TensorType {
    match ty {
        TensorType::Q3K => TensorType::Q4K,
        TensorType::Q4K | TensorType::Q4_0 | TensorType::Iq4Nl | TensorType::Iq4Xs => {
            TensorType::Q5K
        }
        TensorType::Q5K => TensorType::Q6K,
        TensorType::Q6K | TensorType::Mxfp4 => TensorType::Q8_0,
        other => other,
    }
}

/// Falls back, as llama.cpp does, where rows are no whole number of blocks: from blocks of 256 to
/// blocks of 32, from these to F16.
fn fit(asked: TensorType, row: usize) -> Choice {
    let fits = |ty: TensorType| row.is_multiple_of(ty.block_size());
    if fits(asked) {
        return Choice {
            ty: asked,
            note: None,
        };
    }
    let small = match asked {
        TensorType::Iq4Xs => TensorType::Iq4Nl,
        TensorType::Iq1M | TensorType::Iq2Xxs | TensorType::Iq2Xs => TensorType::Iq4Nl,
        TensorType::Iq2S | TensorType::Iq3Xxs | TensorType::Iq3S => TensorType::Iq4Nl,
        TensorType::Q2K | TensorType::Q3K => TensorType::Q4_0,
        TensorType::Q4K => TensorType::Q5_0,
        TensorType::Q5K => TensorType::Q5_1,
        TensorType::Q6K => TensorType::Q8_0,
        other => other,
    };
    let ty = if fits(small) { small } else { TensorType::F16 };
    let note = Some(format!(
        "{asked} wants rows of {} x, got {row}",
        asked.block_size()
    ));
    Choice { ty, note }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::tensors;
    use crate::synth::Shape;
    use std::collections::BTreeMap;

    /// Bits per weight of a type, to compare them by.
    fn bits(ty: TensorType) -> f64 {
        8.0 * ty.type_size() as f64 / ty.block_size() as f64
    }

    fn real() -> Hparams {
        Shape::Full48b.hparams(27, false)
    }

    #[test]
    fn what_steers_the_state_and_the_latent_stays_at_eight_bits_or_better() {
        let h = real();
        for to in FileType::ALL {
            for spec in tensors(&h) {
                let ty = choose(&h, &spec, to, &[]).ty;
                let floor = match spec.role {
                    role if role.is_always_f32() => 32.0,
                    Role::Router => 32.0,
                    Role::KdaFA | Role::KdaFB | Role::KdaGA | Role::KdaGB | Role::KdaBeta => 8.0,
                    Role::MlaKvA | Role::MlaKB | Role::MlaVB => 8.0,
                    _ => bits(to.base()),
                };
                assert!(bits(ty) >= floor, "{to}: {} is {ty}", spec.name);
            }
        }
    }

    #[test]
    fn a_small_model_pays_for_no_floor_but_its_steering_keeps_more_than_the_base() {
        let mut h = real();
        // The demo model's proportions.
        (h.hidden, h.vocab, h.dense_ff) = (256, 2048, 768);
        (h.kda.heads, h.kda.head_dim) = (4, 64);
        (h.mla.heads, h.mla.kv_lora_rank, h.mla.qk_nope) = (4, 128, 64);
        (h.moe.experts, h.moe.ff) = (4, 256);
        let ty = |role, to| {
            let specs = tensors(&h);
            let spec = specs.iter().find(|spec| spec.role == role).unwrap();
            choose(&h, spec, to, &[]).ty
        };
        assert_eq!(ty(Role::KdaFA, FileType::Q4KM), TensorType::Q5K);
        assert_eq!(ty(Role::KdaGA, FileType::Q3KM), TensorType::Q4K);
        assert_eq!(ty(Role::KdaBeta, FileType::Q3KM), TensorType::Q8_0);
        assert_eq!(ty(Role::MlaKvA, FileType::Q4KM), TensorType::Q4K);
    }

    #[test]
    fn medium_mixes_spend_where_few_bits_did_most_harm() {
        let h = real();
        for to in [FileType::Q5KM, FileType::Q4KM, FileType::Q3KM] {
            let mut total: BTreeMap<Role, f64> = BTreeMap::new();
            for spec in tensors(&h) {
                *total.entry(spec.role).or_default() += bits(choose(&h, &spec, to, &[]).ty);
            }
            let mean = |role| {
                let n = tensors(&h).iter().filter(|s| s.role == role).count();
                total[&role] / n as f64
            };
            assert!(mean(Role::Output) > mean(Role::TokenEmbd), "{to}");
            assert!(mean(Role::TokenEmbd) > mean(Role::UpExps), "{to}");
            assert!(mean(Role::KdaOutput) > mean(Role::KdaQ), "{to}");
            assert!(mean(Role::KdaV) > mean(Role::KdaK), "{to}");
            assert!(mean(Role::KdaQ) >= mean(Role::GateExps), "{to}");
            assert!(mean(Role::DownExps) > mean(Role::GateExps), "{to}");
            assert!(mean(Role::UpExps) == mean(Role::GateExps), "{to}");
        }
    }

    #[test]
    fn few_bits_are_for_the_experts_of_a_sparse_model_alone() {
        let h = real();
        for to in FileType::ALL.into_iter().filter(|to| to.is_low()) {
            for spec in tensors(&h) {
                let ty = choose(&h, &spec, to, &[]).ty;
                let routed = [Role::GateExps, Role::UpExps, Role::DownExps];
                let floor = match spec.role {
                    Role::TokenEmbd => 2.6,
                    role if routed.contains(&role) => to.base().bits(),
                    _ => TensorType::Q4K.bits(),
                };
                assert!(ty.bits() >= floor, "{to}: {} is {ty}", spec.name);
                let looked_up = spec.role == Role::TokenEmbd;
                assert!(!(looked_up && ty.needs_importance()), "{to}");
            }
        }
    }

    #[test]
    fn a_finer_mix_is_never_smaller() {
        let h = real();
        let size = |to| {
            let size = |spec: TensorSpec| {
                let values = spec.shape.iter().product::<u64>() as f64;
                values * bits(choose(&h, &spec, to, &[]).ty)
            };
            tensors(&h).into_iter().map(size).sum::<f64>()
        };
        let order = [
            FileType::Iq1M,
            FileType::Iq2Xxs,
            FileType::Iq2Xs,
            FileType::Iq2S,
            FileType::Q2KS,
            FileType::Q2K,
            FileType::Iq3Xxs,
            FileType::Q3KS,
            FileType::Q3KM,
            FileType::Iq4Xs,
            FileType::Q4KS,
            FileType::Q4KM,
            FileType::Q5KS,
            FileType::Q5KM,
            FileType::Q6K,
            FileType::Q8_0,
            FileType::F16,
            FileType::F32,
        ];
        assert!(order.windows(2).all(|pair| size(pair[0]) < size(pair[1])));
    }

    #[test]
    fn file_types_are_found_by_name_alias_and_case() {
        for to in FileType::ALL {
            assert_eq!(to.name().parse(), Ok(to));
        }
        assert_eq!("Q4_K".parse(), Ok(FileType::Q4KM));
        let refused = "q1_k".parse::<FileType>().unwrap_err();
        assert!(
            refused.contains("q1_k") && refused.contains("q4_k_m"),
            "{refused}"
        );
    }

    #[test]
    fn rows_fall_back_in_two_steps() {
        let fallen = |ty, row| fit(ty, row).ty;
        assert_eq!(fallen(TensorType::Q4K, 512), TensorType::Q4K);
        assert_eq!(fallen(TensorType::Q4K, 96), TensorType::Q5_0);
        assert_eq!(fallen(TensorType::Iq4Xs, 96), TensorType::Iq4Nl);
        assert_eq!(fallen(TensorType::Q6K, 96), TensorType::Q8_0);
        assert_eq!(fallen(TensorType::Q3K, 40), TensorType::F16);
        assert_eq!(fallen(TensorType::Q8_0, 40), TensorType::F16);
    }
}
