//! Lists the files of a source: a folder, a file or a glob pattern, with filters, and the partition
//! columns that folders named `column=value` define.
//!
//! Names that start with `.`, or with `_` and contain no `=`, and names that end with `._COPYING_`
//! are skipped, as in Spark. Pipes, devices and links that lead nowhere, in a circle or to one
//! folder in too many ways are skipped too. Each such path is reported, because nothing else would
//! explain the missing rows.

use super::folder_visits::FolderVisits;
use super::glob::{NameFilter, PathPattern, is_pattern};
use super::sink::committed_files;
use super::uri::local_path;
use crate::connect::file::partition_values::{Inference, partition_of, type_of};
use crate::connect::options::OptionReader;
use crate::table::datetime::{Tz, parse_timestamp};
use crate::table::error::{PlanError, PlanResult};
use crate::table::types::Field;
use millstream_engine::env::storage::Storage;
use millstream_engine::error::EngineError;
use std::fs::Metadata;
use std::path::{Component, Path, PathBuf};

/// A folder with files that are being written.
const TEMPORARY: &str = "_temporary";

/// A listed file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileInfo {
    /// The file's path.
    pub path: PathBuf,
    /// The modification time, in milliseconds since 1970.
    pub time_ms: u64,
    /// The size in bytes.
    pub size: u64,
}

/// Receives skipped paths with the reason.
pub type Report<'r> = dyn FnMut(&Path, &'static str) + 'r;

/// The root of the listing: the option `path`.
#[derive(Clone, Debug)]
enum Root {
    Path(PathBuf),
    Pattern(PathPattern),
}

/// The parsed options that select files.
#[derive(Clone, Debug)]
pub struct Listing {
    root: Root,
    /// The option `basePath`: the folder below which folder names are partition columns.
    base: Option<PathBuf>,
    filter: Option<NameFilter>,
    recursive: bool,
    /// Only files modified before this time are listed, in microseconds since 1970.
    before_us: Option<i64>,
    /// Only files modified after this time are listed, in microseconds since 1970.
    after_us: Option<i64>,
    inference: Inference,
    /// Whether files outside partition folders are ignored.
    only_partitions: bool,
}

fn invalid(name: &str, text: &str, error: &str) -> PlanError {
    PlanError::new(
        "INVALID_OPTION_VALUE",
        format!("Invalid value '{text}' for option '{name}': {error}"),
        r"Write a pattern like *.csv; a '\' makes the next character literal",
    )
}

/// The error of a file or folder that cannot be read.
pub(super) fn unreadable(path: &Path, error: &std::io::Error) -> EngineError {
    let fix = match error.kind() {
        std::io::ErrorKind::NotFound => {
            "Restore the file: it must not be removed before it is read. The option \
            ignoreMissingFiles skips missing files"
        }
        std::io::ErrorKind::PermissionDenied => "Allow the user of this process to read it",
        _ if error.to_string().contains(" in the file and cannot be read as ") => {
            "Declare the column with the type that the file has, and cast it in the query"
        }
        _ => {
            "If the file is truncated, damaged or in another format, replace it. The option \
            ignoreCorruptFiles skips the rest of a file that cannot be read"
        }
    };
    let reason = format!("cannot read {}: {error}", path.display());
    EngineError::operator("FILE_SOURCE_FAILED", reason, fix)
}

/// The path that a path leads to, without links and `..`, as far as its folders exist.
fn resolve_links(path: &Path) -> PathBuf {
    let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_path_buf());
    let mut found = PathBuf::new();
    for component in absolute.components() {
        match component {
            Component::ParentDir => drop(found.pop()),
            other => found.push(other),
        }
        // A link is followed before a `..` behind it is, as the system does.
        if let Ok(target) = found.canonicalize() {
            found = target;
        }
    }
    found
}

/// Whether a file or folder of this name is skipped, as in Spark.
fn is_hidden(name: &str) -> bool {
    (name.starts_with('_') && !name.contains('='))
        || name.starts_with('.')
        || name.ends_with("._COPYING_")
}

fn name_of(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// The options `modifiedBefore` and `modifiedAfter`.
fn modified(
    reader: &mut OptionReader<'_>,
    name: &'static str,
    zone: Tz,
) -> PlanResult<Option<i64>> {
    let Some(text) = reader.get(name) else { return Ok(None) };
    parse_timestamp(text, Some(zone)).map(Some).ok_or_else(|| {
        PlanError::new(
            "INVALID_OPTION_VALUE",
            format!("option '{name}' is '{text}', but must be a time"),
            "Write it like 2024-05-06T07:08:09, in the zone of the option `timeZone` or of the \
            session",
        )
    })
}

impl Root {
    fn read(path: &str) -> PlanResult<Self> {
        let path = local_path("path", path)?;
        let absolute = || std::path::absolute(path).unwrap_or_else(|_| PathBuf::from(path));
        if is_pattern(path) {
            let folder = std::env::current_dir().unwrap_or_default();
            let pattern = PathPattern::parse(&folder, path);
            return pattern.map(Self::Pattern).map_err(|error| invalid("path", path, &error));
        }
        let whole = absolute();
        if let Ok(metadata) = std::fs::metadata(&whole)
            && let Some(kind) = special(&metadata)
        {
            return Err(PlanError::new(
                "FILE_SOURCE_FAILED",
                format!("{} is {kind}, not a file or a folder", whole.display()),
                "A file source reads files. To read a stream of bytes, send it to a socket source",
            ));
        }
        if whole.is_symlink() && !whole.exists() {
            return Err(PlanError::new(
                "PATH_NOT_FOUND",
                format!("{} is {BROKEN_LINK}", whole.display()),
                "Give the path of a folder or a file",
            ));
        }
        if !whole.exists() {
            return Err(PlanError::new(
                "PATH_NOT_FOUND",
                format!("there is no folder {}", whole.display()),
                "A file source reads the files of a folder; create it first",
            ));
        }
        Ok(Self::Path(whole))
    }

    fn paths(&self) -> Result<Vec<PathBuf>, EngineError> {
        match self {
            Self::Path(path) => Ok(vec![path.clone()]),
            Self::Pattern(pattern) => {
                pattern.paths().map_err(|error| unreadable(&pattern.fixed(), &error))
            }
        }
    }

    /// The folder below which the folder names of a file are partition columns.
    fn of(&self, path: &Path) -> PathBuf {
        match self {
            Self::Path(root) => root.clone(),
            Self::Pattern(pattern) => pattern.root_of(path),
        }
    }
}

impl Listing {
    /// Whether files below a folder, which need not exist yet, may be listed. A pattern counts as
    /// matching if it matches the folder up to the shorter one of both, as in Spark. In a folder
    /// without `recursiveFileLookup` only files in partition folders are listed at any depth.
    pub fn descends_into(&self, folder: &Path) -> bool {
        let resolved = resolve_links(folder);
        match &self.root {
            Root::Path(root) => {
                let is_deep = self.recursive || self.only_partitions;
                is_deep && resolved.starts_with(resolve_links(root))
            }
            Root::Pattern(pattern) => {
                let absolute = std::path::absolute(folder).unwrap_or_else(|_| folder.to_path_buf());
                let lies_in = |found: &PathBuf| resolved.starts_with(resolve_links(found));
                [&absolute, &resolved].iter().any(|at| pattern.may_contain(at, Path::to_path_buf))
                    || pattern.may_contain(&resolved, resolve_links)
                    || pattern.paths().unwrap_or_default().iter().any(lies_in)
            }
        }
    }

    /// Parses the options that select files.
    pub fn read(reader: &mut OptionReader<'_>) -> PlanResult<Self> {
        let root = Root::read(reader.required("path", "/data/in")?)?;
        let filter = reader.get("pathGlobFilter").map(|text| {
            NameFilter::parse(text).map_err(|error| invalid("pathGlobFilter", text, &error))
        });
        let base = reader.get("basePath").map(|text| -> PlanResult<PathBuf> {
            let path = local_path("basePath", text)?;
            Ok(std::path::absolute(path).unwrap_or_else(|_| PathBuf::from(path)))
        });
        let zone = reader.zone()?;
        let listing = Self {
            root,
            base: base.transpose()?,
            filter: filter.transpose()?,
            recursive: reader.flag("recursiveFileLookup", false)?,
            before_us: modified(reader, "modifiedBefore", zone)?,
            after_us: modified(reader, "modifiedAfter", zone)?,
            inference: Inference {
                zone,
                infers_types: reader.settings().infers_partition_types(),
                times_without_zone: reader.settings().timestamps_without_zone,
            },
            only_partitions: false,
        };
        listing.check_base()?;
        Ok(listing)
    }

    fn check_base(&self) -> PlanResult<()> {
        let Some(base) = &self.base else { return Ok(()) };
        let wrong = |reason: String| Err(PlanError::new("INVALID_OPTION_VALUE", reason, ""));
        if !base.is_dir() {
            return wrong(format!(
                "option 'basePath' is {}, which is not a folder",
                base.display()
            ));
        }
        let lies_outside = match &self.root {
            Root::Path(path) => !path.starts_with(base),
            Root::Pattern(pattern) => {
                pattern.paths().unwrap_or_default().iter().any(|path| !path.starts_with(base))
            }
        };
        if lies_outside {
            let (base, path) = (base.display(), self.name());
            return wrong(format!("option 'basePath' is {base}, but the path {path} is not in it"));
        }
        Ok(())
    }

    /// Ignores files outside partition folders, as Spark does if there are any such folders.
    pub fn only_partitions(&mut self) {
        self.only_partitions = true;
    }

    /// The option `path`, or for a pattern the longest folder without special characters.
    pub fn base(&self) -> PathBuf {
        match &self.root {
            Root::Path(path) => path.clone(),
            Root::Pattern(pattern) => pattern.fixed(),
        }
    }

    /// The description used in messages and checkpoints.
    pub fn name(&self) -> String {
        match &self.root {
            Root::Path(path) => path.display().to_string(),
            Root::Pattern(pattern) => pattern.texts().collect::<Vec<_>>().join(", "),
        }
    }

    /// Whether files are filtered by modification time.
    pub fn goes_by_time(&self) -> bool {
        self.before_us.is_some() || self.after_us.is_some()
    }

    /// Whether the path exists; a pattern must match at least one path.
    pub fn exists(&self) -> bool {
        self.root.paths().is_ok_and(|paths| !paths.is_empty())
    }

    /// Lists all files, in no particular order.
    pub fn list(
        &self,
        storage: &dyn Storage,
        report: &mut Report<'_>,
    ) -> Result<Vec<FileInfo>, EngineError> {
        let mut found = Vec::new();
        if let Root::Path(folder) = &self.root
            && folder.is_dir()
            && let Some(paths) = committed_files(storage, folder)?
        {
            for path in paths {
                let metadata = std::fs::metadata(&path);
                let metadata = metadata.map_err(|error| unreadable(&path, &error))?;
                self.file(path, &metadata, &mut found, report);
            }
            return Ok(found);
        }
        let roots = self.root.paths()?;
        for root in &roots {
            let metadata = match std::fs::metadata(root) {
                Ok(metadata) => metadata,
                Err(_) if root.is_symlink() => {
                    report(root, BROKEN_LINK);
                    continue;
                }
                Err(error) => return Err(unreadable(root, &error)),
            };
            if metadata.is_dir() {
                let mut visits = FolderVisits::default();
                match visits.enter(root, &metadata, false, None) {
                    Ok(open) => {
                        self.folder(root, &mut visits, &mut found, report)?;
                        visits.leave(open);
                    }
                    Err(why) => report(root, why),
                }
            } else if !is_hidden(&name_of(root)) {
                self.file(root.clone(), &metadata, &mut found, report);
            }
        }
        found.sort_by(|a, b| a.path.cmp(&b.path));
        found.dedup_by(|a, b| a.path == b.path);
        if !self.recursive {
            self.retain_partitions(&roots, &mut found, report);
        }
        Ok(found)
    }

    /// Keeps files in partition folders, and without `only_partitions` also files directly in
    /// `roots`. With it these are reported. Other files are dropped without a report.
    fn retain_partitions(
        &self,
        roots: &[PathBuf],
        found: &mut Vec<FileInfo>,
        report: &mut Report<'_>,
    ) {
        let is_direct = |file: &FileInfo| {
            let parent = file.path.parent();
            roots.iter().any(|root| Some(root.as_path()) == parent || *root == file.path)
        };
        let partitioned = |file: &FileInfo| !self.partitions(&file.path).is_empty();
        found.retain(|file| {
            if partitioned(file) {
                return true;
            }
            let is_direct = is_direct(file);
            if is_direct && self.only_partitions {
                report(&file.path, "a file outside the partition folders");
            }
            is_direct && !self.only_partitions
        });
    }

    /// Lists the files of a folder and its subfolders.
    fn folder(
        &self,
        path: &Path,
        visits: &mut FolderVisits,
        found: &mut Vec<FileInfo>,
        report: &mut Report<'_>,
    ) -> Result<(), EngineError> {
        let entries = match std::fs::read_dir(path) {
            Ok(entries) => entries,
            // A folder may be removed between its listing and this call.
            Err(error)
                if visits.is_below_root() && error.kind() == std::io::ErrorKind::NotFound =>
            {
                return Ok(());
            }
            Err(error) => return Err(unreadable(path, &error)),
        };
        for entry in entries {
            let entry = entry.map_err(|error| unreadable(path, &error))?;
            let below = entry.path();
            if is_hidden(&name_of(&below)) {
                continue;
            }
            // The directory entry contains the type, which saves a system call per entry.
            let is_link = entry.file_type().is_ok_and(|kind| kind.is_symlink());
            let metadata = match std::fs::metadata(&below) {
                Ok(metadata) => metadata,
                Err(_) => {
                    // The file may have been removed since it was listed. A broken link still
                    // exists as an entry.
                    if is_link {
                        report(&below, BROKEN_LINK);
                    }
                    continue;
                }
            };
            if !metadata.is_dir() {
                self.file(below, &metadata, found, report);
                continue;
            }
            match visits.enter(&below, &metadata, is_link, Some(path)) {
                Ok(open) => {
                    self.folder(&below, visits, found, report)?;
                    visits.leave(open);
                }
                Err(why) => report(&below, why),
            }
        }
        Ok(())
    }

    /// Adds a file. Anything else is skipped: opening a pipe would wait for a writer.
    fn file(
        &self,
        path: PathBuf,
        metadata: &Metadata,
        found: &mut Vec<FileInfo>,
        report: &mut Report<'_>,
    ) {
        match special(metadata) {
            None => self.consider(path, metadata, found),
            Some(kind) => report(&path, kind),
        }
    }

    fn consider(&self, path: PathBuf, metadata: &Metadata, found: &mut Vec<FileInfo>) {
        if self.filter.as_ref().is_some_and(|filter| !filter.matches(&name_of(&path))) {
            return;
        }
        let since = metadata.modified().ok();
        let since = since.and_then(|time| time.duration_since(std::time::UNIX_EPOCH).ok());
        let time_ms = since.map_or(0, |since| since.as_millis() as u64);
        let time_us = time_ms.saturating_mul(1000) as i64;
        let is_wanted = self.before_us.is_none_or(|before| time_us < before)
            && self.after_us.is_none_or(|after| time_us > after);
        if is_wanted {
            found.push(FileInfo { path, time_ms, size: metadata.len() });
        }
    }

    /// The partition columns of a file with the unparsed folder values. There are none with
    /// `recursiveFileLookup`, as in Spark.
    pub fn partitions(&self, path: &Path) -> Vec<(String, String)> {
        if self.recursive {
            return Vec::new();
        }
        let base = match &self.base {
            Some(base) => base.clone(),
            None => self.root.of(path),
        };
        let below = path.strip_prefix(&base).unwrap_or(Path::new(""));
        let mut found = Vec::new();
        // Walks from the file upwards, because partition folders are nested.
        for folder in below.parent().into_iter().flat_map(|parent| parent.components().rev()) {
            let Component::Normal(name) = folder else { continue };
            let name = name.to_string_lossy();
            if name == TEMPORARY {
                return Vec::new();
            }
            match partition_of(&name) {
                Some(partition) => found.push(partition),
                None if found.is_empty() => {}
                None => break,
            }
        }
        found.reverse();
        found
    }

    /// The partition columns of the existing files, each with a type that fits all its values.
    /// Files outside partition folders are ignored. An error if two files have different columns.
    pub fn partition_columns(&self, storage: &dyn Storage) -> PlanResult<Vec<Field>> {
        let files = self.list(storage, &mut |_, _| {}).map_err(|error| {
            PlanError::new("FILE_SOURCE_FAILED", error.to_string(), "Check the option 'path'")
        })?;
        let mut columns: Vec<(String, Vec<String>)> = Vec::new();
        for file in &files {
            let partitions = self.partitions(&file.path);
            if partitions.is_empty() {
                continue;
            }
            if columns.is_empty() {
                columns = partitions.iter().map(|(name, _)| (name.clone(), Vec::new())).collect();
            }
            let same = columns.len() == partitions.len()
                && columns
                    .iter()
                    .zip(&partitions)
                    .all(|((a, _), (b, _))| a.eq_ignore_ascii_case(b));
            if !same {
                return Err(conflict(&file.path, &columns, &partitions));
            }
            for ((_, values), (_, value)) in columns.iter_mut().zip(partitions) {
                values.push(value);
            }
        }
        let field = |(name, values): (String, Vec<String>)| {
            let values = values.iter().map(String::as_str);
            Field::new(name, type_of(values, self.inference), true)
        };
        Ok(columns.into_iter().map(field).collect())
    }
}

/// Why a link is skipped whose target cannot be read.
const BROKEN_LINK: &str = "a broken or circular link";

/// The kind of a path that is neither a file nor a folder. Opening it could block forever, or
/// reading could never end. `None` for files and folders.
pub(super) fn special(metadata: &Metadata) -> Option<&'static str> {
    let kind = metadata.file_type();
    if kind.is_file() || kind.is_dir() {
        return None;
    }
    #[cfg(unix)]
    {
        use std::os::unix::fs::FileTypeExt;
        if kind.is_fifo() {
            return Some("a named pipe (FIFO)");
        }
        if kind.is_socket() {
            return Some("a socket");
        }
        if kind.is_char_device() || kind.is_block_device() {
            return Some("a device");
        }
    }
    Some("neither a file nor a folder")
}

fn conflict(
    path: &Path,
    columns: &[(String, Vec<String>)],
    others: &[(String, String)],
) -> PlanError {
    let columns: Vec<_> = columns.iter().map(|(name, _)| name.as_str()).collect();
    let others: Vec<_> = others.iter().map(|(name, _)| name.as_str()).collect();
    PlanError::new(
        "CONFLICTING_PARTITION_COLUMN_NAMES",
        format!(
            "folders have the partition columns {}, but those of {} have {}",
            columns.join(", "),
            path.display(),
            others.join(", ")
        ),
        "All files must be in folders with the same partition columns; recursiveFileLookup \
        'true' ignores folder names",
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use millstream_engine::env::storage::FileStorage;

    #[cfg(unix)]
    #[test]
    fn a_folder_that_is_read_is_recognised_under_each_of_its_names() {
        let name = format!("millstream-descends-{}", std::process::id());
        let root = std::env::temp_dir().join(name);
        drop(std::fs::remove_dir_all(&root));
        for folder in ["in/sub", "in2", "other"] {
            std::fs::create_dir_all(root.join(folder)).unwrap();
        }
        std::os::unix::fs::symlink(root.join("in"), root.join("link")).unwrap();
        let listing = |path: &str, recursive: bool| {
            let options = vec![
                ("path".to_string(), root.join(path).display().to_string()),
                ("recursiveFileLookup".to_string(), recursive.to_string()),
            ];
            Listing::read(&mut OptionReader::new("test", &options)).unwrap()
        };
        for (path, folder, descends) in [
            ("in", "in/done", true),
            ("in", "in", true),
            ("in", "other/../in/done", true),
            ("in", "link/done", true),
            ("in", "link/../in/none/../done", true),
            ("link", "in/done", true),
            ("in", "in2/done", false),
            ("in", "in/../done", false),
            ("i*", "in/done", true),
            ("i*", "other/../in2", true),
            ("i*", "link/done", true),
            ("i*", "other/in", false),
            ("*/sub", "in/sub/done", true),
            ("*/sub", "other", true),
            ("*/sub", "other/done", false),
        ] {
            let found = listing(path, true).descends_into(&root.join(folder));
            assert_eq!(found, descends, "{path} and {folder}");
        }
        let mut flat = listing("in", false);
        assert!(!flat.descends_into(&root.join("in/done")));
        flat.only_partitions();
        assert!(flat.descends_into(&root.join("in/done")));
        std::fs::remove_dir_all(&root).unwrap();
    }

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
            let files = listing(path, more).list(&FileStorage, &mut |_, _| {}).unwrap();
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
        assert_eq!(values[1], ("k".to_string(), "x%2Fy".to_string()));
        std::fs::remove_dir_all(root).unwrap();
    }
}
