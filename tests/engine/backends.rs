//! Our operators against what ggml's backends for cards accept. Nobody here has such a card, so their
//! conditions are written down from their sources (ggml 0.25.3), each with its place, and every
//! operator that a model of the real shape needs is held against them.

use std::sync::atomic::AtomicBool;

use deltad::engine::{CacheType, Engine, Operand, Operator, Options, Runner};
use ggml_kernels::quant::TensorType;
use quantize::convert::Silent;
use quantize::recipe::FileType;
use quantize::schema::Mixer;
use quantize::synth::{self, Shape};

use crate::checkpoint::options;

/// Kimi-Linear's heads and widths of attention, with little behind them: what backends ask about.
pub fn lean(dir: &tempfile::TempDir, to: FileType) -> std::path::PathBuf {
    let mut h = Shape::Full48b.hparams(4, false);
    (h.hidden, h.vocab, h.dense_ff) = (256, 1024, 256);
    (h.moe.experts, h.moe.ff, h.moe.shared_ff) = (16, 256, 256);
    h.layers[3].mixer = Mixer::Mla;
    let path = dir.path().join("lean.gguf");
    let never = AtomicBool::new(false);
    synth::write(&h, to, &path, false, &never, &mut Silent).unwrap();
    path
}

fn is_contiguous(of: &Operand, from: usize) -> bool {
    let mut want = of.ty.type_size() * (of.ne[0] / of.ty.block_size());
    let inner = of.ne[0] == of.ty.block_size() || of.nb[0] == of.ty.type_size();
    inner
        && (1..4).all(|d| {
            // Dimensions up to `from` may lie apart.
            let fits = d <= from || of.ne[d] == 1 || of.nb[d] == want;
            want = if d <= from { of.nb[d] } else { want } * of.ne[d];
            fits
        })
}

fn is_float(ty: TensorType) -> bool {
    matches!(ty, TensorType::F32 | TensorType::F16 | TensorType::Bf16)
}

/// `ggml_backend_cuda_device_supports_op`, ggml-cuda.cu:5263; `ggml_cuda_get_best_fattn_kernel`,
/// fattn.cu:541.
fn cuda(o: &Operator) -> bool {
    let s = &o.sources;
    match o.name.as_str() {
        "SIGMOID" | "SILU" | "SOFTPLUS" => is_contiguous(&s[0], 0),
        "SWIGLU" => is_contiguous(&s[0], 1),
        "MUL_MAT" | "MUL_MAT_ID" => {
            s[0].nb[0] == s[0].ty.type_size() && s[1].nb[0] == 4 && s[1].ty == TensorType::F32
        }
        "GET_ROWS" => s[0].ty != TensorType::I32,
        "SET_ROWS" => {
            let to = is_float(o.result.ty) || o.result.ty == TensorType::Q8_0;
            to && s[0].ty == TensorType::F32 && s[1].ty == TensorType::I32
        }
        "CPY" => s[0].ty == TensorType::F32 && is_float(s[1].ty),
        "CONCAT" => s[0].ty == s[1].ty && s[0].ty == TensorType::F32,
        "RMS_NORM" | "SUM_ROWS" => is_contiguous(&s[0], 3),
        "CLAMP" | "CONT" | "ARGSORT" | "GATED_DELTA_NET" | "FILL" => true,
        "SCALE" => s[0].ty == TensorType::F32,
        "ADD" | "MUL" | "DIV" => s.iter().all(|s| s.ty == TensorType::F32),
        "SSM_CONV" => s[0].ne[1].is_multiple_of(128),
        "ROPE" => is_contiguous(&s[0], 2),
        "FLASH_ATTN_EXT" => {
            let [q, k, v, mask] = s[..] else { return false };
            let strides = [q, k, v, mask].into_iter().filter(|t| !t.ty.is_quantized());
            let aligned = strides
                .flat_map(|t| t.nb[1..].to_vec())
                .all(|n| n % 16 == 0);
            let grouped = (q.ne[2] / k.ne[2]).is_multiple_of(16);
            (k.ne[0], v.ne[0]) == (576, 512)
                && aligned
                && grouped
                && k.ne[1].is_multiple_of(256)
                && mask.ne[2] == 1
                && (is_float(k.ty) || k.ty == TensorType::Q8_0)
        }
        _ => false,
    }
}

/// `ggml_metal_device_supports_op`, ggml-metal-device.m:1538, of a device with matrices in its
/// simdgroups and bf16.
fn metal(o: &Operator) -> bool {
    let s = &o.sources;
    match o.name.as_str() {
        "SCALE" | "FILL" | "CLAMP" | "SIGMOID" | "SILU" | "SOFTPLUS" => {
            is_contiguous(&s[0], 3) && s[0].ty == TensorType::F32
        }
        "SWIGLU" => is_contiguous(&s[0], 1) && s[0].ty == TensorType::F32,
        "CONCAT" => s[0].ty == s[1].ty && is_float(s[0].ty),
        "ADD" | "MUL" | "DIV" => s
            .iter()
            .all(|s| is_contiguous(s, 3) && s.ty == TensorType::F32),
        "SUM_ROWS" | "RMS_NORM" => is_contiguous(&s[0], 3),
        "ROPE" | "ARGSORT" | "SSM_CONV" | "GET_ROWS" => true,
        "FLASH_ATTN_EXT" => {
            let (k, v) = (&s[1], &s[2]);
            let widths = [
                32, 40, 48, 64, 72, 80, 96, 112, 128, 192, 256, 320, 512, 576,
            ];
            let width = widths.contains(&s[0].ne[0]);
            width && k.ne[0] >= v.ne[0] && k.ty == v.ty
        }
        "GATED_DELTA_NET" => s[2].ne[0].is_multiple_of(32),
        "MUL_MAT" | "MUL_MAT_ID" => s[1].ty == TensorType::F32,
        "CPY" | "CONT" => s[0].ty == TensorType::F32 && is_float(o.result.ty),
        "SET_ROWS" => s[0].ty == TensorType::F32,
        _ => false,
    }
}

#[test]
fn every_operator_of_the_real_shape_is_one_that_cuda_and_metal_accept() {
    let dir = tempfile::tempdir().unwrap();
    let path = lean(&dir, "q4_k_m".parse().unwrap());
    for cache in [CacheType::F16, CacheType::Q8_0] {
        let options = Options {
            runner: Runner::Stock,
            ..options(cache, 2048)
        };
        let engine = Engine::open(&path, &options).unwrap();
        for (past, tokens) in [(0, 1), (300, 1), (8192, 8), (0, 2048), (5000, 333)] {
            let outline = engine.outline(past, tokens).unwrap().unwrap();
            assert!(outline.operators.len() > 100);
            for o in outline.operators.iter().filter(|o| !o.is_view) {
                let what = format!("{cache:?}, {tokens} behind {past}: {o}");
                assert!(cuda(o), "CUDA, {what}");
                assert!(metal(o), "Metal, {what}");
            }
        }
    }
}

#[test]
fn a_cache_that_is_not_rounded_up_or_has_no_mask_is_what_cuda_refuses() {
    let of = |ty, ne: [usize; 4]| Operand {
        ty,
        ne,
        nb: [1, ne[0], ne[0] * ne[1], ne[0] * ne[1] * ne[2]].map(|n| n * ty.type_size()),
    };
    let attention = |rows: usize, masked: bool| {
        let mut sources = vec![
            of(TensorType::F32, [576, 1, 32, 1]),
            of(TensorType::F16, [576, rows, 1, 1]),
            of(TensorType::F16, [512, rows, 1, 1]),
        ];
        sources.extend(masked.then(|| of(TensorType::F16, [rows, 1, 1, 1])));
        Operator {
            name: "FLASH_ATTN_EXT".into(),
            result: of(TensorType::F32, [512, 32, 1, 1]),
            sources,
            device: String::new(),
            is_view: false,
        }
    };
    assert!(cuda(&attention(512, true)));
    assert!(!cuda(&attention(500, true)));
    assert!(!cuda(&attention(512, false)));
}
