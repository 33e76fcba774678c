//! A join of two streams without sources, rings and sinks, for benchmarks of the join alone.

use super::Lowering;
use super::join::columns_read;
use crate::table::expr::compile::Semantics;
use crate::table::physical::join::{
    AsofJoin, JoinCondition, JoinSide, Results, SidedRow, StreamJoin,
};
use crate::table::physical::stages::BoxChain;
use crate::table::physical::table_signal::TableSignal;
use crate::table::plan::analyzer::OutputMode;
use crate::table::plan::optimizer::optimize;
use crate::table::plan::{Join, Plan};
use crate::table::row::RowBuf;
use millstream_engine::error::EngineError;
use millstream_engine::runtime::job::Job;
use millstream_engine::runtime::stage::{FlushStatus, Push, Stage};

/// The stage of a join of two streams, for benchmarks and tests.
pub struct BareJoin(BareStage);

enum BareStage {
    Join(Box<StreamJoin>),
    /// An ASOF join, which emits left rows at once.
    Asof(Box<AsofJoin>),
}

/// Applies an expression to the stage, with static calls as in a query.
macro_rules! on_stage {
    ($join:expr, |$stage:ident| $body:expr) => {
        match $join {
            BareStage::Join($stage) => $body,
            BareStage::Asof($stage) => $body,
        }
    };
}

fn first_join(plan: &Plan) -> Option<&Join> {
    match plan {
        Plan::Join(join) if join.is_of_streams() => Some(join),
        _ => plan.inputs().into_iter().find_map(first_join),
    }
}

impl BareJoin {
    /// Creates the stage of the outermost join of two streams in a plan, with all its columns as
    /// output. `None` if the plan has no such join. `job` is not run.
    pub fn new(plan: &Plan, job: &mut Job, down: BoxChain) -> Option<Self> {
        let plan = optimize(plan);
        let join = first_join(&plan)?;
        let condition = JoinCondition::of(join, Semantics::default().zone);
        let widths = [&join.left, &join.right].map(Plan::width);
        let (leaves, below) = columns_read(&condition, widths, &vec![true; widths[0] + widths[1]]);
        let log = job.operator(1).pop()?;
        let lowering = Lowering {
            mode: OutputMode::Append,
            semantics: Semantics::default(),
            parallelism: 1,
            batch: false,
            merges: false,
            late: None,
            table: TableSignal::default(),
            job,
            make_source: &mut |_, _, _, _| Ok(Vec::new()),
            reads: Vec::new(),
        };
        let config = lowering.join_config(join, &condition, (&leaves, &below), log);
        Some(Self(match join.closest {
            Some(closest) => {
                let how = (closest, Results::Immediate);
                BareStage::Asof(Box::new(AsofJoin::new(config, how, down)))
            }
            None => BareStage::Join(Box::new(StreamJoin::new(config, down))),
        }))
    }

    /// Pushes a row to the left or the right side.
    pub fn push(&mut self, is_left: bool, row: &[u8]) -> Result<(), EngineError> {
        let side = if is_left { JoinSide::Left } else { JoinSide::Right };
        let row = SidedRow { side, hash: 0, row: RowBuf::from_slice(row) };
        on_stage!(&mut self.0, |stage| stage.push(row, 0))
    }

    /// Advances the watermark of both sides.
    pub fn watermark(&mut self, us: i64) -> Result<(), EngineError> {
        on_stage!(&mut self.0, |stage| stage.watermark(us))
    }

    /// Runs one bounded step of searches and expiry. Returns whether any work remains.
    pub fn flush(&mut self) -> Result<bool, EngineError> {
        let status = on_stage!(&mut self.0, |stage| stage.flush())?;
        Ok(status > FlushStatus::Buffered)
    }

    /// Ends an epoch. The benchmark has no checkpoint.
    pub fn end_epoch(&mut self, epoch: u64) -> Result<(), EngineError> {
        on_stage!(&mut self.0, |stage| stage.marker(epoch))
    }

    /// The number of buffered rows, and the memory for them in bytes.
    pub fn state(&self) -> (u64, u64) {
        on_stage!(&self.0, |stage| stage.state())
    }

    /// Whether the stage takes a row.
    pub fn is_ready(&mut self) -> bool {
        on_stage!(&mut self.0, |stage| stage.is_ready())
    }
}
