//! Character sets of text files: decoded to UTF-8 before records are found, encoded from UTF-8 when
//! lines are written.
//!
//! UTF-8 is not decoded; invalid UTF-8 is found later, record by record. In other character sets,
//! invalid bytes become U+FFFD and characters that cannot be encoded become `?`, as in Java.

use crate::connect::options::OptionReader;
use crate::table::error::{PlanError, PlanResult};
use encoding_rs::{CoderResult, Decoder, Encoding};
use std::io::{self, Read};

/// The number of bytes per read.
const READ_BYTES: usize = 64 << 10;
/// Number of bytes that determine a JSON file's character set.
const HEAD_BYTES: usize = 4;

/// A character set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Charset {
    /// UTF-8: bytes pass unchanged.
    Utf8,
    /// US-ASCII, seven bits.
    Ascii,
    /// ISO-8859-1: the first 256 characters of Unicode.
    Latin1,
    /// UTF-16 in the byte order of its byte order mark, big endian without one.
    Utf16,
    /// UTF-32 in the byte order of its byte order mark, big endian without one.
    Utf32,
    /// UTF-32, big endian.
    Utf32Be,
    /// UTF-32, little endian.
    Utf32Le,
    /// One of the encodings of web browsers: UTF-16LE, windows-1252, Shift_JIS, …
    Table(&'static Encoding),
}

impl Charset {
    /// Finds a character set by its name, ignoring case. `None` if it is not supported.
    pub fn of(name: &str) -> Option<Self> {
        Some(match name.to_ascii_uppercase().as_str() {
            "UTF-8" | "UTF8" => Self::Utf8,
            // Browsers treat the names of these two sets as windows-1252; Java does not.
            "US-ASCII" | "ASCII" | "ASCII7" | "ISO646-US" | "ISO_646.IRV:1991" | "ISO-IR-6"
            | "ANSI_X3.4-1968" | "ANSI_X3.4-1986" | "US" | "IBM367" | "CP367" | "CSASCII"
            | "646" => Self::Ascii,
            "ISO-8859-1" | "ISO8859-1" | "ISO8859_1" | "ISO_8859-1" | "ISO_8859_1"
            | "ISO_8859-1:1987" | "8859_1" | "ISO88591" | "ISO-IR-100" | "LATIN1" | "L1"
            | "IBM819" | "IBM-819" | "CP819" | "819" | "CSISOLATIN1" => Self::Latin1,
            "UTF-16" | "UTF_16" | "UTF16" | "UNICODE" | "UNICODEBIG" => Self::Utf16,
            "UTF-16BE" | "UTF_16BE" | "X-UTF-16BE" | "ISO-10646-UCS-2" | "UNICODEBIGUNMARKED" => {
                Self::Table(encoding_rs::UTF_16BE)
            }
            "UTF-16LE" | "UTF_16LE" | "X-UTF-16LE" | "UNICODELITTLEUNMARKED" => {
                Self::Table(encoding_rs::UTF_16LE)
            }
            "UTF-32" | "UTF_32" | "UTF32" | "ISO-10646-UCS-4" => Self::Utf32,
            "UTF-32BE" => Self::Utf32Be,
            "UTF-32LE" => Self::Utf32Le,
            _ => {
                let table = Encoding::for_label_no_replacement(name.as_bytes())?;
                if table == encoding_rs::UTF_8 { Self::Utf8 } else { Self::Table(table) }
            }
        })
    }

    /// Reads the option `encoding`, or `charset`, its other name.
    pub fn read(reader: &mut OptionReader<'_>) -> PlanResult<Option<Self>> {
        let (encoding, charset) = (reader.get("encoding"), reader.get("charset"));
        let Some(name) = encoding.or(charset) else { return Ok(None) };
        match Self::of(name) {
            Some(charset) => Ok(Some(charset)),
            None => Err(PlanError::new(
                "INVALID_PARAMETER_VALUE.CHARSET",
                format!("option 'encoding' is '{name}', which is not a character set"),
                "UTF-8, US-ASCII, ISO-8859-1, UTF-16, UTF-16BE, UTF-16LE, UTF-32, windows-1252, …",
            )),
        }
    }

    /// The character set of a JSON file, from its byte order mark or from the zero bytes around its
    /// first character.
    fn of_json(head: &[u8]) -> Self {
        match head {
            [0, 0, 0xFE, 0xFF, ..] | [0, 0, 0, 1..=255, ..] => Self::Utf32Be,
            [0xFF, 0xFE, 0, 0, ..] | [1..=255, 0, 0, 0, ..] => Self::Utf32Le,
            [0xFE, 0xFF, ..] | [0, 1..=255, ..] => Self::Table(encoding_rs::UTF_16BE),
            [0xFF, 0xFE, ..] | [1..=255, 0, ..] => Self::Table(encoding_rs::UTF_16LE),
            _ => Self::Utf8,
        }
    }

    /// Appends a text's bytes.
    pub fn encode(self, text: &str, out: &mut Vec<u8>) {
        let single = |most: char, out: &mut Vec<u8>| {
            out.extend(text.chars().map(|c| if c <= most { c as u8 } else { b'?' }));
        };
        match self {
            Self::Utf8 => out.extend_from_slice(text.as_bytes()),
            Self::Ascii => single('\u{7F}', out),
            Self::Latin1 => single('\u{FF}', out),
            Self::Utf16 => out.extend(text.encode_utf16().flat_map(u16::to_be_bytes)),
            Self::Utf32 | Self::Utf32Be => {
                out.extend(text.chars().flat_map(|c| u32::from(c).to_be_bytes()));
            }
            Self::Utf32Le => out.extend(text.chars().flat_map(|c| u32::from(c).to_le_bytes())),
            Self::Table(table) if table == encoding_rs::UTF_16LE => {
                out.extend(text.encode_utf16().flat_map(u16::to_le_bytes));
            }
            Self::Table(table) if table == encoding_rs::UTF_16BE => {
                out.extend(text.encode_utf16().flat_map(u16::to_be_bytes));
            }
            Self::Table(table) => encode_by_table(table, text, out),
        }
    }

    /// The byte order mark that Java writes at the start of a file.
    pub fn mark(self) -> &'static [u8] {
        if self == Self::Utf16 { &[0xFE, 0xFF] } else { &[] }
    }
}

fn encode_by_table(table: &'static Encoding, text: &str, out: &mut Vec<u8>) {
    let mut encoder = table.new_encoder();
    let mut rest = text;
    loop {
        let room = encoder.max_buffer_length_from_utf8_without_replacement(rest.len());
        let from = out.len();
        out.resize(from + room.unwrap_or(rest.len() * 4), 0);
        let (result, read, wrote) =
            encoder.encode_from_utf8_without_replacement(rest, &mut out[from..], true);
        out.truncate(from + wrote);
        rest = &rest[read..];
        match result {
            encoding_rs::EncoderResult::InputEmpty => return,
            encoding_rs::EncoderResult::Unmappable(_) => out.push(b'?'),
            encoding_rs::EncoderResult::OutputFull => {}
        }
    }
}

/// How the bytes of a file are decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Coding {
    /// The character set is known.
    Known(Charset),
    /// JSON: the first bytes of the file determine the character set.
    Json,
}

impl Coding {
    /// Decodes a reader's bytes, unless they are UTF-8 already.
    pub fn decoded(self, mut from: Box<dyn Read + Send>) -> io::Result<Box<dyn Read + Send>> {
        let charset = match self {
            Self::Known(charset) => charset,
            Self::Json => {
                let mut head = [0; HEAD_BYTES];
                let mut length = 0;
                while length < HEAD_BYTES {
                    match from.read(&mut head[length..]) {
                        Ok(0) => break,
                        Ok(read) => length += read,
                        Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                        Err(error) => return Err(error),
                    }
                }
                let head = &head[..length];
                from = Box::new(io::Cursor::new(head.to_vec()).chain(from));
                Charset::of_json(head)
            }
        };
        Ok(if charset == Charset::Utf8 { from } else { Box::new(Transcoder::new(from, charset)) })
    }

    /// Whether offsets in the text are offsets in the file.
    pub fn is_plain(self, path: &std::path::Path) -> io::Result<bool> {
        match self {
            Self::Known(charset) => Ok(charset == Charset::Utf8),
            Self::Json => {
                let mut head = Vec::with_capacity(HEAD_BYTES);
                std::fs::File::open(path)?.take(HEAD_BYTES as u64).read_to_end(&mut head)?;
                Ok(Charset::of_json(&head) == Charset::Utf8)
            }
        }
    }
}

/// Reads text of a character set as UTF-8.
struct Transcoder {
    from: Box<dyn Read + Send>,
    charset: Charset,
    /// The decoder of a character set with a table.
    decoder: Option<Decoder>,
    /// Bytes read from the file. Those from `at` on are not decoded yet.
    raw: Vec<u8>,
    at: usize,
    /// Decoded text. The part from `taken` on is not read yet.
    text: Vec<u8>,
    taken: usize,
    ended: bool,
    begun: bool,
}

impl Transcoder {
    fn new(from: Box<dyn Read + Send>, charset: Charset) -> Self {
        let (raw, text) = (Vec::new(), Vec::new());
        Self {
            from,
            charset,
            decoder: None,
            raw,
            at: 0,
            text,
            taken: 0,
            ended: false,
            begun: false,
        }
    }

    fn fill(&mut self) -> io::Result<()> {
        self.raw.drain(..self.at);
        self.at = 0;
        // Reads until the buffer can contain a whole byte order mark.
        while !self.ended {
            let from = self.raw.len();
            self.raw.resize(from + READ_BYTES, 0);
            let read = self.from.read(&mut self.raw[from..]);
            self.raw.truncate(from + *read.as_ref().unwrap_or(&0));
            match read {
                Ok(0) => self.ended = true,
                Err(error) if error.kind() != io::ErrorKind::Interrupted => return Err(error),
                _ => {}
            }
            if self.raw.len() >= HEAD_BYTES {
                return Ok(());
            }
        }
        Ok(())
    }

    /// Skips the byte order mark, which may determine the byte order.
    fn begin(&mut self) {
        self.begun = true;
        let (charset, mark) = match (self.charset, &self.raw[..]) {
            (Charset::Utf32, [0xFF, 0xFE, 0, 0, ..]) => (Charset::Utf32Le, 4),
            (Charset::Utf32 | Charset::Utf32Be, [0, 0, 0xFE, 0xFF, ..]) => (Charset::Utf32Be, 4),
            (Charset::Utf32Le, [0xFF, 0xFE, 0, 0, ..]) => (Charset::Utf32Le, 4),
            (Charset::Utf32, _) => (Charset::Utf32Be, 0),
            (Charset::Utf16, [0xFF, 0xFE, ..]) => (Charset::Table(encoding_rs::UTF_16LE), 2),
            (Charset::Utf16, [0xFE, 0xFF, ..]) => (Charset::Table(encoding_rs::UTF_16BE), 2),
            (Charset::Utf16, _) => (Charset::Table(encoding_rs::UTF_16BE), 0),
            (Charset::Table(t), [0xFF, 0xFE, ..]) if t == encoding_rs::UTF_16LE => {
                (self.charset, 2)
            }
            (Charset::Table(t), [0xFE, 0xFF, ..]) if t == encoding_rs::UTF_16BE => {
                (self.charset, 2)
            }
            (charset, _) => (charset, 0),
        };
        self.charset = charset;
        self.at = mark;
        if let Charset::Table(table) = charset {
            self.decoder = Some(table.new_decoder_without_bom_handling());
        }
    }

    /// Decodes the bytes of `raw` into `text`.
    fn decode(&mut self) {
        self.text.clear();
        self.taken = 0;
        let raw = &self.raw[self.at..];
        if let Some(decoder) = &mut self.decoder {
            let room = decoder.max_utf8_buffer_length(raw.len());
            self.text.resize(room.unwrap_or(raw.len() * 4), 0);
            let (result, read, wrote, _) = decoder.decode_to_utf8(raw, &mut self.text, self.ended);
            debug_assert!(result == CoderResult::InputEmpty);
            self.text.truncate(wrote);
            self.at += read;
            return;
        }
        let mut put = |c: char| {
            self.text.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
        };
        let replaced = char::REPLACEMENT_CHARACTER;
        match self.charset {
            Charset::Ascii => {
                raw.iter().for_each(|b| put(if b.is_ascii() { char::from(*b) } else { replaced }));
            }
            Charset::Latin1 => raw.iter().for_each(|b| put(char::from(*b))),
            _ => {
                let little = self.charset == Charset::Utf32Le;
                let (words, rest) = raw.as_chunks::<4>();
                for word in words {
                    let code =
                        if little { u32::from_le_bytes(*word) } else { u32::from_be_bytes(*word) };
                    put(char::from_u32(code).unwrap_or(replaced));
                }
                if self.ended && !rest.is_empty() {
                    put(replaced);
                } else {
                    self.at += words.len() * 4;
                    return;
                }
            }
        }
        self.at = self.raw.len();
    }
}

impl Read for Transcoder {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        while self.taken == self.text.len() {
            if self.ended && self.at == self.raw.len() && self.begun {
                return Ok(0);
            }
            self.fill()?;
            if !self.begun {
                self.begin();
            }
            self.decode();
        }
        let count = into.len().min(self.text.len() - self.taken);
        into[..count].copy_from_slice(&self.text[self.taken..self.taken + count]);
        self.taken += count;
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A reader that returns one byte per call.
    struct Bytewise(io::Cursor<Vec<u8>>);

    impl Read for Bytewise {
        fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
            let most = into.len().min(1);
            self.0.read(&mut into[..most])
        }
    }

    fn text(coding: Coding, bytes: &[u8]) -> String {
        let mut out = String::new();
        let from = Box::new(Bytewise(io::Cursor::new(bytes.to_vec())));
        coding.decoded(from).unwrap().read_to_string(&mut out).unwrap();
        out
    }

    const NAMES: [&str; 10] = [
        "utf-8",
        "US-ASCII",
        "latin1",
        "UTF-16",
        "UTF-16LE",
        "UTF-16BE",
        "UTF-32",
        "UTF-32LE",
        "cp1252",
        "shift_jis",
    ];

    #[test]
    fn encoded_text_decodes_to_itself() {
        for name in NAMES {
            let charset = Charset::of(name).unwrap();
            let mut bytes = charset.mark().to_vec();
            charset.encode("a\n{\"b\":1}", &mut bytes);
            assert_eq!(text(Coding::Known(charset), &bytes), "a\n{\"b\":1}", "{name}");
        }
        assert_eq!(Charset::of("klingon"), None);
    }

    #[test]
    fn a_character_set_has_the_names_that_java_knows() {
        for (name, charset) in [
            ("ISO8859-1", Charset::Latin1),
            ("l1", Charset::Latin1),
            ("cp819", Charset::Latin1),
            ("ansi_x3.4-1968", Charset::Ascii),
            ("unicode", Charset::Utf16),
            ("utf_32", Charset::Utf32),
        ] {
            assert_eq!(Charset::of(name), Some(charset), "{name}");
        }
    }

    #[test]
    fn characters_that_a_character_set_lacks_are_replaced() {
        let mut out = Vec::new();
        Charset::Latin1.encode("é€", &mut out);
        Charset::of("windows-1252").unwrap().encode("é€日", &mut out);
        assert_eq!(out, b"\xE9?\xE9\x80?");
        assert_eq!(text(Coding::Known(Charset::Ascii), b"a\xE9"), "a\u{FFFD}");
        assert_eq!(text(Coding::Known(Charset::Utf16), b"\xFF\xFEa\0\0\xD8"), "a\u{FFFD}");
        assert_eq!(text(Coding::Known(Charset::Utf32), b"\0\0\0a\0\0"), "a\u{FFFD}");
    }

    #[test]
    fn the_character_set_of_a_json_file_is_detected() {
        for (bytes, expected) in [
            (&b"\xFF\xFE{\0}\0"[..], "{}"),
            (b"\xFE\xFF\0{\0}", "{}"),
            (b"{\0}\0", "{}"),
            (b"\0{\0}", "{}"),
            (b"\0\0\xFE\xFF\0\0\0{\0\0\0}", "{}"),
            (b"{\0\0\0}\0\0\0", "{}"),
            (b"{}", "{}"),
            (b"1", "1"),
            (b"", ""),
        ] {
            assert_eq!(text(Coding::Json, bytes), expected, "{}", bytes.escape_ascii());
        }
    }

    proptest! {
        #[test]
        fn any_bytes_decode_without_an_error(bytes: Vec<u8>, name in proptest::sample::select(&NAMES[1..])) {
            let charset = Charset::of(name).unwrap();
            text(Coding::Known(charset), &bytes);
        }

        #[test]
        fn any_text_survives_utf_16_and_utf_32(written: String) {
            for name in &NAMES[3..8] {
                let charset = Charset::of(name).unwrap();
                let mut bytes = b"".to_vec();
                charset.encode(&written, &mut bytes);
                let read = text(Coding::Known(charset), &bytes);
                let written = written.strip_prefix('\u{FEFF}').unwrap_or(&written);
                if !written.starts_with('\u{FFFE}') {
                    prop_assert_eq!(read, written, "{}", name);
                }
            }
        }
    }
}
