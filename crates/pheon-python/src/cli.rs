//! The `pheon` command inside the interpreter's process.

use std::ffi::OsString;

use pyo3::prelude::*;

/// Runs the command with these arguments (without the program's name); its exit code.
#[pyfunction]
pub(crate) fn run_cli(py: Python<'_>, args: Vec<OsString>) -> i32 {
    py.detach(|| pheon_cli::run(args))
}
