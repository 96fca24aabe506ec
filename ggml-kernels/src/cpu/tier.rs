//! Which instructions a kernel may use. A [`Tier`] can only be had where the processor has them,
//! so holding one is the proof that its kernels may be called.

use std::fmt;
use std::str::FromStr;
use std::sync::OnceLock;

/// Families of instructions, each with all of what its kernels use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// No vector instructions by name.
    Scalar,
    /// AVX2, FMA, F16C.
    Avx2,
    /// AVX-512 F, BW, DQ, VL, VNNI, VBMI: from Intel's Ice Lake and AMD's Zen 4 on.
    Avx512,
    /// The same with BF16, and AMX tiles of int8 and bf16.
    Amx,
    /// What every aarch64 has.
    Neon,
    /// The same with dot products of bytes.
    NeonDot,
    /// The same with matrix products of bytes.
    NeonI8mm,
}

/// A [`Kind`] that this processor has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Tier(Kind);

impl Kind {
    pub const ALL: [Kind; 7] = [
        Kind::Scalar,
        Kind::Avx2,
        Kind::Avx512,
        Kind::Amx,
        Kind::Neon,
        Kind::NeonDot,
        Kind::NeonI8mm,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Kind::Scalar => "scalar",
            Kind::Avx2 => "avx2",
            Kind::Avx512 => "avx512",
            Kind::Amx => "amx",
            Kind::Neon => "neon",
            Kind::NeonDot => "neon-dot",
            Kind::NeonI8mm => "neon-i8mm",
        }
    }

    fn is_here(self) -> bool {
        match self {
            Kind::Scalar => true,
            #[cfg(target_arch = "x86_64")]
            Kind::Avx2 => has_avx2(),
            #[cfg(target_arch = "x86_64")]
            Kind::Avx512 => has_avx512(),
            #[cfg(target_arch = "x86_64")]
            Kind::Amx => has_avx512() && has_amx(),
            #[cfg(target_arch = "aarch64")]
            Kind::Neon => std::arch::is_aarch64_feature_detected!("neon"),
            #[cfg(target_arch = "aarch64")]
            Kind::NeonDot => has_dot(),
            #[cfg(target_arch = "aarch64")]
            Kind::NeonI8mm => has_dot() && std::arch::is_aarch64_feature_detected!("i8mm"),
            _ => false,
        }
    }
}

impl Tier {
    pub const SCALAR: Tier = Tier(Kind::Scalar);

    /// The best that this processor has.
    pub fn detect() -> Tier {
        static BEST: OnceLock<Tier> = OnceLock::new();
        *BEST.get_or_init(|| Tier::available().last().copied().unwrap_or(Tier::SCALAR))
    }

    /// Everything that this processor has, the least first.
    pub fn available() -> Vec<Tier> {
        let here = Kind::ALL.into_iter().filter(|kind| kind.is_here());
        here.map(Tier).collect()
    }

    /// `kind`, where the processor has it.
    pub fn of(kind: Kind) -> Option<Tier> {
        kind.is_here().then_some(Tier(kind))
    }

    pub fn kind(self) -> Kind {
        self.0
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl fmt::Display for Tier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for Kind {
    type Err = String;
    fn from_str(name: &str) -> Result<Kind, String> {
        let found = Kind::ALL.into_iter().find(|kind| kind.name() == name);
        found.ok_or_else(|| {
            let names = Kind::ALL.map(Kind::name).join(", ");
            format!("`{name}` is no tier: wanted one of {names}")
        })
    }
}

#[cfg(target_arch = "aarch64")]
fn has_dot() -> bool {
    std::arch::is_aarch64_feature_detected!("neon")
        && std::arch::is_aarch64_feature_detected!("dotprod")
}

#[cfg(target_arch = "x86_64")]
fn has_avx2() -> bool {
    std::is_x86_feature_detected!("avx2")
        && std::is_x86_feature_detected!("fma")
        && std::is_x86_feature_detected!("f16c")
}

#[cfg(target_arch = "x86_64")]
fn has_avx512() -> bool {
    has_avx2()
        && std::is_x86_feature_detected!("avx512f")
        && std::is_x86_feature_detected!("avx512bw")
        && std::is_x86_feature_detected!("avx512dq")
        && std::is_x86_feature_detected!("avx512vl")
        && std::is_x86_feature_detected!("avx512vnni")
        && std::is_x86_feature_detected!("avx512vbmi")
}

/// The processor has tiles and the kernel lets this process use them.
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
fn has_amx() -> bool {
    const ARCH_REQ_XCOMP_PERM: i64 = 0x1023;
    const XFEATURE_XTILEDATA: i64 = 18;
    // Leaf 7, EDX: bit 22 AMX-BF16, 24 AMX-TILE, 25 AMX-INT8.
    const WANTED: u32 = 1 << 22 | 1 << 24 | 1 << 25;
    let has_leaf = std::arch::x86_64::__cpuid(0).eax >= 7;
    let has_bf16 = std::is_x86_feature_detected!("avx512bf16");
    if !has_leaf || !has_bf16 || std::arch::x86_64::__cpuid_count(7, 0).edx & WANTED != WANTED {
        return false;
    }
    let status: i64;
    // SAFETY: arch_prctl (158) with a request that only asks the kernel to grow this process's
    // signal frames and let it use tile data; no memory of ours is passed. `syscall` clobbers rcx
    // and r11.
    unsafe {
        std::arch::asm!(
            "syscall",
            inlateout("rax") 158_i64 => status,
            in("rdi") ARCH_REQ_XCOMP_PERM,
            in("rsi") XFEATURE_XTILEDATA,
            lateout("rcx") _,
            lateout("r11") _,
            options(nostack),
        );
    }
    status == 0
}

#[cfg(all(target_arch = "x86_64", not(target_os = "linux")))]
fn has_amx() -> bool {
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_best_tier_is_one_of_those_available_and_scalar_always_is() {
        let all = Tier::available();
        assert_eq!(all.first(), Some(&Tier::SCALAR));
        assert!(all.contains(&Tier::detect()));
        assert!(all.iter().all(|t| Tier::of(t.kind()) == Some(*t)));
    }

    #[test]
    fn names_are_read_back() {
        for kind in Kind::ALL {
            assert_eq!(kind.name().parse(), Ok(kind));
        }
        assert!("sse".parse::<Kind>().unwrap_err().contains("avx512"));
    }
}
