//! A folder for the files of a measurement.

use crate::failure::Failure;
use std::path::{Path, PathBuf};

/// A new folder that is removed at the end of the measurement.
pub(super) struct Scratch(PathBuf);

impl Scratch {
    /// Creates the folder below `dir`, or below the system's folder for temporary files.
    pub(super) fn new(name: &str, dir: Option<&Path>) -> Result<Self, Failure> {
        let dir = dir.map_or_else(std::env::temp_dir, Path::to_path_buf);
        let path = dir.join(format!("millstream-bench-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path)
            .map_err(|error| Failure::Wrong(format!("{}: {error}", path.display())))?;
        Ok(Self(path))
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        drop(std::fs::remove_dir_all(&self.0));
    }
}
