//! Experts: `h` and back, against f64 from the `h` that the card made.

use ggml_kernels::cuda::driver::{Buffer, Stream};
use ggml_kernels::cuda::products::{
    DownExperts, GateUp, GateUpExperts, MOST_TASKS, down, gate_up, h_len,
};
use ggml_kernels::cuda::weights::{Activations, Acts, Stack, WeightType};
use ggml_kernels::quant::TensorType;

use super::{CLOSE, Input, TYPES, Weights, bits, noise, off, rows_of};
use crate::device;

const EXPERTS: usize = 5;
/// Of the greatest value of `h`, which limits make small beside the sums that it comes from.
const H_CLOSE: f64 = 2e-5;

type Type = (WeightType, TensorType);

/// Gate, up and down.
struct Three {
    gate: Weights,
    up: Weights,
    down: Weights,
    limit: f32,
}

impl Three {
    fn new(
        stream: &Stream,
        types: [Type; 3],
        [count, hidden, ff]: [usize; 3],
        limit: f32,
    ) -> Three {
        let [gate, up, down] = types;
        Three {
            gate: Weights::new(stream, gate, [count, ff, hidden], 11),
            up: Weights::new(stream, up, [count, ff, hidden], 12),
            down: Weights::new(stream, down, [count, hidden, ff], 13),
            limit,
        }
    }

    fn gate_up(&self) -> GateUp<'_> {
        GateUp {
            gate: &self.gate.stack,
            up: &self.up.stack,
            limit: self.limit,
        }
    }

    fn h(&self, expert: usize, row: &super::Row) -> Vec<f64> {
        let limit = f64::from(self.limit);
        let gate = self.gate.times(expert, row);
        let one = |(g, u): (f64, f64)| (g / (1.0 + (-g).exp())).min(limit) * u.clamp(-limit, limit);
        gate.into_iter()
            .zip(self.up.times(expert, row))
            .map(one)
            .collect()
    }
}

/// Routed experts with `used` to a row, and a shared one.
struct Layer {
    routed: Option<(Three, usize)>,
    shared: Option<Three>,
    hidden: usize,
}

/// What a pass left: `h`, and x.
struct Passed {
    room: Activations,
    acts: Acts,
    x: Vec<f32>,
}

impl Layer {
    fn used(&self) -> usize {
        self.routed.as_ref().map_or(0, |routed| routed.1)
    }

    /// One pass of all rows of `input`; `x` is there before.
    fn pass(&self, stream: &Stream, input: &Input, choice: &Choice, x: &[f32]) -> Passed {
        let device = stream.device();
        let rows = input.rows.len();
        let ff = |three: &Three| three.gate.stack.rows();
        let ffs = (
            self.routed.as_ref().map_or(0, |routed| ff(&routed.0)),
            self.shared.as_ref().map_or(0, ff),
        );
        let room = Activations::room(device, h_len(rows, self.used(), ffs.0, ffs.1)).unwrap();
        let (ids, weights) = (
            device.upload(&choice.ids).unwrap(),
            device.upload(&choice.weights).unwrap(),
        );
        let experts = self.routed.as_ref().map(|(three, used)| GateUpExperts {
            stacks: three.gate_up(),
            ids: ids.all(),
            used: *used,
        });
        let shared = self.shared.as_ref().map(Three::gate_up);
        let acts = gate_up(stream, &input.acts, experts, shared, &room).unwrap();
        let x = device.upload(x).unwrap();
        let experts = self.routed.as_ref().map(|(three, used)| DownExperts {
            stack: &three.down.stack,
            ids: ids.all(),
            weights: weights.all(),
            used: *used,
        });
        let shared = self.shared.as_ref().map(|three| &three.down.stack);
        down(stream, &acts, experts, shared, x.all()).unwrap();
        stream.synchronize().unwrap();
        let x = x.read().unwrap();
        Passed { room, acts, x }
    }

    /// That a pass is right.
    fn check(&self, stream: &Stream, input: &Input, seed: usize, what: &str) {
        let (rows, used) = (input.rows.len(), self.used());
        let choice = Choice::new(rows, used, seed);
        let before = noise(rows * self.hidden, seed + 1);
        let passed = self.pass(stream, input, &choice, &before);
        let h = rows_of(&passed.room, &passed.acts);
        eight_bits(&passed.room, &passed.acts);
        let slots = used + usize::from(self.shared.is_some());
        assert_eq!(h.len(), rows * slots, "{what}");
        let mut want: Vec<f64> = before.iter().map(|&x| f64::from(x)).collect();
        for (b, row) in input.rows.iter().enumerate() {
            for slot in 0..slots {
                let (three, expert, weight) = match &self.routed {
                    Some((three, _)) if slot < used => {
                        let at = b * used + slot;
                        let weight = f64::from(choice.weights[at]);
                        (three, choice.ids[at] as usize, weight)
                    }
                    _ => (self.shared.as_ref().unwrap(), 0, 1.0),
                };
                let made = &h[b * slots + slot];
                let h = three.h(expert, row);
                let got: Vec<f32> = made.whole[..h.len()].iter().map(|&h| h as f32).collect();
                let error = off(&got, &h);
                assert!(error < H_CLOSE, "{what}: h off by {error}");
                let x = want[b * self.hidden..][..self.hidden].iter_mut();
                let mut made = made.clone();
                made.whole.truncate(h.len());
                made.eight.truncate(h.len());
                let products = three.down.times(expert, &made);
                x.zip(products).for_each(|(x, v)| *x += weight * v);
            }
        }
        let error = off(&passed.x, &want);
        assert!(error < CLOSE, "{what}: x off by {error}");
    }
}

/// That q, d and s are x rounded, in every row and slot that was written.
fn eight_bits(room: &Activations, acts: &Acts) {
    let n = acts.rows as usize * acts.cols as usize;
    let (x, q) = (room.x.read().unwrap(), room.q.read().unwrap());
    let (d, s) = (room.d.read().unwrap(), room.s.read().unwrap());
    for i in 0..n {
        let (d, back) = (d[i / 32], d[i / 32] * f32::from(q[i]));
        assert!(
            (x[i] - back).abs() <= d * 0.5001,
            "{}: {} of {d}",
            x[i],
            q[i]
        );
    }
    for i in 0..n / 16 {
        let sum = q[i * 16..][..16].iter().map(|&q| i16::from(q)).sum::<i16>();
        assert_eq!(s[i], sum);
    }
}

struct Choice {
    ids: Vec<u32>,
    weights: Vec<f32>,
}

impl Choice {
    fn new(rows: usize, used: usize, seed: usize) -> Choice {
        let id = |i: usize| ((i * 3 + i / used.max(1) + seed) % EXPERTS) as u32;
        Choice {
            ids: (0..rows * used).map(id).collect(),
            weights: (0..rows * used)
                .map(|i| 0.2 + 0.1 * (i % 3) as f32)
                .collect(),
        }
    }
}

#[test]
fn experts_of_every_type_with_a_shared_one_of_another_size() {
    let Some(device) = device() else { return };
    let stream = device.stream().unwrap();
    let (hidden, ff) = (512, 256);
    for (i, ty) in TYPES.into_iter().enumerate() {
        let other = TYPES[(i + 3) % 8];
        let shared_ff = if i % 2 == 0 { 768 } else { 256 };
        let layer = Layer {
            routed: Some((
                Three::new(&stream, [ty; 3], [EXPERTS, hidden, ff], f32::INFINITY),
                3,
            )),
            shared: Some(Three::new(&stream, [other; 3], [1, hidden, shared_ff], 0.7)),
            hidden,
        };
        for rows in [1, 3] {
            let input = Input::new(&stream, &noise(rows * hidden, i), hidden);
            layer.check(&stream, &input, i, &format!("{:?}, {rows} rows", ty.0));
        }
    }
}

#[test]
fn gates_and_ups_of_different_types_and_odd_sizes_and_limits() {
    let Some(device) = device() else { return };
    let stream = device.stream().unwrap();
    let [f16, q4_0, q8_0, q4, q6] = [1, 3, 4, 5, 7].map(|i| TYPES[i]);
    let (hidden, ff) = (96, 32);
    for types in [[q4_0, q8_0, q4_0], [q8_0, f16, q8_0], [f16, q4_0, q8_0]] {
        let layer = Layer {
            routed: Some((Three::new(&stream, types, [EXPERTS, hidden, ff], 0.3), 2)),
            shared: None,
            hidden,
        };
        let input = Input::new(&stream, &noise(2 * hidden, 4), hidden);
        layer.check(&stream, &input, 1, &format!("{types:?}"));
    }
    let layer = Layer {
        routed: Some((
            Three::new(&stream, [q4, q6, q8_0], [EXPERTS, 256, 288], 0.5),
            4,
        )),
        shared: None,
        hidden: 256,
    };
    let input = Input::new(&stream, &noise(256, 4), 256);
    layer.check(&stream, &input, 1, "q4_k and q6_k");
}

#[test]
fn a_dense_layer_is_a_shared_expert_alone() {
    let Some(device) = device() else { return };
    let stream = device.stream().unwrap();
    for ff in [32, 9216, 18_432] {
        let layer = Layer {
            routed: None,
            shared: Some(Three::new(
                &stream,
                [TYPES[4]; 3],
                [1, 64, ff],
                f32::INFINITY,
            )),
            hidden: 64,
        };
        let input = Input::new(&stream, &noise(2 * 64, 4), 64);
        layer.check(&stream, &input, 0, &format!("ff {ff}"));
    }
}

#[test]
fn a_row_s_experts_have_the_same_bits_in_any_company() {
    let Some(device) = device() else { return };
    let stream = device.stream().unwrap();
    let (hidden, ff) = (256, 1280);
    let layer = Layer {
        routed: Some((
            Three::new(&stream, [TYPES[5]; 3], [EXPERTS, hidden, ff], 9.0),
            2,
        )),
        shared: Some(Three::new(&stream, [TYPES[7]; 3], [1, hidden, 512], 9.0)),
        hidden,
    };
    let values = noise(16 * hidden, 4);
    let before = noise(16 * hidden, 5);
    let choice = Choice::new(16, 2, 0);
    let all = layer.pass(
        &stream,
        &Input::new(&stream, &values, hidden),
        &choice,
        &before,
    );
    for row in [0, 7, 15] {
        let here = row * hidden..(row + 1) * hidden;
        let alone = Input::new(&stream, &values[here.clone()], hidden);
        let choice = Choice {
            ids: choice.ids[row * 2..][..2].to_vec(),
            weights: choice.weights[row * 2..][..2].to_vec(),
        };
        let got = layer.pass(&stream, &alone, &choice, &before[here.clone()]);
        assert_eq!(bits(&got.x), bits(&all.x[here]));
    }
}

#[test]
fn experts_that_do_not_fit_are_refused_by_name() {
    let Some(device) = device() else { return };
    let stream = device.stream().unwrap();
    let stack =
        |count, rows, cols| Stack::zeroed(&device, WeightType::Q8_0, [count, rows, cols]).unwrap();
    let (gate, up, short) = (stack(2, 64, 32), stack(2, 64, 32), stack(2, 32, 32));
    let room = Activations::room(&device, 4096).unwrap();
    let input = room.acts(2, 32).unwrap();
    let ids: Buffer<u32> = device.zeroed(4).unwrap();
    let pair = |up| GateUp {
        gate: &gate,
        up,
        limit: 1.0,
    };
    let made = |up, used, shared| {
        let experts = GateUpExperts {
            stacks: pair(up),
            ids: ids.all(),
            used,
        };
        let made = gate_up(&stream, &input, Some(experts), shared, &room);
        made.map(|h| (h.rows, h.cols))
            .map_err(|why| why.to_string())
    };
    let told = |text: &str| Err(text.to_string());
    assert_eq!(made(&up, 2, None), Ok((4, 64)));
    assert_eq!(made(&up, 1, None), told("gate_up: ids is 4, wanted 2"));
    assert_eq!(
        made(&short, 2, None),
        told("gate_up: rows of up is 32, wanted 64")
    );
    let got = made(&up, 2, Some(pair(&up)));
    assert_eq!(got, told("gate_up: shared experts is 2, wanted 1"));

    let wide = stack(1, 32, 1024 * (MOST_TASKS + 1));
    let room = Activations::room(&device, wide.cols()).unwrap();
    let h = room.acts(1, wide.cols()).unwrap();
    let x: Buffer<f32> = device.zeroed(32).unwrap();
    let why = down(&stream, &h, None, Some(&wide), x.all()).unwrap_err();
    let told = "down: pieces of 1024 values of a row's h is 65, wanted at most 64";
    assert_eq!(why.to_string(), told);
    let h = room.acts(2, 1024).unwrap();
    let why = down(&stream, &h, None, Some(&wide), x.all()).unwrap_err();
    assert_eq!(why.to_string(), "down: rows of h is 2, wanted 1");
    assert!(down(&stream, &h, None, None, x.all()).is_err());
    stream.synchronize().unwrap();
}
