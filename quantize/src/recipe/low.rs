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

/// The mixes, by the bits of their bulk.
const MIXES: [FileType; 9] = [
    FileType::Iq1M,
    FileType::Iq2Xxs,
    FileType::Iq2Xs,
    FileType::Iq2S,
    FileType::Q2KS,
    FileType::Q2K,
    FileType::Iq3Xxs,
    FileType::Iq3S,
    FileType::Q3KS,
];

/// What a kind of tensor is in each of [`MIXES`]; what is not named has the type of the bulk.
fn in_mixes(role: Role) -> Option<[TensorType; MIXES.len()]> {
    use TensorType::{Iq1M, Iq2S, Iq2Xs, Iq2Xxs, Iq3S, Iq3Xxs, Q2K, Q3K, Q4K, Q5K};
    Some(match role {
        // Rows that are looked up, so that nobody knows which of their columns matter.
        Role::TokenEmbd => [Q2K, Q2K, Q2K, Q3K, Q3K, Q3K, Q3K, Q3K, Q3K],
        Role::Output => [Q4K, Q4K, Q4K, Q4K, Q4K, Q5K, Q4K, Q5K, Q5K],
        Role::MlaKvA => [Iq3Xxs, Iq3S, Iq3S, Q4K, Q3K, Q3K, Iq3S, Q4K, Q4K],
        Role::KdaOutput => [Iq3Xxs, Iq3S, Iq3S, Q4K, Q3K, Q4K, Iq3S, Q4K, Q4K],
        Role::KdaV => [Iq3Xxs, Iq3Xxs, Iq3S, Iq3S, Q3K, Q3K, Iq3S, Iq3S, Q4K],
        Role::MlaOutput => [Iq3Xxs, Iq3Xxs, Iq3S, Iq3S, Q3K, Q2K, Iq3S, Iq3S, Q3K],
        Role::FfnDown => [Iq3Xxs, Iq3Xxs, Iq3S, Iq3S, Q3K, Q3K, Iq3S, Iq3S, Q3K],
        Role::MlaQ | Role::MlaQA | Role::MlaQB => {
            [Iq2Xxs, Iq2Xs, Iq2S, Iq3Xxs, Q2K, Q2K, Iq3Xxs, Iq3S, Q3K]
        }
        Role::KdaQ | Role::KdaK => [Iq1M, Iq2Xxs, Iq2Xs, Iq2S, Q2K, Q2K, Iq2S, Iq3S, Q2K],
        // Rows as short as these matrices have in small models are Q5_0 then.
        Role::KdaFB | Role::KdaGB => [Iq1M, Iq2Xxs, Iq2Xs, Iq2S, Q2K, Q2K, Iq3Xxs, Iq3S, Q4K],
        Role::DownExps => [Iq1M, Iq2Xxs, Iq2Xs, Iq2S, Q2K, Q3K, Iq3Xxs, Iq3S, Q3K],
        _ => return None,
    })
}

/// What a tensor that nothing else decides becomes.
pub(super) fn choose(h: &Hparams, role: Role, to: FileType) -> TensorType {
    let column = MIXES.iter().position(|&mix| mix == to);
    let ty = match (in_mixes(role), column) {
        (Some(row), Some(at)) => row[at],
        _ => to.base(),
    };
    if role == Role::TokenEmbd {
        return ty;
    }
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
