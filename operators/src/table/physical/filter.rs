//! Filter: passes on the rows for which a condition is true.

use crate::table::expr::Resolved;
use crate::table::expr::common_subexpression::eliminate_common_subexpressions;
use crate::table::expr::compile::{BoolFn, Semantics, compile, fold};
use crate::table::physical::stages::{BoxChain, Excerpt, Scratch};
use crate::table::row::Row;
use millstream_engine::error::EngineError;
use millstream_engine::pass_control;
use millstream_engine::runtime::stage::{Push, Stage};

/// The stage of a filter: a row is passed on only if the condition is true, not NULL.
pub(super) struct Filter {
    condition: BoolFn,
    excerpt: Excerpt,
    /// The number of common subexpressions in the condition.
    parts: usize,
    scratch: Scratch,
    down: BoxChain,
}

impl Filter {
    pub fn new(condition: &Resolved, width: usize, semantics: Semantics, down: BoxChain) -> Self {
        let excerpt = Excerpt::of(condition);
        let (mut shared, parts) =
            eliminate_common_subexpressions(vec![fold(condition.clone(), semantics)]);
        let condition = match shared.pop() {
            Some(condition) => compile(&condition, width, semantics).bool(),
            None => unreachable!("one was given"),
        };
        Self { condition, excerpt, parts, scratch: Scratch::default(), down }
    }
}

impl Stage for Filter {
    pass_control!(down);
}

impl<'a> Push<Row<'a>> for Filter {
    #[inline]
    fn push(&mut self, row: Row<'a>, ingest_ns: u64) -> Result<(), EngineError> {
        self.scratch.reset();
        match (self.condition)(self.scratch.sharing(row, self.parts)) {
            Ok(Some(true)) => self.down.push(row, ingest_ns),
            Ok(_) => Ok(()),
            Err(error) => Err(self.excerpt.put_into(*error)),
        }
    }
}
