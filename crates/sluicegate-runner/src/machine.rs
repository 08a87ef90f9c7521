//! How much this machine has.

use std::{fs::File, io::Read, num::NonZero, thread};

/// Processors and bytes of memory that this process may use; no limit of memory where the system does not say.
pub fn machine() -> (u64, u64) {
    let processors = thread::available_parallelism().map_or(1, NonZero::get) as u64;
    let mut text = String::new();
    let read = File::open("/proc/meminfo").and_then(|file| file.take(64 * 1024).read_to_string(&mut text));
    let memory = read.ok().and_then(|_| total(&text));
    (processors, memory.unwrap_or(u64::MAX))
}

/// `MemTotal` in bytes (proc_meminfo(5)).
fn total(text: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_read_in_kibibytes() {
        assert_eq!(total("MemFree: 1 kB\nMemTotal:       24 kB\n"), Some(24 * 1024));
        for wrong in ["", "MemTotal: x kB", "MemTotal: 24", "MemTotal: 99999999999999999999 kB"] {
            assert_eq!(total(wrong), None);
        }
        let (processors, memory) = machine();
        assert!(processors > 0 && memory > 0);
    }
}
