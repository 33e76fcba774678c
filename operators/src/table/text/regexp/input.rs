//! The text that the backtracking engine reads: UTF-8, or UTF-16 as in Java. The two differ only
//! for supplementary characters, because in Java a match can start between the surrogates of a
//! pair.

/// A text addressed by positions in code units.
pub trait Input {
    /// The position after the last code unit.
    fn len(&self) -> usize;
    /// The character at a position, and the position after the character; `None` at the end.
    fn at(&self, at: usize) -> Option<(u32, usize)>;
    /// The character before a position, and the position of this character; `None` at the start.
    fn before(&self, at: usize) -> Option<(u32, usize)>;
    /// The position one step back. In UTF-16 a step is one code unit, unless `whole` requires whole
    /// characters.
    fn back(&self, at: usize, whole: bool) -> Option<usize>;
    /// The position at which the search continues after an empty or failed match. If `whole`, it is
    /// after a whole character.
    fn forward(&self, at: usize, whole: bool) -> usize;
}

impl Input for str {
    #[inline]
    fn len(&self) -> usize {
        str::len(self)
    }

    #[inline]
    fn at(&self, at: usize) -> Option<(u32, usize)> {
        let byte = *self.as_bytes().get(at)?;
        if byte < 128 {
            return Some((byte.into(), at + 1));
        }
        let c = self.get(at..)?.chars().next()?;
        Some((c.into(), at + c.len_utf8()))
    }

    #[inline]
    fn before(&self, at: usize) -> Option<(u32, usize)> {
        let byte = *self.as_bytes().get(at.checked_sub(1)?)?;
        if byte < 128 {
            return Some((byte.into(), at - 1));
        }
        let c = self.get(..at)?.chars().next_back()?;
        Some((c.into(), at - c.len_utf8()))
    }

    fn back(&self, at: usize, _: bool) -> Option<usize> {
        Some(self.before(at)?.1)
    }

    fn forward(&self, at: usize, _: bool) -> usize {
        self.at(at).map_or(at + 1, |(_, next)| next)
    }
}

impl Input for [u16] {
    fn len(&self) -> usize {
        <[u16]>::len(self)
    }

    fn at(&self, at: usize) -> Option<(u32, usize)> {
        let unit = u32::from(*self.get(at)?);
        match self.get(at + 1).map(|low| u32::from(*low)) {
            Some(low @ 0xdc00..0xe000) if (0xd800..0xdc00).contains(&unit) => {
                Some((0x1_0000 + ((unit - 0xd800) << 10) + (low - 0xdc00), at + 2))
            }
            _ => Some((unit, at + 1)),
        }
    }

    fn before(&self, at: usize) -> Option<(u32, usize)> {
        let last = at.checked_sub(1)?;
        if let Some((c, next)) = last.checked_sub(1).and_then(|first| self.at(first))
            && next == at
        {
            return Some((c, at - 2));
        }
        Some((u32::from(*self.get(last)?), last))
    }

    fn back(&self, at: usize, whole: bool) -> Option<usize> {
        if whole { Some(self.before(at)?.1) } else { at.checked_sub(1) }
    }

    fn forward(&self, at: usize, whole: bool) -> usize {
        if whole { self.at(at).map_or(at + 1, |(_, next)| next) } else { at + 1 }
    }
}
