//! What is checked before a launch: each check says where it stands, what it looked at, what it got and
//! what it wanted.

use super::driver::CudaError;

pub(super) fn hold(
    holds: bool,
    place: &'static str,
    what: &'static str,
    got: impl ToString,
    wanted: impl ToString,
) -> Result<(), CudaError> {
    if holds {
        return Ok(());
    }
    Err(CudaError::refused(place, what, got, wanted))
}

/// That `got` is `wanted`.
pub(super) fn same(
    place: &'static str,
    what: &'static str,
    got: usize,
    wanted: usize,
) -> Result<(), CudaError> {
    hold(got == wanted, place, what, got, wanted)
}

/// An address that sixteen bytes are read from or written to at a time.
pub(super) fn aligned(
    place: &'static str,
    what: &'static str,
    address: u64,
) -> Result<(), CudaError> {
    let got = format!("at {address:#x}");
    hold(
        address.is_multiple_of(16),
        place,
        what,
        got,
        "aligned to 16 bytes",
    )
}

/// As kernels count.
pub(super) fn count(place: &'static str, what: &'static str, n: usize) -> Result<u32, CudaError> {
    u32::try_from(n).map_err(|_| CudaError::refused(place, what, n, "less than 2^32"))
}
