//! The law with AVX-512 and VNNI for a few rows of activations: four rows of weights at a time, read
//! once and in the order of memory, every vector of integers summed across.

use std::arch::x86_64::*;
use std::cell::RefCell;
use std::sync::OnceLock;

use super::avx2;
use super::low512::{Iq2S, Iq2Xs, Iq2Xxs, Iq3S, Iq3Xxs, Q2K, Q3K};
use super::unpack::scales_and_mins;
use crate::cpu::activations::{Form, QuantizedRow};
use crate::cpu::aligned::Floats;
use crate::cpu::products::task::Task;
use crate::quant::TensorType;

/// Rows of weights at a time.
const ROWS: usize = 4;
/// Rows of activations at a time.
const MOST: usize = 8;

/// Up to how many rows of activations [`few`] is faster than unpacking panels of weights. Sums across
/// cost shuffles, panels memory and more of them: which is dearer is the processor's, and measured on
/// both kinds. The bits are the same.
pub(crate) fn pays_for(form: Form) -> usize {
    match (form == Form::By256, is_zen_5()) {
        (true, true) => 8,
        (true, false) => 2,
        (false, true) => 2,
        (false, false) => 4,
    }
}

/// AMD's family 1Ah and later: shuffles of whole vectors, two in a cycle.
fn is_zen_5() -> bool {
    static IS: OnceLock<bool> = OnceLock::new();
    *IS.get_or_init(|| {
        let maker = __cpuid(0);
        let family = __cpuid(1).eax >> 8;
        let family = (family & 0xf) + (family >> 12 & 0xff);
        let name = [maker.ebx, maker.edx, maker.ecx].map(u32::to_le_bytes);
        name.as_flattened() == b"AuthenticAMD" && family >= 0x1a
    })
}

/// Runs the task. Every row of weights is read once for each [`MOST`] rows of activations.
///
/// # Safety
/// The processor has the instructions of the tier `avx512`.
pub(crate) unsafe fn few(task: &Task<'_>) {
    // SAFETY: the caller's promise, here and below.
    unsafe {
        match task.matrix.ty() {
            TensorType::Q4K => each_few::<Q4K>(task),
            TensorType::Q5K => each_few::<Q5K>(task),
            TensorType::Q6K => each_few::<Q6K>(task),
            TensorType::Q2K => each_few::<Q2K>(task),
            TensorType::Q3K => each_few::<Q3K>(task),
            TensorType::Iq2Xxs => each_few::<Iq2Xxs>(task),
            TensorType::Iq2Xs => each_few::<Iq2Xs>(task),
            TensorType::Iq2S => each_few::<Iq2S>(task),
            TensorType::Iq3Xxs => each_few::<Iq3Xxs>(task),
            TensorType::Iq3S => each_few::<Iq3S>(task),
            TensorType::Q8_0 => each_few::<Q8_0>(task),
            _ => each_few::<Q4_0>(task),
        }
    }
}

/// A format, or rather how four of its rows meet `C` rows of activations.
trait Few {
    /// # Safety
    /// The processor has the instructions of the tier, and the rows of both sides have the same
    /// number of whole blocks; [`ROOM`] bytes from `room` on are the kernel's, aligned for vectors.
    /// Must be inlined into a function with the instructions.
    unsafe fn dots<const C: usize>(
        rows: [&[u8]; ROWS],
        x: [QuantizedRow<'_>; C],
        room: *mut f32,
    ) -> [__m128; C];

    /// Row `at` of the activations in this format's form.
    fn row<'x>(task: &'x Task<'_>, at: usize) -> QuantizedRow<'x>;
}

thread_local! {
    /// A worker's [`Partial`]s, which lie apart from its stack: there are many of them.
    static PARTS: RefCell<Floats> = RefCell::new(Floats::zeroed(ROOM / size_of::<f32>()));
}

unsafe fn each_few<F: Few>(task: &Task<'_>) {
    // As many rows at a time as make equal groups.
    let turns = task.input.len().div_ceil(MOST).max(1);
    let size = task.input.len().div_ceil(turns).max(1);
    let pairs = task.input.chunks(size).zip(task.output.chunks(size));
    PARTS.with_borrow_mut(|room| {
        let room = room.as_mut_ptr();
        for (input, output) in pairs {
            // SAFETY: the caller's promise.
            unsafe {
                match input.len() {
                    1 => groups::<F, 1>(task, input, output, room),
                    2 => groups::<F, 2>(task, input, output, room),
                    3 => groups::<F, 3>(task, input, output, room),
                    4 => groups::<F, 4>(task, input, output, room),
                    5 => groups::<F, 5>(task, input, output, room),
                    6 => groups::<F, 6>(task, input, output, room),
                    7 => groups::<F, 7>(task, input, output, room),
                    _ => groups::<F, 8>(task, input, output, room),
                }
            }
        }
    });
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx512vbmi,avx2,fma,f16c")]
unsafe fn groups<F: Few, const C: usize>(
    task: &Task<'_>,
    input: &[u32],
    output: &[u32],
    room: *mut f32,
) {
    let x: [_; C] = std::array::from_fn(|c| F::row(task, input[c] as usize));
    let mut first = task.rows.start;
    while first < task.rows.end {
        let count = ROWS.min(task.rows.end - first);
        let rows = task.matrix.rows_from::<ROWS>(first, task.rows.end);
        // SAFETY: the caller's promise; a matrix's rows and the activations' have `cols` values.
        let dots = unsafe { F::dots::<C>(rows, x, room) };
        for (c, dots) in dots.iter().enumerate() {
            let out = task.target.at(output[c], first..first + count);
            let mut values = [0f32; ROWS];
            // SAFETY: four floats.
            unsafe { _mm_storeu_ps(values.as_mut_ptr(), *dots) };
            out.copy_from_slice(&values[..count]);
        }
        first += count;
    }
}

/// How far ahead a row is asked for, in bytes: past the end of a page, where the processor itself
/// does not look, and as far as memory's latency is long (1 KiB costs 15 % of the speed on Zen 5,
/// 16 KiB gains nothing more).
const AHEAD: isize = 4096;
/// Bytes of what waits to be summed across, of four rows or of a run of their blocks: most of the
/// nearest cache, so that eight rows of activations meet whole rows of a model's width.
const ROOM: usize = 36 << 10;

/// Asks for the line at `at + ahead`. It need not exist.
#[inline(always)]
fn ask(at: *const u8, ahead: isize) {
    // SAFETY: asking for a line reads nothing and never faults.
    unsafe { _mm_prefetch::<_MM_HINT_T0>(at.wrapping_offset(ahead).cast()) };
}

/// Across: the sum of the lanes of each.
#[inline(always)]
unsafe fn sums(v: [__m512i; 4]) -> __m128i {
    // SAFETY: inlined where the processor has the instructions.
    unsafe {
        let t = quarters(v);
        let t = _mm256_add_epi32(_mm512_castsi512_si256(t), _mm512_extracti64x4_epi64::<1>(t));
        _mm_add_epi32(_mm256_castsi256_si128(t), _mm256_extracti128_si256::<1>(t))
    }
}

/// In each quarter of the result, the sums of that quarter of each.
#[inline(always)]
unsafe fn quarters(v: [__m512i; 4]) -> __m512i {
    // SAFETY: inlined where the processor has the instructions.
    unsafe {
        let pair =
            |a, b| _mm512_add_epi32(_mm512_unpacklo_epi32(a, b), _mm512_unpackhi_epi32(a, b));
        let (a, b) = (pair(v[0], v[1]), pair(v[2], v[3]));
        _mm512_add_epi32(_mm512_unpacklo_epi64(a, b), _mm512_unpackhi_epi64(a, b))
    }
}

#[inline(always)]
unsafe fn sums_128(v: [__m128i; 4]) -> __m128i {
    // SAFETY: inlined where the processor has the instructions.
    unsafe {
        let pair = |a, b| _mm_add_epi32(_mm_unpacklo_epi32(a, b), _mm_unpackhi_epi32(a, b));
        let (a, b) = (pair(v[0], v[1]), pair(v[2], v[3]));
        _mm_add_epi32(_mm_unpacklo_epi64(a, b), _mm_unpackhi_epi64(a, b))
    }
}

/// Four pairs of halves, one to a row: the first of each, the second of each.
#[inline(always)]
unsafe fn scale_pairs(pairs: [u32; 4]) -> (__m128, __m128) {
    // SAFETY: inlined where the processor has the instructions.
    unsafe {
        let [a, b, c, d] = pairs.map(|p| p as i32);
        let v = _mm256_cvtph_ps(_mm_setr_epi32(a, b, c, d));
        let (low, high) = (_mm256_castps256_ps128(v), _mm256_extractf128_ps::<1>(v));
        (
            _mm_shuffle_ps::<0x88>(low, high),
            _mm_shuffle_ps::<0xdd>(low, high),
        )
    }
}

/// A block of 256 in registers.
pub(super) struct Block {
    /// Unsigned values in their order.
    pub q: [__m512i; 4],
    /// Which of them are negative; only where the format is signed.
    pub signs: [u64; 4],
    /// The scale of each four values, 16 bits in a lane of 32.
    pub scales: [__m512i; 4],
    /// Minima (8 or 16 of 16 bits) or, where values are too high by something, scales (16 of 16
    /// bits).
    pub sides: __m256i,
    /// `d` and `dmin`.
    pub pair: u32,
}

/// A block's scales and minima, a byte each.
#[derive(Clone, Copy)]
pub(super) struct Bytes {
    pub scales: [u64; 2],
    pub mins: [u64; 2],
}

pub(super) trait Format: Copy {
    const BYTES: usize;
    /// Values that share a scale: 16 or 32.
    const GROUP: usize;
    /// Values that share a minimum: 16 or 32, 0 where there are none.
    const MINS: usize;
    /// What values are too high by: a power of two, or 0.
    const ZERO: i32 = 0;
    /// Whether signs lie beside the values.
    const SIGNED: bool = false;
    /// What `d` is multiplied by to be the scale of whole numbers.
    const FACTOR: f32 = 1.0;

    fn new() -> Self;

    /// # Safety
    /// As of [`Few::dots`], and `BYTES` can be read at `at`.
    unsafe fn load(self, at: *const u8) -> Block;

    /// # Safety
    /// As of `load`.
    unsafe fn bytes(self, at: *const u8) -> Bytes;
}

#[derive(Clone, Copy)]
pub(super) struct Q4K;
#[derive(Clone, Copy)]
pub(super) struct Q5K;
#[derive(Clone, Copy)]
pub(super) struct Q6K;

/// Scales (bytes) to lanes: vector `g` holds groups `2 g` and `2 g + 1` of 32 values.
#[inline(always)]
pub(super) unsafe fn spread_8(scales: u64) -> [__m512i; 4] {
    // SAFETY: inlined where the processor has the instructions.
    unsafe {
        let v = _mm512_castsi128_si512(_mm_cvtsi64_si128(scales as i64));
        let lanes = _mm512_inserti64x4::<1>(_mm512_setzero_si512(), _mm256_set1_epi32(1));
        let spread = |g: i32| {
            let index = _mm512_add_epi32(lanes, _mm512_set1_epi32(2 * g));
            _mm512_maskz_permutexvar_epi8(0x1111_1111_1111_1111, index, v)
        };
        [spread(0), spread(1), spread(2), spread(3)]
    }
}

/// Sixteen scales to lanes: vector `g` holds groups `4 g` to `4 g + 3` of 16 values.
#[inline(always)]
pub(super) unsafe fn spread_16(scales: __m256i) -> [__m512i; 4] {
    // SAFETY: inlined where the processor has the instructions.
    unsafe {
        let v = _mm512_castsi256_si512(scales);
        let lanes = _mm512_setr_epi32(0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3);
        let spread = |g: i32| {
            let index = _mm512_add_epi32(lanes, _mm512_set1_epi32(4 * g));
            _mm512_maskz_permutexvar_epi16(0x5555_5555, index, v)
        };
        [spread(0), spread(1), spread(2), spread(3)]
    }
}

/// Low nibbles of 32 bytes, then their high nibbles.
#[inline(always)]
unsafe fn nibbles_64(at: *const u8) -> __m512i {
    // SAFETY: the caller's promise of 32 bytes; inlined where the processor has the instructions.
    unsafe {
        let v = _mm512_broadcast_i64x4(_mm256_loadu_si256(at.cast()));
        let v = _mm512_srlv_epi64(v, _mm512_setr_epi64(0, 0, 0, 0, 4, 4, 4, 4));
        _mm512_and_si512(v, _mm512_set1_epi8(15))
    }
}

/// Of a block that begins like `q4_k`: in each quarter the eight scales, then the eight minima, a
/// byte each.
#[inline(always)]
unsafe fn k_sides(at: *const u8) -> __m512i {
    // SAFETY: the caller's promise of 16 bytes; inlined where the processor has the instructions.
    unsafe {
        // `d` and `dmin`, then three words of four bytes: six bits of scales 0 to 3 and of minima 0
        // to 3, and four of both of the others, whose last two are the first words' high ones.
        let all = _mm512_broadcast_i32x4(_mm_loadu_si128(at.cast()));
        let words =
            |a: i32, b: i32, c: i32, d: i32| _mm512_broadcast_i32x4(_mm_setr_epi32(a, b, c, d));
        const A: i32 = 0x0706_0504;
        const B: i32 = 0x0b0a_0908;
        const C: i32 = 0x0f0e_0d0c;
        const NONE: i32 = 0x8080_8080_u32 as i32;
        let low = _mm512_shuffle_epi8(all, words(A, C, B, C));
        let low = _mm512_srlv_epi32(low, words(0, 0, 0, 4));
        let masks = words(0x3f3f_3f3f, 0x0f0f_0f0f, 0x3f3f_3f3f, 0x0f0f_0f0f);
        let low = _mm512_and_si512(low, masks);
        let high = _mm512_srli_epi32::<2>(_mm512_shuffle_epi8(all, words(NONE, A, NONE, B)));
        // low | (high & 0x30)
        _mm512_ternarylogic_epi64::<0xf8>(low, high, _mm512_set1_epi8(0x30))
    }
}

/// Scale `2 G` in the lanes of the lower half, the next in those of the upper, 16 bits of 32.
#[inline(always)]
unsafe fn spread<const G: i32>(sides: __m512i) -> __m512i {
    // SAFETY: inlined where the processor has the instructions.
    unsafe {
        let lane = |scale: i32| _mm256_set1_epi32(0x8080_8000_u32 as i32 | scale);
        let index = _mm512_inserti64x4::<1>(_mm512_castsi256_si512(lane(2 * G)), lane(2 * G + 1));
        _mm512_shuffle_epi8(sides, index)
    }
}

/// Scales, minima, `d` and `dmin` of a block that begins like `q4_k`.
#[inline(always)]
unsafe fn k_head(at: *const u8) -> ([__m512i; 4], __m256i, u32) {
    // SAFETY: the caller's promise of at least 16 bytes; inlined where the processor has the
    // instructions.
    unsafe {
        let sides = k_sides(at);
        let scales = [
            spread::<0>(sides),
            spread::<1>(sides),
            spread::<2>(sides),
            spread::<3>(sides),
        ];
        let mins = _mm_unpackhi_epi8(_mm512_castsi512_si128(sides), _mm_setzero_si128());
        let pair = at.cast::<u32>().read_unaligned();
        (scales, _mm256_zextsi128_si256(mins), pair)
    }
}

impl Format for Q4K {
    const BYTES: usize = 144;
    const GROUP: usize = 32;
    const MINS: usize = 32;
    fn new() -> Self {
        Q4K
    }
    #[inline(always)]
    unsafe fn bytes(self, at: *const u8) -> Bytes {
        // SAFETY: 16 bytes and more, as promised.
        let (scales, mins) = unsafe { scales_and_mins(&*at.add(4).cast::<[u8; 12]>()) };
        Bytes {
            scales: [scales, 0],
            mins: [mins, 0],
        }
    }
    #[inline(always)]
    unsafe fn load(self, at: *const u8) -> Block {
        // SAFETY: 144 bytes, as promised.
        unsafe {
            let (scales, sides, pair) = k_head(at);
            // Not by a closure: see `mod.rs`.
            let q = [
                nibbles_64(at.add(16)),
                nibbles_64(at.add(48)),
                nibbles_64(at.add(80)),
                nibbles_64(at.add(112)),
            ];
            Block {
                q,
                signs: [0; 4],
                scales,
                sides,
                pair,
            }
        }
    }
}

impl Format for Q5K {
    const BYTES: usize = 176;
    const GROUP: usize = 32;
    const MINS: usize = 32;
    fn new() -> Self {
        Q5K
    }
    #[inline(always)]
    unsafe fn bytes(self, at: *const u8) -> Bytes {
        // SAFETY: 16 bytes and more, as promised.
        let (scales, mins) = unsafe { scales_and_mins(&*at.add(4).cast::<[u8; 12]>()) };
        Bytes {
            scales: [scales, 0],
            mins: [mins, 0],
        }
    }
    #[inline(always)]
    unsafe fn load(self, at: *const u8) -> Block {
        // SAFETY: 176 bytes, as promised.
        unsafe {
            let (scales, sides, pair) = k_head(at);
            let high = _mm512_broadcast_i64x4(_mm256_loadu_si256(at.add(16).cast()));
            let ones = _mm512_inserti64x4::<1>(_mm512_set1_epi8(1), _mm256_set1_epi8(2));
            let sixteen = _mm512_set1_epi8(16);
            let bits = [
                ones,
                _mm512_slli_epi16::<2>(ones),
                _mm512_slli_epi16::<4>(ones),
                _mm512_slli_epi16::<6>(ones),
            ];
            let mut q = [_mm512_setzero_si512(); 4];
            for g in 0..4 {
                let low = nibbles_64(at.add(48 + 32 * g));
                let set = _mm512_test_epi8_mask(high, bits[g]);
                q[g] = _mm512_mask_add_epi8(low, set, low, sixteen);
            }
            Block {
                q,
                signs: [0; 4],
                scales,
                sides,
                pair,
            }
        }
    }
}

impl Format for Q6K {
    const BYTES: usize = 210;
    const GROUP: usize = 16;
    const MINS: usize = 0;
    const ZERO: i32 = 32;
    fn new() -> Self {
        Q6K
    }
    #[inline(always)]
    unsafe fn bytes(self, at: *const u8) -> Bytes {
        // SAFETY: 210 bytes, as promised.
        unsafe {
            let at = at.add(192).cast::<u64>();
            Bytes {
                scales: [at.read_unaligned(), at.add(1).read_unaligned()],
                mins: [0; 2],
            }
        }
    }
    #[inline(always)]
    unsafe fn load(self, at: *const u8) -> Block {
        // SAFETY: 210 bytes, as promised; inlined where the processor has the instructions.
        unsafe {
            let low = _mm512_set1_epi8(15);
            let high = _mm512_set1_epi8(0x30);
            let up = _mm512_setr_epi64(4, 4, 4, 4, 2, 2, 2, 2);
            let down = _mm512_setr_epi64(0, 0, 0, 0, 2, 2, 2, 2);
            let half = |n: usize| {
                let a = _mm512_loadu_si512(at.add(64 * n).cast());
                let b = _mm256_loadu_si256(at.add(128 + 32 * n).cast());
                let b = _mm512_broadcast_i64x4(b);
                let first = _mm512_and_si512(a, low);
                let second = _mm512_and_si512(_mm512_srli_epi16::<4>(a), low);
                // (b & high) | first
                (
                    _mm512_ternarylogic_epi64::<0xf8>(first, _mm512_sllv_epi64(b, up), high),
                    _mm512_ternarylogic_epi64::<0xf8>(second, _mm512_srlv_epi64(b, down), high),
                )
            };
            let (a, b) = (half(0), half(1));
            let sides = _mm256_cvtepi8_epi16(_mm_loadu_si128(at.add(192).cast()));
            Block {
                q: [a.0, a.1, b.0, b.1],
                signs: [0; 4],
                scales: spread_16(sides),
                sides,
                pair: at.add(208).cast::<u16>().read_unaligned().into(),
            }
        }
    }
}

/// How far from run `start..start + count` of row `r` of four what is read next is. Whole rows lie as
/// they are read; of rows in several runs, all four have their turn before the next run.
#[inline(always)]
fn ahead<F: Format>(row: usize, start: usize, count: usize, r: usize) -> isize {
    let (row, run) = (row as isize, (count * F::BYTES) as isize);
    let is_last = (start + count) * F::BYTES == row as usize;
    match r {
        _ if run == row => AHEAD,
        0..3 => row,
        _ if is_last => run,
        _ => run - 3 * row,
    }
}

/// What one block of a row gives with each row of activations: integers to be summed across.
struct Partial<const C: usize> {
    whole: [__m512i; C],
    least: [__m128i; C],
    pair: u32,
}

/// Block `at` of the row that starts at `row`; the memory `ahead` of it is asked for.
#[inline(always)]
unsafe fn partial<F: Format, const C: usize>(
    format: F,
    row: &[u8],
    at: usize,
    ahead: isize,
    x: &[QuantizedRow<'_>; C],
) -> Partial<C> {
    // SAFETY: the block lies inside its row, as the caller promises, and so do the activation's
    // values and sums of that block. Inlined where the processor has the instructions.
    unsafe {
        let start = row.as_ptr().add(at * F::BYTES);
        for line in 0..F::BYTES.div_ceil(64) {
            ask(start, ahead + line as isize * 64);
        }
        let block = format.load(start);
        let mut whole = [_mm512_setzero_si512(); C];
        let mut least = [_mm_setzero_si128(); C];
        for c in 0..C {
            let values = x[c].values.as_ptr().add(at * 256);
            let sums_16 = || _mm256_loadu_si256(x[c].sums_16.as_ptr().add(at * 16).cast());
            let mut sum = _mm512_setzero_si512();
            if F::MINS == 32 {
                let sums = _mm_loadu_si128(x[c].sums_32.as_ptr().add(at * 8).cast());
                least[c] = _mm_madd_epi16(_mm256_castsi256_si128(block.sides), sums);
            } else if F::MINS == 16 {
                let pairs = _mm256_madd_epi16(block.sides, sums_16());
                let high = _mm256_extracti128_si256::<1>(pairs);
                least[c] = _mm_add_epi32(_mm256_castsi256_si128(pairs), high);
            } else if F::ZERO > 0 {
                let zeros = _mm256_madd_epi16(block.sides, sums_16());
                let bits = _mm_cvtsi64_si128(F::ZERO.trailing_zeros().into());
                let zeros = _mm256_sll_epi32(zeros, bits);
                let none = _mm256_setzero_si256();
                sum = _mm512_zextsi256_si512(_mm256_sub_epi32(none, zeros));
            }
            for g in 0..4 {
                let mut values = _mm512_loadu_si512(values.add(g * 64).cast());
                if F::SIGNED {
                    let none = _mm512_setzero_si512();
                    values = _mm512_mask_sub_epi8(values, block.signs[g], none, values);
                }
                // Four products of at most 63 * 127 fit 16 bits: the low half of the lane is the
                // sum, and the scale's lane has a zero for the other.
                let dots = _mm512_dpbusd_epi32(_mm512_setzero_si512(), block.q[g], values);
                sum = _mm512_dpwssd_epi32(sum, dots, block.scales[g]);
            }
            whole[c] = sum;
        }
        Partial {
            whole,
            least,
            pair: block.pair,
        }
    }
}

impl<F: Format> Few for F {
    fn row<'x>(task: &'x Task<'_>, at: usize) -> QuantizedRow<'x> {
        task.activations.by_256().row(at)
    }

    #[inline(always)]
    unsafe fn dots<const C: usize>(
        rows: [&[u8]; ROWS],
        x: [QuantizedRow<'_>; C],
        room: *mut f32,
    ) -> [__m128; C] {
        // SAFETY: block `at` of every row lies inside it, as promised, and so do the activation's
        // values, scale and sums of that block. Four runs of parts fit `room`, and one is read after
        // it was written. Inlined where the processor has the instructions.
        unsafe {
            let zero = _mm_setzero_ps();
            let (mut a, mut b) = ([zero; C], [zero; C]);
            let format = F::new();
            let blocks = rows[0].len() / F::BYTES;
            // Row by row, as they lie in memory; what is to be summed across waits in the nearest
            // cache.
            let run = ROOM / (ROWS * size_of::<Partial<C>>());
            let parts = room.cast::<Partial<C>>();
            for start in (0..blocks).step_by(run) {
                let count = run.min(blocks - start);
                for (r, row) in rows.iter().enumerate() {
                    let ahead = ahead::<F>(row.len(), start, count, r);
                    let parts = parts.add(r * run);
                    for at in 0..count {
                        parts
                            .add(at)
                            .write(partial::<F, C>(format, row, start + at, ahead, &x));
                    }
                }
                for at in start..start + count {
                    let part = parts.add(at - start);
                    let (r0, r1) = (&*part, &*part.add(run));
                    let (r2, r3) = (&*part.add(2 * run), &*part.add(3 * run));
                    let (d, dmin) = scale_pairs([r0.pair, r1.pair, r2.pair, r3.pair]);
                    let d = _mm_mul_ps(d, _mm_set1_ps(F::FACTOR));
                    for c in 0..C {
                        let scale = _mm_set1_ps(*x[c].scales.as_ptr().add(at));
                        let sum = sums([r0.whole[c], r1.whole[c], r2.whole[c], r3.whole[c]]);
                        let sum = _mm_cvtepi32_ps(sum);
                        a[c] = _mm_fmadd_ps(_mm_mul_ps(d, scale), sum, a[c]);
                        if F::MINS > 0 {
                            let sum =
                                sums_128([r0.least[c], r1.least[c], r2.least[c], r3.least[c]]);
                            let sum = _mm_cvtepi32_ps(sum);
                            b[c] = _mm_fmadd_ps(_mm_mul_ps(dmin, scale), sum, b[c]);
                        }
                    }
                }
            }
            if F::MINS > 0 {
                std::array::from_fn(|c| _mm_sub_ps(a[c], b[c]))
            } else {
                a
            }
        }
    }
}

/// A format in blocks of 32.
pub(super) trait Format32 {
    const BYTES: usize;
    /// What the unsigned values are too high by.
    const ZERO: i32;
    /// The values of one block.
    ///
    /// # Safety
    /// As of [`Few::dots`], and `BYTES` can be read at `at`.
    unsafe fn load(at: *const u8) -> __m256i;
}

pub(super) struct Q8_0;
pub(super) struct Q4_0;

impl Format32 for Q8_0 {
    const BYTES: usize = 34;
    const ZERO: i32 = 128;
    #[inline(always)]
    unsafe fn load(at: *const u8) -> __m256i {
        // SAFETY: 34 bytes, as promised.
        unsafe {
            let v = _mm256_loadu_si256(at.add(2).cast());
            _mm256_xor_si256(v, _mm256_set1_epi8(-128))
        }
    }
}

impl Format32 for Q4_0 {
    const BYTES: usize = 18;
    const ZERO: i32 = 8;
    #[inline(always)]
    unsafe fn load(at: *const u8) -> __m256i {
        // SAFETY: 18 bytes, as promised.
        unsafe {
            let v = _mm_loadu_si128(at.add(2).cast());
            let v = _mm256_set_m128i(_mm_srli_epi16::<4>(v), v);
            _mm256_and_si256(v, _mm256_set1_epi8(15))
        }
    }
}

/// Two blocks of 32 at once, the first in the low half.
#[inline(always)]
unsafe fn dots_32<F: Format32, const C: usize>(
    rows: [&[u8]; ROWS],
    x: [QuantizedRow<'_>; C],
) -> [__m128; C] {
    let blocks = rows[0].len() / F::BYTES;
    let ahead = avx2::ahead(rows[0].len()).cast_signed();
    // SAFETY: the blocks `at` and, where there are two, `at + 1` of every row lie inside it, as
    // promised by the caller, and so do the activation's values, scales and sums. Inlined where the
    // processor has the instructions.
    unsafe {
        let mut a = [_mm_setzero_ps(); C];
        let mut at = 0;
        while at < blocks {
            let is_pair = at + 1 < blocks;
            // The block's values and scale of a row, and the next block's.
            let load = |row: &[u8]| {
                let start = row.as_ptr().add(at * F::BYTES);
                ask(start, ahead);
                let low = _mm512_zextsi256_si512(F::load(start));
                let d = i32::from(start.cast::<u16>().read_unaligned());
                if is_pair {
                    let start = start.add(F::BYTES);
                    let next = i32::from(start.cast::<u16>().read_unaligned());
                    (_mm512_inserti64x4::<1>(low, F::load(start)), d | next << 16)
                } else {
                    (low, d)
                }
            };
            let (r0, r1, r2, r3) = (load(rows[0]), load(rows[1]), load(rows[2]), load(rows[3]));
            let q = [r0.0, r1.0, r2.0, r3.0];
            let pairs = [r0.1, r1.1, r2.1, r3.1].map(i32::cast_unsigned);
            let (d, d_next) = scale_pairs(pairs);
            for c in 0..C {
                let values = x[c].values.as_ptr().add(at * 32);
                let values = if is_pair {
                    _mm512_loadu_si512(values.cast())
                } else {
                    _mm512_zextsi256_si512(_mm256_loadu_si256(values.cast()))
                };
                let none = _mm512_setzero_si512();
                let mut dots = [none; ROWS];
                for r in 0..ROWS {
                    dots[r] = _mm512_dpbusd_epi32(none, q[r], values);
                }
                let t = quarters(dots);
                let (low, high) = (_mm512_castsi512_si256(t), _mm512_extracti64x4_epi64::<1>(t));
                let mut fold = |at: usize, t: __m256i, d: __m128| {
                    let zeros = F::ZERO * i32::from(*x[c].sums_32.as_ptr().add(at));
                    let t =
                        _mm_add_epi32(_mm256_castsi256_si128(t), _mm256_extracti128_si256::<1>(t));
                    let t = _mm_cvtepi32_ps(_mm_sub_epi32(t, _mm_set1_epi32(zeros)));
                    let scale = _mm_set1_ps(*x[c].scales.as_ptr().add(at));
                    a[c] = _mm_fmadd_ps(_mm_mul_ps(d, scale), t, a[c]);
                };
                fold(at, low, d);
                if is_pair {
                    fold(at + 1, high, d_next);
                }
            }
            at += 2;
        }
        a
    }
}

macro_rules! few_32 {
    ($($name:ident)+) => {$(
        impl Few for $name {
            fn row<'x>(task: &'x Task<'_>, at: usize) -> QuantizedRow<'x> {
                task.activations.by_32().row(at)
            }
            #[inline(always)]
            unsafe fn dots<const C: usize>(
                rows: [&[u8]; ROWS],
                x: [QuantizedRow<'_>; C],
                _: *mut f32,
            ) -> [__m128; C] {
                // SAFETY: the caller's promise.
                unsafe { dots_32::<$name, C>(rows, x) }
            }
        }
    )+};
}
few_32!(Q8_0 Q4_0);
