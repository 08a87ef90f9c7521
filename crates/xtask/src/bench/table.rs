//! What was measured, as a Markdown table for people and as JSON for programs.

use std::fmt::Write as _;

use super::samples::Samples;
use crate::json::Json;

/// A side of a row.
#[derive(Clone, Debug)]
pub(super) struct Measured {
    /// Times in milliseconds.
    pub times: Samples,
    /// Peak memory in KiB, where it says something.
    pub peak_kib: Option<u64>,
}

/// What a row has to reach.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Bar {
    /// The median, in milliseconds.
    pub milliseconds: Option<f64>,
    /// Peak memory, in KiB.
    pub peak_kib: Option<u64>,
}

/// One line of the table.
#[derive(Clone, Debug)]
pub(super) struct Row {
    /// What was done.
    pub what: String,
    /// How long we took.
    pub ours: Measured,
    /// The peer's name and how long it took, if there is one.
    pub peer: Option<(String, Measured)>,
    /// What we have to reach, if something is.
    pub bar: Option<Bar>,
    /// What was counted after it: name, ours, the peer's.
    pub counts: Vec<(String, u64, Option<u64>)>,
}

/// All rows and what has to be known to read them.
#[derive(Clone, Debug)]
pub(super) struct Table {
    /// When, as RFC 3339.
    pub at: String,
    /// The machine and the programs.
    pub about: Vec<String>,
    /// Why the numbers say little; empty on an idle machine.
    pub noisy: Vec<String>,
    /// What was measured.
    pub rows: Vec<Row>,
    /// What a reader has to know of single rows.
    pub notes: Vec<String>,
}

impl Bar {
    /// Whether the median and the peak are within it. A peak that was not measured is not.
    fn is_met(&self, measured: &Measured) -> bool {
        let in_time = self.milliseconds.is_none_or(|most| measured.times.median() <= most);
        let in_memory = self.peak_kib.is_none_or(|most| measured.peak_kib.is_some_and(|peak| peak <= most));
        in_time && in_memory
    }

    fn words(&self) -> String {
        let time = self.milliseconds.map(|most| format!("<= {} ms", plain(most)));
        let memory = self.peak_kib.map(|most| format!("<= {} MiB", plain(most as f64 / 1024.0)));
        time.into_iter().chain(memory).collect::<Vec<_>>().join(", ")
    }
}

impl Row {
    /// Our time over the peer's.
    fn ratio(&self) -> Option<f64> {
        self.peer.as_ref().map(|(_, peer)| self.ours.times.times(&peer.times))
    }

    fn cells(&self) -> [String; 7] {
        let none = || "–".to_owned();
        let (name, times, peak) = match &self.peer {
            Some((name, peer)) => (name.clone(), spread(&peer.times), peer.peak_kib),
            None => (none(), none(), None),
        };
        let memory = |kib: Option<u64>| kib.map_or_else(none, |kib| format!("{:.1}", kib as f64 / 1024.0));
        let bar = self.bar.map_or_else(none, |bar| {
            let word = if bar.is_met(&self.ours) { "met" } else { "**missed**" };
            format!("{}: {word}", bar.words())
        });
        [
            self.what.clone(),
            spread(&self.ours.times),
            name,
            times,
            self.ratio().map_or_else(none, |ratio| format!("{ratio:.2}")),
            format!("{} / {}", memory(self.ours.peak_kib), memory(peak)),
            bar,
        ]
    }

    fn to_json(&self) -> Json {
        let side = |measured: &Measured| {
            Json::object([
                ("minMs", number(measured.times.min())),
                ("medianMs", number(measured.times.median())),
                ("maxMs", number(measured.times.max())),
                ("samplesMs", Json::List(measured.times.milliseconds().iter().map(|value| number(*value)).collect())),
                ("peakKiB", optional(measured.peak_kib)),
            ])
        };
        let counts = self.counts.iter().map(|(name, ours, peer)| {
            (name.clone(), Json::object([("ours", optional(Some(*ours))), ("peer", optional(*peer))]))
        });
        let bar = |bar: &Bar| {
            Json::object([
                ("ms", bar.milliseconds.map_or(Json::Null, number)),
                ("peakKiB", optional(bar.peak_kib)),
                ("met", Json::Bool(bar.is_met(&self.ours))),
            ])
        };
        Json::object([
            ("what", Json::text(&self.what)),
            ("ours", side(&self.ours)),
            ("peerName", self.peer.as_ref().map_or(Json::Null, |(name, _)| Json::text(name))),
            ("peer", self.peer.as_ref().map_or(Json::Null, |(_, measured)| side(measured))),
            ("ratio", self.ratio().map_or(Json::Null, number)),
            ("bar", self.bar.as_ref().map_or(Json::Null, bar)),
            ("counts", Json::Object(counts.collect())),
        ])
    }
}

impl Table {
    /// For the README, between its marks.
    #[must_use]
    pub(super) fn markdown(&self) -> String {
        let mut text = String::from("<!-- measured -->\n");
        for line in &self.about {
            let _ = writeln!(text, "{line}");
        }
        if !self.noisy.is_empty() {
            let _ = writeln!(text, "\n**Noisy, do not quote:** {}.", self.noisy.join("; "));
        }
        text.push_str(
            "\n| what | ours, ms: min / median / max | peer | peer, ms: min / median / max | ours : peer | peak MiB: ours / peer | bar |\n\
             | --- | --- | --- | --- | --- | --- | --- |\n",
        );
        for row in &self.rows {
            let _ = writeln!(text, "| {} |", row.cells().map(|cell| cell.replace('|', r"\|")).join(" | "));
        }
        let counted = self.rows.iter().flat_map(|row| &row.counts).count();
        if counted > 0 {
            text.push_str("\n| counted after it | what | ours | peer |\n| --- | --- | --- | --- |\n");
        }
        for row in &self.rows {
            for (name, ours, peer) in &row.counts {
                let peer = peer.map_or_else(|| "–".to_owned(), |peer| peer.to_string());
                let _ = writeln!(text, "| {} | {name} | {ours} | {peer} |", row.what.replace('|', r"\|"));
            }
        }
        if !self.notes.is_empty() {
            text.push('\n');
        }
        for note in &self.notes {
            let _ = writeln!(text, "- {note}");
        }
        text.push_str("<!-- /measured -->\n");
        text
    }

    /// Everything, with each single time.
    #[must_use]
    pub(super) fn json(&self) -> Json {
        let texts = |lines: &[String]| Json::List(lines.iter().map(Json::text).collect());
        Json::object([
            ("schemaVersion", Json::Number("1".to_owned())),
            ("at", Json::text(&self.at)),
            ("about", texts(&self.about)),
            ("noisy", texts(&self.noisy)),
            ("rows", Json::List(self.rows.iter().map(Row::to_json).collect())),
            ("notes", texts(&self.notes)),
        ])
    }
}

fn spread(times: &Samples) -> String {
    format!("{} / {} / {}", shown(times.min()), shown(times.median()), shown(times.max()))
}

/// As many digits as were measured: tenths below a second's tenth, whole milliseconds above.
fn shown(milliseconds: f64) -> String {
    if milliseconds.abs() < 100.0 { format!("{milliseconds:.1}") } else { format!("{milliseconds:.0}") }
}

fn plain(value: f64) -> String {
    format!("{value}")
}

fn number(value: f64) -> Json {
    if value.is_finite() { Json::Number(format!("{value:.3}")) } else { Json::Null }
}

fn optional(value: Option<u64>) -> Json {
    value.map_or(Json::Null, |value| Json::Number(value.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn measured(times: &[f64], peak_kib: Option<u64>) -> Measured {
        Measured { times: Samples::new(times.to_vec()).unwrap(), peak_kib }
    }

    fn row() -> Row {
        Row {
            what: "verify | whole".into(),
            ours: measured(&[4.0, 5.0, 123.4], Some(9 * 1024)),
            peer: Some(("cosign".into(), measured(&[8.0, 20.0, 100.0], Some(60 * 1024)))),
            bar: Some(Bar { milliseconds: Some(5.0), peak_kib: Some(10 * 1024) }),
            counts: vec![("statements verified".into(), 7, Some(1))],
        }
    }

    fn table(rows: Vec<Row>, noisy: &[&str]) -> Table {
        Table {
            at: "2026-11-24T00:00:00Z".into(),
            about: vec!["2 cores.".into()],
            noisy: noisy.iter().map(|why| (*why).to_owned()).collect(),
            rows,
            notes: vec!["A note.".into()],
        }
    }

    #[test]
    fn a_row_shows_both_sides_their_ratio_and_whether_the_bar_is_met() {
        let text = table(vec![row()], &[]).markdown();
        let line = r"| verify \| whole | 4.0 / 5.0 / 123 | cosign | 8.0 / 20.0 / 100 | 0.50 | 9.0 / 60.0 | <= 5 ms, <= 10 MiB: met |";
        assert!(text.contains(line), "{text}");
        assert!(text.contains(r"| verify \| whole | statements verified | 7 | 1 |"), "{text}");
        assert!(text.starts_with("<!-- measured -->\n2 cores.\n") && text.ends_with("- A note.\n<!-- /measured -->\n"));
        assert!(!text.contains("Noisy"));
        assert!(
            table(vec![row()], &["the load was 3"]).markdown().contains("**Noisy, do not quote:** the load was 3.")
        );
    }

    #[test]
    fn a_bar_is_missed_by_time_by_memory_and_by_memory_that_was_not_measured() {
        let missed = |change: fn(&mut Row)| {
            let mut row = row();
            change(&mut row);
            row.cells()[6].clone()
        };
        assert_eq!(missed(|_| {}), "<= 5 ms, <= 10 MiB: met");
        let words = "<= 5 ms, <= 10 MiB: **missed**";
        assert_eq!(missed(|row| row.ours.times = Samples::new(vec![5.1]).unwrap()), words);
        assert_eq!(missed(|row| row.ours.peak_kib = Some(10 * 1024 + 1)), words);
        assert_eq!(missed(|row| row.ours.peak_kib = None), words);
        assert_eq!(missed(|row| row.bar = None), "–");
    }

    #[test]
    fn the_json_has_every_time_and_null_where_nothing_was_measured() {
        let mut alone = row();
        (alone.peer, alone.bar) = (None, None);
        let json = Json::parse(&table(vec![row(), alone], &["busy"]).json().pretty()).unwrap();
        let [first, second] = json.get("rows").list() else { panic!("two rows") };
        assert_eq!(first.get("ours").get("samplesMs").list().len(), 3);
        assert_eq!(*first.get("ratio"), Json::Number("0.500".into()));
        assert_eq!(*first.get("bar").get("met"), Json::Bool(true));
        assert_eq!(*first.get("counts").get("statements verified").get("peer"), Json::Number("1".into()));
        assert_eq!([second.get("peer"), second.get("ratio"), second.get("bar")], [&Json::Null; 3]);
        assert_eq!(json.get("noisy").list().len(), 1);
    }
}
