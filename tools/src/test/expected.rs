//! Reads and writes the files of expected rows.

use crate::failure::Failure;
use std::path::{Path, PathBuf};

/// The location of the expected rows of each query.
pub(super) struct Expected {
    path: PathBuf,
    is_folder: bool,
}

impl Expected {
    /// The path is a folder if it exists as one, or if there are several queries; otherwise a file.
    /// An error if several queries have a file, or if nothing exists at the path and `update` is
    /// false.
    pub(super) fn new<'n>(
        path: &Path,
        queries: impl Iterator<Item = &'n str>,
        update: bool,
    ) -> Result<Self, Failure> {
        let is_folder = path.is_dir() || queries.count() > 1;
        if is_folder && path.is_file() {
            return Err(Failure::Wrong(format!(
                "--expect {}: the job has several queries, so this must be a folder with \
                 QUERY.jsonl for each",
                path.display()
            )));
        }
        let expected = Self { path: path.to_path_buf(), is_folder };
        if !update && !path.exists() {
            return Err(Failure::Wrong(format!(
                "--expect {} does not exist; --update writes it",
                path.display()
            )));
        }
        Ok(expected)
    }

    fn file(&self, query: &str) -> PathBuf {
        match self.is_folder {
            true => self.path.join(format!("{query}.jsonl")),
            false => self.path.clone(),
        }
    }

    /// The expected rows of a query.
    pub(super) fn read(&self, query: &str) -> Result<Vec<String>, Failure> {
        let file = self.file(query);
        let wrong =
            |reason: String| Failure::Wrong(format!("--expect {}: {reason}", file.display()));
        let text = std::fs::read_to_string(&file).map_err(|error| wrong(error.to_string()))?;
        let mut rows = Vec::new();
        for (number, line) in text.lines().enumerate() {
            if line.trim().is_empty() {
                continue;
            }
            let value: Result<serde_json::Map<String, serde_json::Value>, _> =
                serde_json::from_str(line);
            if let Err(error) = value {
                return Err(wrong(format!("line {} is not a JSON object: {error}", number + 1)));
            }
            rows.push(line.to_string());
        }
        Ok(rows)
    }

    /// Writes the rows of a query. Returns whether the file has changed.
    pub(super) fn write(&self, query: &str, rows: &[String]) -> Result<bool, Failure> {
        let file = self.file(query);
        let mut text = rows.join("\n");
        if !rows.is_empty() {
            text.push('\n');
        }
        if std::fs::read_to_string(&file).is_ok_and(|old| old == text) {
            return Ok(false);
        }
        let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty());
        let made = folder.map_or(Ok(()), std::fs::create_dir_all);
        made.and_then(|()| std::fs::write(&file, text))
            .map_err(|error| Failure::Wrong(format!("--expect {}: {error}", file.display())))?;
        Ok(true)
    }
}
