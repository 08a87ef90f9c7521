//! What the machine is and whether it is idle enough to be measured on.

use std::fs;
use std::thread;
use std::time::Duration;

/// One-minute load average above which a table is marked.
const BUSY_LOAD: f64 = 1.0;
/// Share of processor time that others take, above which a table is marked.
const BUSY_SHARE: f64 = 0.1;
/// How long processor time is watched.
const WATCHED: Duration = Duration::from_secs(1);

/// The machine in a few words: processors, their model, kernel.
#[must_use]
pub(super) fn description() -> String {
    let cores = thread::available_parallelism().map_or(1, usize::from);
    let model = fs::read_to_string("/proc/cpuinfo").ok().and_then(|text| model(&text)).unwrap_or_default();
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let noun = if cores == 1 { "core" } else { "cores" };
    format!("{cores} {noun} ({model}), kernel {}", kernel.trim())
}

/// How busy the machine was before something was measured.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Business {
    /// The one-minute load average.
    pub load: f64,
    /// The share of all processor time that was not idle during one second.
    pub share: f64,
}

impl Business {
    /// The load average now. This program's own build raises it, so it is taken before that.
    #[must_use]
    pub(super) fn load_now() -> f64 {
        fs::read_to_string("/proc/loadavg").ok().and_then(|text| load(&text)).unwrap_or(f64::NAN)
    }

    /// Watches for a second; `load` is from [`Self::load_now`].
    #[must_use]
    pub(super) fn watch(load: f64) -> Self {
        let now = || fs::read_to_string("/proc/stat").ok().and_then(|text| ticks(&text));
        let before = now();
        thread::sleep(WATCHED);
        let share = match (before, now()) {
            (Some(before), Some(after)) => share(before, after),
            _ => f64::NAN,
        };
        Self { load, share }
    }

    /// Whether what is measured now says little. A machine that does not tell counts as noisy.
    #[must_use]
    pub(super) fn is_noisy(&self) -> bool {
        !(self.load <= BUSY_LOAD && self.share <= BUSY_SHARE)
    }
}

fn model(cpuinfo: &str) -> Option<String> {
    let line = cpuinfo.lines().find(|line| line.starts_with("model name"))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

fn load(loadavg: &str) -> Option<f64> {
    loadavg.split_whitespace().next()?.parse().ok()
}

/// Idle and all ticks of all processors.
fn ticks(stat: &str) -> Option<(u64, u64)> {
    let line = stat.lines().find_map(|line| line.strip_prefix("cpu "))?;
    let ticks: Vec<u64> = line.split_whitespace().map(str::parse).collect::<Result<_, _>>().ok()?;
    // user nice system idle iowait irq softirq steal; guest time is in user already.
    let all = ticks.iter().take(8).sum();
    Some((ticks.get(3)? + ticks.get(4)?, all))
}

fn share(before: (u64, u64), after: (u64, u64)) -> f64 {
    let (idle, all) = (after.0.saturating_sub(before.0), after.1.saturating_sub(before.1));
    if all == 0 { f64::NAN } else { 1.0 - idle as f64 / all as f64 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn load_ticks_and_model_are_read_from_what_the_kernel_prints() {
        assert_eq!(load("1.61 1.82 1.00 4/95 26604\n"), Some(1.61));
        assert_eq!(load(""), None);
        assert_eq!(ticks("cpu  10 1 20 300 40 5 6 7 0 0\ncpu0 1 1 1 1 1 1 1 1 0 0\n"), Some((340, 389)));
        assert_eq!(ticks("cpu  10 1\n"), None);
        assert_eq!(model("processor\t: 0\nmodel name\t: AMD EPYC\n").as_deref(), Some("AMD EPYC"));
    }

    #[test]
    fn a_machine_is_noisy_by_its_load_or_by_what_it_does_now() {
        assert!(!Business { load: 0.4, share: 0.02 }.is_noisy());
        assert!(Business { load: 1.5, share: 0.02 }.is_noisy());
        assert!(Business { load: 0.4, share: 0.5 }.is_noisy());
        assert!(Business { load: f64::NAN, share: 0.0 }.is_noisy());
        assert_eq!(share((100, 200), (150, 300)), 0.5);
        assert!(share((1, 1), (1, 1)).is_nan());
    }
}
