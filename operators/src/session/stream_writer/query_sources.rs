//! Opens the sources of a query.

use crate::connect::capture::config::CaptureConfig;
use crate::connect::file::{FileSourceConfig, SchemaOrigin};
use crate::connect::format_settings::FormatSettings;
#[cfg(feature = "kafka")]
use crate::connect::kafka::{options::KafkaSourceConfig, source::KafkaSource};
use crate::connect::rate::micro_batch;
use crate::connect::rate::micro_batch::RateMicroBatch;
use crate::connect::rate::{self, RateSource};
use crate::connect::socket::open::Shared;
use crate::connect::socket::options::SocketConfig;
use crate::connect::socket::source::IntendedTimes;
use crate::connect::source_counters::SourceCounters;
use crate::session::is_files;
use crate::table::error::{PlanError, PlanResult};
use crate::table::physical::PlacedChain;
use crate::table::plan::Scan;
use millstream_engine::error::EngineError;
use millstream_engine::runtime::job::Job;
use millstream_engine::runtime::tasklet::{SourceTasklet, Tasklet};

pub(in crate::session) fn file_config(
    scan: &Scan,
    settings: &FormatSettings,
) -> PlanResult<FileSourceConfig> {
    let schema = Some((scan.schema.clone(), SchemaOrigin::Plan));
    let config = FileSourceConfig::read(&scan.format, &scan.options, schema, settings)?;
    if scan.streaming {
        config.check_stream()?;
    }
    Ok(config)
}

pub(in crate::session) fn refused(error: PlanError) -> EngineError {
    EngineError::operator(error.condition, error.reason, error.fix)
}

pub(in crate::session::stream_writer) fn make_source(
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
