//! Starts a query: builds its job with sources, operators and sink.

use crate::connect::file::is_of_files;
use crate::connect::source_counters::SourceCounters;
use crate::session::stream_writer::StreamWriter;
use crate::session::stream_writer::name_in_use;
use crate::session::stream_writer::prepared_query::Prepared;
use crate::session::stream_writer::progress_reporter::ProgressReporter;
use crate::session::stream_writer::query_sink::{OpenTransactions, SinkSpec};
use crate::session::stream_writer::query_sources::{SourceOpener, file_config};
use crate::session::streaming_query::{DriverState, QueryError, StreamingQuery};
#[cfg(feature = "kafka")]
use crate::session::transactional_sink;
use crate::session::{Settings, is_files, static_tables};
use crate::table::error::PlanResult;
use crate::table::physical::{PlacedChain, lower, state_operators, unbounded_joins};
use crate::table::plan::join::watermarks_without_effect;
use crate::table::plan::limits::on_large_stack;
use crate::table::plan::shared_sources::sources;
use crate::table::plan::time_window::{has_watermark, with_default_skew};
use crate::table::plan::{Plan, Scan};
use millstream_engine::checkpoint::{QueryDescription, new_id, staged_by_another_sink};
use millstream_engine::env::SimEnv;
use millstream_engine::error::EngineError;
use millstream_engine::measure::latency::Latency;
use millstream_engine::runtime::job::{Config, Job, JobEnd, StateLimit};
use millstream_engine::runtime::worker::WaitProfile;
use std::borrow::Cow;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};

/// State shared by a running query and its job.
pub(in crate::session::stream_writer) struct QueryParts {
    pub id: String,
    pub run_id: String,
    pub latency: Latency,
    pub driver_state: Arc<Mutex<DriverState>>,
    pub counters: Vec<SourceCounters>,
    /// The indices of the captures among the sources of the checkpoint.
    pub captures: Vec<usize>,
    /// Set when the query is requested to stop.
    pub stopping: Arc<AtomicBool>,
}

/// How the workers of a query wait by default. Kafka's records arrive through threads of its client,
/// which need the cores that a spinning worker would occupy.
fn default_wait(plan: &Plan) -> WaitProfile {
    match plan.scans().iter().any(|scan| scan.streaming && scan.format == "kafka") {
        true => WaitProfile::Park,
        false => WaitProfile::default(),
    }
}

/// Opens the checkpoint of a query that has one. Returns the transactions of a Kafka sink that
/// writes in transactions; `None` for other sinks. Fails if the sink has changed while an epoch is
/// written but not committed.
fn open_checkpoint(
    job: &mut Job,
    prepared: &Prepared,
    shape: &QueryDescription,
) -> Result<Option<OpenTransactions>, EngineError> {
    match (&prepared.sink, &prepared.checkpoint) {
        (_, None) => Ok(None),
        #[cfg(feature = "kafka")]
        (SinkSpec::Kafka(config), Some(folder)) if config.is_transactional() => {
            transactional_sink::open(job, folder, shape, config).map(Some)
        }
        (sink, Some(folder)) => {
            job.open_checkpoint_of_sink(folder, shape, &mut |prepared| {
                // Only the sink that staged output can commit it.
                if matches!(sink, SinkSpec::Files(_)) && is_of_files(prepared.staged) {
                    return Ok(true);
                }
                Err(staged_by_another_sink(prepared.epoch, folder, &sink.description()))
            })?;
            Ok(None)
        }
    }
}

/// The indices of the captures among the sources of a query.
fn capture_indices(shape: &QueryDescription) -> Vec<usize> {
    let sources = shape.sources.iter().enumerate();
    sources.filter(|(_, source)| *source == "capture").map(|(at, _)| at).collect()
}

impl StreamWriter {
    /// Opens the sources and the sink, and starts the query.
    pub fn start(self) -> Result<StreamingQuery, QueryError> {
        on_large_stack(|| self.started())
    }

    pub(in crate::session::stream_writer) fn started(
        mut self,
    ) -> Result<StreamingQuery, QueryError> {
        let prepared = self.prepare()?;
        let session = self.frame.session.clone();
        let settings = self.settings();
        let name = {
            let mut inner = session.lock();
            let name = match &prepared.name {
                Some(name) => name.clone(),
                None => (0..)
                    .map(|number| format!("query-{number}"))
                    .find(|name| !inner.is_active(name))
                    .unwrap_or_default(),
            };
            if inner.is_active(&name) {
                let reason = format!("a query with the name '{name}' is active in this session");
                return Err(name_in_use(reason, "Stop it first, or use another name").into());
            }
            let has_ended = |end: &Option<JobEnd>| end.as_ref().is_some_and(JobEnd::has_ended);
            inner.active.retain(|(_, end)| !has_ended(end));
            inner.active.push((name.clone(), None));
            name
        };
        if prepared.checkpoint.is_none() {
            (session.lock().notice)(&format!(
                "query {name} has no checkpointLocation: after a restart it starts over without \
                its state"
            ));
        }
        let plan = &self.frame.plan;
        let unbounded = unbounded_joins(plan, settings.semantics.zone);
        for notice in unbounded.into_iter().chain(watermarks_without_effect(plan)) {
            (session.lock().notice)(&format!("query {name}: {notice}"));
        }
        let started = self.run(&prepared, &settings, &name);
        let end = started.as_ref().ok().map(|query| query.running.end());
        let mut inner = session.lock();
        inner.active.retain(|(active, end)| *active != name || end.is_some());
        inner.active.extend(end.map(|end| (name, Some(end))));
        drop(inner);
        started
    }

    /// For tests: runs the query to its end on this thread, in a simulated environment in which
    /// `seed` determines every step. Its sources must be finite.
    pub fn simulate(self, world: &Arc<SimEnv>, seed: u64) -> Result<(), QueryError> {
        on_large_stack(|| self.simulated(world, seed))
    }

    pub(in crate::session::stream_writer) fn simulated(
        mut self,
        world: &Arc<SimEnv>,
        seed: u64,
    ) -> Result<(), QueryError> {
        let prepared = self.prepare()?;
        let settings = self.settings();
        let config = Config {
            workers: settings.parallelism,
            trigger: prepared.trigger,
            ..Config::default()
        };
        let job = Job::in_env("simulated", config, world.clone())?;
        let name = prepared.name.as_deref().unwrap_or("simulated");
        let shape = self.shape(&prepared)?;
        let (job, _) = self.assemble(job, &prepared, &settings, name, (shape, None))?;
        Ok(job.simulate(world, seed)?)
    }

    /// The configuration of the query's job.
    pub(in crate::session::stream_writer) fn job_config(
        &self,
        prepared: &Prepared,
        settings: &Settings,
    ) -> Config {
        let config = self.config.clone().unwrap_or(Config {
            workers: settings.workers.max(settings.parallelism),
            pin: settings.pin,
            cores: settings.cores.clone(),
            wait: settings.wait.unwrap_or_else(|| default_wait(&self.frame.plan)),
            ..Config::default()
        });
        let cores = self.cores.clone().or(config.cores);
        Config { trigger: prepared.trigger, cores, ..config }
    }

    pub(in crate::session::stream_writer) fn run(
        &mut self,
        prepared: &Prepared,
        settings: &Settings,
        name: &str,
    ) -> Result<StreamingQuery, QueryError> {
        let config = self.job_config(prepared, settings);
        let job = match &self.replay {
            Some((env, _)) => Job::in_env(name, config, env.clone())?,
            None => Job::new(name, config)?,
        };
        let shape = self.shape(prepared)?;
        let releases = shape.layouts.iter().map(|layout| layout.releases_by_watermark).collect();
        let (job, parts) = self.assemble(job, prepared, settings, name, (shape, None))?;
        let running = job.start()?;
        if let Some(notice) = running.core_notice() {
            (self.frame.session.lock().notice)(&format!("query {name}: {notice}"));
        }
        Ok(StreamingQuery {
            id: parts.id,
            run_id: parts.run_id,
            name: name.to_string(),
            session: self.frame.session.clone(),
            trigger: prepared.trigger,
            running,
            latency: parts.latency,
            driver_state: parts.driver_state,
            counters: parts.counters,
            captures: parts.captures,
            releases_by_watermark: releases,
            stopping: parts.stopping,
        })
    }

    /// The properties of the query on which its checkpoint depends: its sources by partition, its
    /// stateful operators, and its sink if that is files.
    pub(in crate::session::stream_writer) fn shape(
        &self,
        prepared: &Prepared,
    ) -> PlanResult<QueryDescription> {
        let plan = &*static_tables::with_empty_tables(&self.frame.plan);
        let settings = self.settings().formats;
        let mut identities = Vec::new();
        for scan in sources(plan) {
            let identity = match scan.format.as_str() {
                files if is_files(files) => file_config(scan, &settings)?.identity(),
                other => other.to_string(),
            };
            match scan.partitions() {
                // The tasklets of a Kafka source share one offset.
                _ if scan.format == "kafka" => identities.push(identity),
                1 => identities.push(identity),
                parts => {
                    let of = |part| format!("{identity}, part {part} of {parts}");
                    identities.extend((0..parts).map(of));
                }
            }
        }
        let sink = match &prepared.sink {
            SinkSpec::Files(config) => Some(config.identity()),
            _ => None,
        };
        let (operators, layouts) = state_operators(plan, prepared.mode).into_iter().unzip();
        Ok(QueryDescription { sources: identities, operators, sink, layouts })
    }

    /// Adds sources, stages and sink to a job.
    pub(in crate::session::stream_writer) fn assemble(
        &mut self,
        mut job: Job,
        prepared: &Prepared,
        settings: &Settings,
        name: &str,
        // The plan with the rows of its tables; if it is `None`, the tables are read now.
        (shape, read): (QueryDescription, Option<Cow<'_, Plan>>),
    ) -> Result<(Job, QueryParts), QueryError> {
        let transactions = open_checkpoint(&mut job, prepared, &shape)?;
        job.set_watermark_policy(settings.watermark_policy);
        job.set_idle_timeout(settings.idle_timeout_ns);
        if !settings.no_data_batches {
            job.disable_no_data_batches();
        }
        let then = settings.at_join_limit;
        job.set_state_limit(settings.join_state_bytes.map(|bytes| StateLimit { bytes, then }));
        job.set_join_order(settings.join_order);
        let latency = Latency::default();
        let recorder = latency.recorder(job.env());
        let stopping = Arc::new(AtomicBool::new(false));
        let chain = self.make_sink(prepared, name, recorder, &stopping, &mut job, transactions)?;
        let session = self.frame.session.clone();
        let mut sources = SourceOpener {
            session: &session,
            formats: &settings.formats,
            times: self.replay.as_ref().map(|(_, times)| times.clone()),
            idle_after_ns: settings.idle_timeout_ns,
            counters: Vec::new(),
        };
        let mut make = |job: &mut Job, scan: &Scan, needed: &[bool], chains: Vec<PlacedChain>| {
            sources.open(job, scan, needed, chains)
        };
        let whole = self.frame.plan.clone();
        let mut plan = match read {
            Some(plan) => plan,
            None => static_tables::read(&whole, &self.frame.session)?,
        };
        if let Some(default_ms) = settings.max_future_skew_ms {
            plan = Cow::Owned(with_default_skew(plan.into_owned(), default_ms));
        }
        let meaning = (prepared.mode, settings.semantics);
        let outputs = (chain, self.late.take(), self.table.clone());
        lower(&plan, meaning, settings.parallelism, &mut job, outputs, &mut make)?;
        let env = job.env();
        let id = job.checkpoint_id().map_or_else(|| new_id(&*env), str::to_string);
        let parts = QueryParts {
            run_id: new_id(&*env),
            latency: latency.clone(),
            driver_state: Arc::new(Mutex::new(DriverState::default())),
            counters: sources.counters,
            captures: capture_indices(&shape),
            id,
            stopping,
        };
        let timed = has_watermark(&plan);
        if timed {
            let mut driver_state =
                parts.driver_state.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
            driver_state.watermark_ms = Some(job.resumed_watermark_ms());
        }
        let operators = shape.operator_names();
        let progress = ProgressReporter {
            id: parts.id.clone(),
            run_id: parts.run_id.clone(),
            name: name.to_string(),
            sources: shape.sources,
            counters: parts.counters.clone(),
            sink: prepared.sink.description(),
            operators,
            timed,
            last_ns: env.now_ns(),
        };
        self.report_commits(&mut job, &parts, progress);
        Ok((job, parts))
    }

    /// Reports each committed epoch to the query and to its callback.
    fn report_commits(
        &mut self,
        job: &mut Job,
        parts: &QueryParts,
        mut progress: ProgressReporter,
    ) {
        let (driver_state, mut on_progress) = (parts.driver_state.clone(), self.on_progress.take());
        let (latency, env) = (parts.latency.clone(), job.env());
        job.on_commit(move |committed| {
            let report = progress.of(committed, latency.take_epoch(), env.now_ns());
            if let Some(call) = &mut on_progress {
                call(&report);
            }
            let mut driver_state =
                driver_state.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
            driver_state.epochs += 1;
            let records = &report.committed.records;
            driver_state.records.resize(records.len(), 0);
            driver_state.records.iter_mut().zip(records).for_each(|(sum, of)| *sum += of);
            driver_state.ahead += report.num_rows_in_future();
            driver_state.late += report.num_rows_late();
            if progress.timed {
                driver_state.watermark_ms = Some(report.committed.watermark_ms);
            }
            driver_state.recent.add(report);
        });
    }
}

#[cfg(all(test, feature = "kafka"))]
mod tests {
    use super::*;
    use crate::session::Session;

    #[test]
    fn a_worker_that_reads_kafka_sleeps_at_once() {
        let session = Session::new();
        let kafka = session.read_stream().format("kafka").option("subscribe", "t");
        let kafka = kafka.option("kafka.bootstrap.servers", "127.0.0.1:1").load().unwrap();
        assert_eq!(default_wait(&kafka.plan), WaitProfile::Park);
        let rate = session.read_stream().format("rate").load().unwrap();
        assert_eq!(default_wait(&rate.plan), WaitProfile::Balanced);
    }
}
