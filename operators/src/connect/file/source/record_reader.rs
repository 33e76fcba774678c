//! Reads a file, decompressed, record by record. Memory is bounded: a record that is too long for
//! the buffer is skipped.

use crate::connect::file::charset::Coding;
use crate::connect::file::framing::{Frame, Framing, SEPARATOR_BYTES_MAX, Scanner};
use crate::table::text::csv::LineEnd;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::ops::Range;
use std::path::Path;

/// The maximum of `Input::read_bytes`.
const READ_BYTES: usize = 256 << 10;
/// The initial value of `Input::read_bytes`. For short files a large buffer costs more than
/// decoding the records.
const FIRST_READ_BYTES: usize = 16 << 10;
/// The number of bytes of a too long record that are stored for the report.
const KEPT_BYTES: usize = 256;

/// The UTF-8 byte order mark.
const UTF_8_MARK: &[u8] = b"\xEF\xBB\xBF";

/// A record of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FoundRecord {
    /// Offset of its first byte in the file (decompressed and in UTF-8).
    pub offset: u64,
    /// Its length in bytes, including its end.
    pub length: u64,
    /// Its range in the buffer.
    range: Range<usize>,
    /// Whether the record is too long, so that only its beginning is available.
    cut: bool,
    /// The reason why the record is invalid. `None` for a valid one.
    pub fault: Option<&'static str>,
}

/// Reads a file record by record.
pub struct Input {
    from: Box<dyn Read + Send>,
    buffer: Vec<u8>,
    /// The first bytes of a record that was too long.
    kept: Vec<u8>,
    begin: usize,
    end: usize,
    /// Before a read, if less than half of this number of bytes is free in the buffer, the buffer
    /// grows so that this many are.
    read_bytes: usize,
    /// Offset of the byte at `begin`.
    offset: u64,
    /// Whether a byte order mark may follow.
    at_start: bool,
    ended: bool,
    scanner: Scanner,
    record_bytes_max: usize,
}

/// Opens a decompressor that matches the file's extension.
fn decompressed(path: &Path, file: File) -> io::Result<Box<dyn Read + Send>> {
    if file.metadata()?.len() == 0 {
        // An empty file has no records, whatever its extension.
        return Ok(Box::new(io::empty()));
    }
    let extension = path.extension().and_then(|e| e.to_str()).unwrap_or_default();
    match extension.to_ascii_lowercase().as_str() {
        #[cfg(feature = "compression")]
        "gz" => Ok(Box::new(flate2::read::MultiGzDecoder::new(file))),
        #[cfg(feature = "compression")]
        "deflate" => Ok(Box::new(flate2::read::ZlibDecoder::new(file))),
        #[cfg(feature = "compression")]
        "bz2" => Ok(Box::new(bzip2::read::MultiBzDecoder::new(file))),
        #[cfg(feature = "compression")]
        "zst" => Ok(Box::new(zstd::stream::read::Decoder::new(file)?)),
        #[cfg(not(feature = "compression"))]
        "gz" | "deflate" | "bz2" | "zst" => Err(io::Error::other(
            "it is compressed, and this program was built without the feature `compression`",
        )),
        "lz4" | "snappy" => Err(io::Error::other(format!(
            "files compressed as {extension} are not supported: use gz, deflate, bz2 or zst"
        ))),
        _ => Ok(Box::new(file)),
    }
}

fn is_plain(path: &Path) -> bool {
    let extension = path.extension().and_then(|e| e.to_str()).unwrap_or_default();
    !["gz", "deflate", "bz2", "zst"].iter().any(|other| extension.eq_ignore_ascii_case(other))
}

impl Input {
    /// Opens a file at an offset of its content, which is decompressed and converted to UTF-8.
    pub fn open(
        path: &Path,
        offset: u64,
        framing: Framing,
        coding: Coding,
        record_bytes_max: usize,
    ) -> io::Result<Self> {
        let mut framing = framing;
        if framing.needs_head() {
            let head = decompressed(path, File::open(path)?)?;
            framing.set_line_end(coding.decoded(head)?)?;
        }
        let mut file = File::open(path)?;
        let from = if offset == 0 {
            coding.decoded(decompressed(path, file)?)?
        } else if is_plain(path) && coding.is_plain(path)? {
            file.seek(SeekFrom::Start(offset))?;
            Box::new(file)
        } else {
            let mut from = coding.decoded(decompressed(path, file)?)?;
            let skipped = io::copy(&mut from.by_ref().take(offset), &mut io::sink())?;
            if skipped < offset {
                return Err(io::Error::other(format!("it has {skipped} bytes, not {offset}")));
            }
            from
        };
        Ok(Self::new(from, offset, framing, record_bytes_max))
    }

    /// Creates a reader over any source of bytes. `offset` is the position of its first byte.
    pub fn new(
        from: Box<dyn Read + Send>,
        offset: u64,
        framing: Framing,
        record_bytes_max: usize,
    ) -> Self {
        Self {
            from,
            buffer: Vec::new(),
            kept: Vec::new(),
            begin: 0,
            end: 0,
            read_bytes: FIRST_READ_BYTES,
            offset,
            // A file that is one record keeps its byte order mark.
            at_start: offset == 0 && !matches!(framing, Framing::Whole | Framing::JsonFile),
            ended: false,
            // A JSON file that is read as one record is resumed in the middle only if it was too
            // long for one record.
            scanner: Scanner::new(match framing {
                Framing::JsonFile if offset > 0 => Framing::Json,
                framing => framing,
            }),
            record_bytes_max,
        }
    }

    /// The line end of multi-line CSV records, once it is known.
    pub fn line_end(&self) -> Option<LineEnd> {
        self.scanner.line_end()
    }

    /// Offset of the next record.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// The bytes of a record, valid until the next record is read. If the record is too long, only
    /// its first bytes.
    #[inline]
    pub fn bytes(&self, found: &FoundRecord) -> &[u8] {
        if found.cut { &self.kept } else { &self.buffer[found.range.clone()] }
    }

    fn take(&mut self, bytes: usize) {
        self.begin += bytes;
        self.offset += bytes as u64;
        self.scanner.reset();
    }

    /// The next record, or `None` at the end of the file. An overlong record is skipped and returned
    /// with its fault, except that an overlong JSON file is read object by object.
    #[inline]
    pub fn record(&mut self) -> io::Result<Option<FoundRecord>> {
        if self.at_start {
            self.skip_mark()?;
        }
        loop {
            let window = &self.buffer[self.begin..self.end];
            // Bytes beyond the longest record may be the beginning of a separator.
            let most = self.record_bytes_max + SEPARATOR_BYTES_MAX;
            if window.len() - self.scanner.begin() > most {
                self.scanner.try_now();
            }
            if let Some(frame) = self.scanner.find(window, self.ended) {
                if frame.end - frame.begin > self.record_bytes_max && self.scanner.splits() {
                    continue;
                }
                return if frame.end - frame.begin <= self.record_bytes_max {
                    Ok(Some(self.found(frame)))
                } else {
                    self.too_long().map(Some)
                };
            }
            if self.ended {
                let left = self.end - self.begin;
                self.take(left);
                return Ok(None);
            }
            if window.len() - self.scanner.begin() > most && !self.scanner.splits() {
                return self.too_long().map(Some);
            }
            self.fill()?;
        }
    }

    /// Skips the byte order mark of UTF-8.
    #[cold]
    fn skip_mark(&mut self) -> io::Result<()> {
        self.at_start = false;
        while self.end < UTF_8_MARK.len() && !self.ended {
            self.fill()?;
        }
        if self.buffer[..self.end].starts_with(UTF_8_MARK) {
            self.take(UTF_8_MARK.len());
        }
        Ok(())
    }

    #[inline]
    fn found(&mut self, frame: Frame) -> FoundRecord {
        let (begin, offset) = (self.begin, self.offset + frame.begin as u64);
        self.take(frame.next);
        FoundRecord {
            offset,
            length: (frame.next - frame.begin) as u64,
            range: begin + frame.begin..begin + frame.end,
            cut: false,
            fault: None,
        }
    }

    fn fill(&mut self) -> io::Result<()> {
        if self.begin > 0 {
            self.buffer.copy_within(self.begin..self.end, 0);
            self.end -= self.begin;
            self.begin = 0;
        }
        if self.buffer.len() - self.end < self.read_bytes / 2 {
            self.buffer.resize(self.end + self.read_bytes, 0);
        }
        loop {
            match self.from.read(&mut self.buffer[self.end..]) {
                Ok(0) => self.ended = true,
                Ok(read) => {
                    self.end += read;
                    if self.end == self.buffer.len() {
                        self.read_bytes = (self.read_bytes * 4).min(READ_BYTES);
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            }
            return Ok(());
        }
    }

    /// Skips a record that exceeds the allowed length, up to its end. If a quote may be open, skips
    /// only up to the end of the record's first line, so that the rest of the file is not lost.
    fn too_long(&mut self) -> io::Result<FoundRecord> {
        let before = self.scanner.begin();
        self.begin += before;
        self.offset += before as u64;
        let offset = self.offset;
        let beginning = self.begin..self.begin + self.record_bytes_max + 1;
        self.kept.clear();
        self.kept.extend(self.buffer[beginning].iter().take(KEPT_BYTES));
        self.scanner.reset();
        let mut by_lines =
            self.scanner.skips_first_line_only().then(|| Scanner::new(Framing::Lines));
        let fault = "record longer than maxRecordBytes";
        let mut length = 0u64;
        loop {
            let scanner = by_lines.as_mut().unwrap_or(&mut self.scanner);
            let window = &self.buffer[self.begin..self.end];
            if let Some(frame) = scanner.find(window, self.ended) {
                length += frame.next as u64;
                self.take(frame.next);
                break;
            }
            if self.ended {
                let left = self.end - self.begin;
                length += left as u64;
                self.take(left);
                break;
            }
            // The last bytes are kept: a separator may have started in them.
            let drop = scanner.scanned().min(window.len()).saturating_sub(SEPARATOR_BYTES_MAX);
            scanner.dropped(drop);
            self.begin += drop;
            self.offset += drop as u64;
            length += drop as u64;
            self.fill()?;
        }
        Ok(FoundRecord { offset, length, range: 0..0, cut: true, fault: Some(fault) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::text::csv::{Dialect, UnescapedQuote};
    use proptest::prelude::*;

    /// A reader that returns at most a fixed number of bytes per call.
    struct Dribble(Vec<u8>, usize);

    impl Read for Dribble {
        fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
            let n = self.1.min(self.0.len()).min(into.len());
            into[..n].copy_from_slice(&self.0[..n]);
            self.0.drain(..n);
            Ok(n)
        }
    }

    /// Returns the records with their offsets and whether they are valid.
    fn records(
        bytes: &[u8],
        framing: &Framing,
        step: usize,
        most: usize,
        from: u64,
    ) -> Vec<(u64, String, bool)> {
        let rest = bytes[from as usize..].to_vec();
        let mut input = Input::new(Box::new(Dribble(rest, step)), from, framing.clone(), most);
        let mut out = Vec::new();
        while let Some(found) = input.record().unwrap() {
            let text = String::from_utf8_lossy(input.bytes(&found)).into_owned();
            out.push((found.offset, text, found.fault.is_none()));
        }
        out
    }

    fn texts(bytes: &str, framing: Framing) -> Vec<String> {
        let all = records(bytes.as_bytes(), &framing, 3, 1 << 20, 0);
        all.into_iter()
            .map(|(_, text, good)| if good { text } else { format!("BAD {text}") })
            .collect()
    }

    fn csv(line_end: LineEnd) -> Framing {
        Framing::Csv(Box::new(Dialect { line_end: Some(line_end), ..Dialect::default() }))
    }

    /// The supported line ends.
    fn line_ends() -> [LineEnd; 3] {
        ["a\n", "a\r\n", "a\rb"].map(|head| LineEnd::detect(head.as_bytes(), true, 9).unwrap())
    }

    #[test]
    fn each_framing_splits_a_file_into_its_records() {
        assert_eq!(texts("a\nb\r\nc\rd\n\ne", Framing::Lines), ["a", "b", "c", "d", "", "e"]);
        assert_eq!(texts("a||b||", Framing::Separated(b"||".to_vec())), ["a", "b"]);
        assert_eq!(texts("a\nb\n", Framing::Whole), ["a\nb\n"]);
        let [lf, crlf, cr] = line_ends();
        assert_eq!(
            texts("1,\"a\nb\"\n\n2,\"c\"\"\\\"\n\"\n3,x", csv(lf)),
            ["1,\"a\nb\"\n", "2,\"c\"\"\\\"\n\"\n", "3,x"]
        );
        assert_eq!(texts("1,\"a\r\nb\"\r\n2\r\n", csv(crlf)), ["1,\"a\r\nb\"\r\n", "2\r\n"]);
        assert_eq!(texts("1,\"a\rb\"\r2\r", csv(cr)), ["1,\"a\rb\"\r", "2\r"]);
        // An unclosed quote extends the record to the end of the file, as in Spark.
        assert_eq!(texts("1,\"a\n2,b\n3,c", csv(lf)), ["1,\"a\n2,b\n3,c"]);
        assert_eq!(
            texts(" [ {\"a\":\"}\\\"\"},\n {\"b\":[1,{}]} ]\n5\n{\"c\"", Framing::Json),
            ["{\"a\":\"}\\\"\"}", "{\"b\":[1,{}]}", "5", "{\"c\""]
        );
    }

    #[test]
    fn a_file_of_json_is_one_record_unless_it_is_too_long() {
        let bytes = b"[{\"a\":1},\n{\"a\":2}]";
        for step in [1, 100] {
            let whole = records(bytes, &Framing::JsonFile, step, 100, 0);
            assert_eq!(whole, [(0, "[{\"a\":1},\n{\"a\":2}]".to_string(), true)]);
            let split = records(bytes, &Framing::JsonFile, step, 10, 0);
            let expected =
                [(1, "{\"a\":1}".to_string(), true), (10, "{\"a\":2}".to_string(), true)];
            assert_eq!(split, expected);
            assert_eq!(records(bytes, &Framing::JsonFile, step, 10, 8), expected[1..]);
        }
    }

    #[test]
    fn a_byte_order_mark_is_not_part_of_the_first_record() {
        let got = records(b"\xEF\xBB\xBFa\n\xEF\xBB\xBFb", &Framing::Lines, 1, 100, 0);
        assert_eq!(got, [(3, "a".to_string(), true), (5, "\u{FEFF}b".to_string(), true)]);
        assert_eq!(texts("\u{FEFF}", Framing::Lines), [""; 0]);
        assert_eq!(texts("\u{FEFF}a", Framing::Whole), ["\u{FEFF}a"]);
    }

    #[test]
    fn only_the_overlong_record_is_skipped() {
        let long = "x".repeat(1 << 20);
        let bytes = format!("a\n{long}\nb\n");
        let got = records(bytes.as_bytes(), &Framing::Lines, 1000, 100, 0);
        assert_eq!(got[0], (0, "a".to_string(), true));
        assert_eq!((got[1].0, got[1].1.len(), got[1].2), (2, 101, false));
        assert_eq!(got[2], (2 + (1 << 20) + 1, "b".to_string(), true));
        let quoted = format!("1,\"{long}\n2,b\n");
        let got = records(quoted.as_bytes(), &csv(LineEnd::LF), 1000, 100, 0);
        assert!(!got[0].2 && got.last().unwrap().2, "{:?}", got.last());
        assert_eq!(got.last().unwrap().1, "2,b\n");
    }

    fn framings_of_all_kinds() -> Vec<Framing> {
        let mut all =
            vec![Framing::Lines, Framing::Separated(b"ab".to_vec()), Framing::Json, Framing::Whole];
        for line_end in line_ends() {
            all.push(csv(line_end));
            let own = Dialect {
                line_end: Some(line_end),
                separator: vec![u32::from(b','), u32::from(b' ')],
                escape: u32::from(b'"'),
                escape_of_escape: 0,
                comment: Some(u32::from(b'a')),
                unescaped_quote: UnescapedQuote::StopAtClosingQuote,
                trim_start: true,
                ..Dialect::default()
            };
            all.push(Framing::Csv(Box::new(own)));
        }
        all
    }

    proptest! {
        /// The records are the same however the bytes are split into reads and at whichever record
        /// reading starts.
        #[test]
        fn records_do_not_depend_on_reads(
            bytes in proptest::collection::vec(proptest::sample::select(b"ab,\"\\\n\r{}[] ".to_vec()), 0..80),
            step in 1usize..9,
            most in 3usize..100,
            framing in proptest::sample::select(framings_of_all_kinds()),
        ) {
            let whole = records(&bytes, &framing, bytes.len().max(1), most, 0);
            let dribbled = records(&bytes, &framing, step, most, 0);
            prop_assert_eq!(&whole, &dribbled);
            for (i, (offset, ..)) in whole.iter().enumerate() {
                prop_assert_eq!(&whole[i..], &records(&bytes, &framing, step, most, *offset)[..]);
            }
        }
    }
}
