//! A call of a window function over a table: `f(…) OVER (PARTITION BY … ORDER BY … frame)`.

use super::{Expr, SortOrder, list, lower};
use crate::table::error::Place;
use std::fmt;

/// A call with its window.
#[derive(Clone, Debug, PartialEq)]
pub struct Over {
    /// The call: an aggregate, or a function such as `rank`.
    pub call: Expr,
    /// Whether the call has IGNORE NULLS.
    pub ignores_nulls: bool,
    /// The window of the WINDOW clause, for `OVER name`.
    pub base: Option<String>,
    /// The keys of PARTITION BY.
    pub partition: Vec<Expr>,
    /// The keys of ORDER BY.
    pub order: Vec<SortOrder>,
    /// The frame; `None` for the default of the function.
    pub frame: Option<Frame>,
    /// The position in the query text.
    pub place: Place,
}

/// What the distances of a frame's bounds count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FrameUnit {
    /// Rows.
    Rows,
    /// Values of the ordering key. Rows with equal keys belong together.
    Range,
}

/// The rows around the current row over which a window function is computed.
#[derive(Clone, Debug, PartialEq)]
pub struct Frame<T = Expr> {
    /// The unit of the bounds.
    pub unit: FrameUnit,
    /// The first row.
    pub start: FrameBound<T>,
    /// The last row.
    pub end: FrameBound<T>,
}

/// A bound of a frame.
#[derive(Clone, Debug, PartialEq)]
pub enum FrameBound<T = Expr> {
    /// The first row of the partition.
    UnboundedPreceding,
    /// A distance before the current row.
    Preceding(T),
    /// The current row; in a RANGE frame also the rows with an equal key.
    CurrentRow,
    /// A distance after the current row.
    Following(T),
    /// The last row of the partition.
    UnboundedFollowing,
}

impl<T> Frame<T> {
    /// Whether the frame contains all rows of the partition.
    pub fn is_whole(&self) -> bool {
        matches!(
            (&self.start, &self.end),
            (FrameBound::UnboundedPreceding, FrameBound::UnboundedFollowing)
        )
    }
}

impl<T> FrameBound<T> {
    /// The distance, if the bound has one.
    pub fn distance(&self) -> Option<&T> {
        match self {
            Self::Preceding(distance) | Self::Following(distance) => Some(distance),
            _ => None,
        }
    }

    fn distance_mut(&mut self) -> Option<&mut T> {
        match self {
            Self::Preceding(distance) | Self::Following(distance) => Some(distance),
            _ => None,
        }
    }

    /// Replaces the distance by the result of `change`.
    pub fn map<U, E>(self, change: &mut dyn FnMut(T) -> Result<U, E>) -> Result<FrameBound<U>, E> {
        Ok(match self {
            Self::UnboundedPreceding => FrameBound::UnboundedPreceding,
            Self::Preceding(distance) => FrameBound::Preceding(change(distance)?),
            Self::CurrentRow => FrameBound::CurrentRow,
            Self::Following(distance) => FrameBound::Following(change(distance)?),
            Self::UnboundedFollowing => FrameBound::UnboundedFollowing,
        })
    }
}

impl Over {
    /// Calls `call` for each direct subexpression.
    pub(super) fn each_part<'e>(&'e self, call: &mut dyn FnMut(&'e Expr)) {
        call(&self.call);
        self.partition.iter().for_each(&mut *call);
        self.order.iter().for_each(|key| call(&key.expr));
        let bounds = self.frame.iter().flat_map(|frame| [&frame.start, &frame.end]);
        bounds.filter_map(FrameBound::distance).for_each(call);
    }

    /// Like [`Self::each_part`], with mutable subexpressions.
    pub(super) fn each_part_mut(&mut self, call: &mut dyn FnMut(&mut Expr)) {
        call(&mut self.call);
        self.partition.iter_mut().for_each(&mut *call);
        self.order.iter_mut().for_each(|key| call(&mut key.expr));
        let bounds = self.frame.iter_mut().flat_map(|frame| [&mut frame.start, &mut frame.end]);
        bounds.filter_map(FrameBound::distance_mut).for_each(call);
    }

    /// Returns a copy in which each direct subexpression is replaced by the result of `change`.
    pub(super) fn map(&self, change: &mut dyn FnMut(&Expr) -> Expr) -> Self {
        let mut copy = self.clone();
        copy.each_part_mut(&mut |part| *part = change(part));
        copy
    }
}

impl Over {
    /// The call, and the frame that the function has without one, as Spark writes them.
    fn shown(&self) -> (String, String) {
        let rows = "ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW";
        let default = if self.order.is_empty() {
            "ROWS BETWEEN UNBOUNDED PRECEDING AND UNBOUNDED FOLLOWING"
        } else {
            "RANGE BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW"
        };
        let Expr::Call { name, args, .. } = &self.call else {
            return (self.call.to_string(), default.to_string());
        };
        match &*lower(name) {
            ranking @ ("rank" | "dense_rank" | "percent_rank") => {
                (format!("{}()", ranking.to_uppercase()), rows.to_string())
            }
            "row_number" | "ntile" | "counter_diff" => (self.call.to_string(), rows.to_string()),
            shift @ ("lag" | "lead") => {
                let arg = |at: usize, missing: &str| {
                    args.get(at).map_or(missing.to_string(), ToString::to_string)
                };
                let offset = arg(1, "1");
                let call = format!("{shift}({}, {offset}, {})", arg(0, ""), arg(2, "NULL"));
                let distance = match (shift, offset.strip_prefix('-')) {
                    ("lead", _) => offset,
                    (_, Some(positive)) => positive.to_string(),
                    (_, None) if offset == "0" => offset,
                    (_, None) => format!("-{offset}"),
                };
                (call, format!("ROWS BETWEEN {distance} FOLLOWING AND {distance} FOLLOWING"))
            }
            _ => (self.call.to_string(), default.to_string()),
        }
    }
}

impl fmt::Display for Over {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (call, default) = self.shown();
        write!(f, "{call} OVER ")?;
        if let Some(base) = &self.base {
            return write!(f, "{base}");
        }
        write!(f, "(")?;
        if !self.partition.is_empty() {
            write!(f, "PARTITION BY ")?;
            list(f, &self.partition)?;
            write!(f, " ")?;
        }
        if !self.order.is_empty() {
            write!(f, "ORDER BY ")?;
            list(f, &self.order)?;
            write!(f, " ")?;
        }
        match &self.frame {
            Some(frame) => write!(f, "{frame})"),
            None => write!(f, "{default})"),
        }
    }
}

impl<T: fmt::Display> fmt::Display for Frame<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let unit = match self.unit {
            FrameUnit::Rows => "ROWS",
            FrameUnit::Range => "RANGE",
        };
        write!(f, "{unit} BETWEEN {} AND {}", self.start, self.end)
    }
}

impl<T: fmt::Display> fmt::Display for FrameBound<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UnboundedPreceding => write!(f, "UNBOUNDED PRECEDING"),
            Self::Preceding(distance) => write!(f, "{distance} PRECEDING"),
            Self::CurrentRow => write!(f, "CURRENT ROW"),
            Self::Following(distance) => write!(f, "{distance} FOLLOWING"),
            Self::UnboundedFollowing => write!(f, "UNBOUNDED FOLLOWING"),
        }
    }
}

impl fmt::Display for SortOrder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let nulls_first = self.nulls_first.unwrap_or(!self.descending);
        write!(
            f,
            "{} {} NULLS {}",
            self.expr,
            if self.descending { "DESC" } else { "ASC" },
            if nulls_first { "FIRST" } else { "LAST" }
        )
    }
}
