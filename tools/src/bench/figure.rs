//! The table of measured values, with their floors and goals where there are any.

use crate::capture::times;
use crate::latency_format::time;
use crate::stdout::say;

/// A measured value.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Value {
    /// Nanoseconds, which may be negative.
    Ns(f64),
    /// Bytes.
    Bytes(f64),
    /// Bytes per second.
    ByteRate(f64),
    /// Lines per second.
    Rate(f64),
    /// A ratio.
    Times(f64),
    /// A count.
    Count(f64),
}

impl Value {
    fn number(self) -> f64 {
        match self {
            Self::Ns(v)
            | Self::Bytes(v)
            | Self::ByteRate(v)
            | Self::Rate(v)
            | Self::Times(v)
            | Self::Count(v) => v,
        }
    }

    fn text(self) -> String {
        match self {
            Self::Ns(ns) if ns < 0.0 => format!("-{}", time(-ns as u64)),
            Self::Ns(ns) => time(ns as u64),
            Self::Bytes(bytes) if bytes < 1024.0 && bytes.fract() != 0.0 => format!("{bytes:.1} B"),
            Self::Bytes(bytes) => times::show_bytes(bytes as u64),
            Self::ByteRate(rate) => format!("{:.0} MB/s", rate / 1e6),
            Self::Rate(rate) => format!("{rate:.0}/s"),
            Self::Times(ratio) => format!("x{ratio:.2}"),
            Self::Count(count) => format!("{count:.0}"),
        }
    }
}

/// The goal for a measured value.
#[derive(Clone, Copy, Debug)]
pub(super) enum Goal {
    AtMost(Value),
    AtLeast(Value),
}

impl Goal {
    /// Whether a value meets the goal.
    fn is_met(self, value: Value) -> bool {
        match self {
            Self::AtMost(most) => value.number() <= most.number(),
            Self::AtLeast(least) => value.number() >= least.number(),
        }
    }

    fn text(self) -> String {
        match self {
            Self::AtMost(most) => format!("<= {}", most.text()),
            Self::AtLeast(least) => format!(">= {}", least.text()),
        }
    }
}

/// A line of the table.
pub(super) struct Figure {
    pub name: String,
    pub value: Value,
    pub floor: Option<Value>,
    pub goal: Option<Goal>,
}

impl Figure {
    pub fn new(name: impl Into<String>, value: Value) -> Self {
        Self { name: name.into(), value, floor: None, goal: None }
    }

    /// Sets the floor: the value of something simpler in the same run, for comparison.
    pub fn floor(self, floor: Value) -> Self {
        Self { floor: Some(floor), ..self }
    }

    pub fn goal(self, goal: Goal) -> Self {
        Self { goal: Some(goal), ..self }
    }

    /// Creates a figure with a floor and a goal.
    pub fn compared(
        name: String,
        value: Value,
        floor: Option<Value>,
        goal: impl Into<Option<Goal>>,
    ) -> Self {
        Self { floor, goal: goal.into(), ..Self::new(name, value) }
    }

    /// Whether the goal is met; `None` without a goal.
    fn is_met(&self) -> Option<bool> {
        self.goal.map(|goal| goal.is_met(self.value))
    }

    pub fn json(&self) -> serde_json::Value {
        serde_json::json!({
            "name": self.name, "value": self.value.number(),
            "floor": self.floor.map(Value::number), "goal": self.goal.map(Goal::text),
            "met": self.is_met(),
        })
    }
}

/// Prints a table with a line for each figure.
pub(super) fn print(figures: &[Figure]) {
    let width = figures.iter().map(|figure| figure.name.chars().count()).max().unwrap_or(0);
    say!("{:<width$}{:>12}{:>12}   goal", "", "measured", "floor");
    for figure in figures {
        let floor = figure.floor.map_or_else(String::new, Value::text);
        let goal = figure.goal.map_or_else(String::new, Goal::text);
        let missed = if figure.is_met() == Some(false) { "  MISSED" } else { "" };
        say!("{:<width$}{:>12}{floor:>12}   {goal}{missed}", figure.name, figure.value.text());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missed_goals_and_met_goals_are_distinguished() {
        let figure = |value, goal| Figure::new("", Value::Ns(value)).goal(goal).is_met();
        assert_eq!(figure(2.0, Goal::AtMost(Value::Ns(2.0))), Some(true));
        assert_eq!(figure(2.1, Goal::AtMost(Value::Ns(2.0))), Some(false));
        assert_eq!(figure(1.9, Goal::AtLeast(Value::Ns(2.0))), Some(false));
        assert_eq!(Figure::new("", Value::Ns(1.0)).is_met(), None);
    }
}
