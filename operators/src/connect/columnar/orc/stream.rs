//! Byte streams of an ORC file, read in windows and decompressed a block at a time.
//!
//! A compressed stream is a sequence of blocks. Each has a three-byte header: its length, and
//! whether it is stored uncompressed. A block that decompresses to more than the file's block size
//! is an error, so corrupt data cannot exhaust memory.

use bytes::Bytes;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::fs::FileExt;
use std::panic::catch_unwind;
use std::sync::Arc;

/// The number of bytes per read, unless a block is longer or the stream ends before.
const WINDOW_BYTES: usize = 64 << 10;
/// The largest decompressed block that is accepted.
pub const BLOCK_BYTES_MAX: usize = 64 << 20;
/// The largest compressed LZO block that is accepted.
const LZO_BYTES_MAX: usize = 1 << 20;
/// The block lengths that a header can hold are below this.
const STORED_BYTES_MAX: usize = 1 << 23;

/// A block compression codec.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Codec {
    /// No compression, and no blocks.
    None,
    /// Raw deflate, without zlib's header.
    Zlib,
    /// Snappy.
    Snappy,
    /// LZO, supported for reading only.
    Lzo,
    /// LZ4.
    Lz4,
    /// Zstandard.
    Zstd,
}

impl Codec {
    /// The codec of a number in the postscript. Fails for an unknown number.
    pub fn of(number: u64) -> Result<Self, String> {
        Ok(match number {
            0 => Self::None,
            1 => Self::Zlib,
            2 => Self::Snappy,
            3 => Self::Lzo,
            4 => Self::Lz4,
            5 => Self::Zstd,
            6 => return Err("it is compressed by brotli, which is not supported".to_string()),
            other => return Err(format!("its compression {other} is unknown")),
        })
    }

    /// The codec's number in the postscript.
    pub fn number(self) -> u64 {
        match self {
            Self::None => 0,
            Self::Zlib => 1,
            Self::Snappy => 2,
            Self::Lzo => 3,
            Self::Lz4 => 4,
            Self::Zstd => 5,
        }
    }

    /// Decompresses a block into `out`, replacing its content. Fails if the block is damaged or the
    /// result exceeds `limit` bytes.
    fn decompress(self, block: &[u8], limit: usize, out: &mut Vec<u8>) -> Result<(), String> {
        let damaged = |error: &dyn std::fmt::Display| format!("a compressed block: {error}");
        let mut read = |reader: &mut dyn Read| {
            out.clear();
            reader.take(limit as u64 + 1).read_to_end(out).map_err(|e| damaged(&e)).map(drop)
        };
        match self {
            Self::None => {
                out.clear();
                out.extend_from_slice(block);
            }
            Self::Zlib => read(&mut flate2::read::DeflateDecoder::new(block))?,
            Self::Zstd => {
                read(&mut zstd::stream::read::Decoder::new(block).map_err(|e| damaged(&e))?)?;
            }
            Self::Snappy => {
                let length = snap::raw::decompress_len(block).map_err(|e| damaged(&e))?;
                out.resize(length.min(limit + 1), 0);
                if length <= limit {
                    let mut decoder = snap::raw::Decoder::new();
                    decoder.decompress(block, out).map_err(|e| damaged(&e))?;
                }
            }
            Self::Lz4 => {
                out.resize(limit, 0);
                let length = lz4_flex::block::decompress_into(block, out);
                out.truncate(length.map_err(|e| damaged(&e))?);
            }
            Self::Lzo => {
                // The LZO decoder has no output limit. One byte of input yields at most 255 bytes
                // of output, so a limit on the input bounds memory.
                if block.len() > limit.min(LZO_BYTES_MAX) {
                    return Err("a compressed block is above the largest allowed size".to_string());
                }
                let decode = || lzokay_native::decompress_all(block, None);
                let decoded = catch_unwind(decode).map_err(|_| damaged(&"it is damaged"))?;
                *out = decoded.map_err(|e| damaged(&format!("{e:?}")))?;
            }
        }
        if out.len() > limit {
            return Err("a compressed block is larger than the file says blocks are".to_string());
        }
        Ok(())
    }

    /// Appends `bytes` to `out` in compressed blocks, each of at most `block` bytes of input. The
    /// codec `None` appends them as they are.
    pub fn compress(self, bytes: &[u8], block: usize, out: &mut Vec<u8>) -> io::Result<()> {
        if self == Self::None {
            out.extend_from_slice(bytes);
            return Ok(());
        }
        let mut packed = Vec::new();
        for bytes in bytes.chunks(block) {
            self.pack(bytes, &mut packed)?;
            let (kept, stored) =
                if packed.len() < bytes.len() { (packed.as_slice(), 0) } else { (bytes, 1) };
            let header = (kept.len() as u32) << 1 | stored;
            out.extend_from_slice(&header.to_le_bytes()[..3]);
            out.extend_from_slice(kept);
        }
        Ok(())
    }

    fn pack(self, bytes: &[u8], packed: &mut Vec<u8>) -> io::Result<()> {
        packed.clear();
        match self {
            Self::Zlib => {
                let level = flate2::Compression::default();
                let mut encoder = flate2::write::DeflateEncoder::new(packed, level);
                encoder.write_all(bytes)?;
                encoder.finish().map(drop)
            }
            Self::Zstd => {
                packed.resize(zstd::zstd_safe::compress_bound(bytes.len()), 0);
                let length = zstd::bulk::compress_to_buffer(bytes, packed, 0)?;
                packed.truncate(length);
                Ok(())
            }
            Self::Snappy => {
                packed.resize(snap::raw::max_compress_len(bytes.len()), 0);
                let length = snap::raw::Encoder::new().compress(bytes, packed);
                packed.truncate(length.map_err(io::Error::other)?);
                Ok(())
            }
            Self::Lz4 => {
                packed.resize(lz4_flex::block::get_maximum_output_size(bytes.len()), 0);
                let length = lz4_flex::block::compress_into(bytes, packed);
                packed.truncate(length.map_err(io::Error::other)?);
                Ok(())
            }
            Self::None | Self::Lzo => {
                packed.extend_from_slice(bytes);
                Ok(())
            }
        }
    }
}

/// The source of a file's bytes.
#[derive(Clone, Debug)]
pub enum ByteSource {
    /// An open file.
    File(Arc<File>),
    /// A file that is in memory.
    Memory(Bytes),
}

impl ByteSource {
    /// The length of the file.
    pub fn len(&self) -> io::Result<u64> {
        match self {
            Self::File(file) => Ok(file.metadata()?.len()),
            Self::Memory(bytes) => Ok(bytes.len() as u64),
        }
    }

    /// Appends the `length` bytes at offset `at` to `out`. Fails if the file has fewer.
    pub fn read(&self, at: u64, length: usize, out: &mut Vec<u8>) -> Result<(), String> {
        let begin = out.len();
        match self {
            Self::File(file) => {
                out.resize(begin + length, 0);
                file.read_exact_at(&mut out[begin..], at).map_err(|error| error.to_string())
            }
            Self::Memory(bytes) => {
                let from = usize::try_from(at).ok().and_then(|at| bytes.get(at..));
                let from = from.and_then(|from| from.get(..length));
                out.extend_from_slice(from.ok_or("the file ends too early")?);
                Ok(())
            }
        }
    }
}

/// The compression of a file.
#[derive(Clone, Copy, Debug)]
pub struct Compression {
    /// The codec of all blocks.
    pub codec: Codec,
    /// The largest decompressed block, in bytes.
    pub block: usize,
}

/// A stream that is being read.
pub struct Stream {
    file: ByteSource,
    compression: Compression,
    /// The file offset of the next byte that is not in `raw` yet.
    at: u64,
    end: u64,
    /// A window of bytes as stored. Those before `raw_next` are consumed.
    raw: Vec<u8>,
    raw_next: usize,
    /// A window of decompressed bytes. Those before `next` are consumed.
    window: Vec<u8>,
    next: usize,
}

/// The error of a stream that ends too early.
fn ended() -> String {
    "a stream of a column ends too early".to_string()
}

impl Stream {
    /// The stream of `length` bytes at the file offset `at`.
    pub fn new(file: ByteSource, compression: Compression, at: u64, length: u64) -> Self {
        let end = at.saturating_add(length);
        let (raw, window) = (Vec::new(), Vec::new());
        Self { file, compression, at, end, raw, raw_next: 0, window, next: 0 }
    }

    /// A stream of length zero.
    pub fn empty() -> Self {
        let compression = Compression { codec: Codec::None, block: 0 };
        Self::new(ByteSource::Memory(Bytes::new()), compression, 0, 0)
    }

    /// Reads and decompresses the whole stream. Fails if it decompresses to more than `limit`
    /// bytes. The error names a footer, because only footers are read this way.
    pub fn all(mut self, limit: usize) -> Result<Vec<u8>, String> {
        let mut out = Vec::new();
        while self.fill()? {
            if out.len() + self.window.len() > limit {
                return Err(format!("a footer has more than {} MiB", limit >> 20));
            }
            out.extend_from_slice(&self.window);
        }
        Ok(out)
    }

    /// Reads ahead until `raw` has `bytes` unconsumed bytes. Returns false if the stream has fewer.
    fn raw(&mut self, bytes: usize) -> Result<bool, String> {
        if self.raw.len() - self.raw_next >= bytes {
            return Ok(true);
        }
        self.raw.drain(..self.raw_next);
        self.raw_next = 0;
        let left = usize::try_from(self.end - self.at).unwrap_or(usize::MAX);
        let wanted = (bytes - self.raw.len()).max(WINDOW_BYTES).min(left);
        self.file.read(self.at, wanted, &mut self.raw)?;
        self.at += wanted as u64;
        Ok(self.raw.len() >= bytes)
    }

    /// Replaces the consumed window with the next one. Returns false at the end of the stream.
    fn fill(&mut self) -> Result<bool, String> {
        self.next = 0;
        self.window.clear();
        if self.compression.codec == Codec::None {
            if !self.raw(1)? {
                return Ok(false);
            }
            std::mem::swap(&mut self.raw, &mut self.window);
            self.next = std::mem::take(&mut self.raw_next);
            self.raw.clear();
            return Ok(true);
        }
        while self.window.is_empty() {
            if !self.raw(3)? {
                return if self.raw.len() == self.raw_next { Ok(false) } else { Err(ended()) };
            }
            let header = &self.raw[self.raw_next..];
            let header = u32::from_le_bytes([header[0], header[1], header[2], 0]);
            let length = header as usize >> 1;
            let stored = header & 1 == 1;
            debug_assert!(length < STORED_BYTES_MAX, "a header has 23 bits for the length");
            if !self.raw(3 + length)? {
                return Err(ended());
            }
            let block = &self.raw[self.raw_next + 3..self.raw_next + 3 + length];
            let codec = if stored { Codec::None } else { self.compression.codec };
            let limit = if stored { STORED_BYTES_MAX } else { self.compression.block };
            codec.decompress(block, limit, &mut self.window)?;
            self.raw_next += 3 + length;
        }
        Ok(true)
    }

    /// The next byte, or `None` at the end.
    #[inline]
    pub fn next_byte(&mut self) -> Result<Option<u8>, String> {
        if self.next == self.window.len() && !self.fill()? {
            return Ok(None);
        }
        self.next += 1;
        Ok(Some(self.window[self.next - 1]))
    }

    /// The next byte. Fails at the end.
    #[inline]
    pub fn byte(&mut self) -> Result<u8, String> {
        self.next_byte()?.ok_or_else(ended)
    }

    /// Passes the next `bytes` bytes to `take`, in pieces. Fails if the stream has fewer.
    pub fn pieces(&mut self, mut bytes: usize, mut take: impl FnMut(&[u8])) -> Result<(), String> {
        while bytes > 0 {
            if self.next == self.window.len() && !self.fill()? {
                return Err(ended());
            }
            let end = self.window.len().min(self.next.saturating_add(bytes));
            take(&self.window[self.next..end]);
            bytes -= end - self.next;
            self.next = end;
        }
        Ok(())
    }

    /// The next `bytes` bytes, borrowed from the window if it has them all. Otherwise they are
    /// copied to `spare`. Fails if the stream has fewer.
    #[inline]
    pub fn slice<'s>(
        &'s mut self,
        bytes: usize,
        spare: &'s mut Vec<u8>,
    ) -> Result<&'s [u8], String> {
        if self.window.len() - self.next >= bytes {
            self.next += bytes;
            return Ok(&self.window[self.next - bytes..self.next]);
        }
        spare.clear();
        self.pieces(bytes, |piece| spare.extend_from_slice(piece))?;
        Ok(spare)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stream(codec: Codec, bytes: Vec<u8>, block: usize) -> Stream {
        let length = bytes.len() as u64;
        let file = ByteSource::Memory(bytes.into());
        Stream::new(file, Compression { codec, block }, 0, length)
    }

    #[test]
    fn blocks_are_read_as_they_were_written() {
        let bytes: Vec<u8> = (0..100_000u32).map(|i| (i / 300 * i % 7) as u8).collect();
        for codec in [Codec::None, Codec::Zlib, Codec::Snappy, Codec::Lz4, Codec::Zstd] {
            let mut packed = Vec::new();
            codec.compress(&bytes, 5000, &mut packed).unwrap();
            assert_eq!(stream(codec, packed, 5000).all(1 << 20).unwrap(), bytes, "{codec:?}");
        }
    }

    #[test]
    fn a_block_that_is_larger_than_it_may_be_is_refused() {
        for codec in [Codec::Zlib, Codec::Snappy, Codec::Lz4, Codec::Zstd] {
            let mut packed = Vec::new();
            codec.compress(&vec![0; 1 << 20], 1 << 20, &mut packed).unwrap();
            assert!(stream(codec, packed, 1000).all(1 << 24).is_err(), "{codec:?}");
        }
    }

    #[test]
    fn a_stream_that_ends_too_early_is_an_error() {
        let mut packed = Vec::new();
        Codec::Snappy.compress(&vec![7; 5000], 1000, &mut packed).unwrap();
        for length in [1, 2, packed.len() - 1] {
            let cut = packed[..length].to_vec();
            assert!(stream(Codec::Snappy, cut, 1000).all(1 << 20).is_err(), "{length}");
        }
    }
}
