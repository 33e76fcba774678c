//! The function `sequence` for dates and timestamps.
//!
//! Each element is computed from the start by adding n steps at once. Months are added first, then
//! whole days, both in local time. The rest is added as elapsed time. So a sequence of months that
//! starts on 31 January stays at the ends of months, and a clock change does not shift later
//! elements.

use super::super::array::{MAX_SEQUENCE, collected};
use super::super::registry::{Call, Typed, any_nullable, element_of};
use crate::table::datetime::{
    CalendarInterval, DAY_US, Tz, add_months_us, on_clock, to_local, to_utc,
};
use crate::table::error::{PlanError, PlanResult};
use crate::table::expr::Resolved;
use crate::table::expr::cell::Cell;
use crate::table::expr::compile::{EvalError, failed};
use crate::table::expr::resolve::{common_type, expect_type};
use crate::table::types::DataType;

/// Resolves the arguments. Start and stop get a common type. Without a step argument, the step is
/// one day towards the stop.
pub fn sequence_types(name: &str, mut args: Vec<Resolved>) -> PlanResult<Typed> {
    let nullable = any_nullable(&args);
    let to = common_type(&args[0].data_type, &args[1].data_type).filter(DataType::is_datetime);
    let steps = args.get(2).is_none_or(|step| {
        step.data_type.is_interval() || step.data_type == DataType::CalendarInterval
    });
    let (Some(to), true) = (to, steps) else {
        return Err(PlanError::new(
            "DATATYPE_MISMATCH.SEQUENCE_WRONG_INPUT_TYPES",
            format!("`{name}` needs dates or timestamps, and an interval as its step"),
            "sequence(DATE'2024-01-01', DATE'2024-01-31', INTERVAL 1 DAY)",
        ));
    };
    for arg in args.iter_mut().take(2) {
        *arg = expect_type(arg.clone(), &to, "`sequence`")?;
    }
    if let Some(step) = args.get_mut(2)
        && step.is_null_literal()
    {
        *step = step.clone().coerce(&DataType::DayTimeInterval(0, 3));
    }
    Ok(Typed::new(args, DataType::Array(Box::new(to)), nullable))
}

/// The step of a sequence, split into units that are added separately.
#[derive(Clone, Copy)]
struct Step {
    months: i64,
    /// The whole days, in microseconds.
    days_us: i64,
    rest_us: i64,
}

impl Step {
    fn of(step: Option<(Cell<'_>, &DataType)>, forward: bool) -> Self {
        let (step, months) = match step {
            Some((step, DataType::CalendarInterval)) => {
                let interval = CalendarInterval::from_bytes(step.bytes());
                return Self {
                    months: interval.months.into(),
                    days_us: i64::from(interval.days) * DAY_US,
                    rest_us: interval.micros,
                };
            }
            Some((step, data_type)) => {
                (step.long(), matches!(data_type, DataType::YearMonthInterval(..)))
            }
            None if forward => (DAY_US, false),
            None => (-DAY_US, false),
        };
        if months {
            return Self { months: step, days_us: 0, rest_us: 0 };
        }
        Self { months: 0, days_us: step - step % DAY_US, rest_us: step % DAY_US }
    }

    /// The instant `times` steps after `start`; `None` on overflow.
    fn from(self, start: i64, times: i64, zone: Tz) -> Option<i64> {
        let months = self.months.checked_mul(times)?;
        let days_us = self.days_us.checked_mul(times)?;
        let at = on_clock(start, zone, |local| add_months_us(local, months))?;
        let at = on_clock(at, zone, |local| local.checked_add(days_us))?;
        at.checked_add(self.rest_us.checked_mul(times)?)
    }
}

/// Computes all elements from the start to the stop, which is included if a step reaches it.
pub fn sequence<'a>(
    args: &[Cell<'a>],
    call: &Call,
    arena: &'a bumpalo::Bump,
) -> Result<Cell<'a>, Box<EvalError>> {
    let of_dates = *element_of(&call.to) == DataType::Date;
    let ntz = *element_of(&call.to) == DataType::TimestampNtz;
    let zone = if ntz { Tz::UTC } else { call.semantics.zone };
    let instant = |cell: &Cell<'_>| match of_dates {
        true => to_utc(cell.long().saturating_mul(DAY_US), zone),
        false => cell.long(),
    };
    let (start, stop) = (instant(&args[0]), instant(&args[1]));
    let step = args.get(2).map(|step| (*step, call.data_type(2)));
    let step = Step::of(step, start <= stop);
    let direction = step.months.signum() + step.days_us.signum() + step.rest_us.signum();
    let goes = direction > 0 && start <= stop || direction < 0 && start >= stop;
    let stands = direction == 0 && start == stop;
    // A step between dates must be at least a day.
    let too_short = of_dates && step.months == 0 && step.days_us == 0;
    if too_short || !goes && !stands {
        return failed(
            "INVALID_PARAMETER_VALUE.SEQUENCE",
            "the step does not lead from the start to the stop",
            "The step of dates is at least a day; backwards it is negative",
        );
    }
    let mut out = vec![Cell::Long(args[0].long())];
    for times in 1i64.. {
        let at = if stands { None } else { step.from(start, times, zone) };
        let Some(at) = at.filter(|at| if direction > 0 { *at <= stop } else { *at >= stop }) else {
            break;
        };
        let value = if of_dates { to_local(at, zone).div_euclid(DAY_US) } else { at };
        out.push(Cell::Long(value));
        if out.len() > MAX_SEQUENCE {
            return failed("COLLECTION_SIZE_LIMIT_EXCEEDED", "a sequence of more than 1048576", "");
        }
    }
    Ok(collected(out.into_iter(), arena))
}
