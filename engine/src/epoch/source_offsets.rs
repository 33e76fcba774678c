//! The offsets of a query's sources: one per source in the checkpoint, one per tasklet in a run.
//!
//! Most sources with several tasklets have an offset per tasklet, and so need the same number of
//! tasklets after a restart. A source whose tasklets share one offset does not: its tasklets' offsets
//! are merged before they are written, and after a restart each tasklet gets the merged offset and
//! takes what is its own.

use crate::checkpoint::offset::Offset;

/// Merges the offsets of a source's tasklets.
pub type MergeOffsets = fn(&[Offset]) -> Offset;

#[derive(Debug)]
struct Source {
    tasklets: usize,
    merge: Option<MergeOffsets>,
}

/// How the tasklets of a query belong to the offsets of its checkpoint.
#[derive(Debug, Default)]
pub struct SourceOffsets {
    sources: Vec<Source>,
}

impl SourceOffsets {
    /// Adds a source with one tasklet.
    pub fn add(&mut self) {
        self.sources.push(Source { tasklets: 1, merge: None });
    }

    /// Adds a source whose tasklets share one offset.
    pub fn add_merged(&mut self, tasklets: usize, merge: MergeOffsets) {
        self.sources.push(Source { tasklets, merge: Some(merge) });
    }

    /// The number of offsets in the checkpoint.
    pub fn count(&self) -> usize {
        self.sources.len()
    }

    /// Whether each source may still have data, from whether its tasklets have reported their end:
    /// a source is open until all of its tasklets have.
    pub fn open(&self, exhausted: &[bool]) -> impl Iterator<Item = bool> {
        let mut rest = exhausted;
        self.sources.iter().map(move |source| {
            let (own, others) = rest.split_at(source.tasklets);
            rest = others;
            !own.iter().all(|exhausted| *exhausted)
        })
    }

    /// The offsets for the checkpoint, from those of the tasklets.
    pub fn merged(&self, of_tasklets: &[Offset]) -> Vec<Offset> {
        let mut rest = of_tasklets;
        let mut next = |source: &Source| {
            let (own, others) = rest.split_at(source.tasklets);
            rest = others;
            match source.merge {
                Some(merge) if own.len() > 1 => merge(own),
                _ => own[0].clone(),
            }
        };
        self.sources.iter().map(&mut next).collect()
    }

    /// The offset that each tasklet starts with, from those of the checkpoint.
    pub fn by_tasklet(&self, of_sources: &[Offset]) -> Vec<Offset> {
        let each = self.sources.iter().zip(of_sources);
        each.flat_map(|(source, offset)| std::iter::repeat_n(offset.clone(), source.tasklets))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tasklets_of_a_source_share_its_offset_and_its_end() {
        let texts =
            |texts: &[&str]| texts.iter().map(|t| Offset(t.to_string())).collect::<Vec<_>>();
        let join = |own: &[Offset]| {
            Offset(own.iter().map(|offset| offset.0.as_str()).collect::<Vec<_>>().join("+"))
        };
        let mut offsets = SourceOffsets::default();
        offsets.add();
        offsets.add_merged(2, join);
        offsets.add_merged(1, join);
        assert_eq!(offsets.count(), 3);
        assert_eq!(offsets.merged(&texts(&["a", "b", "c", "d"])), texts(&["a", "b+c", "d"]));
        assert_eq!(offsets.by_tasklet(&texts(&["a", "b", "c"])), texts(&["a", "b", "b", "c"]));
        assert_eq!(offsets.by_tasklet(&[]), texts(&[]), "a first start");
        let open = |exhausted| offsets.open(exhausted).collect::<Vec<_>>();
        assert_eq!(open(&[true, true, false, true]), [false, true, false]);
        assert_eq!(open(&[false, true, true, false]), [true, false, true]);
    }
}
