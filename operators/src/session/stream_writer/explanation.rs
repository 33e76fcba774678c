//! Explains a query: its plan, and the tasklets that each worker would have.

use crate::connect::foreach::Noop;
use crate::connect::rate::RateSource;
use crate::session::stream_writer::StreamWriter;
use crate::session::stream_writer::prepared_query::Prepared;
use crate::session::streaming_query::QueryError;
use crate::session::{Settings, static_tables};
use crate::table::physical::{BoxChain, PlacedChain, TableSignal, lower, show_retention};
use crate::table::plan::Scan;
use crate::table::plan::limits::on_large_stack;
use millstream_engine::env::SimEnv;
use millstream_engine::error::EngineError;
use millstream_engine::measure::latency::Latency;
use millstream_engine::runtime::job::{Config, Job};
use millstream_engine::runtime::tasklet::{SourceTasklet, Tasklet};
use std::sync::Arc;

impl StreamWriter {
    /// Formats the plan, and the tasklets that each worker would have.
    pub fn explain(&self) -> Result<String, QueryError> {
        on_large_stack(|| self.explained())
    }

    pub(in crate::session::stream_writer) fn explained(&self) -> Result<String, QueryError> {
        let prepared = self.prepare()?;
        let job = self.layout(&prepared, &self.settings(), &mut |_, _| {})?;
        let mut text = self.frame.explain();
        let retention = show_retention(&self.frame.plan, self.settings().semantics.zone);
        if !retention.is_empty() {
            text.push_str(&format!("\n== State of joins ==\n{retention}"));
        }
        text.push_str("\n== Tasklets ==\n");
        for (worker, tasklets) in job.layout().into_iter().enumerate() {
            text.push_str(&format!("worker {worker}: {}\n", tasklets.join(", ")));
        }
        Ok(text)
    }

    /// Lowers the query with sources that never read. `read` is called with the needed columns of
    /// each source.
    pub(in crate::session::stream_writer) fn layout(
        &self,
        prepared: &Prepared,
        settings: &Settings,
        read: &mut dyn FnMut(&Scan, &[bool]),
    ) -> Result<Job, EngineError> {
        let plan = &self.frame.plan;
        // The number of workers must be the same as in `start`.
        let config = self.job_config(prepared, settings);
        let workers = match self.replay {
            Some(_) => config.workers,
            None => config.capped_workers(),
        };
        let config = Config { workers, ..config };
        let mut job = Job::in_env("explain", config, Arc::new(SimEnv::new(0)))?;
        let sink = Box::new(Noop(Latency::default().recorder(job.env())));
        // Sources are not opened for an explanation; each is replaced by one that never reads.
        let mut make = |job: &mut Job, scan: &Scan, needed: &[bool], chains: Vec<PlacedChain>| {
            read(scan, needed);
            let parts = chains.len();
            let of_part = |(part, (worker, chain))| {
                let env = job.env();
                let source = RateSource::new(1, (part, parts), &*env, env.wall_us());
                let port = job.source_port(worker);
                let tasklet = SourceTasklet::new(port, source, chain);
                let name = match parts {
                    1 => format!("source {}", scan.name),
                    _ => format!("source {} {part}", scan.name),
                };
                Ok(Box::new(RenamedTasklet(name, tasklet)) as Box<dyn Tasklet>)
            };
            chains.into_iter().enumerate().map(of_part).collect()
        };
        let meaning = (prepared.mode, settings.semantics);
        let lowered = static_tables::with_empty_tables(plan);
        let outputs = (sink as BoxChain, None, TableSignal::default());
        lower(&lowered, meaning, settings.parallelism, &mut job, outputs, &mut make)?;
        Ok(job)
    }
}

/// A tasklet that is shown under another name by `explain`.
pub(in crate::session::stream_writer) struct RenamedTasklet<T>(String, T);

impl<T: Tasklet> Tasklet for RenamedTasklet<T> {
    fn name(&self) -> &str {
        &self.0
    }
    fn attach(
        &mut self,
        io: &mut millstream_engine::runtime::stage::Io<'_>,
    ) -> Result<(), EngineError> {
        self.1.attach(io)
    }
    fn step(
        &mut self,
        cx: &mut millstream_engine::runtime::tasklet::StepCx<'_>,
    ) -> Result<millstream_engine::runtime::tasklet::Step, EngineError> {
        self.1.step(cx)
    }
}
