//! A kept graph computed again and again: other inputs, the same place, states lent for each run.

use ggml_kernels::backend::{Backend, DeviceKind};
use ggml_kernels::graph::{Graph, GraphError, Plan};
use ggml_kernels::quant::TensorType;
use ggml_kernels::storage::{Placement, State};
use ggml_kernels::tensor::{Indices, Tensor};

fn cpu() -> Backend {
    Backend::open(DeviceKind::Cpu, 1).unwrap()
}

fn bytes(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|v| v.to_ne_bytes()).collect()
}

fn rows(backend: &Backend) -> State {
    let place = Placement {
        name: "rows".into(),
        ty: TensorType::F32,
        ne: [2, 4, 1, 1],
    };
    State::zeroed(backend, &[place]).unwrap()
}

fn held(state: &State) -> Vec<f32> {
    let bytes = state.read(0, usize::MAX);
    let words = bytes.as_chunks().0.iter();
    words.map(|w| f32::from_ne_bytes(*w)).collect()
}

/// A plan that writes a row of two into its state and says what the state then holds, doubled.
struct Writer {
    plan: Plan,
    row: Tensor,
    at: Indices,
    out: Tensor,
}

fn writer(backend: &Backend, state: &mut State) -> Writer {
    let graph = Graph::new(16).unwrap();
    let to = graph.state(state).unwrap()[0];
    let row = graph.input(TensorType::F32, [2, 1, 1, 1], bytes(&[1.0, 2.0]));
    let row = row.unwrap();
    let at = graph.indices(&[0], [1, 1, 1, 1], 4).unwrap();
    let all = graph.set_rows(to, row, at).unwrap();
    let out = graph.scale(all, 2.0).unwrap();
    graph.output(out).unwrap();
    let plan = graph.keep(backend).unwrap();
    Writer { plan, row, at, out }
}

#[test]
fn a_plan_runs_again_with_other_inputs_on_the_state_as_it_is_by_then() {
    let mut backend = cpu();
    let mut state = rows(&backend);
    let Writer {
        mut plan,
        row,
        at,
        out,
    } = writer(&backend, &mut state);
    plan.run(&mut backend, &mut [&mut state]).unwrap();
    let first = [2.0, 4.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0];
    assert_eq!(plan.read(&mut backend, out).unwrap(), first);
    plan.set(row, bytes(&[5.0, 6.0])).unwrap();
    plan.set_indices(at, &[3]).unwrap();
    plan.run(&mut backend, &mut [&mut state]).unwrap();
    let second = [2.0, 4.0, 0.0, 0.0, 0.0, 0.0, 10.0, 12.0];
    assert_eq!(plan.read(&mut backend, out).unwrap(), second);
    assert_eq!(held(&state), [1.0, 2.0, 0.0, 0.0, 0.0, 0.0, 5.0, 6.0]);
    // What others write between two runs is what the next one finds.
    state.write(0, &bytes(&[7.0])).unwrap();
    plan.run(&mut backend, &mut [&mut state]).unwrap();
    assert_eq!(plan.read(&mut backend, out).unwrap()[0], 14.0);
}

#[test]
fn plans_of_two_states_and_other_graphs_between_do_not_disturb_each_other() {
    let mut backend = cpu();
    let (mut one, mut other) = (rows(&backend), rows(&backend));
    let mut first = writer(&backend, &mut one);
    let mut second = writer(&backend, &mut other);
    for turn in 0..3u32 {
        let value = turn as f32;
        first.plan.set(first.row, bytes(&[value, 1.0])).unwrap();
        second.plan.set(second.row, bytes(&[-value, 1.0])).unwrap();
        first.plan.run(&mut backend, &mut [&mut one]).unwrap();
        let graph = Graph::new(8).unwrap();
        let big = graph.input(TensorType::F32, [999, 1, 1, 1], bytes(&[3.0; 999]));
        let sum = graph.sum_rows(big.unwrap()).unwrap();
        graph.output(sum).unwrap();
        let sum = graph.compute(&mut backend).unwrap().read(sum).unwrap();
        assert_eq!(sum, [2997.0]);
        second.plan.run(&mut backend, &mut [&mut other]).unwrap();
        assert_eq!(
            first.plan.read(&mut backend, first.out).unwrap()[0],
            2.0 * value
        );
        assert_eq!(
            second.plan.read(&mut backend, second.out).unwrap()[0],
            -2.0 * value
        );
    }
}

#[test]
fn a_plan_without_its_state_or_on_another_backend_does_not_run() {
    let (mut backend, mut elsewhere) = (cpu(), cpu());
    let (mut state, mut wrong) = (rows(&backend), rows(&backend));
    let mut plan = writer(&backend, &mut state).plan;
    let refused = |run: Result<(), GraphError>| matches!(run, Err(GraphError::Shape { .. }));
    assert!(refused(plan.run(&mut backend, &mut [])));
    assert!(refused(plan.run(&mut backend, &mut [&mut wrong])));
    assert!(refused(plan.run(&mut elsewhere, &mut [&mut state])));
    assert_eq!(held(&state), [0.0; 8]);
    assert!(plan.run(&mut backend, &mut [&mut state]).is_ok());
}

#[test]
fn inputs_of_another_size_graph_or_range_are_refused() {
    let backend = cpu();
    let (mut state, mut more) = (rows(&backend), rows(&backend));
    let mut one = writer(&backend, &mut state);
    let other = writer(&backend, &mut more);
    assert!(one.plan.set(one.row, bytes(&[1.0])).is_err());
    assert!(one.plan.set(other.row, bytes(&[1.0, 2.0])).is_err());
    assert!(one.plan.set(one.out, bytes(&[0.0; 8])).is_err(), "no input");
    assert!(one.plan.set_indices(one.at, &[4]).is_err(), "no such row");
    assert!(one.plan.set_indices(one.at, &[1, 2]).is_err());
}

#[test]
fn what_a_plan_points_to_outlives_its_owners() {
    let mut backend = cpu();
    let mut state = rows(&backend);
    let mut plan = writer(&backend, &mut state).plan;
    drop(state);
    assert!(plan.run(&mut backend, &mut []).is_err());
    drop(backend);
    drop(plan);
}
