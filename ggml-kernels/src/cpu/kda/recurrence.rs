//! `S <- diag(decay) S; S <- S + k (beta (v - k^T S))^T; o = q^T S`. Columns of S never meet, so
//! they are worked on in blocks that stay in the first-level cache. One sweep over a block's rows a
//! token: it adds what the last token left to add, decays, and sums `k^T S` and `q^T S`.

use crate::cpu::simd::{LANES, Simd};

/// Tokens ready for the recurrence; rows as wide as whole vectors.
pub(super) struct Chunk<'c> {
    pub n: usize,
    pub d: usize,
    pub q: &'c [f32],
    pub k: &'c [f32],
    pub v: &'c [f32],
    pub decay: &'c [f32],
    pub beta: &'c [f32],
    /// `q . k` of each token.
    pub qk: &'c [f32],
}

/// A head's S: read from where the last pass left it, held in blocks of columns, written back with
/// the last token.
pub(super) struct Memory<'m> {
    d: usize,
    /// `None`: read `to`.
    from: Option<&'m [f32]>,
    /// `[d, d]`.
    to: &'m mut [f32],
    /// `[wide / 16, d, 16]`.
    blocks: &'m mut [f32],
    in_blocks: bool,
}

impl<'m> Memory<'m> {
    pub(super) fn new(
        d: usize,
        from: Option<&'m [f32]>,
        to: &'m mut [f32],
        blocks: &'m mut [f32],
    ) -> Memory<'m> {
        let wide = d.next_multiple_of(LANES);
        assert!(to.len() == d * d && from.is_none_or(|from| from.len() == d * d));
        assert_eq!(blocks.len(), d * wide);
        Memory {
            d,
            from,
            to,
            blocks,
            in_blocks: false,
        }
    }

    /// No token came: the matrix goes on as it is.
    pub(super) fn keep(&mut self) {
        if let Some(from) = self.from {
            self.to.copy_from_slice(from);
        }
    }

    /// Rows that are no whole vectors are put into blocks first.
    fn spread(&mut self) {
        let rows = self.from.unwrap_or(self.to);
        for (at, block) in self.blocks.chunks_exact_mut(self.d * LANES).enumerate() {
            for (row, to) in rows.chunks_exact(self.d).zip(block.chunks_exact_mut(LANES)) {
                let row = &row[at * LANES..];
                let n = row.len().min(LANES);
                to[..n].copy_from_slice(&row[..n]);
                to[n..].fill(0.0);
            }
        }
        self.in_blocks = true;
    }

    fn gather(&mut self) {
        for (at, block) in self.blocks.chunks_exact(self.d * LANES).enumerate() {
            let rows = self.to.chunks_exact_mut(self.d);
            for (row, from) in rows.zip(block.chunks_exact(LANES)) {
                let row = &mut row[at * LANES..];
                let n = row.len().min(LANES);
                row[..n].copy_from_slice(&from[..n]);
            }
        }
    }
}

/// Where the vectors of some columns lie.
#[derive(Clone, Copy)]
struct Place {
    start: *mut f32,
    /// Floats from a row to the next.
    row: usize,
    /// Floats from a vector of a row to the next.
    vector: usize,
}

/// All of a chunk; out: `[n, wide]`. With the `last` chunk the matrix is written back.
#[inline(always)]
pub(super) fn run<S: Simd>(s: S, c: Chunk<'_>, m: &mut Memory<'_>, last: bool, out: &mut [f32]) {
    let (d, wide) = (m.d, m.d.next_multiple_of(LANES));
    let whole = wide == d;
    assert!(c.n > 0 && c.d == d && c.beta.len() >= c.n && c.qk.len() >= c.n);
    for rows in [c.q, c.k, c.v, c.decay, out] {
        assert!(rows.len() >= c.n * wide);
    }
    if !m.in_blocks && !whole {
        m.spread();
    }
    let blocks = m.blocks.as_mut_ptr();
    let to = m.to.as_mut_ptr();
    let from = m.from.map_or(to, |from| from.as_ptr().cast_mut());
    let mut at = 0;
    while at < wide / LANES {
        let block = Place {
            // SAFETY: a vector inside the blocks.
            start: unsafe { blocks.add(at * d * LANES) },
            row: LANES,
            vector: d * LANES,
        };
        let in_rows = |matrix: *mut f32| Place {
            // SAFETY: asked for only where whole vectors make up a row.
            start: unsafe { matrix.add(at * LANES) },
            row: d,
            vector: LANES,
        };
        let source = if m.in_blocks { block } else { in_rows(from) };
        let target = last.then(|| if whole { in_rows(to) } else { block });
        // SAFETY: the vectors from `at` on lie inside the rows of the chunk and of `out` (`wide`
        // each, checked above) and inside the places; `source` may be `from`, which is only read.
        unsafe {
            if S::WIDE && wide / LANES - at >= 2 {
                columns::<S, 2>(s, &c, at, source, block, target, out);
                at += 2;
            } else {
                columns::<S, 1>(s, &c, at, source, block, target, out);
                at += 1;
            }
        }
    }
    m.in_blocks = true;
    if last && !whole {
        m.gather();
    }
}

/// The chunk's tokens on `N` vectors of columns from `at` on. S comes from `source`, is held in
/// `block`, and ends in `target`, or else in `block`.
///
/// # Safety
/// `at + N` vectors are inside a row of the chunk and of `out`; each place has `d` rows of `N`
/// vectors, and all but `source` may be written.
#[inline(always)]
unsafe fn columns<S: Simd, const N: usize>(
    s: S,
    c: &Chunk<'_>,
    at: usize,
    source: Place,
    block: Place,
    target: Option<Place>,
    out: &mut [f32],
) {
    let wide = c.d.next_multiple_of(LANES);
    let mut delta = [s.splat(0.0); N];
    for t in 0..c.n {
        let row = t * wide;
        let token = Token {
            k: &c.k[row..row + c.d],
            q: &c.q[row..row + c.d],
            decay: &c.decay[row..row + c.d],
        };
        // SAFETY: the caller's promises.
        let [seen, asked] = unsafe {
            if t == 0 {
                sweep::<S, N, true>(s, token, &[], delta, source, block)
            } else {
                let before = &c.k[row - wide..][..c.d];
                sweep::<S, N, false>(s, token, before, delta, block, block)
            }
        };
        for (n, delta) in delta.iter_mut().enumerate() {
            let place = row + (at + n) * LANES;
            // SAFETY: vector `at + n` of a row of v and of `out`.
            unsafe {
                let missing = s.sub(s.read(c.v.as_ptr().add(place)), seen[n]);
                *delta = s.mul(s.splat(c.beta[t]), missing);
                let o = s.fma(s.splat(c.qk[t]), *delta, asked[n]);
                s.write(out.as_mut_ptr().add(place), o);
            }
        }
    }
    let target = target.unwrap_or(block);
    let k = &c.k[(c.n - 1) * wide..][..c.d];
    for (i, &k) in k.iter().enumerate() {
        for (n, &delta) in delta.iter().enumerate() {
            // SAFETY: row `i`, vector `n` of places of `d` rows and N vectors.
            unsafe {
                let x = s.read(block.start.add(i * block.row + n * block.vector));
                let x = s.fma(s.splat(k), delta, x);
                s.write(target.start.add(i * target.row + n * target.vector), x);
            }
        }
    }
}

/// Rows of one token: `d` each.
struct Token<'t> {
    k: &'t [f32],
    q: &'t [f32],
    decay: &'t [f32],
}

/// Adds `before delta^T` (unless this is the FIRST), decays, keeps, and returns `[k^T S, q^T S]`.
///
/// # Safety
/// Both places have a row of `N` vectors for each value of `k`; `to` may be written.
#[inline(always)]
unsafe fn sweep<S: Simd, const N: usize, const FIRST: bool>(
    s: S,
    token: Token<'_>,
    before: &[f32],
    delta: [S::V; N],
    from: Place,
    to: Place,
) -> [[S::V; N]; 2] {
    let [mut seen, mut asked] = [[s.splat(0.0); N]; 2];
    let d = token.k.len();
    let (q, decay) = (&token.q[..d], &token.decay[..d]);
    for i in 0..d {
        let [k, q, decay] = [token.k[i], q[i], decay[i]].map(|x| s.splat(x));
        for n in 0..N {
            // SAFETY: row `i`, vector `n`.
            let mut x = unsafe { s.read(from.start.add(i * from.row + n * from.vector)) };
            if !FIRST {
                x = s.fma(s.splat(before[i]), delta[n], x);
            }
            x = s.mul(x, decay);
            // SAFETY: as above.
            unsafe { s.write(to.start.add(i * to.row + n * to.vector), x) };
            seen[n] = s.fma(k, x, seen[n]);
            asked[n] = s.fma(q, x, asked[n]);
        }
    }
    [seen, asked]
}
