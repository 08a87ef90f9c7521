//! The helper as a program of its own, for tests of this crate: it does nothing unless it is started as one.

fn main() {
    sluicegate_runner::container_process::enter_if_asked();
}
