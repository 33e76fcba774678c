//! Limits the cost of finding all matches of a text with the linear engine.
//!
//! A single search takes time linear in the text, but every match starts a new search. A pattern
//! may look far ahead for a long match and then accept a short one. Such a pattern scans the whole
//! rest of the text for every match: `.*[^A-Z]|[A-Z]` in a text of capital letters. The engine does
//! not report how far it has read. So each search is first charged for the whole rest of the text.
//! If this estimate exceeds a budget, the pattern's automaton measures how far each search really
//! reads.

use crate::table::text::regexp::linear::Linear;
use crate::table::text::regexp::machine::StepLimitExceeded;
use regex_automata::hybrid::dfa::{Cache, DFA};
use regex_automata::{Input, MatchKind, nfa::thompson};

/// The number of bytes that all searches in a text may read, in addition to `STEPS_A_BYTE` for each
/// byte of the text. Reading them may take a few seconds.
const STEPS: usize = if cfg!(test) { 1_000_000 } else { 100_000_000 };
const STEPS_A_BYTE: usize = 30;
/// Estimates are used as long as their sum is at most `1 / UNMEASURED` of the limit. Other costs
/// are measured.
const UNMEASURED: usize = 4;

/// Builds the automaton that [`Meter`] runs; `None` if it exceeds `size` bytes.
pub(super) fn automaton(pattern: &str, size: usize) -> Option<DFA> {
    let nfa = thompson::Config::new()
        .which_captures(thompson::WhichCaptures::None)
        .nfa_size_limit(Some(size));
    let config = DFA::config().match_kind(MatchKind::LeftmostFirst).skip_cache_capacity_check(true);
    DFA::builder().thompson(nfa).configure(config).build(pattern).ok()
}

/// The remaining read budget of the searches in one text, in bytes.
pub(super) struct Meter {
    /// The remaining budget for measured costs.
    steps: usize,
    /// The remaining budget for estimated costs.
    unmeasured: usize,
    cache: Option<Box<Cache>>,
}

impl Meter {
    pub fn new(length: usize) -> Self {
        let steps = length.saturating_mul(STEPS_A_BYTE).saturating_add(STEPS);
        Self { steps, unmeasured: steps / UNMEASURED, cache: None }
    }

    /// Charges the search that starts at `from`. While all searches together could have read only
    /// `unmeasured` bytes, the cost is not measured. Fails if the measured cost exceeds the budget.
    /// If the automaton is too large, the cost is the whole rest of the text.
    #[inline]
    pub fn count(
        &mut self,
        linear: &Linear,
        text: &str,
        from: usize,
    ) -> Result<(), StepLimitExceeded> {
        match self.unmeasured.checked_sub(text.len() - from) {
            Some(left) => {
                self.unmeasured = left;
                Ok(())
            }
            None => self.measure(linear, text, from),
        }
    }

    #[cold]
    fn measure(
        &mut self,
        linear: &Linear,
        text: &str,
        from: usize,
    ) -> Result<(), StepLimitExceeded> {
        let cost = match linear.automaton() {
            Some(dfa) => {
                let cache = self.cache.get_or_insert_with(|| Box::new(dfa.create_cache()));
                reach(dfa, cache, text, from)
            }
            None => text.len() - from,
        };
        self.steps = self.steps.checked_sub(cost).ok_or(StepLimitExceeded)?;
        Ok(())
    }
}

/// The number of bytes that a search reads, starting at an offset.
fn reach(dfa: &DFA, cache: &mut Cache, text: &str, from: usize) -> usize {
    let rest = &text.as_bytes()[from..];
    let Ok(mut state) = dfa.start_state_forward(cache, &Input::new(text).range(from..)) else {
        return rest.len();
    };
    for (at, byte) in rest.iter().enumerate() {
        match dfa.next_state(cache, state, *byte) {
            // In a dead state there is no further match. Without quit bytes there is no quit state.
            Ok(next) if next.is_dead() || next.is_quit() => return at + 1,
            Ok(next) => state = next,
            Err(_) => return rest.len(),
        }
    }
    rest.len()
}
