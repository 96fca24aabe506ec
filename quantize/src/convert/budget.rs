//! The best file that fits a size: of the mixes whose loss was measured, the one that lost least.

use super::{Conversion, Input, Options};
use crate::error::Error;
use crate::recipe::{FileType, Override};

/// What fits.
pub struct Fitting<'a> {
    pub conversion: Conversion<'a>,
    pub to: FileType,
    /// What would fit and lose less, if there were an importance matrix.
    pub with_matrix: Option<FileType>,
}

/// Plans the best file of at most `limit` bytes; without a matrix, of those that need none.
pub fn best<'a>(
    input: &'a Input,
    overrides: &[Override],
    limit: u64,
    has_matrix: bool,
) -> Result<Fitting<'a>, Error> {
    let mut with_matrix = None;
    let mut least: Option<(FileType, u64)> = None;
    for to in FileType::by_divergence() {
        let options = Options {
            to,
            overrides: overrides.to_vec(),
        };
        let conversion = Conversion::plan(input, &options)?;
        let size = conversion.file_size();
        let may = has_matrix || !to.needs_importance();
        if size > limit {
            if may && least.is_none_or(|(_, bytes)| size < bytes) {
                least = Some((to, size));
            }
        } else if may {
            return Ok(Fitting {
                conversion,
                to,
                with_matrix,
            });
        } else {
            with_matrix = with_matrix.or(Some(to));
        }
    }
    Err(Error::NothingFits {
        limit,
        least,
        with_matrix,
    })
}
