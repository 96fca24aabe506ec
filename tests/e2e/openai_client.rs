//! The official Python client over the Unix socket, in a virtual environment of its own. Skipped,
//! and said so, where there is no Python or no way to get the package.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::daemon::start;

fn runs(command: &mut Command) -> Result<(), String> {
    match command.output() {
        Err(e) => Err(e.to_string()),
        Ok(out) if !out.status.success() => Err(String::from_utf8_lossy(&out.stderr).into_owned()),
        Ok(_) => Ok(()),
    }
}

/// Kept between runs beside the built binaries.
fn python() -> Result<PathBuf, String> {
    let venv = Path::new(env!("CARGO_TARGET_TMPDIR")).join("openai-venv");
    let python = venv.join("bin/python");
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    if runs(Command::new(&python).args(["-c", "import openai"])).is_ok() {
        return Ok(python);
    }
    runs(
        Command::new("python3")
            .args(["-m", "venv", "--clear"])
            .arg(&venv),
    )?;
    let pip = ["-m", "pip", "install", "--quiet", "-r"];
    let wanted = root.join("tests/python/requirements.txt");
    runs(Command::new(&python).args(pip).arg(wanted))?;
    Ok(python)
}

#[test]
fn the_official_client_is_content() {
    let python = match python() {
        Ok(python) => python,
        Err(why) => return eprintln!("SKIPPED: no openai package for Python here: {why}"),
    };
    let daemon = start("");
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/python/openai_client.py");
    let ran = runs(Command::new(python).arg(script).arg(&daemon.socket));
    assert_eq!(ran, Ok(()));
}
