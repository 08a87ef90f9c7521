//! Replaces what is found in a stream, however it is cut into pieces.

use std::{collections::VecDeque, ops::Range};

use super::{Forms, MASK, search::Search, wipe};

/// One stream.
pub(crate) struct Masker {
    forms: Forms,
    search: Search,
    /// What was read and not given; before `front` stands what was given already.
    held: Vec<u8>,
    front: usize,
    /// Bytes of the stream that were given, in one form or the other.
    given: u64,
    /// What is to be hidden, in order, neither overlapping nor touching.
    runs: VecDeque<Range<u64>>,
    /// Whether what was given last is a mask.
    hiding: bool,
}

impl Masker {
    pub(super) fn new(forms: Forms) -> Self {
        let (search, runs) = (Search::new(), VecDeque::new());
        Self { forms, search, held: Vec::new(), front: 0, given: 0, runs, hiding: false }
    }

    /// Takes the next bytes and appends to `out` what is decided.
    pub(crate) fn push(&mut self, bytes: &[u8], out: &mut Vec<u8>) {
        if self.forms.is_empty() {
            return out.extend_from_slice(bytes);
        }
        self.held.extend_from_slice(bytes);
        let Self { forms, search, runs, .. } = self;
        for byte in bytes {
            search.take(&forms.0, *byte, &mut |run| hide(runs, run));
        }
        self.give(self.search.undecided(), out);
    }

    /// The stream has ended: appends what was held back.
    pub(crate) fn finish(&mut self, out: &mut Vec<u8>) {
        let Self { forms, search, runs, .. } = self;
        search.finish(&forms.0, &mut |run| hide(runs, run));
        self.give(self.search.read(), out);
    }

    #[cfg(test)]
    pub(super) fn held(&self) -> u64 {
        self.search.read() - self.given
    }

    fn give(&mut self, until: u64, out: &mut Vec<u8>) {
        while self.given < until {
            let next = self.runs.front().cloned();
            let end = match &next {
                Some(run) if run.start <= self.given => {
                    if !self.hiding {
                        out.extend_from_slice(MASK);
                    }
                    self.hiding = true;
                    run.end.min(until)
                }
                _ => {
                    self.hiding = false;
                    next.as_ref().map_or(until, |run| run.start.min(until))
                }
            };
            let count = usize::try_from(end - self.given).unwrap_or(usize::MAX);
            if !self.hiding {
                out.extend_from_slice(&self.held[self.front..self.front + count]);
            }
            self.front += count;
            self.given = end;
            if next.is_some_and(|run| run.end <= end) {
                self.runs.pop_front();
            }
        }
        // Only when it pays, so that a stream of single bytes does not move the rest for each of them.
        if self.front * 2 >= self.held.len() {
            self.held.drain(..self.front);
            self.front = 0;
        }
    }
}

/// Puts a run among the others. One that was found late may end before the last of them.
fn hide(runs: &mut VecDeque<Range<u64>>, mut run: Range<u64>) {
    let mut at = runs.iter().rposition(|other| other.start <= run.end).map_or(0, |last| last + 1);
    while let Some(other) = at.checked_sub(1).and_then(|before| runs.get(before)).filter(|other| other.end >= run.start)
    {
        run = run.start.min(other.start)..run.end.max(other.end);
        at -= 1;
        runs.remove(at);
    }
    runs.insert(at, run);
}

impl Drop for Masker {
    fn drop(&mut self) {
        wipe(&mut self.held);
    }
}
