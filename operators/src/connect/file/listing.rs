//! Which files there are: a folder or a pattern, filters, and the values that folders named
//! `column=value` give to the rows of the files in them.

use super::sink::committed_files;
use super::uri::percent_decoded;
use crate::connect::options::OptionReader;
use crate::table::error::{PlanError, PlanResult};
use crate::table::text::Notation;
use crate::table::types::{DataType, Field};
use millstream_engine::error::EngineError;
use millstream_engine::storage::Storage;
use std::path::{Component, Path, PathBuf};

/// Folders below the path that are looked into, to stop at a link that leads in a circle.
const MOST_DEPTH: usize = 32;
/// The name of the folder of rows whose partition column is NULL, as Hive has it.
pub const NULL_PARTITION: &str = "__HIVE_DEFAULT_PARTITION__";

/// A file that was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileInfo {
    /// Where.
    pub path: PathBuf,
    /// When it was last changed, since 1970.
    pub time_ms: u64,
    /// How large it is.
    pub size: u64,
}

/// What to list.
#[derive(Clone, Debug)]
pub struct Listing {
    /// The folder, or the folders' part of the pattern before its first special character.
    base: PathBuf,
    /// The path as a pattern, its alternatives in braces written out.
    patterns: Vec<String>,
    filter: Option<glob::Pattern>,
    recursive: bool,
}

fn pattern(name: &str, text: &str) -> PlanResult<glob::Pattern> {
    glob::Pattern::new(text).map_err(|error| {
        PlanError::new(
            "INVALID_OPTION_VALUE",
            format!("Invalid value '{text}' for option '{name}': {error}"),
            "Write a pattern like *.csv",
        )
    })
}

/// `a{b,c}d` as `abd` and `acd`.
fn alternatives(text: &str) -> Vec<String> {
    let (Some(open), Some(close)) = (text.find('{'), text.find('}')) else {
        return vec![text.to_string()];
    };
    if close < open {
        return vec![text.to_string()];
    }
    let (before, after) = (&text[..open], &text[close + 1..]);
    let parts = text[open + 1..close].split(',');
    parts.flat_map(|part| alternatives(&format!("{before}{part}{after}"))).collect()
}

fn unreadable(path: &Path, error: &std::io::Error) -> EngineError {
    EngineError::operator(
        "FILE_SOURCE_FAILED",
        format!("cannot read {}: {error}", path.display()),
        "Check that it is there and may be read; a file must not be removed before it was read",
    )
}

fn is_hidden(path: &Path) -> bool {
    path.file_name().is_none_or(|name| name.to_string_lossy().starts_with(['_', '.']))
}

/// `column=value` of a folder's name.
fn partition_of(name: &str) -> Option<(String, String)> {
    let (column, value) = name.split_once('=')?;
    (!column.is_empty()).then(|| (percent_decoded(column), percent_decoded(value)))
}

impl Listing {
    /// Reads `path`, `pathGlobFilter` and `recursiveFileLookup`.
    pub fn read(reader: &mut OptionReader<'_>) -> PlanResult<Self> {
        let path = reader.required("path", "/data/in")?;
        let whole = std::path::absolute(path).unwrap_or_else(|_| PathBuf::from(path));
        let is_pattern = path.contains(['*', '?', '[', '{']);
        let mut patterns = Vec::new();
        let mut base = whole.clone();
        if is_pattern {
            patterns = alternatives(&whole.to_string_lossy());
            patterns.iter().try_for_each(|text| pattern("path", text).map(drop))?;
            while base.to_string_lossy().contains(['*', '?', '[', '{']) {
                base.pop();
            }
        } else if !whole.exists() {
            return Err(PlanError::new(
                "PATH_NOT_FOUND",
                format!("there is no folder {}", whole.display()),
                "A file source reads the files of a folder; make it first",
            ));
        }
        let filter = reader.get("pathGlobFilter").map(|text| pattern("pathGlobFilter", text));
        let filter = filter.transpose()?;
        let recursive = reader.flag("recursiveFileLookup", false)?;
        Ok(Self { base, patterns, filter, recursive })
    }

    /// The folder, or what stands before the pattern.
    pub fn base(&self) -> &Path {
        &self.base
    }

    /// What is listed, for people and checkpoints.
    pub fn name(&self) -> String {
        match self.patterns.as_slice() {
            [] => self.base.display().to_string(),
            patterns => patterns.join(", "),
        }
    }

    /// All files there are, in no order.
    pub fn list(&self, storage: &dyn Storage) -> Result<Vec<FileInfo>, EngineError> {
        let mut found = Vec::new();
        if self.patterns.is_empty() {
            if self.base.is_dir()
                && let Some(paths) = committed_files(storage, &self.base)?
            {
                for path in paths {
                    let metadata =
                        std::fs::metadata(&path).map_err(|error| unreadable(&path, &error))?;
                    self.consider(path, &metadata, &mut found);
                }
                return Ok(found);
            }
            self.entry(self.base.clone(), 0, &mut found)?;
            return Ok(found);
        }
        for text in &self.patterns {
            let Ok(paths) = glob::glob(text) else { continue };
            for path in paths {
                let path = path.map_err(|error| unreadable(error.path(), error.error()))?;
                if !is_hidden(&path) {
                    self.entry(path, 0, &mut found)?;
                }
            }
        }
        found.sort_by(|a, b| a.path.cmp(&b.path));
        found.dedup_by(|a, b| a.path == b.path);
        Ok(found)
    }

    /// A file, or the files of a folder; below it only folders of partitions, unless asked.
    fn entry(
        &self,
        path: PathBuf,
        depth: usize,
        found: &mut Vec<FileInfo>,
    ) -> Result<(), EngineError> {
        // A file may go between its listing and this question.
        let Ok(metadata) = std::fs::metadata(&path) else {
            return if depth > 0 {
                Ok(())
            } else {
                Err(unreadable(&path, &std::io::ErrorKind::NotFound.into()))
            };
        };
        if !metadata.is_dir() {
            self.consider(path, &metadata, found);
            return Ok(());
        }
        let entries = std::fs::read_dir(&path).map_err(|error| unreadable(&path, &error))?;
        for entry in entries {
            let below = entry.map_err(|error| unreadable(&path, &error))?.path();
            let name = below.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if is_hidden(&below) {
                continue;
            }
            let is_folder = below.is_dir();
            let enter = self.recursive || partition_of(&name).is_some();
            if !is_folder || (enter && depth < MOST_DEPTH) {
                self.entry(below, depth + 1, found)?;
            }
        }
        Ok(())
    }

    fn consider(&self, path: PathBuf, metadata: &std::fs::Metadata, found: &mut Vec<FileInfo>) {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if self.filter.as_ref().is_none_or(|filter| filter.matches(&name)) {
            let since = metadata.modified().ok();
            let since = since.and_then(|time| time.duration_since(std::time::UNIX_EPOCH).ok());
            let time_ms = since.map_or(0, |since| since.as_millis() as u64);
            found.push(FileInfo { path, time_ms, size: metadata.len() });
        }
    }

    /// The columns and values that a file's folders name; none with recursive look-up, as in
    /// Spark.
    pub fn partitions(&self, path: &Path) -> Vec<(String, String)> {
        if self.recursive {
            return Vec::new();
        }
        let below = path.strip_prefix(&self.base).unwrap_or(path);
        let folders = below.parent().map(Path::components).into_iter().flatten();
        let names = folders.filter_map(|part| match part {
            Component::Normal(name) => partition_of(&name.to_string_lossy()),
            _ => None,
        });
        names.collect()
    }

    /// The partition columns of the files that are there now, with the types that all their values
    /// have: INT, BIGINT, DOUBLE, DATE, TIMESTAMP or STRING.
    pub fn partition_columns(&self, storage: &dyn Storage) -> PlanResult<Vec<Field>> {
        let files = self.list(storage).map_err(|error| {
            PlanError::new("FILE_SOURCE_FAILED", error.to_string(), "Check the option 'path'")
        })?;
        let mut columns: Vec<(String, Vec<String>)> = Vec::new();
        for file in &files {
            for (column, value) in self.partitions(&file.path) {
                match columns.iter_mut().find(|(name, _)| *name == column) {
                    Some((_, values)) => values.push(value),
                    None => columns.push((column, vec![value])),
                }
            }
        }
        let field =
            |(name, values): (String, Vec<String>)| Field::new(name, type_of(&values), true);
        Ok(columns.into_iter().map(field).collect())
    }
}

fn type_of(values: &[String]) -> DataType {
    let notation = Notation::default();
    let fits = |data_type: &DataType| {
        values.iter().filter(|value| *value != NULL_PARTITION).all(|value| {
            let mut row = Vec::new();
            let mut writer = crate::table::row::RowWriter::new(&mut row, 1);
            notation.put(value, data_type, &mut writer, 0)
        })
    };
    let dated = values.iter().all(|value| value == NULL_PARTITION || value.contains('-'));
    let mut candidates = vec![DataType::Int, DataType::Long, DataType::Double];
    if dated {
        candidates.extend([DataType::Date, DataType::Timestamp]);
        let timed = values.iter().any(|value| value.contains(':'));
        candidates.retain(|t| !timed || *t != DataType::Date);
    }
    candidates.into_iter().find(fits).unwrap_or(DataType::String)
}

#[cfg(test)]
mod tests {
    use super::*;
    use millstream_engine::storage::FileStorage;

    #[test]
    fn patterns_filters_and_partitions() {
        let root = std::env::temp_dir().join(format!("millstream-listing-{}", std::process::id()));
        for file in [
            "2024/a.csv",
            "2024/b.txt",
            "2025/c.csv",
            "p/day=1/k=x%2Fy/d.csv",
            "p/day=2/k=z/e.csv",
            "p/other/f.csv",
            "p/_g.csv",
        ] {
            let path = root.join(file);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, "x").unwrap();
        }
        let listing = |path: &str, more: &[(&str, &str)]| {
            let mut options = vec![("path".to_string(), root.join(path).display().to_string())];
            options.extend(more.iter().map(|(k, v)| (k.to_string(), v.to_string())));
            Listing::read(&mut OptionReader::new("test", &options)).unwrap()
        };
        let names = |path: &str, more: &[(&str, &str)]| {
            let files = listing(path, more).list(&FileStorage).unwrap();
            let name = |f: FileInfo| f.path.file_name().unwrap().to_string_lossy().into_owned();
            let mut names: Vec<_> = files.into_iter().map(name).collect();
            names.sort();
            names.concat()
        };
        assert_eq!(names("202?/*.csv", &[]), "a.csvc.csv");
        assert_eq!(names("{2024,2025}", &[]), "a.csvb.txtc.csv");
        assert_eq!(names("*/*", &[("pathGlobFilter", "*.txt")]), "b.txt");
        assert_eq!(names("p", &[]), "d.csve.csv", "folders of partitions, and no other");
        assert_eq!(names("p", &[("recursiveFileLookup", "true")]), "d.csve.csvf.csv");
        assert_eq!(names("2024/a.csv", &[]), "a.csv");
        let partitioned = listing("p", &[]);
        let columns = partitioned.partition_columns(&FileStorage).unwrap();
        let columns: Vec<_> =
            columns.iter().map(|f| format!("{} {}", f.name, f.data_type)).collect();
        assert_eq!(columns, ["day INT", "k STRING"]);
        let values = partitioned.partitions(&root.join("p/day=1/k=x%2Fy/d.csv"));
        assert_eq!(values[1], ("k".to_string(), "x/y".to_string()));
        std::fs::remove_dir_all(root).unwrap();
    }
}
