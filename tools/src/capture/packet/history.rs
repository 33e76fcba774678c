//! The last bytes of the directions that were used recently, to compare retransmitted bytes with.
//!
//! The number of rings is bounded. If all are in use, a direction takes a ring that has not been
//! used for a while, so memory does not grow with the number of connections.

/// Number of bytes kept per direction.
const RING_BYTES: usize = 16 << 10;
const MASK: u64 = RING_BYTES as u64 - 1;
/// Number of rings in the pool.
const RINGS_MAX: usize = 512;

struct Ring {
    owner: u64,
    bytes: Box<[u8]>,
    /// The range of stream offsets in the ring.
    from: u64,
    to: u64,
    was_used: bool,
}

#[derive(Default)]
pub(super) struct History {
    rings: Vec<Ring>,
    hand: usize,
}

/// The number of the ring that a direction used last. Another direction may have taken it since.
pub(super) type RingNumber = u32;

impl History {
    /// Adds bytes at a stream offset. The ring is cleared first if they do not follow
    /// the last bytes.
    pub(super) fn push(&mut self, owner: u64, ring: &mut RingNumber, at: u64, data: &[u8]) {
        if self.rings.get(*ring as usize).is_none_or(|ring| ring.owner != owner) {
            *ring = self.allot(owner, at);
        }
        let ring = &mut self.rings[*ring as usize];
        ring.was_used = true;
        let end = at + data.len() as u64;
        if ring.to != at {
            ring.from = at;
        }
        ring.to = end;
        ring.from = ring.from.max(end.saturating_sub(RING_BYTES as u64));
        let skipped = data.len().saturating_sub(RING_BYTES);
        let (data, start) = (&data[skipped..], ((at + skipped as u64) & MASK) as usize);
        let first = data.len().min(RING_BYTES - start);
        ring.bytes[start..start + first].copy_from_slice(&data[..first]);
        ring.bytes[..data.len() - first].copy_from_slice(&data[first..]);
    }

    /// Compares bytes with those that were delivered at the same stream offsets. Returns how many
    /// could be compared, how many differ, and the offset of the first difference.
    pub(super) fn compare(
        &self,
        owner: u64,
        ring: RingNumber,
        at: u64,
        data: &[u8],
    ) -> (u64, u64, Option<u64>) {
        let Some(ring) = self.rings.get(ring as usize).filter(|ring| ring.owner == owner) else {
            return (0, 0, None);
        };
        let (from, to) = (at.max(ring.from), (at + data.len() as u64).min(ring.to));
        let (mut differing, mut first) = (0, None);
        for place in from..to.max(from) {
            if ring.bytes[(place & MASK) as usize] != data[(place - at) as usize] {
                differing += 1;
                first.get_or_insert(place);
            }
        }
        (to.saturating_sub(from), differing, first)
    }

    fn allot(&mut self, owner: u64, at: u64) -> RingNumber {
        if self.rings.len() < RINGS_MAX {
            let bytes = vec![0; RING_BYTES].into_boxed_slice();
            self.rings.push(Ring { owner, bytes, from: at, to: at, was_used: true });
            return self.rings.len() as RingNumber - 1;
        }
        // Second-chance eviction takes at most one round over the rings.
        while std::mem::take(&mut self.rings[self.hand].was_used) {
            self.hand = (self.hand + 1) % RINGS_MAX;
        }
        let number = self.hand;
        self.hand = (self.hand + 1) % RINGS_MAX;
        let ring = &mut self.rings[number];
        (ring.owner, ring.from, ring.to) = (owner, at, at);
        number as RingNumber
    }
}
