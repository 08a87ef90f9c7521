//! Several things at a time, as much of what a blob costs is waiting: for a registry, or for a disk.

use std::sync::{
    Mutex, PoisonError,
    atomic::{AtomicUsize, Ordering},
};

/// Does `work` with each item, `most` at a time. The first failure ends it and is returned; no further item is begun after it.
pub(crate) fn several_at_a_time<I: Sync, E: Send>(
    most: usize,
    items: &[I],
    work: impl Fn(&I) -> Result<(), E> + Sync,
) -> Result<(), E> {
    let next = AtomicUsize::new(0);
    let failed: Mutex<Option<E>> = Mutex::new(None);
    let take = || {
        while let Some(item) = items.get(next.fetch_add(1, Ordering::Relaxed)) {
            if let Err(error) = work(item) {
                next.store(items.len(), Ordering::Relaxed);
                failed.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 1..most.min(items.len()) {
            scope.spawn(take);
        }
        take();
    });
    failed.into_inner().unwrap_or_else(PoisonError::into_inner).map_or(Ok(()), Err)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_item_is_worked_on_once_and_none_after_a_failure() {
        for count in [0, 1, 3, 100] {
            let items: Vec<usize> = (0..count).collect();
            let done = AtomicUsize::new(0);
            let work = |item: &usize| {
                done.fetch_add(item + 1, Ordering::Relaxed);
                Ok::<_, ()>(())
            };
            several_at_a_time(4, &items, work).unwrap();
            assert_eq!(done.into_inner(), count * (count + 1) / 2);
        }
        let items: Vec<usize> = (0..1000).collect();
        let begun = AtomicUsize::new(0);
        let failed = several_at_a_time(4, &items, |item| {
            begun.fetch_add(1, Ordering::Relaxed);
            if *item == 2 { Err("the third") } else { Ok(()) }
        });
        assert_eq!(failed, Err("the third"));
        assert!(begun.into_inner() <= items.len());
    }
}
