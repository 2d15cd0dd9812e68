//! `forerun calibrate run`: starts the binary that times kernels.
//!
//! That binary links candle and, for NVIDIA GPUs, the driver's library, without which it does not even start. So it
//! is built by itself, and what keeps it from starting is said here.

use std::env;
use std::ffi::OsString;
use std::path::PathBuf;
use std::process::{Command, ExitCode};

use forerun_planner::error::{Error, InputError};

const BINARY: &str = "forerun-calibrate";
const BUILD: &str = "cargo build --release -p forerun-calibration";

/// Runs the binary with these options; its exit code is this command's.
pub(crate) fn run(options: &[OsString]) -> anyhow::Result<ExitCode> {
    let binary = find().ok_or_else(|| {
        let why = format!(
            "{BINARY} is neither beside this binary nor on PATH: build it with `{BUILD}` (with `--features cuda` for an NVIDIA GPU, `--features metal` for an Apple one)"
        );
        Error::Input(InputError::new(why))
    })?;
    check_starts(&binary)?;
    let status = Command::new(&binary).args(options).status()?;
    // No code: a signal ended it.
    Ok(status.code().and_then(|code| u8::try_from(code).ok()).map_or(ExitCode::FAILURE, ExitCode::from))
}

/// Beside the running binary, then on PATH.
fn find() -> Option<PathBuf> {
    let name = format!("{BINARY}{}", env::consts::EXE_SUFFIX);
    let own = env::current_exe().ok().and_then(|own| Some(own.parent()?.to_owned()));
    let path = env::var_os("PATH").unwrap_or_default();
    let folders = own.into_iter().chain(env::split_paths(&path));
    folders.map(|folder| folder.join(&name)).find(|candidate| candidate.is_file())
}

/// A loader that misses a library says so on stderr and ends with a code of its own, before the binary can speak.
fn check_starts(binary: &PathBuf) -> Result<(), Error> {
    let refused =
        |why: String| Error::Input(InputError::new(format!("{} does not start: {why}", binary.display())));
    let probe = Command::new(binary).arg("--version").output().map_err(|e| refused(e.to_string()))?;
    if probe.status.success() {
        return Ok(());
    }
    let stderr = String::from_utf8_lossy(&probe.stderr);
    let said = stderr.lines().find(|line| !line.trim().is_empty()).unwrap_or("it ends at once").trim();
    Err(refused(if said.contains("libcuda.so") {
        format!(
            "libcuda.so.1 is missing, which NVIDIA's driver brings; install the driver, or build for the CPU with `{BUILD}`"
        )
    } else {
        said.chars().take(300).collect()
    }))
}
