//! The lanes in registers of AVX2 (two) and AVX-512 (one).

use std::arch::x86_64::*;

use super::{Arith, Body, LANES, SIGNLESS, Simd};

/// Exists only where the processor has AVX2, FMA and F16C.
#[derive(Debug, Clone, Copy)]
pub(super) struct Avx2(());

/// Exists only where the processor has AVX-512 F, BW, DQ and VL.
#[derive(Debug, Clone, Copy)]
pub(super) struct Avx512(());

/// # Safety
/// The processor has AVX2, FMA and F16C.
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) unsafe fn avx2<B: Body>(body: B) -> B::Out {
    body.run(Avx2(()))
}

/// # Safety
/// The processor has AVX-512 F, BW, DQ and VL, AVX2, FMA and F16C.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
pub(super) unsafe fn avx512<B: Body>(body: B) -> B::Out {
    body.run(Avx512(()))
}

/// `f` on both halves.
macro_rules! twice {
    ($f:ident, $($v:expr),+) => {{
        // SAFETY: `self` exists only where the processor has AVX2 and FMA.
        unsafe { ($f($($v.0),+), $f($($v.1),+)) }
    }};
}

impl Arith for Avx2 {
    type V = (__m256, __m256);
    #[inline(always)]
    fn splat(self, x: f32) -> Self::V {
        // SAFETY: `self` exists only where the processor has AVX2.
        let v = unsafe { _mm256_set1_ps(x) };
        (v, v)
    }
    #[inline(always)]
    fn add(self, a: Self::V, b: Self::V) -> Self::V {
        twice!(_mm256_add_ps, a, b)
    }
    #[inline(always)]
    fn sub(self, a: Self::V, b: Self::V) -> Self::V {
        twice!(_mm256_sub_ps, a, b)
    }
    #[inline(always)]
    fn mul(self, a: Self::V, b: Self::V) -> Self::V {
        twice!(_mm256_mul_ps, a, b)
    }
    #[inline(always)]
    fn div(self, a: Self::V, b: Self::V) -> Self::V {
        twice!(_mm256_div_ps, a, b)
    }
    #[inline(always)]
    fn fma(self, a: Self::V, b: Self::V, c: Self::V) -> Self::V {
        twice!(_mm256_fmadd_ps, a, b, c)
    }
    #[inline(always)]
    fn min(self, a: Self::V, b: Self::V) -> Self::V {
        twice!(_mm256_min_ps, a, b)
    }
    #[inline(always)]
    fn max(self, a: Self::V, b: Self::V) -> Self::V {
        twice!(_mm256_max_ps, a, b)
    }
    #[inline(always)]
    fn where_less(self, a: Self::V, b: Self::V, x: Self::V, y: Self::V) -> Self::V {
        // SAFETY: `self` exists only where the processor has AVX2.
        let of = |a, b, x, y| unsafe { _mm256_blendv_ps(y, x, _mm256_cmp_ps::<_CMP_LT_OQ>(a, b)) };
        (of(a.0, b.0, x.0, y.0), of(a.1, b.1, x.1, y.1))
    }
    #[inline(always)]
    fn scale(self, a: Self::V, n: Self::V) -> Self::V {
        let half = self.mul(n, self.splat(0.5));
        let half = twice!(_mm256_floor_ps, half);
        let rest = self.sub(n, half);
        let a = self.mul(a, self.power_of_two(half));
        self.mul(a, self.power_of_two(rest))
    }
}

impl Avx2 {
    /// As the scalar one.
    #[inline(always)]
    fn power_of_two(self, n: (__m256, __m256)) -> (__m256, __m256) {
        let n = self.add(n, self.splat(8_388_735.0));
        // SAFETY: `self` exists only where the processor has AVX2.
        let shift =
            |v| unsafe { _mm256_castsi256_ps(_mm256_slli_epi32::<23>(_mm256_castps_si256(v))) };
        (shift(n.0), shift(n.1))
    }
}

impl Simd for Avx2 {
    const WIDE: bool = false;

    #[inline(always)]
    unsafe fn read(self, at: *const f32) -> Self::V {
        // SAFETY: the caller's promise, and `self` for AVX2.
        unsafe { (_mm256_loadu_ps(at), _mm256_loadu_ps(at.add(8))) }
    }
    #[inline(always)]
    unsafe fn write(self, at: *mut f32, v: Self::V) {
        // SAFETY: the caller's promise, and `self` for AVX2.
        unsafe {
            _mm256_storeu_ps(at, v.0);
            _mm256_storeu_ps(at.add(8), v.1);
        }
    }
    #[inline(always)]
    fn prefetch(self, line: &[u8]) {
        // SAFETY: a hint, whatever the address.
        unsafe { _mm_prefetch::<_MM_HINT_T1>(line.as_ptr().cast()) };
    }
    #[inline(always)]
    fn halves(self, x: &[u8; 2 * LANES]) -> Self::V {
        let at = x.as_ptr().cast::<__m128i>();
        // SAFETY: sixteen halves are two vectors; `self` for F16C.
        unsafe {
            (
                _mm256_cvtph_ps(_mm_loadu_si128(at)),
                _mm256_cvtph_ps(_mm_loadu_si128(at.add(1))),
            )
        }
    }
    #[inline(always)]
    fn bhalves(self, x: &[u8; 2 * LANES]) -> Self::V {
        let at = x.as_ptr().cast::<__m128i>();
        // SAFETY: sixteen halves are two vectors; `self` for AVX2.
        unsafe {
            let wide = |v| _mm256_slli_epi32::<16>(_mm256_cvtepu16_epi32(v));
            (
                _mm256_castsi256_ps(wide(_mm_loadu_si128(at))),
                _mm256_castsi256_ps(wide(_mm_loadu_si128(at.add(1)))),
            )
        }
    }
    #[inline(always)]
    fn bytes(self, x: &[u8; LANES]) -> Self::V {
        // SAFETY: sixteen bytes are one vector; `self` for AVX2.
        unsafe {
            let v = _mm_loadu_si128(x.as_ptr().cast());
            let high = _mm_unpackhi_epi64(v, v);
            (
                _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(v)),
                _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(high)),
            )
        }
    }
    #[inline(always)]
    fn greatest(self, (a, b): Self::V) -> u32 {
        // SAFETY: `self` for AVX2.
        unsafe {
            let mask = _mm256_set1_epi32(SIGNLESS.cast_signed());
            let a = _mm256_and_si256(_mm256_castps_si256(a), mask);
            let b = _mm256_and_si256(_mm256_castps_si256(b), mask);
            let v = _mm256_max_epu32(a, b);
            let v = _mm_max_epu32(_mm256_castsi256_si128(v), _mm256_extracti128_si256::<1>(v));
            let v = _mm_max_epu32(v, _mm_shuffle_epi32::<0b01_00_11_10>(v));
            let v = _mm_max_epu32(v, _mm_shuffle_epi32::<0b10_11_00_01>(v));
            _mm_cvtsi128_si32(v).cast_unsigned()
        }
    }
    #[inline(always)]
    fn low_bytes(self, (a, b): Self::V) -> [i8; LANES] {
        let mut bytes = [0; LANES];
        // SAFETY: sixteen bytes are one vector; `self` for AVX2.
        unsafe {
            let mask = _mm256_set1_epi32(0xff);
            let a = _mm256_and_si256(_mm256_castps_si256(a), mask);
            let b = _mm256_and_si256(_mm256_castps_si256(b), mask);
            // Quarters of a and b by turns, then in order.
            let v = _mm256_permute4x64_epi64::<0b11_01_10_00>(_mm256_packus_epi32(a, b));
            let v = _mm_packus_epi16(_mm256_castsi256_si128(v), _mm256_extracti128_si256::<1>(v));
            _mm_storeu_si128(bytes.as_mut_ptr().cast(), v);
        }
        bytes
    }
    #[inline(always)]
    fn sum_bytes(self, x: &[i8; LANES]) -> i16 {
        sum_bytes(x)
    }
}

macro_rules! once {
    ($f:ident, $($v:expr),+) => {{
        // SAFETY: `self` exists only where the processor has AVX-512.
        unsafe { $f($($v),+) }
    }};
}

impl Arith for Avx512 {
    type V = __m512;
    #[inline(always)]
    fn splat(self, x: f32) -> __m512 {
        once!(_mm512_set1_ps, x)
    }
    #[inline(always)]
    fn add(self, a: __m512, b: __m512) -> __m512 {
        once!(_mm512_add_ps, a, b)
    }
    #[inline(always)]
    fn sub(self, a: __m512, b: __m512) -> __m512 {
        once!(_mm512_sub_ps, a, b)
    }
    #[inline(always)]
    fn mul(self, a: __m512, b: __m512) -> __m512 {
        once!(_mm512_mul_ps, a, b)
    }
    #[inline(always)]
    fn div(self, a: __m512, b: __m512) -> __m512 {
        once!(_mm512_div_ps, a, b)
    }
    #[inline(always)]
    fn fma(self, a: __m512, b: __m512, c: __m512) -> __m512 {
        once!(_mm512_fmadd_ps, a, b, c)
    }
    #[inline(always)]
    fn min(self, a: __m512, b: __m512) -> __m512 {
        once!(_mm512_min_ps, a, b)
    }
    #[inline(always)]
    fn max(self, a: __m512, b: __m512) -> __m512 {
        once!(_mm512_max_ps, a, b)
    }
    #[inline(always)]
    fn where_less(self, a: __m512, b: __m512, x: __m512, y: __m512) -> __m512 {
        // SAFETY: `self` exists only where the processor has AVX-512.
        unsafe { _mm512_mask_blend_ps(_mm512_cmp_ps_mask::<_CMP_LT_OQ>(a, b), y, x) }
    }
    #[inline(always)]
    fn scale(self, a: __m512, n: __m512) -> __m512 {
        once!(_mm512_scalef_ps, a, n)
    }
}

impl Simd for Avx512 {
    const WIDE: bool = true;

    #[inline(always)]
    unsafe fn read(self, at: *const f32) -> __m512 {
        // SAFETY: the caller's promise, and `self` for AVX-512.
        unsafe { _mm512_loadu_ps(at) }
    }
    #[inline(always)]
    unsafe fn write(self, at: *mut f32, v: __m512) {
        // SAFETY: the caller's promise, and `self` for AVX-512.
        unsafe { _mm512_storeu_ps(at, v) }
    }
    #[inline(always)]
    fn prefetch(self, line: &[u8]) {
        // SAFETY: a hint, whatever the address.
        unsafe { _mm_prefetch::<_MM_HINT_T1>(line.as_ptr().cast()) };
    }
    #[inline(always)]
    fn halves(self, x: &[u8; 2 * LANES]) -> __m512 {
        // SAFETY: sixteen halves are one vector; `self` for AVX-512.
        unsafe { _mm512_cvtph_ps(_mm256_loadu_si256(x.as_ptr().cast())) }
    }
    #[inline(always)]
    fn bhalves(self, x: &[u8; 2 * LANES]) -> __m512 {
        // SAFETY: as above.
        unsafe {
            let v = _mm512_cvtepu16_epi32(_mm256_loadu_si256(x.as_ptr().cast()));
            _mm512_castsi512_ps(_mm512_slli_epi32::<16>(v))
        }
    }
    #[inline(always)]
    fn bytes(self, x: &[u8; LANES]) -> __m512 {
        // SAFETY: sixteen bytes are one vector; `self` for AVX-512.
        unsafe { _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(x.as_ptr().cast()))) }
    }
    #[inline(always)]
    fn greatest(self, v: __m512) -> u32 {
        // SAFETY: `self` for AVX-512.
        unsafe {
            let mask = _mm512_set1_epi32(SIGNLESS.cast_signed());
            _mm512_reduce_max_epu32(_mm512_and_si512(_mm512_castps_si512(v), mask))
        }
    }
    #[inline(always)]
    fn low_bytes(self, v: __m512) -> [i8; LANES] {
        let mut bytes = [0; LANES];
        // SAFETY: sixteen bytes are one vector; `self` for AVX-512.
        unsafe {
            let v = _mm512_cvtepi32_epi8(_mm512_castps_si512(v));
            _mm_storeu_si128(bytes.as_mut_ptr().cast(), v);
        }
        bytes
    }
    #[inline(always)]
    fn sum_bytes(self, x: &[i8; LANES]) -> i16 {
        sum_bytes(x)
    }
}

/// The sum of sixteen bytes, 128 above what they are while they are added.
#[inline(always)]
fn sum_bytes(x: &[i8; LANES]) -> i16 {
    // SAFETY: sixteen bytes are one vector; every x86-64 has these instructions.
    unsafe {
        let v = _mm_loadu_si128(x.as_ptr().cast());
        let v = _mm_sad_epu8(_mm_xor_si128(v, _mm_set1_epi8(-128)), _mm_setzero_si128());
        let v = _mm_add_epi16(v, _mm_unpackhi_epi64(v, v));
        _mm_cvtsi128_si32(v) as i16 - 128 * LANES as i16
    }
}
