//! `millstream bench nexmark`: the NEXMark queries that Spark SQL can express, over the events of
//! an auction house, as JSON over two sockets.

use crate::bench::open_loop::{Measured, Traffic, intended, note};
use crate::bench::socket_job;
use crate::bench::socket_job::{ByHand, SocketJob, SocketQuery};
use crate::failure::Failure;
use clap::{Args as ClapArgs, ValueEnum};
use nexmark::EventGenerator;
use nexmark::config::NexmarkConfig;
use nexmark::event::Event;
use serde::Deserialize;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::io::Write;
use std::time::Duration;

#[derive(ClapArgs)]
#[command(after_help = "Examples:\n  \
    millstream bench nexmark\n  \
    millstream bench nexmark --query q5 --seconds 20\n  \
    millstream bench nexmark --query q0 --sweep\n\n\
    Of 50 events 1 is a person, 3 are auctions and 46 are bids, with the hot sellers, bidders and\n\
    auctions of the standard generator. q4 and q6 are left out: they aggregate results that change,\n\
    which SQL does not support. Latency is measured from the intended time of the event that causes a\n\
    result; for a window, of the first bid at or after its end. A hand-written loop, which parses with\n\
    serde, is the floor; each result is compared with the loop's for the same events.")]
pub(super) struct Args {
    /// The query; by default all
    #[arg(long, value_enum)]
    query: Option<Query>,
    /// How many times faster event time passes than the clock. Windows are 10 s long, sliding ones
    /// by 2 s
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=1000))]
    speed: u64,
    #[command(flatten)]
    sockets: socket_job::Args,
}

/// A query by its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Query {
    /// Every bid, unchanged
    Q0,
    /// Every bid, with its price in euros
    Q1,
    /// Bids for selected auctions
    Q2,
    /// Auctions of a category by sellers of selected states: a join without a time limit
    Q3,
    /// The auction with the most bids in each sliding window of 10 s by 2 s
    Q5,
    /// The highest bid in each window of 10 s
    Q7,
    /// Persons who opened an auction in the 10 s window in which they registered: a semi join
    Q8,
}

/// Runs the measurement and prints the results.
pub(super) fn run(args: &Args) -> Result<(), Failure> {
    let one = |query: Query| socket_job::run(&Auctions { query, speed: args.speed }, &args.sockets);
    match args.query {
        Some(query) => one(query),
        None => Query::value_variants().iter().copied().try_for_each(one),
    }
}

/// The first event time, in milliseconds: the end of a window.
const BASE_MS: u64 = 1_700_000_000_000;
/// Maximum number of prepared events. They are in memory as lines, with their results.
const MAX_EVENTS: u64 = 3_000_000;

struct Auctions {
    query: Query,
    speed: u64,
}

/// A subquery for the bids among the JSON lines.
const BIDS: &str = "(SELECT e.Bid.* FROM (SELECT from_json(value, 'Bid STRUCT<auction: BIGINT, \
                    bidder: BIGINT, price: BIGINT, channel: STRING, url: STRING, date_time: BIGINT, \
                    extra: STRING>') AS e FROM lines) WHERE e.Bid IS NOT NULL)";

/// A subquery for the persons among the lines.
const PERSONS: &str = "(SELECT e.Person.* FROM (SELECT from_json(value, 'Person STRUCT<id: BIGINT, \
                       name: STRING, city: STRING, state: STRING, date_time: BIGINT>') AS e FROM lines) \
                       WHERE e.Person IS NOT NULL)";

/// A subquery for the auctions among the lines.
const AUCTIONS: &str = "(SELECT e.Auction.* FROM (SELECT from_json(value, 'Auction STRUCT<id: BIGINT, \
                        seller: BIGINT, category: BIGINT, date_time: BIGINT>') AS e FROM lines) \
                        WHERE e.Auction IS NOT NULL)";

impl SocketJob for Auctions {
    fn name(&self) -> String {
        format!("nexmark {:?}", self.query).to_lowercase()
    }

    fn traffic(&self, rate: u64, seconds: u64) -> Result<Box<dyn Traffic + Send>, Failure> {
        let events = rate * seconds;
        if events > MAX_EVENTS {
            let reason = format!(
                "{events} events are needed, but at most {MAX_EVENTS} are generated before a \
                run. Use fewer --seconds, or a lower --rate"
            );
            return Err(Failure::Wrong(reason));
        }
        let prepared = Prepared::new(self.query, (rate / self.speed).max(1), events);
        if prepared.results.len() == 0 {
            let reason = "no window closes within so few --seconds; use a higher --speed";
            return Err(Failure::Wrong(reason.to_string()));
        }
        let joins = matches!(self.query, Query::Q3 | Query::Q8);
        let open = joins.then(|| prepared.open());
        Ok(Box::new(Run { prepared, open, rate, warm_up: events / 10 }))
    }

    fn query(&self) -> SocketQuery {
        let text = match self.query {
            Query::Q0 => {
                format!("SELECT auction, bidder, price, channel, url, date_time, extra FROM {BIDS}")
            }
            Query::Q1 => format!(
                "SELECT auction, bidder, 0.908 * price AS price, date_time, extra FROM {BIDS}"
            ),
            Query::Q2 => format!("SELECT auction, price FROM {BIDS} WHERE auction % 123 = 0"),
            Query::Q3 => format!(
                "SELECT p.name, p.city, p.state, a.id FROM {AUCTIONS} AS a JOIN {PERSONS} AS p \
                 ON a.seller = p.id WHERE a.category = 10 AND p.state IN ('or', 'id', 'ca')"
            ),
            Query::Q8 => {
                let timed = |lines: &str, columns: &str| {
                    format!(
                        "(SELECT {columns}, window(ts, '10 seconds') AS w FROM (SELECT *, \
                         timestamp_millis(date_time) AS ts FROM {lines}) \
                         WATERMARK ts DELAY OF INTERVAL 0 SECONDS)"
                    )
                };
                format!(
                    "SELECT p.id, p.name, unix_millis(p.w.start) FROM {} AS p LEFT SEMI JOIN {} AS a \
                     ON p.id = a.seller AND p.w = a.w",
                    timed(PERSONS, "id, name"),
                    timed(AUCTIONS, "seller")
                )
            }
            Query::Q5 => format!(
                "SELECT unix_millis(window.end), hot.auction, hot.bids FROM (SELECT window, \
                 max(named_struct('bids', bids, 'auction', auction)) AS hot FROM (SELECT window, auction, \
                 count(*) AS bids FROM (SELECT timestamp_millis(date_time) AS ts, auction FROM {BIDS}) \
                 WATERMARK ts DELAY OF INTERVAL 0 SECONDS \
                 GROUP BY window(ts, '10 seconds', '2 seconds'), auction) GROUP BY window)"
            ),
            Query::Q7 => format!(
                "SELECT unix_millis(window.end), high.price, high.auction, high.bidder FROM (SELECT \
                 window, max(named_struct('price', price, 'auction', auction, 'bidder', bidder)) AS high \
                 FROM (SELECT timestamp_millis(date_time) AS ts, price, auction, bidder FROM {BIDS}) \
                 WATERMARK ts DELAY OF INTERVAL 0 SECONDS GROUP BY window(ts, '10 seconds'))"
            ),
        };
        SocketQuery { text, mode: "append", format: "csv" }
    }

    fn by_hand(&self) -> ByHand {
        let mut hand = HandWritten::new(self.query);
        Box::new(move |line, out| {
            // The generator's lines are all well formed.
            match serde_json::from_slice(line) {
                Ok(Line::Bid(bid)) => hand.bid(&bid, out),
                Ok(Line::Person(person)) => hand.person(&person, out),
                Ok(Line::Auction(auction)) => hand.auction(&auction, out),
                Err(_) => {}
            }
        })
    }
}

/// A parsed JSON line.
#[derive(Deserialize)]
enum Line<'l> {
    #[serde(borrow)]
    Person(Person<'l>),
    Auction(Auction),
    #[serde(borrow)]
    Bid(Bid<'l>),
}

#[derive(Deserialize)]
struct Person<'l> {
    id: u64,
    name: &'l str,
    city: &'l str,
    state: &'l str,
    date_time: u64,
}

#[derive(Deserialize)]
struct Auction {
    id: u64,
    seller: u64,
    category: u64,
    date_time: u64,
}

#[derive(Deserialize)]
struct Bid<'l> {
    auction: u64,
    bidder: u64,
    price: u64,
    channel: &'l str,
    url: &'l str,
    date_time: u64,
    extra: &'l str,
}

/// A hand-written implementation of a query.
struct HandWritten {
    query: Query,
    /// The number of bids per auction, by the end of the window.
    counts: BTreeMap<u64, HashMap<u64, u64>>,
    /// The highest price with its auction and bidder, by the end of the window.
    highest: BTreeMap<u64, (u64, u64, u64)>,
    /// The output text of persons, by id.
    persons: HashMap<u64, String>,
    /// The auctions by seller.
    auctions: HashMap<u64, Vec<u64>>,
    /// Persons and sellers without a match so far, by the start of the window.
    opened: HashMap<u64, Opened>,
}

/// The events of a window.
#[derive(Default)]
struct Opened {
    /// Persons without an auction, by id.
    persons: HashMap<u64, String>,
    sellers: HashSet<u64>,
}

impl HandWritten {
    fn new(query: Query) -> Self {
        Self {
            query,
            counts: BTreeMap::new(),
            highest: BTreeMap::new(),
            persons: HashMap::new(),
            auctions: HashMap::new(),
            opened: HashMap::new(),
        }
    }

    fn person(&mut self, person: &Person<'_>, out: &mut Vec<u8>) {
        let Person { id, name, city, state, date_time } = person;
        match self.query {
            Query::Q3 if ["or", "id", "ca"].contains(state) => {
                let shown = format!("{name},{city},{state}");
                for auction in self.auctions.get(id).into_iter().flatten() {
                    // Writing into memory does not fail.
                    let _ = writeln!(out, "{shown},{auction}");
                }
                self.persons.insert(*id, shown);
            }
            Query::Q8 => {
                let start = date_time / 10_000 * 10_000;
                let opened = self.opened.entry(start).or_default();
                if opened.sellers.contains(id) {
                    let _ = writeln!(out, "{id},{name},{start}");
                } else {
                    opened.persons.insert(*id, (*name).to_string());
                }
            }
            _ => {}
        }
    }

    fn auction(&mut self, auction: &Auction, out: &mut Vec<u8>) {
        let Auction { id, seller, category, date_time } = auction;
        match self.query {
            Query::Q3 if *category == 10 => {
                if let Some(shown) = self.persons.get(seller) {
                    // Writing into memory does not fail.
                    let _ = writeln!(out, "{shown},{id}");
                }
                self.auctions.entry(*seller).or_default().push(*id);
            }
            Query::Q8 => {
                let start = date_time / 10_000 * 10_000;
                let opened = self.opened.entry(start).or_default();
                if let Some(name) = opened.persons.remove(seller) {
                    let _ = writeln!(out, "{seller},{name},{start}");
                }
                opened.sellers.insert(*seller);
            }
            _ => {}
        }
    }

    fn bid(&mut self, bid: &Bid<'_>, out: &mut Vec<u8>) {
        let Bid { auction, bidder, price, channel, url, date_time, extra } = bid;
        // Writing into memory does not fail.
        let _ = match self.query {
            Query::Q0 => {
                writeln!(out, "{auction},{bidder},{price},{channel},{url},{date_time},{extra}")
            }
            Query::Q1 => {
                let mils = price * 908;
                let (whole, rest) = (mils / 1000, mils % 1000);
                writeln!(out, "{auction},{bidder},{whole}.{rest:03},{date_time},{extra}")
            }
            Query::Q2 if auction % 123 == 0 => writeln!(out, "{auction},{price}"),
            Query::Q2 | Query::Q3 | Query::Q8 => Ok(()),
            Query::Q5 => {
                while let Some(counts) = over(&mut self.counts, *date_time) {
                    let (end, counts) = counts;
                    let hot = counts.into_iter().map(|(auction, bids)| (bids, auction)).max();
                    let (bids, auction) = hot.unwrap_or_default();
                    let _ = writeln!(out, "{end},{auction},{bids}");
                }
                let first = date_time / 2_000 * 2_000 + 2_000;
                for end in (first..first + 10_000).step_by(2_000) {
                    *self.counts.entry(end).or_default().entry(*auction).or_default() += 1;
                }
                Ok(())
            }
            Query::Q7 => {
                while let Some((end, (price, auction, bidder))) =
                    over(&mut self.highest, *date_time)
                {
                    let _ = writeln!(out, "{end},{price},{auction},{bidder}");
                }
                let highest = self.highest.entry(date_time / 10_000 * 10_000 + 10_000).or_default();
                *highest = (*highest).max((*price, *auction, *bidder));
                Ok(())
            }
        };
    }
}

/// Removes and returns a window that ended before a time.
fn over<T>(windows: &mut BTreeMap<u64, T>, time: u64) -> Option<(u64, T)> {
    if *windows.first_key_value()?.0 > time {
        return None;
    }
    windows.pop_first()
}

/// Concatenated lines without line ends.
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

/// All events and results of a run, prepared so that the generator has little to do.
struct Prepared {
    events: Lines,
    results: Lines,
    /// The event that causes each result.
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
            // Events can always be written as JSON, and writing to memory does not fail.
            let _ = serde_json::to_writer(&mut *bytes, &event);
            ends.push(bytes.len());
            if let Event::Bid(bid) = &event {
                let bid = Bid {
                    auction: bid.auction as u64,
                    bidder: bid.bidder as u64,
                    price: bid.price as u64,
                    channel: &bid.channel,
                    url: &bid.url,
                    date_time: bid.date_time,
                    extra: &bid.extra,
                };
                hand.bid(&bid, &mut out);
            }
            if let Event::Person(person) = &event {
                let person = Person {
                    id: person.id as u64,
                    name: &person.name,
                    city: &person.city,
                    state: &person.state,
                    date_time: person.date_time,
                };
                hand.person(&person, &mut out);
            }
            if let Event::Auction(auction) = &event {
                let auction = Auction {
                    id: auction.id as u64,
                    seller: auction.seller as u64,
                    category: auction.category as u64,
                    date_time: auction.date_time,
                };
                hand.auction(&auction, &mut out);
            }
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
    /// All results with their causes.
    fn open(&self) -> HashMap<Vec<u8>, Vec<u64>> {
        let mut open: HashMap<Vec<u8>, Vec<u64>> = HashMap::new();
        for (at, cause) in self.causes.iter().enumerate() {
            open.entry(self.results.get(at).to_vec()).or_default().push(*cause);
        }
        open
    }
}

/// One round, or several consecutive ones.
struct Run {
    prepared: Prepared,
    /// For a join, whose sides arrive on two paths, so that neighbouring results may be swapped:
    /// the missing results, each with its causes.
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
                    format!(
                        "result {at} is '{}', which is invalid or a duplicate",
                        line.escape_ascii()
                    )
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

    #[test]
    fn windows_by_hand_are_right() {
        let mut hand = [Query::Q5, Query::Q7].map(HandWritten::new);
        let mut out = [Vec::new(), Vec::new()];
        for (date_time, auction, price) in
            [(11_000, 7, 5), (11_999, 8, 9), (12_000, 8, 9), (13_000, 7, 1), (20_000, 9, 2)]
        {
            let bid = Bid { auction, bidder: 1, price, channel: "", url: "", date_time, extra: "" };
            hand.iter_mut().zip(&mut out).for_each(|(hand, out)| hand.bid(&bid, out));
        }
        let text = |out: &[u8]| String::from_utf8(out.to_vec()).unwrap();
        assert_eq!(text(&out[0]), "12000,8,1\n14000,8,2\n16000,8,2\n18000,8,2\n20000,8,2\n");
        assert_eq!(text(&out[1]), "20000,9,8,1\n");
    }

    #[test]
    fn joins_by_hand_are_right() {
        let mut hand = [Query::Q3, Query::Q8].map(HandWritten::new);
        let mut out = [Vec::new(), Vec::new()];
        let person = |id, state, date_time| Person { id, name: "n", city: "c", state, date_time };
        let auction = |id, seller, date_time| Auction { id, seller, category: 10, date_time };
        for (hand, out) in hand.iter_mut().zip(&mut out) {
            hand.auction(&auction(1, 7, 10_000), out);
            hand.person(&person(7, "or", 19_999), out);
            hand.auction(&auction(2, 7, 19_999), out);
            hand.person(&person(8, "ny", 20_000), out);
            hand.auction(&auction(3, 8, 20_001), out);
            hand.auction(&auction(4, 7, 20_001), out);
        }
        let text = |out: &[u8]| String::from_utf8(out.to_vec()).unwrap();
        assert_eq!(text(&out[0]), "n,c,or,1\nn,c,or,2\nn,c,or,4\n");
        assert_eq!(text(&out[1]), "7,n,10000\n8,n,20000\n");
    }

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
        assert!(lines.all(|line| serde_json::from_slice::<Line<'_>>(line).is_ok()));
    }
}
