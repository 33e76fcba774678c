//! The queries of `torture soak`: one for each stateful operator and each growing aggregate.
//!
//! Every query reads rows numbered from 0, where row `n` is due `n / rate` seconds after the start,
//! and emits six columns: `g, lo, hi, c, at, ok`. A result covers the `c` rows of group `g` from
//! number `lo` to `hi`; `at` is the intended time of the result in microseconds since 1970; `ok` is
//! the query's own check of the aggregate under test. With these columns the
//! [checker](super::check) needs memory per group only. Every state has a bounded size, so memory
//! and folder have a stable level.

/// The condition that the results of an operator must satisfy.
#[derive(Clone, Copy, Debug)]
pub enum Cover {
    /// The last result of each group covers all its rows.
    Running,
    /// The results of a group follow each other without gaps or overlaps. `times` is how often each
    /// row is covered, and `behind_s` the number of seconds of rows that may still be in the state.
    Tiles { times: f64, behind_s: u64 },
    /// Tiles of the first rows only; later ones are duplicates.
    First(u64),
}

/// The kind of a query.
#[derive(Clone, Copy, Debug)]
pub enum Kind {
    /// A statement, with its output mode. `{rate}` is replaced.
    Sql(&'static str, &'static str),
    /// Reads each row twice and applies `dropDuplicates` by these columns.
    Deduplicate(&'static [&'static str]),
    /// Reads each row twice and applies `dropDuplicatesWithinWatermark` by its number.
    WithinWatermark,
    /// A typed flow: `aggregate`.
    Aggregate,
    /// A typed flow on two instances: `combine`.
    Combine,
    /// A typed flow: a processor with a list, a map, a value and timers.
    Processor,
}

/// An operator under test.
#[derive(Clone, Copy, Debug)]
pub struct Operator {
    pub name: &'static str,
    pub kind: Kind,
    /// Distance between two consecutive rows of a group.
    pub stride: u64,
    pub cover: Cover,
}

/// Number of keys of running aggregates.
const FEW: u64 = 100;
/// Number of keys of windows. At 50,000 rows per second each has lists of 50 elements in a window
/// of one second.
const MANY: u64 = 1000;

macro_rules! running {
    ($name:literal, $ok:literal) => {
        Operator {
            name: $name,
            kind: Kind::Sql(
                "update",
                concat!(
                    "SELECT k AS g, k AS lo, max(n) AS hi, count(*) AS c, \
                     unix_micros(max(ts)) AS at, ",
                    $ok,
                    " AS ok FROM (SELECT n, ts, n % 100 AS k FROM rows) GROUP BY k"
                ),
            ),
            stride: FEW,
            cover: Cover::Running,
        }
    };
}

macro_rules! windows {
    ($name:literal, tumbling, $ok:literal) => {
        windows!(
            $name,
            "append",
            "k",
            "n % 1000 AS k",
            "window(ts, '1 second'), k",
            "window",
            $ok,
            MANY,
            1.0
        )
    };
    ($name:literal, sliding, $ok:literal) => {
        windows!(
            $name,
            "append",
            "k * 2 + unix_seconds(window.start) % 2",
            "n % 1000 AS k",
            "window(ts, '2 seconds', '1 second'), k",
            "window",
            $ok,
            MANY,
            2.0
        )
    };
    ($name:literal, session, $ok:literal) => {
        // A key is used for one second and then unused for two.
        windows!(
            $name,
            "append",
            "k",
            "n % 1000 AS k, n DIV {rate} % 3 AS turn",
            "session_window(ts, '1 second'), k, turn",
            "session_window",
            $ok,
            MANY,
            1.0
        )
    };
    ($name:literal, $mode:literal, $g:literal, $key:literal, $by:literal, $window:literal, $ok:literal, $stride:expr, $times:literal) => {
        Operator {
            name: $name,
            kind: Kind::Sql(
                $mode,
                concat!(
                    "SELECT ",
                    $g,
                    " AS g, min(n) AS lo, max(n) AS hi, count(*) AS c, unix_micros(",
                    $window,
                    ".end) + 1000000 AS at, ",
                    $ok,
                    " AS ok FROM (SELECT n, ts, ",
                    $key,
                    " FROM rows) WATERMARK ts DELAY OF INTERVAL 1 SECOND GROUP BY ",
                    $by
                ),
            ),
            stride: $stride,
            cover: Cover::Tiles { times: $times, behind_s: 8 },
        }
    };
}

macro_rules! rows {
    ($name:literal, $stride:literal, $from:literal) => {
        Operator {
            name: $name,
            kind: Kind::Sql(
                "append",
                concat!(
                    "SELECT 0L AS g, n AS lo, n AS hi, 1L AS c, unix_micros(ts) AS at, true AS ok FROM ",
                    $from
                ),
            ),
            stride: $stride,
            cover: Cover::Tiles { times: 1.0 / $stride as f64, behind_s: 0 },
        }
    };
}

macro_rules! joined {
    ($name:literal, $join:literal, $other:literal, $ok:literal) => {
        Operator {
            name: $name,
            kind: Kind::Sql(
                "append",
                concat!(
                    "SELECT a.n % 2 AS g, a.n AS lo, a.n AS hi, 1L AS c, unix_micros(a.ts) AS at, ",
                    $ok,
                    " AS ok FROM (SELECT n, ts FROM rows) WATERMARK ts DELAY OF INTERVAL 1 SECOND AS a ",
                    $join,
                    " (SELECT n AS m, ts AS us FROM ",
                    $other,
                    ") WATERMARK us DELAY OF INTERVAL 1 SECOND AS b ON a.n = b.m \
                     AND b.us BETWEEN a.ts - INTERVAL 1 SECOND AND a.ts + INTERVAL 1 SECOND"
                ),
            ),
            stride: 2,
            cover: Cover::Tiles { times: 1.0, behind_s: 8 },
        }
    };
}

const fn typed(name: &'static str, kind: Kind, stride: u64, cover: Cover) -> Operator {
    Operator { name, kind, stride, cover }
}

/// All operators, in the order in which they run.
pub const OPERATORS: [Operator; 26] = [
    running!("count", "true"),
    running!("sum", "sum(n) = k * count(*) + 50 * count(*) * (count(*) - 1)"),
    running!("min", "min(n) = k"),
    running!("max", "max(n) = k + 100 * (count(*) - 1)"),
    running!("avg", "avg(n) = (k + max(n)) / 2"),
    windows!("tumbling", tumbling, "sum(n) = (min(n) + max(n)) * count(*) DIV 2"),
    windows!("sliding", sliding, "sum(n) = (min(n) + max(n)) * count(*) DIV 2"),
    windows!("session", session, "sum(n) = (min(n) + max(n)) * count(*) DIV 2"),
    typed("dedup", Kind::Deduplicate(&["n", "ts"]), 1, Cover::Tiles { times: 1.0, behind_s: 0 }),
    typed("dedup_keys", Kind::Deduplicate(&["key"]), 1, Cover::First(20_000)),
    typed("dedup_within", Kind::WithinWatermark, 1, Cover::Tiles { times: 1.0, behind_s: 0 }),
    windows!(
        "collect_list",
        tumbling,
        "size(collect_list(n)) = count(*) AND array_max(collect_list(n)) = max(n)"
    ),
    windows!("collect_list_sliding", sliding, "size(collect_list(n)) = count(*)"),
    windows!("collect_list_session", session, "size(collect_list(n)) = count(*)"),
    windows!("collect_set", tumbling, "size(collect_set(n)) = count(*)"),
    windows!("listagg", tumbling, "length(listagg('a', ',')) = 2 * count(*) - 1"),
    windows!("percentile_approx", tumbling, "percentile_approx(n, 0.5) BETWEEN min(n) AND max(n)"),
    windows!(
        "approx_count_distinct",
        tumbling,
        "abs(approx_count_distinct(n) - count(*)) <= 2 + 0.3 * count(*)"
    ),
    windows!("user_aggregate", tumbling, "kept(n) = count(*)"),
    rows!("table_join", 1, "(SELECT n, ts, n % 100 AS k FROM rows) JOIN keys ON k = id"),
    rows!(
        "semi_join",
        2,
        "(SELECT n, ts, n % 100 AS k FROM rows) LEFT SEMI JOIN (SELECT id FROM keys WHERE id % 2 = 0) e ON k = id"
    ),
    // Each row matches itself.
    joined!("stream_join", "JOIN", "rows", "b.m = a.n"),
    // Every second row has no match, and is emitted when it expires.
    joined!(
        "stream_join_outer",
        "LEFT JOIN",
        "rows WHERE n % 2 = 0",
        "b.m <=> if(a.n % 2 = 0, a.n, NULL)"
    ),
    typed("typed_aggregate", Kind::Aggregate, FEW, Cover::Running),
    typed("typed_combine", Kind::Combine, FEW, Cover::Running),
    typed("processor", Kind::Processor, MANY, Cover::Tiles { times: 1.0, behind_s: 8 }),
];

/// The operator with a name; an error if there is none.
pub fn named(name: &str) -> Result<Operator, String> {
    let found = OPERATORS.iter().find(|operator| operator.name == name);
    found.copied().ok_or_else(|| {
        let names: Vec<&str> = OPERATORS.iter().map(|operator| operator.name).collect();
        format!("there is no operator '{name}'. There are: {}", names.join(", "))
    })
}
