//! What an importance matrix does to a conversion, and which are refused.

use std::path::Path;

use crate::checkpoint::{Copy, convert};
use crate::result::values;
use ggml_kernels::gguf::GgufFile;
use quantize::imatrix::{self, FEW, Imatrix, Record, Sums};
use quantize::recipe::FileType;
use quantize::schema::{Role, TensorSpec};

fn write_importance(path: &Path, row: usize, experts: usize) {
    let count = |expert: usize| match expert {
        1 => 0,
        3 => 1,
        _ => 1000,
    };
    let square = |at: usize| match (at / row, at % row % 2) {
        (1, _) => 0.0,
        (0, 1) => 0.001,
        (3, 1) => 50.0,
        (expert, _) => count(expert) as f64,
    };
    let record = Record {
        datasets: vec!["calibration.txt".into()],
        chunks: 2,
        chunk_size: 512,
        tensors: vec![Sums {
            name: "blk.1.ffn_gate_exps.weight".into(),
            squares: (0..row * experts).map(square).collect(),
            counts: (0..experts).map(count).collect(),
        }],
    };
    imatrix::write(&record, path, false).unwrap();
}

#[test]
fn importance_is_applied_expert_by_expert() {
    let copy = Copy::of("tiny");
    let path = copy.target().with_extension("imatrix");
    write_importance(&path, 64, 4);
    let imatrix = Imatrix::open(&path).unwrap();
    let exact = copy.convert(FileType::F32).unwrap();
    let quantized = |imatrix: Option<&Imatrix>| {
        let target = copy.target().with_extension("q");
        convert(&copy.path(""), &target, FileType::Q4_0, true, imatrix).unwrap();
        values(
            &GgufFile::open(&target).unwrap(),
            "blk.1.ffn_gate_exps.weight",
        )
    };
    let (plain, weighted) = (quantized(None), quantized(Some(&imatrix)));
    let exact = values(&exact, "blk.1.ffn_gate_exps.weight");
    let even_error = |got: &[f32]| {
        let pairs = exact.iter().zip(got).take(64 * 32).step_by(2);
        pairs.map(|(a, b)| (a - b).powi(2)).sum::<f32>()
    };
    assert!(even_error(&weighted) < even_error(&plain));
}

fn spec(name: &str, role: Role, shape: &[u64]) -> TensorSpec {
    TensorSpec {
        name: name.into(),
        role,
        layer: Some(1),
        shape: shape.into(),
        required: true,
    }
}

#[test]
fn experts_that_saw_little_are_drawn_towards_evenness_and_counted() {
    let copy = Copy::of("tiny");
    let path = copy.target().with_extension("imatrix");
    write_importance(&path, 2, 4);
    let imatrix = Imatrix::open(&path).unwrap();
    let name = "blk.1.ffn_gate_exps.weight";
    let gate = imatrix.of(&spec(name, Role::GateExps, &[2, 8, 4]));
    let gate = gate.unwrap().unwrap();
    // All together: 2001 in even columns, 1050.001 in odd ones, over 2001 tokens and two columns.
    let even = (2001.0 + 1050.001) / 2.0 / 2001.0;
    let close = |got: &[f32], wanted: [f32; 2]| {
        let off = got.iter().zip(wanted).map(|(g, w)| (g - w).abs());
        assert!(off.fold(0.0, f32::max) < 1e-5, "{got:?}, wanted {wanted:?}");
    };
    let drawn = |sum: f32, n: f32| (sum + FEW * even) / (n + FEW);
    close(gate.of_matrix(0), [drawn(1000.0, 1e3), drawn(0.001, 1e3)]);
    close(gate.of_matrix(1), [even, even]);
    close(gate.of_matrix(3), [drawn(1.0, 1.0), drawn(50.0, 1.0)]);
    assert_eq!(gate.scarce(), (2, 1));
}

#[test]
fn a_stack_of_heads_has_one_count_and_its_sums_end_to_end_as_llama_cpp_writes_it() {
    let copy = Copy::of("tiny");
    let path = copy.target().with_extension("imatrix");
    let name = "blk.1.attn_k_b.weight";
    let record = Record {
        datasets: Vec::new(),
        chunks: 1,
        chunk_size: 10,
        tensors: vec![Sums {
            name: name.into(),
            squares: vec![10.0, 20.0, 30.0, 40.0, 50.0, 60.0],
            counts: vec![10],
        }],
    };
    imatrix::write(&record, &path, false).unwrap();
    let file = GgufFile::open(&path).unwrap();
    let shape = |suffix: &str| file.tensor(&format!("{name}{suffix}")).unwrap().ne;
    assert_eq!(shape(".in_sum2"), [6, 1, 1, 1]);
    assert_eq!(shape(".counts"), [1, 1, 1, 1]);
    assert_eq!(file.metadata().str("general.type"), Some("imatrix"));
    let imatrix = Imatrix::open(&path).unwrap();
    let k_b = imatrix.of(&spec(name, Role::MlaKB, &[2, 5, 3])).unwrap();
    let k_b = k_b.unwrap();
    assert_eq!(k_b.of_matrix(0), [1.0, 2.0]);
    assert_eq!(k_b.of_matrix(2), [5.0, 6.0]);
    // Of another number of heads: refused, not misread.
    let other = imatrix.of(&spec(name, Role::MlaKB, &[2, 5, 4]));
    let message = other.unwrap_err().to_string();
    assert!(message.contains("[6, 1], wanted [2, 4]"), "{message}");
}

#[test]
fn an_importance_matrix_of_another_model_is_refused() {
    let copy = Copy::of("tiny");
    let path = copy.target().with_extension("imatrix");
    write_importance(&path, 32, 4);
    let imatrix = Imatrix::open(&path).unwrap();
    let result = convert(
        &copy.path(""),
        &copy.target(),
        FileType::Q4_0,
        false,
        Some(&imatrix),
    );
    let message = result.unwrap_err().to_string();
    assert!(
        message.contains("blk.1.ffn_gate_exps.weight: [32, 4], wanted [64, 4]"),
        "{message}"
    );
    let model = copy
        .convert(FileType::F16)
        .map(|_| Imatrix::open(&copy.target()));
    let message = model.unwrap().unwrap_err().to_string();
    assert!(message.contains("wanted imatrix"), "{message}");
}
