//! Weights become tiles: scaled to 16 bits, parted into bytes, turned so that a word's row is its
//! place in the weights' rows.

use std::arch::x86_64::*;

use super::super::avx512::Format;
use super::{ROWS, Tile, Weights};

/// Block `at` of sixteen rows.
///
/// # Safety
/// The processor has the instructions of the tier `avx512`, and every row has that block.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx512vbmi,avx2,fma,f16c")]
pub(super) unsafe fn unpack<F: Format>(
    rows: [&[u8]; ROWS],
    at: usize,
    to: &mut Weights,
    group: usize,
) {
    let none = _mm512_setzero_si512();
    let mut low = [[none; ROWS]; 4];
    let mut high = [[none; ROWS]; 4];
    let zero = _mm512_set1_epi16(F::ZERO as i16);
    let byte = _mm512_set1_epi16(0xff);
    for (r, row) in rows.iter().enumerate() {
        let block = &row[at * F::BYTES..(at + 1) * F::BYTES];
        // SAFETY: a whole block; inlined here, where the instructions are.
        let block = unsafe { F::new().load(block.as_ptr()) };
        let scales = _mm512_castsi256_si512(block.scales);
        for g in 0..4 {
            // The scale of each pair of values.
            let scale = _mm512_permutexvar_epi16(places::<F>(g), scales);
            let times = |q| _mm512_mullo_epi16(_mm512_sub_epi16(q, zero), scale);
            let even = times(_mm512_and_si512(block.q[g], byte));
            let odd = times(_mm512_srli_epi16::<8>(block.q[g]));
            low[g][r] = _mm512_or_si512(_mm512_and_si512(even, byte), _mm512_slli_epi16::<8>(odd));
            let odd = _mm512_andnot_si512(byte, odd);
            high[g][r] = _mm512_or_si512(_mm512_srli_epi16::<8>(even), odd);
        }
        let half = |bits: u32| half::f16::from_bits(bits as u16).to_f32();
        to.d[group][r] = half(block.pair);
        if F::MINS > 0 {
            to.dmin[group][r] = half(block.pair >> 16);
            let mut mins = [0i16; 16];
            // SAFETY: sixteen values of 16 bits are one vector.
            unsafe { _mm256_storeu_si256(mins.as_mut_ptr().cast(), block.mins) };
            for (to, pair) in to.mins[group].iter_mut().zip(mins.as_chunks::<2>().0) {
                to[r] = *pair;
            }
        }
    }
    for g in 0..4 {
        transpose(&low[g], &mut to.low[group][g]);
        transpose(&high[g], &mut to.high[group][g]);
    }
}

/// For each pair of the values of vector `g` the number of its scale.
#[target_feature(enable = "avx512f,avx512bw")]
fn places<F: Format>(g: usize) -> __m512i {
    let mut places = [0u16; 32];
    for (pair, place) in places.iter_mut().enumerate() {
        *place = ((64 * g + 2 * pair) / F::GROUP) as u16;
    }
    // SAFETY: 32 words of 16 bits are one vector.
    unsafe { _mm512_loadu_si512(places.as_ptr().cast()) }
}

/// Word `w` of row `r` becomes word `r` of row `w`.
#[target_feature(enable = "avx512f")]
fn transpose(rows: &[__m512i; 16], to: &mut Tile) {
    let mut pairs = *rows;
    for i in (0..16).step_by(2) {
        pairs[i] = _mm512_unpacklo_epi32(rows[i], rows[i + 1]);
        pairs[i + 1] = _mm512_unpackhi_epi32(rows[i], rows[i + 1]);
    }
    let mut fours = pairs;
    for i in (0..16).step_by(4) {
        for (h, half) in [pairs[i], pairs[i + 1]].into_iter().enumerate() {
            fours[i + 2 * h] = _mm512_unpacklo_epi64(half, pairs[i + h + 2]);
            fours[i + 2 * h + 1] = _mm512_unpackhi_epi64(half, pairs[i + h + 2]);
        }
    }
    let mut out = fours;
    for i in 0..4 {
        let [a, b, c, d] = [0, 4, 8, 12].map(|j| fours[i + j]);
        let (ab, cd) = (
            _mm512_shuffle_i32x4::<0x88>(a, b),
            _mm512_shuffle_i32x4::<0x88>(c, d),
        );
        out[i] = _mm512_shuffle_i32x4::<0x88>(ab, cd);
        out[i + 8] = _mm512_shuffle_i32x4::<0xdd>(ab, cd);
        let (ab, cd) = (
            _mm512_shuffle_i32x4::<0xdd>(a, b),
            _mm512_shuffle_i32x4::<0xdd>(c, d),
        );
        out[i + 4] = _mm512_shuffle_i32x4::<0x88>(ab, cd);
        out[i + 12] = _mm512_shuffle_i32x4::<0xdd>(ab, cd);
    }
    for (v, to) in out.iter().zip(to.as_chunks_mut::<64>().0) {
        // SAFETY: 64 bytes are one vector.
        unsafe { _mm512_storeu_si512(to.as_mut_ptr().cast(), *v) };
    }
}
