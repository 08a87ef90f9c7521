//! The lower end of a terminal, drawn over and over again. All that is ever sent: how far to go up, lines, and to erase what is behind them.
//!
//! The cursor rests below what was drawn and is never hidden, so that an interrupt, whatever it leaves undone, leaves a terminal that works.

/// What stands at the lower end just now.
#[derive(Default)]
pub(crate) struct Screen {
    /// The widths of the lines that were drawn.
    drawn: Vec<usize>,
}

/// A line, ready to be sent, and the columns that it takes.
pub(crate) struct DrawnLine {
    pub(crate) text: String,
    pub(crate) width: usize,
}

impl Screen {
    /// What to send so that these lines stand in the place of those that do now.
    pub(crate) fn draw(&mut self, lines: &[DrawnLine], (rows, columns): (usize, usize)) -> String {
        let mut sent = self.up((rows, columns));
        for line in lines {
            sent.push_str(&line.text);
            sent.push_str("\x1b[K\n");
        }
        sent.push_str("\x1b[J");
        self.drawn = lines.iter().map(|line| line.width).collect();
        sent
    }

    /// What to send so that these lines stand there and scroll away like any others. What is left of what was drawn is erased by the next
    /// drawing: a terminal that is asked to erase all that it shows may keep that as something to scroll back to.
    pub(crate) fn above(&mut self, lines: &str, size: (usize, usize)) -> String {
        let mut sent = self.up(size);
        for line in lines.lines() {
            sent.push_str(line);
            sent.push_str("\x1b[K\n");
        }
        self.drawn.clear();
        sent
    }

    /// To the beginning of what was drawn. A terminal that became narrower has broken its lines anew; what went out of it at the top is out
    /// of reach.
    fn up(&self, (rows, columns): (usize, usize)) -> String {
        let up: usize = self.drawn.iter().map(|width| width.div_ceil(columns.max(1)).max(1)).sum();
        match up.min(rows.saturating_sub(1)) {
            0 => "\r".to_owned(),
            up => format!("\r\x1b[{up}A"),
        }
    }
}
