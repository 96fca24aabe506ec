//! What AMD's processors do otherwise than their instructions say. The bits are the same whatever is
//! answered here.

use std::arch::x86_64::__cpuid;
use std::sync::OnceLock;

/// AMD's family 1Ah and later: shuffles of whole vectors, two in a cycle.
pub(super) fn is_zen_5() -> bool {
    amd_family().is_some_and(|family| family >= 0x1a)
}

/// AMD's family 19h: what it is told to read ahead it wants far off, and not in its nearest cache.
pub(super) fn is_zen_4() -> bool {
    amd_family() == Some(0x19)
}

fn amd_family() -> Option<u32> {
    static FAMILY: OnceLock<Option<u32>> = OnceLock::new();
    *FAMILY.get_or_init(|| {
        let maker = __cpuid(0);
        let family = __cpuid(1).eax >> 8;
        let name = [maker.ebx, maker.edx, maker.ecx].map(u32::to_le_bytes);
        (name.as_flattened() == b"AuthenticAMD").then(|| (family & 0xf) + (family >> 12 & 0xff))
    })
}
