//! Writes a GGUF file as a stream: the whole layout is known before the first byte, then each
//! tensor's bytes come in order, in pieces of any size. Memory does not grow with the model.
//!
//! Refuses what the reader would refuse, and bytes that do not fit the plan.

use super::{ALIGNMENT_KEY, Array, DEFAULT_ALIGNMENT, MAGIC, MAX_NAME, Metadata, Value, kind};
use crate::quant::TensorType;
use std::io::{self, Write};
use std::ops::Range;

/// A tensor to come.
#[derive(Debug, Clone, PartialEq)]
pub struct PlannedTensor {
    pub name: String,
    pub ty: TensorType,
    /// Sizes, fastest first: 1 to 4 of them.
    pub shape: Vec<u64>,
}

impl PlannedTensor {
    /// Bytes of data, `None` when the type cannot hold rows of this length.
    pub fn size(&self) -> Option<u64> {
        let row = usize::try_from(*self.shape.first()?).ok()?;
        let row_bytes = self.ty.row_bytes(row)? as u64;
        let rows = self.shape[1..].iter();
        rows.copied().try_fold(row_bytes, u64::checked_mul)
    }
}

#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("{name}: cannot be written: {what}")]
pub struct LayoutError {
    pub name: String,
    pub what: &'static str,
}

/// Header and offsets of a file to be written.
#[derive(Debug, Clone)]
pub struct Layout {
    header: Vec<u8>,
    /// Bytes of each tensor and the padding after it.
    sizes: Vec<(u64, u64)>,
}

impl Layout {
    /// Lays tensors out in the given order at the default alignment of 32 bytes.
    pub fn new(metadata: &Metadata, tensors: &[PlannedTensor]) -> Result<Self, LayoutError> {
        let mut header = Vec::new();
        header.extend(MAGIC);
        header.extend(3u32.to_le_bytes());
        header.extend((tensors.len() as u64).to_le_bytes());
        let keys: Vec<_> = metadata
            .map
            .iter()
            .filter(|(key, _)| *key != ALIGNMENT_KEY)
            .collect();
        header.extend((keys.len() as u64 + 1).to_le_bytes());
        // The architecture first, as the specification asks; readers do not depend on it.
        let is_first = |key: &str| key == "general.architecture";
        let alignment = Value::U32(DEFAULT_ALIGNMENT as u32);
        let alignment = (ALIGNMENT_KEY, &alignment);
        let keys = || keys.iter().map(|(key, value)| (key.as_str(), *value));
        for (key, value) in keys()
            .filter(|(key, _)| is_first(key))
            .chain([alignment])
            .chain(keys().filter(|(key, _)| !is_first(key)))
        {
            put_str(&mut header, key);
            put_value(&mut header, value);
        }
        let mut names = std::collections::HashSet::new();
        let mut sizes = Vec::with_capacity(tensors.len());
        let mut offset = 0u64;
        for tensor in tensors {
            let refuse = |what| LayoutError {
                name: tensor.name.clone(),
                what,
            };
            if tensor.name.len() > MAX_NAME {
                return Err(refuse("the name has more than 63 bytes"));
            }
            if !names.insert(&tensor.name) {
                return Err(refuse("the name is taken"));
            }
            if !(1..=4).contains(&tensor.shape.len()) || tensor.shape.contains(&0) {
                return Err(refuse("the shape wants 1 to 4 sizes above 0"));
            }
            let size = tensor.size();
            let size = size.ok_or_else(|| refuse("its rows are no whole number of blocks"))?;
            let padded = size.checked_next_multiple_of(DEFAULT_ALIGNMENT);
            let end = padded.and_then(|padded| offset.checked_add(padded));
            let end = end.ok_or_else(|| refuse("the file would be beyond 2^64 bytes"))?;
            put_str(&mut header, &tensor.name);
            header.extend((tensor.shape.len() as u32).to_le_bytes());
            for n in &tensor.shape {
                header.extend(n.to_le_bytes());
            }
            header.extend(tensor.ty.id().to_le_bytes());
            header.extend(offset.to_le_bytes());
            sizes.push((size, end - offset - size));
            offset = end;
        }
        header.resize(header.len().next_multiple_of(DEFAULT_ALIGNMENT as usize), 0);
        Ok(Self { header, sizes })
    }

    /// Bytes of the finished file.
    pub fn file_size(&self) -> u64 {
        let data = self.sizes.iter().map(|(size, padding)| size + padding);
        self.header.len() as u64 + data.sum::<u64>()
    }

    /// What stands before the first tensor.
    pub fn header(&self) -> &[u8] {
        &self.header
    }

    /// Where each tensor's bytes lie in the file.
    pub fn places(&self) -> impl Iterator<Item = Range<u64>> {
        let start = self.header.len() as u64;
        self.sizes.iter().scan(start, |at, (size, padding)| {
            let place = *at..*at + size;
            *at = place.end + padding;
            Some(place)
        })
    }
}

fn put_str(out: &mut Vec<u8>, text: &str) {
    out.extend((text.len() as u64).to_le_bytes());
    out.extend(text.as_bytes());
}

fn put_value(out: &mut Vec<u8>, value: &Value) {
    let mut put = |kind: u32, bytes: &[u8]| {
        out.extend(kind.to_le_bytes());
        out.extend(bytes);
    };
    match value {
        Value::U8(v) => put(kind::U8, &v.to_le_bytes()),
        Value::I8(v) => put(kind::I8, &v.to_le_bytes()),
        Value::U16(v) => put(kind::U16, &v.to_le_bytes()),
        Value::I16(v) => put(kind::I16, &v.to_le_bytes()),
        Value::U32(v) => put(kind::U32, &v.to_le_bytes()),
        Value::I32(v) => put(kind::I32, &v.to_le_bytes()),
        Value::F32(v) => put(kind::F32, &v.to_le_bytes()),
        Value::U64(v) => put(kind::U64, &v.to_le_bytes()),
        Value::I64(v) => put(kind::I64, &v.to_le_bytes()),
        Value::F64(v) => put(kind::F64, &v.to_le_bytes()),
        Value::Bool(v) => put(kind::BOOL, &[u8::from(*v)]),
        Value::Str(v) => {
            put(kind::STR, &[]);
            put_str(out, v);
        }
        Value::Array(v) => {
            put(kind::ARRAY, &[]);
            put_array(out, v);
        }
    }
}

fn put_array(out: &mut Vec<u8>, array: &Array) {
    fn put<T: Copy, const N: usize>(out: &mut Vec<u8>, kind: u32, v: &[T], to: fn(T) -> [u8; N]) {
        out.extend(kind.to_le_bytes());
        out.extend((v.len() as u64).to_le_bytes());
        out.extend(v.iter().flat_map(|&x| to(x)));
    }
    match array {
        Array::U8(v) => put(out, kind::U8, v, u8::to_le_bytes),
        Array::I8(v) => put(out, kind::I8, v, i8::to_le_bytes),
        Array::U16(v) => put(out, kind::U16, v, u16::to_le_bytes),
        Array::I16(v) => put(out, kind::I16, v, i16::to_le_bytes),
        Array::U32(v) => put(out, kind::U32, v, u32::to_le_bytes),
        Array::I32(v) => put(out, kind::I32, v, i32::to_le_bytes),
        Array::F32(v) => put(out, kind::F32, v, f32::to_le_bytes),
        Array::U64(v) => put(out, kind::U64, v, u64::to_le_bytes),
        Array::I64(v) => put(out, kind::I64, v, i64::to_le_bytes),
        Array::F64(v) => put(out, kind::F64, v, f64::to_le_bytes),
        Array::Bool(v) => put(out, kind::BOOL, v, |b| [u8::from(b)]),
        Array::Str(v) => {
            out.extend(kind::STR.to_le_bytes());
            out.extend((v.len() as u64).to_le_bytes());
            v.iter().for_each(|text| put_str(out, text));
        }
    }
}

/// Writes tensor bytes in the order of the layout. Dropping it early leaves a file that the
/// reader refuses: whoever owns the file removes it.
pub struct GgufWriter<W: Write> {
    out: W,
    layout: Layout,
    tensor: usize,
    written: u64,
}

impl<W: Write> GgufWriter<W> {
    /// Writes the header.
    pub fn new(mut out: W, layout: Layout) -> io::Result<Self> {
        out.write_all(&layout.header)?;
        let mut writer = Self {
            out,
            layout,
            tensor: 0,
            written: 0,
        };
        writer.close_full_tensors()?;
        Ok(writer)
    }

    /// Goes on at tensor `first`, whose place `out` stands at: what is before it is there.
    pub fn resume(out: W, layout: Layout, first: usize) -> Self {
        Self {
            out,
            layout,
            tensor: first,
            written: 0,
        }
    }

    /// How many tensors are whole.
    pub fn finished(&self) -> usize {
        self.tensor
    }

    /// The bytes of these.
    pub fn finished_bytes(&self) -> u64 {
        let sizes = self.layout.sizes[..self.tensor].iter();
        sizes.map(|(size, _)| size).sum()
    }

    /// The output, of which tensors are missing.
    pub fn unfinished(self) -> W {
        self.out
    }

    /// Appends bytes of the current tensor; the next one begins when it is full. Bytes beyond
    /// the current tensor are an error, and nothing is written.
    pub fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        let room = match self.layout.sizes.get(self.tensor) {
            Some((size, _)) => size - self.written,
            None => 0,
        };
        if bytes.len() as u64 > room {
            return Err(io::Error::other(format!(
                "tensor {}: {} bytes given, {room} fit",
                self.tensor,
                bytes.len()
            )));
        }
        self.out.write_all(bytes)?;
        self.written += bytes.len() as u64;
        self.close_full_tensors()
    }

    fn close_full_tensors(&mut self) -> io::Result<()> {
        if let Some(&(size, padding)) = self.layout.sizes.get(self.tensor)
            && self.written == size
        {
            self.out
                .write_all(&[0; DEFAULT_ALIGNMENT as usize][..padding as usize])?;
            self.tensor += 1;
            self.written = 0;
        }
        Ok(())
    }

    /// Returns the output, flushed; an error when tensors are missing.
    pub fn finish(mut self) -> io::Result<W> {
        if self.tensor != self.layout.sizes.len() {
            return Err(io::Error::other(format!(
                "{} of {} tensors were written",
                self.tensor,
                self.layout.sizes.len()
            )));
        }
        self.out.flush()?;
        Ok(self.out)
    }
}
