//! File writers of the file sink: optionally compressed lines, or columnar files.

#[cfg(feature = "columnar")]
use crate::connect::columnar::{ColumnFile, ColumnFormat, ColumnSink};
use crate::connect::file::charset::Charset;
use crate::connect::line_format::{LineFormat, LineOptions, LineWriter};
use crate::connect::options::OptionReader;
use crate::table::datetime::pattern::Direction;
use crate::table::error::{PlanError, PlanResult};
use crate::table::row::Row;
use crate::table::text::csv::WriteOptions;
use crate::table::text::json::Style;
use crate::table::text::notation::Notation;
use crate::table::types::Schema;
use std::io;

/// The number of bytes of lines at which they are compressed or encoded.
const COMPRESS_BYTES: usize = 64 << 10;

/// A file that rows are written to.
pub trait FileWriter: Send {
    /// Writes a row. Bytes that are ready are appended to `out`.
    fn write(&mut self, row: Row<'_>, out: &mut Vec<u8>) -> io::Result<()>;
    /// Ends the file and appends the rest of its bytes to `out`.
    fn finish(&mut self, out: &mut Vec<u8>) -> io::Result<()>;
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Codec {
    None,
    #[cfg(feature = "compression")]
    Gzip,
    #[cfg(feature = "compression")]
    Deflate,
    #[cfg(feature = "compression")]
    Bzip2,
    #[cfg(feature = "compression")]
    Zstd,
}

/// The format of a sink's files.
#[derive(Clone, Debug)]
pub enum SinkFormat {
    /// A line per row.
    Lines(LineFormat, Box<LineOptions>, CompressedLines),
    /// A columnar format.
    #[cfg(feature = "columnar")]
    Columns(ColumnSink),
}

/// How lines are encoded and compressed, and whether the first line contains the column names.
#[derive(Clone, Copy, Debug)]
pub struct CompressedLines {
    codec: Codec,
    header: bool,
    charset: Charset,
    /// The option `extension`, which replaces the format's own file extension.
    extension: Option<[u8; 3]>,
}

fn codec(reader: &mut OptionReader<'_>) -> PlanResult<Codec> {
    let given = reader.get("compression");
    let Some(name) = given.or(reader.get("codec")) else { return Ok(Codec::None) };
    match name.to_ascii_lowercase().as_str() {
        "none" | "uncompressed" => Ok(Codec::None),
        #[cfg(feature = "compression")]
        "gzip" => Ok(Codec::Gzip),
        #[cfg(feature = "compression")]
        "deflate" => Ok(Codec::Deflate),
        #[cfg(feature = "compression")]
        "bzip2" => Ok(Codec::Bzip2),
        #[cfg(feature = "compression")]
        "zstd" => Ok(Codec::Zstd),
        #[cfg(not(feature = "compression"))]
        "gzip" | "deflate" | "bzip2" | "zstd" => Err(PlanError::new(
            "FEATURE_NOT_ENABLED",
            format!("this program was built without compression '{name}'"),
            "Build it with the feature `compression`",
        )),
        _ => Err(PlanError::new(
            "CODEC_NOT_AVAILABLE.WITH_AVAILABLE_CODECS_SUGGESTION",
            format!("compression '{name}' is not supported for lines"),
            "Use none, gzip, deflate, bzip2 or zstd: lz4 and snappy have a framing that only Hadoop reads",
        )),
    }
}

/// Parses the option `extension` of CSV: three letters.
fn extension(reader: &mut OptionReader<'_>) -> PlanResult<Option<[u8; 3]>> {
    let Some(text) = reader.get("extension") else { return Ok(None) };
    match text.as_bytes().try_into() {
        Ok(letters) if text.bytes().all(|b| b.is_ascii_alphabetic()) => Ok(Some(letters)),
        _ => Err(PlanError::new(
            "INVALID_OPTION_VALUE",
            format!("option 'extension' is '{text}', but must be three letters"),
            "For example: extension 'tsv'",
        )),
    }
}

fn notation(reader: &mut OptionReader<'_>) -> PlanResult<Notation> {
    let mut get = |name: &'static str| reader.get(name).map(str::to_string);
    let notation = Notation::with_patterns(&mut get, Direction::Write)?;
    Ok(Notation { zone: reader.zone()?, ..notation })
}

/// Parses the options of lines. Also returns whether the first line of a file contains the column
/// names.
pub fn line_options(
    line: LineFormat,
    reader: &mut OptionReader<'_>,
) -> PlanResult<(LineOptions, bool)> {
    let mut options = LineOptions::default();
    let mut header = false;
    if let Some(end) = reader.get("lineSep") {
        options.line_end = end.replace("\\n", "\n").replace("\\r", "\r").replace("\\t", "\t");
    }
    if line != LineFormat::Text {
        options.notation = notation(reader)?;
    }
    match line {
        LineFormat::Csv => {
            options.csv = WriteOptions::read(&mut |name| reader.get(name).map(str::to_string))?;
            header = options.csv.header;
            options.line_end.clone_from(&options.csv.line_end);
        }
        LineFormat::Json => {
            options.json = Style {
                nulls: !reader.flag("ignoreNullFields", true)?,
                sorted: reader.flag("sortKeys", false)?,
                ascii: reader.flag("writeNonAsciiCharacterAsCodePoint", false)?,
                pretty: reader.flag("pretty", false)?,
            };
        }
        LineFormat::Text => {}
    }
    Ok((options, header))
}

impl SinkFormat {
    /// Parses the options of a format.
    pub fn read(format: &str, reader: &mut OptionReader<'_>) -> PlanResult<Self> {
        let line = match format {
            "csv" => LineFormat::Csv,
            "json" => LineFormat::Json,
            "text" => LineFormat::Text,
            #[cfg(feature = "columnar")]
            _ => match ColumnFormat::of(format) {
                Some(format) => return ColumnSink::read(format, reader).map(Self::Columns),
                None => unreachable!("the caller has looked at the name"),
            },
            #[cfg(not(feature = "columnar"))]
            _ => {
                return Err(PlanError::new(
                    "FEATURE_NOT_ENABLED",
                    format!("this program was built without format '{format}'"),
                    "Build it with the feature `columnar`",
                ));
            }
        };
        let (options, header) = line_options(line, reader)?;
        let charset = Charset::read(reader)?.unwrap_or(Charset::Utf8);
        let extension = if line == LineFormat::Csv { extension(reader)? } else { None };
        let lines = CompressedLines { codec: codec(reader)?, header, charset, extension };
        Ok(Self::Lines(line, Box::new(options), lines))
    }

    /// The name of the format.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Lines(format, ..) => format.name(),
            #[cfg(feature = "columnar")]
            Self::Columns(sink) => sink.format().name(),
        }
    }

    /// The file extension, as in Spark.
    pub fn extension(&self) -> String {
        match self {
            Self::Lines(format, _, lines) => {
                let compressed = match lines.codec {
                    Codec::None => "",
                    #[cfg(feature = "compression")]
                    Codec::Gzip => ".gz",
                    #[cfg(feature = "compression")]
                    Codec::Deflate => ".deflate",
                    #[cfg(feature = "compression")]
                    Codec::Bzip2 => ".bz2",
                    #[cfg(feature = "compression")]
                    Codec::Zstd => ".zst",
                };
                match &lines.extension {
                    Some(extension) => format!("{}{compressed}", extension.escape_ascii()),
                    None => format!("{}{compressed}", format.extension()),
                }
            }
            #[cfg(feature = "columnar")]
            Self::Columns(sink) => sink.extension().to_string(),
        }
    }

    /// Returns an error if the format does not support the columns, except those at `left_out`.
    pub fn check(&self, schema: &Schema, left_out: &[usize]) -> PlanResult<()> {
        match self {
            Self::Lines(format, options, _) => {
                LineWriter::without(*format, (**options).clone(), schema, left_out).map(drop)
            }
            #[cfg(feature = "columnar")]
            Self::Columns(sink) => {
                let kept = schema.fields.iter().enumerate().filter(|(i, _)| !left_out.contains(i));
                sink.check(&kept.map(|(_, field)| field).collect::<Vec<_>>())
            }
        }
    }

    /// Starts a file without the columns at the indices `left_out`. Fails if the format cannot write
    /// the other columns.
    pub fn begin(&self, schema: &Schema, left_out: &[usize]) -> io::Result<Box<dyn FileWriter>> {
        match self {
            Self::Lines(format, options, lines) => {
                let made = LineWriter::without(*format, (**options).clone(), schema, left_out);
                let writer = made.map_err(|error| io::Error::other(error.to_string()))?;
                let ready = if lines.header { writer.header() } else { Vec::new() };
                let encoder = Encoder::new(lines.codec)?;
                if lines.charset == Charset::Utf8 {
                    return Ok(Box::new(Lines { writer, ready, encoder }));
                }
                let (charset, encoded) = (lines.charset, lines.charset.mark().to_vec());
                Ok(Box::new(EncodedLines { writer, ready, encoded, charset, encoder }))
            }
            #[cfg(feature = "columnar")]
            Self::Columns(sink) => Ok(Box::new(ColumnFile::new(sink, schema, left_out)?)),
        }
    }
}

enum Encoder {
    None,
    #[cfg(feature = "compression")]
    Gzip(flate2::write::GzEncoder<Vec<u8>>),
    #[cfg(feature = "compression")]
    Deflate(flate2::write::ZlibEncoder<Vec<u8>>),
    #[cfg(feature = "compression")]
    Bzip2(bzip2::write::BzEncoder<Vec<u8>>),
    #[cfg(feature = "compression")]
    Zstd(zstd::stream::write::Encoder<'static, Vec<u8>>),
}

impl Encoder {
    fn new(codec: Codec) -> io::Result<Self> {
        Ok(match codec {
            Codec::None => Self::None,
            #[cfg(feature = "compression")]
            Codec::Gzip => Self::Gzip(flate2::write::GzEncoder::new(
                Vec::new(),
                flate2::Compression::default(),
            )),
            #[cfg(feature = "compression")]
            Codec::Deflate => Self::Deflate(flate2::write::ZlibEncoder::new(
                Vec::new(),
                flate2::Compression::default(),
            )),
            #[cfg(feature = "compression")]
            Codec::Bzip2 => {
                Self::Bzip2(bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::default()))
            }
            #[cfg(feature = "compression")]
            Codec::Zstd => Self::Zstd(zstd::stream::write::Encoder::new(Vec::new(), 0)?),
        })
    }

    fn is_none(&self) -> bool {
        matches!(self, Self::None)
    }

    /// Compresses `bytes` and clears them. Appends compressed output that is ready to `out`.
    fn encode(&mut self, bytes: &mut Vec<u8>, out: &mut Vec<u8>) -> io::Result<()> {
        #[cfg(feature = "compression")]
        use io::Write;
        match self {
            Self::None => out.append(bytes),
            #[cfg(feature = "compression")]
            Self::Gzip(encoder) => {
                encoder.write_all(bytes)?;
                out.append(encoder.get_mut());
            }
            #[cfg(feature = "compression")]
            Self::Deflate(encoder) => {
                encoder.write_all(bytes)?;
                out.append(encoder.get_mut());
            }
            #[cfg(feature = "compression")]
            Self::Bzip2(encoder) => {
                encoder.write_all(bytes)?;
                out.append(encoder.get_mut());
            }
            #[cfg(feature = "compression")]
            Self::Zstd(encoder) => {
                encoder.write_all(bytes)?;
                out.append(encoder.get_mut());
            }
        }
        bytes.clear();
        Ok(())
    }

    fn finish(&mut self, out: &mut Vec<u8>) -> io::Result<()> {
        let mut rest = match std::mem::replace(self, Self::None) {
            Self::None => Vec::new(),
            #[cfg(feature = "compression")]
            Self::Gzip(encoder) => encoder.finish()?,
            #[cfg(feature = "compression")]
            Self::Deflate(encoder) => encoder.finish()?,
            #[cfg(feature = "compression")]
            Self::Bzip2(encoder) => encoder.finish()?,
            #[cfg(feature = "compression")]
            Self::Zstd(encoder) => encoder.finish()?,
        };
        out.append(&mut rest);
        Ok(())
    }
}

struct Lines {
    writer: LineWriter,
    /// Lines that are not compressed yet.
    ready: Vec<u8>,
    encoder: Encoder,
}

impl FileWriter for Lines {
    #[inline]
    fn write(&mut self, row: Row<'_>, out: &mut Vec<u8>) -> io::Result<()> {
        if self.encoder.is_none() {
            if !self.ready.is_empty() {
                out.append(&mut self.ready);
            }
            self.writer.write(row, out);
            return Ok(());
        }
        self.writer.write(row, &mut self.ready);
        if self.ready.len() < COMPRESS_BYTES {
            return Ok(());
        }
        self.encoder.encode(&mut self.ready, out)
    }

    fn finish(&mut self, out: &mut Vec<u8>) -> io::Result<()> {
        self.encoder.encode(&mut self.ready, out)?;
        self.encoder.finish(out)
    }
}

/// Lines in a character set other than UTF-8.
struct EncodedLines {
    writer: LineWriter,
    /// Lines in UTF-8.
    ready: Vec<u8>,
    /// Encoded lines that are not compressed yet.
    encoded: Vec<u8>,
    charset: Charset,
    encoder: Encoder,
}

impl EncodedLines {
    fn flush(&mut self, out: &mut Vec<u8>) -> io::Result<()> {
        self.charset.encode(&String::from_utf8_lossy(&self.ready), &mut self.encoded);
        self.ready.clear();
        self.encoder.encode(&mut self.encoded, out)
    }
}

impl FileWriter for EncodedLines {
    fn write(&mut self, row: Row<'_>, out: &mut Vec<u8>) -> io::Result<()> {
        self.writer.write(row, &mut self.ready);
        if self.ready.len() < COMPRESS_BYTES {
            return Ok(());
        }
        self.flush(out)
    }

    fn finish(&mut self, out: &mut Vec<u8>) -> io::Result<()> {
        self.flush(out)?;
        self.encoder.finish(out)
    }
}

#[cfg(feature = "columnar")]
impl FileWriter for ColumnFile {
    fn write(&mut self, row: Row<'_>, out: &mut Vec<u8>) -> io::Result<()> {
        ColumnFile::write(self, row)?;
        self.take_into(out);
        Ok(())
    }

    fn finish(&mut self, out: &mut Vec<u8>) -> io::Result<()> {
        ColumnFile::finish(self)?;
        self.take_into(out);
        Ok(())
    }
}
