//! Writes a capture file: append-only, buffered, with marks that a search by time can jump to.
//!
//! Among its events, an uncompressed file has a mark at every multiple of [`STRIDE_BYTES`] except
//! 0. So a search can use binary search on any prefix of the file. A compressed file has a mark
//! before every compressed block, and, if it was closed properly, an index at its end.
//!
//! *Durability.* Events appended before the last [`CaptureWriter::flush`] survive the end of the
//! process. *Threads.* One. *Memory.* One stride; for a compressed file one compressed block, its
//! uncompressed bytes, and the index.

use super::event_buffer::{EventBuffer, payload_length};
use super::format::{
    FLAG_MORE, FileHeader, HEAD_BYTES, Head, Kind, MAX_EVENT_BYTES, STRIDE_BYTES, Summary,
    TRAILER_MAGIC, block_bytes, decode_head, push_block, seal,
};
use super::index::{Entry, Index};
use std::io::{self, Write};

/// Size at which events are compressed into a block, in bytes.
const COMPRESSED_BYTES: usize = 512 << 10;

/// The options of a writer.
#[derive(Clone, Copy, Debug, Default)]
pub struct WriterOptions {
    /// Clock, precision, start time and recording of the file. The writer sets version, stride and
    /// compression itself.
    pub header: FileHeader,
    /// Whether to compress events with zstd, which needs the feature `zstd`.
    pub compress: bool,
}

/// A buffer could not be written completely.
#[derive(Debug)]
pub struct Unwritten {
    /// The number of the buffer's first events that are whole in the file. With compression or
    /// rotation: that were accepted, some of which may not be in the file.
    pub written: usize,
    /// Why the others are not.
    pub error: io::Error,
}

/// Writes one capture file.
pub struct CaptureWriter<W: Write> {
    out: W,
    /// Bytes of the file from offset `written` on.
    buffer: Vec<u8>,
    written: u64,
    /// Uncompressed files only: offset of the next mark.
    next_mark: u64,
    summary: Summary,
    /// Compressed files only: the events that are not compressed yet, and the totals before them.
    pending: Option<Pending>,
}

struct Pending {
    blocks: Vec<u8>,
    before: Summary,
    index: Index,
    packer: Packer,
}

impl<W: Write> CaptureWriter<W> {
    /// Starts a file by buffering its header. `out` must write to an empty file.
    pub fn new(out: W, options: &WriterOptions) -> io::Result<Self> {
        let stride_bytes = if options.compress { 0 } else { STRIDE_BYTES as u32 };
        let header =
            FileHeader { version: 2, compressed: options.compress, stride_bytes, ..options.header };
        let pending = options.compress.then(Packer::new).transpose()?.map(|packer| Pending {
            blocks: Vec::with_capacity(COMPRESSED_BYTES + block_bytes(MAX_EVENT_BYTES)),
            before: Summary::default(),
            index: Index::default(),
            packer,
        });
        let mut buffer = Vec::with_capacity(STRIDE_BYTES as usize);
        buffer.extend_from_slice(&header.encode());
        let (next_mark, summary) = (STRIDE_BYTES, Summary::default());
        Ok(Self { out, buffer, written: 0, next_mark, summary, pending })
    }

    /// Totals of the appended events.
    pub fn summary(&self) -> &Summary {
        &self.summary
    }

    /// Size of the file so far, in bytes, without events that are not compressed yet.
    pub fn bytes(&self) -> u64 {
        self.written + self.buffer.len() as u64
    }

    /// Appends an event. Its data may have any length: more than [`MAX_EVENT_BYTES`] is split into
    /// several events with [`FLAG_MORE`].
    pub fn append(&mut self, head: &Head, payload: &[u8]) -> io::Result<()> {
        if payload.len() <= MAX_EVENT_BYTES {
            return self.append_event(head, payload);
        }
        let mut head = Head { flags: head.flags | FLAG_MORE, ..*head };
        let mut rest = payload;
        while rest.len() > MAX_EVENT_BYTES {
            let (piece, others) = rest.split_at(MAX_EVENT_BYTES);
            self.append_event(&head, piece)?;
            head.position += piece.len() as u64;
            rest = others;
        }
        head.flags &= !FLAG_MORE;
        self.append_event(&head, rest)
    }

    fn append_event(&mut self, head: &Head, payload: &[u8]) -> io::Result<()> {
        debug_assert!(head.kind.is_event());
        let needed = block_bytes(payload.len());
        if let Some(pending) = &mut self.pending {
            push_block(head, payload, &mut pending.blocks);
            self.summary.add(head, payload.len());
            if pending.blocks.len() >= COMPRESSED_BYTES {
                self.pack()?;
            }
            return Ok(());
        }
        if self.bytes() + needed as u64 > self.next_mark {
            self.begin_stride()?;
        }
        push_block(head, payload, &mut self.buffer);
        self.summary.add(head, payload.len());
        Ok(())
    }

    /// Appends the events of a buffer. Without compression all bytes so far are then written to the
    /// underlying writer, and the events are written from the buffer without another copy.
    pub fn append_buffer(&mut self, events: &mut EventBuffer) -> Result<(), Unwritten> {
        if self.pending.is_some() {
            for (at, (head, payload)) in events.iter().enumerate() {
                self.append(&head, payload).map_err(|error| Unwritten { written: at, error })?;
            }
            return Ok(());
        }
        // `from..at` is sealed and not written; `written` events are in the file.
        let (mut from, mut at, mut written, mut sealed) = (0, 0, 0, 0);
        let blocks = &mut events.blocks;
        while let Some(length) = payload_length(&blocks[at..]) {
            let size = block_bytes(length);
            if self.bytes() + (at - from + size) as u64 > self.next_mark {
                self.write_blocks(&blocks[from..at], written)?;
                (from, written) = (at, written + sealed);
                sealed = 0;
                self.begin_stride().map_err(|error| Unwritten { written, error })?;
            }
            let block = &mut blocks[at..at + size];
            seal(length, block);
            if let Some(head) = decode_head(block, 2) {
                self.summary.add(&head, length);
            }
            (at, sealed) = (at + size, sealed + 1);
        }
        self.write_blocks(&blocks[from..at], written)
    }

    /// Writes blocks behind all bytes so far. `before` is the number of events of their buffer that
    /// precede them.
    fn write_blocks(&mut self, blocks: &[u8], before: usize) -> Result<(), Unwritten> {
        self.write_out().map_err(|error| Unwritten { written: before, error })?;
        let mut at = 0;
        while at < blocks.len() {
            match self.out.write(&blocks[at..]) {
                Ok(0) => {
                    return Err(unwritten(blocks, at, before, io::ErrorKind::WriteZero.into()));
                }
                Ok(bytes) => at += bytes,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(unwritten(blocks, at, before, error)),
            }
        }
        self.written += at as u64;
        Ok(())
    }

    /// Fills the stride with zeros, writes it, and starts the next one with a mark.
    fn begin_stride(&mut self) -> io::Result<()> {
        let fill = (self.next_mark - self.bytes()) as usize;
        self.buffer.resize(self.buffer.len() + fill, 0);
        self.write_out()?;
        let head = self.summary.head(Kind::Mark, self.next_mark);
        push_block(&head, &self.summary.encode(), &mut self.buffer);
        self.next_mark += STRIDE_BYTES;
        Ok(())
    }

    fn write_out(&mut self) -> io::Result<()> {
        self.out.write_all(&self.buffer)?;
        self.written += self.buffer.len() as u64;
        self.buffer.clear();
        Ok(())
    }

    /// Compresses the pending events into a block, preceded by a mark. Does nothing if there are
    /// none or the file is not compressed.
    fn pack(&mut self) -> io::Result<()> {
        let at = self.bytes();
        let Some(pending) = &mut self.pending else { return Ok(()) };
        if pending.blocks.is_empty() {
            return Ok(());
        }
        let packed = pending.packer.pack(&pending.blocks)?;
        let mark = pending.before.head(Kind::Mark, at);
        push_block(&mark, &pending.before.encode(), &mut self.buffer);
        pending.index.add(Entry::new(at, &pending.before));
        let head = pending.before.head(Kind::Compressed, pending.blocks.len() as u64);
        push_block(&head, packed, &mut self.buffer);
        pending.blocks.clear();
        pending.before = self.summary;
        self.write_out()
    }

    /// Writes all buffered bytes to the underlying writer.
    pub fn flush(&mut self) -> io::Result<()> {
        self.pack()?;
        self.write_out()?;
        self.out.flush()
    }

    #[cfg(test)]
    pub(super) fn output(&self) -> &W {
        &self.out
    }

    /// Writes the buffered blocks, the index (of a compressed file), the totals and the trailer,
    /// and flushes. Returns the output.
    pub fn finish(mut self) -> io::Result<W> {
        self.pack()?;
        let index_at = self.bytes();
        if let Some(pending) = &self.pending {
            for (head, payload) in pending.index.blocks(&self.summary) {
                push_block(&head, &payload, &mut self.buffer);
            }
        }
        let end_at = self.bytes();
        let head = self.summary.head(Kind::End, end_at);
        let payload = [&self.summary.encode()[..], &index_at.to_le_bytes()].concat();
        debug_assert!(payload.len() + HEAD_BYTES < 256);
        push_block(&head, &payload, &mut self.buffer);
        self.buffer.extend_from_slice(&end_at.to_le_bytes());
        self.buffer.extend_from_slice(TRAILER_MAGIC);
        self.write_out()?;
        self.out.flush()?;
        Ok(self.out)
    }
}

/// The error after the first `bytes` of the blocks were written.
fn unwritten(blocks: &[u8], bytes: usize, before: usize, error: io::Error) -> Unwritten {
    let (mut at, mut written) = (0, before);
    while let Some(length) = payload_length(&blocks[at..])
        && at + HEAD_BYTES + length <= bytes
    {
        at += block_bytes(length);
        written += 1;
    }
    Unwritten { written, error }
}

#[cfg(feature = "zstd")]
struct Packer {
    compressor: zstd::bulk::Compressor<'static>,
    out: Vec<u8>,
}

#[cfg(feature = "zstd")]
impl Packer {
    fn new() -> io::Result<Self> {
        /// The zstd level: fast.
        const LEVEL: i32 = 1;
        let most = zstd::zstd_safe::compress_bound(COMPRESSED_BYTES + 2 * MAX_EVENT_BYTES);
        Ok(Self { compressor: zstd::bulk::Compressor::new(LEVEL)?, out: Vec::with_capacity(most) })
    }

    fn pack(&mut self, blocks: &[u8]) -> io::Result<&[u8]> {
        self.out.clear();
        self.compressor.compress_to_buffer(blocks, &mut self.out)?;
        Ok(&self.out)
    }
}

#[cfg(not(feature = "zstd"))]
struct Packer;

#[cfg(not(feature = "zstd"))]
impl Packer {
    fn new() -> io::Result<Self> {
        Err(io::Error::other("this program was built without the feature zstd"))
    }

    fn pack(&mut self, _: &[u8]) -> io::Result<&[u8]> {
        Self::new().map(|_| &[][..])
    }
}
