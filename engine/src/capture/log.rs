//! The capture log of a durable source. Bytes are stored as they were received, in memory-mapped
//! segments, before they are processed, so they outlive the process that received them.
//!
//! A segment `NNNNNNNNNN.cap` is a capture file (see [`super`]) of fixed size, with zeros after its
//! last block. The length of a block is stored last, so a process that is killed while it appends
//! leaves no incomplete block.
//!
//! *Durability.* A block survives any end of the process as soon as it is appended: appending is a
//! copy into mapped memory, without a system call. A power failure can lose pages that the kernel
//! has not written yet, in any order. The next start removes the first block that lacks a page, and
//! everything after it, also in later segments: stream positions have no gaps, so the bytes after
//! lost ones cannot be read at their positions. Damage that no power failure can have caused is an
//! error, and nothing is removed; [`verdict`] tells them apart.
//!
//! *Threads.* One worker appends. The log's own thread creates the next segments ahead, and removes
//! old ones.

use super::format::{
    Clock, FILE_HEADER_BYTES, FileHeader, HEAD_BYTES as HEAD, Head, MAX_PAYLOAD, block_bytes,
    encode,
};
use super::segment::{Content, Verdict, block_at, segments, verdict};
use crate::checkpoint::log_entry::{unreadable, write_failed};
use crate::env::Env;
use crate::error::EngineError;
use crossbeam_channel::{Receiver, Sender, bounded, unbounded};
use memmap2::MmapMut;
use std::fs::{File, OpenOptions};
use std::io::{Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{Ordering, compiler_fence};
use std::thread::JoinHandle;

/// Size of a segment, in bytes.
pub const SEGMENT_BYTES: usize = 4 << 20;
/// Maximum payload of a block, in bytes.
pub const MAX_LOG_PAYLOAD: usize = SEGMENT_BYTES - FILE_HEADER_BYTES - HEAD - 8;
const _: () = assert!(MAX_LOG_PAYLOAD <= MAX_PAYLOAD);

/// Removes the bytes of a segment from `at` on. Otherwise they would count as damage once a later
/// segment has blocks.
fn cut(path: &Path, at: usize) -> Result<(), EngineError> {
    let zeros = || -> std::io::Result<()> {
        let mut file = OpenOptions::new().write(true).open(path)?;
        let length = file.metadata()?.len() as usize;
        file.seek(SeekFrom::Start(at as u64))?;
        file.write_all(&vec![0; length.saturating_sub(at)])?;
        file.sync_all()
    };
    zeros().map_err(|error| write_failed(path, &error))
}

struct Segment {
    path: PathBuf,
    map: MmapMut,
}

/// Creates an empty segment. Its zeros are written up front, to allocate the disk space.
fn make(folder: &Path, number: u64) -> Result<Segment, EngineError> {
    let path = folder.join(format!("{number:010}.cap"));
    let failed = |error: std::io::Error| write_failed(&path, &error);
    let mut file: File = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(true)
        .open(&path)
        .map_err(failed)?;
    file.write_all(&vec![0; SEGMENT_BYTES]).map_err(failed)?;
    file.sync_all().map_err(failed)?;
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(failed)?;
    // SAFETY: the file is in the folder of a locked checkpoint, so no other Millstream process has
    // it open. It is removed but never truncated while it is mapped.
    let map = unsafe { MmapMut::map_mut(&file) }.map_err(failed)?;
    Ok(Segment { path, map })
}

enum Order {
    Remove(PathBuf),
}

/// A full segment, and the stream position at which its last payload ends.
struct Full {
    path: PathBuf,
    end: u64,
}

/// Reads the segments of a log. What a power failure has not left intact is removed. Damage of
/// another kind is an error, unless it lies before `from`.
fn restore(
    segments: &[(u64, PathBuf)],
    from: u64,
    count_lines: impl Fn(&[u8]) -> u64,
) -> Result<(Tail, Vec<Full>), EngineError> {
    let (mut contents, mut tails) = (Vec::new(), Vec::new());
    for (_, path) in segments {
        let mut tail = Tail::default();
        contents.push(Content::read(path, |head, payload| {
            tail.lines = head.lines + count_lines(payload);
            tail.connections = tail.connections.max(head.connection + 1);
        })?);
        tails.push(tail);
    }
    let (mut tail, mut full) = (Tail::default(), Vec::new());
    for (index, (_, path)) in segments.iter().enumerate() {
        let content = &contents[index];
        if content.first.is_some() {
            tail.lines = tails[index].lines;
            tail.connections = tail.connections.max(tails[index].connections);
        }
        full.push(Full { path: path.clone(), end: content.end });
        match verdict(&contents, index, from) {
            Verdict::Whole => {}
            Verdict::Damaged => return Err(content.damaged(path)),
            Verdict::EndsHere => {
                tail.torn = Some(format!("{}, byte {}", path.display(), content.at));
                // From the last one on, so that an interrupted start finds the same tear again.
                for (_, later) in segments[index + 1..].iter().rev() {
                    std::fs::remove_file(later).map_err(|error| write_failed(later, &error))?;
                }
                cut(path, content.at)?;
                break;
            }
        }
    }
    Ok((tail, full))
}

/// The log, open for appending.
pub struct CaptureLog {
    current: Segment,
    at: usize,
    /// The stream position at which the last payload of the current segment ends.
    end: u64,
    full: Vec<Full>,
    keeper: Option<Keeper>,
    /// The file header of the next segment.
    header: FileHeader,
}

/// What a log contained when it was opened: the number of lines and connections, and a torn block.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tail {
    /// The number of complete lines since the log was created.
    pub lines: u64,
    /// The number of connections since the log was created.
    pub connections: u32,
    /// Describes the last block if it is torn, for example by a power failure.
    pub torn: Option<String>,
}

/// Reads the blocks of a log from the segment on that contains a stream position. The first blocks
/// may lie before the position. One segment is in memory at a time.
pub struct Replay {
    paths: std::collections::VecDeque<PathBuf>,
    bytes: Vec<u8>,
    at: usize,
    version: u8,
}

impl Replay {
    /// Reads the next block; `None` at the end.
    pub fn next_block(&mut self) -> Result<Option<(Head, &[u8])>, EngineError> {
        while block_at(&self.bytes, self.at, self.version).is_none() {
            let Some(path) = self.paths.pop_front() else { return Ok(None) };
            self.bytes = std::fs::read(&path).map_err(|error| unreadable(&path, &error))?;
            // A segment without a header has no blocks. `open` has already reported it if that is
            // an error.
            let header = FileHeader::decode(&self.bytes).ok();
            self.at = header.map_or(self.bytes.len(), |header| header.bytes());
            self.version = header.map_or(0, |header| header.version);
        }
        let Some((head, payload, next)) = block_at(&self.bytes, self.at, self.version) else {
            return Ok(None);
        };
        self.at = next;
        Ok(Some((head, payload)))
    }
}

impl CaptureLog {
    /// Opens the log in a folder, or creates it. The [`Replay`] starts at the segment that holds
    /// the first stream bytes after `from`. `count_lines` returns the number of lines that end in a
    /// block.
    pub fn open(
        env: &dyn Env,
        folder: &Path,
        from: u64,
        count_lines: impl Fn(&[u8]) -> u64,
    ) -> Result<(Self, Tail, Replay), EngineError> {
        let made = env.storage().create_folder(folder);
        made.map_err(|error| write_failed(folder, &error))?;
        let segments = segments(folder)?;
        if segments.is_empty() && from > 0 {
            return Err(unreadable(
                &folder.join("0000000000.cap"),
                &std::io::Error::from(std::io::ErrorKind::NotFound),
            ));
        }
        let (tail, full) = restore(&segments, from, count_lines)?;
        let mut paths: Vec<PathBuf> = full.iter().map(|segment| segment.path.clone()).collect();
        // Segments that lie entirely before `from` are not replayed.
        let first = full.iter().position(|segment| segment.end > from).unwrap_or(full.len());
        let paths = paths.split_off(first).into();
        let replay = Replay { paths, bytes: Vec::new(), at: 0, version: 0 };
        let number = segments.last().map_or(0, |(number, _)| number + 1);
        let current = make(folder, number)?;
        let keeper = Some(Keeper::start(env, folder.to_path_buf(), number + 1)?);
        let header = FileHeader {
            version: 2,
            clock: Clock::Read,
            precision_ns: 1000,
            start_wall_ns: env.wall_us().saturating_mul(1000),
            start_mono_ns: env.now_ns(),
            recording: env.random(),
            ..FileHeader::default()
        };
        let mut log = Self { current, at: 0, end: from, full, keeper, header };
        log.begin();
        Ok((log, tail, replay))
    }

    fn begin(&mut self) {
        let header = self.header.encode();
        self.current.map[8..FILE_HEADER_BYTES].copy_from_slice(&header[8..]);
        compiler_fence(Ordering::Release);
        self.current.map[..8].copy_from_slice(&header[..8]);
        self.header.file += 1;
        self.at = FILE_HEADER_BYTES;
    }

    /// Appends a block. When it returns, the block outlives this process, but not a power failure.
    /// Blocks if the segment is full and the next one is not ready.
    pub fn append(&mut self, head: &Head, payload: &[u8]) -> Result<(), EngineError> {
        debug_assert!(payload.len() <= MAX_LOG_PAYLOAD);
        let length = payload.len();
        if self.at + block_bytes(length) > SEGMENT_BYTES {
            self.turn_over()?;
        }
        let block = &mut self.current.map[self.at..self.at + HEAD + length];
        block[HEAD..].copy_from_slice(payload);
        encode(head, length, block);
        // If the process is killed here, the length is still 0, so there is no block. The fence
        // keeps the compiler from storing the length first. A process sees its own stores in order,
        // and so does any process that maps the file later.
        compiler_fence(Ordering::Release);
        block[..4].copy_from_slice(&(length as u32 + 1).to_le_bytes());
        self.end = self.end.max(head.position + length as u64);
        self.at += block_bytes(length);
        Ok(())
    }

    /// Switches to the next segment, which the log's thread has prepared. Waits for it if the disk
    /// is slower than the socket. Fails if the thread could not create it, or has ended.
    fn turn_over(&mut self) -> Result<(), EngineError> {
        let gone = || EngineError::operator("CAPTURE_LOG_STOPPED", "its thread has ended", "");
        let keeper = self.keeper.as_ref().ok_or_else(gone)?;
        let next = keeper.ready.recv().map_err(|_| gone())??;
        let old = std::mem::replace(&mut self.current, next);
        self.full.push(Full { path: old.path, end: self.end });
        self.begin();
        Ok(())
    }

    /// Removes the full segments that hold only bytes before `position`, which is committed. Call
    /// this only after the [`Replay`], which reads them, has ended.
    pub fn committed(&mut self, position: u64) {
        let keeper = self.keeper.as_ref();
        self.full.retain(|segment| {
            let needed = segment.end > position;
            if let (false, Some(keeper)) = (needed, keeper) {
                // If a segment is not removed now, a later run removes it.
                drop(keeper.orders.send(Order::Remove(segment.path.clone())));
            }
            needed
        });
    }
}

impl Drop for CaptureLog {
    /// Waits for the log's thread. Afterwards no thread uses the folder: the next run may create a
    /// segment with the same number that the thread was about to create.
    fn drop(&mut self) {
        if let Some(Keeper { orders, ready, thread }) = self.keeper.take() {
            drop((orders, ready));
            // A panic of the thread was printed by the panic hook.
            drop(thread.join());
        }
    }
}

/// The thread that creates up to two empty segments ahead and removes old ones.
struct Keeper {
    orders: Sender<Order>,
    ready: Receiver<Result<Segment, EngineError>>,
    thread: JoinHandle<()>,
}

impl Keeper {
    fn start(env: &dyn Env, folder: PathBuf, first: u64) -> Result<Self, EngineError> {
        let (orders, inbox) = unbounded();
        let (ahead, ready) = bounded(1);
        let body = move || {
            for number in first.. {
                let made = make(&folder, number);
                // Waits until the channel can take a message, and carries out orders meanwhile. The
                // message is evaluated only when it is sent.
                loop {
                    crossbeam_channel::select! {
                        send(ahead, made) -> sent => match sent {
                            Ok(()) => break,
                            Err(_) => return,
                        },
                        recv(inbox) -> order => match order {
                            Ok(Order::Remove(path)) => drop(std::fs::remove_file(path)),
                            Err(_) => return,
                        },
                    }
                }
            }
        };
        let thread = env.spawn("capture-log".to_string(), Box::new(body))?;
        Ok(Self { orders, ready, thread })
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::capture::segment::PAGE_BYTES;
    use crate::capture::{Direction, Kind};
    use crate::env::RealEnv;

    fn newlines(payload: &[u8]) -> u64 {
        payload.iter().filter(|byte| **byte == b'\n').count() as u64
    }

    struct Scratch(PathBuf);

    impl Scratch {
        fn new(name: &str) -> Self {
            let name = format!("millstream-capture-{name}-{}", std::process::id());
            Self(std::env::temp_dir().join(name))
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            drop(std::fs::remove_dir_all(&self.0));
        }
    }

    /// The real environment, which counts the running threads that it started.
    #[derive(Default)]
    struct Watched {
        real: RealEnv,
        running: std::sync::Arc<std::sync::atomic::AtomicUsize>,
    }

    impl Env for Watched {
        fn now_ns(&self) -> u64 {
            self.real.now_ns()
        }
        fn wall_us(&self) -> i64 {
            self.real.wall_us()
        }
        fn random(&self) -> u64 {
            self.real.random()
        }
        fn storage(&self) -> &dyn crate::env::storage::Storage {
            self.real.storage()
        }
        fn create_poller(
            &self,
        ) -> Result<(Option<mio::Poll>, crate::sync::waker::Waker), EngineError> {
            self.real.create_poller()
        }
        fn spawn(
            &self,
            name: String,
            run: Box<dyn FnOnce() + Send>,
        ) -> Result<JoinHandle<()>, EngineError> {
            let running = self.running.clone();
            running.fetch_add(1, Ordering::SeqCst);
            let body = move || {
                run();
                running.fetch_sub(1, Ordering::SeqCst);
            };
            self.real.spawn(name, Box::new(body))
        }
    }

    #[test]
    fn a_closed_log_has_ended_its_thread() -> Result<(), EngineError> {
        let scratch = Scratch::new("closed");
        let world = Watched::default();
        for _ in 0..5 {
            let (log, ..) = CaptureLog::open(&world, &scratch.0, 0, newlines)?;
            assert_eq!(world.running.load(Ordering::SeqCst), 1);
            drop(log);
            assert_eq!(world.running.load(Ordering::SeqCst), 0, "the log's thread outlived it");
        }
        Ok(())
    }

    fn data(position: u64, lines: u64) -> Head {
        Head {
            position,
            lines,
            mono_ns: 1,
            wall_ns: -2,
            connection: 3,
            direction: Direction::In,
            kind: Kind::Data,
            flags: 0,
        }
    }

    /// Payloads with their stream positions.
    type Payloads = Vec<(u64, Vec<u8>)>;

    fn replayed(folder: &Path, from: u64) -> Result<(Payloads, Tail), EngineError> {
        let (_log, tail, mut replay) =
            CaptureLog::open(&RealEnv::default(), folder, from, newlines)?;
        let mut found = Vec::new();
        while let Some((head, payload)) = replay.next_block()? {
            assert_eq!((head.mono_ns, head.wall_ns), (1, -2));
            found.push((head.position, payload.to_vec()));
        }
        Ok((found, tail))
    }

    #[test]
    fn appended_events_are_replayed_over_many_segments_and_committed_segments_are_deleted() {
        let scratch = Scratch::new("replay");
        let (mut log, ..) = CaptureLog::open(&RealEnv::default(), &scratch.0, 0, newlines).unwrap();
        let payload = vec![b'\n'; 100_000];
        for n in 0..100 {
            log.append(&data(n * 100_000, n * 100_000), &payload).unwrap();
        }
        drop(log);
        let (all, tail) = replayed(&scratch.0, 0).unwrap();
        assert_eq!((all.len(), tail.lines, tail.connections), (100, 10_000_000, 4));
        assert!(all.iter().enumerate().all(|(n, (position, _))| *position == n as u64 * 100_000));
        let (rest, _) = replayed(&scratch.0, 9_950_000).unwrap();
        assert!(rest.len() < 40 && rest.last() == all.last(), "earlier segments are left out");
        let (mut log, ..) =
            CaptureLog::open(&RealEnv::default(), &scratch.0, 9_950_000, newlines).unwrap();
        let before = log.full.len();
        log.committed(9_950_000);
        assert!(log.full.len() < before && log.full.len() <= 1);
    }

    #[test]
    fn a_torn_end_is_cut_off_and_damage_before_it_is_an_error() {
        let scratch = Scratch::new("torn");
        let (mut log, ..) = CaptureLog::open(&RealEnv::default(), &scratch.0, 0, newlines).unwrap();
        for n in 0..3 {
            log.append(&data(n * 4, n), b"abc\n").unwrap();
        }
        let path = log.current.path.clone();
        drop(log);
        let whole = std::fs::read(&path).unwrap();
        let block = (HEAD + 4).next_multiple_of(8);
        for (at, kept) in
            [(64 + 2 * block + HEAD, Some(2)), (64 + block + HEAD, None), (64 + 20, None)]
        {
            let mut bytes = whole.clone();
            bytes[at] ^= 1;
            std::fs::write(&path, &bytes).unwrap();
            match (replayed(&scratch.0, 0), kept) {
                (Ok((found, tail)), Some(kept)) => {
                    assert_eq!(found.len(), kept);
                    assert!(tail.torn.is_some());
                }
                (Err(error), None) => assert_eq!(error.condition(), "CHECKPOINT_DAMAGED"),
                (other, _) => panic!("byte {at}: {other:?}"),
            }
            for (_, other) in segments(&scratch.0).unwrap() {
                if other != path {
                    std::fs::remove_file(other).unwrap();
                }
            }
        }
        std::fs::remove_file(&path).unwrap();
        assert_eq!(replayed(&scratch.0, 5).unwrap_err().condition(), "CHECKPOINT_FILE_MISSING");
    }

    /// A log of four blocks, of 5000 bytes each, with the offset of each block.
    fn four_blocks(folder: &Path) -> (PathBuf, [usize; 4]) {
        let (mut log, ..) = CaptureLog::open(&RealEnv::default(), folder, 0, newlines).unwrap();
        let mut offsets = [0; 4];
        for n in 0..4 {
            offsets[n as usize] = log.at;
            log.append(&data(n * 5000, n), &[b'x'; 5000]).unwrap();
        }
        (log.current.path.clone(), offsets)
    }

    /// A power failure loses pages of the first run. The second run writes another segment, and is
    /// killed before it commits anything.
    #[test]
    fn a_second_crash_after_a_torn_block_is_survived() {
        // For each block, whether the page in its middle is lost, or that with its length.
        for (block, in_middle) in [(3, true), (3, false), (1, true), (1, false)] {
            let scratch = Scratch::new(&format!("second-crash-{block}-{in_middle}"));
            let (path, offsets) = four_blocks(&scratch.0);
            let mut bytes = std::fs::read(&path).unwrap();
            let lost = if in_middle { offsets[block] + 2500 } else { offsets[block] };
            let page = lost / PAGE_BYTES * PAGE_BYTES;
            bytes[page.max(offsets[block])..page + PAGE_BYTES].fill(0);
            std::fs::write(&path, &bytes).unwrap();

            let world = RealEnv::default();
            let (mut log, tail, _) = CaptureLog::open(&world, &scratch.0, 0, newlines).unwrap();
            assert!(tail.torn.is_some(), "block {block}");
            let end = block as u64 * 5000;
            log.append(&data(end, 9), b"new\n").unwrap();
            drop(log);

            let (found, tail) = replayed(&scratch.0, 0).unwrap();
            let positions: Vec<u64> = found.iter().map(|(position, _)| *position).collect();
            let wanted: Vec<u64> = (0..=block as u64).map(|n| n * 5000).collect();
            assert_eq!(positions, wanted, "what was lost is not read again");
            assert_eq!((found[block].1.as_slice(), tail.torn), (&b"new\n"[..], None));
        }
    }

    /// The next segment was written before the last pages of this one.
    #[test]
    fn pages_lost_at_the_end_of_a_segment_end_the_log_there() {
        const PAYLOAD: usize = 100_000;
        let size = block_bytes(PAYLOAD);
        let in_first = (SEGMENT_BYTES - FILE_HEADER_BYTES) / size;
        let start = |block: usize| FILE_HEADER_BYTES + block * size;
        // The last page, the whole last block without a trace of it, and a part of several blocks.
        let last = in_first - 1;
        for (lost, kept) in [
            (start(in_first) - PAGE_BYTES, last),
            (start(last), last),
            (start(last - 2) + size / 2, last - 2),
        ] {
            let scratch = Scratch::new(&format!("lost-end-{lost}"));
            let world = RealEnv::default();
            let (mut log, ..) = CaptureLog::open(&world, &scratch.0, 0, newlines).unwrap();
            let first = log.current.path.clone();
            for block in 0..=in_first {
                log.append(&data((block * PAYLOAD) as u64, 0), &[b'x'; PAYLOAD]).unwrap();
            }
            assert_eq!(log.full.len(), 1, "one block is in the second segment");
            drop(log);
            let mut bytes = std::fs::read(&first).unwrap();
            bytes[lost..].fill(0);
            std::fs::write(&first, &bytes).unwrap();

            let (found, tail) = replayed(&scratch.0, 0).unwrap();
            let positions: Vec<u64> = found.iter().map(|(position, _)| *position).collect();
            let wanted: Vec<u64> = (0..kept).map(|block| (block * PAYLOAD) as u64).collect();
            assert_eq!(positions, wanted, "from byte {lost} on");
            assert!(tail.torn.unwrap().starts_with(&*first.to_string_lossy()));
            let (again, tail) = replayed(&scratch.0, 0).unwrap();
            assert_eq!((again.len(), tail.torn), (kept, None), "it is reported once");
        }
    }

    /// The first block of a segment in the middle is damaged, or its header. All pages are there.
    #[test]
    fn damage_at_the_begin_of_a_segment_is_an_error_and_nothing_is_removed() {
        const PAYLOAD: usize = 100_000;
        let in_segment = (SEGMENT_BYTES - FILE_HEADER_BYTES) / block_bytes(PAYLOAD);
        // The magic, the header, the length of the first block (100,001 becomes longer than a segment),
        // and its payload.
        for damaged in [0, 9, FILE_HEADER_BYTES + 3, FILE_HEADER_BYTES + HEAD + 5] {
            let scratch = Scratch::new(&format!("damaged-begin-{damaged}"));
            let world = RealEnv::default();
            let (mut log, ..) = CaptureLog::open(&world, &scratch.0, 0, newlines).unwrap();
            for block in 0..=2 * in_segment {
                log.append(&data((block * PAYLOAD) as u64, 0), &[b'x'; PAYLOAD]).unwrap();
            }
            assert_eq!(log.full.len(), 2, "one block is in the third segment");
            drop(log);
            let paths: Vec<_> = segments(&scratch.0).unwrap();
            let mut bytes = std::fs::read(&paths[1].1).unwrap();
            bytes[damaged] ^= 1;
            std::fs::write(&paths[1].1, &bytes).unwrap();

            let error = replayed(&scratch.0, 0).err().unwrap();
            assert_eq!(error.condition(), "CHECKPOINT_DAMAGED", "byte {damaged}");
            for (number, path) in &paths[..3] {
                let whole = std::fs::read(path).unwrap();
                assert!(whole.iter().any(|byte| *byte != 0), "segment {number} is kept");
            }
        }
    }
}
