use std::{
    cell::Cell,
    io::{self, Read},
    rc::Rc,
};

/// Bytes of headers (long names, pax records) that one entry of an archive may have.
const MAX_HEADERS: u64 = 1 << 20;

/// Counts what an archive parser reads and stops it when the headers of one entry grow beyond 1 MiB: the parser keeps long
/// names and pax records in memory, and their size is whatever the archive says.
pub(crate) struct Metered<R> {
    inner: R,
    state: Rc<State>,
}

/// The caller's side of a [`Metered`] reader.
pub(crate) struct Meter(Rc<State>);

struct State {
    budget: Cell<u64>,
}

impl<R: Read> Metered<R> {
    /// Wraps a reader; there is no limit until [`Meter::begin_headers`].
    pub(crate) fn new(inner: R) -> (Self, Meter) {
        let state = Rc::new(State { budget: Cell::new(u64::MAX) });
        (Self { inner, state: state.clone() }, Meter(state))
    }
}

impl Meter {
    /// From here on at most 1 MiB is read.
    pub(crate) fn begin_headers(&self) {
        self.0.budget.set(MAX_HEADERS);
    }

    /// From here on there is no limit.
    pub(crate) fn begin_content(&self) {
        self.0.budget.set(u64::MAX);
    }
}

impl<R: Read> Read for Metered<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buffer)?;
        match self.state.budget.get() {
            u64::MAX => {}
            budget if (n as u64) > budget => {
                return Err(io::Error::other("the headers of one entry are larger than 1 MiB"));
            }
            budget => self.state.budget.set(budget - n as u64),
        }
        Ok(n)
    }
}
