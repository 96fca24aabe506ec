//! The law without instructions by name: the slow twin.

use super::unpack::{self, Block32, Block256};
use crate::cpu::products::task::Task;
use crate::quant::TensorType;

/// Weights in blocks of 256.
pub(crate) fn by_256(task: &Task<'_>) {
    let unpack = unpack::by_256(task.matrix.ty()).expect("a type with a form of ours");
    let activations = task.activations.by_256();
    for row in task.rows.clone() {
        let blocks = task.matrix.row(row);
        let blocks = blocks.chunks_exact(task.matrix.ty().type_size());
        let blocks: Vec<Block256> = blocks.map(unpack).collect();
        for (&input, &output) in task.input.iter().zip(task.output) {
            let x = activations.row(input as usize);
            let (mut a, mut b) = (0f32, 0f32);
            for (at, block) in blocks.iter().enumerate() {
                let (mut whole, mut least) = (0i32, 0i32);
                for (group, q) in block.q.as_chunks::<16>().0.iter().enumerate() {
                    let values = &x.values[at * 256 + group * 16..][..16];
                    let pairs = q.iter().zip(values);
                    let dot: i32 = pairs.map(|(&q, &x)| i32::from(q) * i32::from(x)).sum();
                    whole += i32::from(block.scales[group]) * dot;
                    let sum = i32::from(x.sums_16[at * 16 + group]);
                    least += i32::from(block.mins[group]) * sum;
                }
                let scale = x.scales[at];
                a = (block.d * scale).mul_add(whole as f32, a);
                b = (block.dmin * scale).mul_add(least as f32, b);
            }
            task.target.at(output, row..row + 1)[0] = a - b;
        }
    }
}

/// Weights in blocks of 32.
pub(crate) fn by_32(task: &Task<'_>) {
    let unpack = match task.matrix.ty() {
        TensorType::Q8_0 => unpack::q8_0,
        _ => unpack::q4_0,
    };
    let activations = task.activations.by_32();
    for row in task.rows.clone() {
        let blocks = task.matrix.row(row);
        let blocks = blocks.chunks_exact(task.matrix.ty().type_size());
        let blocks: Vec<Block32> = blocks.map(unpack).collect();
        for (&input, &output) in task.input.iter().zip(task.output) {
            let x = activations.row(input as usize);
            let mut a = 0f32;
            for (at, block) in blocks.iter().enumerate() {
                let pairs = block.q.iter().zip(&x.values[at * 32..]);
                let dot: i32 = pairs.map(|(&q, &x)| i32::from(q) * i32::from(x)).sum();
                a = (block.d * x.scales[at]).mul_add(dot as f32, a);
            }
            task.target.at(output, row..row + 1)[0] = a;
        }
    }
}
