//! Prints lines to standard output.

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
    match writeln!(std::io::stdout(), "{line}") {
        Ok(()) => {}
        Err(error) if error.kind() == ErrorKind::BrokenPipe => exit(0),
        Err(error) => {
            eprintln!("error: the output cannot be written: {error}");
            exit(1)
        }
    }
}
