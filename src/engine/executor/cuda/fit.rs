//! What the card's kernels take: types and sizes, refused by name, and memory, counted before any is
//! taken.

use ggml_kernels::cuda::driver::{Device, Memory};
use ggml_kernels::cuda::weights::WeightType;
use ggml_kernels::quant::TensorType;
use quantize::schema::{Ffn, Hparams, Mixer};

use crate::engine::error::Unfit;

/// How a type's rows are kept on the card. `name`: whose.
pub(super) fn weight_type(name: &str, ty: TensorType) -> Result<WeightType, Unfit> {
    Ok(match ty {
        TensorType::F32 => WeightType::F32,
        TensorType::F16 => WeightType::F16,
        TensorType::Bf16 => WeightType::Bf16,
        TensorType::Q4_0 => WeightType::Q4_0,
        TensorType::Q8_0 => WeightType::Q8_0,
        TensorType::Q4K => WeightType::Q4K,
        TensorType::Q5K => WeightType::Q5K,
        TensorType::Q6K => WeightType::Q6K,
        _ => {
            let name = name.to_owned();
            return Err(Unfit::CardType { name, ty });
        }
    })
}

/// Cache rows on the card are f16.
pub(super) fn check_cache(ty: TensorType) -> Result<(), Unfit> {
    match ty {
        TensorType::F16 => Ok(()),
        ty => Err(Unfit::CardCache { ty }),
    }
}

/// A size and what the kernels take of it: multiples of a step, between two ends.
struct Size {
    what: &'static str,
    got: usize,
    step: usize,
    least: usize,
    most: usize,
}

impl Size {
    fn check(&self) -> Result<(), Unfit> {
        let Size { what, got, .. } = *self;
        if got.is_multiple_of(self.step) && (self.least..=self.most).contains(&got) {
            return Ok(());
        }
        let step = match self.step {
            1 => String::new(),
            step => format!("a multiple of {step}, "),
        };
        let most = match self.most {
            usize::MAX => "more".to_owned(),
            most => most.to_string(),
        };
        let wanted = format!("{step}{} to {most}", self.least);
        Err(Unfit::CardSize { what, got, wanted })
    }
}

/// Refuses a model of sizes that no kernel was written for.
pub(super) fn check_sizes(h: &Hparams) -> Result<(), Unfit> {
    for size in sizes(h) {
        size.check()?;
    }
    if has_mixer(h, Mixer::Kda) && ![32, 64, 128].contains(&h.kda.head_dim) {
        return Err(Unfit::CardSize {
            what: "KDA's head_dim",
            got: h.kda.head_dim,
            wanted: "32, 64 or 128".to_owned(),
        });
    }
    Ok(())
}

fn sizes(h: &Hparams) -> Vec<Size> {
    let size = |what, got, step, least, most| Size {
        what,
        got,
        step,
        least,
        most,
    };
    let width = |what, got| size(what, got, 32, 32, usize::MAX);
    let mut sizes = vec![width("the hidden width", h.hidden)];
    if has_mixer(h, Mixer::Kda) {
        sizes.push(size("KDA's taps", h.kda.conv, 1, 1, 4));
    }
    if has_mixer(h, Mixer::Mla) {
        let mla = &h.mla;
        sizes.extend([
            size("MLA's rank", mla.kv_lora_rank, 32, 32, 512),
            size("MLA's shared width of keys", mla.qk_rope, 16, 16, 64),
            size("MLA's own width of keys", mla.qk_nope, 16, 16, 128),
            size("MLA's width of values", mla.v, 16, 16, 128),
        ]);
        sizes.extend(
            mla.q_lora_rank
                .map(|rank| width("MLA's rank of queries", rank)),
        );
    }
    if has_ffn(h, Ffn::Dense) {
        sizes.push(width("the dense layers' width", h.dense_ff));
    }
    if has_ffn(h, Ffn::Sparse) {
        sizes.extend([
            size("the number of experts", h.moe.experts, 1, 1, 512),
            size("the number of experts used", h.moe.used, 1, 1, 16),
            width("the experts' width", h.moe.ff),
        ]);
        if h.moe.shared > 0 {
            sizes.push(width("the shared expert's width", h.moe.shared_ff));
        }
    }
    sizes
}

fn has_mixer(h: &Hparams, mixer: Mixer) -> bool {
    h.layers.iter().any(|l| l.mixer == mixer)
}

fn has_ffn(h: &Hparams, ffn: Ffn) -> bool {
    h.layers.iter().any(|l| l.ffn == ffn)
}

/// What the driver takes of the card for a piece of so many bytes: large ones are whole pages of
/// 2 MiB.
pub(super) fn taken(bytes: usize) -> u64 {
    let page = if bytes >= 1 << 20 { 2 << 20 } else { 512 };
    bytes.next_multiple_of(page) as u64
}

/// Refuses what does not fit beside what is on the card already.
pub(super) fn check_room(device: &Device, needed: u64) -> Result<(), Unfit> {
    let Memory { free, total } = device.memory()?;
    if needed <= free {
        return Ok(());
    }
    let card = device.name().to_owned();
    Err(Unfit::CardMemory {
        card,
        needed,
        without: None,
        free,
        total,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_without_a_kernel_are_refused_by_name() {
        let size = Size {
            what: "MLA's rank",
            got: 48,
            step: 32,
            least: 32,
            most: 512,
        };
        let why = size.check().unwrap_err().to_string();
        let told = "no kernel for cards takes MLA's rank of 48, wanted a multiple of 32, 32 to 512";
        assert_eq!(why, told);
        let why = weight_type("a.weight", TensorType::Iq4Xs).unwrap_err();
        assert!(why.to_string().contains("`a.weight` is iq4_xs"), "{why}");
        assert!(check_cache(TensorType::Q8_0).is_err());
        assert!(check_cache(TensorType::F16).is_ok());
    }
}
