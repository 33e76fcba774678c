//! The measured join as a query, and its rows.

use crate::bench::open_loop::wrong;
use crate::failure::Failure;
use millstream::session::{DataFrame, Session};
use millstream::table::row::RowWriter;

/// The range of a join, in microseconds: the right row's time is from `before_us` earlier to
/// `after_us` later than the left row's.
#[derive(Clone, Copy)]
pub(super) struct Range {
    pub before_us: i64,
    pub after_us: i64,
}

/// A join of the streams `l` and `r` (key, time, number) by key and a range of times.
pub(super) fn joined(range: Range) -> Result<DataFrame, Failure> {
    let session = Session::new();
    for name in ["l", "r"] {
        let source = format!("{name}0");
        session.memory_stream(&source, "k BIGINT, t TIMESTAMP, v BIGINT").map_err(wrong)?;
        let frame = session.sql(&format!("SELECT * FROM {source}")).map_err(wrong)?;
        frame.with_watermark("t", "0 seconds").map_err(wrong)?.create_temp_view(name);
    }
    let interval = |us: i64| format!("INTERVAL '{}.{:06}' SECOND", us / 1_000_000, us % 1_000_000);
    let (before, after) = (interval(range.before_us), interval(range.after_us));
    let text = format!(
        "SELECT l.v, r.v FROM l JOIN r ON l.k = r.k AND r.t >= l.t - {before} AND r.t <= l.t + {after}"
    );
    session.sql(&text).map_err(wrong)
}

/// A row of either stream.
#[inline]
pub(super) fn write_row([key, time, number]: [i64; 3], out: &mut Vec<u8>) {
    out.clear();
    let mut writer = RowWriter::new(out, 3);
    writer.long(0, key);
    writer.long(1, time);
    writer.long(2, number);
}
