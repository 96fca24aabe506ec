//! llama.cpp, as it comes in the same library: an honest side for benchmarks and cross-checks on
//! the same file in the same process. The daemon never calls it.

mod state;

use std::ffi::CString;
use std::path::Path;
use std::ptr::NonNull;

use crate::quant::TensorType;
use ggml_sys as sys;

/// A model of llama.cpp with one context, on the CPU, weights mapped and not repacked.
pub struct Llama {
    model: NonNull<sys::llama_model>,
    context: NonNull<sys::llama_context>,
    n_vocab: usize,
    n_batch: usize,
    sequences: usize,
}

#[derive(Debug, thiserror::Error)]
#[error("llama.cpp: {0}")]
pub struct RivalError(String);

fn c_path(path: &Path) -> Result<CString, RivalError> {
    let name = CString::new(path.as_os_str().as_encoded_bytes());
    name.map_err(|_| RivalError(format!("{}: the path holds a zero byte", path.display())))
}

/// A weight's name and its importance, `[matrices, row]`, as llama.cpp's quantizer takes them.
pub type RivalImportance = (String, Vec<f32>);

/// llama.cpp's quantizer, as `llama-quantize` calls it: `source` to `target` at the mix of number
/// `general.file_type`. Overwrites `target`.
pub fn quantize(
    source: &Path,
    target: &Path,
    file_type: u32,
    importance: &[RivalImportance],
    threads: usize,
) -> Result<(), RivalError> {
    let (from, to) = (c_path(source)?, c_path(target)?);
    let name = |(name, _): &RivalImportance| CString::new(name.as_bytes());
    let names = importance.iter().map(name).collect::<Result<Vec<_>, _>>();
    let names = names.map_err(|_| RivalError("a tensor's name holds a zero byte".into()))?;
    let entry = |(name, (_, values)): (&CString, &RivalImportance)| sys::llama_model_imatrix_data {
        name: name.as_ptr(),
        data: values.as_ptr(),
        size: values.len(),
    };
    let mut list: Vec<_> = names.iter().zip(importance).map(entry).collect();
    list.push(sys::llama_model_imatrix_data {
        name: std::ptr::null(),
        data: std::ptr::null(),
        size: 0,
    });
    crate::backend::route_logs();
    // SAFETY: default parameters with plain fields changed; paths and names are terminated strings
    // and the list ends in an entry without a name; all of them outlive the call. It checks sizes
    // and types itself, and returns a status where it throws.
    let status = unsafe {
        sys::llama_backend_init();
        let mut params = sys::llama_model_quantize_default_params();
        params.nthread = threads as i32;
        params.ftype = file_type as _;
        if !importance.is_empty() {
            params.imatrix = list.as_ptr();
        }
        sys::llama_model_quantize(from.as_ptr(), to.as_ptr(), &params)
    };
    match status {
        0 => Ok(()),
        status => Err(RivalError(format!(
            "{}: quantizing to file type {file_type} failed with {status}",
            source.display()
        ))),
    }
}

/// ggml's own quantizer of rows: what [`crate::quant::quantize_rows`] is held against.
///
/// # Panics
/// Where values are no whole rows or not finite, the output has not room for just these, a weight is
/// missing, or the type wants an importance and there is none.
pub fn quantize_rows(
    ty: TensorType,
    values: &[f32],
    row: usize,
    importance: Option<&[f32]>,
    out: &mut [u8],
) {
    let is_whole = row > 0 && values.len().is_multiple_of(row);
    assert!(is_whole && values.iter().all(|x| x.is_finite()), "{ty}");
    assert!(importance.is_none_or(|weights| weights.len() == row));
    assert!(importance.is_some() || !ty.needs_importance(), "{ty}");
    let rows = values.len() / row;
    assert_eq!(Some(out.len()), ty.row_bytes(values.len()));
    let weights = importance.map_or(std::ptr::null(), <[f32]>::as_ptr);
    let (from, to) = (values.as_ptr(), out.as_mut_ptr().cast());
    assert!((out.as_ptr() as usize).is_multiple_of(2) && ty.row_bytes(row).is_some());
    // SAFETY: `rows` rows of whole blocks, a weight for each column or none where none is needed, room
    // for the blocks, aligned for their scales.
    unsafe {
        let id = ty.id() as sys::ggml_type;
        sys::ggml_quantize_chunk(id, from, to, 0, rows as i64, row as i64, weights);
    }
}

/// Which cache rows llama.cpp keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RivalCache {
    F32,
    F16,
}

impl Llama {
    /// Opens `path` with room for `context` tokens, fed at most `batch` at a time.
    pub fn open(
        path: &Path,
        threads: usize,
        context: usize,
        batch: usize,
        cache: RivalCache,
    ) -> Result<Self, RivalError> {
        Self::open_many(path, (threads, 0), context, batch, cache, 1)
    }

    /// As [`Llama::open`], for `sequences` conversations with room for `context` tokens each, with so
    /// many layers on a device that this build has.
    pub fn open_many(
        path: &Path,
        (threads, gpu_layers): (usize, usize),
        context: usize,
        batch: usize,
        cache: RivalCache,
        sequences: usize,
    ) -> Result<Self, RivalError> {
        let fail = |what: &str| RivalError(format!("{}: {what}", path.display()));
        let name = c_path(path)?;
        crate::backend::route_logs();
        let ty = match cache {
            RivalCache::F32 => sys::GGML_TYPE_F32,
            RivalCache::F16 => sys::GGML_TYPE_F16,
        };
        // SAFETY: default parameters with plain fields changed; the path is a terminated string;
        // null results are checked.
        unsafe {
            sys::llama_backend_init();
            let mut params = sys::llama_model_default_params();
            params.n_gpu_layers = i32::try_from(gpu_layers).unwrap_or(i32::MAX);
            params.use_extra_bufts = false;
            let model = sys::llama_model_load_from_file(name.as_ptr(), params);
            let model = NonNull::new(model).ok_or_else(|| fail("the model does not load"))?;
            let mut params = sys::llama_context_default_params();
            params.n_ctx = (context * sequences) as u32;
            params.n_seq_max = sequences as u32;
            params.n_batch = batch as u32;
            params.n_ubatch = batch as u32;
            params.n_threads = threads as i32;
            params.n_threads_batch = threads as i32;
            params.type_k = ty;
            params.type_v = ty;
            params.no_perf = true;
            let Some(context) = NonNull::new(sys::llama_init_from_model(model.as_ptr(), params))
            else {
                sys::llama_model_free(model.as_ptr());
                return Err(fail("no context"));
            };
            let vocab = sys::llama_model_get_vocab(model.as_ptr());
            Ok(Self {
                model,
                context,
                n_vocab: sys::llama_vocab_n_tokens(vocab).max(0) as usize,
                n_batch: batch,
                sequences,
            })
        }
    }

    /// Feeds `tokens` and returns the logits of the last one, `[n_vocab]`.
    pub fn feed(&mut self, tokens: &[u32]) -> Result<Vec<f32>, RivalError> {
        let n_vocab = self.n_vocab;
        if tokens.is_empty() || tokens.iter().any(|&t| t as usize >= n_vocab) {
            return Err(RivalError(
                "no tokens, or one outside the vocabulary".into(),
            ));
        }
        for chunk in tokens.chunks(self.n_batch) {
            let mut chunk: Vec<i32> = chunk.iter().map(|&t| t as i32).collect();
            // SAFETY: the batch points to `chunk`, which outlives the call; every token is in
            // the vocabulary.
            let status = unsafe {
                let batch = sys::llama_batch_get_one(chunk.as_mut_ptr(), chunk.len() as i32);
                sys::llama_decode(self.context.as_ptr(), batch)
            };
            if status != 0 {
                return Err(RivalError(format!("decode failed with {status}")));
            }
        }
        // SAFETY: a batch was decoded, so its last position has logits of the vocabulary's size.
        unsafe {
            let row = sys::llama_get_logits_ith(self.context.as_ptr(), -1);
            let row = NonNull::new(row).ok_or_else(|| RivalError("no logits".into()))?;
            Ok(std::slice::from_raw_parts(row.as_ptr(), n_vocab).to_vec())
        }
    }

    /// Feeds the next tokens of several sequences in one batch and returns the logits of each
    /// one's last, `[n_vocab]`.
    pub fn feed_many(&mut self, lanes: &[(usize, &[u32])]) -> Result<Vec<Vec<f32>>, RivalError> {
        let refuse = |what: &str| Err(RivalError(what.into()));
        let n_vocab = self.n_vocab;
        let (mut tokens, mut owners, mut wanted) = (Vec::new(), Vec::new(), Vec::new());
        for &(sequence, lane) in lanes {
            if sequence >= self.sequences || lane.is_empty() {
                return refuse("a sequence that there is not, or no tokens");
            }
            tokens.extend(lane.iter().map(|&t| t as i32));
            owners.resize(tokens.len(), sequence as i32);
            wanted.resize(tokens.len() - 1, 0i8);
            wanted.push(1);
        }
        let is_known = |&t: &i32| (0..n_vocab as i32).contains(&t);
        if tokens.is_empty() || tokens.len() > self.n_batch || !tokens.iter().all(is_known) {
            return refuse("no tokens, more than a batch, or one outside the vocabulary");
        }
        let mut n_owners = vec![1i32; tokens.len()];
        let mut owner_of: Vec<*mut i32> = owners.iter_mut().map(std::ptr::from_mut).collect();
        let batch = sys::llama_batch {
            n_tokens: tokens.len() as i32,
            token: tokens.as_mut_ptr(),
            embd: std::ptr::null_mut(),
            // It goes on from what each sequence holds.
            pos: std::ptr::null_mut(),
            n_seq_id: n_owners.as_mut_ptr(),
            seq_id: owner_of.as_mut_ptr(),
            logits: wanted.as_mut_ptr(),
        };
        // SAFETY: every list has an entry for each token and outlives the call; each token is in
        // the vocabulary, each sequence below the number that the context was made for.
        let status = unsafe { sys::llama_decode(self.context.as_ptr(), batch) };
        if status != 0 {
            return Err(RivalError(format!("decode failed with {status}")));
        }
        let rows = (0..).zip(&wanted).filter(|(_, w)| **w == 1);
        let row = |(at, _): (i32, _)| {
            // SAFETY: the position was decoded and wanted, so its logits are of the vocabulary's
            // size until the next batch.
            unsafe {
                let row = sys::llama_get_logits_ith(self.context.as_ptr(), at);
                let row = NonNull::new(row).ok_or_else(|| RivalError("no logits".into()))?;
                Ok(std::slice::from_raw_parts(row.as_ptr(), n_vocab).to_vec())
            }
        };
        rows.map(row).collect()
    }

    /// A sequence's state, as [`Llama::set_state`] takes it.
    pub fn state(&mut self, sequence: usize) -> Result<Vec<u8>, RivalError> {
        let refuse = |what: &str| RivalError(format!("sequence {sequence}: {what}"));
        if sequence >= self.sequences {
            return Err(refuse("there is none"));
        }
        let (context, sequence) = (self.context.as_ptr(), sequence as i32);
        // SAFETY: the context is alive and has the sequence; no more is written than `state` holds.
        let (written, state) = unsafe {
            let mut state = vec![0u8; sys::llama_state_seq_get_size(context, sequence)];
            let (to, len) = (state.as_mut_ptr(), state.len());
            let written = sys::llama_state_seq_get_data(context, to, len, sequence);
            (written, state)
        };
        if written != state.len() {
            return Err(refuse("its state was not written"));
        }
        Ok(state)
    }

    /// Puts a sequence into a state that the same context gave.
    pub fn set_state(&mut self, sequence: usize, state: &[u8]) -> Result<(), RivalError> {
        let refuse = |what: &str| RivalError(format!("sequence {sequence}: {what}"));
        if sequence >= self.sequences {
            return Err(refuse("there is none"));
        }
        let (context, to) = (self.context.as_ptr(), sequence as i32);
        // SAFETY: the context is alive and has the sequence; no more is read than `state` holds.
        let read =
            unsafe { sys::llama_state_seq_set_data(context, state.as_ptr(), state.len(), to) };
        if read != state.len() {
            return Err(refuse("its state was not taken"));
        }
        Ok(())
    }

    /// Puts a sequence that has read some tokens where it would be after `tokens` of them: its rows are
    /// the same again and again. What it says then means nothing, how long it takes does.
    pub fn stretch(&mut self, sequence: usize, tokens: usize) -> Result<(), RivalError> {
        let state = self.state(sequence)?;
        self.set_state(sequence, &state::stretched(&state, tokens)?)
    }

    /// Forgets every token fed.
    pub fn clear(&mut self) {
        // SAFETY: the context is alive and owns its memory.
        unsafe { sys::llama_memory_clear(sys::llama_get_memory(self.context.as_ptr()), true) };
    }
}

impl Drop for Llama {
    fn drop(&mut self) {
        // SAFETY: both made by `open`, freed once, the context before its model.
        unsafe {
            sys::llama_free(self.context.as_ptr());
            sys::llama_model_free(self.model.as_ptr());
        }
    }
}
