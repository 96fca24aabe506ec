//! Attention of wide passes: the cache's rows are gathered and expanded to keys and values of a group of
//! heads at a time, as many as there is room for, and queries look at those.
//!
//! Few rows behind many others are looked at as small passes do, at the rows of the cache themselves:
//! expanding pays from about 170 rows on.

use std::ops::Range;

use ggml_kernels::cuda::attention::{
    FlashPass, MlaWeights, Rows, RowsPass, SmallMla, SmallPass, WideMla, gather_rows,
};
use ggml_kernels::cuda::driver::{Buffer, CudaError, Device, Part, Stream};
use ggml_kernels::cuda::mixers::{To, quantize_rows};
use ggml_kernels::cuda::weights::{Activations, Acts, Lane, Stack, WideLane};
use ggml_kernels::cuda::wide::{WideJob, WideMatrix, WideRows, WideTo, wide_products};
use half::f16;
use quantize::schema::Hparams;

use super::shape::mla_shape;
use super::weights::Expanding;

/// Bytes for expanded keys and values.
const ROOM: usize = 512 << 20;
/// Heads that are expanded together even where that takes more, while a quarter of what is free does.
const HEADS: usize = 8;
/// Rows of all lanes up to which nothing is expanded.
pub(super) const FEW: usize = 32;
/// Rows that look at the cache at a time.
const AT_ONCE: usize = 16;

/// What a pass sees of the cache, grown as sequences do.
#[derive(Debug)]
pub(super) struct Expanded {
    device: Device,
    starts_here: Vec<u32>,
    starts: Buffer<u32>,
    /// Keys of the pass under way, all lanes together.
    keys: usize,
    gathered: Buffer<f16>,
    rotated: Buffer<f16>,
    room: Buffer<f16>,
    queries: Buffer<f16>,
    few: Option<Few>,
}

/// For rows that look at the cache itself.
#[derive(Debug)]
struct Few {
    mla: SmallMla,
    lanes: Buffer<Lane>,
    out: Activations,
    rows: usize,
}

/// A layer's question.
#[derive(Debug, Clone, Copy)]
pub(super) struct Asked<'a> {
    /// The layer's number among those with a cache.
    pub number: usize,
    pub weights: MlaWeights<'a>,
    pub q: Part<'a, f32>,
    pub kv: Part<'a, f32>,
    /// `[rows, heads]`, before the sigmoid.
    pub gate: Option<Part<'a, f32>>,
    /// `[rows, heads * v]`.
    pub f16: Part<'a, f16>,
    pub f32: Option<Part<'a, f32>>,
}

impl Expanded {
    pub fn new(
        device: &Device,
        h: &Hparams,
        rows: usize,
        lanes: usize,
    ) -> Result<Expanded, CudaError> {
        let d = h.mla;
        let few = mla_shape(h).map(|shape| {
            Ok::<_, CudaError>(Few {
                mla: SmallMla::new(device, shape, d.rope_base, h.norm_eps, AT_ONCE as u32)?,
                lanes: device.zeroed(FEW)?,
                out: Activations::room(device, FEW * d.heads * d.v)?,
                rows: 0,
            })
        });
        Ok(Expanded {
            device: device.clone(),
            starts_here: Vec::new(),
            starts: device.zeroed(lanes)?,
            keys: 0,
            gathered: device.zeroed(0)?,
            rotated: device.zeroed(0)?,
            room: device.zeroed(0)?,
            queries: device.zeroed(rows * d.heads * d.qk())?,
            few: few.transpose()?,
        })
    }

    /// Where every lane's rows begin among the keys. No pass may be under way.
    pub fn begin(&mut self, h: &Hparams, lanes: &[WideLane]) -> Result<(), CudaError> {
        self.starts_here.clear();
        self.keys = 0;
        for lane in lanes {
            self.starts_here.push(self.keys as u32);
            self.keys += (lane.position + lane.rows) as usize;
        }
        self.starts.write(0, &self.starts_here)?;
        let rows: usize = lanes.iter().map(|l| l.rows as usize).sum();
        if let Some(few) = &mut self.few {
            few.rows = if rows <= FEW { rows } else { 0 };
            if few.rows > 0 {
                let each = lanes.iter().flat_map(|lane| {
                    (0..lane.rows).map(|row| Lane {
                        from: 0,
                        to: 0,
                        table: lane.table,
                        token: 0,
                        position: lane.position + row,
                    })
                });
                return few.lanes.write(0, &each.collect::<Vec<_>>());
            }
        }
        self.grow(h)
    }

    /// Room for the keys of the pass under way.
    fn grow(&mut self, h: &Hparams) -> Result<(), CudaError> {
        let d = h.mla;
        let more = ahead(self.keys);
        let device = self.device.clone();
        let grow = |buffer: &mut Buffer<f16>, wanted: usize, taken: usize| {
            if buffer.len() < wanted {
                *buffer = device.zeroed(0)?;
                *buffer = device.zeroed(taken)?;
            }
            Ok::<_, CudaError>(())
        };
        grow(
            &mut self.gathered,
            self.keys * d.kv_lora_rank,
            more * d.kv_lora_rank,
        )?;
        grow(&mut self.rotated, self.keys * d.qk_rope, more * d.qk_rope)?;
        let (one, all) = (d.qk_nope + d.v, d.heads * (d.qk_nope + d.v));
        // Of very many keys a few heads still, or most of the card would have nothing to do.
        let free = self.device.memory()?.free as usize / size_of::<f16>() / 4;
        let few = |keys: usize| (keys * one * d.heads.min(HEADS)).min(free.max(keys * one));
        let values = |keys: usize| (keys * all).min(ROOM / size_of::<f16>()).max(few(keys));
        grow(&mut self.room, values(self.keys), values(more))
    }

    /// Bytes that rooms grow to for so many keys, in all.
    pub fn bytes(h: &Hparams, keys: usize) -> usize {
        let (more, d) = (ahead(keys), h.mla);
        let one = more * (d.qk_nope + d.v);
        let room = (one * d.heads).min(ROOM / size_of::<f16>()).max(one);
        (more * d.latent() + room) * size_of::<f16>()
    }

    /// Stores the lanes' rows, and says what each row sees.
    pub fn attend(
        &self,
        stream: &Stream,
        (h, mla): (&Hparams, &WideMla),
        lanes: (Part<'_, WideLane>, &[WideLane]),
        asked: &Asked<'_>,
        by: &Expanding,
    ) -> Result<(), CudaError> {
        let d = h.mla;
        let (width, rows) = (d.heads * d.qk(), asked.q.len() / (d.heads * d.qk()));
        let queries = self.queries.part(0..rows * width)?;
        let few = self.few.as_ref().filter(|few| few.rows > 0);
        let pass = RowsPass {
            layer: asked.number as u32,
            lanes,
            norm: asked.weights.norm,
            kv: rows_of(asked.kv, d.latent()),
            q: few.is_none().then(|| (rows_of(asked.q, width), queries)),
        };
        mla.rows(stream, &pass)?;
        match few {
            Some(few) => few.look(stream, h, asked),
            None => self.expand(stream, (h, mla), lanes, queries, asked, by),
        }
    }

    fn expand(
        &self,
        stream: &Stream,
        (h, mla): (&Hparams, &WideMla),
        lanes: (Part<'_, WideLane>, &[WideLane]),
        queries: Part<'_, f16>,
        asked: &Asked<'_>,
        by: &Expanding,
    ) -> Result<(), CudaError> {
        let (d, keys, shape) = (h.mla, self.keys, mla_shape(h));
        let shape = shape.expect("an MLA layer asks");
        let starts = (self.starts.part(0..lanes.1.len())?, &self.starts_here[..]);
        let gathered = self.gathered.part(0..keys * d.kv_lora_rank)?;
        let rotated = self.rotated.part(0..keys * d.qk_rope)?;
        let layer = asked.number as u32;
        let to = (gathered, rotated);
        gather_rows(stream, &self.device, &shape, layer, lanes, starts, to)?;
        let rows = WideRows {
            f16: Some(gathered),
            f32: None,
            rows: keys,
            cols: d.kv_lora_rank,
            stride: d.kv_lora_rank,
        };
        let each = self.room.len() / (keys * (d.qk_nope + d.v)).max(1);
        for first in (0..d.heads).step_by(each.clamp(1, d.heads)) {
            let group = each.clamp(1, d.heads).min(d.heads - first);
            let (nope, v) = (group * d.qk_nope, group * d.v);
            let expanded = self.room.part(0..keys * nope)?;
            let values = self.room.part(keys * nope..keys * (nope + v))?;
            let heads = first..first + group;
            let job = |matrix, to, stride| WideJob {
                matrix,
                to: WideTo::F16(to),
                stride,
            };
            let jobs = [
                job(heads_of(&by.k, &heads, d.qk_nope)?, expanded, nope),
                job(heads_of(&by.v, &heads, d.v)?, values, v),
            ];
            wide_products(stream, &rows, &jobs)?;
            let pass = FlashPass {
                lanes,
                starts,
                heads: first as u32..(first + group) as u32,
                queries,
                keys: expanded,
                rotated,
                values,
                gate: asked.gate.map(|gate| rows_of(gate, d.heads)),
                out: asked.f16,
                out32: asked.f32,
            };
            mla.flash(stream, &pass, None)?;
        }
        Ok(())
    }
}

impl Few {
    fn look(&self, stream: &Stream, h: &Hparams, asked: &Asked<'_>) -> Result<(), CudaError> {
        let d = h.mla;
        let (width, wide) = (d.heads * d.qk(), d.heads * d.v);
        for start in (0..self.rows).step_by(AT_ONCE) {
            let end = self.rows.min(start + AT_ONCE);
            let range = |width: usize| start * width..end * width;
            let gate = asked
                .gate
                .map(|gate| gate.part(range(d.heads)))
                .transpose()?;
            let pass = SmallPass {
                layer: asked.number as u32,
                lanes: self.lanes.part(start..end)?,
                q: rows_of(asked.q.part(range(width))?, width),
                kv: None,
                gate: gate.map(|gate| rows_of(gate, d.heads)),
            };
            let out = Acts {
                q: 0,
                ..self.out.acts(end - start, wide)?
            };
            self.mla.run(stream, &asked.weights, &pass, out)?;
            let to = To {
                acts: None,
                f32: asked.f32.map(|to| to.part(range(wide))).transpose()?,
                f16: Some(asked.f16.part(range(wide))?),
            };
            quantize_rows(stream, self.out.x.part(0..(end - start) * wide)?, wide, &to)?;
        }
        Ok(())
    }
}

/// Half as many keys more, so that a long text does not ask the driver at every pass.
fn ahead(keys: usize) -> usize {
    keys.next_multiple_of(4096) * 3 / 2
}

fn rows_of(values: Part<'_, f32>, stride: usize) -> Rows<'_> {
    Rows {
        values,
        stride: stride as u32,
    }
}

/// The rows of some heads, `width` each.
fn heads_of<'s>(
    stack: &'s Stack,
    heads: &Range<usize>,
    width: usize,
) -> Result<WideMatrix<'s>, CudaError> {
    WideMatrix::from(stack).rows(heads.start * width..heads.end * width)
}
