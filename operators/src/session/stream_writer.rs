//! Configures the sink of a query and starts the query.

use crate::connect::capture::config::CaptureConfig;
use crate::connect::console::Console;
use crate::connect::file::local_path;
use crate::connect::file::{FileSinkConfig, FileSourceConfig, SchemaOrigin};
use crate::connect::foreach::{BatchFunction, Foreach, ForeachBatch, ForeachWriter, Noop};
use crate::connect::format_settings::FormatSettings;
#[cfg(feature = "kafka")]
use crate::connect::kafka::{
    options::KafkaSourceConfig, sink::KafkaSinkConfig, source::KafkaSource,
};
use crate::connect::memory::MemoryTable;
use crate::connect::options::OptionReader;
use crate::connect::rate::micro_batch;
use crate::connect::rate::micro_batch::RateMicroBatch;
use crate::connect::rate::{self, RateSource};
use crate::connect::socket::open::Shared;
use crate::connect::socket::options::SocketConfig;
use crate::connect::socket::sink::{ReceiverWait, SocketSinkConfig};
use crate::connect::socket::source::{IntendedTimes, SourceCounters};
use crate::session::dataframe::DataFrame;
use crate::session::progress::{Progress, SideWait};
use crate::session::streaming_query::{DriverState, QueryError, StreamingQuery};
use crate::session::trigger::parse_trigger;
use crate::session::{Settings, is_files, static_tables};
use crate::table::error::{PlanError, PlanResult};
use crate::table::expr::resolve::did_you_mean;
use crate::table::physical::{BoxChain, LateOutput, LateRow, PlacedChain, lower, state_operators};
use crate::table::plan::analyzer::{OutputMode, check_output_mode};
use crate::table::plan::join;
use crate::table::plan::limits::on_large_stack;
use crate::table::plan::shared_sources::sources;
use crate::table::plan::time_window::{has_watermark, with_default_skew};
use crate::table::plan::{Options, Plan, Scan};
use crate::table::types::Schema;
use crate::table::value::Value;
use millstream_engine::checkpoint::{QueryDescription, new_id};
use millstream_engine::cores;
use millstream_engine::env::{Env, RealEnv, SimEnv};
use millstream_engine::epoch::committed_epoch::CommittedEpoch;
use millstream_engine::epoch::trigger::Trigger;
use millstream_engine::error::EngineError;
use millstream_engine::event::Epoch;
use millstream_engine::measure::latency::{EpochLatency, Latency, LatencyRecorder};
use millstream_engine::runtime::job::{Config, Job, StateLimit};
use millstream_engine::runtime::tasklet::{SourceTasklet, Tasklet};
use std::borrow::Cow;
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};

/// Options of the query rather than of the sink's format.
const QUERY_OPTIONS: [&str; 4] = ["outputMode", "trigger", "checkpointLocation", "queryName"];

/// Configures the sink and the trigger of a query. Call `start` to run it.
#[must_use = "nothing runs before `start`"]
pub struct StreamWriter {
    frame: DataFrame,
    /// The settings at the query's position in a job file. If `None`, the session's settings at the
    /// start of the query are used.
    settings: Option<Settings>,
    format: String,
    options: Options,
    mode: Option<String>,
    trigger: Option<Trigger>,
    name: Option<String>,
    foreach: Option<Box<dyn ForeachWriter>>,
    foreach_batch: Option<BatchFunction>,
    on_progress: Option<OnProgress>,
    late: Option<LateOutput>,
    config: Option<Config>,
    cores: Option<Vec<usize>>,
    replay: Option<Replay>,
    /// Whether the query is only explained and never started.
    explained: bool,
    /// Whether a console sink prints the query's name above each table.
    names_tables: bool,
}

/// A callback on the driver's thread for every committed epoch.
type OnProgress = Box<dyn FnMut(&Progress) + Send>;

/// The clock of a replay, and the intended send time of each line of its socket source.
type Replay = (Arc<dyn Env>, IntendedTimes);

impl StreamWriter {
    pub(crate) fn new(frame: DataFrame) -> Self {
        Self {
            frame,
            settings: None,
            format: String::new(),
            options: Options::new(),
            mode: None,
            trigger: None,
            name: None,
            foreach: None,
            foreach_batch: None,
            on_progress: None,
            late: None,
            config: None,
            cores: None,
            replay: None,
            explained: false,
            names_tables: false,
        }
    }

    /// Runs a query over bounded tables, and returns its rows.
    pub(crate) fn collect(self) -> Result<Vec<Vec<Value>>, QueryError> {
        on_large_stack(|| self.collected())
    }

    fn collected(mut self) -> Result<Vec<Vec<Value>>, QueryError> {
        let plan = &self.frame.plan;
        if let Some(scan) = plan.scans().iter().find(|scan| scan.streaming) {
            return Err(PlanError::new(
                "STREAMING_QUERY_WITHOUT_START",
                format!("`{}` ({}) is read as a stream, which has no end", scan.name, scan.format),
                match is_files(&scan.format) {
                    true => {
                        "Leave STREAM out to read the files that are there once; a stream \
                             needs a sink: CREATE STREAMING TABLE t USING console AS SELECT …"
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
        if let Some(rows) = static_tables::constant_rows(&plan, settings.semantics) {
            return Ok(rows);
        }
        let prepared = Prepared {
            mode: OutputMode::Complete,
            trigger: Trigger::Once,
            name: None,
            sink: SinkSpec::Memory,
            checkpoint: None,
        };
        let job_config = Config {
            workers: settings.workers.max(settings.parallelism),
            pin: false,
            wait: settings.wait,
            trigger: prepared.trigger,
            ..Config::default()
        };
        let name = format!("batch {}", new_id(&RealEnv::default()));
        // There is no checkpoint and no progress report, so an empty shape suffices.
        let (mut job, shape) = (Job::new("batch", job_config)?, QueryDescription::default());
        job.run_empty_batch();
        let (job, parts) = self.assemble(job, &prepared, &settings, &name, (shape, Some(plan)))?;
        let ended = job.start().and_then(|running| running.wait(None).unwrap_or(Ok(())));
        let table = session.lock().tables.remove(&name);
        let notice = session.lock().notice;
        parts.counters.iter().for_each(|counters| counters.bad.report(notice));
        ended?;
        Ok(table.map(|table| table.rows()).unwrap_or_default())
    }

    /// Whether the sink is a console.
    pub(crate) fn prints_tables(&self) -> bool {
        self.format.eq_ignore_ascii_case("console")
    }

    /// Makes a console sink print the query's name above each table.
    pub(crate) fn name_tables(&mut self) {
        self.names_tables = true;
    }

    /// Sets the output mode: `append` (default), `update` or `complete`.
    pub fn output_mode(mut self, mode: &str) -> Self {
        self.mode = Some(mode.to_string());
        self
    }

    /// Sets the sink's format: `console`, `text`, `csv`, `json`, `memory`, `socket` or `noop`.
    pub fn format(mut self, format: &str) -> Self {
        self.format = format.to_string();
        self
    }

    /// Sets an option of the sink, or `outputMode`, `trigger`, `queryName`, `checkpointLocation`.
    pub fn option(mut self, key: &str, value: impl ToString) -> Self {
        self.options.push((key.to_string(), value.to_string()));
        self
    }

    /// Partitions the sink's files by columns, whose values become folder names.
    pub fn partition_by<'c>(self, columns: impl IntoIterator<Item = &'c str>) -> Self {
        let columns: Vec<_> = columns.into_iter().collect();
        self.option("partitionBy", columns.join(","))
    }

    /// Sets the trigger; the default is continuous with an epoch per second.
    pub fn trigger(mut self, trigger: Trigger) -> Self {
        self.trigger = Some(trigger);
        self
    }

    /// Sets the query's name, which is also the name of a memory sink's table.
    pub fn query_name(mut self, name: &str) -> Self {
        self.name = Some(name.to_string());
        self
    }

    /// Passes every row to a writer.
    pub fn foreach(mut self, writer: impl ForeachWriter) -> Self {
        self.foreach = Some(Box::new(writer));
        self
    }

    /// Passes the rows of each micro-batch and the batch number to a function.
    pub fn foreach_batch(
        mut self,
        function: impl FnMut(&[Vec<Value>], Epoch) -> Result<(), String> + Send + 'static,
    ) -> Self {
        self.foreach_batch = Some(Box::new(function));
        self
    }

    /// Sets a callback for every committed epoch. It runs on the thread that commits, so it delays
    /// the next epoch.
    pub fn on_progress(mut self, call: impl FnMut(&Progress) + Send + 'static) -> Self {
        self.on_progress = Some(Box::new(call));
        self
    }

    /// Sets a callback for late rows, which gets each row and the watermark that it missed. It runs
    /// on the worker's thread. If an epoch is repeated after a failure, its rows are passed again.
    pub fn on_late(mut self, call: impl FnMut(&LateRow<'_>) + Send + 'static) -> Self {
        self.late = Some(Arc::new(Mutex::new(Box::new(call))));
        self
    }

    /// Overrides the session's workers, pinning and waiting. The trigger of `config` is ignored.
    pub fn config(mut self, config: Config) -> Self {
        self.config = Some(config);
        self
    }

    /// Pins the query's workers to the given cores, which may be shared with other queries. By
    /// default they are pinned to cores that no other query uses.
    pub fn cores(mut self, cores: impl IntoIterator<Item = usize>) -> Self {
        self.cores = Some(cores.into_iter().collect());
        self
    }

    /// Measures latency from the intended send time of each line of a socket source instead of its
    /// arrival. `times` returns that time for line 0, 1, 2 …, on the clock of `env`.
    pub fn replay(mut self, env: Arc<dyn Env>, times: IntendedTimes) -> Self {
        self.replay = Some((env, times));
        self
    }

    /// Checks everything that can be checked without opening sources and sink. Returns the trigger
    /// that would be used.
    pub fn check(&self) -> PlanResult<Trigger> {
        on_large_stack(|| self.checked())
    }

    fn checked(&self) -> PlanResult<Trigger> {
        let prepared = self.prepare()?;
        self.check_columns_read(&prepared)?;
        Ok(prepared.trigger)
    }

    /// Rejects a query that reads no columns of a file except the corrupt record column. The
    /// columns it reads are known only after lowering, which is done here without opening a source.
    fn check_columns_read(&self, prepared: &Prepared) -> PlanResult<()> {
        let settings = self.settings();
        let formats = &settings.formats;
        let config_of = |scan: &Scan| file_config(scan, formats).ok();
        let keeps_bad = |scan: &&Scan| {
            is_files(&scan.format)
                && config_of(scan).is_some_and(|config| config.keeps_bad_records())
        };
        if !self.frame.plan.scans().into_iter().any(|scan| keeps_bad(&scan)) {
            return Ok(());
        }
        let mut wrong = None;
        let mut look = |scan: &Scan, needed: &[bool]| {
            if let Some(Err(error)) =
                config_of(scan).map(|mut config| config.set_needed_columns(needed))
            {
                wrong.get_or_insert(error);
            }
        };
        // Other errors of lowering are reported when the query starts.
        drop(self.layout(prepared, &settings, &mut look));
        wrong.map_or(Ok(()), Err)
    }

    /// Sets whether the query is only explained, so that it needs no checkpoint.
    pub(super) fn explain_only(mut self, explained: bool) -> Self {
        self.explained = explained;
        self
    }

    /// Whether every epoch writes the whole result.
    pub(super) fn is_complete_mode(&self) -> bool {
        let mode = self.mode.as_deref().or(self.query_option("outputMode"));
        mode.is_some_and(|mode| mode.eq_ignore_ascii_case("complete"))
    }

    /// The columns of the result.
    pub(super) fn schema(&self) -> Schema {
        self.frame.schema()
    }

    /// Passes the result rows to a function instead of the sink, without a checkpoint.
    pub(super) fn instead_of_sink(mut self, rows: impl ForeachWriter) -> Self {
        let name = self.name().map(str::to_string);
        let kept = ["outputMode", "trigger"];
        self.options.retain(|(key, _)| kept.iter().any(|name| name.eq_ignore_ascii_case(key)));
        (self.name, self.explained) = (name, false);
        self.foreach(rows)
    }

    /// Fixes the current settings of the session for this query.
    pub(super) fn with_current_settings(mut self) -> Self {
        self.settings = Some(self.settings());
        self
    }

    /// Changes a setting for this query only.
    pub(super) fn set(&mut self, key: &str, value: &str) -> PlanResult<()> {
        let mut settings = self.settings();
        settings.set(key, value)?;
        self.settings = Some(settings);
        Ok(())
    }

    fn settings(&self) -> Settings {
        self.settings.clone().unwrap_or_else(|| self.frame.session.lock().settings.clone())
    }

    /// The query's name, if it was set.
    pub(super) fn name(&self) -> Option<&str> {
        self.name.as_deref().or(self.query_option("queryName"))
    }

    fn query_option(&self, name: &str) -> Option<&str> {
        let found = self.options.iter().rev().find(|(key, _)| key.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str())
    }

    fn prepare(&self) -> PlanResult<Prepared> {
        let mode = self.mode.as_deref().or(self.query_option("outputMode"));
        let mode = mode.map_or(Ok(OutputMode::Append), OutputMode::parse)?;
        join::check(&self.frame.plan)?;
        check_output_mode(&static_tables::with_empty_tables(&self.frame.plan), mode)?;
        join::check_optimized(&self.frame.plan)?;
        let infers = self.settings().schema_inference;
        let unsure = |scan: &&&Scan| scan.streaming && scan.inferred && !infers;
        if let Some(scan) = self.frame.plan.scans().iter().find(unsure) {
            return Err(PlanError::new(
                "STREAMING_FILE_SCHEMA_MISSING",
                format!("source {}: a schema must be given", scan.format),
                "Write CREATE TEMPORARY VIEW v (a INT, b STRING) USING …, or take it from the \
                 files that are there: SET spark.sql.streaming.schemaInference = true",
            ));
        }
        if !self.frame.plan.is_streaming() {
            return Err(PlanError::new(
                "WRITE_STREAM_NOT_ALLOWED",
                "the query reads no stream",
                "Read one: FROM STREAM view; a query over tables is run by `millstream sql`",
            ));
        }
        let trigger = match (self.trigger, self.query_option("trigger")) {
            (Some(trigger), _) => trigger,
            (None, Some(text)) => parse_trigger(text)?,
            (None, None) => Trigger::Continuous { interval_ns: 1_000_000_000 },
        };
        if !trigger.is_continuous() {
            join::check_batches(&self.frame.plan)?;
        }
        let checkpoint = match self.query_option("checkpointLocation") {
            Some("") => {
                return Err(PlanError::new(
                    "INVALID_OPTION_VALUE",
                    "option 'checkpointLocation' is empty",
                    "Give a folder, or leave it out",
                ));
            }
            Some(folder) => Some(PathBuf::from(local_path("checkpointLocation", folder)?)),
            None => None,
        };
        let own = |key: &str| QUERY_OPTIONS.iter().any(|name| name.eq_ignore_ascii_case(key));
        let options: Options = self.options.iter().filter(|(key, _)| !own(key)).cloned().collect();
        let name = self.name().map(str::to_string);
        let sink =
            self.sink(&options, name.as_deref()).map_err(|error| own_meant(error, &options))?;
        if let (SinkSpec::Files(_), OutputMode::Update | OutputMode::Complete) = (&sink, mode) {
            return Err(PlanError::new(
                "STREAMING_OUTPUT_MODE.UNSUPPORTED_DATASOURCE",
                format!("files cannot be written in output mode {}", mode.name()),
                "Use append; for results that change, foreachBatch or another sink",
            ));
        }
        if matches!(sink, SinkSpec::Files(_)) && checkpoint.is_none() && !self.explained {
            return Err(PlanError::new(
                "CHECKPOINT_LOCATION_MISSING",
                "a sink that writes files needs option 'checkpointLocation'",
                "Give a folder that no other query uses, or `run --checkpoint DIR`",
            ));
        }
        if let (SinkSpec::ForeachBatch, true) = (&sink, trigger.is_continuous()) {
            return Err(PlanError::new(
                "FOREACH_BATCH_IN_CONTINUOUS_MODE",
                "'foreachBatch' is not supported with continuous trigger",
                "Use a micro-batch trigger such as asap: only there does a batch come again with \
                 the same rows; or use foreach",
            ));
        }
        Ok(Prepared { mode, trigger, name, sink, checkpoint })
    }

    fn sink(&self, options: &Options, name: Option<&str>) -> PlanResult<SinkSpec> {
        let schema = self.frame.schema();
        if self.foreach.is_some() {
            return Ok(SinkSpec::Foreach);
        }
        if self.foreach_batch.is_some() {
            return Ok(SinkSpec::ForeachBatch);
        }
        let format = self.format.to_ascii_lowercase();
        let settings = self.settings().formats;
        let no_options = |what: &str| OptionReader::new(what, options).finish();
        match format.as_str() {
            "console" => Ok(SinkSpec::Console(Console::read(options)?)),
            "noop" => no_options("sink noop").map(|()| SinkSpec::Noop),
            "memory" => {
                no_options("sink memory")?;
                match name {
                    Some(_) => Ok(SinkSpec::Memory),
                    None => Err(PlanError::new(
                        "MISSING_OPTION",
                        "sink memory: the query needs a name, which its table will have",
                        "For example: queryName 'counts'",
                    )),
                }
            }
            "socket" => {
                let config = SocketSinkConfig::read(options, &settings)?;
                config.writer(&schema)?;
                Ok(SinkSpec::Socket(config))
            }
            files if is_files(files) => {
                let config = FileSinkConfig::read(files, options, &settings)?;
                config.check(&schema)?;
                Ok(SinkSpec::Files(config))
            }
            #[cfg(feature = "kafka")]
            "kafka" => {
                let config = KafkaSinkConfig::read(options)?;
                config.check(&schema)?;
                Ok(SinkSpec::Kafka(config))
            }
            #[cfg(not(feature = "kafka"))]
            "kafka" => Err(crate::session::without_kafka()),
            _ => {
                let all = [
                    "console", "text", "csv", "json", "parquet", "orc", "memory", "socket",
                    "kafka", "noop",
                ];
                let (reason, near) = if format.is_empty() {
                    ("no sink format was given".to_string(), String::new())
                } else {
                    let reason = format!("there is no sink format '{format}'");
                    (reason, did_you_mean(&format, all))
                };
                let fix = format!("{near}Sink formats: {}", all.join(", "));
                Err(PlanError::new("DATA_SOURCE_NOT_FOUND", reason, fix))
            }
        }
    }

    /// Formats the plan, and the tasklets that each worker would have.
    pub fn explain(&self) -> Result<String, QueryError> {
        on_large_stack(|| self.explained())
    }

    fn explained(&self) -> Result<String, QueryError> {
        let prepared = self.prepare()?;
        let job = self.layout(&prepared, &self.settings(), &mut |_, _| {})?;
        let mut text = self.frame.explain();
        text.push_str("\n== Tasklets ==\n");
        for (worker, tasklets) in job.layout().into_iter().enumerate() {
            text.push_str(&format!("worker {worker}: {}\n", tasklets.join(", ")));
        }
        Ok(text)
    }

    /// Lowers the query with sources that never read. `read` is called with the needed columns of
    /// each source.
    fn layout(
        &self,
        prepared: &Prepared,
        settings: &Settings,
        read: &mut dyn FnMut(&Scan, &[bool]),
    ) -> Result<Job, EngineError> {
        let plan = &self.frame.plan;
        // The same number of workers as in `start`.
        let workers = settings.workers.max(settings.parallelism).min(cores::usable());
        let config = Config { workers, trigger: prepared.trigger, ..Config::default() };
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
        lower(&lowered, meaning, settings.parallelism, &mut job, (sink, None), &mut make)?;
        Ok(job)
    }

    /// Opens the sources and the sink, and starts the query.
    pub fn start(self) -> Result<StreamingQuery, QueryError> {
        on_large_stack(|| self.started())
    }

    fn started(mut self) -> Result<StreamingQuery, QueryError> {
        let prepared = self.prepare()?;
        let session = self.frame.session.clone();
        let settings = self.settings();
        let name = {
            let mut inner = session.lock();
            let name = match &prepared.name {
                Some(name) => name.clone(),
                None => format!("query-{}", inner.active.len()),
            };
            if inner.active.contains(&name) {
                let reason = format!("a query with the name '{name}' is active in this session");
                return Err(name_in_use(reason, "Stop it first, or take another name").into());
            }
            inner.active.push(name.clone());
            name
        };
        if prepared.checkpoint.is_none() {
            (session.lock().notice)(&format!(
                "query {name} has no checkpointLocation: after a restart it begins anew, its counts \
                 at zero"
            ));
        }
        let started = self.run(&prepared, &settings, &name);
        if started.is_err() {
            session.lock().active.retain(|active| *active != name);
        }
        started
    }

    /// For tests: runs the query to its end on this thread, in a simulated environment in which
    /// `seed` determines every step. Its sources must be finite.
    pub fn simulate(self, world: &Arc<SimEnv>, seed: u64) -> Result<(), QueryError> {
        on_large_stack(|| self.simulated(world, seed))
    }

    fn simulated(mut self, world: &Arc<SimEnv>, seed: u64) -> Result<(), QueryError> {
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

    fn run(
        &mut self,
        prepared: &Prepared,
        settings: &Settings,
        name: &str,
    ) -> Result<StreamingQuery, QueryError> {
        let config = self.config.clone().unwrap_or(Config {
            workers: settings.workers.max(settings.parallelism),
            pin: settings.pin,
            cores: settings.cores.clone(),
            wait: settings.wait,
            trigger: prepared.trigger,
            ..Config::default()
        });
        let config = Config {
            trigger: prepared.trigger,
            cores: self.cores.take().or(config.cores),
            ..config
        };
        let job = match &self.replay {
            Some((env, _)) => Job::in_env(name, config, env.clone())?,
            None => Job::new(name, config)?,
        };
        let shape = self.shape(prepared)?;
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
            stopping: parts.stopping,
        })
    }

    /// The properties of the query on which its checkpoint depends.
    fn shape(&self, prepared: &Prepared) -> PlanResult<QueryDescription> {
        let plan = &*static_tables::with_empty_tables(&self.frame.plan);
        let settings = self.settings().formats;
        let mut identities = Vec::new();
        for scan in sources(plan) {
            let identity = match scan.format.as_str() {
                files if is_files(files) => file_config(scan, &settings)?.identity(),
                other => other.to_string(),
            };
            match scan.partitions() {
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
    fn assemble(
        &mut self,
        mut job: Job,
        prepared: &Prepared,
        settings: &Settings,
        name: &str,
        // The plan with the rows of its tables; if it is `None`, the tables are read now.
        (shape, read): (QueryDescription, Option<Cow<'_, Plan>>),
    ) -> Result<(Job, QueryParts), QueryError> {
        if let Some(folder) = &prepared.checkpoint {
            job.open_checkpoint(folder, &shape)?;
        }
        job.set_watermark_policy(settings.watermark_policy);
        job.set_idle_timeout(settings.idle_timeout_ns);
        let then = settings.at_join_limit;
        job.set_state_limit(settings.join_state_bytes.map(|bytes| StateLimit { bytes, then }));
        let latency = Latency::default();
        let recorder = latency.recorder(job.env());
        let stopping = Arc::new(AtomicBool::new(false));
        let chain = self.make_sink(prepared, name, recorder, &stopping, &mut job)?;
        let session = self.frame.session.clone();
        let mut counters = Vec::new();
        let times = self.replay.as_ref().map(|(_, times)| times.clone());
        let mut make = |job: &mut Job, scan: &Scan, needed: &[bool], chains: Vec<PlacedChain>| {
            let of = (&session, &settings.formats);
            make_source(of, job, (scan, needed), chains, &mut counters, times.clone())
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
        let outputs = (chain, self.late.take());
        lower(&plan, meaning, settings.parallelism, &mut job, outputs, &mut make)?;
        let env = job.env();
        let id = job.checkpoint_id().map_or_else(|| new_id(&*env), str::to_string);
        let parts = QueryParts {
            run_id: new_id(&*env),
            latency: latency.clone(),
            driver_state: Arc::new(Mutex::new(DriverState::default())),
            counters,
            id,
            stopping,
        };
        let timed = has_watermark(&plan);
        if timed {
            let mut driver_state =
                parts.driver_state.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
            driver_state.watermark_ms = Some(job.resumed_watermark_ms());
        }
        let (driver_state, mut on_progress) = (parts.driver_state.clone(), self.on_progress.take());
        let mut progress = ProgressOf {
            id: parts.id.clone(),
            run_id: parts.run_id.clone(),
            name: name.to_string(),
            sources: shape.sources,
            counters: parts.counters.clone(),
            sink: prepared.sink.description(),
            operators: shape.operators,
            timed,
            last_ns: env.now_ns(),
            waits: Vec::new(),
        };
        job.on_commit(move |committed| {
            let report = progress.of(committed, latency.take_epoch(), env.now_ns());
            if let Some(call) = &mut on_progress {
                call(&report);
            }
            let mut driver_state =
                driver_state.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
            driver_state.epochs += 1;
            driver_state.records += report.num_input_rows();
            driver_state.ahead += report.num_rows_ahead();
            driver_state.late += report.num_rows_late();
            if timed {
                driver_state.watermark_ms = Some(report.committed.watermark_ms);
            }
            driver_state.recent.add(report);
        });
        Ok((job, parts))
    }

    fn make_sink(
        &mut self,
        prepared: &Prepared,
        name: &str,
        latency: LatencyRecorder,
        stopping: &Arc<AtomicBool>,
        job: &mut Job,
    ) -> Result<BoxChain, QueryError> {
        let schema = self.frame.schema();
        let complete = prepared.mode == OutputMode::Complete;
        let session = &self.frame.session;
        Ok(match &prepared.sink {
            SinkSpec::Files(config) => {
                let env = job.env();
                let log = config.open_log(&env, job.next_epoch(), job.unfinished())?;
                let reports = job.sink_log(Box::new(log));
                Box::new(config.open(&schema, env, reports, latency)?)
            }
            SinkSpec::ForeachBatch => match self.foreach_batch.take() {
                Some(function) => Box::new(ForeachBatch::new(function, &schema, latency)),
                None => unreachable!("`sink` found one"),
            },
            #[cfg(feature = "kafka")]
            SinkSpec::Kafka(config) => Box::new(config.open(&schema, latency)?),
            SinkSpec::Noop => Box::new(Noop(latency)),
            SinkSpec::Console(options) => {
                let out = (session.lock().console)();
                let zone = self.settings().semantics.zone;
                let console = Console::new(
                    *options,
                    zone,
                    schema,
                    (complete, prepared.trigger.is_continuous()),
                    job.next_epoch(),
                    out,
                    latency,
                );
                Box::new(if self.names_tables { console.with_query(name) } else { console })
            }
            SinkSpec::Memory => {
                let table = MemoryTable::new(schema);
                session.lock().tables.insert(name.to_string(), table.clone());
                Box::new(table.sink(complete, latency))
            }
            SinkSpec::Socket(config) => {
                let wait = ReceiverWait::new(job.env(), stopping.clone(), session.lock().notice);
                Box::new(config.open(config.writer(&schema)?, latency, wait)?)
            }
            SinkSpec::Foreach => match self.foreach.take() {
                Some(writer) => Box::new(Foreach::new(writer, &schema, job.next_epoch(), latency)),
                None => unreachable!("`sink` found one"),
            },
        })
    }
}

/// Improves the error for an unknown option by suggesting a similar option of the query.
fn own_meant(mut error: PlanError, options: &Options) -> PlanError {
    let known = |key: &&String| error.reason.ends_with(&format!("'{key}'"));
    let unknown = options.iter().map(|(key, _)| key).find(known);
    if let ("UNKNOWN_OPTION", Some(key)) = (error.condition.as_str(), unknown) {
        let own = did_you_mean(key, QUERY_OPTIONS);
        // Only one suggestion is made; the sink's own option takes precedence.
        if !error.fix.starts_with("Did you mean") {
            error.fix = format!("{own}{}", error.fix);
        }
    }
    error
}

struct Prepared {
    mode: OutputMode,
    trigger: Trigger,
    name: Option<String>,
    sink: SinkSpec,
    checkpoint: Option<PathBuf>,
}

/// State shared by a running query and its job.
struct QueryParts {
    id: String,
    run_id: String,
    latency: Latency,
    driver_state: Arc<Mutex<DriverState>>,
    counters: Vec<SourceCounters>,
    /// Set when the query is requested to stop.
    stopping: Arc<AtomicBool>,
}

/// The fields that all progress reports of a query share.
struct ProgressOf {
    id: String,
    run_id: String,
    name: String,
    sources: Vec<String>,
    counters: Vec<SourceCounters>,
    sink: String,
    operators: Vec<String>,
    timed: bool,
    last_ns: u64,
    waits: Vec<SideWait>,
}

impl ProgressOf {
    fn of(
        &mut self,
        committed: &CommittedEpoch,
        EpochLatency { rows, latency, slowest }: EpochLatency,
        now_ns: u64,
    ) -> Progress {
        let interval_ns = now_ns.saturating_sub(std::mem::replace(&mut self.last_ns, now_ns));
        self.waits.resize(committed.state.len(), SideWait::default());
        for (wait, state) in self.waits.iter_mut().zip(&committed.state) {
            wait.note(state, committed.started_us);
        }
        Progress {
            id: self.id.clone(),
            run_id: self.run_id.clone(),
            name: self.name.clone(),
            committed: committed.clone(),
            rows_emitted: rows,
            latency,
            slowest,
            interval_ns,
            sources: self.sources.clone(),
            connections: self.counters.iter().map(SourceCounters::connections).collect(),
            sink: self.sink.clone(),
            operators: self.operators.clone(),
            waits: self.waits.clone(),
            timed: self.timed,
        }
    }
}

enum SinkSpec {
    Files(FileSinkConfig),
    ForeachBatch,
    Console((usize, bool)),
    Memory,
    Socket(SocketSinkConfig),
    #[cfg(feature = "kafka")]
    Kafka(KafkaSinkConfig),
    Noop,
    Foreach,
}

impl SinkSpec {
    fn description(&self) -> String {
        match self {
            Self::Files(config) => config.identity(),
            Self::ForeachBatch => "foreachBatch".to_string(),
            Self::Console(_) => "console".to_string(),
            Self::Memory => "memory".to_string(),
            Self::Socket(_) => "socket".to_string(),
            #[cfg(feature = "kafka")]
            Self::Kafka(config) => config.description(),
            Self::Noop => "noop".to_string(),
            Self::Foreach => "foreach".to_string(),
        }
    }
}

pub(super) fn file_config(scan: &Scan, settings: &FormatSettings) -> PlanResult<FileSourceConfig> {
    let schema = Some((scan.schema.clone(), SchemaOrigin::Plan));
    let config = FileSourceConfig::read(&scan.format, &scan.options, schema, settings)?;
    if scan.streaming {
        config.check_stream()?;
    }
    Ok(config)
}

pub(super) fn refused(error: PlanError) -> EngineError {
    EngineError::operator(error.condition, error.reason, error.fix)
}

fn make_source(
    (session, settings): (&crate::session::Session, &FormatSettings),
    job: &mut Job,
    (scan, needed): (&Scan, &[bool]),
    chains: Vec<PlacedChain>,
    // One counter per source, in the order of the sources.
    counters: &mut Vec<SourceCounters>,
    times: Option<IntendedTimes>,
) -> Result<Vec<Box<dyn Tasklet>>, EngineError> {
    let parts = chains.len();
    let mut shared = Shared::default();
    let mut rate_start_us = None;
    let make =
        |(part, (worker, chain)): (usize, PlacedChain)| -> Result<Box<dyn Tasklet>, EngineError> {
            Ok(match scan.format.as_str() {
                "socket" => {
                    let config = SocketConfig::read(&scan.options).map_err(refused)?;
                    let mut source = config.open(job.env(), job.source_folder(), &mut shared)?;
                    source.on_notice(session.lock().notice);
                    if let Some(times) = &times {
                        source.intended_times(times.clone());
                    }
                    counters.push(source.counters());
                    Box::new(SourceTasklet::new(job.source_port(worker), source, chain))
                }
                "capture" => {
                    let config = CaptureConfig::read(&scan.options).map_err(refused)?;
                    let mut source = config.open()?;
                    source.on_notice(session.lock().notice);
                    if let Some(lag) = source.send_lag() {
                        session.lock().send_lags.push(lag);
                    }
                    counters.push(source.counters());
                    Box::new(SourceTasklet::new(job.source_port(worker), source, chain))
                }
                "rate" => {
                    let rows_per_second = rate::read(&scan.options).map_err(refused)?;
                    let env = job.env();
                    // The first partition stores the start time of all partitions.
                    let start_us = match rate_start_us {
                        Some(start_us) => start_us,
                        None => rate::start_us(&*env, job.source_folder().as_deref())?,
                    };
                    rate_start_us = Some(start_us);
                    counters.push(SourceCounters::default());
                    let source = RateSource::new(rows_per_second, (part, parts), &*env, start_us);
                    Box::new(SourceTasklet::new(job.source_port(worker), source, chain))
                }
                "rate-micro-batch" => {
                    let config = micro_batch::Config::read(&scan.options).map_err(refused)?;
                    let port = job.source_port(worker);
                    counters.push(SourceCounters::default());
                    Box::new(SourceTasklet::new(port, RateMicroBatch::new(config), chain))
                }
                #[cfg(feature = "kafka")]
                "kafka" => {
                    let config = KafkaSourceConfig::read(&scan.options, scan.streaming);
                    let (config, folder) = (config.map_err(refused)?, job.source_folder());
                    let notice = session.lock().notice;
                    let source = KafkaSource::new(config, job.env(), folder, notice)?;
                    counters.push(SourceCounters::default());
                    Box::new(SourceTasklet::new(job.source_port(worker), source, chain))
                }
                files if is_files(files) => {
                    let mut config = file_config(scan, settings).map_err(refused)?;
                    config.set_needed_columns(needed).map_err(refused)?;
                    let mut source = config.open(part, job.env(), job.source_folder())?;
                    source.on_notice(session.lock().notice);
                    counters.push(source.counters());
                    Box::new(SourceTasklet::new(job.source_port(worker), source, chain))
                }
                _ => {
                    let stream = session.lock().streams.get(&scan.name).cloned();
                    let stream = stream.ok_or_else(|| {
                        let reason = format!("no memory stream '{}'", scan.name);
                        EngineError::operator("MEMORY_STREAM_NOT_FOUND", reason, "")
                    })?;
                    let source = stream.source(part, job.env())?;
                    counters.push(SourceCounters::default());
                    Box::new(SourceTasklet::new(job.source_port(worker), source, chain))
                }
            })
        };
    chains.into_iter().enumerate().map(make).collect()
}

/// A tasklet under another name, for `explain`.
struct RenamedTasklet<T>(String, T);

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

/// The error for two active queries with the same name.
pub(super) fn name_in_use(reason: String, fix: &str) -> PlanError {
    PlanError::new("QUERY_NAME_IN_USE", reason, fix)
}
