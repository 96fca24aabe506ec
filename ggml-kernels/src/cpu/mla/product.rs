//! `out[m][lane] = start + sum over k of a[m][k] * b[k][lane]`: lanes are queries, so that a row of
//! the cache is read once for all of them and nothing is summed across lanes. Each sum is one chain
//! over k in order, whatever else is in the tile.

use crate::cpu::simd::{LANES, Simd};

/// Lanes of a row of `b` and `out`: two vectors.
pub(super) const WIDTH: usize = 2 * LANES;
/// Rows are worked on in sixes or eights: `a` has readable and `out` writable rows up to the next
/// multiple of both.
pub(super) const ROWS: usize = 24;

/// Bytes that memory comes by.
const LINE: usize = 64;

/// What a sum begins with.
#[derive(Clone, Copy)]
pub(super) enum Start {
    Zero,
    /// What is there.
    Sum,
    /// What is there, times a factor for each lane.
    Scaled(*const f32),
}

/// Where `a[m][k]` lies.
#[derive(Clone, Copy)]
pub(super) struct Matrix {
    pub start: *const f32,
    pub m: usize,
    pub k: usize,
}

/// Rows `0..m`, and some of those up to the next multiple of [`ROWS`], whose values do not matter.
/// Of a row only the first `vectors` (one or two) are worked on. `ahead` is memory to ask for
/// meanwhile.
///
/// # Safety
/// `a` can be read and `out` read and written up to row `m.next_multiple_of(ROWS)`; `b` has `k`
/// rows; rows of `b`, `out` and the factors are [`WIDTH`] long.
#[inline(always)]
pub(super) unsafe fn product<S: Simd>(
    s: S,
    [m, k, vectors]: [usize; 3],
    a: Matrix,
    b: *const f32,
    out: *mut f32,
    start: Start,
    ahead: &[u8],
) {
    // SAFETY: tiles begin below m, and ROWS is a multiple of their height; one or two vectors from
    // the first or the second on are inside a row.
    unsafe {
        if S::WIDE && vectors == 2 {
            tiles::<S, 8, 2>(s, [m, k], a, b, out, start, ahead);
        } else if S::WIDE {
            tiles::<S, 8, 1>(s, [m, k], a, b, out, start, ahead);
        } else {
            tiles::<S, 6, 1>(s, [m, k], a, b, out, start, ahead);
            if vectors == 1 {
                return;
            }
            let start = match start {
                Start::Scaled(by) => Start::Scaled(by.add(LANES)),
                start => start,
            };
            tiles::<S, 6, 1>(s, [m, k], a, b.add(LANES), out.add(LANES), start, &[]);
        }
    }
}

/// `M` rows of `N` vectors at a time, whose sums stay in registers.
///
/// # Safety
/// As [`product`]; rows of `b`, `out` and the factors go on for `N` vectors.
#[inline(always)]
unsafe fn tiles<S: Simd, const M: usize, const N: usize>(
    s: S,
    [m, k]: [usize; 2],
    a: Matrix,
    b: *const f32,
    out: *mut f32,
    start: Start,
    ahead: &[u8],
) {
    let mut lines = ahead.chunks(LINE);
    let lines_each = lines.len().div_ceil(m.div_ceil(M));
    for row in (0..m).step_by(M) {
        for line in lines.by_ref().take(lines_each) {
            s.prefetch(line);
        }
        // SAFETY: a row below m.
        let (a_row, out) = unsafe { (a.start.add(row * a.m), out.add(row * WIDTH)) };
        let mut sums = [[s.splat(0.0); N]; M];
        // SAFETY: rows `row..row + M`, which begin below m; vectors below N.
        unsafe {
            match start {
                Start::Zero => {}
                Start::Sum => {
                    for (i, sums) in sums.iter_mut().enumerate() {
                        for (n, sum) in sums.iter_mut().enumerate() {
                            *sum = s.read(out.add(i * WIDTH + n * LANES));
                        }
                    }
                }
                Start::Scaled(by) => {
                    for (i, sums) in sums.iter_mut().enumerate() {
                        for (n, sum) in sums.iter_mut().enumerate() {
                            let by = s.read(by.add(n * LANES));
                            *sum = s.mul(s.read(out.add(i * WIDTH + n * LANES)), by);
                        }
                    }
                }
            }
            for at in 0..k {
                let mut across = [s.splat(0.0); N];
                for (n, b_n) in across.iter_mut().enumerate() {
                    *b_n = s.read(b.add(at * WIDTH + n * LANES));
                }
                for (i, sums) in sums.iter_mut().enumerate() {
                    let down = s.splat(*a_row.add(i * a.m + at * a.k));
                    for (n, sum) in sums.iter_mut().enumerate() {
                        *sum = s.fma(down, across[n], *sum);
                    }
                }
            }
            for (i, sums) in sums.iter().enumerate() {
                for (n, &sum) in sums.iter().enumerate() {
                    s.write(out.add(i * WIDTH + n * LANES), sum);
                }
            }
        }
    }
}

#[inline(always)]
pub(super) fn half(row: &[f32; WIDTH], at: usize) -> &[f32; LANES] {
    &row.as_chunks().0[at]
}

#[inline(always)]
pub(super) fn half_mut(row: &mut [f32; WIDTH], at: usize) -> &mut [f32; LANES] {
    &mut row.as_chunks_mut().0[at]
}
