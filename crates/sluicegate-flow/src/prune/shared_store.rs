//! What goes of a store that machines share: by the age of each object alone, so that nothing has to be read, and no machine has to be
//! kept out meanwhile.
//!
//! Whoever puts a result there puts its contents first, each time anew, and then the record that leads to them. So what leads somewhere is
//! younger than what it leads to, but for the time that putting takes: a record goes with its age, contents a day later. What a machine
//! puts at this very moment may lose a content that was old; then it is not taken from there, and made and put once more.

use std::{
    num::NonZero,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use sluicegate_ports::prune::Disposable;
use sluicegate_types::UnixTime;

use super::{Amount, BrokeOff, KindPlan, is_within};
use crate::{Error, in_parallel::in_parallel};

/// How much longer than what leads to it a content stays.
const LONGER: Duration = Duration::from_secs(24 * 60 * 60);

/// Objects that are removed at a time: each is a request that is waited for.
const AT_ONCE: NonZero<usize> = NonZero::new(8).unwrap();

/// A store that machines share.
pub struct SharedParts<'a> {
    /// What leads from keys to contents.
    pub results: &'a dyn Disposable,
    /// Outputs, logs, reports and statements.
    pub contents: &'a dyn Disposable,
}

/// What is to go of a shared store.
#[derive(Debug)]
pub struct SharedPlan {
    /// What leads to contents, then these.
    pub kinds: [KindPlan; 2],
}

impl SharedPlan {
    /// How much goes.
    pub fn deleted(&self) -> Amount {
        let mut all = Amount::default();
        self.kinds.iter().for_each(|kind| all += kind.deleted());
        all
    }
}

/// Decides what goes, and changes nothing: what was put there longer ago than `within`; `None` keeps nothing.
pub fn plan(parts: &SharedParts<'_>, within: Option<Duration>, now: UnixTime) -> Result<SharedPlan, Error> {
    let kind = |objects: &dyn Disposable, within: Option<Duration>| {
        let things = objects.things()?;
        Ok::<_, Error>(KindPlan::split(objects.what(), things, |thing| is_within(within, thing.used, now)))
    };
    let results = kind(parts.results, within)?;
    let contents = kind(parts.contents, within.map(|within| within.saturating_add(LONGER)))?;
    Ok(SharedPlan { kinds: [results, contents] })
}

/// Deletes what was decided: what leads to contents before them. What is gone already was to be gone.
pub fn carry_out(parts: &SharedParts<'_>, plan: &SharedPlan) -> Result<(), BrokeOff> {
    let deleted = Mutex::new(Amount::default());
    for (objects, kind) in [parts.results, parts.contents].into_iter().zip(&plan.kinds) {
        let removed = in_parallel(AT_ONCE.get(), &kind.things, |thing| {
            objects.remove(&thing.name)?;
            deleted.lock().unwrap_or_else(PoisonError::into_inner).add(thing.size);
            Ok::<_, Error>(())
        });
        if let Err(error) = removed {
            let deleted = *deleted.lock().unwrap_or_else(PoisonError::into_inner);
            return Err(BrokeOff { deleted, error: Box::new(error) });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use sluicegate_ports::{
        prune::{Thing, Tie},
        store::StoreError,
    };
    use sluicegate_testkit::today;

    use super::*;

    /// Objects by name and age in seconds; removing one named in `stuck` fails.
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

    impl Disposable for Objects {
        fn what(&self) -> &'static str {
            self.what
        }

        fn things(&self) -> Result<Vec<Thing>, StoreError> {
            let thing = |(name, age): &(&str, i64)| Thing {
                name: (*name).to_owned(),
                size: 10,
                used: UnixTime::from_seconds(today().seconds() - age).unwrap(),
                tie: Tie::Nothing,
            };
            Ok(self.ages.iter().map(thing).collect())
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

    #[test]
    fn what_is_older_goes_and_contents_a_day_later_than_what_leads_to_them() {
        let results = Objects::new("results", &[("at", HOUR), ("older", HOUR + 1), ("to come", -HOUR)]);
        let contents = Objects::new("contents", &[("at", 25 * HOUR), ("older", 25 * HOUR + 1), ("to come", -HOUR)]);
        let parts = SharedParts { results: &results, contents: &contents };
        let planned = plan(&parts, Some(Duration::from_secs(60 * 60)), today()).unwrap();
        let [of_results, of_contents] = &planned.kinds;
        for kind in [of_results, of_contents] {
            assert_eq!(kind.things.iter().map(|thing| thing.name.as_str()).collect::<Vec<_>>(), ["older"]);
            assert_eq!(kind.kept, Amount { count: 2, bytes: 20 });
        }
        assert_eq!(planned.deleted(), Amount { count: 2, bytes: 20 });
        // Deciding removes nothing.
        assert_eq!(results.removed().len() + contents.removed().len(), 0);
        carry_out(&parts, &planned).unwrap();
        assert_eq!((results.removed(), contents.removed()), (vec!["older".to_owned()], vec!["older".to_owned()]));
        let all = plan(&parts, None, today()).unwrap();
        assert_eq!(all.deleted().count, 6);
    }

    #[test]
    fn no_content_goes_while_something_that_may_lead_to_it_cannot_be_removed() {
        let mut results = Objects::new("results", &[("a", 9), ("b", 9)]);
        results.stuck = Some("b");
        let contents = Objects::new("contents", &[("x", 9)]);
        let parts = SharedParts { results: &results, contents: &contents };
        let planned = plan(&parts, None, today()).unwrap();
        let broke_off = carry_out(&parts, &planned).unwrap_err();
        assert_eq!(broke_off.deleted.count as usize, results.removed().len());
        assert!(broke_off.error.causes().join(": ").contains("cannot remove b: refused"));
        assert_eq!(contents.removed().len(), 0);
    }
}
