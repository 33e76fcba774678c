//! The backtracking engine: runs a [program](crate::table::text::regexp::program) over a text with
//! Java's semantics.
//!
//! Open alternatives and undo entries are on an explicit stack, so a long text does not overflow
//! the thread's stack. Iterations without backtracking, atomic groups and look-around run as
//! separate sub-matches. As in Java, the captures of a sub-match remain even if the match fails
//! later. A search that exceeds its limit of steps or of open alternatives fails with
//! [`StepLimitExceeded`].

use crate::table::text::regexp::grapheme;
use crate::table::text::regexp::input::Input;
use crate::table::text::regexp::node::{Assertion, Kind};
use crate::table::text::regexp::program::{Atom, Op, Program, Times};
use crate::table::text::regexp::property;
use crate::table::text::regexp::set::{Fold, fold};
use std::collections::HashSet;

/// The position of a group that did not participate in the match.
pub const NONE: usize = usize::MAX;
/// The limit of steps for all searches in a text: `STEPS`, plus `STEPS_A_UNIT` for each code unit
/// of the text, where the addition is at most `STEPS_MAX`. For long texts the limit is at least
/// `STEPS_OF_LONG` for each code unit.
const STEPS: usize = 10_000_000;
const STEPS_A_UNIT: usize = 1000;
const STEPS_MAX: usize = 300_000_000;
const STEPS_OF_LONG: usize = 30;
/// The maximum number of entries on the backtracking stack.
const CHOICES: usize = 4_000_000;
/// The cost of looking up a character in the Unicode tables, in steps.
const STEPS_OF_LOOK_UP: usize = 4;

/// The error of a search that exceeded its limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StepLimitExceeded;

/// The limit of steps for a text of `length` code units.
fn steps_of(length: usize) -> usize {
    let of_units = length.saturating_mul(STEPS_A_UNIT).min(STEPS_MAX);
    STEPS.saturating_add(of_units).max(length.saturating_mul(STEPS_OF_LONG))
}

/// A backtracking entry: an alternative to try, or a state to restore, when the current path fails.
enum Entry {
    Resume {
        op: usize,
        at: usize,
    },
    /// Retries with one character less, as long as the position is not before `floor`.
    Fewer {
        op: usize,
        at: usize,
        floor: usize,
    },
    /// Retries with one character more.
    More {
        op: usize,
        at: usize,
        count: u32,
    },
    /// Retries with one more iteration of `Op::Each`.
    Another {
        op: usize,
        at: usize,
        count: u32,
    },
    /// Retries with one more iteration of a lazy loop.
    LazyRound {
        id: usize,
        at: usize,
    },
    /// Records that the body of the loop `id` fails at this position.
    Failed {
        id: usize,
        at: usize,
    },
    Register {
        index: usize,
        value: usize,
    },
    Group {
        index: usize,
        begin: usize,
        end: usize,
    },
}

/// The state of a search in a text.
pub struct Machine<'p, 't, I: Input + ?Sized> {
    program: &'p Program,
    text: &'t I,
    /// Whether a match may start only at whole characters, not between the surrogates of a pair.
    whole: bool,
    /// The start and end of each group, or [`NONE`]. Group 0 is the match.
    pub groups: Vec<usize>,
    registers: Vec<usize>,
    stack: Vec<Entry>,
    failed: Vec<HashSet<usize>>,
    steps: usize,
    /// The end of the previous match.
    previous: usize,
    /// The end of the latest sub-match.
    last: usize,
    /// The position at which the current look-behind must end.
    behind: usize,
}

type Run<T> = Result<T, StepLimitExceeded>;

fn is_line_end(c: u32) -> bool {
    matches!(c, 0x0a | 0x0d | 0x85 | 0x2028 | 0x2029)
}

impl<'p, 't, I: Input + ?Sized> Machine<'p, 't, I> {
    /// Creates an engine that searches a text with a program.
    pub fn new(program: &'p Program, text: &'t I, whole: bool) -> Self {
        Self {
            program,
            text,
            whole,
            groups: vec![NONE; 2 * (program.groups + 1)],
            registers: vec![0; program.registers],
            stack: Vec::new(),
            failed: Vec::new(),
            steps: steps_of(text.len()),
            previous: 0,
            last: 0,
            behind: 0,
        }
    }

    /// Finds the first match that starts at or after `from`. `previous` is the end of the previous
    /// match, for `\G`.
    pub fn find(&mut self, from: usize, previous: usize) -> Run<bool> {
        self.previous = previous;
        self.last = previous;
        self.failed.clear();
        self.failed.resize_with(self.program.loops.len(), HashSet::new);
        // The groups are cleared only once per search: as in Java, the captures of a failed attempt
        // remain for the next attempt.
        self.groups.fill(NONE);
        let mut begin = from;
        while begin <= self.text.len() {
            if let Some(first) = &self.program.first
                && !self.text.at(begin).is_some_and(|(c, _)| first.contains(c))
            {
                begin = self.text.forward(begin, self.whole);
                continue;
            }
            if let Some(end) = self.run(0, begin)? {
                self.groups[0] = begin;
                self.groups[1] = end;
                return Ok(true);
            }
            begin = self.text.forward(begin, self.whole);
        }
        Ok(false)
    }

    /// The position at which the search continues after an empty match.
    pub fn behind(&self, at: usize) -> usize {
        self.text.forward(at, false)
    }

    fn set_register(&mut self, index: usize, value: usize) {
        let before = std::mem::replace(&mut self.registers[index], value);
        self.stack.push(Entry::Register { index, value: before });
    }

    fn set_group(&mut self, index: usize, begin: usize, end: usize) {
        let at = 2 * index;
        self.stack.push(Entry::Group { index, begin: self.groups[at], end: self.groups[at + 1] });
        self.groups[at] = begin;
        self.groups[at + 1] = end;
    }

    fn step(&mut self) -> Run<()> {
        if self.steps == 0 || self.stack.len() > CHOICES {
            return Err(StepLimitExceeded);
        }
        self.steps -= 1;
        Ok(())
    }

    /// Charges the steps of an instruction that reads more than one character. If they exceed the
    /// limit, the next step fails.
    #[inline]
    fn charge(&mut self, steps: usize) {
        self.steps = self.steps.saturating_sub(steps);
    }

    /// The end of the grapheme cluster that starts at a position; `None` at the end of the text.
    fn cluster_end(&mut self, at: usize) -> Option<usize> {
        let end = grapheme::next_boundary(self.text, at);
        let units = end.map_or(0, |end| end - at);
        // A cluster of a single unit is usually ASCII, which needs no lookup in the tables.
        self.charge(if units > 1 { units * STEPS_OF_LOOK_UP } else { 0 });
        end
    }

    /// Runs the instructions from `op` up to `Accept`. Returns the end position, or `None` without
    /// a match. The remaining alternatives of the run are discarded.
    fn run(&mut self, op: usize, at: usize) -> Run<Option<usize>> {
        let base = self.stack.len();
        let (mut op, mut at) = (op, at);
        loop {
            self.step()?;
            match self.execute(op, at)? {
                Next::Go(next, position) => (op, at) = (next, position),
                Next::Accept => {
                    self.stack.truncate(base);
                    self.last = at;
                    return Ok(Some(at));
                }
                Next::Fail => match self.backtrack(base)? {
                    Some((next, position)) => (op, at) = (next, position),
                    None => return Ok(None),
                },
            }
        }
    }

    /// Restores the state of the latest alternative above the stack height `base`. Returns the
    /// instruction and the position at which it continues; `None` if there is no alternative.
    fn backtrack(&mut self, base: usize) -> Run<Option<(usize, usize)>> {
        while self.stack.len() > base {
            self.step()?;
            let Some(entry) = self.stack.pop() else { break };
            match entry {
                Entry::Resume { op, at } => return Ok(Some((op, at))),
                Entry::Register { index, value } => self.registers[index] = value,
                Entry::Group { index, begin, end } => {
                    self.groups[2 * index] = begin;
                    self.groups[2 * index + 1] = end;
                }
                Entry::Failed { id, at } => {
                    self.failed[id].insert(at);
                }
                Entry::Fewer { op, at, floor } => {
                    let Some((_, before)) = self.text.before(at) else { continue };
                    if before > floor {
                        self.stack.push(Entry::Fewer { op, at: before, floor });
                    }
                    return Ok(Some((op, before.max(floor))));
                }
                Entry::More { op, at, count } => {
                    let Op::Chars(atom, times) = &self.program.ops[op] else { continue };
                    if let Some((c, next)) = self.text.at(at)
                        && atom.matches(c)
                    {
                        if count + 1 < times.max {
                            self.stack.push(Entry::More { op, at: next, count: count + 1 });
                        }
                        return Ok(Some((op + 1, next)));
                    }
                }
                Entry::Another { op, at, count } => {
                    let Op::Each { body, times, group } = self.program.ops[op] else { continue };
                    if let Some(end) = self.run(body, at)?
                        && end != at
                    {
                        if let Some(group) = group {
                            self.set_group(group, at, end);
                        }
                        if count + 1 < times.max {
                            self.stack.push(Entry::Another { op, at: end, count: count + 1 });
                        }
                        return Ok(Some((op + 1, end)));
                    }
                }
                Entry::LazyRound { id, at } => {
                    let own = self.program.loops[id];
                    self.set_register(own.count, self.registers[own.count] + 1);
                    return Ok(Some((own.body, at)));
                }
            }
        }
        Ok(None)
    }

    fn execute(&mut self, op: usize, at: usize) -> Run<Next> {
        let program = self.program;
        Ok(match &program.ops[op] {
            Op::Atom(atom) => match self.text.at(at) {
                Some((c, next)) if atom.matches(c) => Next::Go(op + 1, next),
                _ => Next::Fail,
            },
            Op::Chars(atom, times) => self.chars(op, at, atom, *times)?,
            Op::Assert(assertion) => Next::when(self.holds(*assertion, at), op + 1, at),
            Op::Split(first, second) => {
                self.stack.push(Entry::Resume { op: *second, at });
                Next::Go(*first, at)
            }
            Op::Jump(to) => Next::Go(*to, at),
            Op::Open(register) => {
                self.set_register(*register, at);
                Next::Go(op + 1, at)
            }
            Op::Close(register, group) => {
                if let Some(group) = group {
                    self.set_group(*group, self.registers[*register], at);
                }
                Next::Go(op + 1, at)
            }
            Op::Enter(id) => self.enter(*id, at),
            Op::Round(id) => self.round(*id, at),
            Op::Each { body, times, group } => self.each(op, at, *body, *times, *group)?,
            Op::Once { body, optional } => match self.run(*body, at)? {
                Some(end) => Next::Go(op + 1, end),
                None => Next::when(*optional, op + 1, at),
            },
            Op::Look { body, negated } => {
                let found = self.run(*body, at)?.is_some();
                Next::when(found != *negated, op + 1, at)
            }
            Op::Behind { body, negated, min, max } => {
                let found = self.look_behind(*body, at, *min, *max)?;
                Next::when(found != *negated, op + 1, at)
            }
            Op::BehindEnd => Next::when(at == self.behind, op + 1, at),
            Op::Reference(group, fold) => match self.refer(*group, *fold, at) {
                Some(end) => Next::Go(op + 1, end),
                None => Next::Fail,
            },
            Op::LineEnding => match self.text.at(at) {
                Some((0x0d, next)) => {
                    if let Some((0x0a, end)) = self.text.at(next) {
                        self.stack.push(Entry::Resume { op: op + 1, at: next });
                        return Ok(Next::Go(op + 1, end));
                    }
                    Next::Go(op + 1, next)
                }
                Some((c, next)) if is_line_end(c) || matches!(c, 0x0b | 0x0c) => {
                    Next::Go(op + 1, next)
                }
                _ => Next::Fail,
            },
            Op::Grapheme => match self.cluster_end(at) {
                Some(end) => Next::Go(op + 1, end),
                None => Next::Fail,
            },
            Op::Accept => Next::Accept,
        })
    }

    fn chars(&mut self, op: usize, at: usize, atom: &Atom, times: Times) -> Run<Next> {
        let (mut count, mut end, mut floor) = (0, at, at);
        let most = if times.kind == Kind::Lazy { times.min } else { times.max };
        while count < most {
            match self.text.at(end) {
                Some((c, next)) if atom.matches(c) => end = next,
                _ => break,
            }
            count += 1;
            if count == times.min {
                floor = end;
            }
        }
        self.charge(count as usize);
        if count < times.min {
            return Ok(Next::Fail);
        }
        match times.kind {
            Kind::Greedy if end > floor => {
                self.stack.push(Entry::Fewer { op: op + 1, at: end, floor });
            }
            Kind::Lazy if count < times.max => self.stack.push(Entry::More { op, at: end, count }),
            _ => {}
        }
        Ok(Next::Go(op + 1, end))
    }

    fn enter(&mut self, id: usize, at: usize) -> Next {
        let own = self.program.loops[id];
        self.set_register(own.count, 1);
        let (first, second) = match own.times {
            Times { min: 1.., .. } => return Next::Go(own.body, at),
            Times { max: 0, .. } => return Next::Go(own.next, at),
            Times { kind: Kind::Lazy, .. } => (own.next, own.body),
            _ => (own.body, own.next),
        };
        self.stack.push(Entry::Resume { op: second, at });
        Next::Go(first, at)
    }

    fn round(&mut self, id: usize, at: usize) -> Next {
        let own = self.program.loops[id];
        // As in Java, an empty iteration ends the loop, even below the minimum count.
        if at <= self.registers[own.begin] {
            return Next::Go(own.next, at);
        }
        let count = self.registers[own.count];
        if count < own.times.min as usize {
            self.set_register(own.count, count + 1);
            return Next::Go(own.body, at);
        }
        if count >= own.times.max as usize || own.memo && self.failed[id].contains(&at) {
            return Next::Go(own.next, at);
        }
        if own.times.kind == Kind::Lazy {
            self.stack.push(Entry::LazyRound { id, at });
            return Next::Go(own.next, at);
        }
        self.stack.push(Entry::Resume { op: own.next, at });
        if own.memo {
            self.stack.push(Entry::Failed { id, at });
        }
        self.set_register(own.count, count + 1);
        Next::Go(own.body, at)
    }

    fn each(
        &mut self,
        op: usize,
        at: usize,
        body: usize,
        times: Times,
        group: Option<usize>,
    ) -> Run<Next> {
        let mut at = at;
        let mut empty = 0;
        for _ in 0..times.min {
            let Some(end) = self.run(body, at)? else { return Ok(Next::Fail) };
            if let Some(group) = group {
                self.set_group(group, at, end);
            }
            // After two consecutive empty iterations, all further iterations would be empty too.
            empty = if end == at { empty + 1 } else { 0 };
            if empty == 2 {
                break;
            }
            at = end;
        }
        let mut count = times.min;
        if times.kind == Kind::Lazy {
            if count < times.max {
                self.stack.push(Entry::Another { op, at, count });
            }
            return Ok(Next::Go(op + 1, at));
        }
        while count < times.max {
            self.step()?;
            let Some(end) = self.run(body, at)? else { break };
            if end == at {
                break;
            }
            if times.kind == Kind::Greedy {
                self.stack.push(Entry::Resume { op: op + 1, at });
            }
            if let Some(group) = group {
                self.set_group(group, at, end);
            }
            at = end;
            count += 1;
        }
        Ok(Next::Go(op + 1, at))
    }

    fn look_behind(&mut self, body: usize, at: usize, min: i32, max: i32) -> Run<bool> {
        // As in Java, `max` may have overflowed. Depending on its value, there is then no limit, or
        // no distance is within the limit.
        let max = match max < 0 && (at as i32).wrapping_sub(max) < 0 {
            true => i32::MAX,
            false => max,
        };
        let saved = std::mem::replace(&mut self.behind, at);
        let mut found = false;
        let mut begin = Some(at);
        let mut distance = 0;
        while let Some(from) = begin
            && distance <= max
        {
            self.step()?;
            if distance >= min && self.run(body, from)?.is_some() {
                found = true;
                break;
            }
            begin = self.text.back(from, self.whole);
            distance += 1;
        }
        self.behind = saved;
        Ok(found)
    }

    /// Matches a back-reference at a position. Returns the end of the matched text, or `None`.
    fn refer(&mut self, group: usize, how: Fold, at: usize) -> Option<usize> {
        let (begin, end) = (*self.groups.get(2 * group)?, *self.groups.get(2 * group + 1)?);
        if begin == NONE {
            return None;
        }
        let (mut own, mut at) = (begin, at);
        while own < end {
            self.charge(1);
            let (a, next) = self.text.at(own)?;
            let (b, after) = self.text.at(at)?;
            let small = |c: u32| match u8::try_from(c) {
                Ok(byte) => u32::from(byte.to_ascii_lowercase()),
                Err(_) => c,
            };
            let equal = match how {
                Fold::None => a == b,
                Fold::Ascii => small(a) == small(b),
                Fold::Unicode => {
                    a == b || {
                        self.charge(STEPS_OF_LOOK_UP);
                        fold(a) == fold(b)
                    }
                }
            };
            if !equal {
                return None;
            }
            (own, at) = (next, after);
        }
        Some(at)
    }

    fn holds(&mut self, assertion: Assertion, at: usize) -> bool {
        let text = self.text;
        let previous = text.before(at).map(|(c, _)| c);
        match assertion {
            Assertion::Begin => at == 0,
            Assertion::End => at == text.len(),
            Assertion::LastMatch => at == self.previous,
            Assertion::Caret { unix } => {
                let Some((next, _)) = text.at(at) else { return false };
                match previous {
                    None => true,
                    Some(0x0d) if next == 0x0a => false,
                    Some(c) => c == 0x0a || !unix && is_line_end(c),
                }
            }
            Assertion::Dollar { multiline, unix } => {
                let Some((c, after)) = text.at(at) else { return true };
                let is_end = |at: usize| at == text.len();
                match c {
                    0x0a if !unix && previous == Some(0x0d) => false,
                    0x0a => multiline || is_end(after),
                    c if unix || !is_line_end(c) => false,
                    _ if multiline || is_end(after) => true,
                    0x0d => matches!(text.at(after), Some((0x0a, end)) if is_end(end)),
                    _ => false,
                }
            }
            Assertion::Bound { negated, unicode } => {
                let left = at > 0 && self.is_word(text.before(at), unicode);
                let here = text.at(at).map(|(c, _)| (c, at));
                (left != self.is_word(here, unicode)) != negated
            }
            Assertion::GraphemeBound => {
                at == 0
                    || at == text.len()
                    || self.cluster_end(self.last).is_none_or(|next| next <= at)
            }
        }
    }

    /// Whether `\b` treats a character as part of a word: a letter, a digit, `_` (with the flag
    /// `U`, any word character), or a non-spacing mark after a letter or digit.
    fn is_word(&mut self, of: Option<(u32, usize)>, unicode: bool) -> bool {
        let Some((c, at)) = of else { return false };
        let word = |c: u32| match unicode {
            true => property::word_of_unicode().contains(c),
            false => c == u32::from('_') || property::letter_or_digit().contains(c),
        };
        if word(c) {
            return true;
        }
        if c < 128 || !property::non_spacing().contains(c) {
            return false;
        }
        let mut before = self.text.before(at);
        while let Some((c, at)) = before {
            self.charge(STEPS_OF_LOOK_UP);
            if property::letter_or_digit().contains(c) {
                return true;
            }
            if !property::non_spacing().contains(c) {
                return false;
            }
            before = self.text.before(at);
        }
        false
    }
}

/// The outcome of an instruction: the instruction and position to continue with, failure, or a
/// match.
enum Next {
    Go(usize, usize),
    Fail,
    Accept,
}

impl Next {
    fn when(holds: bool, op: usize, at: usize) -> Self {
        if holds { Self::Go(op, at) } else { Self::Fail }
    }
}
