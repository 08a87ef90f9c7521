//! Milliseconds that were measured again and again, and what is said of them.

/// Milliseconds in the order in which they were measured; at least one.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Samples {
    milliseconds: Vec<f64>,
}

impl Samples {
    /// These milliseconds; `None` if there are none.
    #[must_use]
    pub(super) fn new(milliseconds: Vec<f64>) -> Option<Self> {
        if milliseconds.is_empty() { None } else { Some(Self { milliseconds }) }
    }

    /// As they were measured.
    #[must_use]
    pub(super) fn milliseconds(&self) -> &[f64] {
        &self.milliseconds
    }

    /// The smallest.
    #[must_use]
    pub(super) fn min(&self) -> f64 {
        self.milliseconds.iter().copied().fold(f64::INFINITY, f64::min)
    }

    /// The one in the middle; of an even number the mean of the two in the middle.
    #[must_use]
    pub(super) fn median(&self) -> f64 {
        median(&self.milliseconds)
    }

    /// The largest.
    #[must_use]
    pub(super) fn max(&self) -> f64 {
        self.milliseconds.iter().copied().fold(f64::NEG_INFINITY, f64::max)
    }

    /// Each with `change` applied.
    #[must_use]
    pub(super) fn map(&self, change: impl Fn(f64) -> f64) -> Self {
        Self { milliseconds: self.milliseconds.iter().map(|value| change(*value)).collect() }
    }

    /// What each takes longer than its neighbour of the same round in `less`; as many as both have.
    #[must_use]
    pub(super) fn beyond(&self, less: &Self) -> Self {
        Self {
            milliseconds: self.milliseconds.iter().zip(&less.milliseconds).map(|(more, less)| more - less).collect(),
        }
    }

    /// How many times the peer's time this is: the median over the rounds, so that what slows a whole round counts once.
    #[must_use]
    pub(super) fn times(&self, peer: &Self) -> f64 {
        let ratios: Vec<f64> = self.milliseconds.iter().zip(&peer.milliseconds).map(|(own, peer)| own / peer).collect();
        median(&ratios)
    }
}

fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match (sorted.get(middle.wrapping_sub(1)), sorted.get(middle)) {
        (Some(below), Some(above)) if sorted.len().is_multiple_of(2) => f64::midpoint(*below, *above),
        (_, Some(middle)) => *middle,
        (_, None) => f64::NAN,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn samples(milliseconds: &[f64]) -> Samples {
        Samples::new(milliseconds.to_vec()).unwrap()
    }

    #[test]
    fn the_median_is_the_middle_one_or_the_mean_of_two() {
        assert_eq!(samples(&[9.0, 1.0, 5.0]).median(), 5.0);
        assert_eq!(samples(&[9.0, 1.0, 5.0, 7.0]).median(), 6.0);
        assert_eq!(samples(&[4.0]).median(), 4.0);
        let three = samples(&[9.0, 1.0, 5.0]);
        assert_eq!((three.min(), three.max(), three.milliseconds().len()), (1.0, 9.0, 3));
        assert_eq!(three.milliseconds(), [9.0, 1.0, 5.0]);
        assert!(Samples::new(Vec::new()).is_none());
    }

    #[test]
    fn the_ratio_is_that_of_the_rounds_and_not_of_the_medians() {
        // A machine that grew slow during the last two rounds slowed both.
        let (own, peer) = (samples(&[1.0, 10.0, 30.0]), samples(&[2.0, 20.0, 60.0]));
        assert_eq!(own.times(&peer), 0.5);
        assert_eq!(samples(&[3.0, 1.0, 2.0]).times(&samples(&[1.0, 1.0, 1.0])), 2.0);
    }

    #[test]
    fn a_difference_is_taken_round_by_round() {
        assert_eq!(samples(&[50.0, 60.0]).beyond(&samples(&[1.0, 10.0])), samples(&[49.0, 50.0]));
        assert_eq!(samples(&[50.0, 60.0]).map(|value| value / 10.0), samples(&[5.0, 6.0]));
    }
}
