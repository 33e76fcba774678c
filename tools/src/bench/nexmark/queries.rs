//! The NEXMark queries as SQL over the lines.

use super::Query;
use crate::bench::open_loop::SocketQuery;
use millstream::session::DataFrame;
use millstream::table::arbitrary_state::{GroupState, GroupStateTimeout, InputRows};
use millstream::table::error::PlanResult;
use millstream::table::expr::col;
use millstream::table::types::Schema;
use millstream::table::value::Value;
use std::collections::VecDeque;

/// A relation of the lines that are bids, parsed from JSON.
const BIDS: &str = "(SELECT e.Bid.* FROM (SELECT from_json(value, 'Bid STRUCT<auction: BIGINT, \
                    bidder: BIGINT, price: BIGINT, channel: STRING, url: STRING, date_time: BIGINT, \
                    extra: STRING>') AS e FROM lines) WHERE e.Bid IS NOT NULL)";

/// A relation of the lines that are persons, parsed from JSON.
const PERSONS: &str = "(SELECT e.Person.* FROM (SELECT from_json(value, 'Person STRUCT<id: BIGINT, \
                       name: STRING, city: STRING, state: STRING, date_time: BIGINT>') AS e FROM lines) \
                       WHERE e.Person IS NOT NULL)";

/// A relation of the lines that are auctions, parsed from JSON.
const AUCTIONS: &str = "(SELECT e.Auction.* FROM (SELECT from_json(value, 'Auction STRUCT<id: BIGINT, \
                        item_name: STRING, seller: BIGINT, category: BIGINT, date_time: BIGINT, \
                        expires: BIGINT>') AS e FROM lines) WHERE e.Auction IS NOT NULL)";

/// Selects columns of a relation, with a watermark on the event time `ts`. `delay_s` is its delay
/// in seconds.
fn timed(lines: &str, columns: &str, delay_s: u32) -> String {
    format!(
        "(SELECT {columns} FROM (SELECT *, timestamp_millis(date_time) AS ts FROM {lines}) \
         WATERMARK ts DELAY OF INTERVAL {delay_s} SECONDS)"
    )
}

/// Like [`timed`], with a delay of a second and event times within the millisecond of `date_time`:
/// `within_us` microseconds behind its start.
fn timed_within(lines: &str, columns: &str, within_us: &str) -> String {
    format!(
        "(SELECT {columns} FROM (SELECT *, timestamp_micros(date_time * 1000 + {within_us}) AS ts \
         FROM {lines}) WATERMARK ts DELAY OF INTERVAL 1 SECOND)"
    )
}

/// Each auction that has a bid, with its best bid: the highest one, or the earliest of several
/// highest ones. The result is emitted when the watermark has passed the last bid that the auction
/// may get. Only bids of the first ten seconds, up to the auction's expiry, count. Auctions that
/// open in the same millisecond have different event times, so the order in which they end is
/// defined; a bid is behind all auctions of its millisecond.
fn winning() -> String {
    format!(
        "(SELECT a.id AS auction, a.seller AS seller, a.category AS category, a.ts AS ts, \
         max(named_struct('price', b.price, 'early', -b.date_time, 'bidder', b.bidder)) AS best \
         FROM {} AS a JOIN {} AS b ON a.id = b.auction AND b.ts >= a.ts \
         AND b.ts < a.ts + INTERVAL 10 SECONDS AND b.date_time <= a.expires \
         GROUP BY a.id, a.seller, a.category, a.ts)",
        timed_within(AUCTIONS, "id, seller, category, expires, ts", "id % 999"),
        timed_within(BIDS, "auction, price, bidder, date_time, ts", "998")
    )
}

/// A query with its output mode and the part that is not SQL.
pub(super) fn of(query: Query) -> SocketQuery {
    let mode = match query {
        Query::Q17 | Query::Q18 => "update",
        _ => "append",
    };
    let then: Option<fn(&DataFrame) -> PlanResult<DataFrame>> = match query {
        Query::Q6 => Some(mean_of_last_ten),
        _ => None,
    };
    SocketQuery { then, ..SocketQuery::sql(text(query), mode, "csv") }
}

/// Emits a seller and the mean of its last ten prices with each row of a seller and a price.
fn mean_of_last_ten(sales: &DataFrame) -> PlanResult<DataFrame> {
    sales.group_by([col("seller")]).flat_map_groups_with_state(
        Schema::parse_ddl("seller BIGINT, mean BIGINT")?,
        GroupStateTimeout::NoTimeout,
        |seller: &[Value], sales: InputRows<'_>, state: &mut GroupState<'_, VecDeque<i64>>| {
            let mut last = state.get().cloned().unwrap_or_default();
            let mut means = Vec::new();
            for sale in sales {
                if let Value::Long(price) = sale[1] {
                    if last.len() == 10 {
                        last.pop_front();
                    }
                    last.push_back(price);
                    let mean = last.iter().sum::<i64>() / last.len() as i64;
                    means.push(vec![seller[0].clone(), Value::Long(mean)]);
                }
            }
            state.update(last)?;
            Ok(means)
        },
    )
}

/// The SQL text of a query.
fn text(query: Query) -> String {
    match query {
        Query::Q3 | Query::Q4 | Query::Q6 | Query::Q8 | Query::Q9 | Query::Q13 | Query::Q20 => {
            join(query)
        }
        Query::Q5 | Query::Q7 | Query::Q11 | Query::Q17 | Query::Q18 => aggregate(query),
        _ => projection(query),
    }
}

/// A query whose result depends on one bid alone.
fn projection(query: Query) -> String {
    let columns = match query {
        Query::Q1 => "auction, bidder, 0.908 * price AS price, date_time, extra",
        Query::Q2 => return format!("SELECT auction, price FROM {BIDS} WHERE auction % 123 = 0"),
        Query::Q14 => {
            return format!(
                "SELECT auction, bidder, euros, CASE WHEN hour >= 8 AND hour <= 18 THEN 'dayTime' \
                 WHEN hour <= 6 OR hour >= 20 THEN 'nightTime' ELSE 'otherTime' END, date_time, extra, \
                 length(extra) - length(replace(extra, 'c', '')) FROM (SELECT *, 0.908 * price AS euros, \
                 date_time DIV 3600000 % 24 AS hour FROM {BIDS}) \
                 WHERE euros > 1000000 AND euros < 50000000"
            );
        }
        Query::Q21 => {
            return format!(
                "SELECT auction, bidder, price, channel, CASE lower(channel) WHEN 'apple' THEN '0' \
                 WHEN 'google' THEN '1' WHEN 'facebook' THEN '2' WHEN 'baidu' THEN '3' ELSE id END \
                 FROM (SELECT *, regexp_extract(url, '(&|^)channel_id=([^&]*)', 2) AS id FROM {BIDS}) \
                 WHERE id <> '' OR lower(channel) IN ('apple', 'google', 'facebook', 'baidu')"
            );
        }
        Query::Q22 => {
            "auction, bidder, price, channel, split(url, '/')[3] AS dir1, split(url, '/')[4] AS dir2, \
             split(url, '/')[5] AS dir3"
        }
        _ => "auction, bidder, price, channel, url, date_time, extra",
    };
    format!("SELECT {columns} FROM {BIDS}")
}

/// A query that aggregates bids by windows or keys.
fn aggregate(query: Query) -> String {
    match query {
        Query::Q5 => format!(
            "SELECT unix_millis(window.end), hot.auction, hot.bids FROM (SELECT window, \
             max(named_struct('bids', bids, 'auction', auction)) AS hot FROM (SELECT window, auction, \
             count(*) AS bids FROM {} GROUP BY window(ts, '10 seconds', '2 seconds'), auction) \
             GROUP BY window)",
            timed(BIDS, "ts, auction", 0)
        ),
        Query::Q7 => format!(
            "SELECT unix_millis(window.end), high.price, high.auction, high.bidder FROM (SELECT \
             window, max(named_struct('price', price, 'auction', auction, 'bidder', bidder)) AS high \
             FROM {} GROUP BY window(ts, '10 seconds'))",
            timed(BIDS, "ts, price, auction, bidder", 0)
        ),
        Query::Q11 => format!(
            "SELECT bidder, n, unix_millis(session.start), unix_millis(session.end) FROM (SELECT bidder, \
             session_window AS session, count(*) AS n FROM {} \
             GROUP BY bidder, session_window(ts, '10 seconds'))",
            timed(BIDS, "ts, bidder", 0)
        ),
        Query::Q17 => format!(
            "SELECT auction, day, count(*), count(*) FILTER (WHERE price < 10000), \
             count(*) FILTER (WHERE price >= 10000 AND price < 1000000), \
             count(*) FILTER (WHERE price >= 1000000), min(price), max(price), \
             CAST(avg(price) AS BIGINT), sum(price) FROM (SELECT auction, price, \
             date_time DIV 86400000 AS day FROM {BIDS}) GROUP BY auction, day"
        ),
        _ => format!(
            "SELECT auction, bidder, last.price, last.date_time FROM (SELECT auction, bidder, \
             max(named_struct('date_time', date_time, 'price', price)) AS last FROM {BIDS} \
             GROUP BY auction, bidder)"
        ),
    }
}

/// A query that joins several kinds of events, or bids with a table.
fn join(query: Query) -> String {
    match query {
        Query::Q3 => format!(
            "SELECT p.name, p.city, p.state, a.id FROM {AUCTIONS} AS a JOIN {PERSONS} AS p \
             ON a.seller = p.id WHERE a.category = 10 AND p.state IN ('or', 'id', 'ca')"
        ),
        Query::Q4 => format!(
            "SELECT unix_millis(window.end), category, CAST(mean AS BIGINT) FROM (SELECT window, category, \
             avg(price) AS mean FROM (SELECT ts, category, best.price AS price FROM {}) \
             GROUP BY window(ts, '10 seconds'), category)",
            winning()
        ),
        Query::Q6 => format!("SELECT seller, best.price AS price FROM {}", winning()),
        Query::Q8 => format!(
            "SELECT p.id, p.name, unix_millis(p.w.start) FROM {} AS p LEFT SEMI JOIN {} AS a \
             ON p.id = a.seller AND p.w = a.w",
            timed(PERSONS, "id, name, window(ts, '10 seconds') AS w", 0),
            timed(AUCTIONS, "seller, window(ts, '10 seconds') AS w", 0)
        ),
        Query::Q9 => format!(
            "SELECT auction, seller, category, best.price, best.bidder, -best.early FROM {}",
            winning()
        ),
        Query::Q13 => format!(
            "SELECT b.auction, b.bidder, b.price, s.value FROM {BIDS} AS b JOIN (SELECT id, \
             concat('side-', id) AS value FROM (SELECT explode(sequence(0, 9999)) AS id)) AS s ON b.auction % 10000 = s.id"
        ),
        _ => format!(
            "SELECT b.auction, b.bidder, b.price, a.item_name, a.seller FROM {BIDS} AS b \
             JOIN {AUCTIONS} AS a ON b.auction = a.id WHERE a.category = 10"
        ),
    }
}
