//! Trigger syntax: `continuous 1 second`, `asap`, `processingTime 5 seconds`, `once`,
//! `availableNow`, and the command line's forms `continuous=1s`, `processing-time=500ms`.

use crate::table::datetime::duration_ns;
use crate::table::error::{PlanError, PlanResult};
use millstream_engine::epoch::trigger::Trigger;

/// Parses a trigger, in any case: `continuous[=1 second]`, `asap`, `default`, `processingTime=…`,
/// `once`, `availableNow`. `processingTime=0` is the same as `asap`. An unknown word, an invalid
/// duration, an argument that the word does not take and an epoch below 1 ms are errors.
pub fn parse_trigger(text: &str) -> PlanResult<Trigger> {
    let text = text.trim();
    let cut = text.find(['=', ' ']).unwrap_or(text.len());
    let (word, rest) = text.split_at(cut);
    let rest = rest.trim_start_matches(['=', ' ']).trim();
    let word: String = word.to_ascii_lowercase().replace(['-', '_'], "");
    let interval = |default: Option<u64>| match (rest, default) {
        ("", Some(default)) => Ok(default),
        _ => duration_ns(rest).ok_or_else(|| wrong(text)),
    };
    match (word.as_str(), rest) {
        ("continuous", _) => {
            let interval_ns = interval(Some(1_000_000_000))?;
            if interval_ns < 1_000_000 {
                return Err(PlanError::new(
                    "INVALID_TRIGGER",
                    format!("'{text}': an epoch lasts at least 1 ms"),
                    "Latency does not depend on it: rows are emitted at once",
                ));
            }
            Ok(Trigger::Continuous { interval_ns })
        }
        ("asap" | "default", "") => Ok(Trigger::AsSoonAsPossible),
        ("processingtime", _) => match interval(None)? {
            0 => Ok(Trigger::AsSoonAsPossible),
            interval_ns => Ok(Trigger::ProcessingTime { interval_ns }),
        },
        ("once", "") => Ok(Trigger::Once),
        ("availablenow", "") => Ok(Trigger::AvailableNow),
        _ => Err(wrong(text)),
    }
}

fn wrong(text: &str) -> PlanError {
    PlanError::new(
        "INVALID_TRIGGER",
        format!("'{text}' is not a trigger"),
        "Use continuous=1s, asap, processing-time=500ms, once or available-now",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn triggers_parse_in_both_spellings() {
        let continuous = Trigger::Continuous { interval_ns: 200_000_000 };
        assert_eq!(parse_trigger("continuous 200 milliseconds").unwrap(), continuous);
        assert_eq!(parse_trigger("continuous=200ms").unwrap(), continuous);
        let batch = Trigger::ProcessingTime { interval_ns: 5_000_000_000 };
        assert_eq!(parse_trigger("processingTime 5 seconds").unwrap(), batch);
        assert_eq!(parse_trigger("processing-time=5s").unwrap(), batch);
        assert_eq!(parse_trigger("availableNow").unwrap(), Trigger::AvailableNow);
        assert_eq!(parse_trigger("available-now").unwrap(), Trigger::AvailableNow);
        for bad in [
            "",
            "contiguous",
            "continuous=0s",
            "continuous=5",
            "processingTime",
            "processingTime -1 second",
            "once 5s",
        ] {
            assert!(parse_trigger(bad).is_err(), "{bad}");
        }
    }
}
