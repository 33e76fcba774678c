//! Converts between paths and `file:` URIs, as in Spark's logs, and checks that paths in options
//! are local.

use crate::table::error::{PlanError, PlanResult};
use std::path::{Path, PathBuf};

/// A path as a `file:` URI.
pub fn uri(path: &Path) -> String {
    let mut out = String::from("file://");
    for byte in path.to_string_lossy().bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' => out.push(byte as char),
            b'/' | b'-' | b'_' | b'.' | b'~' | b'=' | b'+' | b',' | b':' | b'@' => {
                out.push(byte as char);
            }
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

/// The path of a `file:` URI, or of a plain path.
pub fn path_of(uri: &str) -> PathBuf {
    match uri.strip_prefix("file:") {
        Some(rest) => PathBuf::from(percent_decoded(rest.strip_prefix("//").unwrap_or(rest))),
        None => PathBuf::from(uri),
    }
}

/// The scheme of a URI: `s3` of `s3://bucket/folder`. A single letter is a drive.
fn scheme(path: &str) -> Option<&str> {
    let (scheme, rest) = path.split_once(':')?;
    let is_scheme = scheme.len() > 1
        && scheme.starts_with(|c: char| c.is_ascii_alphabetic())
        && scheme.chars().all(|c| c.is_ascii_alphanumeric() || "+-.".contains(c));
    (is_scheme && rest.starts_with('/')).then_some(scheme)
}

/// The local path of the option `name`, without the scheme `file:`. Other schemes name remote
/// stores, which are not supported; they would otherwise be taken for folder names.
pub fn local_path<'p>(name: &str, path: &'p str) -> PlanResult<&'p str> {
    match scheme(path) {
        None => Ok(path),
        Some(file) if file.eq_ignore_ascii_case("file") => {
            let rest = &path[file.len() + 1..];
            let Some(behind) = rest.strip_prefix("//") else { return Ok(rest) };
            // A host may stand before the path.
            let host = behind.find('/').unwrap_or(behind.len());
            if host == 0 || behind[..host].eq_ignore_ascii_case("localhost") {
                return Ok(&behind[host..]);
            }
            Err(PlanError::new(
                "UNSUPPORTED_FILE_SYSTEM",
                format!("option '{name}' is '{path}': '{}' is another host", &behind[..host]),
                "Only local files are read and written: file:///data/in",
            ))
        }
        Some(other) => Err(PlanError::new(
            "UNSUPPORTED_FILE_SYSTEM",
            format!("option '{name}' is '{path}': there is no file system for scheme '{other}'"),
            "Only local files are read and written. Mount the store (s3fs, rclone mount, the NFS gateway \
             of HDFS) or copy its files to a local folder, and give the path of that folder",
        )),
    }
}

/// Decodes `%41` to `A`. Invalid codes stay as they are; a result that is not valid UTF-8 gets
/// replacement characters.
pub fn percent_decoded(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    let hex = |at: usize| bytes.get(at).and_then(|b| (*b as char).to_digit(16));
    while at < bytes.len() {
        match (bytes[at], hex(at + 1), hex(at + 2)) {
            (b'%', Some(high), Some(low)) => {
                out.push((high * 16 + low) as u8);
                at += 3;
            }
            (byte, ..) => {
                out.push(byte);
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_survives_conversion_to_a_uri_and_back() {
        let path = Path::new("/a b/é%2F/k=1/x#y");
        assert_eq!(path_of(&uri(path)), path);
        assert_eq!(path_of("file:/a%20b"), Path::new("/a b"));
        assert_eq!(percent_decoded("100%"), "100%");
    }

    #[test]
    fn paths_in_options_are_local() {
        for (written, path) in [
            ("/data/in", "/data/in"),
            ("data:in/a", "data:in/a"),
            ("file:///data/in", "/data/in"),
            ("FILE:/data/in", "/data/in"),
            ("file://localhost/data/in", "/data/in"),
            ("c:/data", "c:/data"),
            ("a b:/data", "a b:/data"),
        ] {
            assert_eq!(local_path("path", written), Ok(path));
        }
        assert!(local_path("path", "file://data/in").unwrap_err().reason.contains("'data'"));
        for remote in ["s3://b/x", "s3a://b", "hdfs://host:8020/x", "dbfs:/x", "HTTPS://h/x"] {
            let error = local_path("path", remote).unwrap_err();
            assert_eq!(error.condition, "UNSUPPORTED_FILE_SYSTEM", "{remote}");
            assert!(error.reason.contains(remote) && error.fix.contains("local"), "{error}");
        }
    }
}
