//! The names of the window functions, with their descriptions.

use crate::table::function_docs::{Usage, usage};

/// A function that exists only as a window function.
pub struct WindowEntry {
    /// The name in lower case.
    pub name: &'static str,
    /// The help text, in one line: the signature and the description.
    pub help: &'static str,
    /// An example, and the version that introduced the function.
    pub usage: Usage,
}

/// The functions that exist only as window functions.
pub const WINDOW_FUNCTIONS: &[WindowEntry] = &[
    WindowEntry {
        name: "row_number",
        help: "row_number() OVER (… ORDER BY …): the number of the row in its partition, from 1",
        usage: usage(
            "2.0.0",
            "x, row_number() OVER (ORDER BY x) FROM VALUES (7), (7) AS t(x)",
            "7, 1\n7, 2",
        ),
    },
    WindowEntry {
        name: "rank",
        help: "rank() OVER (… ORDER BY …): the rank of the row, with gaps after equal rows",
        usage: usage(
            "2.0.0",
            "x, rank() OVER (ORDER BY x) FROM VALUES (5), (5), (7) AS t(x)",
            "5, 1\n5, 1\n7, 3",
        ),
    },
    WindowEntry {
        name: "dense_rank",
        help: "dense_rank() OVER (… ORDER BY …): the rank of the row, without gaps",
        usage: usage(
            "2.0.0",
            "x, dense_rank() OVER (ORDER BY x) FROM VALUES (5), (5), (7) AS t(x)",
            "5, 1\n5, 1\n7, 2",
        ),
    },
    WindowEntry {
        name: "percent_rank",
        help: "percent_rank() OVER (… ORDER BY …): the part of the other rows that come before",
        usage: usage(
            "2.0.0",
            "x, percent_rank() OVER (ORDER BY x) FROM VALUES (5), (6), (7) AS t(x)",
            "5, 0.0\n6, 0.5\n7, 1.0",
        ),
    },
    WindowEntry {
        name: "cume_dist",
        help: "cume_dist() OVER (… ORDER BY …): the part of the rows up to this one and its equals",
        usage: usage(
            "2.0.0",
            "x, cume_dist() OVER (ORDER BY x) FROM VALUES (5), (7) AS t(x)",
            "5, 0.5\n7, 1.0",
        ),
    },
    WindowEntry {
        name: "ntile",
        help: "ntile(n) OVER (… ORDER BY …): the number of the row's tile, of n tiles of equal size",
        usage: usage(
            "2.0.0",
            "x, ntile(2) OVER (ORDER BY x) FROM VALUES (5), (6), (7) AS t(x)",
            "5, 1\n6, 1\n7, 2",
        ),
    },
    WindowEntry {
        name: "lag",
        help: "lag(x[, offset[, default]]) OVER (… ORDER BY …): the value of an earlier row",
        usage: usage(
            "2.0.0",
            "x, lag(x) OVER (ORDER BY x) FROM VALUES (5), (7) AS t(x)",
            "5, NULL\n7, 5",
        ),
    },
    WindowEntry {
        name: "lead",
        help: "lead(x[, offset[, default]]) OVER (… ORDER BY …): the value of a later row",
        usage: usage(
            "2.0.0",
            "x, lead(x) OVER (ORDER BY x) FROM VALUES (5), (7) AS t(x)",
            "5, 7\n7, NULL",
        ),
    },
    WindowEntry {
        name: "counter_diff",
        help: "counter_diff(x[, start]) OVER (… ORDER BY …): the increase of a counter since the \
               row before; NULL if it was reset",
        usage: usage(
            "4.3.0",
            "x, counter_diff(x) OVER (ORDER BY t) FROM VALUES (1, 5), (2, 7), (3, 1) AS t(t, x)",
            "5, NULL\n7, 2\n1, NULL",
        ),
    },
    WindowEntry {
        name: "nth_value",
        help: "nth_value(x, n) OVER (… ORDER BY …): the value of the n-th row of the frame",
        usage: usage(
            "3.1.0",
            "x, nth_value(x, 2) OVER (ORDER BY x) FROM VALUES (5), (7) AS t(x)",
            "5, NULL\n7, 7",
        ),
    },
];

/// Whether a function exists only as a window function. `name` is in lower case.
pub fn is_window_only(name: &str) -> bool {
    WINDOW_FUNCTIONS.iter().any(|entry| entry.name == name)
}
