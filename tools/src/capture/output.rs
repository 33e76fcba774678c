//! Output files of commands. An existing file is overwritten only on request.

use crate::failure::Failure;
use clap::Args as ClapArgs;
use millstream_engine::capture::{Existing, Rotation, existing_file};
use std::io;
use std::path::Path;

/// The option that allows a command to overwrite its output.
#[derive(ClapArgs, Clone, Copy, Debug, Default)]
pub(crate) struct Force {
    /// Overwrite the output file if there is one
    #[arg(long)]
    pub force: bool,
}

impl Force {
    /// What happens to an existing file.
    pub(crate) fn existing(self) -> Existing {
        if self.force { Existing::Overwrite } else { Existing::Keep }
    }

    /// The error of an output that exists, before anything is read. Creating the file fails too if
    /// it has appeared meanwhile.
    pub(crate) fn check(self, path: &Path, rotation: Rotation) -> Result<(), Failure> {
        match existing_file(path, rotation).filter(|_| !self.force) {
            Some(existing) => Err(exists(&existing)),
            None => Ok(()),
        }
    }
}

/// The error of a file that would be overwritten.
pub(crate) fn exists(path: &Path) -> Failure {
    Failure::Wrong(format!(
        "OUTPUT_EXISTS: there is a file {} already. Give another -o, or overwrite it with --force",
        path.display()
    ))
}

/// The error of an output that cannot be created.
pub(crate) fn not_created(condition: &str, path: &Path, error: &io::Error) -> Failure {
    match error.kind() {
        io::ErrorKind::AlreadyExists => exists(path),
        _ => Failure::Wrong(format!("{condition}: {}: {error}", path.display())),
    }
}

/// Fails if a file is both the input and the output of a command.
pub(crate) fn check_same(input: &Path, output: &Path) -> Result<(), Failure> {
    let (input_path, output_path) = (input.canonicalize().ok(), output.canonicalize().ok());
    if input_path.is_some() && input_path == output_path {
        let reason = format!("SAME_FILE: {} is an input and the output", input.display());
        return Err(Failure::Wrong(reason));
    }
    Ok(())
}
