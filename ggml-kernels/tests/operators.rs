//! Every operator beside its scalar twin, over odd and unequal sizes.

use ggml_kernels::backend::{Backend, DeviceKind};
use ggml_kernels::graph::{Graph, GraphError};
use ggml_kernels::ops::moe::{Experts, Routing};
use ggml_kernels::quant::TensorType;
use ggml_kernels::reference::{kda, mla, moe};
use ggml_kernels::storage::{Placement, State};
use ggml_kernels::tensor::Tensor;

/// f32 sums against f64 sums, relative to the largest value.
const TOLERANCE: f64 = 1e-5;

/// Reproducible values in (-1, 1): a linear congruential generator (Knuth's MMIX constants).
struct Noise(u64);

impl Noise {
    fn next(&mut self) -> f32 {
        let product = self.0.wrapping_mul(6364136223846793005);
        self.0 = product.wrapping_add(1442695040888963407);
        (self.0 >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    }
    fn take(&mut self, n: usize) -> Vec<f32> {
        (0..n).map(|_| self.next()).collect()
    }
}

fn cpu() -> Backend {
    Backend::open(DeviceKind::Cpu, 2).unwrap()
}

fn bytes(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|v| v.to_ne_bytes()).collect()
}

fn input(graph: &Graph, values: &[f32], ne: [usize; 4]) -> Tensor {
    graph.input(TensorType::F32, ne, bytes(values)).unwrap()
}

fn state(backend: &Backend, ne: [usize; 4], values: &[f32]) -> State {
    let place = Placement {
        name: "state".into(),
        ty: TensorType::F32,
        ne,
    };
    let mut storage = State::zeroed(backend, &[place]).unwrap();
    storage.write(0, &bytes(values)).unwrap();
    storage
}

fn state_values(storage: &State) -> Vec<f32> {
    let held = storage.read(0, usize::MAX);
    let words = held.chunks_exact(4);
    words
        .map(|w| f32::from_ne_bytes(w.try_into().unwrap()))
        .collect()
}

/// `[heads, d, d]` with the last two exchanged: ggml keeps S transposed.
fn transposed(s: &[f32], d: usize) -> Vec<f32> {
    let from = |at: usize| at / (d * d) * d * d + at % d * d + at / d % d;
    (0..s.len()).map(|at| s[from(at)]).collect()
}

/// Contiguous copies can be read back; views cannot.
fn run(graph: Graph, backend: &mut Backend, tensor: Tensor) -> Vec<f32> {
    let plain = graph.cont(tensor, tensor.ne()).unwrap();
    graph.output(plain).unwrap();
    graph.compute(backend).unwrap().read(plain).unwrap()
}

fn assert_near(what: &str, got: &[f32], want: &[f64]) {
    assert_eq!(got.len(), want.len(), "{what}");
    let size = want.iter().fold(1e-3f64, |m, v| m.max(v.abs()));
    for (at, (g, w)) in got.iter().zip(want).enumerate() {
        let off = (f64::from(*g) - w).abs() / size;
        assert!(off < TOLERANCE, "{what} at {at}: {g} for {w}");
    }
}

#[test]
fn the_recurrence_is_its_formula_at_any_gate() {
    let mut backend = cpu();
    for (tokens, heads, d) in [(1, 1, 8), (1, 3, 32), (5, 2, 17), (37, 3, 64), (70, 5, 16)] {
        // The gate has no lower bound: e^-200 must be a clean zero, not a NaN.
        for strength in [0.1, 3.0, 200.0] {
            let mut noise = Noise(tokens as u64 * 31 + d as u64);
            let n = tokens * heads * d;
            let [q, k, v] = [(); 3].map(|()| noise.take(n));
            let k: Vec<f32> = k.iter().map(|x| x / (d as f32).sqrt()).collect();
            let g: Vec<f32> = noise.take(n).iter().map(|x| -strength * x.abs()).collect();
            let beta: Vec<f32> = noise.take(tokens * heads).iter().map(|x| x.abs()).collect();
            let start = noise.take(heads * d * d);
            let mut want_state: Vec<f64> =
                transposed(&start, d).iter().map(|&s| s.into()).collect();
            let shape = kda::Shape { tokens, heads, d };
            let want = kda::recurrence(shape, [&q, &k, &v, &g], &beta, &mut want_state);

            let mut storage = state(&backend, [d, d, heads, 1], &start);
            let graph = Graph::new(64).unwrap();
            let inputs = [&q, &k, &v, &g].map(|x| input(&graph, x, [d, heads, tokens, 1]));
            let beta = input(&graph, &beta, [1, heads, tokens, 1]);
            let held = graph.state(&mut storage).unwrap()[0];
            let out = graph.kda(inputs, beta, held).unwrap();
            let got = run(graph, &mut backend, out);
            let what = format!("{tokens} tokens, {heads} heads of {d}, gate {strength}");
            assert_near(&what, &got, &want);
            let held = transposed(&state_values(&storage), d);
            assert_near(&format!("state, {what}"), &held, &want_state);
        }
    }
}

#[test]
fn the_convolution_continues_where_the_last_pass_ended() {
    let mut backend = cpu();
    let cases = [
        (1, 2, vec![1, 1, 4]),
        (33, 4, vec![1, 7, 2, 20]),
        (40, 3, vec![9]),
    ];
    for (inner, taps, lengths) in cases {
        let mut noise = Noise(inner as u64);
        let tokens: usize = lengths.iter().sum();
        let x = noise.take(tokens * inner);
        let weight = noise.take(inner * taps);
        let want = kda::causal_conv_silu(&x, &weight, inner);
        let mut tail = state(&backend, [taps - 1, inner, 1, 1], &[]);
        let mut got = Vec::new();
        let mut at = 0;
        for n in lengths {
            let graph = Graph::new(64).unwrap();
            let part = input(&graph, &x[at * inner..(at + n) * inner], [inner, n, 1, 1]);
            let weight = input(&graph, &weight, [taps, 1, inner, 1]);
            let held = graph.state(&mut tail).unwrap()[0];
            let out = graph.causal_conv_silu(part, weight, held).unwrap();
            got.extend(run(graph, &mut backend, out));
            at += n;
        }
        assert_near(&format!("{inner} channels, {taps} taps"), &got, &want);
    }
}

#[test]
fn attention_over_shared_rows_is_its_formula() {
    let mut backend = cpu();
    let (latent, rank) = (56, 40);
    for (tokens, heads, rows) in [(1, 1, 1), (1, 3, 19), (4, 2, 9), (3, 5, 700), (70, 3, 133)] {
        let mut noise = Noise(rows as u64);
        let q = noise.take(heads * tokens * latent);
        let cache = noise.take(rows * latent);
        let shape = mla::Shape {
            tokens,
            heads,
            rows,
            latent,
            rank,
        };
        let want = mla::attention(shape, &q, &cache, 0.2);
        let graph = Graph::new(64).unwrap();
        let q = input(&graph, &q, [latent, tokens, heads, 1]);
        let cache = input(&graph, &cache, [latent, rows, 1, 1]);
        let mut mask = vec![0u8; rows * tokens * 2];
        for (t, row) in mask.chunks_exact_mut(rows * 2).enumerate() {
            for hidden in row.chunks_exact_mut(2).skip(rows - tokens + t + 1) {
                hidden.copy_from_slice(&0xfc00u16.to_ne_bytes());
            }
        }
        let mask = graph.input(TensorType::F16, [rows, tokens, 1, 1], mask);
        let out = graph.mla_attention(q, cache, rank, mask.unwrap(), 0.2);
        let got = run(graph, &mut backend, out.unwrap());
        let what = format!("{tokens} tokens, {heads} heads, {rows} rows");
        assert_near(&what, &got, &want);
    }
}

#[test]
fn columns_are_turned_as_pairs_by_their_position() {
    let mut backend = cpu();
    for (width, heads, positions) in [(2, 1, vec![0]), (8, 3, vec![5, 6, 900]), (64, 2, vec![31])] {
        let tokens = positions.len();
        let x = Noise(width as u64).take(width * heads * tokens);
        let rows = x.chunks_exact(width).enumerate();
        let turned = rows.map(|(at, x)| mla::rotate(x, positions[at / heads] as usize, 6e6));
        let want: Vec<f64> = turned.flatten().collect();
        let graph = Graph::new(8).unwrap();
        let x = input(&graph, &x, [width, heads, tokens, 1]);
        let at = graph.indices(&positions, [tokens, 1, 1, 1], 1000).unwrap();
        let out = graph.rope(x, at, 6e6).unwrap();
        let got = run(graph, &mut backend, out);
        assert_near(&format!("{width} columns, {heads} heads"), &got, &want);
    }
}

#[test]
fn the_router_chooses_and_the_experts_sum() {
    let mut backend = cpu();
    let plain = |used| Routing {
        used,
        groups: 1,
        groups_used: 1,
        scale: 2.446,
    };
    let grouped = Routing {
        used: 3,
        groups: 4,
        groups_used: 2,
        scale: 1.5,
    };
    let (hidden, ff) = (24, 20);
    for (experts, routing, limit) in [
        (4, plain(1), f32::INFINITY),
        (7, plain(3), 0.6),
        (12, plain(8), f32::INFINITY),
        (12, grouped, 1.2),
    ] {
        for tokens in [1, 2, 33] {
            let mut noise = Noise(experts as u64 * 100 + tokens as u64);
            let logits = noise.take(experts * tokens);
            let bias: Vec<f32> = noise.take(experts).iter().map(|x| 0.3 * x).collect();
            let x = noise.take(hidden * tokens);
            let [gate, up, down] = [(); 3].map(|()| noise.take(hidden * ff * experts));
            let mut want = vec![0f64; hidden * tokens];
            for (t, out) in want.chunks_exact_mut(hidden).enumerate() {
                let x = &x[t * hidden..][..hidden];
                for (e, weight) in moe::route(&logits[t * experts..][..experts], &bias, routing) {
                    let [gate, up, down] =
                        [&gate, &up, &down].map(|w| &w[e * hidden * ff..][..hidden * ff]);
                    let one = moe::expert(x, [gate, up, down], limit);
                    out.iter_mut().zip(one).for_each(|(o, v)| *o += weight * v);
                }
            }
            let graph = Graph::new(256).unwrap();
            let logits = input(&graph, &logits, [experts, tokens, 1, 1]);
            let bias = input(&graph, &bias, [experts, 1, 1, 1]);
            let (ids, weights) = graph.route(logits, bias, routing).unwrap();
            let e = Experts {
                gate: input(&graph, &gate, [hidden, ff, experts, 1]),
                up: input(&graph, &up, [hidden, ff, experts, 1]),
                down: input(&graph, &down, [ff, hidden, experts, 1]),
                limit,
            };
            let x = input(&graph, &x, [hidden, tokens, 1, 1]);
            let out = graph.experts(x, e, ids, weights).unwrap();
            let got = run(graph, &mut backend, out);
            let what = format!("{experts} experts, {routing:?}, {tokens} tokens");
            assert_near(&what, &got, &want);
        }
    }
}

#[test]
fn rows_are_written_where_they_are_told_and_nowhere_else() {
    let mut backend = cpu();
    let start: Vec<f32> = (0..12).map(|v| v as f32).collect();
    let mut storage = state(&backend, [3, 4, 1, 1], &start);
    let graph = Graph::new(16).unwrap();
    let held = graph.state(&mut storage).unwrap()[0];
    let new = input(&graph, &[-1.0, -2.0, -3.0, -4.0, -5.0, -6.0], [3, 2, 1, 1]);
    let at = graph.indices(&[2, 0], [2, 1, 1, 1], 4).unwrap();
    let all = graph.set_rows(held, new, at).unwrap();
    let seen = run(graph, &mut backend, all);
    let want = [
        -4.0, -5.0, -6.0, 3.0, 4.0, 5.0, -1.0, -2.0, -3.0, 9.0, 10.0, 11.0,
    ];
    assert_eq!(seen, want);
    assert_eq!(state_values(&storage), want);
    let graph = Graph::new(16).unwrap();
    let held = graph.state(&mut storage).unwrap()[0];
    let new = input(&graph, &[0.0; 3], [3, 1, 1, 1]);
    let behind = graph.indices(&[0], [1, 1, 1, 1], 5).unwrap();
    assert!(graph.set_rows(held, new, behind).is_err(), "a row too many");
    let at = graph.indices(&[0], [1, 1, 1, 1], 4).unwrap();
    let nobodys = input(&graph, &[0.0; 12], [3, 4, 1, 1]);
    assert!(graph.set_rows(nobodys, new, at).is_err(), "nobody's state");
}

#[test]
fn sizes_that_ggml_would_abort_on_are_errors() {
    let graph = Graph::new(64).unwrap();
    let a = input(&graph, &[0.0; 12], [4, 3, 1, 1]);
    let b = input(&graph, &[0.0; 15], [5, 3, 1, 1]);
    let refused = |op: Result<Tensor, GraphError>| matches!(op, Err(GraphError::Shape { .. }));
    assert!(refused(graph.mul_mat(a, b)));
    assert!(refused(graph.add(a, b)));
    assert!(refused(graph.concat(a, b, 1)));
    assert!(refused(graph.reshape(a, [5, 3, 1, 1])));
    assert!(refused(graph.view(a, [4, 4, 1, 1], [16, 64, 64], 0)));
    assert!(refused(graph.view(
        a,
        [4, 1, 1, 1],
        [16; 3],
        usize::MAX - 3
    )));
    assert!(graph.top_k(a, 5).is_err());
    let at = graph.indices(&[0], [1, 1, 1, 1], 9).unwrap();
    assert!(refused(graph.rope(a, at, f32::NAN)));
    assert!(refused(graph.rope(b, at, 1e4)), "an odd width");
    assert!(refused(graph.permute(a, [0, 0, 2, 3])));
    assert!(graph.copy(a, a).is_err(), "an input is nobody's state");
    let wrong = graph.input(TensorType::F32, [4, 1, 1, 1], vec![0; 15]);
    assert!(refused(wrong));
}

#[test]
fn a_tensor_of_another_graph_is_refused() {
    let (one, other) = (Graph::new(8).unwrap(), Graph::new(8).unwrap());
    let a = input(&one, &[1.0; 4], [4, 1, 1, 1]);
    let b = input(&other, &[1.0; 4], [4, 1, 1, 1]);
    assert!(one.add(a, b).is_err());
    assert!(other.silu(a).is_err());
}

#[test]
fn a_full_graph_says_so() {
    let graph = Graph::new(3).unwrap();
    let a = input(&graph, &[1.0; 4], [4, 1, 1, 1]);
    let b = graph.add(a, a).unwrap();
    let c = graph.add(b, a).unwrap();
    assert!(matches!(graph.add(c, a), Err(GraphError::TooLarge)));
}
