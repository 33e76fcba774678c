//! Output files of commands. An existing file is overwritten only on request.

use crate::failure::Failure;
use clap::Args as ClapArgs;
use millstream_engine::capture::{Existing, Rotation};
use std::io;
use std::path::{Path, PathBuf};

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
        let rotates = rotation.bytes.is_some() || rotation.ns.is_some();
        match existing_file(path, rotates).filter(|_| !self.force) {
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

/// The file that a command would overwrite; with rotation any file of an earlier recording of this
/// name, because the number of files is not known.
fn existing_file(path: &Path, rotates: bool) -> Option<PathBuf> {
    if !rotates {
        return path.is_file().then(|| path.to_path_buf());
    }
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    let entries = std::fs::read_dir(folder.unwrap_or(Path::new("."))).ok()?;
    let mut files = entries.flatten().map(|entry| entry.path());
    files.find(|file| {
        let numbered =
            if path.extension().is_some() { file.with_extension("") } else { file.clone() };
        let number = numbered.extension().and_then(|number| number.to_str()).unwrap_or_default();
        let has_number = number.len() >= 5 && number.bytes().all(|byte| byte.is_ascii_digit());
        file.extension().is_some_and(|end| path.extension().is_none_or(|own| own == end))
            && has_number
            && numbered.file_stem() == path.file_stem()
    })
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
