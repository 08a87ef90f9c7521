//! The same work for many items, several at a time.

use std::{
    collections::BTreeMap,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
};

/// What `work` makes of each item, in the order of the items, with `workers` threads. After a failure no further item is begun, and the
/// failure of the first item that has one is returned.
pub(crate) fn in_parallel<I: Sync, T: Send, E: Send>(
    workers: usize,
    items: &[I],
    work: impl Fn(&I) -> Result<T, E> + Sync,
) -> Result<Vec<T>, E> {
    // One is not worth a thread.
    if workers.min(items.len()) <= 1 {
        return items.iter().map(work).collect();
    }
    let (next, failed) = (AtomicUsize::new(0), AtomicBool::new(false));
    let done = Mutex::new(BTreeMap::new());
    thread::scope(|scope| {
        for _ in 0..workers.min(items.len()) {
            scope.spawn(|| {
                while !failed.load(Ordering::Relaxed) {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    let Some(item) = items.get(index) else { break };
                    let result = work(item);
                    if result.is_err() {
                        failed.store(true, Ordering::Relaxed);
                    }
                    done.lock().unwrap_or_else(PoisonError::into_inner).insert(index, result);
                }
            });
        }
    });
    done.into_inner().unwrap_or_else(PoisonError::into_inner).into_values().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_item_is_worked_on_once_and_the_first_failure_is_told() {
        for workers in [0, 1, 3, 100] {
            let items: Vec<usize> = (0..50).collect();
            let calls = AtomicUsize::new(0);
            let doubled = in_parallel(workers, &items, |item| {
                calls.fetch_add(1, Ordering::Relaxed);
                Ok::<_, usize>(item * 2)
            });
            let doubled = doubled.unwrap();
            assert_eq!(calls.into_inner(), items.len());
            assert_eq!(doubled, items.iter().map(|item| item * 2).collect::<Vec<_>>());
            let failed = in_parallel(workers, &items, |item| if *item >= 7 { Err(*item) } else { Ok(()) });
            assert_eq!(failed, Err(7));
            assert_eq!(in_parallel(workers, &[] as &[u8], |_| Ok::<_, ()>(())), Ok(Vec::new()));
        }
    }

    #[test]
    fn nothing_is_begun_after_a_failure() {
        let begun = AtomicUsize::new(0);
        let failed = in_parallel(1, &[1, 2, 3], |item| {
            begun.fetch_add(1, Ordering::Relaxed);
            if *item == 2 { Err(*item) } else { Ok(()) }
        });
        assert_eq!((failed, begun.into_inner()), (Err(2), 2));
    }
}
