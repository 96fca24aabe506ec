//! Products at the shapes of the 48B model, ours beside ggml's, taking turns, and the speed at which
//! memory is read at all. `cargo bench -p ggml-kernels --bench products [-- PART OF A LINE]...`
//! `--tier NAME` forces our instructions, `--threads N` both sides' threads, `--tokens N,N` the rows
//! at a time.

use std::time::{Duration, Instant};

use ggml_kernels::backend::{Backend, DeviceKind};
use ggml_kernels::cpu::ceiling::read_rate;
use ggml_kernels::cpu::{
    Activations, Crew, ExpertScratch, Experts, Kind, Matrix, Pool, Product, Routes, Stack, Tier,
    experts, products,
};
use ggml_kernels::graph::Graph;
use ggml_kernels::ops::moe;
use ggml_kernels::quant::{TensorType, quantize_rows};
use ggml_kernels::storage::{Placement, Weights};

/// Matrices are repeated until they are this large, so that no cache holds them.
const MEMORY: usize = 200 << 20;
/// What a line takes, about.
const SECONDS: f64 = 0.6;
const HIDDEN: usize = 2304;
const FF: usize = 1024;
const USED: usize = 8;

fn main() {
    let (mut tier, mut threads) = (Tier::detect(), 2);
    let mut tokens = vec![1, 2, 4, 8, 16, 64, 512];
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
            "--tokens" => tokens = value().split(',').map(|n| n.parse().unwrap()).collect(),
            _ => wanted.push(arg),
        }
    }
    let pool = Pool::new(threads);
    let mut bench = Bench {
        crew: Crew { pool: &pool, tier },
        backend: Backend::open(DeviceKind::Cpu, threads).unwrap(),
        wanted,
        tokens,
    };
    println!("{}, {threads} threads, tier {tier}", processor());
    let read = read_rate(bench.crew, MEMORY);
    println!("reads of memory, at most: {:.1} GB/s", read / 1e9);
    let head = ["ours GB/s", "ggml GB/s", "ours GF/s", "ggml GF/s", "ratio"];
    print!("{:32}", "");
    head.iter().for_each(|name| print!(" {name:>10}"));
    println!();
    for ty in [
        TensorType::Q4K,
        TensorType::Q5K,
        TensorType::Q6K,
        TensorType::Q8_0,
        TensorType::Q4_0,
        TensorType::Q3K,
        TensorType::Q2K,
        TensorType::Iq3S,
        TensorType::Iq3Xxs,
        TensorType::Iq2S,
        TensorType::Iq2Xs,
        TensorType::Iq2Xxs,
        TensorType::F16,
        TensorType::Bf16,
        TensorType::F32,
    ] {
        bench.products(ty, 4096, HIDDEN);
    }
    bench.products(TensorType::Q4K, HIDDEN, 4096);
    bench.products(TensorType::Q6K, 163_840, HIDDEN);
    bench.experts(TensorType::Q4K, TensorType::Q4K);
    bench.experts(TensorType::Q4K, TensorType::Q6K);
    bench.experts(TensorType::Q2K, TensorType::Q3K);
    bench.experts(TensorType::Iq3Xxs, TensorType::Iq3Xxs);
    bench.experts(TensorType::Iq2Xs, TensorType::Iq2Xs);
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

/// `count` matrices, quantized once and copied: their values do not matter to the time.
fn weights(ty: TensorType, count: usize, rows: usize, cols: usize) -> Vec<u8> {
    let some = rows.min(64);
    let mut block = vec![0; ty.row_bytes(cols).unwrap() * some];
    let importance = ty.needs_importance().then(|| vec![1.0; cols]);
    let values = noise(some * cols, 1);
    quantize_rows(ty, &values, cols, importance.as_deref(), &mut block).unwrap();
    let len = ty.row_bytes(cols).unwrap() * rows * count;
    block.iter().copied().cycle().take(len).collect()
}

struct Bench<'p> {
    crew: Crew<'p>,
    backend: Backend,
    wanted: Vec<String>,
    tokens: Vec<usize>,
}

/// The quickest of each, in turns; run `i` of a side gets the number `i`, to take other weights.
fn turns(ours: &mut dyn FnMut(usize), ggml: &mut dyn FnMut(usize)) -> [f64; 2] {
    let mut best = [f64::INFINITY; 2];
    let begun = Instant::now();
    let mut at = 0;
    while at < 3 || begun.elapsed().as_secs_f64() < SECONDS {
        for (side, best) in best.iter_mut().enumerate() {
            // ggml's threads spin for a while after a pass.
            std::thread::sleep(Duration::from_millis(2));
            let start = Instant::now();
            for i in 0..3 {
                match side {
                    0 => ours(at * 3 + i),
                    _ => ggml(at * 3 + i),
                }
            }
            *best = best.min(start.elapsed().as_secs_f64() / 3.0);
        }
        at += 1;
    }
    best
}

impl Bench<'_> {
    fn wants(&self, line: &str) -> bool {
        self.wanted.is_empty() || self.wanted.iter().any(|part| line.contains(part))
    }

    fn print(line: &str, bytes: usize, flops: usize, [ours, ggml]: [f64; 2]) {
        print!("{line:32}");
        for what in [bytes, flops] {
            for time in [ours, ggml] {
                print!(" {:>10.1}", what as f64 / time / 1e9);
            }
        }
        println!(" {:>10.2}", ggml / ours);
    }

    fn products(&mut self, ty: TensorType, rows: usize, cols: usize) {
        let name = format!("{ty} {cols} -> {rows}");
        if !self.wants(&name) {
            return;
        }
        let size = ty.row_bytes(cols).unwrap() * rows;
        let count = (MEMORY / size).max(1);
        let data = weights(ty, count, rows, cols);
        let stack = Stack::new(ty, count, rows, cols, &data).unwrap();
        let place = Placement {
            name: String::new(),
            ty,
            ne: [cols, rows, count, 1],
        };
        let held = Weights::copied(&self.backend, &[(place, &data)]).unwrap();
        for tokens in self.tokens.clone() {
            if rows > 100_000 && tokens > 16 {
                continue;
            }
            let x = noise(tokens * cols, 2);
            let mut input = Activations::default();
            let mut out = vec![0.0; tokens * rows];
            let crew = self.crew;
            let ours = &mut |at: usize| {
                let matrix: Matrix<'_> = stack.get(at % count);
                input.fill(crew, &x, cols, [ty]);
                let out = &mut out;
                products(crew, &input, &mut [Product { matrix, out }]);
            };
            let backend = &mut self.backend;
            let ggml = &mut |at: usize| {
                let graph = Graph::new(16).unwrap();
                let all = graph.weight(&held, 0).unwrap();
                let (row, matrix) = (size / rows, [size, size, size]);
                let window = graph.view(
                    all,
                    [cols, rows, 1, 1],
                    [row, matrix[0], matrix[1]],
                    at % count * size,
                );
                let x = graph.input(TensorType::F32, [cols, tokens, 1, 1], bytes(&x));
                let y = graph.mul_mat(window.unwrap(), x.unwrap()).unwrap();
                graph.output(y).unwrap();
                graph.compute(backend).unwrap();
            };
            let times = turns(ours, ggml);
            let line = format!("{name}, {tokens}");
            Self::print(&line, size, 2 * tokens * rows * cols, times);
        }
    }

    fn experts(&mut self, ty: TensorType, down_ty: TensorType) {
        let name = format!("experts {ty} {down_ty}");
        if !self.wants(&name) {
            return;
        }
        const COUNT: usize = 256;
        let data = weights(ty, COUNT, FF, HIDDEN);
        let down = weights(down_ty, COUNT, HIDDEN, FF);
        let up_stack = Stack::new(ty, COUNT, FF, HIDDEN, &data).unwrap();
        let all = Experts {
            gate: up_stack,
            up: up_stack,
            down: Stack::new(down_ty, COUNT, HIDDEN, FF, &down).unwrap(),
            limit: f32::INFINITY,
        };
        let place = |ty, ne| Placement {
            name: String::new(),
            ty,
            ne,
        };
        let places = [
            (place(ty, [HIDDEN, FF, COUNT, 1]), &data[..]),
            (place(down_ty, [FF, HIDDEN, COUNT, 1]), &down[..]),
        ];
        let held = Weights::copied(&self.backend, &places).unwrap();
        for tokens in self.tokens.clone() {
            let x = noise(tokens * HIDDEN, 2);
            let draw = noise(8 * tokens * USED, 3);
            // Other experts every time; a token's are different ones.
            let ids = |at: usize| -> Vec<u32> {
                let draw = &draw[at % 8 * tokens * USED..][..tokens * USED];
                let spread =
                    |(i, x): (usize, &f32)| (x.abs() * 31.99) as u32 * 8 + (i % USED) as u32;
                draw.iter().enumerate().map(spread).collect()
            };
            let touched: std::collections::BTreeSet<u32> = ids(0).into_iter().collect();
            let weights = vec![0.3; tokens * USED];
            let mut input = Activations::default();
            let mut scratch = ExpertScratch::default();
            let mut out = vec![0.0; tokens * HIDDEN];
            let crew = self.crew;
            let ours = &mut |at: usize| {
                let ids = ids(at);
                let routes = Routes {
                    ids: &ids,
                    weights: &weights,
                    used: USED,
                };
                input.fill(crew, &x, HIDDEN, [ty]);
                experts(crew, &input, &all, routes, &mut scratch, &mut out);
            };
            let backend = &mut self.backend;
            let ggml = &mut |at: usize| {
                let graph = Graph::new(64).unwrap();
                let up = graph.weight(&held, 0).unwrap();
                let e = moe::Experts {
                    gate: up,
                    up,
                    down: graph.weight(&held, 1).unwrap(),
                    limit: f32::INFINITY,
                };
                let x = graph.input(TensorType::F32, [HIDDEN, tokens, 1, 1], bytes(&x));
                let ids = graph
                    .indices(&ids(at), [USED, tokens, 1, 1], COUNT)
                    .unwrap();
                let ne = [1, USED, tokens, 1];
                let weights = graph.input(TensorType::F32, ne, bytes(&weights)).unwrap();
                let y = graph.experts(x.unwrap(), e, ids, weights).unwrap();
                graph.output(y).unwrap();
                graph.compute(backend).unwrap();
            };
            let times = turns(ours, ggml);
            let size = (2 * data.len() + down.len()) / COUNT * touched.len();
            let flops = 2 * 3 * tokens * USED * FF * HIDDEN;
            Self::print(&format!("{name}, {tokens}"), size, flops, times);
        }
    }
}
