//! Random blocks. Bits are uniform; the scales are set so that the values spread as wanted.

use ggml_kernels::quant::TensorType;
use half::{bf16, f16};

/// What the values should look like.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Fill {
    /// Standard deviation about 0 (to about 20%, which is all a speed run needs).
    Spread(f32),
    /// Evenly between two numbers; for f32 only, other types take the spread.
    Uniform { low: f32, high: f32 },
}

/// splitmix64: every seed begins a stream of its own, at a few cycles per 8 bytes.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// In [0, 1).
    fn unit(&mut self) -> f32 {
        (self.next() >> 40) as f32 / (1u64 << 24) as f32
    }

    fn bytes(&mut self, out: &mut [u8]) {
        let (words, rest) = out.as_chunks_mut::<8>();
        for word in words {
            *word = self.next().to_le_bytes();
        }
        let last = self.next().to_le_bytes();
        rest.copy_from_slice(&last[..rest.len()]);
    }
}

/// Fills `out`, whole blocks of `ty`.
pub fn fill(ty: TensorType, fill: Fill, seed: u64, out: &mut [u8]) {
    let mut random = Random(seed.wrapping_mul(0x2545_f491_4f6c_dd1d));
    let (low, high) = match fill {
        Fill::Uniform { low, high } => (low, high),
        // A uniform number of this half-width has the wanted standard deviation.
        Fill::Spread(s) => (-s * 3f32.sqrt(), s * 3f32.sqrt()),
    };
    let spread = (high - low) / 12f32.sqrt();
    let mut number = || low + (high - low) * random.unit();
    match ty {
        TensorType::F32 => {
            for x in out.as_chunks_mut::<4>().0 {
                *x = number().to_le_bytes();
            }
        }
        TensorType::F16 => {
            for x in out.as_chunks_mut::<2>().0 {
                *x = f16::from_f32(number()).to_le_bytes();
            }
        }
        TensorType::Bf16 => {
            for x in out.as_chunks_mut::<2>().0 {
                *x = bf16::from_f32(number()).to_le_bytes();
            }
        }
        _ => {
            random.bytes(out);
            for block in out.chunks_exact_mut(ty.type_size()) {
                set_scales(ty, spread, block);
            }
        }
    }
}

/// Overwrites a random block's scales. The divisors are the standard deviation of the type's
/// values at scale 1 with uniform bits.
fn set_scales(ty: TensorType, spread: f32, block: &mut [u8]) {
    let mut scale = |at: usize, value: f32| {
        block[at..at + 2].copy_from_slice(&f16::from_f32(value).to_le_bytes());
    };
    match ty {
        TensorType::Q4_0 => scale(0, spread / 4.6),
        TensorType::Q4_1 => {
            scale(0, spread / 4.6);
            scale(2, -7.5 * spread / 4.6);
        }
        TensorType::Q5_0 => scale(0, spread / 9.2),
        TensorType::Q5_1 => {
            scale(0, spread / 9.2);
            scale(2, -15.5 * spread / 9.2);
        }
        TensorType::Q8_0 => scale(0, spread / 74.0),
        TensorType::Iq4Nl => scale(0, spread / 68.0),
        // Six-bit scales about 32 wide, and a minimum that centres the values on average.
        TensorType::Q4K => {
            let d = spread / (32.0 * 4.6 * 1.2);
            scale(0, d);
            scale(2, d * 7.5);
        }
        TensorType::Q5K => {
            let d = spread / (32.0 * 9.2 * 1.2);
            scale(0, d);
            scale(2, d * 15.5);
        }
        TensorType::Q2K => {
            let d = spread / (8.0 * 1.1 * 1.2);
            scale(80, d);
            scale(82, d * 1.5);
        }
        TensorType::Q3K => scale(108, spread / (18.0 * 2.3)),
        TensorType::Iq4Xs => scale(0, spread / (18.0 * 68.0)),
        TensorType::Q6K => {
            scale(208, spread / (74.0 * 18.5));
        }
        // Four-bit scales about 9 wide; the grids' points 22, 28 and 7.
        TensorType::Iq2Xxs | TensorType::Iq2Xs | TensorType::Iq2S => scale(0, spread / 50.0),
        TensorType::Iq3Xxs => scale(0, spread / 129.0),
        TensorType::Iq3S => scale(0, spread / 130.0),
        // The highest nibbles of the last four words, the lowest first.
        TensorType::Iq1M => {
            let d = f16::from_f32(spread / 7.5).to_bits();
            for (at, word) in block[48..].as_chunks_mut::<2>().0.iter_mut().enumerate() {
                word[1] = word[1] & 15 | ((d >> (4 * at)) as u8 & 15) << 4;
            }
        }
        // One exponent per block: the power of two next to the wanted scale.
        TensorType::Mxfp4 => {
            let exponent = (spread / 2.9).log2().round() + 127.0;
            block[0] = exponent.clamp(1.0, 254.0) as u8;
        }
        TensorType::F32 | TensorType::F16 | TensorType::Bf16 | TensorType::I32 => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ggml_kernels::quant::{dequantize, first_broken_block};

    #[test]
    fn random_blocks_are_finite_and_spread_as_wanted() {
        let n = 1 << 16;
        for ty in TensorType::ALL
            .into_iter()
            .filter(|ty| *ty != TensorType::I32)
        {
            for spread in [0.02, 1.0] {
                let mut blocks = vec![0; ty.row_bytes(n).unwrap()];
                fill(ty, Fill::Spread(spread), 7, &mut blocks);
                assert_eq!(first_broken_block(ty, &blocks), None, "{ty}");
                let mut values = vec![0.0; n];
                dequantize(ty, &blocks, &mut values).unwrap();
                let square = values.iter().map(|x| x * x).sum::<f32>() / n as f32;
                let ratio = square.sqrt() / spread;
                assert!(
                    (0.6..1.6).contains(&ratio),
                    "{ty}: {ratio} times the spread"
                );
            }
        }
    }

    #[test]
    fn a_seed_gives_the_same_blocks_again_and_another_seed_others() {
        let make = |seed| {
            let mut out = vec![0; 144 * 4];
            fill(TensorType::Q4K, Fill::Spread(1.0), seed, &mut out);
            out
        };
        assert_eq!(make(3), make(3));
        assert_ne!(make(3), make(4));
    }
}
