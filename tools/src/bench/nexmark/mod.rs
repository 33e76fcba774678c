//! `millstream bench nexmark`: the queries of the NEXMark benchmark that the language can express,
//! over events of an auction house, which are sent and received over two sockets. The events are
//! JSON, the results CSV.
//!
//! | module | contents |
//! |---|---|
//! | [`queries`] | the queries as SQL; one has a function with state, too |
//! | [`by_hand`] | the queries in hand-written code |

mod by_hand;
mod queries;

use crate::bench::open_loop::{Measured, SocketQuery, Traffic, intended, note};
use crate::bench::socket_job;
use crate::bench::socket_job::{ByHand, SocketJob};
use crate::failure::Failure;
use by_hand::HandWritten;
use clap::{Args as ClapArgs, ValueEnum};
use nexmark::EventGenerator;
use nexmark::config::NexmarkConfig;
use std::collections::HashMap;
use std::time::Duration;

#[derive(ClapArgs)]
#[command(after_help = "Examples:\n  \
    millstream bench nexmark\n  \
    millstream bench nexmark --query q5 --seconds 20\n  \
    millstream bench nexmark --query q0 --sweep\n\n\
    Of 50 events 1 is a person, 3 are auctions and 46 are bids, in the proportions of hot sellers,\n\
    bidders and auctions of the standard generator. An auction is looked at for 10 s, and q4 gives\n\
    the mean of those that began in a window. Latency counts from the intended time of the event that\n\
    a result comes from: of a window, the first bid at or behind its end. Each result is compared with\n\
    what the loop by hand gives for the same events; that loop, which parses with serde, is the floor.")]
pub(super) struct Args {
    /// The query to run; by default all
    #[arg(long, value_enum)]
    query: Option<Query>,
    /// Speed of event time, as a multiple of real time. Windows are 10 s of event time
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=1000))]
    speed: u64,
    #[command(flatten)]
    sockets: socket_job::Args,
}

/// A query, by its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Query {
    /// Every bid as it is
    Q0,
    /// Every bid, its price in euros
    Q1,
    /// Bids for some auctions
    Q2,
    /// Auctions of a category by sellers of some states: a join without an end
    Q3,
    /// The mean price of the best bids in each category, per window of 10 s: a join and two
    /// aggregations
    Q4,
    /// The auction with the most bids in each window of 10 s that slides by 2 s
    Q5,
    /// The mean price of the best bids of a seller's last ten auctions: a join, an aggregation and
    /// state per seller
    Q6,
    /// The highest bid in each window of 10 s
    Q7,
    /// Persons who have opened an auction in the same 10 s window as their registration: a semi
    /// join
    Q8,
    /// The best bid of each auction, when it is over: a join and an aggregation
    Q9,
    /// The number of bids in each bidder's session, which ends after 10 s without a bid
    Q11,
    /// Every bid with the matching row of a table
    Q13,
    /// Bids of some prices, with the part of the day and a count of letters
    Q14,
    /// Statistics of each auction and day, updated with every bid
    Q17,
    /// The last bid of each bidder for an auction, updated with every bid
    Q18,
    /// Bids for auctions of a category, with the auction's columns: a join without an end
    Q20,
    /// Bids with the number of their channel, by a regular expression
    Q21,
    /// Bids with the folders of their addresses
    Q22,
}

impl Query {
    /// Whether the order of results is not defined. Events reach the two sides of a join on
    /// different paths, and sessions may end at the same time.
    fn is_unordered(self) -> bool {
        use Query::{Q3, Q4, Q6, Q8, Q9, Q11, Q20};
        matches!(self, Q3 | Q4 | Q6 | Q8 | Q9 | Q11 | Q20)
    }
}

/// Runs the measurement of one query or of all, and prints the results. Stops at the first query
/// that fails.
pub(super) fn run(args: &Args) -> Result<(), Failure> {
    let one = |query: Query| socket_job::run(&Auctions { query, speed: args.speed }, &args.sockets);
    match args.query {
        Some(query) => one(query),
        None => Query::value_variants().iter().copied().try_for_each(one),
    }
}

/// The event time of the first event, in milliseconds.
const BASE_MS: u64 = 1_700_000_000_000;
/// Maximum number of events of a run. All of them and their results are prepared in memory.
const MAX_EVENTS: u64 = 3_000_000;

struct Auctions {
    query: Query,
    speed: u64,
}

impl SocketJob for Auctions {
    fn name(&self) -> String {
        format!("nexmark {:?}", self.query).to_lowercase()
    }

    fn traffic(&self, rate: u64, seconds: u64) -> Result<Box<dyn Traffic + Send>, Failure> {
        let events = rate * seconds;
        if events > MAX_EVENTS {
            let reason = format!(
                "{events} events: they are made before the run, at most {MAX_EVENTS} of them. Give \
                 fewer --seconds, or a lower --rate"
            );
            return Err(Failure::Wrong(reason));
        }
        let prepared = Prepared::new(self.query, (rate / self.speed).max(1), events);
        if prepared.results.len() == 0 {
            let reason = "no window is over within so few --seconds; try a higher --speed";
            return Err(Failure::Wrong(reason.to_string()));
        }
        let open = self.query.is_unordered().then(|| prepared.open());
        Ok(Box::new(Run { prepared, open, rate, warm_up: events / 10 }))
    }

    fn query(&self) -> SocketQuery {
        queries::of(self.query)
    }

    fn by_hand(&self) -> ByHand {
        let mut hand = HandWritten::new(self.query);
        Box::new(move |line, out| hand.line(line, out))
    }
}

/// Lines in one buffer, without their line ends.
#[derive(Default)]
struct Lines {
    bytes: Vec<u8>,
    ends: Vec<usize>,
}

impl Lines {
    fn len(&self) -> usize {
        self.ends.len()
    }

    fn get(&self, at: usize) -> &[u8] {
        let from = at.checked_sub(1).map_or(0, |before| self.ends[before]);
        &self.bytes[from..self.ends[at]]
    }
}

/// All events and expected results of a run, prepared so that the generator has little to do during
/// the run.
struct Prepared {
    events: Lines,
    results: Lines,
    /// For each result, the number of the event that causes it.
    causes: Vec<u64>,
}

impl Prepared {
    fn new(query: Query, events_a_second: u64, events: u64) -> Self {
        let rate = events_a_second as usize;
        let config = NexmarkConfig {
            base_time: BASE_MS,
            first_rate: rate,
            next_rate: rate,
            ..NexmarkConfig::default()
        };
        let (mut hand, mut out) = (HandWritten::new(query), Vec::new());
        let mut made =
            Self { events: Lines::default(), results: Lines::default(), causes: Vec::new() };
        for (seq, event) in EventGenerator::new(config).take(events as usize).enumerate() {
            let Lines { bytes, ends } = &mut made.events;
            // Serialising an event cannot fail: it has only JSON types, and the writer is a buffer
            // in memory.
            let _ = serde_json::to_writer(&mut *bytes, &event);
            ends.push(bytes.len());
            hand.line(made.events.get(seq), &mut out);
            for line in out.split_inclusive(|b| *b == b'\n') {
                made.results.bytes.extend_from_slice(&line[..line.len() - 1]);
                made.results.ends.push(made.results.bytes.len());
                made.causes.push(seq as u64);
            }
            out.clear();
        }
        made
    }
}

impl Prepared {
    /// All expected results, each with the numbers of the events that cause it.
    fn open(&self) -> HashMap<Vec<u8>, Vec<u64>> {
        let mut open: HashMap<Vec<u8>, Vec<u64>> = HashMap::new();
        for (at, cause) in self.causes.iter().enumerate() {
            open.entry(self.results.get(at).to_vec()).or_default().push(*cause);
        }
        open
    }
}

/// The traffic of a round. It can be used for several rounds, one after another.
struct Run {
    prepared: Prepared,
    /// If the order of results is not defined: the results that have not arrived yet, each with the
    /// numbers of the events that cause it.
    open: Option<HashMap<Vec<u8>, Vec<u64>>>,
    rate: u64,
    warm_up: u64,
}

impl Traffic for Run {
    fn lines(&self) -> (u64, u64) {
        (self.rate, self.prepared.events.len() as u64)
    }
    fn results(&self) -> u64 {
        self.prepared.results.len() as u64
    }
    fn write_line(&self, seq: u64, out: &mut Vec<u8>) {
        out.extend_from_slice(self.prepared.events.get(seq as usize));
        out.push(b'\n');
    }
    fn is_measured(&self, seq: u64) -> bool {
        seq >= self.warm_up
    }
    fn result(
        &mut self,
        line: &[u8],
        arrived: Duration,
        measured: &mut Measured,
    ) -> Result<(), String> {
        let at = measured.results as usize - 1;
        let cause = match &mut self.open {
            Some(open) => {
                if at == 0 {
                    *open = self.prepared.open();
                }
                let cause = open.get_mut(line).and_then(Vec::pop);
                cause.ok_or_else(|| {
                    format!("result {at} is '{}', which is none or came twice", line.escape_ascii())
                })?
            }
            None => {
                let expected = self.prepared.results.get(at);
                if line != expected {
                    let (line, expected) = (line.escape_ascii(), expected.escape_ascii());
                    return Err(format!("result {at} is '{line}', not '{expected}'"));
                }
                self.prepared.causes[at]
            }
        };
        if self.is_measured(cause) {
            note(&mut measured.latency, intended(cause, self.rate), arrived);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nexmark::event::Event;

    #[test]
    fn events_are_the_same_each_time_in_the_standard_proportions() {
        let made = [0, 1].map(|_| Prepared::new(Query::Q0, 1000, 5_000));
        assert_eq!(made[0].events.bytes, made[1].events.bytes);
        let of = |kind: &[u8]| {
            let is = |at: &usize| made[0].events.get(*at).starts_with(kind);
            (0..5_000).filter(is).count()
        };
        let kinds = [of(b"{\"Person\""), of(b"{\"Auction\""), of(b"{\"Bid\"")];
        assert_eq!(kinds, [100, 300, 4_600]);
        assert_eq!(made[0].results.len(), 4_600);
        let mut lines = (0..5_000).map(|at| made[0].events.get(at));
        assert!(lines.all(|line| serde_json::from_slice::<Event>(line).is_ok()));
    }
}
