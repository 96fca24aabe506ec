//! Mixes of files whose bulk, the experts, has less than three bits and a half.
//!
//! What a kind of tensor gets is what pays: where one kind at a time was quantized
//! (docs/quantization.md), a bit more for each weight of KDA's outputs, of the latent or of the
//! output took away seven to twenty times as much of the divergence as a bit more for the experts'
//! gate, and one for KDA's queries and keys no more than that. In a large sparse model all that is
//! outside the experts is next to nothing of the file, and read for every token: there it is never
//! below four bits.

use super::FileType;
use crate::schema::{self, Hparams, Role};
use ggml_kernels::quant::TensorType;

/// A mix. What is not named has the type of the bulk.
struct Mix {
    /// Rows that are looked up, so that nobody knows which of their columns matter.
    embedding: TensorType,
    output: TensorType,
    latent: TensorType,
    kda_output: TensorType,
    kda_v: TensorType,
    /// MLA's outputs and the dense layer's last.
    later: TensorType,
    mla_q: TensorType,
    /// KDA's queries and keys.
    kda_qk: TensorType,
    down: TensorType,
}

fn mix(to: FileType) -> Mix {
    use TensorType::{Iq1M, Iq2S, Iq2Xs, Iq2Xxs, Iq3S, Iq3Xxs, Q2K, Q3K, Q4K, Q5K};
    let of = |[
        embedding,
        output,
        latent,
        kda_output,
        kda_v,
        later,
        mla_q,
        kda_qk,
        down,
    ]: [TensorType; 9]| Mix {
        embedding,
        output,
        latent,
        kda_output,
        kda_v,
        later,
        mla_q,
        kda_qk,
        down,
    };
    match to {
        FileType::Iq1M => of([Q2K, Q4K, Iq3Xxs, Iq3Xxs, Iq3Xxs, Iq3Xxs, Iq2Xxs, Iq1M, Iq1M]),
        FileType::Iq2Xxs => of([Q2K, Q4K, Iq3S, Iq3S, Iq3Xxs, Iq3Xxs, Iq2Xs, Iq2Xxs, Iq2Xxs]),
        FileType::Iq2Xs => of([Q2K, Q4K, Iq3S, Iq3S, Iq3S, Iq3S, Iq2S, Iq2Xs, Iq2Xs]),
        FileType::Iq2S => of([Q3K, Q4K, Q4K, Q4K, Iq3S, Iq3S, Iq3Xxs, Iq2S, Iq2S]),
        FileType::Q2KS => of([Q3K, Q4K, Q3K, Q3K, Q3K, Q3K, Q2K, Q2K, Q2K]),
        FileType::Q2K => of([Q3K, Q5K, Q3K, Q4K, Q3K, Q3K, Q2K, Q2K, Q3K]),
        FileType::Iq3Xxs => of([Q3K, Q4K, Iq3S, Iq3S, Iq3S, Iq3S, Iq3Xxs, Iq2S, Iq3Xxs]),
        _ => of([Q3K, Q5K, Q4K, Q4K, Iq3S, Iq3S, Iq3S, Iq3S, Iq3S]),
    }
}

/// What a tensor that nothing else decides becomes.
pub(super) fn choose(h: &Hparams, role: Role, to: FileType) -> TensorType {
    let mix = mix(to);
    let ty = match role {
        Role::TokenEmbd => return mix.embedding,
        Role::Output => mix.output,
        Role::MlaKvA => mix.latent,
        Role::KdaOutput => mix.kda_output,
        Role::KdaV => mix.kda_v,
        Role::MlaOutput | Role::FfnDown => mix.later,
        Role::MlaQ | Role::MlaQA | Role::MlaQB => mix.mla_q,
        Role::KdaQ | Role::KdaK => mix.kda_qk,
        Role::DownExps => mix.down,
        _ => to.base(),
    };
    let least = TensorType::Q4K;
    if ty.bits() < least.bits() && !is_routed(role) && is_sparse(h) {
        return least;
    }
    ty
}

fn is_routed(role: Role) -> bool {
    matches!(role, Role::GateExps | Role::UpExps | Role::DownExps)
}

/// Whether all that is neither of routed experts nor of the vocabulary is less than a twelfth of
/// the weights: 2.5% of the 48B model, 5.8% of Ling-3.0-tiny, 38% of the demo model.
fn is_sparse(h: &Hparams) -> bool {
    let (mut others, mut all) = (0, 0);
    for spec in schema::tensors(h) {
        let values: u64 = spec.shape.iter().product();
        all += values;
        let other = !is_routed(spec.role) && !matches!(spec.role, Role::TokenEmbd | Role::Output);
        others += if other { values } else { 0 };
    }
    others * 12 < all
}
