//! A checkpoint directory in the hub's layout: its sizes, and its tensors by their hub names.
//!
//! Refuses directories that contradict themselves: an index that names a shard or a tensor that
//! is not there, a tensor in two shards, a header that does not describe its file.

mod config;

use crate::error::Error;
use crate::schema::{Ffn, Role};
use ggml_kernels::map::{GuardedMap, map_file};
use ggml_kernels::quant::TensorType;
use safetensors::{Dtype, SafeTensors};
use serde::Deserialize;
use serde::de::{IgnoredAny, MapAccess, Visitor};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};

pub use config::Config;
pub(crate) use config::token_ids;

/// An open checkpoint; tensors are mapped, not read.
pub struct Checkpoint {
    pub dir: PathBuf,
    pub config: Config,
    /// Layers of which it holds tensors, and which are none of the model's own.
    pub beyond: BTreeSet<usize>,
    shards: Vec<Shard>,
    tensors: HashMap<String, Located>,
}

struct Shard {
    map: GuardedMap,
}

struct Located {
    shard: usize,
    ty: TensorType,
    shape: Vec<usize>,
    bytes: Range<usize>,
}

/// One tensor of a shard, row-major, little-endian.
#[derive(Clone, Copy)]
pub struct HubTensor<'a> {
    pub shard: &'a Path,
    /// F32, F16 or BF16.
    pub ty: TensorType,
    /// Slowest first, as the hub has it.
    pub shape: &'a [usize],
    pub data: &'a [u8],
}

#[derive(Deserialize)]
struct Index {
    weight_map: BTreeMap<String, String>,
}

const SINGLE: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";

impl Checkpoint {
    pub fn open(dir: &Path) -> Result<Self, Error> {
        let config = Config::read(&dir.join("config.json"))?;
        let index = dir.join(INDEX);
        let weight_map = match std::fs::read(&index) {
            Ok(text) => {
                let index: Index = serde_json::from_slice(&text)
                    .map_err(|e| Error::input(&index, format!("not an index of shards: {e}")))?;
                Some(index.weight_map)
            }
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => None,
            Err(e) => return Err(Error::io(&index, e)),
        };
        let names: BTreeSet<&str> = match &weight_map {
            Some(map) => map.values().map(String::as_str).collect(),
            None => BTreeSet::from([SINGLE]),
        };
        let mut checkpoint = Self {
            dir: dir.to_owned(),
            config,
            beyond: BTreeSet::new(),
            shards: Vec::new(),
            tensors: HashMap::new(),
        };
        for name in names {
            checkpoint.add_shard(name, weight_map.is_some())?;
        }
        let own = |(tensor, _): &(&String, &String)| checkpoint.config.beyond(tensor).is_none();
        for (tensor, shard) in weight_map.iter().flatten().filter(own) {
            match checkpoint.tensors.get(tensor) {
                Some(at) if checkpoint.shards[at.shard].map.path().ends_with(shard) => {}
                _ => {
                    let what =
                        format!("says that `{tensor}` is in {shard}, which does not hold it");
                    return Err(Error::input(&index, what));
                }
            }
        }
        checkpoint.settle_shared_width();
        Ok(checkpoint)
    }

    /// Where there are several shared experts, implementations disagree whether their stated width is
    /// one's or all of theirs: the tensors say which.
    fn settle_shared_width(&mut self) {
        let h = &self.config.hparams;
        let Some(sparse) = h.layers.iter().position(|l| l.ffn == Ffn::Sparse) else {
            return;
        };
        let name = h.kin.hub_name(Role::GateShexp);
        let tensor = self.tensor(&format!("model.layers.{sparse}.{name}"));
        let all = h.moe.shared.saturating_mul(h.moe.shared_ff);
        if tensor.is_some_and(|t| t.shape.first() == Some(&all)) {
            self.config.hparams.moe.shared_ff = all;
        }
    }

    fn add_shard(&mut self, name: &str, indexed: bool) -> Result<(), Error> {
        let is_plain = Path::new(name).file_name().is_some_and(|f| f == name);
        if !is_plain {
            let what = format!("names the shard {name:?}, wanted a file of this directory");
            return Err(Error::input(&self.dir.join(INDEX), what));
        }
        let path = self.dir.join(name);
        let map = map_file(&path).map_err(|e| match e.kind() {
            std::io::ErrorKind::NotFound if indexed => {
                let what = format!("names the shard {name}, which is missing");
                Error::input(&self.dir.join(INDEX), what)
            }
            std::io::ErrorKind::NotFound => {
                Error::input(&self.dir, format!("neither {SINGLE} nor {INDEX} is there"))
            }
            _ => Error::io(&path, e),
        })?;
        let read = SafeTensors::read_metadata(&map);
        Error::intact(&map)?;
        let (header, about) =
            read.map_err(|e| Error::input(&path, format!("no whole safetensors file: {e}")))?;
        refuse_repeated_names(&path, &map[8..8 + header])?;
        let shard = self.shards.len();
        for (tensor, info) in about.tensors() {
            if let Some(layer) = self.config.beyond(&tensor) {
                self.beyond.insert(layer);
                continue;
            }
            let ty = match info.dtype {
                Dtype::F32 => TensorType::F32,
                Dtype::F16 => TensorType::F16,
                Dtype::BF16 => TensorType::Bf16,
                other => {
                    let what = format!("{tensor}: type {other:?}, wanted F32, F16 or BF16");
                    return Err(Error::input(&path, what));
                }
            };
            let (from, to) = info.data_offsets;
            let start = 8 + header;
            let located = Located {
                shard,
                ty,
                shape: info.shape.clone(),
                bytes: start + from..start + to,
            };
            if let Some(first) = self.tensors.insert(tensor.clone(), located) {
                let first = self.shards[first.shard].map.path().display();
                let what = format!("holds `{tensor}`, and so does {first}");
                return Err(Error::input(&path, what));
            }
        }
        self.shards.push(Shard { map });
        Ok(())
    }

    /// Fails once a shard changed while it was read.
    pub fn intact(&self) -> Result<(), Error> {
        self.shards.iter().try_for_each(|s| Error::intact(&s.map))
    }

    /// The files that hold its tensors.
    pub fn files(&self) -> impl Iterator<Item = &Path> {
        self.shards.iter().map(|s| s.map.path())
    }

    pub fn tensor(&self, name: &str) -> Option<HubTensor<'_>> {
        let at = self.tensors.get(name)?;
        let shard = &self.shards[at.shard];
        Some(HubTensor {
            shard: shard.map.path(),
            ty: at.ty,
            shape: &at.shape,
            data: &shard.map[at.bytes.clone()],
        })
    }
}

/// A JSON object that states a name twice would lose one of them to the parser.
fn refuse_repeated_names(path: &Path, header: &[u8]) -> Result<(), Error> {
    struct Names(Option<String>);
    impl<'de> Deserialize<'de> for Names {
        fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
            struct Collect;
            impl<'de> Visitor<'de> for Collect {
                type Value = Names;
                fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                    f.write_str("an object of tensors")
                }
                fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Names, A::Error> {
                    let mut seen = BTreeSet::new();
                    let mut repeated = None;
                    while let Some((name, _)) = map.next_entry::<String, IgnoredAny>()? {
                        if !seen.insert(name.clone()) {
                            repeated = Some(name);
                        }
                    }
                    Ok(Names(repeated))
                }
            }
            d.deserialize_map(Collect)
        }
    }
    match serde_json::from_slice(header) {
        Ok(Names(None)) => Ok(()),
        Ok(Names(Some(name))) => Err(Error::input(
            path,
            format!("the header states `{name}` twice"),
        )),
        Err(e) => Err(Error::input(path, format!("header: {e}"))),
    }
}
