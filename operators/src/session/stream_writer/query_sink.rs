//! The sink of a query: chosen by its format, and opened at the start.

use crate::connect::console::{Console, ConsoleOptions};
use crate::connect::file::FileSinkConfig;
use crate::connect::foreach::{Foreach, ForeachBatch, Noop};
#[cfg(feature = "kafka")]
use crate::connect::kafka::sink::KafkaSinkConfig;
use crate::connect::line_format::LineWriter;
use crate::connect::memory::MemoryTable;
use crate::connect::options::OptionReader;
use crate::connect::socket::sink::{ReceiverWait, SocketSinkConfig};
use crate::session::is_files;
use crate::session::stream_writer::prepared_query::Prepared;
use crate::session::stream_writer::{SINK_FORMATS, StreamWriter};
use crate::session::streaming_query::QueryError;
use crate::session::{ConsoleFormat, RowFormat};
use crate::table::error::{PlanError, PlanResult};
use crate::table::expr::resolve::did_you_mean;
use crate::table::physical::BoxChain;
use crate::table::plan::Options;
use millstream_engine::measure::latency::LatencyRecorder;
use millstream_engine::runtime::job::Job;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

#[cfg(feature = "kafka")]
pub(in crate::session::stream_writer) use crate::connect::kafka::sink::OpenTransactions;
/// A build without Kafka has no transactions.
#[cfg(not(feature = "kafka"))]
pub(in crate::session::stream_writer) type OpenTransactions = std::convert::Infallible;

pub(in crate::session::stream_writer) enum SinkSpec {
    Files(FileSinkConfig),
    ForeachBatch,
    Console(ConsoleOptions),
    Memory,
    Socket(SocketSinkConfig),
    #[cfg(feature = "kafka")]
    Kafka(KafkaSinkConfig),
    Noop,
    Foreach,
}

impl SinkSpec {
    pub(in crate::session::stream_writer) fn description(&self) -> String {
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

impl StreamWriter {
    pub(in crate::session::stream_writer) fn sink(
        &self,
        options: &Options,
        name: Option<&str>,
    ) -> PlanResult<SinkSpec> {
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
            "console" => {
                let options = Console::read(options)?;
                self.check_console_format()?;
                Ok(SinkSpec::Console(options))
            }
            "noop" => no_options("sink noop").map(|()| SinkSpec::Noop),
            "memory" => {
                no_options("sink memory")?;
                match name {
                    Some(_) => Ok(SinkSpec::Memory),
                    None => Err(PlanError::new(
                        "MISSING_OPTION",
                        "sink memory: the query needs a name, which becomes the name of its table",
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
                let (reason, near) = if format.is_empty() {
                    ("no sink format was given".to_string(), String::new())
                } else {
                    let reason = format!("there is no sink format '{format}'");
                    (reason, did_you_mean(&format, SINK_FORMATS.iter().copied()))
                };
                let fix = format!("{near}Sink formats: {}", SINK_FORMATS.join(", "));
                Err(PlanError::new("DATA_SOURCE_NOT_FOUND", reason, fix))
            }
        }
    }

    /// Fails if the session's format of consoles does not fit the query.
    fn check_console_format(&self) -> PlanResult<()> {
        let session = &self.frame.session;
        let format = session.lock().console_format;
        match format {
            ConsoleFormat::Tables => Ok(()),
            ConsoleFormat::Lines(_) if self.is_complete_mode() => Err(PlanError::new(
                "UNSUPPORTED_OPTION",
                "the console is to print lines, but output mode complete repeats the whole result \
                 in each epoch, and nothing would tell where it ends",
                "Use the format table, or output mode append or update",
            )),
            ConsoleFormat::Lines(format) => {
                session.row_writer(format, &self.frame.schema()).map(drop)
            }
            ConsoleFormat::Refused => Err(PlanError::new(
                "UNSUPPORTED_OPTION",
                "a console sink cannot print in the format that was chosen",
                "Use the format table, json or csv",
            )),
        }
    }

    /// The writer of a console that prints lines, and its first lines.
    fn console_lines(&self) -> PlanResult<Option<(LineWriter, Vec<u8>)>> {
        let session = &self.frame.session;
        let format = session.lock().console_format;
        let ConsoleFormat::Lines(format) = format else { return Ok(None) };
        let writer = session.row_writer(format, &self.frame.schema())?;
        let head = match format {
            RowFormat::Json => Vec::new(),
            RowFormat::Csv => writer.header(),
        };
        Ok(Some((writer, head)))
    }

    pub(in crate::session::stream_writer) fn make_sink(
        &mut self,
        prepared: &Prepared,
        name: &str,
        latency: LatencyRecorder,
        stopping: &Arc<AtomicBool>,
        job: &mut Job,
        #[cfg_attr(not(feature = "kafka"), expect(unused_variables))] transactions: Option<
            OpenTransactions,
        >,
    ) -> Result<BoxChain, QueryError> {
        let schema = self.frame.schema();
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
            SinkSpec::Kafka(config) => Box::new(match transactions {
                None => config.open(&schema, latency)?,
                Some(open) => {
                    let report_to = |log| job.sink_log(Box::new(log));
                    config.open_transactional(&schema, open, report_to, latency)?
                }
            }),
            SinkSpec::Noop => Box::new(Noop(latency)),
            SinkSpec::Console(options) => {
                let out = (session.lock().console)();
                let display = self.settings().display();
                let lines = self.console_lines()?;
                let mut console = Console::new(
                    *options,
                    display,
                    schema,
                    (prepared.mode, prepared.trigger),
                    job.next_epoch(),
                    out,
                    latency,
                );
                if let Some((writer, head)) = lines {
                    console = console.with_lines(writer, head);
                }
                Box::new(if self.names_tables { console.with_query(name) } else { console })
            }
            SinkSpec::Memory => {
                let table = MemoryTable::new(schema);
                session.add_result(name, table.clone())?;
                Box::new(table.sink(prepared.mode, self.table.clone(), latency))
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
