//! Projection: computes the columns of a new row.

use crate::table::expr::Resolved;
use crate::table::expr::common_subexpression::eliminate_common_subexpressions;
use crate::table::expr::compile::{Compiled, Semantics, compile, fold, write_field};
use crate::table::physical::stages::{BoxChain, Excerpt, Scratch};
use crate::table::row::{Row, RowWriter};
use millstream_engine::error::EngineError;
use millstream_engine::pass_control;
use millstream_engine::runtime::stage::{Push, Stage};

/// The stage of a projection.
pub(super) struct Project {
    columns: Vec<Compiled>,
    excerpts: Vec<Excerpt>,
    /// The number of common subexpressions in the output columns.
    parts: usize,
    scratch: Scratch,
    out: Vec<u8>,
    down: BoxChain,
}

impl Project {
    /// Creates a projection by expressions over rows of `width` columns.
    pub fn new(exprs: Vec<Resolved>, width: usize, semantics: Semantics, down: BoxChain) -> Self {
        let excerpts = exprs.iter().map(Excerpt::of).collect();
        let exprs = exprs.into_iter().map(|expr| fold(expr, semantics)).collect();
        let (exprs, parts) = eliminate_common_subexpressions(exprs);
        let columns = exprs.iter().map(|expr| compile(expr, width, semantics)).collect();
        Self { columns, excerpts, parts, scratch: Scratch::default(), out: Vec::new(), down }
    }
}

impl Stage for Project {
    pass_control!(down);
}

impl<'a> Push<Row<'a>> for Project {
    #[inline]
    fn push(&mut self, row: Row<'a>, ingest_ns: u64) -> Result<(), EngineError> {
        self.scratch.reset();
        self.out.clear();
        let mut writer = RowWriter::new(&mut self.out, self.columns.len());
        let cx = self.scratch.sharing(row, self.parts);
        for (index, column) in self.columns.iter().enumerate() {
            if let Err(error) = write_field(column, cx, &mut writer, index) {
                return Err(self.excerpts[index].put_into(*error));
            }
        }
        self.down.push(Row(&self.out), ingest_ns)
    }
}
