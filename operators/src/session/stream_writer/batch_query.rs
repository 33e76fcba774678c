//! Runs a query over bounded tables and collects its rows.

use crate::session::stream_writer::StreamWriter;
use crate::session::stream_writer::prepared_query::Prepared;
use crate::session::stream_writer::query_sink::SinkSpec;
use crate::session::streaming_query::QueryError;
use crate::session::{is_files, static_tables};
use crate::table::error::PlanError;
use crate::table::plan::analyzer::OutputMode;
use crate::table::plan::limits::on_large_stack;
use crate::table::value::Value;
use millstream_engine::checkpoint::{QueryDescription, new_id};
use millstream_engine::env::RealEnv;
use millstream_engine::epoch::trigger::Trigger;
use millstream_engine::runtime::job::{Config, Job};

impl StreamWriter {
    /// Runs a query over bounded tables, and returns its rows.
    pub(crate) fn collect(self) -> Result<Vec<Vec<Value>>, QueryError> {
        on_large_stack(|| self.collected())
    }

    /// Runs a query over bounded tables, and writes its rows to the sink of this writer.
    pub(crate) fn save_batch(self) -> Result<(), QueryError> {
        let sink = self.sink(&self.options, None)?;
        #[cfg(feature = "kafka")]
        if let SinkSpec::Kafka(config) = &sink {
            config.check_transactions(Trigger::Once, false)?;
        }
        on_large_stack(|| self.run_once(sink)).map(drop)
    }

    pub(in crate::session::stream_writer) fn collected(
        self,
    ) -> Result<Vec<Vec<Value>>, QueryError> {
        self.run_once(SinkSpec::Memory)
    }

    /// Runs a query over bounded tables. Returns its rows if the sink is a table in memory.
    fn run_once(mut self, sink: SinkSpec) -> Result<Vec<Vec<Value>>, QueryError> {
        let plan = &self.frame.plan;
        if let Some(scan) = plan.scans().iter().find(|scan| scan.streaming) {
            return Err(PlanError::new(
                "STREAMING_QUERY_WITHOUT_START",
                format!("`{}` ({}) is read as a stream, which has no end", scan.name, scan.format),
                match is_files(&scan.format) {
                    true => {
                        "Leave STREAM out to read the current files once; a stream needs a sink: \
                        CREATE STREAMING TABLE t USING console AS SELECT …"
                    }
                    false => {
                        "A stream needs a sink: CREATE STREAMING TABLE t USING console AS \
                              SELECT … in a job file for `millstream run`"
                    }
                },
            )
            .into());
        }
        let session = self.frame.session.clone();
        let settings = self.settings();
        // Tables are read before the job is created. Otherwise every level of nested subqueries
        // would keep a job in memory.
        let whole = self.frame.plan.clone();
        let plan = static_tables::read(&whole, &session)?;
        let is_collected = matches!(sink, SinkSpec::Memory);
        if is_collected && let Some(rows) = static_tables::constant_rows(&plan, settings.semantics)
        {
            return Ok(rows);
        }
        let prepared = Prepared {
            mode: OutputMode::Complete,
            trigger: Trigger::Once,
            name: None,
            sink,
            checkpoint: None,
        };
        let job_config = Config {
            workers: settings.workers.max(settings.parallelism),
            pin: false,
            wait: settings.wait.unwrap_or_default(),
            trigger: prepared.trigger,
            ..Config::default()
        };
        let name = format!("batch {}", new_id(&RealEnv::default()));
        // There is no checkpoint and no progress report, so an empty shape suffices.
        let (mut job, shape) = (Job::new("batch", job_config)?, QueryDescription::default());
        job.run_empty_batch();
        let (job, parts) = self.assemble(job, &prepared, &settings, &name, (shape, Some(plan)))?;
        let ended = job
            .start()
            .and_then(|running| session.wait_for(&running, &parts.counters, &parts.stopping));
        let table = session.lock().tables.remove(&name);
        let notice = session.lock().notice;
        parts.counters.iter().for_each(|counters| counters.bad.report(notice));
        ended?;
        Ok(table.map(|table| table.rows()).unwrap_or_default())
    }
}
