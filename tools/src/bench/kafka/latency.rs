//! Latency from Kafka to Kafka, from the intended send time of a record to the arrival of its
//! result.
//!
//! *Threads.* A generator sends the records of a round, and a receiver checks the results. Neither
//! spins, because broker, clients and the system under test share the cores.

use crate::bench::hiccups::Hiccups;
use crate::bench::kafka::cluster::{Cluster, PRODUCER, TIMEOUT, failed};
use crate::bench::kafka::jobs::{Checker, Job, Load, PARTITIONS, line};
use crate::bench::kafka::rival::{Rival, RunningRival};
use crate::failure::Failure;
use hdrhistogram::Histogram;
use millstream::session::{Session, StreamingQuery, Trigger};
use millstream_engine::measure::latency::{Percentiles, histogram};
use rdkafka::ClientConfig;
use rdkafka::consumer::BaseConsumer;
use rdkafka::error::KafkaError;
use rdkafka::message::Message;
use rdkafka::producer::{
    BaseProducer, BaseRecord, DefaultProducerContext, Producer, ThreadedProducer,
};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Maximum wait for the next result.
const PATIENCE: Duration = Duration::from_secs(20);
/// How long a client waits for records before it looks whether it should end.
const LOOK: Duration = Duration::from_millis(100);

/// What is measured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Contender {
    /// Producer, broker and consumer only.
    Hop,
    /// A loop that consumes a record and produces its results.
    Bare,
    Engine,
    /// Another program.
    Rival(Rival),
}

impl Contender {
    pub(super) fn name(&self) -> &str {
        match self {
            Self::Hop => "one hop",
            Self::Bare => "bare loop",
            Self::Engine => "engine",
            Self::Rival(rival) => &rival.name,
        }
    }
}

/// The measurements of a round.
pub(super) struct Round {
    pub latency: Percentiles,
    /// The generator's lag: from intended to actual send time.
    pub lag: Percentiles,
    /// The largest hiccup of the machine.
    pub hiccup_ns: u64,
    pub results: u64,
}

/// How the engine is run.
#[derive(Clone, Debug)]
pub(super) struct EngineOptions {
    pub wait: Option<&'static str>,
    pub pin: bool,
    /// Whether the sink has its defaults (idempotent, acknowledged by all replicas) instead of the
    /// bare loop's options.
    pub with_defaults: bool,
}

/// The system under test.
enum Target {
    None,
    Bare { stop: Arc<AtomicBool>, thread: JoinHandle<Result<(), Failure>> },
    Engine(Box<StreamingQuery>),
    Rival(RunningRival),
}

/// The length of a round.
#[derive(Clone, Copy, Debug)]
pub(super) struct Length {
    /// Records per second.
    pub rate: u64,
    /// Seconds that are not measured, and those that are.
    pub warm_up: f64,
    pub seconds: u64,
}

/// Measures a round. `None`: the rival does not do this job.
pub(super) fn round(
    cluster: &Cluster,
    job: Job,
    contender: &Contender,
    length: Length,
    engine: &EngineOptions,
) -> Result<Option<Round>, Failure> {
    let rate = length.rate;
    let warm_up = (rate as f64 * length.warm_up) as u64;
    let records = warm_up + rate * length.seconds;
    // A hop has no query: the records are the results.
    let job = if *contender == Contender::Hop { Job::Stateless } else { job };
    let input = cluster.create_topic("in")?;
    let output = match contender {
        Contender::Hop => input.clone(),
        _ => cluster.create_topic("out")?,
    };
    let target = match contender {
        Contender::Hop => Target::None,
        Contender::Bare => start_bare(cluster, job, &input, &output)?,
        Contender::Engine => start_engine(cluster, job, &input, &output, engine)?,
        Contender::Rival(rival) => match rival.start(&cluster.servers, job, &input, &output)? {
            Some(running) => Target::Rival(running),
            None => return Ok(None),
        },
    };
    let now_ms = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
    let first_ms = (now_ms as i64 / 1000 + 1) * 1000;
    let load = Load { rate, records, warm_up, first_ms };
    let hiccups = Hiccups::watch()?;
    let receiver = cluster.consumer(&output, true)?;
    wait_until_read(&receiver)?;
    let (start_in, stopped) = (Duration::from_millis(300), AtomicBool::new(false));
    let start = Instant::now() + start_in;
    let (is_hop, producer) = (*contender == Contender::Hop, cluster.producer());
    let (sent, received) = thread::scope(|scope| {
        let sender = scope.spawn(|| {
            let sent = generate(&producer, &input, &load, (start, is_hop), &stopped);
            if sent.is_err() {
                stopped.store(true, Ordering::Relaxed);
            }
            sent
        });
        let received = receive(&receiver, job, &load, start, &stopped);
        stopped.store(true, Ordering::Relaxed);
        let sent = sender
            .join()
            .unwrap_or_else(|_| Err(Failure::Failed("the generator panicked".to_string())));
        (sent, received)
    });
    let hiccup_ns = hiccups.end().max();
    let why = match target {
        Target::None => None,
        Target::Bare { stop, thread } => {
            stop.store(true, Ordering::Relaxed);
            thread.join().ok().and_then(Result::err)
        }
        Target::Engine(query) => match query.exception() {
            Some(error) => Some(Failure::Failed(error.to_string())),
            None => {
                query.stop()?;
                None
            }
        },
        Target::Rival(running) => running.end(),
    };
    if let Some(why) = why {
        return Err(why);
    }
    let (latency, results) = received?;
    let latency = Percentiles::of(&latency);
    Ok(Some(Round { latency, lag: Percentiles::of(&sent?), hiccup_ns, results }))
}

/// Waits until a consumer has an answer for each of its partitions.
fn wait_until_read(consumer: &BaseConsumer) -> Result<(), Failure> {
    let (mut ends, until) = (0, Instant::now() + TIMEOUT);
    while ends < PARTITIONS {
        match consumer.poll(LOOK) {
            Some(Err(KafkaError::PartitionEOF(_))) => ends += 1,
            Some(Err(error)) if Instant::now() > until => {
                return Err(failed("read the results", error));
            }
            _ if Instant::now() > until => {
                return Err(failed("read the results", "no answer"));
            }
            _ => {}
        }
    }
    Ok(())
}

/// Sends each record at its intended time. A hop sends the results of [`Job::Stateless`].
fn generate(
    config: &ClientConfig,
    topic: &str,
    load: &Load,
    (start, is_hop): (Instant, bool),
    stopped: &AtomicBool,
) -> Result<Histogram<u64>, Failure> {
    // Sleeps end when they are due, not up to 50 us later.
    #[cfg(target_os = "linux")]
    let _ = nix::sys::prctl::set_timerslack(1);
    let producer: ThreadedProducer<DefaultProducerContext> =
        config.create().map_err(|error| failed("start a producer", error))?;
    // The client connects before the first record is due.
    let known = producer.client().fetch_metadata(Some(topic), TIMEOUT);
    known.map_err(|error| failed("send records", error))?;
    let mut lag = histogram();
    for seq in 0..load.records {
        let due = Duration::from_nanos(load.intended_ns(seq));
        let mut value = line(seq);
        if is_hop {
            value.make_ascii_uppercase();
        }
        let key = load.key(seq);
        let text = key.to_string();
        if let Some(left) = (start + due).checked_duration_since(Instant::now()) {
            thread::sleep(left);
        }
        let record = BaseRecord::to(topic)
            .key(text.as_str())
            .payload(value.as_str())
            .partition((key % PARTITIONS) as i32)
            .timestamp(load.event_ms_of(seq));
        let sent = producer.send(record);
        sent.map_err(|(error, _)| failed("send a record", error))?;
        if seq >= load.warm_up {
            let late = start.elapsed().saturating_sub(due);
            lag.saturating_record(late.as_nanos().max(1) as u64);
        }
        if stopped.load(Ordering::Relaxed) {
            break;
        }
    }
    producer.flush(TIMEOUT).map_err(|error| failed("send records", error))?;
    Ok(lag)
}

/// Receives and checks every result.
fn receive(
    consumer: &BaseConsumer,
    job: Job,
    load: &Load,
    start: Instant,
    stopped: &AtomicBool,
) -> Result<(Histogram<u64>, u64), Failure> {
    let (mut latency, mut checker) = (histogram(), Checker::new(job, *load));
    let (expected, mut results) = (job.results(load), 0);
    let mut last = Instant::now() + start.saturating_duration_since(Instant::now());
    while results < expected {
        let message = match consumer.poll(LOOK) {
            Some(Ok(message)) => message,
            Some(Err(KafkaError::PartitionEOF(_))) | None => {
                let waited = Instant::now().saturating_duration_since(last);
                if waited > PATIENCE || stopped.load(Ordering::Relaxed) {
                    let missing = expected - results;
                    let reason = format!("{missing} of {expected} results are missing");
                    return Err(Failure::Failed(reason));
                }
                continue;
            }
            Some(Err(error)) => return Err(failed("read the results", error)),
        };
        last = Instant::now();
        results += 1;
        let (key, value) = (message.key().unwrap_or_default(), message.payload());
        let cause = checker.record_of(key, value.unwrap_or_default()).map_err(Failure::Failed)?;
        if checker.is_measured(cause) {
            let intended = start + Duration::from_nanos(load.intended_ns(cause));
            let took = last.saturating_duration_since(intended);
            latency.saturating_record(took.as_nanos().max(1) as u64);
        }
    }
    Ok((latency, results))
}

/// The floor: one thread that consumes a record and produces its results.
fn start_bare(cluster: &Cluster, job: Job, input: &str, output: &str) -> Result<Target, Failure> {
    let consumer = cluster.consumer(input, true)?;
    let producer: BaseProducer =
        cluster.producer().create().map_err(|error| failed("start a producer", error))?;
    let known = producer.client().fetch_metadata(Some(output), TIMEOUT);
    known.map_err(|error| failed("write the results", error))?;
    wait_until_read(&consumer)?;
    let stop = Arc::new(AtomicBool::new(false));
    let (stopped, output) = (stop.clone(), output.to_string());
    let body = move || {
        let (mut by_hand, mut text, mut refused) = (job.by_hand(), Vec::new(), None);
        while !stopped.load(Ordering::Relaxed) {
            let message = match consumer.poll(LOOK) {
                Some(Ok(message)) => message,
                Some(Err(KafkaError::PartitionEOF(_))) | None => continue,
                Some(Err(error)) => return Err(failed("read the records", error)),
            };
            let (key, value) = (message.key().unwrap_or_default(), message.payload());
            let at = (message.partition(), message.timestamp().to_millis().unwrap_or(0));
            by_hand.record((key, value.unwrap_or_default()), at, &mut text, |key, value| {
                let record = BaseRecord::to(&output).key(key).payload(value);
                if let Err((error, _)) = producer.send(record) {
                    refused = Some(error);
                }
            });
            if let Some(error) = refused.take() {
                return Err(failed("write a result", error));
            }
            producer.poll(Duration::ZERO);
        }
        Ok(())
    };
    let thread = thread::Builder::new().name("bare".into()).spawn(body)?;
    Ok(Target::Bare { stop, thread })
}

fn start_engine(
    cluster: &Cluster,
    job: Job,
    input: &str,
    output: &str,
    options: &EngineOptions,
) -> Result<Target, Failure> {
    let wrong = |error: millstream::table::error::PlanError| Failure::Wrong(error.to_string());
    let session = Session::new();
    if let Some(wait) = options.wait {
        session.set("millstream.wait", wait).map_err(wrong)?;
    }
    session.set("millstream.pin", if options.pin { "true" } else { "false" }).map_err(wrong)?;
    let reader = session
        .read_stream()
        .format("kafka")
        .option("kafka.bootstrap.servers", &cluster.servers)
        .option("subscribe", input)
        .option("startingOffsets", "earliest");
    let mut records = reader.load().map_err(wrong)?;
    if job == Job::Window {
        records = records.with_watermark("timestamp", "0 seconds").map_err(wrong)?;
    }
    records.create_temp_view("input");
    let (sql, mode) = job.query();
    let query = session.sql(sql).map_err(wrong)?;
    let mut writer = query.write_stream().output_mode(mode).format("kafka");
    if !options.with_defaults {
        for (name, value) in PRODUCER {
            writer = writer.option(&format!("kafka.{name}"), value);
        }
    }
    let writer = writer.option("kafka.bootstrap.servers", &cluster.servers).option("topic", output);
    let query = writer.trigger(Trigger::Continuous { interval_ns: 1_000_000_000 }).start()?;
    // The first epoch has begun when the source reads.
    query.process_all_available()?;
    Ok(Target::Engine(Box::new(query)))
}
