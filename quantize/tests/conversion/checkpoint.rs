//! Copies of the fixtures, to be damaged.

use ggml_kernels::gguf::GgufFile;
use quantize::convert::{Conversion, Input, Options, Silent};
use quantize::error::Error;
use quantize::imatrix::Imatrix;
use quantize::recipe::FileType;
use serde_json::{Map, Value};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

pub fn fixture(name: &str) -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures");
    root.join(name)
}

/// A fixture in a directory of its own.
pub struct Copy {
    home: tempfile::TempDir,
}

impl Copy {
    pub fn of(name: &str) -> Self {
        let home = tempfile::tempdir().unwrap();
        fs::create_dir(home.path().join("in")).unwrap();
        for entry in fs::read_dir(fixture(name)).unwrap() {
            let entry = entry.unwrap();
            let name = entry.file_name();
            if !name.to_string_lossy().starts_with("golden") {
                fs::copy(entry.path(), home.path().join("in").join(name)).unwrap();
            }
        }
        Self { home }
    }

    pub fn path(&self, file: &str) -> PathBuf {
        self.home.path().join("in").join(file)
    }

    pub fn target(&self) -> PathBuf {
        self.home.path().join("out.gguf")
    }

    /// Names in the target's directory, to see what was left behind.
    pub fn beside_target(&self) -> Vec<String> {
        let names = fs::read_dir(self.home.path()).unwrap();
        let mut names: Vec<_> = names
            .map(|e| e.unwrap().file_name().to_string_lossy().into_owned())
            .collect();
        names.sort();
        names
    }

    pub fn edit_json(&self, file: &str, edit: impl FnOnce(&mut Map<String, Value>)) {
        let path = self.path(file);
        let mut json = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        edit(&mut json);
        fs::write(&path, serde_json::to_vec(&json).unwrap()).unwrap();
    }

    /// Edits a shard's header and its data.
    pub fn edit_shard(&self, file: &str, edit: impl FnOnce(&mut Map<String, Value>, &mut Vec<u8>)) {
        let path = self.path(file);
        let bytes = fs::read(&path).unwrap();
        let n = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
        let mut header = serde_json::from_slice(&bytes[8..8 + n]).unwrap();
        let mut data = bytes[8 + n..].to_vec();
        edit(&mut header, &mut data);
        let header = serde_json::to_vec(&header).unwrap();
        write_shard(&path, &header, &data);
    }

    pub fn convert(&self, to: FileType) -> Result<GgufFile, Error> {
        convert(&self.path(""), &self.target(), to, false, None)?;
        Ok(GgufFile::open(self.target()).unwrap())
    }

    /// What a refused conversion says and its exit code; nothing is left behind.
    pub fn refusal(&self) -> (String, u8) {
        let error = self.convert(FileType::F16).expect_err("was converted");
        assert_eq!(self.beside_target(), ["in"]);
        (error.to_string(), error.exit_code())
    }
}

pub fn write_shard(path: &Path, header: &[u8], data: &[u8]) {
    let length = (header.len() as u64).to_le_bytes();
    fs::write(path, [&length[..], header, data].concat()).unwrap();
}

pub fn convert(
    from: &Path,
    target: &Path,
    to: FileType,
    overwrite: bool,
    imatrix: Option<&Imatrix>,
) -> Result<(), Error> {
    let input = Input::open(from)?;
    let options = Options {
        to,
        overrides: Vec::new(),
    };
    let plan = Conversion::plan(&input, &options)?;
    let never = AtomicBool::new(false);
    plan.write(target, overwrite, imatrix, &never, &mut Silent)
}
