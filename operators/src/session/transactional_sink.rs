//! Opens the checkpoint of a query whose Kafka sink writes in transactions.

use crate::connect::kafka::sink::{KafkaSinkConfig, OpenTransactions};
use crate::connect::kafka::transactions::UseMark;
use millstream_engine::checkpoint::{PreparedEpoch, QueryDescription, UnfinishedEpoch};
use millstream_engine::error::EngineError;
use millstream_engine::runtime::job::Job;
use std::path::Path;

/// Opens the checkpoint and the Kafka transactions. Opening the transactions stops earlier runs
/// from committing. Therefore it precedes the check whether an unfinished epoch of the checkpoint
/// was written.
pub fn open(
    job: &mut Job,
    folder: &Path,
    shape: &QueryDescription,
    config: &KafkaSinkConfig,
) -> Result<OpenTransactions, EngineError> {
    let (env, mark) = (job.env(), UseMark::new(folder));
    let (mut opened, mut is_recent) = (None, false);
    job.open_checkpoint_of_sink(folder, shape, &mut |prepared: PreparedEpoch<'_>| {
        let open = config.open_transactions(prepared.query_id, env.storage(), &mark)?;
        let is_written = opened.insert(open).transactions.is_written(prepared.epoch)?;
        is_recent = is_written;
        Ok(is_written)
    })?;
    let mut open = match opened {
        Some(open) => open,
        None => {
            let id = job.checkpoint_id().unwrap_or_default();
            config.open_transactions(id, env.storage(), &mark)?
        }
    };
    let replays = matches!(job.unfinished(), Some(UnfinishedEpoch::Rerun(_)));
    // In micro-batch mode the epoch that is run again may have been written.
    is_recent |= replays && open.transactions.is_written(job.next_epoch())?;
    open.transactions.end_hanging(is_recent)?;
    open.transactions.begin_run(job.next_epoch(), replays, (env.storage(), &mark))?;
    Ok(open)
}
