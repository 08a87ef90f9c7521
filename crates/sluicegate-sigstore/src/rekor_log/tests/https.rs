//! A log behind TLS with a certificate authority of its own, and behind a proxy.

use std::path::PathBuf;

use sluicegate_outbound::{Outbound, OutboundSettings};
use sluicegate_testkit::{ConnectProxy, TestAuthority, TlsFront};

use super::*;

/// What ends TLS in front of a log.
fn front(world: &World) -> TlsFront {
    TlsFront::start(world.url.trim_start_matches("http://"), "log.test")
}

fn url(front: &TlsFront) -> LogUrl {
    format!("https://{}", front.host).parse().unwrap()
}

/// A folder in the form of `certs.d`.
#[derive(Default)]
struct Vouched(Option<tempfile::TempDir>);

impl Vouched {
    /// Hosts and the certificates that lie there for them.
    fn of(all: &[(&str, &str)]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        for (host, pem) in all {
            fs::create_dir(folder.path().join(host)).unwrap();
            fs::write(folder.path().join(host).join("ca.crt"), pem).unwrap();
        }
        Self(Some(folder))
    }

    fn folders(&self) -> Vec<PathBuf> {
        self.0.iter().map(|folder| folder.path().to_owned()).collect()
    }

    fn outbound(&self) -> Arc<Outbound> {
        self.behind(None, None)
    }

    fn behind(&self, proxy: Option<&str>, no_proxy: Option<&str>) -> Arc<Outbound> {
        let (proxy, no_proxy) = (proxy.map(str::to_owned), no_proxy.map(str::to_owned));
        let settings = OutboundSettings { certificates: self.folders(), proxy, no_proxy };
        Arc::new(Outbound::new(settings, Arc::new(|words| panic!("{words}"))))
    }
}

fn open(world: &World, url: LogUrl, read: Option<LogUrl>, outbound: Arc<Outbound>) -> Result<RekorLog, SignError> {
    RekorLog::open(RekorSettings { url, read, outbound, ..world.settings() }, &[public()])
}

/// Logs one entry as a command does.
#[track_caller]
fn logs(log: &RekorLog, number: u64) -> LogEntry {
    let entry = log.append(&[body(number)]).unwrap().remove(0);
    log.settled(&[body(number)]).unwrap();
    entry
}

/// One entry waits in the outbox, and nobody logs it for now, for this reason.
#[track_caller]
fn waits<T>(world: &World, result: Result<T, SignError>, parts: &[&str]) {
    match result.map(|_| ()) {
        Err(SignError::Waiting { reason, waiting: 1, .. }) => {
            assert!(parts.iter().all(|part| reason.contains(part)), "{parts:?} are not all in {reason:?}");
        }
        other => panic!("{parts:?}: {other:?}"),
    }
    assert_eq!(world.waiting(), 1);
}

/// Leaves one entry in the outbox of a log that holds `size` others.
fn with_one_that_waits(size: u64) -> World {
    let world = World::new(size);
    world.then(|_, _| raw(400, "", b"{}"));
    world.unavailable("400");
    world
}

#[test]
fn an_authority_of_its_own_counts_for_the_log_that_it_is_for() {
    let world = with_one_that_waits(2);
    let (front, stranger) = (front(&world), TestAuthority::of(&["127.0.0.1"]));
    let nobody = Vouched::default();
    let hint = format!("its certificate goes into certs.d/{}/ca.crt", front.host);
    let asked = format!("GET {}/api/v2/checkpoint: its certificate is not to be trusted (UnknownIssuer)", url(&front));
    waits(&world, open(&world, url(&front), None, nobody.outbound()), &[&asked, &hint]);
    assert_eq!(front.connections(), 1, "it is not asked again");
    // Somebody else's, and the right one for another port and for another name.
    for (host, pem) in [
        (front.host.as_str(), &stranger.pem),
        ("127.0.0.1:1", &front.authority.pem),
        ("127.0.0.1", &front.authority.pem),
        ("log.test", &front.authority.pem),
    ] {
        let vouched = Vouched::of(&[(host, pem)]);
        let place = vouched.folders()[0].join(&front.host).join("ca.crt").display().to_string();
        waits(&world, open(&world, url(&front), None, vouched.outbound()), &["not to be trusted", &place]);
    }
    // The checkpoint was asked for by those who spoke without TLS alone.
    assert_eq!(world.posts(), 1);
    // The accepted one: what waited is logged, and something new.
    let vouched = Vouched::of(&[(&front.host, &front.authority.pem)]);
    let log = open(&world, url(&front), None, vouched.outbound()).unwrap();
    assert_eq!(log.settle(|_| Ok::<(), SignError>(())).unwrap(), Settlement { logged: 1, elsewhere: 0 });
    assert_eq!(logs(&log, 1), world.log.append(&[body(1)]).unwrap()[0]);
    assert_eq!((world.log.size().unwrap(), world.waiting(), world.posts()), (4, 0, 3));
    let reader = RemoteLog::new(url(&front), vouched.outbound(), world.settings().limits).unwrap();
    assert_eq!(reader.check(&[public()]).unwrap().1, 4);
    let reader = RemoteLog::new(url(&front), nobody.outbound(), world.settings().limits).unwrap();
    assert!(matches!(reader.check(&[public()]), Err(SignError::Remote { reason, .. }) if reason.contains(&hint)));
}

#[test]
fn where_a_log_is_written_and_where_it_is_read_each_has_its_own_authority() {
    let world = World::new(1);
    let (write, read) = (front(&world), front(&world));
    let opened = |vouched: &Vouched| open(&world, url(&write), Some(url(&read)), vouched.outbound());
    let (ours, theirs) = (&write.authority.pem, &read.authority.pem);
    // Only where it is written: which log it is, is not known.
    let error = opened(&Vouched::of(&[(&write.host, ours)])).unwrap_err();
    assert!(matches!(&error, SignError::Remote { reason, .. } if reason.contains(&read.host)), "{error}");
    // Exchanged.
    let error = opened(&Vouched::of(&[(&write.host, theirs), (&read.host, ours)])).unwrap_err();
    assert!(matches!(&error, SignError::Remote { .. }), "{error}");
    assert_eq!(write.connections(), 0);
    // Only where it is read: what is signed is kept, and not sent.
    let log = opened(&Vouched::of(&[(&read.host, theirs)])).unwrap();
    let sent = format!("POST {}/api/v2/log/entries: its certificate is not to be trusted", url(&write));
    waits(&world, log.append(&[body(0)]), &[&sent, &format!("{}/ca.crt", write.host)]);
    assert_eq!((write.connections(), world.posts(), world.log.size().unwrap()), (1, 0, 1));
    let log = opened(&Vouched::of(&[(&write.host, ours), (&read.host, theirs)])).unwrap();
    assert_eq!(logs(&log, 0).log_index, "1");
    assert_eq!((world.waiting(), world.posts()), (0, 1));
}

#[test]
fn settings_that_cannot_be_used_are_said_before_anybody_is_asked() {
    let world = with_one_that_waits(0);
    let front = front(&world);
    let far: LogUrl = "https://log.test".parse().unwrap();
    let good = Vouched::of(&[(&front.host, &front.authority.pem)]);
    let bad = Vouched::of(&[(&front.host, "nothing")]);
    let file = bad.folders()[0].join(&front.host).join("ca.crt").display().to_string();
    let words = "the proxy's address (HTTPS_PROXY or ALL_PROXY) is no http:// or https:// URL";
    for (url, outbound, reason) in [
        (url(&front), bad.outbound(), format!("{file}: there is none in it")),
        (far, good.behind(Some("socks5://us:er@127.0.0.1"), None), words.to_owned()),
    ] {
        match open(&world, url, None, outbound) {
            Err(SignError::Settings { reason: said, .. }) => assert!(said.ends_with(&reason), "{said}"),
            other => panic!("{reason}: {other:?}"),
        }
        assert_eq!((front.connections(), world.waiting()), (0, 1));
    }
    let log = open(&world, url(&front), None, good.outbound()).unwrap();
    assert_eq!(log.settle(|_| Ok::<(), SignError>(())).unwrap().logged, 1);
}

#[test]
fn a_log_that_answers_without_tls_is_not_believed() {
    let world = with_one_that_waits(0);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let plain = listener.local_addr().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let _ = stream.read(&mut [0; 4096]);
            let _ = stream.write_all(&raw(400, "", b"this is plain HTTP"));
        }
    });
    let url = format!("https://{plain}").parse().unwrap();
    waits(&world, open(&world, url, None, Arc::default()), &["speaks no TLS"]);
    // The log itself, which breaks off what it does not understand.
    let url = world.url.replace("http://", "https://").parse().unwrap();
    waits(&world, open(&world, url, None, Arc::default()), &["https://"]);
    assert_eq!(world.posts(), 1);
    world.settles(1);
}

#[test]
fn a_proxy_leads_to_a_log_beyond_this_machine_and_to_no_other() {
    let world = World::new(1);
    let front = front(&world);
    let proxy = ConnectProxy::to(&front.host);
    let address = format!("http://us:er@{}", proxy.host);
    let vouched = Vouched::of(&[("log.test", &front.authority.pem), (&front.host, &front.authority.pem)]);
    // The name is known to nobody but the proxy.
    let far: LogUrl = "https://log.test".parse().unwrap();
    let outbound = vouched.behind(Some(&address), Some("other.test, exempt.example"));
    let log = open(&world, far.clone(), None, outbound.clone()).unwrap();
    assert_eq!(logs(&log, 0).log_index, "1");
    let heads = proxy.asked();
    assert!(heads.iter().all(|head| head.starts_with("CONNECT log.test:443 ")), "{heads:?}");
    assert!(heads.iter().all(|head| head.contains("dXM6ZXI=")) && !heads.is_empty(), "{heads:?}");
    // Who is led to is asked for a certificate all the same.
    let other = Vouched::of(&[(&front.host, &front.authority.pem)]).behind(Some(&address), None);
    let error = open(&world, far, None, other).unwrap_err();
    assert!(error.to_string().contains("/log.test/ca.crt"), "{error}");
    // This machine is asked without it, with TLS and without.
    let before = proxy.asked().len();
    assert_eq!(logs(&open(&world, url(&front), None, outbound.clone()).unwrap(), 1).log_index, "2");
    let plain = world.url.parse().unwrap();
    assert_eq!(logs(&open(&world, plain, None, outbound.clone()).unwrap(), 2).log_index, "3");
    // So is what is exempt. A label of more than 63 bytes is no name of a host, so no server is asked for it.
    let nowhere = format!("https://{}.exempt.example", "x".repeat(64));
    let exempting = vouched.behind(Some(&address), Some("other.test, .exempt.example"));
    let error = open(&world, nowhere.parse().unwrap(), None, exempting).unwrap_err();
    assert!(matches!(error, SignError::Remote { .. }), "{error}");
    assert_eq!(proxy.asked().len(), before);
    let error = open(&world, nowhere.parse().unwrap(), None, outbound).unwrap_err();
    assert!(!error.to_string().contains("er@") && proxy.asked().len() > before, "{error}");
}
