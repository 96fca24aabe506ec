//! Is a file whole? Its tensors fit the schema, every block holds finite numbers, and a digest
//! says which file it is.

use crate::error::Error;
use crate::schema;
use ggml_kernels::gguf::{GgufFile, TensorInfo};
use ggml_kernels::quant::first_broken_block;
use rayon::prelude::*;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

/// What was found. The file is good when `refusal` is empty and so is every `broken`.
#[derive(Debug)]
pub struct Report {
    /// BLAKE3 over the whole file.
    pub digest: blake3::Hash,
    /// Why the daemon would not run it.
    pub refusal: Option<schema::SchemaError>,
    pub tensors: Vec<Verdict>,
}

#[derive(Debug)]
pub struct Verdict {
    pub name: String,
    /// BLAKE3 over the tensor's bytes.
    pub digest: blake3::Hash,
    /// The first block whose numbers are not finite.
    pub broken: Option<usize>,
}

impl Report {
    pub fn is_good(&self) -> bool {
        self.refusal.is_none() && self.tensors.iter().all(|t| t.broken.is_none())
    }
}

/// Bytes looked at in one go by one core, rounded down to whole blocks.
const PIECE: usize = 256 * 1024;

/// Reads the whole file, on rayon's current pool. `advance` is told of bytes as they are read
/// (each byte of a tensor twice: once for its own digest, once for the file's).
pub fn verify(
    path: &Path,
    interrupted: &AtomicBool,
    advance: &mut dyn FnMut(&str, u64),
) -> Result<Report, Error> {
    let file = GgufFile::open(path).map_err(|source| Error::Gguf {
        path: path.to_owned(),
        source,
    })?;
    let stop = || {
        if interrupted.load(Ordering::Relaxed) {
            Err(Error::Interrupted)
        } else {
            Ok(())
        }
    };
    let mut tensors = Vec::with_capacity(file.tensors().len());
    for tensor in file.tensors() {
        stop()?;
        let data = file.data(tensor);
        tensors.push(Verdict {
            name: tensor.name.clone(),
            digest: digest(data),
            broken: broken(tensor, data),
        });
        Error::intact(file.map())?;
        advance(&tensor.name, data.len() as u64);
    }
    let mut whole = blake3::Hasher::new();
    for piece in file.map().chunks(64 << 20) {
        stop()?;
        whole.update_rayon(piece);
        advance("digest of the file", piece.len() as u64);
    }
    Error::intact(file.map())?;
    Ok(Report {
        digest: whole.finalize(),
        refusal: schema::check(&file).err(),
        tensors,
    })
}

fn digest(data: &[u8]) -> blake3::Hash {
    blake3::Hasher::new().update_rayon(data).finalize()
}

fn broken(tensor: &TensorInfo, data: &[u8]) -> Option<usize> {
    let blocks = PIECE / tensor.ty.type_size();
    data.par_chunks(blocks * tensor.ty.type_size())
        .enumerate()
        .find_map_first(|(at, piece)| Some(at * blocks + first_broken_block(tensor.ty, piece)?))
}
