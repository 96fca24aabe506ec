//! Rows by expert, and what comes back of them.

use half::f16;

use ggml_kernels::cuda::driver::Device;
use ggml_kernels::cuda::weights::WeightType;
use ggml_kernels::cuda::wide::{
    Combined, ExpertDown, ExpertGateUp, Groups, WideRows, combine, expert_down, expert_gate_up,
    group_rows,
};

use super::{Far, Input, Noise, Weights, dot, gated};
use crate::device;

struct Case {
    tokens: usize,
    used: usize,
    experts: usize,
    /// Of gate, up and down.
    types: [WeightType; 3],
    hidden: usize,
    ff: usize,
    limit: f32,
}

impl Case {
    /// One expert that everybody uses, one that nobody does, the others as it comes.
    fn ids(&self, noise: &mut Noise) -> Vec<u32> {
        let mut ids = Vec::new();
        for _ in 0..self.tokens {
            let mut those = vec![1];
            while those.len() < self.used {
                let id = noise.next() % self.experts as u32;
                if id != 2 && !those.contains(&id) {
                    those.push(id);
                }
            }
            those.rotate_left(self.tokens % self.used);
            ids.extend(those);
        }
        ids
    }
}

#[test]
fn experts_are_what_their_values_say_whoever_is_overfull_or_empty() {
    let Some(device) = device() else { return };
    use WeightType::*;
    let case = |tokens, used, experts, types, limit| Case {
        tokens,
        used,
        experts,
        types,
        hidden: 256,
        ff: 256,
        limit,
    };
    for case in [
        case(150, 3, 8, [Q4K, Q4K, Q6K], f32::INFINITY),
        case(33, 2, 5, [Q8_0, Q8_0, Q5K], 0.7),
        case(1, 1, 4, [Q4_0, Q4_0, Q4_0], f32::INFINITY),
        case(20, 4, 70, [F16, F16, Bf16], f32::INFINITY),
        case(20, 2, 6, [Q4K, Q5K, Q8_0], 0.7),
        case(150, 2, 6, [F32, F32, F32], 0.7),
    ] {
        check(&device, &case);
    }
}

fn check(device: &Device, case: &Case) {
    let stream = device.stream().unwrap();
    let &Case {
        tokens,
        used,
        experts,
        hidden,
        ff,
        limit,
        ..
    } = case;
    let what = format!("{tokens} tokens, {:?}", case.types);
    let mut noise = Noise(tokens as u64);
    let [gate, up] =
        [0, 1].map(|i| Weights::new(device, case.types[i], [experts, ff, hidden], &mut noise));
    let down = Weights::new(device, case.types[2], [experts, hidden, ff], &mut noise);
    let groups = Groups::new(device, 2 * tokens * used, experts).unwrap();
    // Twice: groups are left so that they can be used again.
    for _ in 0..2 {
        let input = Input::new(device, [tokens, hidden, hidden + 32], &mut noise);
        let host = case.ids(&mut noise);
        let ids = device.upload(&host).unwrap();
        let pairs = host.len();
        let h = device.upload(&vec![f16::NAN; pairs * ff]).unwrap();
        let plain_h = device.upload(&vec![f32::NAN; pairs * ff]).unwrap();
        let out = device.upload(&vec![f32::NAN; pairs * hidden]).unwrap();
        let grouped = group_rows(&stream, ids.all(), used, &groups).unwrap();
        let to = ExpertGateUp {
            gate: &gate.stack,
            up: &up.stack,
            limit,
            f16: Some(h.all()),
            f32: Some(plain_h.all()),
        };
        expert_gate_up(&stream, &grouped, &input.all(), &to).unwrap();
        let between = WideRows {
            f16: Some(h.all()),
            f32: Some(plain_h.all()),
            rows: pairs,
            cols: ff,
            stride: ff,
        };
        let to = ExpertDown {
            down: &down.stack,
            to: out.all(),
        };
        expert_down(&stream, &grouped, &between, &to).unwrap();
        stream.synchronize().unwrap();

        // By position: experts one after another, each with its pairs in their order.
        let mut order: Vec<usize> = (0..pairs).collect();
        order.sort_by_key(|&pair| host[pair]);
        let middle = order.iter().flat_map(|&pair| {
            let (x, expert) = (input.row(pair / used), host[pair] as usize);
            let row = move |w: &Weights, n| dot(x, w.row(expert * ff + n));
            (0..ff).map(move |n| [n, expert * ff + n]).map({
                let (gate, up) = (&gate, &up);
                move |[n, _]| gated(row(gate, n), row(up, n), limit)
            })
        });
        let middle: Vec<f64> = middle.collect();
        let got = plain_h.read().unwrap();
        let far = if case.types[0] == WeightType::F32 {
            1e-5
        } else {
            6e-3
        };
        Far(far).check(&got, &middle, ff, &what);
        let rounded: Vec<f16> = got.iter().map(|&v| f16::from_f32(v)).collect();
        assert_eq!(h.read().unwrap(), rounded, "{what}");

        // Down from what is on the card, so that errors do not add up.
        let is_plain = case.types[2] == WeightType::F32;
        let halves: Vec<f32> = rounded.iter().map(|h| h.to_f32()).collect();
        let from = if is_plain { &got } else { &halves };
        let mut want = vec![0.0; pairs * hidden];
        for (row, &pair) in from.chunks_exact(ff).zip(&order) {
            for n in 0..hidden {
                want[pair * hidden + n] = dot(row, down.row(host[pair] as usize * hidden + n));
            }
        }
        let sums = out.read().unwrap();
        Far::of(case.types[2]).check(&sums, &want, hidden, &what);
        check_alone(device, case, (&gate, &up), (&input, &host), &got, &order);
    }
}

/// That a token's rows have the same bits when it is the only one.
fn check_alone(
    device: &Device,
    case: &Case,
    (gate, up): (&Weights, &Weights),
    (input, ids): (&Input, &[u32]),
    middle: &[f32],
    order: &[usize],
) {
    let stream = device.stream().unwrap();
    let token = case.tokens / 2;
    let ids = &ids[token * case.used..][..case.used];
    let on_card = device.upload(ids).unwrap();
    let groups = Groups::new(device, case.used, case.experts).unwrap();
    let grouped = group_rows(&stream, on_card.all(), case.used, &groups).unwrap();
    let out = device.zeroed::<f32>(case.used * case.ff).unwrap();
    let to = ExpertGateUp {
        gate: &gate.stack,
        up: &up.stack,
        limit: case.limit,
        f16: None,
        f32: Some(out.all()),
    };
    expert_gate_up(&stream, &grouped, &input.part(token, 1), &to).unwrap();
    stream.synchronize().unwrap();
    let mut mine: Vec<usize> = (0..case.used).collect();
    mine.sort_by_key(|&rank| ids[rank]);
    for (row, rank) in out.read().unwrap().chunks_exact(case.ff).zip(mine) {
        let pair = token * case.used + rank;
        let at = order.iter().position(|&p| p == pair).unwrap();
        let same = row.iter().zip(&middle[at * case.ff..]);
        assert!(same.into_iter().all(|(a, b)| a.to_bits() == b.to_bits()));
    }
}

#[test]
fn ranks_are_summed_in_their_order_and_the_shared_row_last() {
    let Some(device) = device() else { return };
    let stream = device.stream().unwrap();
    for (tokens, used, hidden, with_shared) in
        [(3, 8, 2304, true), (1, 1, 32, false), (70, 16, 800, true)]
    {
        let mut noise = Noise(hidden as u64);
        let mut some = |n: usize| -> Vec<f32> { (0..n).map(|_| noise.value()).collect() };
        let (x, rows) = (some(tokens * hidden), some(tokens * used * hidden));
        let (weights, shared) = (some(tokens * used), some(tokens * hidden));
        let on_card = [&x, &rows, &weights, &shared].map(|v| device.upload(v).unwrap());
        let to = Combined {
            x: on_card[0].all(),
            rows: on_card[1].all(),
            weights: on_card[2].all(),
            shared: with_shared.then(|| on_card[3].all()),
            used,
            hidden,
        };
        combine(&stream, &to).unwrap();
        stream.synchronize().unwrap();
        let want = (0..tokens * hidden).map(|i| {
            let (token, n) = (i / hidden, i % hidden);
            let ranks = (0..used).map(|rank| {
                let pair = token * used + rank;
                f64::from(weights[pair]) * f64::from(rows[pair * hidden + n])
            });
            let shared = if with_shared { shared[i].into() } else { 0.0 };
            ranks.sum::<f64>() + shared + f64::from(x[i])
        });
        let want: Vec<f64> = want.collect();
        Far(2e-6).check(&on_card[0].read().unwrap(), &want, hidden, "combined");
    }
}

#[test]
fn choices_that_have_no_room_and_stacks_of_others_are_refused() {
    let Some(device) = device() else { return };
    let stream = device.stream().unwrap();
    let groups = Groups::new(&device, 8, 4).unwrap();
    let ids = device.zeroed::<u32>(10).unwrap();
    let why = group_rows(&stream, ids.all(), 2, &groups).unwrap_err();
    assert_eq!(why.to_string(), "group_rows: ids is 10, wanted at most 8");
    let some = ids.part(0..6).unwrap();
    assert!(group_rows(&stream, some, 4, &groups).is_err());
    let grouped = group_rows(&stream, some, 2, &groups).unwrap();
    let mut noise = Noise(3);
    let input = Input::new(&device, [6, 32, 32], &mut noise);
    let w = Weights::new(&device, WeightType::F16, [3, 8, 32], &mut noise);
    let out = device.zeroed::<f32>(48).unwrap();
    let to = ExpertDown {
        down: &w.stack,
        to: out.all(),
    };
    let why = expert_down(&stream, &grouped, &input.all(), &to).unwrap_err();
    assert_eq!(why.to_string(), "expert_down: experts is 3, wanted 4");
}
