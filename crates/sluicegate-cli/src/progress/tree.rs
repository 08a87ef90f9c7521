//! The tree of steps as lines for a terminal of this size: no more of them than it has rows, none wider than it is.

use std::time::Duration;

use sluicegate_flow::steps::ImageStage;
use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

use super::{
    STOPPING,
    board::{Board, ImageRow, Now, Row, RowState, TAIL},
    output_lines::shown,
    screen::DrawnLine,
};

/// Columns of a name, at most.
const NAME: usize = 28;

/// Columns of what stands between a name and the rest: a time, or `cached`.
const TIME: usize = 8;

/// What a terminal can do.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Look {
    pub(crate) colour: bool,
    pub(crate) unicode: bool,
}

/// The tree in so many rows and columns. `ended` is the last one, which stays.
pub(crate) fn tree(
    board: &Board,
    now: Now,
    (rows, columns): (usize, usize),
    look: Look,
    ended: bool,
) -> Vec<DrawnLine> {
    // The cursor has a row of its own, and a terminal that takes a character for wider than it is here shall not break a line.
    let (rows, columns) = (rows.saturating_sub(1).max(1), columns.saturating_sub(1).max(1));
    let drawing = Drawing { board, now, look, ended, name: name_column(board, columns) };
    drawing.fold(rows).iter().map(|line| line.draw(columns, look)).collect()
}

struct Drawing<'a> {
    board: &'a Board,
    now: Now,
    look: Look,
    ended: bool,
    /// Columns of the names.
    name: usize,
}

/// How much of the tree is left out.
#[derive(Clone, Copy)]
struct Folds {
    /// Steps that ended well, the first of them.
    ended: usize,
    /// Steps that wait, the last of them.
    waiting: usize,
    /// Lines of a failed step that are shown.
    tail: usize,
    /// Steps that were left out as something failed.
    skipped: bool,
}

impl Drawing<'_> {
    /// As much as has room: first the steps that are done give way, then those that wait, then what failed ones printed.
    fn fold(&self, rows: usize) -> Vec<Line> {
        let (ended, waiting) = (self.count(is_ended), self.count(is_waiting));
        let mut folds = Folds { ended: 0, waiting: 0, tail: TAIL, skipped: false };
        let mut lines = self.lines(folds);
        let over = |lines: &Vec<Line>| lines.len().saturating_sub(rows);
        if over(&lines) > 0 {
            // The line that says how many are left out takes a row itself.
            folds.ended = (over(&lines) + 1).min(ended);
            lines = self.lines(folds);
        }
        if over(&lines) > 0 {
            folds.waiting = (over(&lines) + 1).min(waiting);
            lines = self.lines(folds);
        }
        for tail in [3, 0] {
            if over(&lines) > 0 {
                folds.tail = tail;
                lines = self.lines(folds);
            }
        }
        if over(&lines) > 0 {
            folds.skipped = true;
            lines = self.lines(folds);
        }
        if over(&lines) > 0 {
            let status = lines.pop();
            let left = lines.len().saturating_sub(rows.saturating_sub(2));
            lines.truncate(rows.saturating_sub(2));
            lines.push(Line::of(Paint::Dim, format!("  {left} more")));
            lines.extend(status);
            lines.truncate(rows);
        }
        lines
    }

    fn count(&self, which: fn(&RowState) -> bool) -> usize {
        self.board.rows.iter().filter(|row| which(&row.state)).count()
    }

    fn lines(&self, folds: Folds) -> Vec<Line> {
        let (mut lines, mut ended) = (Vec::new(), folds.ended);
        let mut waiting = self.count(is_waiting).saturating_sub(folds.waiting);
        let (mut cached, mut passed, mut skipped) = (0, 0, 0);
        for row in &self.board.rows {
            match &row.state {
                RowState::Cached { .. } if ended > 0 => (ended, cached) = (ended - 1, cached + 1),
                RowState::Passed { .. } if ended > 0 => (ended, passed) = (ended - 1, passed + 1),
                RowState::Skipped if folds.skipped => skipped += 1,
                RowState::Waiting if waiting == 0 => {}
                RowState::Waiting => {
                    waiting -= 1;
                    lines.push(self.step(row));
                }
                RowState::Failed { .. } => {
                    lines.push(self.step(row));
                    self.tail(row, folds.tail, &mut lines);
                }
                _ => lines.push(self.step(row)),
            }
        }
        if passed + cached > 0 {
            let mut line = Line::of(Paint::Green, self.mark("✓", "+"));
            line.push(Paint::Dim, format!(" {} more done", passed + cached));
            if cached > 0 {
                line.push(Paint::Dim, format!(", {cached} of them cached"));
            }
            lines.insert(0, line);
        }
        if folds.waiting > 0 {
            lines.push(Line::of(Paint::Dim, format!("{} {} more waiting", self.mark("·", "."), folds.waiting)));
        }
        if skipped > 0 {
            lines.push(Line::of(Paint::Dim, format!("- {skipped} not run")));
        }
        lines.extend(self.board.images.iter().map(|image| self.image(image)));
        if !self.ended {
            lines.push(self.status());
        }
        lines
    }

    fn step(&self, row: &Row) -> Line {
        let name = |paint| self.name(&row.name.to_string(), row.indent, paint);
        match &row.state {
            RowState::Waiting => name((self.mark("·", "."), Paint::Dim, Paint::Dim)),
            RowState::Skipped => {
                let mut line = name(("-", Paint::Dim, Paint::Dim));
                line.push(Paint::Dim, format!("{:>TIME$}", "not run"));
                line
            }
            RowState::Running { .. } if self.ended => {
                let mut line = name((self.mark("✗", "x"), Paint::Red, Paint::Plain));
                line.push(Paint::Plain, format!("{:>TIME$}  was ended", time(row.took(self.now))));
                line
            }
            RowState::Running { .. } => {
                let mut line = name((self.spinner(), Paint::Cyan, Paint::Plain));
                line.push(Paint::Plain, format!("{:>TIME$}", time(row.took(self.now))));
                if row.attempt > 1 {
                    line.push(Paint::Yellow, format!("  try {}", row.attempt));
                }
                let now = row.log.map_or_else(|| row.newest(), |_| Some("is proved".to_owned()));
                line.push(Paint::Dim, now.map(|now| format!("  {}", now.trim_end())).unwrap_or_default());
                line
            }
            RowState::Passed { took } => {
                let mut line = name((self.mark("✓", "+"), Paint::Green, Paint::Plain));
                line.push(Paint::Plain, format!("{:>TIME$}", time(*took)));
                if row.attempt > 1 {
                    line.push(Paint::Yellow, format!("  try {}", row.attempt));
                }
                line
            }
            RowState::Cached { run, finished_on, .. } => {
                let mut line = name((self.mark("✓", "+"), Paint::Dim, Paint::Dim));
                let age =
                    self.now.at.as_secs().saturating_sub(u64::try_from(finished_on.seconds()).unwrap_or_default());
                line.push(Paint::Dim, format!("{:>TIME$}  {} ago, run {run}", "cached", age_of(age)));
                line
            }
            RowState::Failed { took, reason } => {
                let mut line = name((self.mark("✗", "x"), Paint::Red, Paint::Red));
                line.push(Paint::Plain, format!("{:>TIME$}", time(*took)));
                if row.attempt > 1 {
                    line.push(Paint::Yellow, format!("  try {}", row.attempt));
                }
                line.push(Paint::Red, format!("  {}", shown(reason.as_bytes())));
                line
            }
        }
    }

    /// What a failed step printed last.
    fn tail(&self, row: &Row, most: usize, lines: &mut Vec<Line>) {
        let tail = row.tail();
        let left_out = tail.len().saturating_sub(most);
        let set_in = " ".repeat(2 * row.indent + 4);
        for text in tail.skip(left_out) {
            lines.push(Line::of(Paint::Dim, format!("{set_in}{} {text}", self.mark("│", "|"))));
        }
        let more = row.printed > most as u64;
        if let Some(run) = self.board.run.as_ref().filter(|_| more && most > 0) {
            let all = format!("{set_in}all {} lines: sluicegate logs {run} {}", row.printed, row.name);
            lines.push(Line::of(Paint::Dim, all));
        }
    }

    fn image(&self, image: &ImageRow) -> Line {
        let name = format!("image {}", shown(image.name.to_string().as_bytes()));
        let (mark, paint) = match (image.took, self.ended) {
            (Some(_), _) => (self.mark("✓", "+"), Paint::Green),
            (None, true) => (self.mark("✗", "x"), Paint::Red),
            (None, false) => (self.spinner(), Paint::Cyan),
        };
        let mut line = self.name(&name, 0, (mark, paint, Paint::Plain));
        let took = image.took.unwrap_or_else(|| self.now.elapsed.saturating_sub(image.since));
        line.push(Paint::Plain, format!("{:>TIME$}", time(took)));
        line.push(Paint::Dim, format!("  {}", stage(image.stage)));
        line
    }

    /// How far all of it is.
    fn status(&self) -> Line {
        let (all, done) = (self.board.rows.len(), self.count(is_ended));
        let failed = self.count(|state| matches!(state, RowState::Failed { .. }));
        let mut line = Line::of(Paint::Bold, if all > 0 { format!("{done}/{all} steps") } else { String::new() });
        if failed > 0 {
            line.push(Paint::Red, format!("  {failed} failed"));
        }
        let gap = if all > 0 { "  " } else { "" };
        line.push(Paint::Plain, format!("{gap}{}", time(self.now.elapsed)));
        if self.board.stopping {
            line.push(Paint::Yellow, format!("  {STOPPING}"));
        } else if !self.board.activity.is_empty() {
            line.push(Paint::Dim, format!("  {}", shown(self.board.activity.as_bytes())));
        }
        line
    }

    fn name(&self, name: &str, indent: usize, (mark, mark_paint, name_paint): (&str, Paint, Paint)) -> Line {
        let mut line = Line::of(Paint::Plain, " ".repeat(2 * indent));
        line.push(mark_paint, mark.to_owned());
        let room = self.name.saturating_sub(2 * indent);
        let (cut, width) = cut(name, room, self.look);
        line.push(name_paint, format!(" {cut}{}", " ".repeat(room.saturating_sub(width) + 1)));
        line
    }

    fn mark(&self, unicode: &'static str, plain: &'static str) -> &'static str {
        if self.look.unicode { unicode } else { plain }
    }

    fn spinner(&self) -> &'static str {
        let frames = if self.look.unicode {
            &["⠋", "⠙", "⠹", "⠸", "⠼", "⠴", "⠦", "⠧", "⠇", "⠏"][..]
        } else {
            &["|", "/", "-", "\\"][..]
        };
        let turn = usize::try_from(self.now.elapsed.as_millis() / 100).unwrap_or_default();
        frames.get(turn % frames.len()).copied().unwrap_or("*")
    }
}

fn is_ended(state: &RowState) -> bool {
    matches!(state, RowState::Passed { .. } | RowState::Cached { .. })
}

fn is_waiting(state: &RowState) -> bool {
    matches!(state, RowState::Waiting)
}

fn stage(stage: ImageStage) -> &'static str {
    match stage {
        ImageStage::Assembled => "is assembled",
        ImageStage::Scanned => "is scanned",
        ImageStage::Proved => "is described, signed and logged",
        ImageStage::Published => "is written with its evidence",
        ImageStage::Written => "",
    }
}

/// Columns for the names: those of the longest, within reason.
fn name_column(board: &Board, columns: usize) -> usize {
    let steps = board.rows.iter().map(|row| 2 * row.indent + row.name.as_str().width());
    let images = board.images.iter().map(|image| "image ".len() + image.name.as_str().width());
    steps.chain(images).max().unwrap_or_default().min(NAME).min(columns / 2)
}

/// A time as people say it.
pub(crate) fn time(time: Duration) -> String {
    let seconds = time.as_secs();
    match (seconds / 3600, seconds / 60 % 60, seconds % 60) {
        (0, 0, _) => format!("{}.{}s", seconds, time.subsec_millis() / 100),
        (0, minutes, seconds) => format!("{minutes}m{seconds:02}s"),
        (hours, minutes, _) => format!("{hours}h{minutes:02}m"),
    }
}

fn age_of(seconds: u64) -> String {
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3600 => format!("{}m", seconds / 60),
        3600..172_800 => format!("{}h", seconds / 3600),
        _ => format!("{}d", seconds / 86_400),
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Paint {
    Plain,
    Dim,
    Bold,
    Red,
    Green,
    Yellow,
    Cyan,
}

impl Paint {
    fn code(self) -> Option<&'static str> {
        match self {
            Self::Plain => None,
            Self::Dim => Some("2"),
            Self::Bold => Some("1"),
            Self::Red => Some("31"),
            Self::Green => Some("32"),
            Self::Yellow => Some("33"),
            Self::Cyan => Some("36"),
        }
    }
}

/// A line before it is cut and painted.
struct Line(Vec<(Paint, String)>);

impl Line {
    fn of(paint: Paint, text: impl Into<String>) -> Self {
        Self(vec![(paint, text.into())])
    }

    fn push(&mut self, paint: Paint, text: String) {
        self.0.push((paint, text));
    }

    fn draw(&self, columns: usize, look: Look) -> DrawnLine {
        let whole: usize = self.0.iter().map(|(_, text)| text.width()).sum();
        // The mark that something was cut off needs a column.
        let room = if whole > columns { columns - 1 } else { columns };
        let (mut text, mut width) = (String::new(), 0);
        for (paint, span) in &self.0 {
            let (part, taken) = fitting(span, room - width);
            width += taken;
            match paint.code().filter(|_| look.colour && !part.is_empty()) {
                Some(code) => text.push_str(&format!("\x1b[{code}m{part}\x1b[0m")),
                None => text.push_str(part),
            }
            if part.len() < span.len() {
                break;
            }
        }
        if whole > columns {
            text.push_str(cut_mark(look));
            width += 1;
        } else {
            text.truncate(text.trim_end_matches(' ').len());
        }
        DrawnLine { text, width }
    }
}

fn cut_mark(look: Look) -> &'static str {
    if look.unicode { "…" } else { ">" }
}

/// A text in so many columns, and how many it takes.
fn cut(text: &str, columns: usize, look: Look) -> (String, usize) {
    if text.width() <= columns {
        return (text.to_owned(), text.width());
    }
    let (part, width) = fitting(text, columns.saturating_sub(1));
    (format!("{part}{}", cut_mark(look)), width + 1)
}

/// The beginning of a text that takes no more than so many columns, and how many it takes. Counted by characters: a text that is narrower
/// than their sum is cut too early, never too late.
fn fitting(text: &str, columns: usize) -> (&str, usize) {
    let mut width = 0;
    for (at, character) in text.char_indices() {
        let wider = width + character.width().unwrap_or_default();
        if wider > columns {
            return (&text[..at], width);
        }
        width = wider;
    }
    (text, width)
}
