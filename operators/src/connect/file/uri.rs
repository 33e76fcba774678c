//! Paths as `file:` URIs, as Spark's logs have them.

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

/// `%41` as `A`; what is no such code stays.
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
    fn there_and_back() {
        let path = Path::new("/a b/é%2F/k=1/x#y");
        assert_eq!(path_of(&uri(path)), path);
        assert_eq!(path_of("file:/a%20b"), Path::new("/a b"));
        assert_eq!(percent_decoded("100%"), "100%");
    }
}
