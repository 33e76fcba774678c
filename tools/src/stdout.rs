//! Prints lines to standard output.

use crate::progress;
use std::fmt::Arguments;
use std::io::{ErrorKind, Write};
use std::process::exit;

/// Like `println!`, but a closed pipe (`| head`) does not panic.
macro_rules! say {
    ($($line:tt)*) => { $crate::stdout::line(format_args!($($line)*)) };
}
pub(crate) use say;

/// Prints a line. Exits the process if that fails: the reader has closed the pipe, or the disk is
/// full.
pub(crate) fn line(line: Arguments<'_>) {
    check(progress::to_stdout(|| writeln!(std::io::stdout(), "{line}")));
}

/// Prints bytes. Exits the process if that fails, like [`line()`].
pub(crate) fn bytes(bytes: &[u8]) {
    check(progress::to_stdout(|| std::io::stdout().write_all(bytes)));
}

fn check(written: std::io::Result<()>) {
    match written {
        Ok(()) => {}
        Err(error) if error.kind() == ErrorKind::BrokenPipe => exit(0),
        Err(error) => {
            eprintln!("error: the output cannot be written: {error}");
            exit(1)
        }
    }
}
