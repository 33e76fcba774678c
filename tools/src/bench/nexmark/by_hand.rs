//! The NEXMark queries in hand-written code. Its results are the expected ones.

use super::Query;
use serde::Deserialize;
use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::fmt::Arguments;
use std::io::Write;

/// Appends a line.
fn line(out: &mut Vec<u8>, text: Arguments<'_>) {
    // Writing into memory does not fail.
    let _ = writeln!(out, "{text}");
}

/// An event, parsed from a line of JSON.
#[derive(Deserialize)]
enum Line<'l> {
    #[serde(borrow)]
    Person(Person<'l>),
    #[serde(borrow)]
    Auction(Auction<'l>),
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
struct Auction<'l> {
    id: u64,
    item_name: &'l str,
    seller: u64,
    category: u64,
    date_time: u64,
    expires: u64,
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

/// The hand-written implementation of one query, with the state of all of them.
pub(super) struct HandWritten {
    query: Query,
    /// Q5: the number of bids per auction, by the end of the window.
    counts: BTreeMap<u64, HashMap<u64, u64>>,
    /// Q7: the highest price with its auction and bidder, by the end of the window.
    highest: BTreeMap<u64, (u64, u64, u64)>,
    /// Q3: the printed columns of each matching person, by the person's id.
    persons: HashMap<u64, String>,
    /// Q3: the ids of each seller's auctions, by the seller's id.
    auctions: HashMap<u64, Vec<u64>>,
    /// Q8: the persons and sellers of each window, by the start of the window.
    opened: HashMap<u64, Opened>,
    winners: Winners,
    sessions: Sessions,
    /// Q17: the statistics of the bids, by auction and day.
    statistics: HashMap<(u64, u64), Statistics>,
    /// Q18: the time and the price of the last bid, by auction and bidder.
    last: HashMap<(u64, u64), (u64, u64)>,
    /// Q20: the auctions of the category, by id.
    items: HashMap<u64, String>,
    /// Q20: the bidder and the price of each bid, by auction id.
    waiting: HashMap<u64, Vec<(u64, u64)>>,
}

/// Q8: the persons and the sellers that have been seen in a window.
#[derive(Default)]
struct Opened {
    /// The names of persons who have not opened an auction in the window yet, by the person's id.
    persons: HashMap<u64, String>,
    sellers: HashSet<u64>,
}

/// A bid in the order of comparison: the price, the negated time (so the earlier bid is larger) and
/// the bidder.
type Offer = (u64, i64, u64);

/// An auction that has not ended, with its best bid so far.
struct Running {
    seller: u64,
    category: u64,
    expires: u64,
    best: Option<Offer>,
}

/// The time from the start of an auction in which its bids count, in microseconds.
const LONGEST_US: u64 = 10_000_000;
/// The watermark delay of auctions and bids, in microseconds.
const DELAY_US: u64 = 1_000_000;

/// The start time of an auction, in microseconds. Auctions of the same millisecond differ.
fn start_us(auction: &Auction<'_>) -> u64 {
    auction.date_time * 1000 + auction.id % 999
}

/// The time of a bid, in microseconds: behind all auctions of its millisecond.
fn bid_us(date_time: u64) -> u64 {
    date_time * 1000 + 998
}

/// Q4, Q6 and Q9: the auctions that have not ended, and their best bids.
#[derive(Default)]
struct Winners {
    /// Auctions by start time, in microseconds, and id.
    running: BTreeMap<(u64, u64), Running>,
    began: HashMap<u64, u64>,
    /// Bids whose auction has not arrived yet or has ended, by auction id.
    early: HashMap<u64, Vec<Offer>>,
    /// The largest time of an auction and of a bid, in milliseconds, as watermarks are.
    seen: [u64; 2],
    /// Q4: the sum and the number of prices, by the end of the window, in milliseconds, and the
    /// category.
    means: BTreeMap<(u64, u64), (u64, u64)>,
    /// Q6: the last ten prices, by seller.
    sold: HashMap<u64, VecDeque<u64>>,
}

impl Winners {
    fn auction(&mut self, auction: &Auction<'_>) {
        let Auction { id, seller, category, expires, .. } = *auction;
        let start = start_us(auction);
        self.seen[0] = self.seen[0].max(auction.date_time);
        self.began.insert(id, start);
        self.running.insert((start, id), Running { seller, category, expires, best: None });
        for offer in self.early.remove(&id).unwrap_or_default() {
            self.offer(id, offer);
        }
    }

    fn bid(&mut self, bid: &Bid<'_>) {
        self.seen[1] = self.seen[1].max(bid.date_time);
        self.offer(bid.auction, (bid.price, -(bid.date_time as i64), bid.bidder));
    }

    fn offer(&mut self, auction: u64, offer: Offer) {
        let Some(began) = self.began.get(&auction) else {
            self.early.entry(auction).or_default().push(offer);
            return;
        };
        let time_ms = offer.1.unsigned_abs();
        if let Some(running) = self.running.get_mut(&(*began, auction))
            && (*began..*began + LONGEST_US).contains(&bid_us(time_ms))
            && time_ms <= running.expires
        {
            running.best = running.best.max(Some(offer));
        }
    }

    /// The latest start time, in microseconds, of auctions that have ended: later auctions may
    /// still get bids.
    fn over_us(&self) -> u64 {
        (self.seen[0].min(self.seen[1]) * 1000).saturating_sub(DELAY_US + LONGEST_US)
    }

    fn next_over(&mut self) -> Option<(u64, u64, Running)> {
        let (time, id) = *self.running.first_key_value()?.0;
        if time > self.over_us() {
            return None;
        }
        let (_, running) = self.running.pop_first()?;
        self.began.remove(&id);
        Some((time, id, running))
    }

    /// Writes the best bids of the auctions that have ended.
    fn write(&mut self, out: &mut Vec<u8>) {
        while let Some((_, id, running)) = self.next_over() {
            let Running { seller, category, best, .. } = running;
            if let Some((price, early, bidder)) = best {
                line(out, format_args!("{id},{seller},{category},{price},{bidder},{}", -early));
            }
        }
    }

    /// Writes, for each auction that has ended, the mean price of the seller's last ten auctions.
    fn write_sold(&mut self, out: &mut Vec<u8>) {
        while let Some((_, _, running)) = self.next_over() {
            if let Some((price, ..)) = running.best {
                let sold = self.sold.entry(running.seller).or_default();
                if sold.len() == 10 {
                    sold.pop_front();
                }
                sold.push_back(price);
                let mean = sold.iter().sum::<u64>() / sold.len() as u64;
                line(out, format_args!("{},{mean}", running.seller));
            }
        }
    }

    /// Writes the mean prices of the windows that have closed.
    fn write_means(&mut self, out: &mut Vec<u8>) {
        while let Some((time, _, running)) = self.next_over() {
            if let Some((price, ..)) = running.best {
                let end = time / 10_000_000 * 10_000 + 10_000;
                let mean = self.means.entry((end, running.category)).or_default();
                *mean = (mean.0 + price, mean.1 + 1);
            }
        }
        let over_ms = self.over_us() / 1000;
        while let Some(entry) = self.means.first_entry().filter(|entry| entry.key().0 <= over_ms) {
            let ((end, category), (sum, count)) = entry.remove_entry();
            let mean = sum as f64 / count as f64;
            line(out, format_args!("{end},{category},{}", mean as u64));
        }
    }
}

/// The gap of inactivity that ends a session, in milliseconds.
const GAP_MS: u64 = 10_000;

/// Q11: the open sessions of the bidders.
#[derive(Default)]
struct Sessions {
    /// The first bid's time, the last bid's time and the number of bids, by bidder.
    of_bidders: HashMap<u64, (u64, u64, u64)>,
    /// The end and the bidder of each session, ordered by the end.
    ends: BTreeMap<(u64, u64), ()>,
}

impl Sessions {
    fn bid(&mut self, bid: &Bid<'_>, out: &mut Vec<u8>) {
        let Bid { bidder, date_time, .. } = *bid;
        let session = self.of_bidders.entry(bidder).or_insert((date_time, date_time, 0));
        self.ends.remove(&(session.1 + GAP_MS, bidder));
        *session = (session.0, date_time, session.2 + 1);
        self.ends.insert((date_time + GAP_MS, bidder), ());
        while let Some(entry) = self.ends.first_entry().filter(|entry| entry.key().0 <= date_time) {
            let ((end, bidder), ()) = entry.remove_entry();
            if let Some((begin, _, count)) = self.of_bidders.remove(&bidder) {
                line(out, format_args!("{bidder},{count},{begin},{end}"));
            }
        }
    }
}

/// Q17: the statistics of the bids for one auction on one day.
struct Statistics {
    /// The number of prices below 10,000, from 10,000 to below 1,000,000, and from 1,000,000 on.
    ranks: [u64; 3],
    least: u64,
    most: u64,
    sum: u64,
}

impl HandWritten {
    pub fn new(query: Query) -> Self {
        Self {
            query,
            counts: BTreeMap::new(),
            highest: BTreeMap::new(),
            persons: HashMap::new(),
            auctions: HashMap::new(),
            opened: HashMap::new(),
            winners: Winners::default(),
            sessions: Sessions::default(),
            statistics: HashMap::new(),
            last: HashMap::new(),
            items: HashMap::new(),
            waiting: HashMap::new(),
        }
    }

    /// Processes a line and appends the results that it causes. Lines that do not parse are
    /// ignored.
    pub fn line(&mut self, line: &[u8], out: &mut Vec<u8>) {
        match serde_json::from_slice(line) {
            Ok(Line::Bid(bid)) => self.bid(&bid, out),
            Ok(Line::Person(person)) => self.person(&person, out),
            Ok(Line::Auction(auction)) => self.auction(&auction, out),
            Err(_) => {}
        }
    }

    fn person(&mut self, person: &Person<'_>, out: &mut Vec<u8>) {
        let Person { id, name, city, state, date_time } = person;
        match self.query {
            Query::Q3 if ["or", "id", "ca"].contains(state) => {
                let shown = format!("{name},{city},{state}");
                for auction in self.auctions.get(id).into_iter().flatten() {
                    line(out, format_args!("{shown},{auction}"));
                }
                self.persons.insert(*id, shown);
            }
            Query::Q8 => {
                let start = date_time / 10_000 * 10_000;
                let opened = self.opened.entry(start).or_default();
                if opened.sellers.contains(id) {
                    line(out, format_args!("{id},{name},{start}"));
                } else {
                    opened.persons.insert(*id, (*name).to_string());
                }
            }
            _ => {}
        }
    }

    fn auction(&mut self, auction: &Auction<'_>, out: &mut Vec<u8>) {
        let Auction { id, item_name, seller, category, date_time, .. } = auction;
        match self.query {
            Query::Q3 if *category == 10 => {
                if let Some(shown) = self.persons.get(seller) {
                    line(out, format_args!("{shown},{id}"));
                }
                self.auctions.entry(*seller).or_default().push(*id);
            }
            Query::Q4 => {
                self.winners.auction(auction);
                self.winners.write_means(out);
            }
            Query::Q6 => {
                self.winners.auction(auction);
                self.winners.write_sold(out);
            }
            Query::Q8 => {
                let start = date_time / 10_000 * 10_000;
                let opened = self.opened.entry(start).or_default();
                if let Some(name) = opened.persons.remove(seller) {
                    line(out, format_args!("{seller},{name},{start}"));
                }
                opened.sellers.insert(*seller);
            }
            Query::Q9 => {
                self.winners.auction(auction);
                self.winners.write(out);
            }
            Query::Q20 if *category == 10 => {
                let item = format!("{item_name},{seller}");
                for (bidder, price) in self.waiting.get(id).into_iter().flatten() {
                    line(out, format_args!("{id},{bidder},{price},{item}"));
                }
                self.items.insert(*id, item);
            }
            _ => {}
        }
    }

    fn bid(&mut self, bid: &Bid<'_>, out: &mut Vec<u8>) {
        match self.query {
            Query::Q3 | Query::Q8 => {}
            Query::Q4 => {
                self.winners.bid(bid);
                self.winners.write_means(out);
            }
            Query::Q6 => {
                self.winners.bid(bid);
                self.winners.write_sold(out);
            }
            Query::Q9 => {
                self.winners.bid(bid);
                self.winners.write(out);
            }
            Query::Q5 | Query::Q7 => self.window(bid, out),
            Query::Q11 => self.sessions.bid(bid, out),
            Query::Q17 => self.statistics(bid, out),
            Query::Q18 => {
                let Bid { auction, bidder, price, date_time, .. } = *bid;
                let last = self.last.entry((auction, bidder)).or_default();
                *last = (*last).max((date_time, price));
                let (time, price) = *last;
                line(out, format_args!("{auction},{bidder},{price},{time}"));
            }
            Query::Q20 => {
                let Bid { auction, bidder, price, .. } = *bid;
                if let Some(item) = self.items.get(&auction) {
                    line(out, format_args!("{auction},{bidder},{price},{item}"));
                }
                self.waiting.entry(auction).or_default().push((bidder, price));
            }
            _ => self.projection(bid, out),
        }
    }

    /// Q0, Q1, Q2, Q13, Q14, Q21 and Q22: each result depends on one bid alone.
    fn projection(&self, bid: &Bid<'_>, out: &mut Vec<u8>) {
        let Bid { auction, bidder, price, channel, url, date_time, extra } = bid;
        let euros = || {
            let mils = price * 908;
            format!("{}.{:03}", mils / 1000, mils % 1000)
        };
        match self.query {
            Query::Q1 => {
                line(out, format_args!("{auction},{bidder},{},{date_time},{extra}", euros()))
            }
            Query::Q2 if auction % 123 == 0 => line(out, format_args!("{auction},{price}")),
            Query::Q2 => {}
            Query::Q13 => {
                line(out, format_args!("{auction},{bidder},{price},side-{}", auction % 10_000))
            }
            Query::Q14 => {
                let mils = price * 908;
                if mils <= 1_000_000_000 || mils >= 50_000_000_000 {
                    return;
                }
                let part = match date_time / 3_600_000 % 24 {
                    8..=18 => "dayTime",
                    0..=6 | 20.. => "nightTime",
                    _ => "otherTime",
                };
                let letters = extra.bytes().filter(|b| *b == b'c').count();
                let euros = euros();
                line(
                    out,
                    format_args!("{auction},{bidder},{euros},{part},{date_time},{extra},{letters}"),
                )
            }
            Query::Q21 => {
                let id = match channel.to_ascii_lowercase().as_str() {
                    "apple" => "0",
                    "google" => "1",
                    "facebook" => "2",
                    "baidu" => "3",
                    _ => url
                        .split('&')
                        .skip(1)
                        .find_map(|part| part.strip_prefix("channel_id="))
                        .unwrap_or(""),
                };
                if id.is_empty() {
                    return;
                }
                line(out, format_args!("{auction},{bidder},{price},{channel},{id}"))
            }
            Query::Q22 => {
                let mut parts = url.split('/').skip(3);
                let mut part = || parts.next().unwrap_or("");
                let (a, b, c) = (part(), part(), part());
                line(out, format_args!("{auction},{bidder},{price},{channel},{a},{b},{c}"))
            }
            _ => line(
                out,
                format_args!("{auction},{bidder},{price},{channel},{url},{date_time},{extra}"),
            ),
        }
    }

    /// Q5 and Q7, which aggregate bids by windows.
    fn window(&mut self, bid: &Bid<'_>, out: &mut Vec<u8>) {
        let Bid { auction, bidder, price, date_time, .. } = bid;
        if self.query == Query::Q5 {
            while let Some(counts) = over(&mut self.counts, *date_time) {
                let (end, counts) = counts;
                let hot = counts.into_iter().map(|(auction, bids)| (bids, auction)).max();
                let (bids, auction) = hot.unwrap_or_default();
                line(out, format_args!("{end},{auction},{bids}"));
            }
            let first = date_time / 2_000 * 2_000 + 2_000;
            for end in (first..first + 10_000).step_by(2_000) {
                *self.counts.entry(end).or_default().entry(*auction).or_default() += 1;
            }
            return;
        }
        while let Some((end, (price, auction, bidder))) = over(&mut self.highest, *date_time) {
            line(out, format_args!("{end},{price},{auction},{bidder}"));
        }
        let highest = self.highest.entry(date_time / 10_000 * 10_000 + 10_000).or_default();
        *highest = (*highest).max((*price, *auction, *bidder));
    }

    fn statistics(&mut self, bid: &Bid<'_>, out: &mut Vec<u8>) {
        let Bid { auction, price, date_time, .. } = *bid;
        let day = date_time / 86_400_000;
        let none = Statistics { ranks: [0; 3], least: u64::MAX, most: 0, sum: 0 };
        let of = self.statistics.entry((auction, day)).or_insert(none);
        let rank = match price {
            0..10_000 => 0,
            10_000..1_000_000 => 1,
            _ => 2,
        };
        of.ranks[rank] += 1;
        (of.least, of.most, of.sum) = (of.least.min(price), of.most.max(price), of.sum + price);
        let count: u64 = of.ranks.iter().sum();
        let mean = (of.sum as f64 / count as f64) as u64;
        let ([a, b, c], Statistics { least, most, sum, .. }) = (of.ranks, of);
        line(out, format_args!("{auction},{day},{count},{a},{b},{c},{least},{most},{mean},{sum}"));
    }
}

/// Removes and returns the first window that ends at or before `time`.
fn over<T>(windows: &mut BTreeMap<u64, T>, time: u64) -> Option<(u64, T)> {
    if *windows.first_key_value()?.0 > time {
        return None;
    }
    windows.pop_first()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(out: &[u8]) -> String {
        String::from_utf8(out.to_vec()).unwrap()
    }

    fn bid(auction: u64, bidder: u64, price: u64, date_time: u64) -> Bid<'static> {
        Bid { auction, bidder, price, channel: "", url: "", date_time, extra: "" }
    }

    fn auction(id: u64, seller: u64, date_time: u64, expires: u64) -> Auction<'static> {
        Auction { id, item_name: "i", seller, category: 10, date_time, expires }
    }

    #[test]
    fn windows_by_hand_are_right() {
        let mut hand = [Query::Q5, Query::Q7].map(HandWritten::new);
        let mut out = [Vec::new(), Vec::new()];
        for (date_time, auction, price) in
            [(11_000, 7, 5), (11_999, 8, 9), (12_000, 8, 9), (13_000, 7, 1), (20_000, 9, 2)]
        {
            let bid = bid(auction, 1, price, date_time);
            hand.iter_mut().zip(&mut out).for_each(|(hand, out)| hand.bid(&bid, out));
        }
        assert_eq!(text(&out[0]), "12000,8,1\n14000,8,2\n16000,8,2\n18000,8,2\n20000,8,2\n");
        assert_eq!(text(&out[1]), "20000,9,8,1\n");
    }

    #[test]
    fn joins_by_hand_are_right() {
        let mut hand = [Query::Q3, Query::Q8].map(HandWritten::new);
        let mut out = [Vec::new(), Vec::new()];
        let person = |id, state, date_time| Person { id, name: "n", city: "c", state, date_time };
        for (hand, out) in hand.iter_mut().zip(&mut out) {
            hand.auction(&auction(1, 7, 10_000, 0), out);
            hand.person(&person(7, "or", 19_999), out);
            hand.auction(&auction(2, 7, 19_999, 0), out);
            hand.person(&person(8, "ny", 20_000), out);
            hand.auction(&auction(3, 8, 20_001, 0), out);
            hand.auction(&auction(4, 7, 20_001, 0), out);
        }
        assert_eq!(text(&out[0]), "n,c,or,1\nn,c,or,2\nn,c,or,4\n");
        assert_eq!(text(&out[1]), "7,n,10000\n8,n,20000\n");
    }

    #[test]
    fn winners_by_hand_are_right() {
        let mut hand = [Query::Q4, Query::Q9, Query::Q6].map(HandWritten::new);
        let mut out = [const { Vec::new() }; 3];
        for (hand, out) in hand.iter_mut().zip(&mut out) {
            // Auction 1 gets a bid before it opens, a bid of the same price, and a bid after its
            // end. Auction 2 gets a bid after ten seconds. The bids for auctions 3 and 9 have no
            // auction.
            hand.bid(&bid(1, 5, 900, 10_000), out);
            hand.auction(&auction(1, 7, 10_000, 12_000), out);
            hand.bid(&bid(1, 6, 900, 11_000), out);
            hand.bid(&bid(1, 6, 999, 12_001), out);
            hand.auction(&auction(2, 8, 13_000, 99_000), out);
            hand.bid(&bid(2, 9, 100, 22_999), out);
            hand.bid(&bid(2, 9, 500, 23_000), out);
            hand.bid(&bid(3, 9, 100, 23_000), out);
            assert!(out.is_empty());
            hand.auction(&auction(4, 8, 40_000, 40_001), out);
            hand.bid(&bid(9, 9, 100, 40_000), out);
        }
        assert_eq!(text(&out[0]), "20000,10,500\n");
        assert_eq!(text(&out[1]), "1,7,10,900,5,10000\n2,8,10,100,9,22999\n");
        assert_eq!(text(&out[2]), "7,900\n8,100\n");
    }

    #[test]
    fn a_mean_by_hand_is_of_the_last_ten_auctions_of_a_seller() {
        let (mut hand, mut out) = (HandWritten::new(Query::Q6), Vec::new());
        // Two auctions start in each millisecond.
        for id in 0..12 {
            hand.auction(&auction(id, 7, 10_000 + id / 2, 99_000), &mut out);
            hand.bid(&bid(id, 1, 100 * id, 11_000), &mut out);
        }
        hand.auction(&auction(99, 8, 40_000, 99_000), &mut out);
        hand.bid(&bid(99, 1, 1, 40_000), &mut out);
        let means: Vec<String> = (0..12u64)
            .map(|last| {
                let first = last.saturating_sub(9);
                format!("7,{}\n", 100 * (first + last) / 2)
            })
            .collect();
        assert_eq!(text(&out), means.concat());
    }

    #[test]
    fn sessions_by_hand_are_right() {
        let (mut hand, mut out) = (HandWritten::new(Query::Q11), Vec::new());
        for (bidder, time) in [(1, 1_000), (2, 5_000), (1, 11_000), (3, 15_001), (3, 21_000)] {
            hand.bid(&bid(0, bidder, 1, time), &mut out);
        }
        assert_eq!(text(&out), "2,1,5000,15000\n1,2,1000,21000\n");
    }
}
