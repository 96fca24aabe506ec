//! KDA and MLA of one layer at the shape of the 48B model, ours beside ggml's operators, taking
//! turns. `cargo bench -p ggml-kernels --bench mixers [-- kda | mla | PART OF A LINE]...`
//! `--tier NAME` forces our instructions, `--threads N` both sides' threads.
//!
//! Inputs are the raw projections, outputs what the output projection reads.

use std::time::{Duration, Instant};

use ggml_kernels::backend::{Backend, DeviceKind};
use ggml_kernels::cpu::kda::{
    GateLaw, KdaInput, KdaLane, KdaScratch, KdaShape, KdaState, KdaWeights, kda,
};
use ggml_kernels::cpu::mla::{BLOCK, MlaLane, MlaScratch, MlaShape, mla, store_rows};
use ggml_kernels::cpu::{Crew, Kind, Pool, Tier};
use ggml_kernels::graph::Graph;
use ggml_kernels::ops::kda::L2_EPS;
use ggml_kernels::quant::TensorType;
use ggml_kernels::storage::{Placement, State, Weights};
use ggml_kernels::tensor::Tensor;

const HEADS: usize = 32;
const D: usize = 128;
const INNER: usize = HEADS * D;
const TAPS: usize = 4;
const EPS: f32 = 1e-5;
const RANK: usize = 512;
const ROPE: usize = 64;
const LATENT: usize = RANK + ROPE;

/// What a line takes, about, where three runs do not take longer.
const SECONDS: f64 = 1.5;
const PAUSE: Duration = Duration::from_millis(50);

fn main() {
    let mut tier = Tier::detect();
    let mut threads = 2;
    let mut wanted = Vec::new();
    let mut args = std::env::args().skip(1).filter(|arg| arg != "--bench");
    while let Some(arg) = args.next() {
        let mut value = || args.next().unwrap_or_else(|| panic!("{arg}: no value"));
        match arg.as_str() {
            "--tier" => {
                let kind: Kind = value().parse().unwrap_or_else(|why| panic!("{why}"));
                tier = Tier::of(kind).unwrap_or_else(|| panic!("{kind}: not this processor's"));
            }
            "--threads" => threads = value().parse().unwrap(),
            _ => wanted.push(arg),
        }
    }
    let pool = Pool::new(threads);
    let mut bench = Bench {
        crew: Crew { pool: &pool, tier },
        backend: Backend::open(DeviceKind::Cpu, threads).unwrap(),
        wanted,
    };
    println!("{}, {threads} threads, tier {tier}", processor());
    println!("{:36} {:>10} {:>10} {:>7}", "", "ours", "ggml", "ratio");
    for (tokens, lanes) in [(1, 1), (1, 8), (512, 1)] {
        bench.kda(tokens, lanes);
    }
    for ty in [
        TensorType::F16,
        TensorType::Q8_0,
        TensorType::F32,
        TensorType::Bf16,
    ] {
        for (tokens, past) in [
            (1, 0),
            (1, 8 << 10),
            (1, 32 << 10),
            (512, 0),
            (512, 8 << 10),
            (128, 32 << 10),
        ] {
            bench.mla(ty, tokens, past);
        }
    }
}

fn processor() -> String {
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let mut lines = info.lines().filter_map(|line| line.split_once(':'));
    let name = lines.find(|(key, _)| key.trim() == "model name");
    name.map_or("unknown processor", |(_, name)| name.trim())
        .to_owned()
}

/// Reproducible values in (-1, 1): a linear congruential generator (Knuth's MMIX constants).
fn noise(n: usize, seed: u64) -> Vec<f32> {
    let mut state = seed;
    let mut next = || {
        let product = state.wrapping_mul(6364136223846793005);
        state = product.wrapping_add(1442695040888963407);
        (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    };
    (0..n).map(|_| next()).collect()
}

fn bytes(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|v| v.to_ne_bytes()).collect()
}

/// Runs for a twentieth of a second, at least once, after one that warms up.
fn turn(times: &mut Vec<f64>, run: &mut dyn FnMut()) {
    let begun = Instant::now();
    run();
    let first = begun.elapsed().as_secs_f64();
    if first > 1.0 {
        times.push(first);
        return;
    }
    let runs = (0.05 / first).clamp(1.0, 200.0) as usize;
    for _ in 0..runs {
        let start = Instant::now();
        run();
        times.push(start.elapsed().as_secs_f64());
    }
}

fn median(mut times: Vec<f64>) -> f64 {
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}

struct Bench<'p> {
    crew: Crew<'p>,
    backend: Backend,
    wanted: Vec<String>,
}

impl Bench<'_> {
    fn wants(&self, line: &str) -> bool {
        self.wanted.is_empty() || self.wanted.iter().any(|part| line.contains(part))
    }

    /// Both in turns of many runs, of which the first counts for nothing; `work`: multiply-adds of
    /// ours.
    fn line(
        &mut self,
        line: &str,
        work: f64,
        ours: &mut dyn FnMut(),
        theirs: &mut dyn FnMut(&mut Backend),
    ) {
        let (mut a, mut b) = (Vec::new(), Vec::new());
        let begun = Instant::now();
        while a.len() < 3 || begun.elapsed().as_secs_f64() < SECONDS {
            // ggml's threads look for work for a while, on the cores that ours need.
            std::thread::sleep(PAUSE);
            turn(&mut a, &mut *ours);
            turn(&mut b, &mut || theirs(&mut self.backend));
        }
        let (a, b) = (median(a), median(b));
        let rate = work / a / 1e9;
        let (a, b, ratio) = (a * 1e6, b * 1e6, b / a);
        println!("{line:36} {a:7.0} us {b:7.0} us {ratio:6.2}x  {rate:6.1} G madd/s");
    }

    fn kda(&mut self, tokens: usize, lanes: usize) {
        let line = format!("kda, {lanes} lanes of {tokens} tokens");
        if !self.wants(&line) {
            return;
        }
        let shape = KdaShape {
            heads: HEADS,
            head_dim: D,
            taps: TAPS,
        };
        let rows = lanes * tokens;
        let x: [Vec<f32>; 5] = std::array::from_fn(|at| noise(rows * INNER, at as u64));
        let conv: [Vec<f32>; 3] = std::array::from_fn(|at| noise(INNER * TAPS, 10 + at as u64));
        let beta = noise(rows * HEADS, 20);
        let a: Vec<f32> = noise(HEADS, 21).iter().map(|x| -x.abs() - 0.1).collect();
        let (dt_bias, norm) = (noise(INNER, 22), noise(D, 23));
        let weights = KdaWeights {
            conv_q: &conv[0],
            conv_k: &conv[1],
            conv_v: &conv[2],
            a: &a,
            dt_bias: &dt_bias,
            norm: &norm,
            eps: EPS,
            gate: GateLaw::Softplus,
        };
        let input = KdaInput {
            q: &x[0],
            k: &x[1],
            v: &x[2],
            gate: &x[3],
            open: &x[4],
            beta: &beta,
        };
        let mut states: Vec<_> = (0..lanes).map(|_| KdaState::zeroed(&shape)).collect();
        let mut scratch = KdaScratch::default();
        let mut out = vec![0.0; rows * INNER];
        let crew = self.crew;
        let mut ours = || {
            let mut lanes: Vec<_> = states
                .iter_mut()
                .enumerate()
                .map(|(at, to)| KdaLane {
                    rows: at * tokens..(at + 1) * tokens,
                    from: None,
                    to,
                })
                .collect();
            kda(
                crew,
                &shape,
                &weights,
                &input,
                &mut lanes,
                &mut scratch,
                &mut out,
            );
        };
        let place = |ne| Placement {
            name: "state".into(),
            ty: TensorType::F32,
            ne,
        };
        let tail = [TAPS - 1, INNER, 1, 1];
        let places = [tail, tail, tail, [D, D, HEADS, 1]].map(place);
        let zeroed = |_| State::zeroed(&self.backend, &places).unwrap();
        let mut held: Vec<State> = (0..lanes).map(zeroed).collect();
        // One sequence after another: the graph knows no more than one.
        let mut theirs = |backend: &mut Backend| {
            for (lane, held) in held.iter_mut().enumerate() {
                let graph = Graph::new(256).unwrap();
                let rows = lane * tokens..(lane + 1) * tokens;
                let cut = |x: &[f32], width: usize| bytes(&x[rows.start * width..rows.end * width]);
                let input = |x: &[f32], width| {
                    let ne = [width, tokens, 1, 1];
                    graph.input(TensorType::F32, ne, cut(x, width)).unwrap()
                };
                let plain = |x: &[f32], ne| graph.input(TensorType::F32, ne, bytes(x)).unwrap();
                let by_head = [D, HEADS, tokens, 1];
                let state = graph.state(held).unwrap();
                let [q, k, v]: [Tensor; 3] = std::array::from_fn(|at| {
                    let weight = plain(&conv[at], [TAPS, 1, INNER, 1]);
                    let out = graph.causal_conv_silu(input(&x[at], INNER), weight, state[at]);
                    graph.reshape(out.unwrap(), by_head).unwrap()
                });
                let q = graph.l2_norm(q, L2_EPS).unwrap();
                let k = graph.l2_norm(k, L2_EPS).unwrap();
                let gate = graph.add(input(&x[3], INNER), plain(&dt_bias, [INNER, 1, 1, 1]));
                let gate = graph.softplus(gate.unwrap()).unwrap();
                let gate = graph.reshape(gate, by_head).unwrap();
                let gate = graph.mul(gate, plain(&a, [1, HEADS, 1, 1])).unwrap();
                let beta = graph.sigmoid(input(&beta, HEADS)).unwrap();
                let beta = graph.reshape(beta, [1, HEADS, tokens, 1]).unwrap();
                let out = graph.kda([q, k, v, gate], beta, state[3]).unwrap();
                let out = graph
                    .rms_norm(out, plain(&norm, [D, 1, 1, 1]), EPS)
                    .unwrap();
                let open = graph.sigmoid(input(&x[4], INNER)).unwrap();
                let open = graph.reshape(open, by_head).unwrap();
                graph.output(graph.mul(out, open).unwrap()).unwrap();
                graph.compute(backend).unwrap();
            }
        };
        let work = (rows * HEADS * D * D * 4) as f64;
        self.line(&line, work, &mut ours, &mut theirs);
    }

    fn mla(&mut self, ty: TensorType, tokens: usize, past: usize) {
        let line = format!("mla, {ty} rows, {tokens} tokens after {past}");
        if !self.wants(&line) {
            return;
        }
        let shape = MlaShape {
            heads: HEADS,
            rank: RANK,
            rope: ROPE,
            scale: 0.07,
        };
        let n_kv = past + tokens;
        let row_bytes = ty.row_bytes(LATENT).unwrap();
        let rows = noise(n_kv.next_multiple_of(BLOCK) * LATENT, 1);
        let mut cache = vec![0u8; n_kv.next_multiple_of(BLOCK) * row_bytes];
        let blocks = cache.chunks_mut(BLOCK * row_bytes);
        for (block, rows) in blocks.zip(rows.chunks(BLOCK * LATENT)) {
            store_rows(ty, rows, block, 0);
        }
        let q = noise(tokens * HEADS * LATENT, 2);
        let lane = MlaLane {
            rows: 0..tokens,
            past,
            blocks: cache.chunks(BLOCK * row_bytes).collect(),
        };
        let mut scratch = MlaScratch::default();
        let mut out = vec![0.0; tokens * HEADS * RANK];
        let crew = self.crew;
        let lanes = [lane];
        let mut ours = || mla(crew, &shape, ty, &q, &lanes, &mut scratch, &mut out);

        let place = Placement {
            name: "rows".into(),
            ty,
            ne: [LATENT, n_kv, 1, 1],
        };
        let kept = [(place, &cache[..n_kv * row_bytes])];
        let held = Weights::copied(&self.backend, &kept).unwrap();
        let mut mask = vec![0u8; n_kv * tokens * 2];
        for (t, row) in mask.chunks_exact_mut(n_kv * 2).enumerate() {
            for hidden in row.chunks_exact_mut(2).skip(past + t + 1) {
                hidden.copy_from_slice(&0xfc00u16.to_ne_bytes());
            }
        }
        // Heads outside, as the operator wants them; the values do not matter.
        let q_bytes = bytes(&q);
        let mut theirs = |backend: &mut Backend| {
            let graph = Graph::new(64).unwrap();
            let ne = [LATENT, tokens, HEADS, 1];
            let q = graph.input(TensorType::F32, ne, q_bytes.clone()).unwrap();
            let rows = graph.weight(&held, 0).unwrap();
            let ne = [n_kv, tokens, 1, 1];
            let mask = graph.input(TensorType::F16, ne, mask.clone()).unwrap();
            let out = graph.mla_attention(q, rows, RANK, mask, shape.scale);
            graph.output(out.unwrap()).unwrap();
            graph.compute(backend).unwrap();
        };
        let pairs = tokens * HEADS;
        let seen = past as f64 + (tokens as f64 + 1.0) / 2.0;
        let work = pairs as f64 * seen * (LATENT + RANK) as f64;
        self.line(&line, work, &mut ours, &mut theirs);
    }
}
