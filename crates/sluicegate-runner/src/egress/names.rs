//! Looks names up, each only once at a time: a client that opens fifty connections to one server asks one question, not fifty at once,
//! which many a resolver answers only in part.

use std::{
    collections::HashMap,
    io::{self, ErrorKind},
    net::{IpAddr, ToSocketAddrs},
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use super::waiting::Stop;

/// Looks a name up; an address is itself.
pub(super) type Lookup = Arc<dyn Fn(&str) -> io::Result<Vec<IpAddr>> + Send + Sync>;

/// The system's way to look names up.
pub(super) fn system_lookup() -> Lookup {
    Arc::new(|name| Ok((name, 0).to_socket_addrs()?.map(|address| address.ip()).collect()))
}

/// Look-ups in this process that have not come back: the system's own know no time limit.
static LOOKUPS: AtomicUsize = AtomicUsize::new(0);
const MAX_LOOKUPS: usize = 64;

/// How often a wait for a look-up sees whether the step has ended.
const GLANCE: Duration = Duration::from_millis(50);

/// The names of one step: those that it may reach and that of this machine's proxy, and no others are asked for.
pub(super) struct Names(Arc<Known>);

struct Known {
    lookup: Lookup,
    /// How long an answer is used again. The system's own look-up does not tell how long it is good for.
    keep: Duration,
    seen: Mutex<HashMap<String, Seen>>,
    heard: Condvar,
}

enum Seen {
    /// Somebody asks, and whoever wants to know it waits for the same answer.
    Asked,
    Leads(Vec<IpAddr>, Instant),
    /// It led nowhere. Whoever waited for that answer takes it, whoever comes later asks again.
    Failed(ErrorKind, Instant),
}

impl Names {
    pub(super) fn new(lookup: Lookup, keep: Duration) -> Self {
        Self(Arc::new(Known { lookup, keep, seen: Mutex::default(), heard: Condvar::new() }))
    }

    /// Where a name leads. Waits no longer than `limit`, and not beyond the step's end, which is an error of kind
    /// [`ErrorKind::ConnectionAborted`].
    pub(super) fn look_up(&self, name: &str, limit: Duration, stop: &Stop) -> io::Result<Vec<IpAddr>> {
        if let Ok(address) = name.parse() {
            return Ok(vec![address]);
        }
        let began = Instant::now();
        let until = began + limit;
        let mut seen = self.0.lock();
        loop {
            match seen.get(name) {
                // What was asked for since this began is its own answer, however long answers are kept.
                Some(Seen::Leads(addresses, at)) if *at >= began || began.duration_since(*at) < self.0.keep => {
                    return Ok(addresses.clone());
                }
                Some(Seen::Failed(kind, at)) if *at >= began => return Err((*kind).into()),
                Some(Seen::Asked) => {}
                _ => {
                    self.0.ask(name)?;
                    seen.insert(name.to_owned(), Seen::Asked);
                }
            }
            if stop.is_raised() {
                return Err(ErrorKind::ConnectionAborted.into());
            }
            if Instant::now() >= until {
                return Err(ErrorKind::TimedOut.into());
            }
            (seen, _) = self.0.heard.wait_timeout(seen, GLANCE).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl Known {
    fn lock(&self) -> MutexGuard<'_, HashMap<String, Seen>> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks in a thread of its own, which may outlive the step.
    fn ask(self: &Arc<Self>, name: &str) -> io::Result<()> {
        let place = Place::take()?;
        let (known, name) = (self.clone(), name.to_owned());
        thread::Builder::new().name("lookup".to_owned()).spawn(move || {
            // Whatever happens to the look-up, nobody waits for it in vain.
            let mut answer = Answer { known, name, said: Seen::Failed(ErrorKind::Other, Instant::now()) };
            let found = (answer.known.lookup)(&answer.name);
            let now = Instant::now();
            answer.said = match found {
                Ok(addresses) => Seen::Leads(addresses, now),
                Err(error) => Seen::Failed(error.kind(), now),
            };
            drop(answer);
            drop(place);
        })?;
        Ok(())
    }
}

/// What is told to everybody who waits, when this is dropped.
struct Answer {
    known: Arc<Known>,
    name: String,
    said: Seen,
}

impl Drop for Answer {
    fn drop(&mut self) {
        let said = match &mut self.said {
            Seen::Failed(kind, _) => Seen::Failed(*kind, Instant::now()),
            said => std::mem::replace(said, Seen::Asked),
        };
        self.known.lock().insert(std::mem::take(&mut self.name), said);
        self.known.heard.notify_all();
    }
}

/// One of the look-ups that this process may have at a time.
struct Place;

impl Place {
    fn take() -> io::Result<Self> {
        let taken = LOOKUPS.fetch_add(1, Ordering::SeqCst);
        let place = Self;
        if taken >= MAX_LOOKUPS { Err(ErrorKind::QuotaExceeded.into()) } else { Ok(place) }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        LOOKUPS.fetch_sub(1, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use std::{net::Ipv4Addr, sync::Barrier};

    use super::*;

    const LONG: Duration = Duration::from_secs(3600);

    fn never_ending() -> (Stop, io::PipeWriter) {
        let (reader, writer) = io::pipe().unwrap();
        (Stop(reader), writer)
    }

    /// A way to look names up that says how often it was asked.
    fn counting(answer: fn(usize) -> io::Result<Vec<IpAddr>>) -> (Lookup, Arc<AtomicUsize>) {
        let asked = Arc::new(AtomicUsize::new(0));
        let counter = asked.clone();
        (Arc::new(move |_| answer(counter.fetch_add(1, Ordering::SeqCst))), asked)
    }

    fn here(_: usize) -> io::Result<Vec<IpAddr>> {
        Ok(vec![Ipv4Addr::LOCALHOST.into()])
    }

    #[test]
    fn many_who_ask_at_once_ask_one_question() {
        let (stop, _writer) = never_ending();
        let asked = Arc::new(AtomicUsize::new(0));
        let (counter, all) = (asked.clone(), Arc::new(Barrier::new(2)));
        let go = all.clone();
        let lookup: Lookup = Arc::new(move |_| {
            go.wait();
            here(counter.fetch_add(1, Ordering::SeqCst))
        });
        let names = Names::new(lookup, LONG);
        thread::scope(|scope| {
            let clients: Vec<_> = (0..30).map(|_| scope.spawn(|| names.look_up("a.example", LONG, &stop))).collect();
            all.wait();
            for client in clients {
                assert_eq!(client.join().unwrap().unwrap(), [IpAddr::from(Ipv4Addr::LOCALHOST)]);
            }
        });
        assert_eq!(asked.load(Ordering::SeqCst), 1);
    }

    #[test]
    fn an_answer_is_used_again_for_a_while_and_for_its_own_name() {
        let (stop, _writer) = never_ending();
        let (lookup, asked) = counting(here);
        let names = Names::new(lookup.clone(), LONG);
        for name in ["a.example", "a.example", "b.example", "a.example", "127.0.0.1"] {
            names.look_up(name, LONG, &stop).unwrap();
        }
        assert_eq!(asked.load(Ordering::SeqCst), 2);
        let names = Names::new(lookup, Duration::ZERO);
        for _ in 0..2 {
            names.look_up("a.example", LONG, &stop).unwrap();
        }
        assert_eq!(asked.load(Ordering::SeqCst), 4, "an answer that is too old is not used");
    }

    #[test]
    fn a_name_that_led_nowhere_is_asked_for_again() {
        let (stop, _writer) = never_ending();
        let (lookup, _) = counting(|time| if time == 0 { Err(ErrorKind::NotFound.into()) } else { here(time) });
        let names = Names::new(lookup, LONG);
        assert_eq!(names.look_up("a.example", LONG, &stop).unwrap_err().kind(), ErrorKind::NotFound);
        names.look_up("a.example", LONG, &stop).unwrap();
    }

    #[test]
    fn a_look_up_that_breaks_off_is_an_error_for_whoever_waits() {
        let (stop, _writer) = never_ending();
        let lookup: Lookup = Arc::new(|_| std::panic::resume_unwind(Box::new("a test")));
        let names = Names::new(lookup, LONG);
        assert_eq!(names.look_up("a.example", LONG, &stop).unwrap_err().kind(), ErrorKind::Other);
    }

    #[test]
    fn nobody_waits_beyond_the_limit_or_the_end_of_the_step() {
        let (stop, writer) = never_ending();
        let (sender, receiver) = std::sync::mpsc::channel::<()>();
        let receiver = Mutex::new(receiver);
        let lookup: Lookup = Arc::new(move |_| {
            let _ = receiver.lock().unwrap_or_else(PoisonError::into_inner).recv();
            here(0)
        });
        let names = Names::new(lookup, LONG);
        assert_eq!(names.look_up("a.example", Duration::ZERO, &stop).unwrap_err().kind(), ErrorKind::TimedOut);
        drop(writer);
        assert_eq!(names.look_up("a.example", LONG, &stop).unwrap_err().kind(), ErrorKind::ConnectionAborted);
        drop(sender);
    }
}
