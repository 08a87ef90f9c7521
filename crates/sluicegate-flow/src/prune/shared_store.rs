//! What goes of a store that machines share: by the age of each object alone, so that nothing has to be read, and no machine has to be
//! kept out meanwhile.
//!
//! Whoever puts a result there puts its contents first, each time anew, and then the record that leads to them. So what leads somewhere is
//! younger than what it leads to, but for the time that putting takes, which is some hours at most: a record goes with its age, contents a
//! day later. What goes is removed as it is seen, some objects at a time: what is put anew between the two is lost with them, and costs
//! whoever would have taken it the time to make it. Nothing else can come of it: what is there is believed by nobody.

use std::{
    num::NonZero,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use sluicegate_ports::prune::{AgedObject, AgedObjects};
use sluicegate_types::UnixTime;

use super::{Amount, BrokeOff};
use crate::{Error, in_parallel::in_parallel};

/// How much longer than what leads to it a content stays, how long what is on its way there is nobody's to remove, and how much clocks may
/// differ before it is told.
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// Objects that are removed at a time: each is a request that is waited for.
const AT_ONCE: NonZero<usize> = NonZero::new(8).unwrap();

/// A store that machines share.
pub struct SharedParts<'a> {
    /// What leads from keys to contents.
    pub results: &'a dyn AgedObjects,
    /// Outputs, logs, reports and statements.
    pub contents: &'a dyn AgedObjects,
}

/// What goes.
#[derive(Clone, Copy, Debug)]
pub struct SharedKeep {
    /// What was put within this time stays; `None` keeps nothing but what is on its way there.
    pub put_within: Option<Duration>,
    /// Now, by this machine's clock.
    pub now: UnixTime,
    /// Whether it is only counted.
    pub dry_run: bool,
}

/// What went of one kind, or would.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KindPruned {
    /// The kind.
    pub what: &'static str,
    /// What went.
    pub deleted: Amount,
    /// What stays.
    pub kept: Amount,
    /// Of that, what was put more than a day from now: one of the two clocks is wrong, or somebody has set it so.
    pub to_come: Amount,
}

/// Deletes what was put there longer ago than is kept: what leads to contents before them. What is gone already was to be gone.
pub fn prune(parts: &SharedParts<'_>, keep: &SharedKeep) -> Result<[KindPruned; 2], BrokeOff> {
    let mut before = Amount::default();
    let results = prune_kind(parts.results, keep.put_within, keep, &mut before)?;
    let longer = keep.put_within.map(|within| within.saturating_add(DAY));
    let contents = prune_kind(parts.contents, longer, keep, &mut before)?;
    Ok([results, contents])
}

/// The same of one kind; `before` is what was deleted until then.
fn prune_kind(
    objects: &dyn AgedObjects,
    within: Option<Duration>,
    keep: &SharedKeep,
    before: &mut Amount,
) -> Result<KindPruned, BrokeOff> {
    let nothing = Amount::default();
    let mut pruned = KindPruned { what: objects.what(), deleted: nothing, kept: nothing, to_come: nothing };
    let deleted = Mutex::new(nothing);
    let done = objects.for_some(&mut |some: &[AgedObject]| {
        let mut old = Vec::new();
        for object in some {
            let seconds = keep.now.seconds().saturating_sub(object.put.seconds());
            let age = Duration::from_secs(u64::try_from(seconds).unwrap_or_default());
            let within = if object.is_draft { Some(within.unwrap_or_default().max(DAY)) } else { within };
            if within.is_none_or(|within| age > within) {
                old.push(object);
                continue;
            }
            pruned.kept.add(object.size);
            if seconds < -DAY.as_secs().cast_signed() {
                pruned.to_come.add(object.size);
            }
        }
        let gone = in_parallel(AT_ONCE.get(), &old, |object| {
            if !keep.dry_run {
                objects.remove(&object.name)?;
            }
            deleted.lock().unwrap_or_else(PoisonError::into_inner).add(object.size);
            Ok(())
        });
        gone.map(drop)
    });
    pruned.deleted = deleted.into_inner().unwrap_or_else(PoisonError::into_inner);
    if !keep.dry_run {
        *before += pruned.deleted;
    }
    done.map_err(|error| BrokeOff { deleted: *before, error: Box::new(Error::from(error)) })?;
    Ok(pruned)
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use sluicegate_ports::store::StoreError;
    use sluicegate_testkit::today;

    use super::*;

    /// Objects by name and age in seconds, two at a time; removing one named in `stuck` fails.
    struct Objects {
        what: &'static str,
        ages: Vec<(&'static str, i64)>,
        removed: Mutex<Vec<String>>,
        stuck: Option<&'static str>,
    }

    impl Objects {
        fn new(what: &'static str, ages: &[(&'static str, i64)]) -> Self {
            Self { what, ages: ages.to_vec(), removed: Mutex::default(), stuck: None }
        }

        fn removed(&self) -> Vec<String> {
            let mut removed = self.removed.lock().unwrap().clone();
            removed.sort();
            removed
        }
    }

    impl AgedObjects for Objects {
        fn what(&self) -> &'static str {
            self.what
        }

        fn for_some(&self, show: &mut dyn FnMut(&[AgedObject]) -> Result<(), StoreError>) -> Result<(), StoreError> {
            let object = |(name, age): &(&str, i64)| AgedObject {
                name: (*name).to_owned(),
                size: 10,
                put: UnixTime::from_seconds(today().seconds() - age).unwrap(),
                is_draft: name.contains('#'),
            };
            let all: Vec<AgedObject> = self.ages.iter().map(object).collect();
            all.chunks(2).try_for_each(show)
        }

        fn remove(&self, name: &str) -> Result<(), StoreError> {
            if self.stuck == Some(name) {
                let source = std::io::Error::other("refused");
                return Err(StoreError::Io { action: "remove", path: name.into(), source });
            }
            self.removed.lock().unwrap().push(name.to_owned());
            Ok(())
        }
    }

    const HOUR: i64 = 60 * 60;

    fn keep(within: Option<u64>) -> SharedKeep {
        SharedKeep { put_within: within.map(Duration::from_secs), now: today(), dry_run: false }
    }

    fn amount(count: u64) -> Amount {
        Amount { count, bytes: 10 * count }
    }

    #[test]
    fn what_is_older_goes_and_contents_a_day_later_than_what_leads_to_them() {
        let ages = [("at", HOUR), ("older", HOUR + 1), ("soon", -24 * HOUR), ("to come", -24 * HOUR - 1)];
        let results = Objects::new("results", &ages);
        let contents =
            Objects::new("contents", &ages.map(|(name, age)| (name, if age > 0 { age + 24 * HOUR } else { age })));
        let parts = SharedParts { results: &results, contents: &contents };
        let dry = prune(&parts, &SharedKeep { dry_run: true, ..keep(Some(3600)) }).unwrap();
        assert_eq!(results.removed().len() + contents.removed().len(), 0);
        let done = prune(&parts, &keep(Some(3600))).unwrap();
        assert_eq!(done, dry);
        let expected = |what| KindPruned { what, deleted: amount(1), kept: amount(3), to_come: amount(1) };
        assert_eq!(done, [expected("results"), expected("contents")]);
        assert_eq!((results.removed(), contents.removed()), (vec!["older".to_owned()], vec!["older".to_owned()]));
        let [of_results, of_contents] = prune(&parts, &keep(None)).unwrap();
        assert_eq!((of_results.deleted, of_contents.deleted), (amount(4), amount(4)));
    }

    #[test]
    fn what_is_on_its_way_there_stays_for_a_day_whatever_is_kept() {
        let results = Objects::new("results", &[]);
        let contents = Objects::new("contents", &[("x#1", 24 * HOUR), ("y#1", 24 * HOUR + 1), ("z", 1)]);
        let parts = SharedParts { results: &results, contents: &contents };
        prune(&parts, &keep(None)).unwrap();
        assert_eq!(contents.removed(), ["y#1", "z"]);
        prune(&parts, &keep(Some(48 * 3600))).unwrap();
        assert_eq!(contents.removed(), ["y#1", "z"]);
    }

    #[test]
    fn no_content_goes_while_something_that_may_lead_to_it_cannot_be_removed() {
        let mut results = Objects::new("results", &[("a", 9), ("b", 9), ("c", 9)]);
        results.stuck = Some("b");
        let contents = Objects::new("contents", &[("x", 9)]);
        let parts = SharedParts { results: &results, contents: &contents };
        let broke_off = prune(&parts, &keep(None)).unwrap_err();
        assert_eq!(broke_off.deleted.count as usize, results.removed().len());
        assert!(broke_off.error.causes().join(": ").contains("cannot remove b: refused"));
        assert!(!results.removed().contains(&"c".to_owned()));
        assert_eq!(contents.removed().len(), 0);
    }
}
