//! A folder for a test, removed when the test ends.

use std::path::PathBuf;

/// A test's folder, which is removed on drop.
pub struct Folder(pub PathBuf);

impl Folder {
    /// Makes an empty folder. Tests that run at the same time need different names.
    pub fn new(name: &str) -> Self {
        let folder = std::env::temp_dir().join(format!("millstream-{name}-{}", std::process::id()));
        drop(std::fs::remove_dir_all(&folder));
        std::fs::create_dir_all(&folder).unwrap();
        Self(folder)
    }

    /// Writes a file, and creates its parent folders.
    pub fn write(&self, file: &str, bytes: &[u8]) -> PathBuf {
        let path = self.0.join(file);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, bytes).unwrap();
        path
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        drop(std::fs::remove_dir_all(&self.0));
    }
}
