//! What this machine could do at most, with the threads and the instructions that kernels use: bytes
//! read from memory a second, and products of registers a second. Kernels are held against these
//! figures; nothing is computed with them.

use std::hint::black_box;
use std::mem::MaybeUninit;
use std::time::{Duration, Instant};

use super::Crew;
#[cfg(target_arch = "x86_64")]
use super::Kind;
use super::simd::{Body, LANES, Simd, dispatch};

/// Bytes that a thread sums before it takes the next piece.
const PIECE: usize = 1 << 20;
/// Parts of a piece that are read side by side, and how many bytes ahead each is asked for (0: left
/// to the processor). One pattern is the best here, another there: the ceiling is the best of all.
const PATTERNS: [(usize, usize); 6] = [(1, 0), (1, 1024), (1, 4096), (4, 0), (4, 512), (4, 2048)];
const ROUNDS: usize = 4;
const LINE: usize = 64;
/// Of one measurement of products.
const SPAN: Duration = Duration::from_millis(50);
const TURNS: usize = 1 << 14;

/// Bytes a second that all threads together read of `bytes` of memory, which should be several
/// times what the caches hold.
pub fn read_rate(crew: Crew<'_>, bytes: usize) -> f64 {
    let pieces = bytes.div_ceil(PIECE).max(1);
    let mut memory = Vec::with_capacity(pieces * PIECE);
    in_large_pages(memory.spare_capacity_mut());
    // Written, because pages that never were are all one page of zeros.
    memory.resize(pieces * PIECE, 1u8);
    let round = |(streams, ahead)| {
        let start = Instant::now();
        crew.pool.run(pieces, &|at, _| {
            let bytes = &memory[at * PIECE..(at + 1) * PIECE];
            let sum = Sum {
                bytes,
                streams,
                ahead,
            };
            black_box(dispatch(crew.tier, sum));
        });
        memory.len() as f64 / start.elapsed().as_secs_f64()
    };
    let all = PATTERNS.iter().flat_map(|p| [p; ROUNDS]);
    all.map(|&pattern| round(pattern)).fold(0.0, f64::max)
}

/// Wants large pages for what is not in memory yet: fewer steps lead to an address.
fn in_large_pages(room: &mut [MaybeUninit<u8>]) {
    #[cfg(target_os = "linux")]
    {
        let skew = room.as_ptr().align_offset(4096).min(room.len());
        let room = &mut room[skew..];
        // SAFETY: the advice changes nothing that memory holds, and these bytes are ours.
        unsafe { libc::madvise(room.as_mut_ptr().cast(), room.len(), libc::MADV_HUGEPAGE) };
    }
    #[cfg(not(target_os = "linux"))]
    let _ = room;
}

/// Adds up a piece.
struct Sum<'m> {
    bytes: &'m [u8],
    streams: usize,
    ahead: usize,
}

impl Body for Sum<'_> {
    type Out = f32;
    #[inline(always)]
    fn run<S: Simd>(self, s: S) -> f32 {
        let mut sums = [s.splat(0.0); 8];
        let part = self.bytes.len() / self.streams;
        for from in (0..part).step_by(4 * LINE) {
            for stream in 0..self.streams {
                let at = stream * part + from;
                let lines = &self.bytes[at..at + 4 * LINE];
                if self.ahead > 0 {
                    let ahead = self.bytes.get(at + self.ahead..).unwrap_or_default();
                    ahead.chunks(LINE).take(4).for_each(|line| s.prefetch(line));
                }
                let halves = lines.as_chunks::<{ 2 * LANES }>().0;
                for (sum, x) in sums.iter_mut().zip(halves) {
                    *sum = s.add(*sum, s.bhalves(x));
                }
            }
        }
        sums.into_iter().map(|sum| s.sum(sum)).sum()
    }
}

/// Multiplications and additions a second, two to a product, of all threads together: in `f32`, and
/// of 8-bit integers as the tier's kernels take them.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ProductRates {
    pub floats: f64,
    /// `None`: the tier has no instruction for them, or it was not written out here.
    pub bytes: Option<f64>,
}

pub fn product_rates(crew: Crew<'_>) -> ProductRates {
    let floats = rate(crew, Fma::OPERATIONS, &|| {
        black_box(dispatch(crew.tier, Fma));
    });
    let bytes = match crew.tier.kind() {
        #[cfg(target_arch = "x86_64")]
        Kind::Avx2 => Some(rate(crew, x86::AVX2_OPERATIONS, &|| {
            // SAFETY: a tier of this kind exists only where the processor has its instructions.
            black_box(unsafe { x86::avx2() });
        })),
        #[cfg(target_arch = "x86_64")]
        Kind::Avx512 => Some(rate(crew, x86::VNNI_OPERATIONS, &|| {
            // SAFETY: as above.
            black_box(unsafe { x86::vnni() });
        })),
        _ => None,
    };
    ProductRates { floats, bytes }
}

/// `run` does so many operations; all threads call it again and again.
fn rate(crew: Crew<'_>, operations: usize, run: &(dyn Fn() + Sync)) -> f64 {
    let threads = crew.pool.threads();
    let (begun, mut best) = (Instant::now(), 0f64);
    while begun.elapsed() < SPAN {
        let start = Instant::now();
        // Several pieces to a thread, so that one held up holds back a part.
        let pieces = 8 * threads;
        crew.pool.run(pieces, &|_, _| run());
        best = best.max((pieces * operations) as f64 / start.elapsed().as_secs_f64());
    }
    best
}

/// Chains of fused multiply-adds that do not wait for each other.
struct Fma;

impl Fma {
    const CHAINS: usize = 12;
    const OPERATIONS: usize = 2 * LANES * Self::CHAINS * TURNS;
}

impl Body for Fma {
    type Out = f32;
    #[inline(always)]
    fn run<S: Simd>(self, s: S) -> f32 {
        let (a, b) = (s.splat(black_box(0.5)), s.splat(black_box(0.25)));
        let mut sums = [s.splat(0.0); Self::CHAINS];
        for _ in 0..TURNS {
            for sum in &mut sums {
                *sum = s.fma(*sum, a, b);
            }
        }
        sums.into_iter().map(|sum| s.sum(sum)).sum()
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;
    use std::hint::black_box;

    use super::TURNS;

    const VNNI_CHAINS: usize = 12;
    pub const VNNI_OPERATIONS: usize = 2 * 64 * VNNI_CHAINS * TURNS;
    const AVX2_CHAINS: usize = 6;
    pub const AVX2_OPERATIONS: usize = 2 * 32 * AVX2_CHAINS * TURNS;

    #[target_feature(enable = "avx512f,avx512vnni")]
    pub fn vnni() -> i32 {
        let (a, b) = (
            _mm512_set1_epi8(black_box(3)),
            _mm512_set1_epi8(black_box(2)),
        );
        let mut sums = [_mm512_setzero_si512(); VNNI_CHAINS];
        for _ in 0..TURNS {
            for sum in &mut sums {
                *sum = _mm512_dpbusd_epi32(*sum, a, b);
            }
        }
        let sums = sums.into_iter().map(|sum| _mm512_reduce_add_epi32(sum));
        sums.fold(0, i32::wrapping_add)
    }

    /// Pairs of 8-bit products, pairs of those, and their sum. `a` changes, or the compiler would
    /// multiply but once.
    #[target_feature(enable = "avx2")]
    pub fn avx2() -> i32 {
        let (mut a, one) = (_mm256_set1_epi8(black_box(3)), _mm256_set1_epi16(1));
        let b: [__m256i; AVX2_CHAINS] =
            std::array::from_fn(|i| _mm256_set1_epi8(black_box(i as i8 + 1)));
        let mut sums = [_mm256_setzero_si256(); AVX2_CHAINS];
        for _ in 0..TURNS {
            a = _mm256_add_epi8(a, one);
            for (sum, b) in sums.iter_mut().zip(b) {
                let pairs = _mm256_maddubs_epi16(a, b);
                *sum = _mm256_add_epi32(*sum, _mm256_madd_epi16(pairs, one));
            }
        }
        let sum = sums.into_iter().reduce(|a, b| _mm256_add_epi32(a, b));
        _mm256_extract_epi32::<0>(sum.unwrap_or(one))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::{Kind, Pool, Tier};

    #[test]
    fn every_tier_reads_memory_and_multiplies_at_some_rate() {
        let pool = Pool::new(2);
        for tier in Tier::available() {
            let crew = Crew { pool: &pool, tier };
            let read = read_rate(crew, 3 << 20);
            let products = product_rates(crew);
            println!("{tier}: {:.1} GB/s, {products:?}", read / 1e9);
            assert!(
                read > 1e8 && products.floats > 1e8,
                "{tier}: {read}, {products:?}"
            );
            let has_bytes = matches!(tier.kind(), Kind::Avx2 | Kind::Avx512);
            assert_eq!(products.bytes.is_some(), has_bytes, "{tier}");
        }
    }
}
