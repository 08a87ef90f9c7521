//! in-toto runtime-trace v0.1: what a step opened, executed and contacted, as the kernel and the proxy said it.
//!
//! An optional list that is left out counts as an empty one by in-toto's rules. So what could not be known says so in a field of its
//! own, and a trace that is neither seen nor said to be unavailable is refused.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sluicegate_types::{RunId, StepName, UnixTime};

use crate::{Error, form, identifiers::STEP_BUILD_TYPE};

/// `monitor.type`: fanotify on the step's own file systems, and the proxy. `attestations/runtime-trace/README.md` says what is in its
/// lists.
pub const MONITOR: &str = "https://sluicegate.dev/monitor/fanotify/v1";

/// Paths in one list.
pub const MAX_PATHS: usize = 200_000;
/// Places that are not seen.
pub const MAX_BLIND: usize = 1024;
/// Servers.
pub const MAX_CONTACTS: usize = 10_000;
/// Characters of a reason; a longer one is cut when it is written.
pub const MAX_REASON: usize = 1000;
/// Bytes of a path (the kernel's limit).
const MAX_PATH: usize = 4096;

/// The predicate of `https://in-toto.io/attestation/runtime-trace/v0.1`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuntimeTrace {
    /// The step.
    pub step: StepName,
    /// Its run.
    pub run: RunId,
    /// Who ran and watched it.
    pub builder_id: String,
    /// When the step began.
    pub started_on: UnixTime,
    /// When it was over.
    pub finished_on: UnixTime,
    /// Its files.
    pub files: Files,
    /// What it contacted through the proxy; `None` if no proxy watched.
    pub contacts: Option<Vec<Contact>>,
}

/// What is known of a step's files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Files {
    /// Nothing, with the reason.
    Unavailable(String),
    /// What was seen: absolute paths as the step sees them, each once, sorted.
    Seen {
        /// What was opened; what was executed is among it.
        opened: Vec<String>,
        /// What was executed.
        executed: Vec<String>,
        /// Places that were not seen.
        blind: Vec<String>,
        /// Events that are in no list; with any, the lists are not whole.
        lost: u64,
    },
}

/// A server that a step asked the proxy for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Contact {
    /// Its name, or its address if it was asked for by that.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// Where that led to.
    pub address: Option<IpAddr>,
    /// Why it was refused; `None` if it was let through.
    pub refused: Option<String>,
    /// Connections.
    pub connections: u64,
    /// Bytes to the server.
    pub sent: u64,
    /// Bytes from the server.
    pub received: u64,
}

impl RuntimeTrace {
    /// The predicate as JSON. Lists are sorted here, and reasons cut. What is beyond a limit is refused, as nobody could read it.
    pub fn to_predicate(&self) -> Result<Value, Error> {
        let sorted = |list: &[String]| {
            let mut list = list.to_vec();
            list.sort();
            list.dedup();
            list
        };
        let mut log = json!({});
        let mut predicate = json!({
            "monitor": {"type": MONITOR, "tracePolicy": {"events": ["open", "exec"]}},
            "monitoredProcess": {
                "hostID": self.builder_id, "type": STEP_BUILD_TYPE, "event": event(&self.run, &self.step),
            },
            "metadata": {"buildStartedOn": self.started_on, "buildFinishedOn": self.finished_on},
            "sluicegate_step": self.step,
            "sluicegate_run": self.run,
        });
        match &self.files {
            Files::Unavailable(reason) => predicate["sluicegate_unavailable"] = json!(cut(reason)),
            Files::Seen { opened, executed, blind, lost } => {
                log["process"] = sorted(executed).into_iter().map(Executed::new).map(|entry| json!(entry)).collect();
                log["fileAccess"] = sorted(opened).iter().map(|path| json!({"uri": to_uri(path)})).collect();
                predicate["sluicegate_blind"] = json!(sorted(blind));
                predicate["sluicegate_lost"] = json!(lost);
            }
        }
        if let Some(contacts) = &self.contacts {
            let mut contacts = contacts.clone();
            contacts.sort();
            log["network"] = contacts.iter().map(|contact| json!(WireContact::from(contact))).collect();
        }
        predicate["monitorLog"] = log;
        Self::parse(&predicate)?;
        Ok(predicate)
    }

    /// Reads a predicate of ours. Refused: a field that we don't write, another monitor, paths that are not absolute or not in order,
    /// lists beyond their limits, and a trace that says both what was seen and that nothing could be, or neither.
    pub fn parse(predicate: &Value) -> Result<Self, Error> {
        let wire = Wire::deserialize(predicate).map_err(form("the runtime-trace predicate"))?;
        if wire.monitor.kind != MONITOR {
            return Err(crate::unsupported("monitor type", &wire.monitor.kind));
        }
        let process = wire.monitored_process;
        if process.kind != STEP_BUILD_TYPE {
            return Err(crate::unsupported("type of the monitored process", &process.kind));
        }
        let (step, run) = (wire.sluicegate_step, wire.sluicegate_run);
        if process.event != event(&run, &step) {
            return Err(invalid("monitoredProcess.event", format!("it is to be {}", event(&run, &step))));
        }
        let log = wire.monitor_log;
        let files = match (wire.sluicegate_unavailable, log.process, log.file_access) {
            (Some(reason), None, None) if wire.sluicegate_blind.is_none() && wire.sluicegate_lost.is_none() => {
                check_reason("sluicegate_unavailable", &reason)?;
                Files::Unavailable(reason)
            }
            (None, Some(process), Some(opened)) => {
                let executed: Vec<String> = process.into_iter().map(Executed::path).collect();
                let opened = opened.into_iter().map(|file| from_uri(&file.uri)).collect::<Result<Vec<_>, _>>()?;
                let missing = |what| move || invalid(what, "it is missing, and files were seen".to_owned());
                let blind = wire.sluicegate_blind.ok_or_else(missing("sluicegate_blind"))?;
                let lost = wire.sluicegate_lost.ok_or_else(missing("sluicegate_lost"))?;
                check_paths("executed files", &executed, MAX_PATHS)?;
                check_paths("opened files", &opened, MAX_PATHS)?;
                check_paths("places that are not seen", &blind, MAX_BLIND)?;
                Files::Seen { opened, executed, blind, lost }
            }
            _ => {
                let reason =
                    "either process and fileAccess are there, or sluicegate_unavailable says why not".to_owned();
                return Err(invalid("monitorLog", reason));
            }
        };
        let contacts = log.network.map(contacts).transpose()?;
        let (started_on, finished_on) = (wire.metadata.build_started_on, wire.metadata.build_finished_on);
        Ok(Self { step, run, builder_id: process.host_id, started_on, finished_on, files, contacts })
    }
}

fn event(run: &RunId, step: &StepName) -> String {
    format!("{run}/{step}")
}

fn contacts(list: Vec<WireContact>) -> Result<Vec<Contact>, Error> {
    if list.len() > MAX_CONTACTS {
        return Err(Error::TooMany { what: "servers in a runtime trace", limit: MAX_CONTACTS });
    }
    let contacts: Vec<Contact> = list.into_iter().map(Contact::try_from).collect::<Result<_, _>>()?;
    if contacts.is_sorted() { Ok(contacts) } else { Err(invalid("monitorLog.network", "it is not sorted".to_owned())) }
}

fn check_paths(what: &'static str, list: &[String], limit: usize) -> Result<(), Error> {
    if list.len() > limit {
        return Err(Error::TooMany { what, limit });
    }
    if let Some(path) = list.iter().find(|path| !path.starts_with('/') || path.len() > MAX_PATH) {
        let shown: String = path.chars().take(120).collect();
        return Err(invalid(what, format!("{shown:?} is not an absolute path of at most {MAX_PATH} bytes")));
    }
    if list.windows(2).any(|pair| pair[0] >= pair[1]) {
        return Err(invalid(what, "they are not sorted, or one is there twice".to_owned()));
    }
    Ok(())
}

fn check_reason(what: &'static str, reason: &str) -> Result<(), Error> {
    if reason.is_empty() || reason.chars().count() > MAX_REASON {
        return Err(invalid(what, format!("a reason has 1 to {MAX_REASON} characters")));
    }
    Ok(())
}

fn cut(reason: &str) -> String {
    if reason.is_empty() { "no reason was given".to_owned() } else { reason.chars().take(MAX_REASON).collect() }
}

fn invalid(what: &'static str, reason: String) -> Error {
    Error::Invalid { what, reason }
}

/// What stands as it is in a `file` URI (RFC 3986, `pchar` and the slash).
fn is_plain(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"/-._~!$&'()*+,;=:@".contains(&byte)
}

fn to_uri(path: &str) -> String {
    let mut uri = "file://".to_owned();
    for byte in path.bytes() {
        if is_plain(byte) { uri.push(char::from(byte)) } else { uri.push_str(&format!("%{byte:02X}")) }
    }
    uri
}

/// The path, if this is how [`to_uri`] writes it: a path has one URI.
fn from_uri(uri: &str) -> Result<String, Error> {
    let fault = || {
        let shown: String = uri.chars().take(120).collect();
        invalid("fileAccess", format!("{shown:?} is not a file URI of an absolute path, as it is written here"))
    };
    let mut left = uri.strip_prefix("file://").ok_or_else(fault)?.as_bytes();
    let mut path = Vec::with_capacity(left.len());
    while let [first, rest @ ..] = left {
        left = rest;
        if *first != b'%' {
            path.push(*first);
            continue;
        }
        let digits = rest.get(..2).and_then(|digits| std::str::from_utf8(digits).ok()).ok_or_else(fault)?;
        path.push(u8::from_str_radix(digits, 16).map_err(|_| fault())?);
        left = &rest[2..];
    }
    let path = String::from_utf8(path).map_err(|_| fault())?;
    if to_uri(&path) == uri { Ok(path) } else { Err(fault()) }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Wire {
    monitor: WireMonitor,
    monitored_process: WireProcess,
    monitor_log: WireLog,
    metadata: WireMetadata,
    #[serde(rename = "sluicegate_step")]
    sluicegate_step: StepName,
    #[serde(rename = "sluicegate_run")]
    sluicegate_run: RunId,
    #[serde(rename = "sluicegate_unavailable")]
    sluicegate_unavailable: Option<String>,
    #[serde(rename = "sluicegate_blind")]
    sluicegate_blind: Option<Vec<String>>,
    #[serde(rename = "sluicegate_lost")]
    sluicegate_lost: Option<u64>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WireMonitor {
    #[serde(rename = "type")]
    kind: String,
    #[serde(rename = "tracePolicy")]
    _trace_policy: WirePolicy,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WirePolicy {
    #[serde(rename = "events")]
    _events: (OpenWord, ExecWord),
}

#[derive(Deserialize)]
enum OpenWord {
    #[serde(rename = "open")]
    Open,
}

#[derive(Deserialize, Serialize)]
enum ExecWord {
    #[serde(rename = "exec")]
    Exec,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WireProcess {
    #[serde(rename = "hostID")]
    host_id: String,
    #[serde(rename = "type")]
    kind: String,
    event: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct WireLog {
    process: Option<Vec<Executed>>,
    network: Option<Vec<WireContact>>,
    file_access: Option<Vec<WireFile>>,
}

#[derive(Deserialize, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Executed {
    event_type: ExecWord,
    process_binary: String,
}

impl Executed {
    fn new(path: String) -> Self {
        Self { event_type: ExecWord::Exec, process_binary: path }
    }

    fn path(self) -> String {
        self.process_binary
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WireFile {
    uri: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct WireMetadata {
    build_started_on: UnixTime,
    build_finished_on: UnixTime,
}

/// In the words that runtime-trace v0.2 recommends, which v0.1 leaves to the monitor.
#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct WireContact {
    hostname: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    ip: Option<IpAddr>,
    port: u16,
    protocol: Protocol,
    #[serde(skip_serializing_if = "Option::is_none")]
    sluicegate_refused: Option<String>,
    sluicegate_connections: u64,
    sluicegate_sent: u64,
    sluicegate_received: u64,
}

#[derive(Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
enum Protocol {
    Tcp,
}

impl From<&Contact> for WireContact {
    fn from(contact: &Contact) -> Self {
        Self {
            hostname: contact.host.clone(),
            ip: contact.address,
            port: contact.port,
            protocol: Protocol::Tcp,
            sluicegate_refused: contact.refused.as_deref().map(cut),
            sluicegate_connections: contact.connections,
            sluicegate_sent: contact.sent,
            sluicegate_received: contact.received,
        }
    }
}

impl TryFrom<WireContact> for Contact {
    type Error = Error;

    fn try_from(wire: WireContact) -> Result<Self, Error> {
        if wire.hostname.is_empty() || wire.hostname.len() > 255 || wire.port == 0 {
            let reason = "a server has a name of 1 to 255 bytes and a port that is not 0".to_owned();
            return Err(invalid("monitorLog.network", reason));
        }
        if let Some(reason) = &wire.sluicegate_refused {
            check_reason("sluicegate_refused", reason)?;
        }
        Ok(Self {
            host: wire.hostname,
            port: wire.port,
            address: wire.ip,
            refused: wire.sluicegate_refused,
            connections: wire.sluicegate_connections,
            sent: wire.sluicegate_sent,
            received: wire.sluicegate_received,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(list: &[&str]) -> Vec<String> {
        list.iter().map(|text| (*text).to_owned()).collect()
    }

    fn contact(host: &str) -> Contact {
        Contact {
            host: host.to_owned(),
            port: 443,
            address: Some("192.0.2.1".parse().unwrap()),
            refused: None,
            connections: 2,
            sent: 10,
            received: 20,
        }
    }

    fn trace(files: Files, contacts: Option<Vec<Contact>>) -> RuntimeTrace {
        RuntimeTrace {
            step: "build".parse().unwrap(),
            run: "r1".parse().unwrap(),
            builder_id: crate::identifiers::LOCAL_BUILDER.to_owned(),
            started_on: UnixTime::from_seconds(1_700_000_000).unwrap(),
            finished_on: UnixTime::from_seconds(1_700_000_001).unwrap(),
            files,
            contacts,
        }
    }

    fn seen() -> RuntimeTrace {
        let files = Files::Seen {
            opened: texts(&["/bin/cat", "/etc/passwd", "/x y%\u{e4}"]),
            executed: texts(&["/bin/cat"]),
            blind: texts(&["/dev", "/proc"]),
            lost: 3,
        };
        trace(files, None)
    }

    fn unavailable() -> RuntimeTrace {
        trace(Files::Unavailable("no right".to_owned()), None)
    }

    fn refusal(predicate: &Value) -> String {
        RuntimeTrace::parse(predicate).unwrap_err().to_string()
    }

    #[test]
    fn what_is_written_is_read_back() {
        let refused = Contact { address: None, refused: Some("not listed".to_owned()), ..contact("b.example") };
        for written in [
            seen(),
            unavailable(),
            RuntimeTrace { contacts: Some(Vec::new()), ..seen() },
            RuntimeTrace { contacts: Some(vec![contact("a.example"), refused]), ..unavailable() },
        ] {
            assert_eq!(RuntimeTrace::parse(&written.to_predicate().unwrap()).unwrap(), written);
        }
        let predicate = seen().to_predicate().unwrap();
        assert_eq!(predicate["monitorLog"]["fileAccess"][2]["uri"], "file:///x%20y%25%C3%A4");
        assert_eq!(predicate["monitorLog"]["process"], json!([{"eventType": "exec", "processBinary": "/bin/cat"}]));
        assert_eq!(predicate["monitorLog"].get("network"), None);
    }

    #[test]
    fn what_is_not_known_is_no_empty_list() {
        let predicate = unavailable().to_predicate().unwrap();
        assert_eq!(predicate["monitorLog"], json!({}));
        assert_eq!(predicate["sluicegate_unavailable"], "no right");
        assert_eq!((predicate.get("sluicegate_lost"), predicate.get("sluicegate_blind")), (None, None));
        for (field, value) in [("sluicegate_lost", json!(0)), ("sluicegate_blind", json!([]))] {
            let mut both = predicate.clone();
            both[field] = value;
            assert!(refusal(&both).contains("says why not"), "{field}");
        }
        for list in ["process", "fileAccess"] {
            let mut both = predicate.clone();
            both["monitorLog"][list] = json!([]);
            assert!(refusal(&both).contains("says why not"), "{list}");
            let mut neither = seen().to_predicate().unwrap();
            neither["monitorLog"].as_object_mut().unwrap().remove(list);
            assert!(refusal(&neither).contains("says why not"), "{list}");
        }
        for field in ["sluicegate_lost", "sluicegate_blind"] {
            let mut silent = seen().to_predicate().unwrap();
            silent.as_object_mut().unwrap().remove(field);
            assert!(refusal(&silent).contains("missing"), "{field}");
        }
    }

    #[test]
    fn lists_are_sorted_and_reasons_cut_when_they_are_written() {
        let files = Files::Seen { opened: texts(&["/b", "/a", "/b"]), executed: vec![], blind: vec![], lost: 0 };
        let written = trace(files, Some(vec![contact("b.example"), contact("a.example")])).to_predicate().unwrap();
        let read = RuntimeTrace::parse(&written).unwrap();
        assert!(matches!(read.files, Files::Seen { opened, .. } if opened == ["/a", "/b"]));
        assert_eq!(read.contacts.unwrap()[0].host, "a.example");
        let long = trace(Files::Unavailable("x".repeat(MAX_REASON + 1)), None).to_predicate().unwrap();
        assert_eq!(long["sluicegate_unavailable"].as_str().unwrap().len(), MAX_REASON);
        let mut longer = long.clone();
        longer["sluicegate_unavailable"] = json!("x".repeat(MAX_REASON + 1));
        assert!(RuntimeTrace::parse(&long).is_ok() && refusal(&longer).contains("characters"));
        assert!(trace(Files::Unavailable(String::new()), None).to_predicate().is_ok());
    }

    #[test]
    fn a_predicate_of_another_form_is_refused() {
        let good = RuntimeTrace { contacts: Some(vec![contact("a.example")]), ..seen() }.to_predicate().unwrap();
        assert!(RuntimeTrace::parse(&good).is_ok());
        for (pointer, value, word) in [
            ("/monitor/type", json!("https://github.com/cilium/tetragon/v0.8.4"), "monitor type"),
            ("/monitor/tracePolicy/events", json!(["open"]), "not of the expected form"),
            ("/monitoredProcess/type", json!("urn:other"), "monitored process"),
            ("/monitoredProcess/event", json!("r1/test"), "r1/build"),
            ("/sluicegate_step", json!("test"), "r1/test"),
            ("/sluicegate_lost", json!(-1), "not of the expected form"),
            ("/sluicegate_blind/0", json!("dev"), "absolute"),
            ("/monitorLog/fileAccess/0/uri", json!("file://bin/cat"), "absolute"),
            ("/monitorLog/fileAccess/0/uri", json!("/bin/cat"), "file URI"),
            ("/monitorLog/fileAccess/0/uri", json!("file:///bin/%63at"), "file URI"),
            ("/monitorLog/fileAccess/0/uri", json!("file:///bin/%f"), "file URI"),
            ("/monitorLog/fileAccess/0/uri", json!("file:///%FF"), "file URI"),
            ("/monitorLog/fileAccess/0/uri", json!("file:///z"), "sorted"),
            ("/monitorLog/fileAccess/0/uri", json!("file:///etc/passwd"), "twice"),
            ("/monitorLog/process/0/eventType", json!("exit"), "not of the expected form"),
            ("/monitorLog/process/0/processBinary", json!("cat"), "absolute"),
            ("/monitorLog/network/0/port", json!(0), "port"),
            ("/monitorLog/network/0/hostname", json!(""), "name"),
            ("/monitorLog/network/0/ip", json!("here"), "not of the expected form"),
            ("/monitorLog/network/0/protocol", json!("udp"), "not of the expected form"),
            ("/metadata/buildStartedOn", json!("yesterday"), "not of the expected form"),
        ] {
            let mut bad = good.clone();
            *bad.pointer_mut(pointer).unwrap() = value;
            let found = refusal(&bad);
            assert!(found.contains(word), "{pointer}: {found}");
        }
        let mut unknown = good.clone();
        unknown["sluicegate_more"] = json!(1);
        assert!(refusal(&unknown).contains("unknown field"));
    }

    #[test]
    fn lists_have_limits() {
        let paths = |count: usize| (0..count).map(|number| format!("/{number:06}")).collect::<Vec<_>>();
        let of = |opened: usize, blind: usize, contacts: usize| {
            let files = Files::Seen { opened: paths(opened), executed: vec![], blind: paths(blind), lost: 0 };
            let contacts = (0..contacts).map(|number| contact(&format!("{number:06}.example"))).collect();
            trace(files, Some(contacts)).to_predicate()
        };
        assert!(of(MAX_PATHS, MAX_BLIND, MAX_CONTACTS).is_ok());
        for (opened, blind, contacts) in [(MAX_PATHS + 1, 0, 0), (0, MAX_BLIND + 1, 0), (0, 0, MAX_CONTACTS + 1)] {
            assert!(matches!(of(opened, blind, contacts), Err(Error::TooMany { .. })));
        }
        let long = |length: usize| {
            let files = Files::Seen { opened: vec!["/".repeat(length)], executed: vec![], blind: vec![], lost: 0 };
            trace(files, None).to_predicate().is_ok()
        };
        assert!(long(MAX_PATH) && !long(MAX_PATH + 1));
    }
}
