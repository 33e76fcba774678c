//! `time_bucket`: the start of the bucket of a timestamp, among buckets of one length.

use super::zone_of_type;
use crate::table::datetime::calendar::Date;
use crate::table::datetime::{DAY_US, Tz, add_months_us, on_clock, to_local, to_utc};
use crate::table::error::{PlanError, PlanResult};
use crate::table::expr::compile::{Compiled, Semantics, failed, fold, long_fn};
use crate::table::expr::functions::registry::{Call, Typed, unexpected};
use crate::table::expr::type_rules::Rules;
use crate::table::expr::{Node, Resolved};
use crate::table::types::DataType;
use crate::table::value::Value;

use DataType as T;

const OUT_OF_RANGE: &str = "DATATYPE_MISMATCH.VALUE_OUT_OF_RANGE";
const LENGTH_FIX: &str = "Use an interval above zero";

/// Resolves `time_bucket(length, time[, origin])`. Length and origin are constants.
pub(super) fn resolve(name: &str, mut args: Vec<Resolved>) -> PlanResult<Typed> {
    let is_null = |arg: &Resolved| arg.data_type == T::Null;
    if !args[0].data_type.is_interval() && !is_null(&args[0]) {
        return Err(unexpected(name, "an interval", &args[0]));
    }
    let to = match &args[1].data_type {
        time @ (T::Timestamp | T::TimestampNtz) => time.clone(),
        T::Null => T::Timestamp,
        _ => return Err(unexpected(name, "a timestamp", &args[1])),
    };
    if let Some(origin) = args.get(2).filter(|origin| origin.data_type != to && !is_null(origin)) {
        return Err(unexpected(name, "an origin of the type of the timestamp", origin));
    }
    for constant in args.iter().step_by(2) {
        if !constant.is_foldable() {
            return Err(PlanError::new(
                "DATATYPE_MISMATCH.NON_FOLDABLE_INPUT",
                format!("`{name}` needs a constant length and origin, but has `{constant}`"),
                "",
            ));
        }
    }
    if args.len() == 2 {
        let epoch = Resolved::literal(Value::Long(0), T::TimestampNtz);
        args.push(epoch.coerce(&to));
    }
    let semantics = Semantics { ansi: Rules::current().ansi, ..Semantics::default() };
    let length = fold(args[0].clone(), semantics);
    if matches!(length.node, Node::Literal(Value::Long(length)) if length <= 0) {
        let reason = format!("the length of the buckets of `{name}` is `{}`", args[0]);
        return Err(PlanError::new(OUT_OF_RANGE, reason, LENGTH_FIX));
    }
    if is_null(&args[0]) {
        args[0] = args[0].clone().coerce(&T::DayTimeInterval(0, 3));
    }
    let nullable = args.iter().any(|arg| arg.nullable);
    for arg in &mut args[1..] {
        *arg = arg.clone().coerce(&to);
    }
    Ok(Typed::new(args, to, nullable))
}

pub(super) fn compile(args: Vec<Compiled>, call: Call) -> Compiled {
    let zone = zone_of_type(&call.to, call.semantics.zone);
    let by_months = matches!(call.data_type(0), T::YearMonthInterval(..));
    let mut args = args.into_iter().map(Compiled::long);
    let (Some(length), Some(time), Some(origin)) = (args.next(), args.next(), args.next()) else {
        unreachable!("resolution counted the arguments")
    };
    long_fn(move |cx| {
        let Some(length) = length(cx)? else { return Ok(None) };
        if length <= 0 {
            // The length depends on a setting or the clock, so resolution did not know it.
            return failed(OUT_OF_RANGE, "the length of the buckets is not positive", LENGTH_FIX);
        }
        let Some(time) = time(cx)? else { return Ok(None) };
        let Some(origin) = origin(cx)? else { return Ok(None) };
        let start = match by_months {
            true => of_months(length, time, origin, zone),
            false => of_duration(length, time, origin, zone),
        };
        match start {
            Some(start) => Ok(Some(start)),
            None => failed("DATETIME_OVERFLOW", "the bucket is out of the range of its type", ""),
        }
    })
}

/// The start of the bucket of so many months. `None` on overflow.
fn of_months(length: i64, time: i64, origin: i64, zone: Tz) -> Option<i64> {
    let (time, origin) = (to_local(time, zone), to_local(origin, zone));
    let months = |at: i64| {
        let date = Date::of_days(at.div_euclid(DAY_US));
        date.year * 12 + i64::from(date.month)
    };
    let mut bucket = (months(time) - months(origin)).div_euclid(length);
    loop {
        let start = add_months_us(origin, bucket.checked_mul(length)?)?;
        // The bucket may start later in the month of the time.
        if start <= time {
            return Some(to_utc(start, zone));
        }
        bucket -= 1;
    }
}

/// The start of the bucket of a duration. Buckets of a day or more preserve the local time of day,
/// shorter ones are elapsed time. `None` on overflow.
fn of_duration(length: i64, time: i64, origin: i64, zone: Tz) -> Option<i64> {
    let elapsed = i128::from(time) - i128::from(origin);
    let mut bucket = elapsed.div_euclid(i128::from(length));
    let offset = |bucket: i128| i64::try_from(bucket * i128::from(length)).ok();
    if length < DAY_US {
        return origin.checked_add(offset(bucket)?);
    }
    let start = |bucket: i128| {
        let by = offset(bucket)?;
        on_clock(origin, zone, |local| local.checked_add(by - by % DAY_US))?
            .checked_add(by % DAY_US)
    };
    // A clock change moves the start of a bucket by less than its length.
    bucket += 1;
    loop {
        let start = start(bucket)?;
        if start <= time {
            return Some(start);
        }
        bucket -= 1;
    }
}
