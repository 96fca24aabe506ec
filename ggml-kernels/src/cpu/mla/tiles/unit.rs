//! Matrix tiles: four sums of 16 x 16, to which products of 16 x 32 and 32 x 16 bfloat16 are added.
//! The processor's (AMX), and a slow twin that runs anywhere.

/// Bytes of a tile's row, and rows of a tile.
const ROW: usize = 64;
const ROWS: usize = 16;

/// Four sums side by side: rows 0..16 and 16..32, columns 0..16 and 16..32.
pub(super) trait Unit {
    fn new() -> Self;
    /// Sets the sums to zero.
    fn zero(&mut self);
    /// # Safety
    /// 32 rows of 32 floats, `stride` bytes apart, can be read there.
    unsafe fn load(&mut self, from: *const f32, stride: usize);
    /// # Safety
    /// 32 rows of 32 floats, `stride` bytes apart, can be written there.
    unsafe fn store(&mut self, to: *mut f32, stride: usize);
    /// Adds `sum over n steps of a b`: `a` has 32 rows of `n` x 32 values, `b` has `n` x 16 rows of
    /// 32 pairs of values, one of the pair below the other.
    ///
    /// # Safety
    /// Rows of both, `stride` bytes apart, can be read there.
    unsafe fn add(&mut self, a: Operand, b: Operand, n: usize);
}

#[derive(Clone, Copy)]
pub(super) struct Operand {
    pub start: *const u32,
    /// Bytes from a row to the next.
    pub stride: usize,
}

/// The processor's tiles. Made only where it has them; nothing else on the thread uses tiles while
/// it lives.
pub(super) struct Amx(());

/// What `ldtilecfg` reads: palette 1, eight tiles of 16 rows of 64 bytes.
#[repr(C, align(64))]
struct Config([u8; 64]);

const CONFIG: Config = {
    let mut bytes = [0; 64];
    bytes[0] = 1;
    let mut tile = 0;
    while tile < 8 {
        bytes[16 + 2 * tile] = ROW as u8;
        bytes[48 + tile] = ROWS as u8;
        tile += 1;
    }
    Config(bytes)
};

impl Unit for Amx {
    fn new() -> Amx {
        // SAFETY: called only for a tier with tiles; the configuration is 64 bytes and valid.
        unsafe { std::arch::asm!("ldtilecfg [{}]", in(reg) &CONFIG, options(nostack, readonly)) };
        Amx(())
    }
    // Tiles 0 to 3 are the sums: the compiler itself never touches a tile, so they stay between
    // one piece of assembly and the next.
    #[inline(always)]
    fn zero(&mut self) {
        // SAFETY: `self` exists only where there are tiles, configured.
        unsafe {
            std::arch::asm!(
                "tilezero tmm0",
                "tilezero tmm1",
                "tilezero tmm2",
                "tilezero tmm3",
                options(nostack, nomem, preserves_flags),
            );
        }
    }
    #[inline(always)]
    unsafe fn load(&mut self, from: *const f32, stride: usize) {
        // SAFETY: the caller's promise.
        unsafe {
            std::arch::asm!(
                "tileloadd tmm0, [{top} + {stride}*1]",
                "tileloadd tmm1, [{top} + {stride}*1 + 64]",
                "tileloadd tmm2, [{low} + {stride}*1]",
                "tileloadd tmm3, [{low} + {stride}*1 + 64]",
                top = in(reg) from,
                low = in(reg) from.byte_add(ROWS * stride),
                stride = in(reg) stride,
                options(nostack, readonly, preserves_flags),
            );
        }
    }
    #[inline(always)]
    unsafe fn store(&mut self, to: *mut f32, stride: usize) {
        // SAFETY: the caller's promise.
        unsafe {
            std::arch::asm!(
                "tilestored [{top} + {stride}*1], tmm0",
                "tilestored [{top} + {stride}*1 + 64], tmm1",
                "tilestored [{low} + {stride}*1], tmm2",
                "tilestored [{low} + {stride}*1 + 64], tmm3",
                top = in(reg) to,
                low = in(reg) to.byte_add(ROWS * stride),
                stride = in(reg) stride,
                options(nostack, preserves_flags),
            );
        }
    }
    #[inline(always)]
    unsafe fn add(&mut self, a: Operand, b: Operand, n: usize) {
        if n == 0 {
            return;
        }
        // SAFETY: the caller's promise; the pointers go on by 64 bytes of a row of `a` and 16 rows
        // of `b` for each of n steps, and the last advance is not followed.
        unsafe {
            std::arch::asm!(
                "2:",
                "tileloadd tmm4, [{b} + {b_stride}*1]",
                "tileloadd tmm6, [{top} + {a_stride}*1]",
                "tdpbf16ps tmm0, tmm6, tmm4",
                "tileloadd tmm5, [{b} + {b_stride}*1 + 64]",
                "tdpbf16ps tmm1, tmm6, tmm5",
                "tileloadd tmm7, [{low} + {a_stride}*1]",
                "tdpbf16ps tmm2, tmm7, tmm4",
                "tdpbf16ps tmm3, tmm7, tmm5",
                "add {top}, 64",
                "add {low}, 64",
                "add {b}, {b_step}",
                "dec {n}",
                "jnz 2b",
                top = inout(reg) a.start => _,
                low = inout(reg) a.start.byte_add(ROWS * a.stride) => _,
                a_stride = in(reg) a.stride,
                b = inout(reg) b.start => _,
                b_stride = in(reg) b.stride,
                b_step = in(reg) ROWS * b.stride,
                n = inout(reg) n => _,
                options(nostack, readonly),
            );
        }
    }
}

impl Drop for Amx {
    fn drop(&mut self) {
        // SAFETY: there are tiles; gives them back, so that a switch of threads saves less.
        unsafe { std::arch::asm!("tilerelease", options(nostack, nomem, preserves_flags)) };
    }
}

/// The same in plain code. The processor may add in another order, so the last bits differ.
#[cfg(test)]
pub(super) struct Emulated([[f32; 32]; 32]);

#[cfg(test)]
impl Unit for Emulated {
    fn new() -> Emulated {
        Emulated([[f32::NAN; 32]; 32])
    }
    fn zero(&mut self) {
        self.0 = [[0.0; 32]; 32];
    }
    unsafe fn load(&mut self, from: *const f32, stride: usize) {
        for (at, row) in self.0.iter_mut().enumerate() {
            // SAFETY: the caller's promise.
            *row = unsafe { from.byte_add(at * stride).cast::<[f32; 32]>().read() };
        }
    }
    unsafe fn store(&mut self, to: *mut f32, stride: usize) {
        for (at, row) in self.0.iter().enumerate() {
            // SAFETY: the caller's promise.
            unsafe { to.byte_add(at * stride).cast::<[f32; 32]>().write(*row) };
        }
    }
    unsafe fn add(&mut self, a: Operand, b: Operand, n: usize) {
        let pair = |word: u32| [word << 16, word & 0xffff_0000].map(f32::from_bits);
        for k in 0..n * 16 {
            for (m, sums) in self.0.iter_mut().enumerate() {
                for (lane, sum) in sums.iter_mut().enumerate() {
                    // SAFETY: word k of row m, and word `lane` of row k.
                    let (a, b) = unsafe {
                        (
                            a.start.byte_add(m * a.stride).add(k).read(),
                            b.start.byte_add(k * b.stride).add(lane).read(),
                        )
                    };
                    let ([a0, a1], [b0, b1]) = (pair(a), pair(b));
                    *sum = a1.mul_add(b1, a0.mul_add(b0, *sum));
                }
            }
        }
    }
}
