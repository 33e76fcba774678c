//! Options of sources and sinks: case-insensitive names, and helpful errors for wrong ones.

use crate::connect::format_settings::FormatSettings;
use crate::table::datetime::{Tz, zone};
use crate::table::error::{PlanError, PlanResult};
use crate::table::expr::resolve::{did_you_mean, distance};

/// Reads the options of a connector. [`Self::finish`] refuses options that were not read.
pub struct OptionReader<'o> {
    what: &'o str,
    options: &'o [(String, String)],
    known: Vec<&'static str>,
    /// The session's settings, which are the defaults of some options.
    settings: Option<&'o FormatSettings>,
}

impl<'o> OptionReader<'o> {
    /// Creates a reader for the options of `what`, such as "source socket".
    pub fn new(what: &'o str, options: &'o [(String, String)]) -> Self {
        Self { what, options, known: Vec::new(), settings: None }
    }

    /// Like [`new`](Self::new), with the session's settings as defaults.
    pub fn with_settings(
        what: &'o str,
        options: &'o [(String, String)],
        settings: &'o FormatSettings,
    ) -> Self {
        Self { what, options, known: Vec::new(), settings: Some(settings) }
    }

    /// The session's settings.
    pub fn settings(&self) -> FormatSettings {
        self.settings.cloned().unwrap_or_default()
    }

    /// The option `timeZone`, or the session's time zone.
    pub fn zone(&mut self) -> PlanResult<Tz> {
        match self.get("timeZone") {
            Some(name) => zone(name),
            None => Ok(self.settings.map_or(Tz::UTC, |settings| settings.zone)),
        }
    }

    /// Whether an option is given explicitly, ignoring the session's settings.
    pub fn is_given(&self, name: &str) -> bool {
        self.options.iter().any(|(key, _)| key.eq_ignore_ascii_case(name))
    }

    /// The value of an option, or of the session setting that is its default. If it is given twice
    /// the last value counts.
    pub fn get(&mut self, name: &'static str) -> Option<&'o str> {
        if !self.known.contains(&name) {
            self.known.push(name);
        }
        let found = self.options.iter().rev().find(|(key, _)| key.eq_ignore_ascii_case(name));
        match found {
            Some((_, value)) => Some(value.as_str()),
            None => self.settings.and_then(|settings| settings.of_option(self.what, name)),
        }
    }

    fn wrong(&self, name: &str, value: &str, wanted: &str) -> PlanError {
        PlanError::new(
            "INVALID_OPTION_VALUE",
            format!("{}: option '{name}' is '{value}', but must be {wanted}", self.what),
            "",
        )
    }

    /// The value of a required option, or the error `MISSING_OPTION`. The error names an unknown
    /// option with a similar name if one is given, and shows `example` otherwise.
    pub fn required(&mut self, name: &'static str, example: &str) -> PlanResult<&'o str> {
        let (what, options, known) = (self.what, self.options, self.known.clone());
        self.get(name).ok_or_else(|| {
            // An option that the connector knows is never suggested as a misspelling of the missing
            // one.
            let own = |key: &str| known.iter().any(|known| known.eq_ignore_ascii_case(key));
            let near = options.iter().find(|(key, _)| distance(key, name) <= 2 && !own(key));
            let fix = match near {
                Some((key, _)) => format!("'{key}' is given: did you mean '{name}'?"),
                None => format!("For example: {name} '{example}'"),
            };
            PlanError::new("MISSING_OPTION", format!("{what}: option '{name}' is missing"), fix)
        })
    }

    /// Reads a boolean option, `true` or `false`.
    pub fn flag(&mut self, name: &'static str, default: bool) -> PlanResult<bool> {
        match self.get(name) {
            None => Ok(default),
            Some(value) if value.eq_ignore_ascii_case("true") => Ok(true),
            Some(value) if value.eq_ignore_ascii_case("false") => Ok(false),
            Some(value) => Err(self.wrong(name, value, "'true' or 'false'")),
        }
    }

    /// Reads an integer within a range.
    pub fn number(
        &mut self,
        name: &'static str,
        default: u64,
        least: u64,
        most: u64,
    ) -> PlanResult<u64> {
        let Some(value) = self.get(name) else { return Ok(default) };
        let number = value.parse().ok().filter(|n| (least..=most).contains(n));
        number.ok_or_else(|| {
            self.wrong(name, value, &format!("a whole number from {least} to {most}"))
        })
    }

    /// Reads a positive duration such as `30 seconds` or `500ms`, in nanoseconds.
    pub fn duration_ns(&mut self, name: &'static str) -> PlanResult<Option<u64>> {
        let Some(value) = self.get(name) else { return Ok(None) };
        match crate::table::datetime::duration_ns(value) {
            Some(ns) if ns > 0 => Ok(Some(ns)),
            _ => Err(self.wrong(name, value, "a duration, such as '30 seconds' or '500ms'")),
        }
    }

    /// Reads one of several words; the first is the default.
    pub fn choice(
        &mut self,
        name: &'static str,
        words: &[&'static str],
    ) -> PlanResult<&'static str> {
        let Some(value) = self.get(name) else { return Ok(words[0]) };
        let found = words.iter().find(|word| word.eq_ignore_ascii_case(value));
        found
            .copied()
            .ok_or_else(|| self.wrong(name, value, &format!("one of {}", words.join(", "))))
    }

    /// Returns the error `UNKNOWN_OPTION` if there are options that were not read. It names the
    /// first one and suggests a similar one.
    pub fn finish(self) -> PlanResult<()> {
        let unknown = |key: &str| !self.known.iter().any(|known| known.eq_ignore_ascii_case(key));
        let Some((key, _)) = self.options.iter().find(|(key, _)| unknown(key)) else {
            return Ok(());
        };
        let fix = match self.known.is_empty() {
            true => "It has no options: leave this one out".to_string(),
            false => {
                let near = did_you_mean(key, self.known.iter().copied());
                format!("{near}All: {}", self.known.join(", "))
            }
        };
        let reason = format!("{} has no option '{key}'", self.what);
        Err(PlanError::new("UNKNOWN_OPTION", reason, fix))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_misspelt_option_is_named_with_the_nearest() {
        let options =
            [("HOST".to_string(), "x".to_string()), ("prot".to_string(), "1".to_string())];
        let mut reader = OptionReader::new("source socket", &options);
        assert_eq!(reader.required("host", "localhost").unwrap(), "x");
        assert_eq!(reader.number("port", 7, 1, 9).unwrap(), 7);
        let error = reader.finish().unwrap_err();
        assert_eq!(error.condition, "UNKNOWN_OPTION");
        assert!(error.fix.contains("Did you mean 'port'? All: host, port"), "{error}");
    }

    #[test]
    fn an_option_that_resembles_none_gets_no_suggestion() {
        let options = [("seperator".to_string(), ";".to_string())];
        let mut reader = OptionReader::new("source json", &options);
        assert_eq!(reader.get("path"), None);
        let error = reader.finish().unwrap_err();
        assert_eq!(error.fix, "All: path");
        let error = OptionReader::new("sink noop", &options).finish().unwrap_err();
        assert_eq!(error.fix, "It has no options: leave this one out");
    }
}
