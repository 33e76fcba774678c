//! Opens the sources of a query, one tasklet per partition.

use crate::connect::capture::config::CaptureConfig;
use crate::connect::file::{FileSourceConfig, SchemaOrigin};
use crate::connect::format_settings::FormatSettings;
#[cfg(feature = "kafka")]
use crate::connect::kafka::options::KafkaSourceConfig;
#[cfg(feature = "kafka")]
use crate::connect::kafka::source::{SourceSetup, merge_offsets};
use crate::connect::rate::micro_batch;
use crate::connect::rate::micro_batch::RateMicroBatch;
use crate::connect::rate::{self, RateSource};
use crate::connect::socket::open::Shared;
use crate::connect::socket::options::SocketConfig;
use crate::connect::socket::source::IntendedTimes;
use crate::connect::source_counters::SourceCounters;
use crate::session::{Session, is_files};
use crate::table::error::PlanResult;
use crate::table::physical::{BoxChain, PlacedChain};
use crate::table::plan::Scan;
use millstream_engine::error::EngineError;
use millstream_engine::runtime::job::Job;
use millstream_engine::runtime::tasklet::{Source, SourceTasklet, Tasklet};

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

/// Opens the sources of a query.
pub(in crate::session::stream_writer) struct SourceOpener<'q> {
    pub session: &'q Session,
    pub formats: &'q FormatSettings,
    /// The intended send time of each line, if the query measures latency from it.
    pub times: Option<IntendedTimes>,
    /// The session's idle time-out.
    #[cfg_attr(
        not(feature = "kafka"),
        expect(dead_code, reason = "other sources have it from the job")
    )]
    pub idle_after_ns: Option<u64>,
    /// The counters of the opened sources, in the order of the sources.
    pub counters: Vec<SourceCounters>,
}

/// State that the partitions of a source share.
struct Partitions {
    count: usize,
    sockets: Shared,
    /// The start time that the first partition of a rate source has stored.
    rate_start_us: Option<i64>,
}

impl SourceOpener<'_> {
    /// Opens a source with a tasklet for each of its partitions.
    pub fn open(
        &mut self,
        job: &mut Job,
        scan: &Scan,
        needed: &[bool],
        chains: Vec<PlacedChain>,
    ) -> Result<Vec<Box<dyn Tasklet>>, EngineError> {
        #[cfg(feature = "kafka")]
        if scan.format == "kafka" {
            return self.open_topics(job, scan, needed, chains);
        }
        let (count, sockets) = (chains.len(), Shared::default());
        let mut partitions = Partitions { count, sockets, rate_start_us: None };
        let open = |(part, chain)| match is_files(&scan.format) {
            true => self.open_files(job, scan, needed, part, chain),
            false => self.open_part(job, scan, &mut partitions, part, chain),
        };
        chains.into_iter().enumerate().map(open).collect()
    }

    /// Opens the tasklets of a Kafka source, which share one offset in the checkpoint.
    #[cfg(feature = "kafka")]
    fn open_topics(
        &mut self,
        job: &mut Job,
        scan: &Scan,
        needed: &[bool],
        chains: Vec<PlacedChain>,
    ) -> Result<Vec<Box<dyn Tasklet>>, EngineError> {
        let setup = SourceSetup {
            config: KafkaSourceConfig::read(&scan.options, scan.streaming)?,
            env: job.env(),
            folder: job.source_folder(),
            notice: self.session.lock().notice,
            parts: chains.len(),
            idle_after_ns: self.idle_after_ns,
            needed: needed.to_vec(),
        };
        let workers: Vec<usize> = chains.iter().map(|(worker, _)| *worker).collect();
        // The source knows which partitions are at their end, so the idle time-outs are its own.
        job.set_idle_timeout(None);
        job.set_partition_idle_timeout(None);
        let ports = job.source_ports(&workers, merge_offsets);
        let each = setup.open()?.into_iter().zip(ports).zip(chains);
        let tasklets = each.map(|((source, port), (_, chain))| {
            let progress = Some(source.progress());
            self.counters.push(SourceCounters { progress, ..SourceCounters::default() });
            Box::new(SourceTasklet::new(port, source, chain)) as Box<dyn Tasklet>
        });
        Ok(tasklets.collect())
    }

    /// Opens a partition of files, which decodes the `needed` columns only. Fails if these are only
    /// the column for bad records.
    fn open_files(
        &mut self,
        job: &mut Job,
        scan: &Scan,
        needed: &[bool],
        part: usize,
        chain: PlacedChain,
    ) -> Result<Box<dyn Tasklet>, EngineError> {
        let mut config = file_config(scan, self.formats)?;
        config.set_needed_columns(needed)?;
        let mut source = config.open(part, job.env(), job.source_folder())?;
        source.on_notice(self.session.lock().notice);
        self.counters.push(source.counters());
        Ok(tasklet(job, source, chain))
    }

    /// Opens a partition of a source other than files.
    fn open_part(
        &mut self,
        job: &mut Job,
        scan: &Scan,
        partitions: &mut Partitions,
        part: usize,
        chain: PlacedChain,
    ) -> Result<Box<dyn Tasklet>, EngineError> {
        let notice = self.session.lock().notice;
        match scan.format.as_str() {
            "socket" => {
                let config = SocketConfig::read(&scan.options)?;
                let folder = job.source_folder();
                let mut source = config.open(job.env(), folder, &mut partitions.sockets)?;
                source.on_notice(notice);
                if let Some(times) = &self.times {
                    source.intended_times(times.clone());
                }
                self.counters.push(source.counters());
                Ok(tasklet(job, source, chain))
            }
            "capture" => {
                let config = CaptureConfig::read(&scan.options)?;
                let source = config.open()?;
                if let Some(lag) = source.send_lag() {
                    self.session.lock().send_lags.push(lag);
                }
                self.counters.push(source.counters());
                Ok(tasklet(job, source, chain))
            }
            "rate" => {
                let rows_per_second = rate::read(&scan.options)?;
                let env = job.env();
                // The first partition stores the start time of all partitions.
                let start_us = match partitions.rate_start_us {
                    Some(start_us) => start_us,
                    None => rate::start_us(&*env, job.source_folder().as_deref())?,
                };
                partitions.rate_start_us = Some(start_us);
                self.counters.push(SourceCounters::default());
                let of = (part, partitions.count);
                Ok(tasklet(job, RateSource::new(rows_per_second, of, &*env, start_us), chain))
            }
            "rate-micro-batch" => {
                let config = micro_batch::Config::read(&scan.options)?;
                self.counters.push(SourceCounters::default());
                Ok(tasklet(job, RateMicroBatch::new(config), chain))
            }
            _ => {
                let stream = self.session.lock().streams.get(&scan.name).cloned();
                let stream = stream.ok_or_else(|| {
                    let reason = format!("no memory stream '{}'", scan.name);
                    EngineError::operator("MEMORY_STREAM_NOT_FOUND", reason, "")
                })?;
                let source = stream.source(part, job.env())?;
                self.counters.push(SourceCounters::default());
                Ok(tasklet(job, source, chain))
            }
        }
    }
}

/// Creates the tasklet of an opened source.
fn tasklet<S>(job: &mut Job, source: S, (worker, chain): PlacedChain) -> Box<dyn Tasklet>
where
    S: Source<BoxChain> + 'static,
{
    Box::new(SourceTasklet::new(job.source_port(worker), source, chain))
}
