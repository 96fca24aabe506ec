//! Reads a GGUF file through a map. Nothing the file says is trusted before it is bounded by the
//! file's length; no allocation is larger than a small multiple of bytes that are really there.

use super::{ALIGNMENT_KEY, Array, DEFAULT_ALIGNMENT, MAGIC, MAX_NAME, Metadata, Value, kind};
use crate::map::{Damaged, GuardedMap, map_file};
use crate::quant::TensorType;
use std::collections::HashMap;
use std::collections::btree_map::Entry;
use std::path::Path;
use std::sync::Arc;

/// One tensor of a file. Its bytes lie inside the file and overlap no other tensor's.
#[derive(Debug, Clone, PartialEq)]
pub struct TensorInfo {
    pub name: String,
    pub ty: TensorType,
    /// Sizes, fastest first, 1 beyond `n_dims`; none is 0.
    pub ne: [u64; 4],
    pub n_dims: usize,
    /// Of the first byte, from the start of the file; a multiple of the file's alignment.
    pub offset: usize,
    /// Bytes.
    pub size: usize,
}

impl TensorInfo {
    /// Number of values.
    pub fn elements(&self) -> u64 {
        self.ne.iter().product()
    }
    /// Number of rows of `ne[0]` values.
    pub fn rows(&self) -> u64 {
        self.ne[1..].iter().product()
    }
    /// The sizes that the file states.
    pub fn shape(&self) -> &[u64] {
        &self.ne[..self.n_dims]
    }
}

/// Why a file was refused: what, where, got, wanted.
#[derive(Debug, thiserror::Error)]
pub enum GgufError {
    /// Which file is the caller's to say, as of every other error here.
    #[error(transparent)]
    Io(#[from] std::io::Error),
    #[error(transparent)]
    Damaged(#[from] Damaged),
    #[error("not a GGUF file: it begins with {got:02x?}, wanted \"GGUF\"")]
    Magic { got: [u8; 4] },
    #[error("GGUF version {got}, this program reads versions 2 and 3 (little-endian)")]
    Version { got: u32 },
    #[error("{what} at byte {at}: wants {wanted} bytes, the file has {left} left")]
    Truncated {
        what: String,
        at: usize,
        wanted: u64,
        left: usize,
    },
    #[error("{what} at byte {at}: not UTF-8")]
    Utf8 { what: String, at: usize },
    #[error("key `{key}`: value type {got} is unknown")]
    ValueType { key: String, got: u32 },
    #[error("key `{key}`: an array inside an array")]
    NestedArray { key: String },
    #[error("key `{key}`: got {got}, a bool is 0 or 1")]
    Bool { key: String, got: u8 },
    #[error("key `{key}` appears twice")]
    DuplicateKey { key: String },
    #[error("`general.alignment` is {got}, wanted a power of two from 8 to 65536 as u32")]
    Alignment { got: String },
    #[error("tensor name of {got} bytes at byte {at}, at most {MAX_NAME} fit")]
    NameLength { at: usize, got: u64 },
    #[error("tensor `{name}` appears twice")]
    DuplicateTensor { name: String },
    #[error("{name}: {got} dimensions, wanted 1 to 4")]
    Dimensions { name: String, got: u32 },
    #[error("{name}: shape {shape:?} is empty or beyond what can be addressed")]
    Shape { name: String, shape: Vec<u64> },
    #[error("{name}: element type {got} is not supported")]
    TensorType { name: String, got: u32 },
    #[error("{name}: rows of {row} values cannot be {ty}, wanted a multiple of {}", ty.block_size())]
    RowLength {
        name: String,
        row: u64,
        ty: TensorType,
    },
    #[error("{name}: data offset {got} is not a multiple of the alignment {alignment}")]
    Misaligned {
        name: String,
        got: u64,
        alignment: u64,
    },
    #[error("{name}: data ends at byte {end}, the file at {len} (is it truncated?)")]
    BeyondFile { name: String, end: u128, len: usize },
    #[error("the data of {first} and {second} overlap")]
    Overlap { first: String, second: String },
}

/// An open file: metadata and tensor entries read and checked, data mapped.
#[derive(Debug, Clone)]
pub struct GgufFile {
    map: Arc<GuardedMap>,
    metadata: Metadata,
    tensors: Vec<TensorInfo>,
    by_name: HashMap<String, usize>,
    alignment: usize,
    data_start: usize,
}

impl GgufFile {
    pub fn open(path: impl AsRef<Path>) -> Result<Self, GgufError> {
        let map = Arc::new(map_file(path.as_ref())?);
        let header = Header::parse(&map);
        // Zeros where the header was would be called something else.
        if let Some(damaged) = map.damaged() {
            return Err(damaged.into());
        }
        let header = header?;
        let by_name = header.tensors.iter().enumerate();
        let by_name = by_name.map(|(at, t)| (t.name.clone(), at)).collect();
        Ok(Self {
            map,
            metadata: header.metadata,
            tensors: header.tensors,
            by_name,
            alignment: header.alignment as usize,
            data_start: header.data_start,
        })
    }

    pub fn metadata(&self) -> &Metadata {
        &self.metadata
    }

    /// In the order of the file.
    pub fn tensors(&self) -> &[TensorInfo] {
        &self.tensors
    }

    pub fn tensor(&self, name: &str) -> Option<&TensorInfo> {
        self.by_name.get(name).map(|&at| &self.tensors[at])
    }

    /// The bytes of one of this file's own tensors.
    ///
    /// # Panics
    /// If `tensor` came from a longer file.
    pub fn data(&self, tensor: &TensorInfo) -> &[u8] {
        &self.map[tensor.offset..tensor.offset + tensor.size]
    }

    /// Whether bytes that were read may have been zeros; see [`GuardedMap::damaged`].
    pub fn damaged(&self) -> Option<Damaged> {
        self.map.damaged()
    }

    /// The whole file; [`TensorInfo::offset`] counts from its first byte.
    pub fn map(&self) -> &Arc<GuardedMap> {
        &self.map
    }

    pub fn alignment(&self) -> usize {
        self.alignment
    }

    /// Where the tensors' bytes begin, from the start of the file.
    pub fn data_start(&self) -> usize {
        self.data_start
    }
}

struct Header {
    metadata: Metadata,
    tensors: Vec<TensorInfo>,
    alignment: u64,
    data_start: usize,
}

impl Header {
    fn parse(file: &[u8]) -> Result<Self, GgufError> {
        let mut cursor = Cursor { file, at: 0 };
        let magic = cursor.array::<4>("magic")?;
        if magic != MAGIC {
            return Err(GgufError::Magic { got: magic });
        }
        let version = cursor.u32("version")?;
        if version != 2 && version != 3 {
            return Err(GgufError::Version { got: version });
        }
        let n_tensors = cursor.u64("tensor count")?;
        let n_keys = cursor.u64("key count")?;
        // The least an entry takes: a count beyond the file is refused before the first is read.
        cursor.expect_items("keys", n_keys, 8 + 4 + 1)?;
        let metadata = cursor.metadata(n_keys)?;
        let alignment = match metadata.get(ALIGNMENT_KEY) {
            None => DEFAULT_ALIGNMENT,
            Some(&Value::U32(a)) if a.is_power_of_two() && (8..=65536).contains(&a) => a.into(),
            Some(other) => {
                let got = format!("{other:?}").chars().take(80).collect();
                return Err(GgufError::Alignment { got });
            }
        };
        cursor.expect_items("tensor entries", n_tensors, 8 + 4 + 8 + 4 + 8)?;
        let mut entries = Vec::new();
        for _ in 0..n_tensors {
            entries.push(cursor.tensor()?);
        }
        let data_start = cursor.at.next_multiple_of(alignment as usize);
        let tensors = place(entries, data_start, alignment, file.len())?;
        Ok(Self {
            metadata,
            tensors,
            alignment,
            data_start,
        })
    }
}

/// A tensor entry as the file states it; the offset counts from the start of the data.
struct RawTensor {
    name: String,
    n_dims: usize,
    ne: [u64; 4],
    ty: TensorType,
    offset: u64,
}

/// Turns offsets within the data into checked ranges of the file.
fn place(
    entries: Vec<RawTensor>,
    data_start: usize,
    alignment: u64,
    len: usize,
) -> Result<Vec<TensorInfo>, GgufError> {
    let mut seen = std::collections::HashSet::new();
    let mut tensors = Vec::with_capacity(entries.len());
    for raw in entries {
        let RawTensor {
            name,
            n_dims,
            ne,
            ty,
            offset,
        } = raw;
        if !seen.insert(name.clone()) {
            return Err(GgufError::DuplicateTensor { name });
        }
        if !offset.is_multiple_of(alignment) {
            return Err(GgufError::Misaligned {
                name,
                got: offset,
                alignment,
            });
        }
        let row = usize::try_from(ne[0]).ok();
        let Some(row_bytes) = row.and_then(|row| ty.row_bytes(row)) else {
            return Err(GgufError::RowLength {
                name,
                row: ne[0],
                ty,
            });
        };
        // ne's product fits i64 (checked when read), and a block is at most 210 bytes: u128 holds all.
        let size = ne[1..].iter().map(|&n| u128::from(n)).product::<u128>() * row_bytes as u128;
        let end = data_start as u128 + u128::from(offset) + size;
        if end > len as u128 {
            return Err(GgufError::BeyondFile { name, end, len });
        }
        tensors.push(TensorInfo {
            name,
            ty,
            ne,
            n_dims,
            offset: data_start + offset as usize,
            size: size as usize,
        });
    }
    let mut order: Vec<&TensorInfo> = tensors.iter().collect();
    order.sort_by_key(|t| t.offset);
    for pair in order.windows(2) {
        if pair[0].offset + pair[0].size > pair[1].offset {
            return Err(GgufError::Overlap {
                first: pair[0].name.clone(),
                second: pair[1].name.clone(),
            });
        }
    }
    Ok(tensors)
}

struct Cursor<'a> {
    file: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    fn left(&self) -> usize {
        self.file.len() - self.at
    }

    fn take(&mut self, what: &str, n: u64) -> Result<&'a [u8], GgufError> {
        let wanted = usize::try_from(n).ok().filter(|&n| n <= self.left());
        let Some(n) = wanted else {
            return Err(GgufError::Truncated {
                what: what.to_owned(),
                at: self.at,
                wanted: n,
                left: self.left(),
            });
        };
        let bytes = &self.file[self.at..self.at + n];
        self.at += n;
        Ok(bytes)
    }

    /// Refuses a count of items that could not all be there, at `least` bytes each.
    fn expect_items(&self, what: &str, n: u64, least: u64) -> Result<(), GgufError> {
        let wanted = n.saturating_mul(least);
        if wanted > self.left() as u64 {
            return Err(GgufError::Truncated {
                what: format!("{n} {what}"),
                at: self.at,
                wanted,
                left: self.left(),
            });
        }
        Ok(())
    }

    fn array<const N: usize>(&mut self, what: &str) -> Result<[u8; N], GgufError> {
        let bytes = self.take(what, N as u64)?;
        let mut array = [0; N];
        array.copy_from_slice(bytes);
        Ok(array)
    }

    fn u32(&mut self, what: &str) -> Result<u32, GgufError> {
        self.array(what).map(u32::from_le_bytes)
    }

    fn u64(&mut self, what: &str) -> Result<u64, GgufError> {
        self.array(what).map(u64::from_le_bytes)
    }

    fn string(&mut self, what: &str) -> Result<String, GgufError> {
        let len = self.u64(what)?;
        let at = self.at;
        let bytes = self.take(what, len)?;
        match std::str::from_utf8(bytes) {
            Ok(text) => Ok(text.to_owned()),
            Err(_) => Err(GgufError::Utf8 {
                what: what.to_owned(),
                at,
            }),
        }
    }

    fn metadata(&mut self, n_keys: u64) -> Result<Metadata, GgufError> {
        let mut metadata = Metadata::default();
        for _ in 0..n_keys {
            let key = self.string("key")?;
            let value = self.value(&key)?;
            match metadata.map.entry(key) {
                Entry::Vacant(slot) => slot.insert(value),
                Entry::Occupied(slot) => {
                    let key = slot.key().clone();
                    return Err(GgufError::DuplicateKey { key });
                }
            };
        }
        Ok(metadata)
    }

    fn value(&mut self, key: &str) -> Result<Value, GgufError> {
        Ok(match self.u32(key)? {
            kind::U8 => Value::U8(u8::from_le_bytes(self.array(key)?)),
            kind::I8 => Value::I8(i8::from_le_bytes(self.array(key)?)),
            kind::U16 => Value::U16(u16::from_le_bytes(self.array(key)?)),
            kind::I16 => Value::I16(i16::from_le_bytes(self.array(key)?)),
            kind::U32 => Value::U32(u32::from_le_bytes(self.array(key)?)),
            kind::I32 => Value::I32(i32::from_le_bytes(self.array(key)?)),
            kind::F32 => Value::F32(f32::from_le_bytes(self.array(key)?)),
            kind::U64 => Value::U64(u64::from_le_bytes(self.array(key)?)),
            kind::I64 => Value::I64(i64::from_le_bytes(self.array(key)?)),
            kind::F64 => Value::F64(f64::from_le_bytes(self.array(key)?)),
            kind::BOOL => Value::Bool(self.bool(key)?),
            kind::STR => Value::Str(self.string(key)?),
            kind::ARRAY => Value::Array(self.items(key)?),
            got => {
                let key = key.to_owned();
                return Err(GgufError::ValueType { key, got });
            }
        })
    }

    fn bool(&mut self, key: &str) -> Result<bool, GgufError> {
        match self.array::<1>(key)?[0] {
            0 => Ok(false),
            1 => Ok(true),
            got => {
                let key = key.to_owned();
                Err(GgufError::Bool { key, got })
            }
        }
    }

    fn items(&mut self, key: &str) -> Result<Array, GgufError> {
        let item = self.u32(key)?;
        let n = self.u64(key)?;
        Ok(match item {
            kind::U8 => Array::U8(self.numbers(key, n, u8::from_le_bytes)?),
            kind::I8 => Array::I8(self.numbers(key, n, i8::from_le_bytes)?),
            kind::U16 => Array::U16(self.numbers(key, n, u16::from_le_bytes)?),
            kind::I16 => Array::I16(self.numbers(key, n, i16::from_le_bytes)?),
            kind::U32 => Array::U32(self.numbers(key, n, u32::from_le_bytes)?),
            kind::I32 => Array::I32(self.numbers(key, n, i32::from_le_bytes)?),
            kind::F32 => Array::F32(self.numbers(key, n, f32::from_le_bytes)?),
            kind::U64 => Array::U64(self.numbers(key, n, u64::from_le_bytes)?),
            kind::I64 => Array::I64(self.numbers(key, n, i64::from_le_bytes)?),
            kind::F64 => Array::F64(self.numbers(key, n, f64::from_le_bytes)?),
            kind::BOOL => {
                self.expect_items(key, n, 1)?;
                Array::Bool((0..n).map(|_| self.bool(key)).collect::<Result<_, _>>()?)
            }
            kind::STR => {
                // Each string states its length in 8 bytes, so the count is backed by the file.
                self.expect_items(key, n, 8)?;
                Array::Str((0..n).map(|_| self.string(key)).collect::<Result<_, _>>()?)
            }
            kind::ARRAY => {
                let key = key.to_owned();
                return Err(GgufError::NestedArray { key });
            }
            got => {
                let key = key.to_owned();
                return Err(GgufError::ValueType { key, got });
            }
        })
    }

    fn numbers<T, const N: usize>(
        &mut self,
        key: &str,
        n: u64,
        from: fn([u8; N]) -> T,
    ) -> Result<Vec<T>, GgufError> {
        let bytes = self.take(key, n.saturating_mul(N as u64))?;
        Ok(bytes.as_chunks().0.iter().map(|raw| from(*raw)).collect())
    }

    fn tensor(&mut self) -> Result<RawTensor, GgufError> {
        let at = self.at;
        let length = self.u64("tensor name")?;
        if length > MAX_NAME as u64 {
            return Err(GgufError::NameLength { at, got: length });
        }
        self.at = at;
        let name = self.string("tensor name")?;
        let n_dims = self.u32(&name)?;
        if !(1..=4).contains(&n_dims) {
            return Err(GgufError::Dimensions { name, got: n_dims });
        }
        let n_dims = n_dims as usize;
        let mut ne = [1u64; 4];
        for size in &mut ne[..n_dims] {
            *size = self.u64(&name)?;
        }
        // ggml counts in i64.
        let product = ne.iter().try_fold(1u64, |n, &size| n.checked_mul(size));
        if !matches!(product, Some(1..=0x7fff_ffff_ffff_ffff)) {
            let shape = ne[..n_dims].to_vec();
            return Err(GgufError::Shape { name, shape });
        }
        let id = self.u32(&name)?;
        let Some(ty) = TensorType::from_id(id) else {
            return Err(GgufError::TensorType { name, got: id });
        };
        let offset = self.u64(&name)?;
        Ok(RawTensor {
            name,
            n_dims,
            ne,
            ty,
            offset,
        })
    }
}

#[cfg(test)]
mod tests;
