//! How background work (checkpoints, compaction) yields its core to a worker that wakes up.
//!
//! On Linux a thread that has slept a lot may keep running for about a millisecond, even when a
//! worker that has slept less becomes runnable. Background work is therefore done in small pieces
//! and yields the core between them.
//!
//! On a busy core a yield can take milliseconds, because the other threads use their whole time
//! slices. Then an epoch could take longer to write than to process, each next epoch would be
//! larger, and memory would grow without bound. Therefore there are more pieces between two yields
//! on a busy core, and the scheduler shares the core.

use std::cell::Cell;
use std::time::{Duration, Instant};

/// A yield that takes longer than this shows that the core is busy.
const BUSY: Duration = Duration::from_micros(500);
/// Maximum number of pieces between two yields: a few milliseconds of work.
const MAX_PIECES: u32 = 128;

/// Number of pieces of work between two yields.
#[derive(Clone, Copy)]
struct YieldPacing {
    pieces: u32,
    done: u32,
}

impl YieldPacing {
    const NEW: Self = Self { pieces: 1, done: 0 };

    /// Counts a piece of work. Returns whether to yield now.
    fn is_over(&mut self) -> bool {
        self.done += 1;
        self.done >= self.pieces
    }

    /// Starts the next series of pieces: longer if the last yield took more than [`BUSY`],
    /// otherwise shorter.
    fn begin(&mut self, waited: Duration) {
        let longer = self.pieces * 2;
        self.pieces = if waited > BUSY { longer.min(MAX_PIECES) } else { self.pieces.div_ceil(4) };
        self.done = 0;
    }
}

thread_local! {
    static TURN: Cell<YieldPacing> = const { Cell::new(YieldPacing::NEW) };
}

/// Counts a piece of work of this thread, and yields the core if it is time to: after every piece
/// while yields are short, after up to [`MAX_PIECES`] pieces while they show that the core is busy.
/// Call this after each piece of work.
pub(crate) fn yield_to_worker() {
    let mut turn = TURN.get();
    if turn.is_over() {
        let begun = Instant::now();
        std::thread::yield_now();
        turn.begin(begun.elapsed());
    }
    TURN.set(turn);
}

/// Counts items, such as changes or keys. 256 of them, some tens of microseconds of work, are a
/// piece of [`yield_to_worker`].
#[derive(Default)]
pub(crate) struct YieldBudget(usize);

impl YieldBudget {
    const ITEMS: usize = 256;

    /// Counts an item. Every 256th call completes a piece of work, and yields the core if it is
    /// time to.
    pub fn spend(&mut self) {
        self.0 += 1;
        if self.0 == Self::ITEMS {
            self.0 = 0;
            yield_to_worker();
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    /// The number of yields over `pieces` pieces of work that take `waited` each.
    fn yields(turn: &mut YieldPacing, pieces: u32, waited: Duration) -> u32 {
        let is_yield = |_: &u32| {
            let over = turn.is_over();
            if over {
                turn.begin(waited);
            }
            over
        };
        (0..pieces).filter(is_yield).count() as u32
    }

    #[test]
    fn a_busy_thread_does_not_yield_after_each_piece_of_work() {
        let (quick, long) = (Duration::from_micros(2), Duration::from_millis(4));
        let mut turn = YieldPacing::NEW;
        assert_eq!(yields(&mut turn, 1000, quick), 1000, "a core of its own");
        // 100,000 pieces are 25 million changes. With a yield after each piece the wait would be
        // 400 s.
        let busy = yields(&mut turn, 100_000, long);
        assert!((100_000 / MAX_PIECES..1000).contains(&busy), "{busy}");
        // Soon after the core has become idle, each piece is followed by a yield again.
        yields(&mut turn, 200, quick);
        assert_eq!(yields(&mut turn, 1000, quick), 1000);
    }
}
