//! The file of kernels: where it lies, and whose build it is.

use std::ffi::CStr;
use std::path::{Path, PathBuf};

use super::CudaError;

/// What the file is called.
pub const FILE: &str = "deltad-kernels.fatbin";

/// Of the sources that this program was built beside; a file of kernels carries that of its own.
pub const ID: &str = env!("DELTAD_KERNELS_ID");

/// The text in a file of kernels that holds its id.
pub(super) const ID_NAME: &CStr = c"deltad_kernels_id";

/// The file of kernels: `given`, or else beside the program or in `../lib/deltad`.
pub fn find(given: Option<&Path>) -> Result<PathBuf, CudaError> {
    let looked = match given {
        Some(given) => vec![given.to_owned()],
        None => beside(std::env::current_exe().ok().as_deref()),
    };
    let found = looked.iter().find(|path| path.is_file()).cloned();
    found.ok_or(CudaError::NoFile { looked })
}

fn beside(program: Option<&Path>) -> Vec<PathBuf> {
    let Some(home) = program.and_then(Path::parent) else {
        return Vec::new();
    };
    let mut places = vec![home.join(FILE)];
    if let Some(above) = home.parent() {
        places.push(above.join("lib/deltad").join(FILE));
    }
    places
}

/// What is in `path`, ending with a zero, which a text of instructions needs.
pub(super) fn read(path: &Path) -> Result<Vec<u8>, CudaError> {
    let mut image = std::fs::read(path).map_err(|why| CudaError::File {
        path: path.to_owned(),
        why,
    })?;
    image.push(0);
    Ok(image)
}

/// Refuses kernels of another build. `text`: what lies under [`ID_NAME`].
pub(super) fn check_id(path: &Path, text: &[u8]) -> Result<(), CudaError> {
    let end = text.iter().position(|&b| b == 0).unwrap_or(text.len());
    let got = String::from_utf8_lossy(&text[..end]);
    if got == ID {
        return Ok(());
    }
    Err(CudaError::OtherKernels {
        path: path.to_owned(),
        got: got.into_owned(),
        wanted: ID,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_is_looked_for_beside_the_program_and_in_its_library() {
        let places = beside(Some(Path::new("/usr/bin/deltad")));
        let wanted = [
            "/usr/bin/deltad-kernels.fatbin",
            "/usr/lib/deltad/deltad-kernels.fatbin",
        ];
        assert_eq!(places, wanted.map(PathBuf::from));
        let none = find(Some(Path::new("/nowhere/x.fatbin"))).unwrap_err();
        assert_eq!(
            none.to_string(),
            "no file of kernels: looked for /nowhere/x.fatbin"
        );
    }

    #[test]
    fn kernels_of_another_build_are_refused() {
        let path = Path::new("k.fatbin");
        assert!(check_id(path, ID.as_bytes()).is_ok());
        assert!(check_id(path, &[ID.as_bytes(), b"\0\0"].concat()).is_ok());
        let other = check_id(path, b"abc\0").unwrap_err().to_string();
        assert_eq!(
            other,
            format!("k.fatbin: kernels of another build, abc, wanted {ID}")
        );
    }
}
