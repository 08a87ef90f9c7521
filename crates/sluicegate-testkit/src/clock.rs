use std::sync::Mutex;

use sluicegate_ports::Clock;
use sluicegate_types::UnixTime;

/// A clock that stands still until it is set.
pub struct FixedClock(Mutex<(UnixTime, u64)>);

impl FixedClock {
    /// A clock that stands at `now`.
    pub fn new(now: UnixTime) -> Self {
        Self(Mutex::new((now, 0)))
    }

    /// A clock that stands at `now` and goes on by `seconds` each time that it is read.
    pub fn ticking(now: UnixTime, seconds: u64) -> Self {
        Self(Mutex::new((now, seconds)))
    }

    /// Sets it.
    pub fn set(&self, now: UnixTime) {
        self.0.lock().unwrap().0 = now;
    }
}

impl Clock for FixedClock {
    fn now(&self) -> UnixTime {
        let mut state = self.0.lock().unwrap();
        let now = state.0;
        state.0 = now.plus(state.1);
        now
    }
}
