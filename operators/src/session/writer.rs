//! Where a result goes, and the start of a query.

use super::dataframe::DataFrame;
use super::query::{QueryError, StreamingQuery};
use super::trigger::parse_trigger;
use crate::connect::console::Console;
use crate::connect::foreach::{Foreach, ForeachWriter, Noop};
use crate::connect::memory::MemoryTable;
use crate::connect::options::OptionReader;
use crate::connect::rate::RateSource;
use crate::connect::socket_sink::SocketSinkConfig;
use crate::connect::socket_source::{IntendedTimes, SocketConfig, SourceCounters};
use crate::table::analyze::{OutputMode, check_output_mode};
use crate::table::error::{PlanError, PlanResult};
use crate::table::physical::{BoxChain, lower};
use crate::table::plan::{Options, Scan};
use millstream_engine::cores;
use millstream_engine::driver::Trigger;
use millstream_engine::error::EngineError;
use millstream_engine::job::{Config, Job};
use millstream_engine::latency::{Latency, LatencyRecorder};
use millstream_engine::seam::{Env, SimEnv};
use millstream_engine::tasklet::{SourceTasklet, Tasklet};
use std::sync::{Arc, Mutex};

/// Options that belong to the query and not to the sink's format.
const QUERY_OPTIONS: [&str; 4] = ["outputMode", "trigger", "checkpointLocation", "queryName"];

/// A query being described.
#[must_use = "nothing runs before `start`"]
pub struct StreamWriter {
    frame: DataFrame,
    format: String,
    options: Options,
    mode: Option<String>,
    trigger: Option<Trigger>,
    name: Option<String>,
    foreach: Option<Box<dyn ForeachWriter>>,
    config: Option<Config>,
    replay: Option<Replay>,
}

/// The clock of a replay, and when each line of its socket source was meant to be sent.
type Replay = (Arc<dyn Env>, IntendedTimes);

impl StreamWriter {
    pub(crate) fn new(frame: DataFrame) -> Self {
        Self {
            frame,
            format: String::new(),
            options: Options::new(),
            mode: None,
            trigger: None,
            name: None,
            foreach: None,
            config: None,
            replay: None,
        }
    }

    /// `append` (default), `update` or `complete`.
    pub fn output_mode(mut self, mode: &str) -> Self {
        self.mode = Some(mode.to_string());
        self
    }

    /// `console`, `memory`, `socket` or `noop`.
    pub fn format(mut self, format: &str) -> Self {
        self.format = format.to_string();
        self
    }

    /// An option of the sink, or `outputMode`, `trigger`, `queryName`.
    pub fn option(mut self, key: &str, value: impl ToString) -> Self {
        self.options.push((key.to_string(), value.to_string()));
        self
    }

    /// When epochs happen; continuous with one a second unless set.
    pub fn trigger(mut self, trigger: Trigger) -> Self {
        self.trigger = Some(trigger);
        self
    }

    /// The query's name; a memory sink's table has it.
    pub fn query_name(mut self, name: &str) -> Self {
        self.name = Some(name.to_string());
        self
    }

    /// Gives every row to a function.
    pub fn foreach(mut self, writer: impl ForeachWriter) -> Self {
        self.foreach = Some(Box::new(writer));
        self
    }

    /// Workers, pinning and waiting other than the session's; its trigger is not used.
    pub fn config(mut self, config: Config) -> Self {
        self.config = Some(config);
        self
    }

    /// Counts latency from the intended time of each line of a socket source, not from its
    /// arrival: `times` gives it, on the clock of `env`, for line 0, 1, 2 …
    pub fn replay(mut self, env: Arc<dyn Env>, times: IntendedTimes) -> Self {
        self.replay = Some((env, times));
        self
    }

    /// Checks everything that can be checked without opening anything.
    pub fn check(&self) -> PlanResult<()> {
        self.prepare().map(|_| ())
    }

    fn query_option(&self, name: &str) -> Option<&str> {
        let found = self.options.iter().rev().find(|(key, _)| key.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str())
    }

    fn prepare(&self) -> PlanResult<Prepared> {
        let mode = self.mode.as_deref().or(self.query_option("outputMode"));
        let mode = mode.map_or(Ok(OutputMode::Append), OutputMode::parse)?;
        check_output_mode(&self.frame.plan, mode)?;
        let trigger = match (self.trigger, self.query_option("trigger")) {
            (Some(trigger), _) => trigger,
            (None, Some(text)) => parse_trigger(text)?,
            (None, None) => Trigger::Continuous { interval_ns: 1_000_000_000 },
        };
        if self.query_option("checkpointLocation").is_some() {
            return Err(PlanError::not_yet("a checkpoint on disk (checkpointLocation)"));
        }
        let own = |key: &str| QUERY_OPTIONS.iter().any(|name| name.eq_ignore_ascii_case(key));
        let options: Options = self.options.iter().filter(|(key, _)| !own(key)).cloned().collect();
        let name = self.name.clone().or(self.query_option("queryName").map(str::to_string));
        let sink = self.sink(&options, name.as_deref())?;
        Ok(Prepared { mode, trigger, name, sink })
    }

    fn sink(&self, options: &Options, name: Option<&str>) -> PlanResult<SinkSpec> {
        let schema = self.frame.schema();
        if self.foreach.is_some() {
            return Ok(SinkSpec::Foreach);
        }
        let format = self.format.to_ascii_lowercase();
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
                let config = SocketSinkConfig::read(options)?;
                config.writer(&schema)?;
                Ok(SinkSpec::Socket(config))
            }
            "text" | "csv" | "json" | "parquet" | "orc" | "kafka" => {
                Err(PlanError::not_yet(format_args!("the sink format '{format}'")))
            }
            _ => Err(PlanError::new(
                "DATA_SOURCE_NOT_FOUND",
                if format.is_empty() {
                    "no sink format was given".to_string()
                } else {
                    format!("there is no sink format '{format}'")
                },
                "Sink formats: console, memory, socket, noop",
            )),
        }
    }

    /// The tasklets by worker that the query would have, after the plan.
    pub fn explain(&self) -> Result<String, QueryError> {
        let prepared = self.prepare()?;
        let (session, plan) = (self.frame.session.clone(), &self.frame.plan);
        let settings = session.lock().settings.clone();
        // As many workers as `start` would have.
        let workers = settings.workers.max(settings.parallelism).min(cores::usable());
        let config = Config { workers, trigger: prepared.trigger, ..Config::default() };
        let mut job = Job::in_env("explain", config, Arc::new(SimEnv::new(0)))?;
        let sink = Box::new(Noop(Latency::default().recorder(job.env())));
        // Sources are not opened for an explanation: one that never reads stands for each.
        let mut make = |job: &mut Job, worker: usize, scan: &Scan, chain: BoxChain| {
            let source = RateSource::read(&Options::new()).map_err(refused)?;
            let port = job.source_port(worker);
            let tasklet = SourceTasklet::new(port, source, chain);
            Ok(Box::new(Named(format!("source {}", scan.name), tasklet)) as Box<dyn Tasklet>)
        };
        lower(plan, prepared.mode, settings.parallelism, &mut job, sink, &mut make)?;
        let mut text = self.frame.explain();
        text.push_str("\n== Tasklets ==\n");
        for (worker, tasklets) in job.layout().into_iter().enumerate() {
            text.push_str(&format!("worker {worker}: {}\n", tasklets.join(", ")));
        }
        Ok(text)
    }

    /// Opens sources and sink, and starts the query.
    pub fn start(mut self) -> Result<StreamingQuery, QueryError> {
        let prepared = self.prepare()?;
        let session = self.frame.session.clone();
        let (settings, name) = {
            let mut inner = session.lock();
            let name = match prepared.name {
                Some(name) => name,
                None => format!("query-{}", inner.active.len()),
            };
            if inner.active.contains(&name) {
                return Err(PlanError::new(
                    "QUERY_NAME_IN_USE",
                    format!("a query with the name '{name}' is active in this session"),
                    "Stop it first, or take another name",
                )
                .into());
            }
            inner.active.push(name.clone());
            (inner.settings.clone(), name)
        };
        let started = self.run(&prepared.sink, prepared.mode, prepared.trigger, &settings, &name);
        if started.is_err() {
            session.lock().active.retain(|active| *active != name);
        }
        started
    }

    fn run(
        &mut self,
        sink: &SinkSpec,
        mode: OutputMode,
        trigger: Trigger,
        settings: &super::Settings,
        name: &str,
    ) -> Result<StreamingQuery, QueryError> {
        let config = self.config.clone().unwrap_or(Config {
            workers: settings.workers.max(settings.parallelism),
            pin: settings.pin,
            wait: settings.wait,
            trigger,
        });
        let config = Config { trigger, ..config };
        let mut job = match &self.replay {
            Some((env, _)) => Job::in_env(name, config, env.clone())?,
            None => Job::new(name, config)?,
        };
        let last = Arc::new(Mutex::new(None));
        let slot = last.clone();
        job.on_commit(move |committed| {
            *slot.lock().unwrap_or_else(|poisoned| poisoned.into_inner()) = Some(committed.clone());
        });
        let latency = Latency::default();
        let recorder = latency.recorder(job.env());
        let chain = self.make_sink(sink, mode, trigger, name, recorder)?;
        let session = self.frame.session.clone();
        let mut counters = Vec::new();
        let times = self.replay.as_ref().map(|(_, times)| times.clone());
        let mut make = |job: &mut Job, worker: usize, scan: &Scan, chain: BoxChain| {
            make_source(&session, job, worker, scan, chain, &mut counters, times.clone())
        };
        lower(&self.frame.plan, mode, settings.parallelism, &mut job, chain, &mut make)?;
        let running = job.start()?;
        Ok(StreamingQuery {
            name: name.to_string(),
            session: self.frame.session.clone(),
            running,
            latency,
            last,
            counters,
        })
    }

    fn make_sink(
        &mut self,
        sink: &SinkSpec,
        mode: OutputMode,
        trigger: Trigger,
        name: &str,
        latency: LatencyRecorder,
    ) -> Result<BoxChain, QueryError> {
        let schema = self.frame.schema();
        let complete = mode == OutputMode::Complete;
        let session = &self.frame.session;
        Ok(match sink {
            SinkSpec::Noop => Box::new(Noop(latency)),
            SinkSpec::Console(options) => {
                let out = (session.lock().console)();
                Box::new(Console::new(
                    *options,
                    schema,
                    complete,
                    trigger.is_continuous(),
                    out,
                    latency,
                ))
            }
            SinkSpec::Memory => {
                let table = MemoryTable::new(schema);
                session.lock().tables.insert(name.to_string(), table.clone());
                Box::new(table.sink(complete, latency))
            }
            SinkSpec::Socket(config) => Box::new(config.open(config.writer(&schema)?, latency)?),
            SinkSpec::Foreach => match self.foreach.take() {
                Some(writer) => Box::new(Foreach::new(writer, &schema, latency)),
                None => unreachable!("`sink` found one"),
            },
        })
    }
}

struct Prepared {
    mode: OutputMode,
    trigger: Trigger,
    name: Option<String>,
    sink: SinkSpec,
}

enum SinkSpec {
    Console((usize, bool)),
    Memory,
    Socket(SocketSinkConfig),
    Noop,
    Foreach,
}

fn refused(error: PlanError) -> EngineError {
    EngineError::operator(error.condition, error.reason, error.fix)
}

fn make_source(
    session: &super::Session,
    job: &mut Job,
    worker: usize,
    scan: &Scan,
    chain: BoxChain,
    counters: &mut Vec<SourceCounters>,
    times: Option<IntendedTimes>,
) -> Result<Box<dyn Tasklet>, EngineError> {
    match scan.format.as_str() {
        "socket" => {
            let mut source = SocketConfig::read(&scan.options).map_err(refused)?.open()?;
            source.on_notice(session.lock().notice);
            if let Some(times) = times {
                source.intended_times(times);
            }
            counters.push(source.counters());
            let port = job.source_port(worker);
            Ok(Box::new(SourceTasklet::new(port, source, chain)))
        }
        "rate" => {
            let source = RateSource::read(&scan.options).map_err(refused)?;
            let port = job.source_port(worker);
            Ok(Box::new(SourceTasklet::new(port, source, chain)))
        }
        _ => {
            let stream = session.lock().streams.get(&scan.name).cloned().ok_or_else(|| {
                EngineError::operator(
                    "MEMORY_STREAM_NOT_FOUND",
                    format!("no memory stream '{}'", scan.name),
                    "",
                )
            })?;
            let source = stream.source(job.env())?;
            let port = job.source_port(worker);
            Ok(Box::new(SourceTasklet::new(port, source, chain)))
        }
    }
}

/// A tasklet under another name, for `explain`.
struct Named<T>(String, T);

impl<T: Tasklet> Tasklet for Named<T> {
    fn name(&self) -> &str {
        &self.0
    }
    fn attach(&mut self, io: &mut millstream_engine::stage::Io<'_>) -> Result<(), EngineError> {
        self.1.attach(io)
    }
    fn step(
        &mut self,
        cx: &mut millstream_engine::tasklet::StepCx<'_>,
    ) -> Result<millstream_engine::tasklet::Step, EngineError> {
        self.1.step(cx)
    }
}
