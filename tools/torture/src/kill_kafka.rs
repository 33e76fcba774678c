//! `kill -9` at random moments of a query from Kafka to Kafka, against a real broker.
//!
//! Records are numbered per partition and sent to a topic of eight partitions while the query copies
//! each number to another topic, keyed by the partition. Another producer writes records of aborted
//! transactions between them, and the query reads with `read_committed`. Runs in continuous and in
//! micro-batch mode alternate at random, with one to three tasklets, on one checkpoint. With
//! `--broker` the broker is killed too, and restarted with its data. Afterwards
//!
//! * every record must be in the copy,
//! * a run may repeat only records after the offsets that were committed when it started,
//! * the first copies of a partition's records must be in the order of their numbers.
//!
//! With `--transactional` the sink writes in transactions, the other producer aborts transactions in
//! both topics, and the check reads with `read_committed`: no record may be repeated, and no record of
//! an aborted transaction may be visible.

use crate::kill::{kill_soon, text};
use clap::Args as ClapArgs;
use futures_executor::block_on;
use millstream::session::{Session, Trigger};
use millstream_engine::checkpoint::{numbered_entries, read_offsets};
use millstream_engine::env::random::SplitMix;
use millstream_engine::env::storage::FileStorage;
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::Message;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::{Offset, TopicPartitionList};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const PARTITIONS: i32 = 8;
const COPY_PARTITIONS: i32 = 2;
/// A long time limit, because the broker may be down for a while.
const TIMEOUT: Duration = Duration::from_secs(120);

#[derive(ClapArgs)]
pub struct Args {
    /// The broker: HOST:PORT
    #[arg(long, default_value = "127.0.0.1:9092")]
    servers: String,
    /// Number of kills of the query
    #[arg(long, default_value_t = 100)]
    rounds: u64,
    /// Number of records sent in all rounds together
    #[arg(long, default_value_t = 2_000_000)]
    records: u64,
    /// Also kill the broker in every fifth round, with this program: `PROGRAM kill`, then `PROGRAM
    /// start`
    #[arg(long)]
    broker: Option<PathBuf>,
    /// Write in transactions
    #[arg(long)]
    transactional: bool,
    /// Seed of the random kill times; if not given, a random one is used and printed
    #[arg(long)]
    seed: Option<u64>,
}

#[derive(ClapArgs)]
pub struct ChildArgs {
    servers: String,
    input: String,
    output: String,
    checkpoint: PathBuf,
    /// `continuous`, `batches`, or `rest` for the remaining records
    mode: String,
    /// The number of the source's tasklets
    #[arg(long, default_value_t = 1)]
    parts: u64,
    #[arg(long)]
    transactional: bool,
}

/// Runs the query until it is killed, or until all records are copied.
pub fn child(args: &ChildArgs) -> Result<(), String> {
    let session = Session::new();
    session.set("millstream.pin", "false").map_err(text)?;
    let reader = session
        .read_stream()
        .format("kafka")
        .option("kafka.bootstrap.servers", &args.servers)
        .option("subscribe", &args.input)
        .option("startingOffsets", "earliest")
        .option("kafka.isolation.level", "read_committed")
        .option("numPartitions", args.parts)
        .option("maxOffsetsPerTrigger", 5_000);
    reader.load().map_err(text)?.create_temp_view("input");
    let sql = "SELECT CAST(partition AS STRING) AS key, \
               concat(CAST(value AS STRING), ',', offset) AS value FROM input";
    let trigger = match args.mode.as_str() {
        "continuous" => Trigger::Continuous { interval_ns: 30_000_000 },
        "batches" => Trigger::AsSoonAsPossible,
        _ => Trigger::AvailableNow,
    };
    let writer = session.sql(sql).map_err(text)?.write_stream().format("kafka").trigger(trigger);
    let writer = writer
        .option("kafka.bootstrap.servers", &args.servers)
        .option("topic", &args.output)
        .option("transactional", args.transactional)
        .option("checkpointLocation", args.checkpoint.display());
    let query = writer.start().map_err(text)?;
    query.await_termination().map_err(text)
}

fn isolation(transactional: bool) -> &'static str {
    if transactional { "read_committed" } else { "read_uncommitted" }
}

struct Names {
    servers: String,
    input: String,
    output: String,
    checkpoint: PathBuf,
    transactional: bool,
}

impl Names {
    fn spawn(&self, mode: &str, parts: u64) -> Result<Child, String> {
        let mut command = Command::new(std::env::current_exe().map_err(text)?);
        command.args(["kafka-child", &self.servers, &self.input, &self.output]);
        command.arg(&self.checkpoint).arg(mode).args(["--parts", &parts.to_string()]);
        if self.transactional {
            command.arg("--transactional");
        }
        command.stdin(Stdio::null()).spawn().map_err(text)
    }

    /// The last entry of a log of the checkpoint.
    fn last(&self, log: &str) -> Option<u64> {
        let entries = numbered_entries(&FileStorage, &self.checkpoint.join(log));
        entries.unwrap_or_default().last().copied()
    }

    /// Whether the last run has left an uncommitted epoch.
    fn has_unfinished(&self) -> bool {
        self.last("offsets") > self.last("commits")
    }

    /// Waits until the last entry of the offset log is not `before`.
    fn wait_for_epoch(&self, before: Option<u64>) -> Result<(), String> {
        let until = Instant::now() + TIMEOUT;
        while self.last("offsets") == before {
            if Instant::now() > until {
                return Err("the query makes no epoch".to_string());
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    }

    fn create_topics(&self) -> Result<(), String> {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", &self.servers);
        let admin: AdminClient<DefaultClientContext> = config.create().map_err(text)?;
        let topics = [
            NewTopic::new(&self.input, PARTITIONS, TopicReplication::Fixed(1)),
            NewTopic::new(&self.output, COPY_PARTITIONS, TopicReplication::Fixed(1)),
        ];
        for made in block_on(admin.create_topics(&topics, &AdminOptions::new())).map_err(text)? {
            made.map_err(|(topic, error)| format!("cannot create the topic {topic}: {error}"))?;
        }
        Ok(())
    }

    /// The offsets that the checkpoint has committed, by partition; empty before the first commit.
    fn committed(&self) -> Result<BTreeMap<i32, i64>, String> {
        let folder = self.checkpoint.join("commits");
        let commits = numbered_entries(&FileStorage, &folder).unwrap_or_default();
        let Some(last) = commits.last() else { return Ok(BTreeMap::new()) };
        let path = self.checkpoint.join("offsets").join(last.to_string());
        let (_, positions) = read_offsets(&FileStorage, &path).map_err(text)?;
        let position = positions.first().ok_or("the offset log has no position")?;
        let offsets: BTreeMap<String, BTreeMap<i32, i64>> =
            serde_json::from_str(&position.0).map_err(text)?;
        Ok(offsets.into_values().next().unwrap_or_default())
    }
}

/// Reads and checks the records of the copy.
struct Copy {
    consumer: BaseConsumer,
    topic: String,
    /// The next offset of each partition of the copy.
    next: BTreeMap<i32, i64>,
    /// For each partition of the input, how often each offset was copied.
    seen: BTreeMap<i32, Vec<u32>>,
    repeated: u64,
    transactional: bool,
}

impl Copy {
    fn new(names: &Names) -> Result<Self, String> {
        let consumer = ClientConfig::new()
            .set("bootstrap.servers", &names.servers)
            .set("group.id", "torture")
            .set("enable.auto.commit", "false")
            .set("isolation.level", isolation(names.transactional))
            .set("enable.partition.eof", "true")
            .create()
            .map_err(text)?;
        let next = BTreeMap::from([(0, 0), (1, 0)]);
        let topic = names.output.clone();
        let transactional = names.transactional;
        Ok(Self { consumer, topic, next, seen: BTreeMap::new(), repeated: 0, transactional })
    }

    /// Reads the records since the last call. `committed` are offsets that were committed before
    /// these records were written.
    fn read(&mut self, committed: &BTreeMap<i32, i64>) -> Result<(), String> {
        let mut list = TopicPartitionList::new();
        for (partition, next) in &self.next {
            let at = Offset::Offset(*next);
            list.add_partition_offset(&self.topic, *partition, at).map_err(text)?;
        }
        self.consumer.assign(&list).map_err(text)?;
        // A partition may report its end several times, for example when a transaction is aborted.
        let mut open: BTreeSet<i32> = self.next.keys().copied().collect();
        let mut deadline = Instant::now() + TIMEOUT;
        while !open.is_empty() {
            let message = match self.consumer.poll(TIMEOUT) {
                Some(Ok(message)) => message,
                Some(Err(KafkaError::PartitionEOF(partition))) => {
                    open.remove(&partition);
                    continue;
                }
                // The broker may be starting.
                Some(Err(_)) if Instant::now() < deadline => continue,
                Some(Err(error)) => return Err(format!("the copy cannot be read: {error}")),
                None => return Err("the copy cannot be read".to_string()),
            };
            deadline = Instant::now() + TIMEOUT;
            self.next.insert(message.partition(), message.offset() + 1);
            let text = |bytes: Option<&[u8]>| {
                let text = bytes.and_then(|bytes| String::from_utf8(bytes.to_vec()).ok());
                text.ok_or("a copy without a text")
            };
            let number = |text: &str| text.parse::<i64>().map_err(|_| "a copy without a number");
            let (partition, value) =
                (number(&text(message.key())?)? as i32, text(message.payload())?);
            let (record, offset) = value.split_once(',').ok_or("a copy without an offset")?;
            let (record, offset) = (number(record)?, number(offset)?);
            let seen = self.seen.entry(partition).or_default();
            let next = seen.len();
            match seen.get_mut(record as usize) {
                Some(_) if self.transactional => {
                    return Err(format!("record {record} of partition {partition} was repeated"));
                }
                Some(count) => {
                    let from = committed.get(&partition).copied().unwrap_or(0);
                    if offset < from {
                        return Err(format!(
                            "offset {offset} of partition {partition} was repeated, though \
                             everything below {from} was committed"
                        ));
                    }
                    *count += 1;
                    self.repeated += 1;
                }
                None if record as usize == next => seen.push(1),
                None => {
                    return Err(format!(
                        "record {record} of partition {partition} was copied before record {next}"
                    ));
                }
            }
        }
        Ok(())
    }
}

fn control(program: &Path, what: &str) -> Result<(), String> {
    let status = Command::new(program).arg(what).stdout(Stdio::null()).status().map_err(text)?;
    if status.success() { Ok(()) } else { Err(format!("{} {what}: {status}", program.display())) }
}

/// Kills the query repeatedly, checks the copy, and prints the results.
pub fn run(args: &Args) -> Result<(), String> {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_err(text)?;
    let seed = args.seed.unwrap_or(now.as_nanos() as u64);
    println!("seed {seed}");
    let mut dice = SplitMix(seed);
    let id = std::process::id();
    let names = Names {
        servers: args.servers.clone(),
        input: format!("torture-in-{id}-{seed}"),
        output: format!("torture-out-{id}-{seed}"),
        checkpoint: std::env::temp_dir().join(format!("millstream-kill-kafka-{id}")),
        transactional: args.transactional,
    };
    names.create_topics()?;
    let aborter = Aborter::new(&names)?;
    let producer: BaseProducer = ClientConfig::new()
        .set("bootstrap.servers", &names.servers)
        .set("enable.idempotence", "true")
        .set("message.timeout.ms", "120000")
        .create()
        .map_err(text)?;
    let mut copy = Copy::new(&names)?;
    let mut sent = [0u64; PARTITIONS as usize];
    let mut send = |count: u64| -> Result<(), String> {
        for _ in 0..count {
            let partition = next_partition(&sent);
            let value = sent[partition].to_string();
            loop {
                let record: BaseRecord<'_, str, str> = BaseRecord::to(&names.input);
                match producer.send(record.partition(partition as i32).payload(&value)) {
                    Ok(()) => break,
                    // The queue is full; acknowledgements make room.
                    Err(_) => {
                        producer.poll(Duration::from_millis(10));
                    }
                }
            }
            sent[partition] += 1;
        }
        Ok(())
    };
    let (mut brokers, mut unfinished) = (0, 0);
    for round in 0..args.rounds {
        let committed = names.committed()?;
        unfinished += u64::from(names.has_unfinished());
        let before = names.last("offsets");
        let mode = if dice.below(2) == 0 { "continuous" } else { "batches" };
        let query = names.spawn(mode, 1 + dice.below(3))?;
        let half = args.records / args.rounds / 2;
        send(half)?;
        aborter.write_and_abort()?;
        send(args.records / args.rounds - half)?;
        if let Some(program) = args.broker.as_deref().filter(|_| round % 5 == 4) {
            control(program, "kill")?;
            control(program, "start")?;
            brokers += 1;
        }
        // The kill comes during the start of the query, or after it has written an epoch.
        if dice.below(3) > 0 {
            names.wait_for_epoch(before)?;
        }
        kill_soon(query, &mut dice, round)?;
        producer.flush(TIMEOUT).map_err(text)?;
        copy.read(&committed)?;
    }
    send(args.records % args.rounds)?;
    producer.flush(TIMEOUT).map_err(text)?;
    let committed = names.committed()?;
    let ended = names.spawn("rest", 1)?.wait().map_err(text)?;
    if !ended.success() {
        return Err(format!("the last run ended with {ended}"));
    }
    copy.read(&committed)?;
    let copied: u64 = copy.seen.values().map(|seen| seen.len() as u64).sum();
    if copied != args.records {
        return Err(format!(
            "{} of {} records are not in the copy",
            args.records - copied,
            args.records
        ));
    }
    drop(std::fs::remove_dir_all(&names.checkpoint));
    let repeated = match (args.transactional, copy.repeated) {
        (true, _) => "none repeated".to_string(),
        (false, repeated) => format!("{repeated} repeated, all of them uncommitted"),
    };
    println!(
        "kafka: {} records, {} kills of the query ({unfinished} left an unfinished epoch), \
         {brokers} of the broker: none lost, {repeated}, in order",
        args.records, args.rounds
    );
    Ok(())
}

/// Another producer, whose transactions are all aborted.
struct Aborter<'a> {
    names: &'a Names,
    producer: BaseProducer,
}

impl<'a> Aborter<'a> {
    fn new(names: &'a Names) -> Result<Self, String> {
        let producer: BaseProducer = ClientConfig::new()
            .set("bootstrap.servers", &names.servers)
            .set("transactional.id", format!("{}-aborter", names.output))
            .create()
            .map_err(text)?;
        producer.init_transactions(TIMEOUT).map_err(text)?;
        Ok(Self { names, producer })
    }

    fn write_and_abort(&self) -> Result<(), String> {
        let producer = &self.producer;
        producer.begin_transaction().map_err(text)?;
        for number in 0..100 {
            // Without transactions the check reads everything in the copy.
            let (topic, partitions) = match number % 2 {
                1 if self.names.transactional => (&self.names.output, COPY_PARTITIONS),
                _ => (&self.names.input, PARTITIONS),
            };
            let record: BaseRecord<'_, str, str> = BaseRecord::to(topic).payload("aborted");
            let record = record.partition(number / 2 % partitions);
            producer.send(record).map_err(|(error, _)| text(error))?;
        }
        producer.flush(TIMEOUT).map_err(text)?;
        producer.abort_transaction(TIMEOUT).map_err(text)
    }
}

/// The partition of the next record: partitions get records in turn.
fn next_partition(sent: &[u64]) -> usize {
    (sent.iter().sum::<u64>() % sent.len() as u64) as usize
}
