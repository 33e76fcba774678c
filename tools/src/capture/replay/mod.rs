//! `millstream replay`: replays a capture to a peer at the recorded pace.
//!
//! One thread reads events ahead. The sending thread waits for the time of each event and executes
//! it. Times are absolute, `start + (t - t0) / speed`, so that errors do not accumulate. A third
//! thread reads and discards the answers of TCP peers, so that a peer never blocks on its writes. It
//! also sends the data that a peer does not take at once, so that other connections need not wait.

mod drain;
mod lines;
mod outgoing;
mod peers;
mod plan;
mod schedule;
mod shift;

use super::events::{self, Selection};
use super::open_files::Needs;
use super::record::{local, resolve};
use super::times;
use crate::failure::Failure;
use crate::stdout::say;
use clap::Args as ClapArgs;
use hdrhistogram::Histogram;
use millstream_engine::capture::Kind;
use millstream_engine::measure::latency::histogram;
use outgoing::{Due, Lateness};
use peers::{Peers, Target};
use plan::{Batch, Plan};
use schedule::Schedule;
pub(crate) use schedule::Speed;
use shift::TimeField;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// The default limit for the 99th percentile of the send lag. A run above it is invalid.
const LAG_MAX: &str = "1ms";

#[derive(ClapArgs)]
#[command(after_help = "Examples:\n  \
    millstream replay tuesday.capture --to 127.0.0.1:9999\n  \
    millstream replay tuesday.capture --to 127.0.0.1:9999 --speed 10 --max-gap 1s\n  \
    millstream replay feed.capture --listen 9999 --loop 3\n  \
    millstream replay market.capture --to 239.1.2.3:5005 --speed max\n  \
    millstream replay trades.capture --to 127.0.0.1:9999 --shift-time event_time\n\n\
    Replays the data that was sent to the recorded service; --direction out replays its answers.\n\
    Exit codes: 0 done, 1 failed or invalid because of the send lag, 2 wrong command line.")]
pub(crate) struct Args {
    /// The capture, or a folder of captures
    capture: PathBuf,
    /// Replay to this server; UDP is sent as datagrams
    #[arg(long, value_name = "HOST:PORT", required_unless_present = "listen")]
    to: Option<String>,
    /// Replay to clients that connect to this port
    #[arg(long, value_name = "[ADDRESS:]PORT", conflicts_with = "to")]
    listen: Option<String>,
    /// How many times faster than recorded: a factor, or max
    #[arg(long, default_value = "1", value_parser = Speed::parse)]
    speed: Speed,
    /// Replay this many times
    #[arg(long = "loop", value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..))]
    loops: u64,
    /// Shorten longer pauses to this time
    #[arg(long, value_name = "DURATION", value_parser = times::parse_ns)]
    max_gap: Option<u64>,
    /// Limit for the 99th percentile of the send lag; a run above it is invalid
    #[arg(long, value_name = "DURATION", value_parser = times::parse_ns, default_value = LAG_MAX)]
    max_lag: u64,
    /// Move the times in the payload so that the first is now: a JSON field, a CSV column by number
    /// or by its name in the header, or a regular expression with one group
    #[arg(long, value_name = "COLUMN|REGEX", value_parser = TimeField::parse)]
    shift_time: Option<TimeField>,
    #[command(flatten)]
    selection: Selection,
}

/// Replays a capture.
pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    let files = events::files(&args.capture)?;
    let stop = super::import::stop_flag()?;
    let needs = Needs {
        files: &files,
        selection: &args.selection,
        loops: args.loops,
        has_datagram_sockets: args.to.is_some(),
    };
    needs.provide(&stop)?;
    let target = match (&args.to, &args.listen) {
        (Some(to), _) => Target::Server(resolve(to)?),
        (None, Some(at)) => Target::listen(&local(at)?)?,
        (None, None) => return Err(Failure::Wrong("NO_TARGET: give --to or --listen".to_string())),
    };
    let mut run = Run::new(args.speed, target, stop.clone())?;
    if args.shift_time.is_some() && !run.peers.wait_for_client(&stop)? {
        return Err(Failure::Failed("interrupted".to_string()));
    }
    let plan = Plan::start(files, args.options(), stop);
    let left_out = run.all(&plan)?;
    let outcome = run.report(args, &left_out);
    // What is wrong with the replay may be due to the damage.
    match (events::complain(&left_out.damage), outcome) {
        (Err(Failure::Failed(damage)), Err(Failure::Failed(other) | Failure::Wrong(other))) => {
            Err(Failure::Failed(format!("{damage}\nerror: {other}")))
        }
        (damage, outcome) => damage.and(outcome),
    }
}

/// Replays a whole capture to a server. Returns the lags of the data events' sends. Damage in the
/// capture is an error.
pub(crate) fn play_to(
    capture: &Path,
    to: SocketAddr,
    speed: Speed,
) -> Result<Histogram<u64>, Failure> {
    let stop = Arc::<AtomicBool>::default();
    let files = events::files(capture)?;
    let options = plan::Options {
        selection: Selection::default(),
        speed,
        loops: 1,
        max_gap_ns: None,
        shift_time: None,
    };
    let plan = Plan::start(files, options, stop.clone());
    let mut run = Run::new(speed, Target::Server(vec![to]), stop)?;
    let left_out = run.all(&plan)?;
    events::complain(&left_out.damage)?;
    Ok(run.lag)
}

impl Args {
    fn options(&self) -> plan::Options {
        plan::Options {
            selection: self.selection.clone(),
            speed: self.speed,
            loops: self.loops,
            max_gap_ns: self.max_gap,
            shift_time: self.shift_time.clone(),
        }
    }
}

struct Run {
    schedule: Schedule,
    peers: Peers,
    lag: Histogram<u64>,
    /// The lateness of the data that peers did not take at once.
    late: Lateness,
    stop: Arc<AtomicBool>,
    bytes: u64,
    events: u64,
}

impl Run {
    fn new(speed: Speed, target: Target, stop: Arc<AtomicBool>) -> Result<Self, Failure> {
        Ok(Self {
            schedule: Schedule::new(speed),
            peers: Peers::new(target)?,
            lag: histogram(),
            late: Lateness::new(),
            stop,
            bytes: 0,
            events: 0,
        })
    }

    /// Executes all events of the plan, unless the replay is stopped.
    fn all(&mut self, plan: &Plan) -> Result<plan::LeftOut, Failure> {
        let mut left_out = plan::LeftOut::default();
        for batch in &plan.batches {
            match batch {
                Batch::Events(events) => {
                    if !self.play(&events)? {
                        break;
                    }
                }
                Batch::End(found) => left_out = *found?,
            }
        }
        self.peers.finish(&self.stop);
        self.late = self.peers.take_lateness();
        for lags in self.late.lags.iter_recorded() {
            let (lag_ns, count) = (lags.value_iterated_to(), lags.count_at_value());
            self.lag.saturating_record_n(lag_ns, count);
        }
        Ok(left_out)
    }

    /// Executes events at their times. Returns false if the replay was stopped meanwhile.
    fn play(&mut self, events: &plan::Events) -> Result<bool, Failure> {
        for (event, payload) in events.iter() {
            if event.kind == Kind::Open && self.peers.waits_for_clients() {
                // The schedule starts with the first client.
                if !self.peers.accept(event, &self.stop)? {
                    return Ok(false);
                }
                self.postpone(event);
            }
            let lag_ns = self.schedule.wait(event.at_ns, &self.stop);
            if self.stop.load(Ordering::Relaxed) {
                return Ok(false);
            }
            let due = self.schedule.due(event.at_ns);
            let due = due.map_or_else(|| Due::Since(Instant::now()), Due::At);
            let is_sent = self.peers.act(event, payload, due, &self.stop)?;
            if event.kind == Kind::Data {
                self.bytes += payload.len() as u64;
                if is_sent {
                    self.lag.saturating_record(lag_ns.max(1));
                }
            }
            self.events += 1;
            self.postpone(event);
        }
        Ok(true)
    }

    /// Suspends the schedule for the time that an event has waited for a client.
    fn postpone(&mut self, event: &plan::Event) {
        if self.peers.take_waited() {
            self.schedule.postpone(event.at_ns);
        }
    }

    fn report(&self, args: &Args, left_out: &plan::LeftOut) -> Result<(), Failure> {
        let gaps = &left_out.gaps;
        let elapsed = self.schedule.elapsed();
        say!("events       {}", self.events);
        say!("connections  {}", self.peers.opened());
        say!("sent         {}", times::show_bytes(self.bytes));
        say!("received     {}", times::show_bytes(self.peers.received()));
        say!("time         {}", times::show_ns(elapsed.as_nanos() as u64));
        let rate = self.bytes as f64 / elapsed.as_secs_f64().max(1e-9);
        say!("rate         {}/s", times::show_bytes(rate as u64));
        if gaps.shortened > 0 {
            let cut = times::show_ns(gaps.cut_ns);
            say!("pauses       {} shortened, by {cut} together", gaps.shortened);
        }
        if gaps.missing_bytes > 0 {
            say!("missing      {} that the capture lacks", times::show_bytes(gaps.missing_bytes));
        }
        if gaps.missing_datagrams > 0 {
            say!("missing      {} datagrams that the capture lacks", gaps.missing_datagrams);
        }
        if let Some(shifted) = &left_out.shifted {
            say!("times moved  {} lines", shifted.moved);
            for (count, what) in [
                (shifted.without_time, "have no time there"),
                (shifted.out_of_range, "have a time whose format cannot hold the moved one"),
                (shifted.resized, "became longer or shorter"),
            ] {
                if count > 0 {
                    say!("             {count} lines {what}");
                }
            }
        }
        if !self.schedule.postponed().is_zero() {
            let waited = times::show_ns(self.schedule.postponed().as_nanos() as u64);
            say!("waited       {waited} for clients; later events were delayed by as much");
        }
        for line in self.late.lines() {
            say!("stalled      {line}");
        }
        if self.peers.lost_datagrams() > 0 {
            say!("refused      {} datagrams without a receiver", self.peers.lost_datagrams());
        }
        if self.peers.failed() > 0 {
            say!("refused      {} events whose peer had gone", self.peers.failed());
        }
        if self.stop.load(Ordering::Relaxed) {
            return Err(Failure::Failed("interrupted".to_string()));
        }
        if self.peers.failed() > 0 {
            return Err(Failure::Failed(format!(
                "REPLAY_INVALID: {} events were not sent, because their peer had closed the \
                connection. Look for the reason in the log of the peer",
                self.peers.failed()
            )));
        }
        if self.bytes == 0 && (self.events == 0 || args.selection.direction.is_some()) {
            return Err(Failure::Wrong(
                "CAPTURE_SELECTS_NOTHING: no data of the capture was replayed. Look at its content \
                with `millstream inspect`, and check --from, --to-time, --direction and --connection"
                    .to_string(),
            ));
        }
        if args.speed.is_max() {
            return Ok(());
        }
        let at = |percent| self.lag.value_at_quantile(percent / 100.0);
        let (half, most, last) = (at(50.0), at(99.0), self.lag.max());
        let [half, p99, last] = [half, most, last].map(times::show_ns);
        say!("send lag     p50 {half}, p99 {p99}, max {last}");
        if most > args.max_lag {
            return Err(Failure::Failed(format!(
                "REPLAY_INVALID: the send lag was {p99} at p99, above {}: this machine did not \
                keep the pace. Use more cores, a lower --speed, or a larger --max-lag",
                times::show_ns(args.max_lag)
            )));
        }
        say!("valid        yes: p99 is within {}", times::show_ns(args.max_lag));
        Ok(())
    }
}

/// The maximum wait for a peer: to connect, to acknowledge data before a reset, and to close at the
/// end.
const LINGER: Duration = Duration::from_secs(2);
