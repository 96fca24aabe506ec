//! What safe code could once do to memory that ggml looks at, or to the process. The rest of these
//! are examples that must not compile, beside the types that refuse them.

use ggml_kernels::backend::{Backend, BackendError, DeviceKind};
use ggml_kernels::graph::{Graph, GraphError};
use ggml_kernels::quant::TensorType;
use ggml_kernels::storage::{Placement, State, StorageError};
use ggml_kernels::tensor::Tensor;

fn cpu() -> Backend {
    Backend::open(DeviceKind::Cpu, 2).unwrap()
}

fn input(graph: &Graph, values: &[f32], ne: [usize; 4]) -> Tensor {
    let bytes = values.iter().flat_map(|v| v.to_ne_bytes()).collect();
    graph.input(TensorType::F32, ne, bytes).unwrap()
}

fn read(graph: Graph, backend: &mut Backend, tensor: Tensor) -> Result<Vec<f32>, GraphError> {
    graph.output(tensor).unwrap();
    graph.compute(backend)?.read(tensor)
}

fn refused<T>(op: Result<T, GraphError>) -> bool {
    matches!(op, Err(GraphError::Shape { .. }))
}

#[test]
fn rows_are_chosen_only_by_numbers_known_to_be_theirs() {
    let graph = Graph::new(16).unwrap();
    let rows = input(&graph, &[1.0; 12], [4, 3, 1, 1]);
    let experts = input(&graph, &[1.0; 24], [4, 2, 3, 1]);
    let x = input(&graph, &[1.0; 4], [4, 1, 1, 1]);
    let two = [2, 1, 1, 1];
    assert!(refused(graph.indices(&[0, 3], two, 3)));
    assert!(refused(graph.indices(&[0, u32::MAX], two, usize::MAX)));
    let loose = graph.indices(&[0, 2], two, 4).unwrap();
    assert!(refused(graph.get_rows(rows, loose)), "3 may be among them");
    assert!(refused(graph.mul_mat_id(experts, x, loose)));
    let close = graph.indices(&[0, 2], two, 3).unwrap();
    graph.get_rows(rows, close).unwrap();
    graph.mul_mat_id(experts, x, close).unwrap();
    let among_four = graph.top_k(rows, 2).unwrap();
    assert_eq!(among_four.below(), 4);
}

#[test]
fn the_largest_of_a_row_with_nans_are_still_places_of_the_row() {
    let mut backend = cpu();
    let mut seed = 1u64;
    for width in [2usize, 17, 64, 1000] {
        for _ in 0..50 {
            let value = |seed: &mut u64| {
                *seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1);
                let nan = (*seed >> 60) < 5;
                if nan { f32::NAN } else { (*seed >> 40) as f32 }
            };
            let scores: Vec<f32> = (0..width).map(|_| value(&mut seed)).collect();
            let graph = Graph::new(16).unwrap();
            let scores = input(&graph, &scores, [width, 1, 1, 1]);
            let chosen = graph.top_k(scores, width).unwrap();
            let places: Vec<f32> = (0..width).map(|at| at as f32).collect();
            let places = input(&graph, &places, [1, width, 1, 1]);
            let places = graph.get_rows(places, chosen).unwrap();
            let mut got = read(graph, &mut backend, places).unwrap();
            got.sort_by(f32::total_cmp);
            assert!(
                (0..width).all(|at| got[at] == at as f32),
                "{width}: {got:?}"
            );
        }
    }
}

#[test]
fn a_clamp_leaves_what_it_reads_as_it_was() {
    let mut backend = cpu();
    let graph = Graph::new(16).unwrap();
    let x = input(&graph, &[-1.0, 2.0, -3.0], [3, 1, 1, 1]);
    let doubled = graph.scale(x, 2.0).unwrap();
    let clamped = graph.clamp_min(doubled, 0.0).unwrap();
    let both = graph.concat(clamped, doubled, 1).unwrap();
    let got = read(graph, &mut backend, both).unwrap();
    assert_eq!(got, [0.0, 4.0, 0.0, -2.0, 4.0, -6.0]);
}

#[test]
fn only_an_output_can_be_read() {
    let mut backend = cpu();
    let graph = Graph::new(16).unwrap();
    let x = input(&graph, &[1.0; 4], [4, 1, 1, 1]);
    let between = graph.scale(x, 2.0).unwrap();
    let out = graph.scale(between, 2.0).unwrap();
    graph.output(out).unwrap();
    let never = graph.scale(x, 3.0).unwrap();
    let computed = graph.compute(&mut backend).unwrap();
    assert_eq!(computed.read(out).unwrap(), [4.0; 4]);
    assert!(
        refused(computed.read(between)),
        "its memory may be another's"
    );
    assert!(refused(computed.read(never)));
}

/// A graph whose product is 2^50 values, more than any process can address.
fn beyond_memory(backend: &mut Backend) -> GraphError {
    let graph = Graph::new(16).unwrap();
    let many = 1 << 18;
    let x = input(&graph, &vec![1.0; many], [1, many, 1, 1]);
    let square = graph.mul_mat(x, x).unwrap();
    let square = graph.reshape(square, [1, many * many, 1, 1]).unwrap();
    let more = input(&graph, &vec![1.0; 1 << 14], [1, 1 << 14, 1, 1]);
    let vast = graph.mul_mat(more, square).unwrap();
    graph.output(vast).unwrap();
    match graph.compute(backend) {
        Err(e) => e,
        Ok(_) => panic!("four pebibytes were found"),
    }
}

#[test]
fn a_pass_that_finds_no_memory_says_how_much_it_wanted_and_the_next_one_runs() {
    let mut backend = cpu();
    // Twice: ggml's allocator used to take the first one's plan for buffers that it has.
    for _ in 0..2 {
        let e = beyond_memory(&mut backend);
        let GraphError::Backend(BackendError::OutOfMemory { bytes, .. }) = e else {
            panic!("{e}");
        };
        assert!(bytes >= 4 << 50, "{bytes}");
    }
    let graph = Graph::new(4).unwrap();
    let x = input(&graph, &[1.0; 4], [4, 1, 1, 1]);
    let out = graph.scale(x, 2.0).unwrap();
    assert_eq!(read(graph, &mut backend, out).unwrap(), [2.0; 4]);
}

#[test]
fn state_that_finds_no_memory_says_how_much_it_wanted() {
    let place = Placement {
        name: "rows".into(),
        ty: TensorType::F32,
        ne: [1 << 20, 1 << 30, 1, 1],
    };
    let got = State::zeroed(&cpu(), &[place]);
    let Err(StorageError::Backend(BackendError::OutOfMemory { bytes, .. })) = got else {
        panic!("{got:?}");
    };
    assert_eq!(bytes, 4 << 50);
}
