//! The points among which the grid types (`iq2_*`, `iq3_*`) choose for each eight (four) values, and
//! the bytes of signs that seven bits stand for. The points are read once from what ggml makes of
//! blocks that name each in turn; here they lie in the two forms that kernels look them up in.

use std::sync::OnceLock;

use crate::quant::{TensorType, dequantize};

/// One type's points.
#[derive(Debug)]
pub(crate) struct Grid {
    /// A byte for each magnitude of a point, eight or four.
    pub points: Vec<u64>,
    /// The same as numbers of magnitudes, two bits (three) each.
    #[cfg_attr(not(target_arch = "x86_64"), allow(dead_code, reason = "for AVX-512"))]
    pub codes: Vec<u16>,
}

/// `ty`'s, one of the grid types.
pub(crate) fn grid(ty: TensorType) -> &'static Grid {
    static GRIDS: [OnceLock<Grid>; 5] = [const { OnceLock::new() }; 5];
    let (at, points, naming): (_, _, Naming) = match ty {
        TensorType::Iq2Xxs => (0, 256, iq2_xxs),
        TensorType::Iq2Xs => (1, 512, iq2_xs),
        TensorType::Iq2S => (2, 1024, iq2_s),
        TensorType::Iq3Xxs => (3, 256, iq3_xxs),
        TensorType::Iq3S => (4, 512, iq3_s),
        other => unreachable!("{other} has no grid"),
    };
    GRIDS[at].get_or_init(|| Grid::read(ty, points, naming))
}

/// Writes a block whose values are all positive and `at`, `at + 1`, ... in turn.
type Naming = fn(block: &mut [u8], at: usize);

/// The scale of a block at which values are the points' own, as 16 bits of a float.
const ONE: u16 = 0x3c00;
const FOUR: u16 = 0x4400;
const EIGHT: u16 = 0x4800;

fn set(block: &mut [u8], at: usize, word: u16) {
    block[at..at + 2].copy_from_slice(&word.to_le_bytes());
}

fn iq2_xxs(block: &mut [u8], at: usize) {
    set(block, 0, EIGHT);
    for i in 0..32 {
        block[2 + i / 4 * 8 + i % 4] = (at + i) as u8;
    }
}

fn iq2_xs(block: &mut [u8], at: usize) {
    set(block, 0, EIGHT);
    for i in 0..32 {
        set(block, 2 + 2 * i, (at + i) as u16);
    }
}

fn iq2_s(block: &mut [u8], at: usize) {
    set(block, 0, EIGHT);
    for i in 0..32 {
        block[2 + i] = (at + i) as u8;
        block[66 + i / 4] |= ((at + i) >> 8 << (i % 4 * 2)) as u8;
    }
}

fn iq3_xxs(block: &mut [u8], at: usize) {
    set(block, 0, FOUR);
    for i in 0..64 {
        block[2 + i] = (at + i) as u8;
    }
}

fn iq3_s(block: &mut [u8], at: usize) {
    set(block, 0, ONE);
    for i in 0..64 {
        block[2 + i] = (at + i) as u8;
        block[66 + i / 8] |= ((at + i) >> 8 << (i % 8)) as u8;
    }
}

impl Grid {
    fn read(ty: TensorType, count: usize, naming: Naming) -> Grid {
        let size = if count_of_values(ty) == 8 { 32 } else { 64 };
        let mut grid = Grid {
            points: Vec::with_capacity(count),
            codes: Vec::with_capacity(count),
        };
        for at in (0..count).step_by(size) {
            // Words, as the block's scale is one.
            let mut words = [0u16; 64];
            // SAFETY: words are bytes.
            let block = unsafe { &mut words.align_to_mut::<u8>().1[..ty.type_size()] };
            naming(block, at);
            let mut values = [0f32; 256];
            dequantize(ty, block, &mut values).expect("a block of 256 values");
            for point in values.chunks_exact(count_of_values(ty)) {
                let bytes = point.iter().rev();
                let joined = bytes.fold(0u64, |all, &x| all << 8 | x as u64);
                grid.points.push(joined);
                let codes = point.iter().rev().map(|&x| code(ty, x as u8));
                let bits = if size == 32 { 2 } else { 3 };
                grid.codes.push(codes.fold(0, |all, x| all << bits | x));
            }
        }
        grid
    }
}

/// Of a point.
fn count_of_values(ty: TensorType) -> usize {
    match ty {
        TensorType::Iq3Xxs | TensorType::Iq3S => 4,
        _ => 8,
    }
}

/// What `iq2_*` and `iq3_xxs` call a magnitude, and `iq3_s`.
pub(crate) const MAGNITUDES_2: [u8; 4] = [8, 25, 43, 0];
pub(crate) const MAGNITUDES_3: [u8; 8] = [4, 12, 20, 28, 36, 44, 52, 62];
pub(crate) const MAGNITUDES_3_ODD: [u8; 8] = [1, 3, 5, 7, 9, 11, 13, 15];

fn code(ty: TensorType, magnitude: u8) -> u16 {
    let all: &[u8] = match ty {
        TensorType::Iq3Xxs => &MAGNITUDES_3,
        TensorType::Iq3S => &MAGNITUDES_3_ODD,
        _ => &MAGNITUDES_2,
    };
    let at = all.iter().position(|&m| m == magnitude);
    at.expect("one of the type's magnitudes") as u16
}

/// Eight signs of which seven are written: their number is even.
pub(crate) const SIGNS: [u8; 128] = {
    let mut all = [0; 128];
    let mut at = 0u8;
    while at < 128 {
        all[at as usize] = at | ((at.count_ones() % 2) as u8) << 7;
        at += 1;
    }
    all
};

/// For eight signs eight bytes, 1 or -1.
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
pub(crate) const FLIPS: [u64; 256] = {
    let mut all = [0; 256];
    let mut signs = 0;
    while signs < 256 {
        let mut at = 0;
        while at < 8 {
            let byte: u64 = if signs >> at & 1 == 1 { 0xff } else { 1 };
            all[signs] |= byte << (8 * at);
            at += 1;
        }
        signs += 1;
    }
    all
};
