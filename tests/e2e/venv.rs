//! Virtual environments of Python that tests run programs in, kept between runs beside the built
//! binaries: each is made once, by whichever test comes first, while the others wait.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;

/// Tests are threads of one process: one that found an environment half made, and made it anew,
/// took it from under the others.
static MAKING: Mutex<()> = Mutex::new(());

/// Runs `command`; fails with what it said.
pub fn runs(command: &mut Command) -> Result<(), String> {
    match command.output() {
        Err(e) => Err(e.to_string()),
        Ok(out) if !out.status.success() => Err(String::from_utf8_lossy(&out.stderr).into_owned()),
        Ok(_) => Ok(()),
    }
}

/// The Python of the environment called `name`, in which `imports` can be imported because pip
/// was given `packages`; or why there is none.
pub fn python(name: &str, imports: &str, packages: &[&str]) -> Result<PathBuf, String> {
    let _one_at_a_time = MAKING.lock().unwrap_or_else(|e| e.into_inner());
    let venv = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let python = venv.join("bin/python");
    let import = format!("import {imports}");
    if runs(Command::new(&python).args(["-c", &import])).is_err() {
        let made = ["-m", "venv", "--clear"];
        runs(Command::new("python3").args(made).arg(&venv))?;
        let pip = ["-m", "pip", "install", "--quiet"];
        runs(Command::new(&python).args(pip).args(packages))?;
    }
    Ok(python)
}
