//! A registry in this process, on a port of the loopback: honest by default, and as odd or hostile as a test wants it.

mod answer;
mod auth;
mod behaviour;
mod content;
mod digest;
mod fault;
mod http;
mod route;
mod state;
mod uploads;

#[cfg(test)]
mod tests;

use std::{
    collections::BTreeMap,
    io::{Read, Write},
    net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{Arc, Mutex},
    thread::JoinHandle,
    time::{SystemTime, UNIX_EPOCH},
};

use sluicegate_types::Digest;

pub use behaviour::{Auth, Behaviour, Links, TokenRefusal};
pub use fault::{Answer, Fault, Payload, Then, When};

use content::StoredManifest;
use digest::ContentDigest;
use state::State;

/// A registry that serves the OCI distribution specification 1.1 until it is dropped.
///
/// Blobs are in files of a private folder that goes with it. Nothing waits: a request is answered, or refused, at once.
pub struct TestRegistry {
    state: Arc<State>,
    address: SocketAddr,
    connections: Arc<Connections>,
    acceptor: Option<JoinHandle<()>>,
}

/// A request that came, in the order of the answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Logged {
    /// The method.
    pub method: String,
    /// Path and query as they came.
    pub path_and_query: String,
    /// The status of the answer; 0 where there was none.
    pub status: u16,
    /// Whether `Authorization` came with it.
    pub had_authorization: bool,
    /// What that said.
    pub authorization: Option<String>,
    /// How many bytes of its body came.
    pub body_bytes: u64,
}

/// The connections that are open, and whether there will be any more.
#[derive(Default)]
struct Connections(Mutex<OpenConnections>);

#[derive(Default)]
struct OpenConnections {
    closed: bool,
    streams: BTreeMap<u64, TcpStream>,
    threads: Vec<JoinHandle<()>>,
}

impl TestRegistry {
    /// An empty registry on a free port.
    pub fn start(behaviour: Behaviour) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let (state, connections) = (Arc::new(State::new(behaviour)), Arc::new(Connections::default()));
        let acceptor = {
            let (state, connections) = (Arc::clone(&state), Arc::clone(&connections));
            std::thread::spawn(move || accept(&listener, address, &state, &connections))
        };
        Self { state, address, connections, acceptor: Some(acceptor) }
    }

    /// Its host and port: `127.0.0.1:PORT`.
    pub fn host(&self) -> String {
        self.address.to_string()
    }

    /// Lets it behave otherwise from the next request on, with everything that it holds. Requests for faults are counted anew.
    pub fn behave(&self, behaviour: Behaviour) {
        self.state.behave(behaviour);
    }

    /// Serves one connection that somebody else accepted, such as TLS over TCP, until it ends. `origin` is the scheme and the host that
    /// absolute addresses begin with. A connection that a fault holds ends only when its client or `connection` ends it.
    pub fn serve(&self, mut connection: impl Read + Write, origin: &str) -> std::io::Result<()> {
        self.state.serve(&mut connection, origin)
    }

    /// The requests that came so far.
    pub fn log(&self) -> Vec<Logged> {
        self.state.log()
    }

    /// Forgets the requests that came so far.
    pub fn forget_log(&self) {
        self.state.forget_log();
    }

    /// Puts a blob into a repository.
    pub fn put_blob(&self, repository: &str, bytes: &[u8]) -> Digest {
        let mut file = self.state.contents.new_file().unwrap();
        file.write_all(bytes).unwrap();
        self.state.contents.put_blob(repository, &ContentDigest::of(bytes), file).unwrap();
        Digest::of(bytes)
    }

    /// Puts a manifest into a repository, as it is and unasked: under its digest, and under `reference` if that is a tag. A `reference`
    /// that is a digest is believed, so that a registry can hold what it should not.
    pub fn put_manifest(&self, repository: &str, reference: &str, media_type: &str, bytes: &[u8]) -> Digest {
        let manifest = StoredManifest { media_type: media_type.to_owned(), bytes: bytes.to_vec() };
        let (digest, tags) = match ContentDigest::parse(reference) {
            Some(digest) => (digest, Vec::new()),
            None => (ContentDigest::of(bytes), vec![reference.to_owned()]),
        };
        self.state.contents.put_manifest(repository, &digest, &tags, manifest);
        Digest::of(bytes)
    }

    /// The media type and the bytes of the manifest that a tag or a digest names.
    pub fn manifest(&self, repository: &str, reference: &str) -> Option<(String, Vec<u8>)> {
        let (_, manifest) = self.state.contents.manifest(repository, reference)?;
        Some((manifest.media_type, manifest.bytes))
    }

    /// A blob of a repository.
    pub fn blob(&self, repository: &str, digest: &str) -> Option<Vec<u8>> {
        let (mut file, _) = self.state.contents.open_blob(repository, &ContentDigest::parse(digest)?)?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).unwrap();
        Some(bytes)
    }

    /// How many uploads were begun and neither ended nor given up.
    pub fn open_uploads(&self) -> usize {
        self.state.uploads.count()
    }

    /// The tags of a repository, in order.
    pub fn tags(&self, repository: &str) -> Vec<String> {
        self.state.contents.tags(repository).unwrap_or_default()
    }

    /// The digests of the manifests of a repository, in order.
    pub fn manifests(&self, repository: &str) -> Vec<String> {
        self.state.contents.manifests(repository).into_iter().map(|(digest, _)| digest.to_string()).collect()
    }
}

impl Drop for TestRegistry {
    fn drop(&mut self) {
        let threads = self.connections.close();
        // The acceptor waits for a connection; this one is the last.
        drop(TcpStream::connect(self.address));
        for thread in self.acceptor.take().into_iter().chain(threads) {
            let _ = thread.join();
        }
    }
}

/// An index of so many manifests, none of which is anywhere.
pub fn large_index(entries: usize) -> Vec<u8> {
    let descriptor = |number: usize| {
        let digest = Digest::of(&number.to_le_bytes());
        format!(r#"{{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"{digest}","size":{number}}}"#)
    };
    let entries = (0..entries).map(descriptor).collect::<Vec<_>>().join(",");
    let head = r#"{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":["#;
    format!("{head}{entries}]}}").into_bytes()
}

/// A date as HTTP writes it, for `Retry-After`: `Sun, 06 Nov 1994 08:49:37 GMT`.
pub fn http_date(moment: SystemTime) -> String {
    let seconds = moment.duration_since(UNIX_EPOCH).unwrap().as_secs();
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    let weekday = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"][usize::try_from(days % 7).unwrap()];
    let (mut year, mut day) = (1970, days);
    let is_leap = |year: u64| year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    while day >= 365 + u64::from(is_leap(year)) {
        day -= 365 + u64::from(is_leap(year));
        year += 1;
    }
    let february = 28 + u64::from(is_leap(year));
    let months = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let lengths = [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    let mut month = 0;
    while day >= lengths[month] {
        day -= lengths[month];
        month += 1;
    }
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!("{weekday}, {:02} {} {year} {hour:02}:{minute:02}:{second:02} GMT", day + 1, months[month])
}

fn accept(listener: &TcpListener, address: SocketAddr, state: &Arc<State>, connections: &Arc<Connections>) {
    let origin = format!("http://{address}");
    for (number, stream) in (0..).zip(listener.incoming()) {
        let Ok(stream) = stream else { continue };
        let _ = stream.set_nodelay(true);
        let (state, origin, own) = (Arc::clone(state), origin.clone(), Arc::clone(connections));
        let serve = move |mut stream: TcpStream| {
            // A client that goes away in the middle is no fault of the registry.
            let _ = state.serve(&mut stream, &origin);
            let _ = stream.shutdown(Shutdown::Both);
            own.0.lock().unwrap().streams.remove(&number);
        };
        if !connections.open(number, stream, serve) {
            return;
        }
    }
}

impl Connections {
    /// Serves a connection in a thread of its own; `false` where there are to be no more.
    fn open(&self, number: u64, stream: TcpStream, serve: impl FnOnce(TcpStream) + Send + 'static) -> bool {
        let mut open = self.0.lock().unwrap();
        if open.closed {
            return false;
        }
        if let Ok(second) = stream.try_clone() {
            open.streams.insert(number, second);
            open.threads.retain(|thread| !thread.is_finished());
            open.threads.push(std::thread::spawn(move || serve(stream)));
        }
        true
    }

    /// Ends every connection and lets no more of them come.
    fn close(&self) -> Vec<JoinHandle<()>> {
        let mut open = self.0.lock().unwrap();
        open.closed = true;
        for stream in open.streams.values() {
            let _ = stream.shutdown(Shutdown::Both);
        }
        std::mem::take(&mut open.threads)
    }
}
