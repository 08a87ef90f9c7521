//! A server that gives what lies in a folder, and can let a question wait.

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex,
        mpsc::{Receiver, Sender, channel},
    },
    thread,
};

/// Serves the objects of a folder as a bucket, unsigned as well as signed.
pub(super) struct Serving {
    /// `http://127.0.0.1:PORT`.
    pub(super) url: String,
    asked: Arc<Mutex<Vec<String>>>,
    waits: Receiver<()>,
    go_on: Sender<()>,
}

impl Serving {
    /// Whoever asks for `held` beyond its first bytes waits until [`Serving::go_on`].
    pub(super) fn start(folder: &Path, held: Option<&Path>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let asked = Arc::new(Mutex::new(Vec::new()));
        let ((say_waits, waits), (go_on, goes_on)) = (channel(), channel());
        let all = (folder.to_owned(), held.map(Path::to_owned), asked.clone());
        thread::spawn(move || {
            let (folder, held, asked) = all;
            for stream in listener.incoming().flatten() {
                answer(stream, &folder, |method, object, from| {
                    asked.lock().unwrap().push(format!("{method} {}", object.display()));
                    if from > 0 && held.as_deref() == Some(object) {
                        let _ = say_waits.send(());
                        let _ = goes_on.recv();
                    }
                });
            }
        });
        Self { url, asked, waits, go_on }
    }

    /// What was asked for: the method and the file.
    pub(super) fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }

    /// Until somebody waits.
    pub(super) fn until_somebody_waits(&self) {
        self.waits.recv().unwrap();
    }

    /// Whoever waits gets an answer, and so does who asks later.
    pub(super) fn go_on(&self) {
        (0..1000).for_each(|_| self.go_on.send(()).unwrap());
    }
}

fn answer(mut stream: TcpStream, folder: &Path, ask: impl Fn(&str, &Path, usize)) {
    let mut head = BufReader::new(stream.try_clone().unwrap()).lines().map_while(Result::ok);
    let first = head.next().unwrap_or_default();
    let mut words = first.split(' ');
    let (method, path) = (words.next().unwrap_or_default().to_owned(), words.next().unwrap_or_default());
    let (_, name) = path.trim_start_matches('/').split_once('/').unwrap_or_default();
    let object: PathBuf = folder.join(name.split('?').next().unwrap_or_default());
    let range = head.by_ref().take_while(|line| !line.is_empty()).find_map(|line| {
        let line = line.to_ascii_lowercase();
        let (from, to) = line.strip_prefix("range: bytes=")?.split_once('-')?;
        Some((from.parse::<usize>().ok()?, to.trim().parse::<usize>().ok()?))
    });
    let (from, to) = range.unwrap_or((0, usize::MAX - 1));
    ask(&method, &object, from);
    let Ok(bytes) = fs::read(&object) else {
        let _ = stream.write_all(b"HTTP/1.1 404 X\r\nconnection: close\r\ncontent-length: 0\r\n\r\n");
        return;
    };
    let part = &bytes[from.min(bytes.len())..(to + 1).min(bytes.len())];
    let end = from + part.len().saturating_sub(1);
    let head = format!(
        "HTTP/1.1 206 X\r\nlast-modified: Sun, 29 Nov 2026 09:00:00 GMT\r\netag: \"x\"\r\nconnection: close\r\n\
         content-range: bytes {from}-{end}/{}\r\ncontent-length: {}\r\n\r\n",
        bytes.len(),
        part.len()
    );
    let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(part));
    let _ = stream.shutdown(std::net::Shutdown::Write);
    let _ = stream.read_to_end(&mut Vec::new());
}
