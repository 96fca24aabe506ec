//! Gives the crate the name of the sources in `cuda/` as `DELTAD_KERNELS_ID`: the program takes no file of
//! kernels that was built from others. `scripts/cuda.sh` makes the same name with POSIX's `cksum`.

use std::fs;
use std::path::{Path, PathBuf};

fn main() {
    println!("cargo:rerun-if-changed=cuda");
    let mut files = Vec::new();
    collect(Path::new("cuda"), &mut files);
    // As `LC_ALL=C sort` has them: by the bytes of the whole path.
    files.sort_by_key(|file| file.as_os_str().as_encoded_bytes().to_vec());
    let mut all = Vec::new();
    for file in &files {
        let name = file.strip_prefix("cuda").unwrap_or(file);
        all.extend_from_slice(name.as_os_str().as_encoded_bytes());
        all.push(b'\n');
        all.extend(fs::read(file).unwrap_or_else(|why| panic!("{}: {why}", file.display())));
    }
    println!(
        "cargo:rustc-env=DELTAD_KERNELS_ID={}-{}",
        cksum(&all),
        all.len()
    );
}

/// Every `.cu` and `.cuh` but those of the emulated card, which is no part of the kernels.
fn collect(dir: &Path, files: &mut Vec<PathBuf>) {
    let entries = fs::read_dir(dir).unwrap_or_else(|why| panic!("{}: {why}", dir.display()));
    for path in entries.map(|entry| entry.expect("a folder that can be read").path()) {
        if path.is_dir() {
            if !path.ends_with("cuda/emulated") {
                collect(&path, files);
            }
        } else if path.extension().is_some_and(|is| is == "cu" || is == "cuh") {
            files.push(path);
        }
    }
}

/// POSIX's checksum: a CRC of 32 bits, highest bit first, with the length behind the bytes.
fn cksum(bytes: &[u8]) -> u32 {
    let mut crc = 0u32;
    let mut take = |byte: u8| {
        crc ^= u32::from(byte) << 24;
        for _ in 0..8 {
            crc = if crc >> 31 == 1 {
                crc << 1 ^ 0x04c1_1db7
            } else {
                crc << 1
            };
        }
    };
    bytes.iter().for_each(|&byte| take(byte));
    let mut length = bytes.len();
    while length > 0 {
        take(length as u8);
        length >>= 8;
    }
    !crc
}
