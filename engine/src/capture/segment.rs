//! The segments of a capture log: where the blocks of each one end, and whether what is there was
//! caused by a power failure or is damage.

use super::format::{
    FileHeader, HEAD_BYTES as HEAD, Head, MAX_PAYLOAD, block_bytes, decode, decode_head, u32_at,
    u64_at,
};
use crate::checkpoint::log_entry::{Fault, damaged, unreadable};
use crate::error::EngineError;
use std::path::{Path, PathBuf};

/// The size of a page of mapped memory, which the kernel writes as a whole, in bytes.
pub(super) const PAGE_BYTES: usize = 4096;
/// Maximum number of bytes whose CRC a search for an intact block computes. A payload can contain
/// what looks like the heads of many long blocks.
const SEARCH_BYTES: usize = 256 << 20;

/// Decodes the block at offset `at`: its head, its payload and the offset of the next block. `None`
/// if no intact block begins there.
pub(super) fn block_at(bytes: &[u8], at: usize, version: u8) -> Option<(Head, &[u8], usize)> {
    let rest = bytes.get(at..)?;
    let (head, length) = decode(rest, version).ok()?;
    Some((head, &rest[HEAD..HEAD + length], at + block_bytes(length)))
}

/// What follows the last intact block of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tear {
    /// Nothing: only zeros.
    None,
    /// A block that lacks a page, as after a power failure.
    LacksPage {
        /// The stream position up to which bytes are missing, at least: the end of the block's
        /// payload, as far as its length and its position are there.
        until: u64,
    },
    /// A block that is incomplete or damaged. No intact block follows in the segment.
    Incomplete,
    /// Damage: an intact block follows although no page is missing, the length of the block is
    /// impossible, or the segment's header is neither valid nor unwritten.
    Damaged,
}

/// Whether a page of a block, the bytes from `from` to `to`, has only zeros from the block's start
/// on, as in a new segment. A page of zeros in the payload of a damaged block looks the same.
fn lacks_page(bytes: &[u8], from: usize, to: usize) -> bool {
    let first = from / PAGE_BYTES * PAGE_BYTES;
    let mut pages = (first..to.min(bytes.len())).step_by(PAGE_BYTES);
    pages.any(|page| {
        let end = (page + PAGE_BYTES).min(bytes.len());
        bytes[page.max(from)..end].iter().all(|byte| *byte == 0)
    })
}

/// Whether an intact block begins between two offsets. True if the search exceeds [`SEARCH_BYTES`],
/// so that nothing is removed in doubt.
fn contains_block(bytes: &[u8], from: usize, to: usize, version: u8) -> bool {
    let mut left = SEARCH_BYTES;
    (from..to.min(bytes.len())).step_by(8).any(|at| {
        let rest = &bytes[at..];
        let length = (u32_at(rest, 0) as usize).wrapping_sub(1);
        if length > MAX_PAYLOAD
            || rest.len() < HEAD + length
            || decode_head(rest, version).is_none()
        {
            return false;
        }
        let Some(rest_of_search) = left.checked_sub(HEAD + length) else { return true };
        left = rest_of_search;
        decode(rest, version).is_ok()
    })
}

/// Describes what is at offset `at`, where no intact block begins. The payloads before it end at the
/// stream position `reached`.
fn tear_at(bytes: &[u8], at: usize, version: u8, reached: u64) -> Tear {
    let Some(rest) = bytes.get(at..).filter(|rest| rest.iter().any(|byte| *byte != 0)) else {
        return Tear::None;
    };
    let Some(length) = (u32_at(rest, 0) as usize).checked_sub(1) else {
        // The length is stored last, so the rest of the page may belong to a block that was being
        // appended. In a page that was not written there is nothing.
        return match lacks_page(bytes, at, at + 1) {
            true => Tear::LacksPage { until: reached.saturating_add(1) },
            false if contains_block(bytes, at + 8, bytes.len(), version) => Tear::Damaged,
            false => Tear::Incomplete,
        };
    };
    // A block lies within its segment, and its length within one page.
    let end = at + block_bytes(length.min(MAX_PAYLOAD));
    if length > MAX_PAYLOAD || end > bytes.len() {
        return Tear::Damaged;
    }
    // If an intact block begins within this one, the length is wrong.
    if lacks_page(bytes, at, end) && !contains_block(bytes, at + 8, end, version) {
        let begin = reached.max(u64_at(rest, 8));
        return Tear::LacksPage { until: begin.saturating_add(length.max(1) as u64) };
    }
    match contains_block(bytes, at + 8, bytes.len(), version) {
        true => Tear::Damaged,
        false => Tear::Incomplete,
    }
}

/// Calls `visit` for each event of a segment, up to its end or the first block that is torn or
/// damaged. Returns the offset at which that is, and what is there.
pub fn blocks<'b>(bytes: &'b [u8], visit: impl FnMut(Head, &'b [u8])) -> (usize, Tear) {
    let (at, tear, _) = read_blocks(bytes, visit);
    (at, tear)
}

/// Like [`blocks`]. Also returns the stream position at which the last payload ends; 0 if there is
/// no event.
fn read_blocks<'b>(bytes: &'b [u8], mut visit: impl FnMut(Head, &'b [u8])) -> (usize, Tear, u64) {
    let Ok(header) = FileHeader::decode(bytes) else {
        // The magic is stored last. If it is missing, the process ended before it wrote a block, or
        // the first page is missing.
        let tear = match bytes.starts_with(&[0; 8]) || bytes.iter().all(|byte| *byte == 0) {
            true => tear_at(bytes, 0, 2, 0),
            false => Tear::Damaged,
        };
        return (0, tear, 0);
    };
    let (version, mut at, mut reached) = (header.version, header.bytes(), 0);
    while let Some((head, payload, next)) = block_at(bytes, at, version) {
        if head.kind.is_event() {
            reached = head.position.saturating_add(payload.len() as u64).max(reached);
            visit(head, payload);
        }
        at = next;
    }
    (at, tear_at(bytes, at, version, reached), reached)
}

/// What a segment contains.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Content {
    /// The number of events.
    pub events: u64,
    /// The number of bytes of their payloads.
    pub payload_bytes: u64,
    /// The stream position of the first event; `None` if there is none.
    pub first: Option<u64>,
    /// The stream position at which the last payload ends; 0 if there is no event.
    pub end: u64,
    /// The offset after the last intact block.
    pub at: usize,
    /// What is there.
    pub tear: Tear,
    /// What is wrong with the segment's header, if it is neither valid nor unwritten.
    pub header_error: Option<Fault>,
}

impl Content {
    /// Reads a segment and calls `visit` for each of its intact events.
    pub fn read(path: &Path, visit: impl FnMut(Head, &[u8])) -> Result<Self, EngineError> {
        let bytes = std::fs::read(path).map_err(|error| unreadable(path, &error))?;
        Ok(Self::of(&bytes, visit))
    }

    /// The content of a segment with these bytes. Calls `visit` for each of its intact events.
    fn of(bytes: &[u8], mut visit: impl FnMut(Head, &[u8])) -> Self {
        let (mut events, mut payload_bytes, mut first) = (0, 0, None);
        let (at, tear, end) = read_blocks(bytes, |head, payload| {
            visit(head, payload);
            events += 1;
            payload_bytes += payload.len() as u64;
            first.get_or_insert(head.position);
        });
        let header_error = match (at, tear) {
            (0, Tear::Damaged) => FileHeader::decode(bytes).err(),
            _ => None,
        };
        Self { events, payload_bytes, first, end, at, tear, header_error }
    }

    /// The error of a segment with this damaged content.
    pub fn damaged(&self, path: &Path) -> EngineError {
        match self.header_error {
            Some(fault) => fault.error(path),
            None => damaged(path, &format!("no intact block begins at byte {}", self.at)),
        }
    }
}

/// What a restart does with a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It reads the segment, and then the next one.
    Whole,
    /// It ends the log after the last intact block, and removes everything behind it: a power
    /// failure has lost a page there, or the process was killed while it appended.
    EndsHere,
    /// It refuses the log. Nothing is removed.
    Damaged,
}

/// Decides what a restart that resumes at the stream position `from` does with a segment of a log.
/// Only damage before `from` is ignored, because that is not read.
///
/// A lost page leaves zeros, and the bytes in it are missing from the stream. A tear without a zero
/// page that is followed by an intact block, or one at which the stream continues without a gap, is
/// damage. Damage in the last block of the log cannot be told from an interrupted write.
pub fn verdict(segments: &[Content], index: usize, from: u64) -> Verdict {
    let (before, others) = segments.split_at((index + 1).min(segments.len()));
    let Some(segment) = before.last() else { return Verdict::Whole };
    let later = others.iter().position(|other| other.first.is_some());
    // A segment with a tear and without an event is judged in its own turn.
    let is_next = others[..later.unwrap_or(0)].iter().all(|other| other.tear == Tear::None);
    let later = later.and_then(|later| others[later].first);
    let reached = before.iter().map(|segment| segment.end).max().unwrap_or(0);
    let is_read = later.is_none_or(|later| later > from);
    match segment.tear {
        // The last pages of a segment may be missing without a trace in it.
        Tear::None if is_next && later.is_some_and(|later| later > reached.max(from)) => {
            Verdict::EndsHere
        }
        Tear::None => Verdict::Whole,
        _ if !is_read => Verdict::Whole,
        Tear::Damaged => Verdict::Damaged,
        Tear::Incomplete if later.is_some() => Verdict::Damaged,
        Tear::Incomplete => Verdict::EndsHere,
        Tear::LacksPage { until } => {
            let until = until.max(reached.saturating_add(1));
            match is_next && later.is_some_and(|later| later < until) {
                true => Verdict::Damaged,
                false => Verdict::EndsHere,
            }
        }
    }
}

/// Lists the segments of a log, oldest first; none if the folder does not exist. An error if it
/// contains another file.
pub fn segments(folder: &Path) -> Result<Vec<(u64, PathBuf)>, EngineError> {
    let entries = match std::fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(unreadable(folder, &error)),
    };
    let mut found = Vec::new();
    for entry in entries {
        let path = entry.map_err(|error| unreadable(folder, &error))?.path();
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned());
        match name.and_then(|name| name.strip_suffix(".cap")?.parse().ok()) {
            Some(number) => found.push((number, path)),
            None => {
                return Err(EngineError::operator(
                    "CHECKPOINT_FOREIGN_FILE",
                    format!("{} is not a file of a capture log", path.display()),
                    "Move it away",
                ));
            }
        }
    }
    found.sort();
    Ok(found)
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::capture::format::{FILE_HEADER_BYTES, push_block};
    use crate::capture::{Direction, Kind};
    use proptest::prelude::*;

    /// Size of the segments of these tests, in bytes.
    const BYTES: usize = 4 * PAGE_BYTES;

    /// Builds a segment whose first block is at a stream position and whose blocks have payloads of
    /// these sizes. Returns its bytes, and the stream positions of its blocks.
    fn segment(mut position: u64, payloads: &[usize]) -> (Vec<u8>, Vec<u64>) {
        let mut bytes = FileHeader { version: 2, ..FileHeader::default() }.encode().to_vec();
        let mut positions = Vec::new();
        for payload in payloads {
            let (kind, direction) = (Kind::Data, Direction::In);
            let (lines, mono_ns, wall_ns, connection, flags) = (position, 1, 2, 3, 0);
            let head =
                Head { position, lines, mono_ns, wall_ns, connection, direction, kind, flags };
            push_block(&head, &vec![b'x'; *payload], &mut bytes);
            positions.push(position);
            position += *payload as u64;
        }
        bytes.resize(BYTES, 0);
        (bytes, positions)
    }

    fn content(bytes: &[u8]) -> (Content, Vec<u64>) {
        let mut positions = Vec::new();
        let content = Content::of(bytes, |head, _| positions.push(head.position));
        (content, positions)
    }

    /// Payload sizes of a segment with an unused tail of more than a page, and of blocks whose
    /// lengths become 0 or very long by one flipped bit.
    const PAYLOADS: [usize; 8] = [0, 255, 1, 1023, 4095, 31, 0, 3000];

    /// Every byte of the first and of a middle segment is flipped, and every bit of the lengths. No
    /// page is lost by that.
    #[test]
    fn no_flipped_byte_ends_the_log_before_intact_segments() {
        let (first, positions) = segment(0, &PAYLOADS);
        let bytes_of_first = PAYLOADS.iter().sum::<usize>() as u64;
        let (middle, middle_positions) = segment(bytes_of_first, &PAYLOADS);
        let (last, _) = segment(2 * bytes_of_first, &[100]);
        let whole = [&first, &middle, &last].map(|bytes| content(bytes).0);
        assert!((0..3).all(|index| verdict(&whole, index, 0) == Verdict::Whole));
        let mut lengths = vec![FILE_HEADER_BYTES];
        lengths.extend(PAYLOADS.iter().scan(FILE_HEADER_BYTES, |at, payload| {
            *at += block_bytes(*payload);
            Some(*at)
        }));
        let is_length = |byte| lengths.iter().any(|at| (*at..at + 4).contains(&byte));
        let flips = (0..BYTES).flat_map(|byte| {
            let bits = if is_length(byte) { 8 } else { 0 };
            (0..bits).map(|bit| 1 << bit).chain([0xff]).map(move |mask: u8| (byte, mask))
        });
        let flips: Vec<_> = flips.collect();
        for (index, bytes, positions) in [(0, &first, positions), (1, &middle, middle_positions)] {
            let mut damaged = bytes.clone();
            for (byte, mask) in &flips {
                damaged[*byte] ^= mask;
                let mut contents = whole;
                let (changed, found) = content(&damaged);
                contents[index] = changed;
                let verdicts: Vec<_> = (0..3).map(|n| verdict(&contents, n, 0)).collect();
                let is_refused = verdicts.iter().find(|found| **found != Verdict::Whole)
                    == Some(&Verdict::Damaged);
                // The padding of a block has no content.
                let is_same = found == positions && verdicts == [Verdict::Whole; 3];
                assert!(is_refused || is_same, "segment {index}, byte {byte}: {verdicts:?}");
                damaged[*byte] ^= mask;
            }
        }
    }

    /// A power failure loses any of the pages of the first two segments, but not the last one.
    #[test]
    fn every_lost_page_ends_the_log_at_the_first_block_that_lacks_it() {
        let (first, _) = segment(0, &PAYLOADS);
        let bytes_of_first = PAYLOADS.iter().sum::<usize>() as u64;
        let (middle, _) = segment(bytes_of_first, &PAYLOADS);
        let (last, _) = segment(2 * bytes_of_first, &[100]);
        let whole = [&first, &middle, &last].map(|bytes| content(bytes).0);
        let written = whole[0].at.div_ceil(PAGE_BYTES);
        for (index, bytes) in [(0, first), (1, middle)] {
            for lost in 1..1 << written {
                let mut bytes = bytes.clone();
                for page in (0..written).filter(|page| lost & (1 << page) != 0) {
                    bytes[page * PAGE_BYTES..][..PAGE_BYTES].fill(0);
                }
                let mut contents = whole;
                contents[index] = content(&bytes).0;
                let verdicts: Vec<_> = (0..=index).map(|n| verdict(&contents, n, 0)).collect();
                let mut wanted = vec![Verdict::Whole; index];
                wanted.push(Verdict::EndsHere);
                // If nothing of the middle segment is left, the gap is found behind the first one.
                let is_gap = index == 1 && verdicts[0] == Verdict::EndsHere;
                assert!(verdicts == wanted || is_gap, "pages {lost:b}: {verdicts:?}");
            }
        }
    }

    #[test]
    fn a_search_for_a_block_is_bounded() {
        // Consecutive heads that declare long blocks but have no valid CRC.
        let (mut bytes, _) = segment(0, &[0]);
        let head = bytes[64..64 + HEAD].to_vec();
        bytes.truncate(64);
        while bytes.len() < 8 << 20 {
            let at = bytes.len();
            bytes.extend_from_slice(&head);
            bytes[at..at + 4].copy_from_slice(&(4_u32 << 20).to_le_bytes());
        }
        assert_eq!(blocks(&bytes, |_, _| {}).1, Tear::Damaged);
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_a_panic(bytes: Vec<u8>) {
            blocks(&bytes, |_, _| {});
            for version in [&b"MSCAPT01"[..], &FileHeader::default().encode()] {
                let segment = [version, &bytes].concat();
                blocks(&segment, |_, _| {});
            }
        }
    }
}
