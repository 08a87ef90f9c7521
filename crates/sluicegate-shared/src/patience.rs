//! How long a store may take for all that one command asks of it.

use std::time::Duration;

use crate::SharedLimits;

/// Each question has its own time; a thousand slow ones together would take as long as what they save.
#[derive(Debug, Default)]
pub(crate) struct Patience {
    spent: Duration,
    questions: u32,
    bytes: u64,
}

impl Patience {
    /// A question was answered, or not, after this time and with so many bytes.
    pub(crate) fn asked(&mut self, took: Duration, bytes: u64) {
        self.spent = self.spent.saturating_add(took);
        self.questions = self.questions.saturating_add(1);
        self.bytes = self.bytes.saturating_add(bytes);
    }

    /// Whether it has come to its end.
    pub(crate) fn is_over(&self, limits: &SharedLimits) -> bool {
        self.spent > limits.patience(self.bytes).saturating_add(limits.question.saturating_mul(self.questions))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_slow_answers_end_it_and_many_quick_ones_or_much_content_do_not() {
        let limits = SharedLimits::default();
        let over_after = |took: Duration, bytes: u64| {
            let mut patience = Patience::default();
            (1..=10_000).find(|_| {
                patience.asked(took, bytes);
                patience.is_over(&limits)
            })
        };
        assert_eq!(over_after(limits.question, 0), None);
        assert_eq!(over_after(Duration::from_secs(25), 0), Some(2));
        assert_eq!(over_after(Duration::from_secs(2), 0), Some(31));
        assert_eq!(over_after(Duration::from_secs(2), limits.pace), None);
    }
}
