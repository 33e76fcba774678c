//! The shared parts of row stages: chains, arenas, excerpts of expressions for errors, and copied
//! columns. Rows are borrowed, so a stage can pass a row on without copying it.

use crate::table::expr::Resolved;
use crate::table::expr::compile::{Cx, EvalError};
use crate::table::row::{Row, RowWriter, Slot};
use crate::table::types::Physical;
use bumpalo::Bump;
use millstream_engine::error::EngineError;
use millstream_engine::runtime::stage::Push;
use std::fmt::Write;

/// The number of keys above which the first emitted keys are likely to miss the cache.
const MANY: usize = 4096;

/// The number of keys to emit in one step, of `of` keys in total. With few keys the step is large,
/// so that the sink writes rarely. With many keys the step is small, so that it takes little time.
/// With a million idle keys, each of the first few hundred took 10 to 35 us (`millstream bench
/// window hold`). So a step of 64 keys took over a millisecond.
pub(super) fn step(of: usize) -> usize {
    if of > MANY { 8 } else { 64 }
}

/// A stage that receives borrowed rows.
pub trait RowPush: for<'a> Push<Row<'a>> {}
impl<S: for<'a> Push<Row<'a>>> RowPush for S {}

/// A chain of row stages.
pub type BoxChain = Box<dyn RowPush>;

/// The maximum number of bytes that an arena retains between records.
const KEPT_BYTES_MAX: usize = 64 << 20;

/// An arena for the temporary values of one record.
///
/// The arena retains its largest chunk between records, unless all its chunks together have more
/// than [`KEPT_BYTES_MAX`] bytes.
#[derive(Default)]
pub(super) struct Scratch(Bump);

impl Scratch {
    #[inline]
    pub fn cx<'a>(&'a self, row: Row<'a>) -> Cx<'a> {
        Cx::new(row, &self.0)
    }

    /// Like [`cx`](Self::cx), for expressions with `parts` common subexpressions.
    #[inline]
    pub fn sharing<'a>(&'a self, row: Row<'a>, parts: usize) -> Cx<'a> {
        Cx::sharing(row, &self.0, parts)
    }

    #[inline]
    pub fn reset(&mut self) {
        if self.0.allocated_bytes() > KEPT_BYTES_MAX {
            self.0 = Bump::new();
        }
        self.0.reset();
    }
}

/// The start of an expression's text, for error messages of its evaluation.
pub(super) struct Excerpt(String);

/// The maximum length of an [`Excerpt`], in bytes.
const EXCERPT_BYTES_MAX: usize = 120;

impl Excerpt {
    pub fn of(expr: &Resolved) -> Self {
        let mut text = Self(String::new());
        if write!(text, "{expr}").is_err() {
            text.0.push('…');
        }
        text
    }

    /// Converts an error of the expression's evaluation, and adds the excerpt to its reason.
    #[cold]
    pub fn put_into(&self, error: EvalError) -> EngineError {
        let EvalError { condition, mut reason, fix, .. } = error;
        let _ = write!(reason, ", in `{}`", self.0);
        EngineError::operator(condition, reason, fix)
    }
}

impl Write for Excerpt {
    /// Fails as soon as the text exceeds the limit, which ends formatting early.
    fn write_str(&mut self, more: &str) -> std::fmt::Result {
        for c in more.chars() {
            if self.0.len() + c.len_utf8() > EXCERPT_BYTES_MAX {
                return Err(std::fmt::Error);
            }
            self.0.push(c);
        }
        Ok(())
    }
}

/// A column that is copied from an input row to an output row.
#[derive(Clone, Copy, Debug)]
pub(super) struct CopiedColumn {
    /// The slot in the input row.
    pub from: Slot,
    /// The index in the output row.
    pub to: usize,
    pub physical: Physical,
}

/// Copies a value; NULL stays NULL.
#[inline]
pub(super) fn copy(
    writer: &mut RowWriter<'_, Vec<u8>>,
    to: usize,
    row: Row<'_>,
    slot: Slot,
    kind: Physical,
) {
    if row.is_null(slot) {
        return;
    }
    match kind {
        Physical::Bool | Physical::Long => writer.long(to, row.long(slot)),
        Physical::Double => writer.double(to, row.double(slot)),
        Physical::Decimal | Physical::Bytes => writer.bytes(to, row.bytes(slot)),
    }
}
