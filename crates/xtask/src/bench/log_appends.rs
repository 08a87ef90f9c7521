//! Appends to a served log, each with its proof: the example `append_load` of `sluicegate-server`, which is client and server.

use std::cell::RefCell;
use std::path::Path;

use super::Bench;
use super::process::{Program, in_turn_after};
use super::samples::Samples;
use super::table::{Bar, Measured, Row, Table};
use crate::commands;
use crate::failure::{Failure, Outcome};
use crate::tools;

const CLIENTS: u64 = 256;
/// Appends in a second that have to be reached, and how long the slowest hundredth may wait (DESIGN section 9).
const RATE: u64 = 3000;
const P99: Bar = Bar { milliseconds: Some(1000.0), peak_kib: None };

/// What a run of the example says.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Appended {
    entries: u64,
    read_again: u64,
    /// From the first request to the last answer.
    took: f64,
    p50: f64,
    p99: f64,
}

/// Measures and appends to `table`.
pub(super) fn measure(bench: &Bench<'_>, append_load: &Path, table: &mut Table) -> Outcome {
    let folder = bench.folder.join("append");
    let measured = appends(bench, append_load, &folder, table);
    tools::remove(&folder)?;
    measured
}

fn appends(bench: &Bench<'_>, append_load: &Path, folder: &Path, table: &mut Table) -> Outcome {
    let entries = bench.choice.sizes.entries;
    let home = folder.join("home");
    let words = [entries.to_string(), CLIENTS.to_string()];
    let program = Program::new(append_load, &bench.folder).args(words).args([&home]);
    commands::announce(&program.line());
    let before = |_| {
        tools::remove(folder)?;
        std::fs::create_dir_all(&home).map_err(Failure::while_doing(format!("make {}", home.display())))
    };
    let said = RefCell::new(Vec::new());
    in_turn_after(&[&program], bench.rounds(super::registry::ROUNDS), folder, before, |_, ran| {
        let appended = read(&ran.stdout)
            .ok_or_else(|| Failure::new(format!("append_load did not say how long it took:\n{}", ran.stdout)))?;
        if appended.entries != entries || appended.read_again != entries {
            return Err(Failure::new(format!("{appended:?}: {entries} entries were to be appended and read again")));
        }
        said.borrow_mut().push(appended);
        Ok(())
    })?;
    before(0)?;
    let peak_kib = Some(program.peak_kib(folder)?);
    let said = said.into_inner();
    // The first one warmed up.
    let samples = |of: fn(&Appended) -> f64| {
        Samples::new(said.iter().skip(1).map(of).collect()).ok_or_else(|| Failure::new("at least one round is needed"))
    };
    let took = samples(|appended| appended.took)?;
    let rate = entries as f64 * 1000.0 / took.median();
    let row = |what: String, times, peak_kib, bar| Row {
        what,
        ours: Measured { times, peak_kib },
        peer: None,
        bar,
        counts: Vec::new(),
    };
    let bar = Bar { milliseconds: Some((entries as f64 * 1000.0 / RATE as f64).round()), peak_kib: None };
    let mut whole =
        row(format!("{entries} log appends with proof over HTTP, {CLIENTS} clients"), took, peak_kib, Some(bar));
    whole.counts = vec![
        ("entries proved to their client".to_owned(), entries, None),
        ("entries in the log when it was opened again".to_owned(), entries, None),
    ];
    table.rows.push(whole);
    table.rows.push(row("the same, how long half of them waited".to_owned(), samples(|a| a.p50)?, None, None));
    table.rows.push(row(
        "the same, how long all but a hundredth of them waited".to_owned(),
        samples(|a| a.p99)?,
        None,
        Some(P99),
    ));
    table.notes.extend([
        format!(
            "log: the median is {rate:.0} appends in a second; the bar is {RATE}. Client, server and the signatures made beforehand are one \
             process, whose peak memory it is; each answer is a proof under a checkpoint that is on disk."
        ),
        "log: rekor-tiles is not measured beside it: the load knows only a server of its own.".to_owned(),
    ]);
    Ok(())
}

/// The two lines of the example that say how it went.
fn read(stdout: &str) -> Option<Appended> {
    let line = stdout.lines().find(|line| line.contains(" appends with proof by "))?;
    let word_after = |word: &str| {
        let (_, rest) = line.split_once(word)?;
        rest.split_whitespace().next().map(|word| word.trim_end_matches([':', ',', ';']))
    };
    let again = stdout.lines().find_map(|line| line.strip_prefix("opened again, all "))?;
    Some(Appended {
        entries: line.split_whitespace().next()?.parse().ok()?,
        read_again: again.split_whitespace().next()?.parse().ok()?,
        took: milliseconds(word_after(" clients in ")?)?,
        p50: milliseconds(word_after("p50 ")?)?,
        p99: milliseconds(word_after("p99 ")?)?,
    })
}

/// A duration as Rust prints it.
fn milliseconds(text: &str) -> Option<f64> {
    let units = [("ns", 1e-6), ("µs", 1e-3), ("ms", 1.0), ("s", 1e3)];
    let (digits, factor) = units.iter().find_map(|(unit, factor)| Some((text.strip_suffix(unit)?, factor)))?;
    Some(digits.parse::<f64>().ok()? * factor)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAID: &str = "300 requests signed in 45.1ms\n\
        300 appends with proof by 256 clients in 7.29s: 4115/s; wait p50 57.1ms, p95 98.5ms, p99 1.2s, max 250.9ms\n\
        opened again, all 300 entries read and compared, in 2.1ms\n";

    #[test]
    fn what_the_example_says_is_read() {
        let appended = Appended { entries: 300, read_again: 300, took: 7290.0, p50: 57.1, p99: 1200.0 };
        assert_eq!(read(SAID), Some(appended));
        assert_eq!(read(SAID.lines().next().unwrap()), None);
        assert_eq!(read(&SAID.replace("opened again", "opened")), None);
    }

    #[test]
    fn durations_are_read_in_every_unit() {
        let read = ["1.50s", "57.1ms", "250µs", "500000ns"].map(|text| milliseconds(text).unwrap());
        assert_eq!(read, [1500.0, 57.1, 0.25, 0.5]);
        assert_eq!([milliseconds("5"), milliseconds("s"), milliseconds("")], [None; 3]);
    }
}
