//! The distribution registry as a process of its own on a free port of the loopback, which ends when it is dropped.

use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream, ToSocketAddrs as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::commands;
use crate::failure::{Failure, Outcome};
use crate::tools;

/// How long it has to answer for the first time, on a busy machine.
const START: Duration = Duration::from_secs(30);
const AGAIN: Duration = Duration::from_millis(20);
/// How long one answer may take.
const ANSWER: Duration = Duration::from_secs(5);
/// Ports that are tried: one that was free a moment ago may be somebody else's by now.
const PORTS: u32 = 5;
const LAST_LINES: usize = 20;
/// The port of a host that names none and is spoken with in plain HTTP.
const HTTP: u16 = 80;

/// A registry that is running.
#[derive(Debug)]
pub struct Registry {
    child: Child,
    folder: PathBuf,
    host: String,
}

impl Registry {
    /// Starts an empty one with everything that it has in `folder`, which is made anew, and waits until it answers.
    pub fn start(program: &Path, folder: &Path) -> Outcome<Self> {
        tools::remove(folder)?;
        fs::create_dir_all(folder).map_err(Failure::while_doing(format!("make {}", folder.display())))?;
        let folder = fs::canonicalize(folder).map_err(Failure::while_doing(format!("find {}", folder.display())))?;
        for _ in 0..PORTS {
            let address = free_address()?;
            let mut registry = Self::on(program, &folder, address)?;
            if registry.begins_to_answer()? {
                return Ok(registry);
            }
        }
        let said = fs::read_to_string(folder.join("said")).unwrap_or_default();
        Err(Failure::new(format!("the registry does not answer:\n{said}")))
    }

    fn on(program: &Path, folder: &Path, address: SocketAddr) -> Outcome<Self> {
        let (settings, said) = (folder.join("config.yml"), folder.join("said"));
        let text = configuration(&folder.join("data"), address);
        fs::write(&settings, text).map_err(Failure::while_doing(format!("write {}", settings.display())))?;
        let said = File::create(&said).map_err(Failure::while_doing(format!("create {}", said.display())))?;
        let stderr = said.try_clone().map_err(Failure::while_doing("open the registry's log twice"))?;
        // It ends with this program, also if this program is killed.
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL"]).arg(program).arg("serve").arg(&settings).current_dir(folder);
        command.env("OTEL_TRACES_EXPORTER", "none").stdin(Stdio::null()).stdout(said).stderr(stderr);
        let child = command.spawn().map_err(Failure::while_doing("start the registry"))?;
        Ok(Self { child, folder: folder.to_owned(), host: address.to_string() })
    }

    /// `false` if it ended or did not answer in time.
    fn begins_to_answer(&mut self) -> Outcome<bool> {
        let started = Instant::now();
        while started.elapsed() < START {
            if self.child.try_wait().map_err(Failure::while_doing("look after the registry"))?.is_some() {
                return Ok(false);
            }
            if answers(&self.host) {
                return Ok(true);
            }
            thread::sleep(AGAIN);
        }
        Ok(false)
    }

    /// `127.0.0.1:PORT`.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// Says how it was started, as a person types it.
    pub fn announce(&self, program: &Path) {
        let settings = self.folder.join("config.yml");
        let words = [program, Path::new("serve"), &settings].map(|word| commands::quoted(&word.to_string_lossy()));
        commands::announce(&format!("{} &", words.join(" ")));
    }

    /// Whether it still answers and the end of what it said, for whoever failed at it.
    #[must_use]
    pub fn state(&self) -> String {
        let said = fs::read_to_string(self.folder.join("said")).unwrap_or_default();
        let lines: Vec<&str> = said.lines().collect();
        let last = lines.get(lines.len().saturating_sub(LAST_LINES)..).unwrap_or_default().join("\n");
        let word = if answers(&self.host) { "answers" } else { "does not answer any more" };
        format!("the registry at {} {word}; the last that it said: {last}", self.host)
    }

    /// Where it keeps all repositories and blobs: it holds nothing in memory.
    #[must_use]
    pub fn data(&self) -> PathBuf {
        self.folder.join("data/docker/registry/v2")
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn configuration(data: &Path, address: SocketAddr) -> String {
    let data = data.to_string_lossy().replace('\'', "''");
    format!(
        "version: 0.1\nlog: {{ level: error, accesslog: {{ disabled: true }} }}\nstorage:\n  filesystem:\n    rootdirectory: '{data}'\n  \
         delete: {{ enabled: true }}\n  maintenance: {{ uploadpurging: {{ enabled: false }} }}\nhttp:\n  addr: {address}\n  secret: of one run\n"
    )
}

fn free_address() -> Outcome<SocketAddr> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
        .and_then(|listener| listener.local_addr())
        .map_err(Failure::while_doing("find a free port"))
}

/// Whether `host`, with or without a port, is this machine by its name or address.
#[must_use]
pub fn is_loopback(host: &str) -> bool {
    let (name, port) = match host.rsplit_once(':') {
        Some((name, port)) if !port.contains(']') => (name, Some(port)),
        _ => (host, None),
    };
    let bare = name.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(name);
    let is_here = bare == "localhost" || bare.parse::<IpAddr>().is_ok_and(|address| address.is_loopback());
    is_here && port.is_none_or(|port| port.parse::<u16>().is_ok_and(|port| port > 0))
}

/// Whether somebody at `host` answers in HTTP as a registry does.
#[must_use]
pub fn answers(host: &str) -> bool {
    asked(host).is_ok_and(|answer| &answer[..] == b"HTTP/1.")
}

fn asked(host: &str) -> io::Result<[u8; 7]> {
    let has_port = host.rsplit_once(':').is_some_and(|(_, port)| !port.contains(']'));
    let place = if has_port { host.to_owned() } else { format!("{host}:{HTTP}") };
    let mut last = io::Error::from(io::ErrorKind::AddrNotAvailable);
    for address in place.to_socket_addrs()? {
        match TcpStream::connect_timeout(&address, ANSWER) {
            Ok(mut connection) => {
                connection.set_read_timeout(Some(ANSWER))?;
                write!(connection, "GET /v2/ HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n")?;
                let mut answer = [0; 7];
                connection.read_exact(&mut answer)?;
                return Ok(answer);
            }
            Err(error) => last = error,
        }
    }
    Err(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_this_machine_is_loopback() {
        for here in ["localhost", "localhost:5000", "127.0.0.1", "127.8.9.1:1", "[::1]:5000", "[::1]"] {
            assert!(is_loopback(here), "{here}");
        }
        let elsewhere =
            ["registry.example", "localhost.example:5000", "10.0.0.1:5000", "0.0.0.0", "[::2]", "", ":5000"];
        let odd = [
            "127.0.0.1:0",
            "127.0.0.1:x",
            "127.0.0.1:",
            "localhost/evil.example",
            "localhost:5000/x",
            "user@localhost",
        ];
        for other in elsewhere.into_iter().chain(odd) {
            assert!(!is_loopback(other), "{other}");
        }
    }

    #[test]
    fn whether_somebody_answers_in_http_is_seen() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let host = listener.local_addr().unwrap().to_string();
        let server = thread::spawn(move || {
            for said in ["HTTP/1.1 200 OK\r\n\r\n", "SSH-2.0-x\r\n"] {
                let (mut connection, _) = listener.accept().unwrap();
                // Read to its end: a connection that is closed over unread bytes is reset, and the answer may go with it.
                let mut request = Vec::new();
                while !request.ends_with(b"\r\n\r\n") {
                    let mut byte = [0];
                    connection.read_exact(&mut byte).unwrap();
                    request.extend(byte);
                }
                assert!(request.starts_with(b"GET /v2/ HTTP/1.1\r\n"));
                connection.write_all(said.as_bytes()).unwrap();
            }
        });
        assert!(answers(&host));
        assert!(!answers(&host));
        server.join().unwrap();
        assert!(!answers(&host));
    }

    #[test]
    fn a_registry_that_ends_at_once_does_not_answer() {
        let folder = std::env::temp_dir().join(format!("xtask-registry-{}", std::process::id()));
        let failure = Registry::start(Path::new("/bin/false"), &folder).unwrap_err().to_string();
        assert!(failure.starts_with("the registry does not answer"), "{failure}");
        let settings = fs::read_to_string(folder.join("config.yml")).unwrap();
        assert!(settings.contains("rootdirectory: '/") && settings.contains("addr: 127.0.0.1:"), "{settings}");
        fs::remove_dir_all(folder).unwrap();
    }
}
