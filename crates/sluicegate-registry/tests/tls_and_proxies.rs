//! Registries with a certificate authority of their own, and registries behind a proxy.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test stops at the first thing that is not as it should be")]

mod support;

use std::{
    fs,
    io::{BufRead, BufReader, Write},
    net::{Ipv4Addr, TcpListener, TcpStream},
    path::PathBuf,
    sync::{Arc, Mutex},
};

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use sluicegate_ports::images::{FaultKind, ImagePlaces};
use sluicegate_registry::{Places, RegistrySettings};
use sluicegate_testkit::{Behaviour, TestRegistry};
use sluicegate_types::Place;
use support::{Content, Heard, World, assert_fault, repository, selector};

/// An authority that vouches for 127.0.0.1 and for `registry.test`.
struct Authority {
    pem: String,
    server: Arc<rustls::ServerConfig>,
}

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let own = params.self_signed(&key).unwrap();
        let issuer = Issuer::new(params, key);
        let names = vec!["127.0.0.1".to_owned(), "registry.test".to_owned()];
        let key = KeyPair::generate().unwrap();
        let certificate = CertificateParams::new(names).unwrap().signed_by(&key, &issuer).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let secret = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let server = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], secret)
            .unwrap();
        Self { pem: own.pem(), server: Arc::new(server) }
    }
}

/// A registry that speaks TLS. It ends with the test's process.
struct Secure {
    registry: Arc<TestRegistry>,
    host: String,
}

impl Secure {
    fn start(behaviour: Behaviour, authority: &Authority) -> Self {
        let registry = Arc::new(TestRegistry::start(behaviour));
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let host = listener.local_addr().unwrap().to_string();
        let (served, config, origin) = (registry.clone(), authority.server.clone(), format!("https://{host}"));
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (served, config, origin) = (served.clone(), config.clone(), origin.clone());
                std::thread::spawn(move || {
                    let connection = rustls::ServerConnection::new(config).unwrap();
                    let _ = served.serve(rustls::StreamOwned::new(connection, stream.unwrap()), &origin);
                });
            }
        });
        Self { registry, host }
    }

    fn place(&self) -> Place {
        Place::Registry(repository(&self.host, "team/shop"))
    }
}

/// A folder in the form of `certs.d` that vouches for a host with a certificate.
fn certificates(folder: &std::path::Path, host: &str, pem: &str) -> Vec<PathBuf> {
    let certs = folder.join("certs.d");
    fs::create_dir_all(certs.join(host)).unwrap();
    fs::write(certs.join(host).join("ca.crt"), pem).unwrap();
    vec![certs]
}

#[test]
fn an_authority_of_its_own_counts_for_the_host_that_it_is_for() {
    let (authority, stranger) = (Authority::new(), Authority::new());
    let (content, world) = (Content::usual(), World::of(""));
    content.store_in(&world.store);
    for words in ["", "auth,uses=4,absolute,no-referrers"] {
        let secure = Secure::start(words.parse().unwrap(), &authority);
        let folder = tempfile::tempdir().unwrap();
        let settings = |certificates: Vec<PathBuf>| RegistrySettings { certificates, ..Heard::default().settings() };
        let good = Places::new(settings(certificates(folder.path(), &secure.host, &authority.pem)));
        good.target(&secure.place()).unwrap().publish(&content.publication(&["v1"]), &world.store).unwrap();
        content.assert_is_in(&good, &secure.place());
        // Without it, with another one, and with one that is for another port.
        let other = tempfile::tempdir().unwrap();
        let another = certificates(other.path(), &secure.host, &stranger.pem);
        let elsewhere = tempfile::tempdir().unwrap();
        let elsewhere = certificates(elsewhere.path(), "127.0.0.1:1", &authority.pem);
        secure.registry.forget_log();
        for (folders, hint) in [
            (Vec::new(), format!("certs.d/{}/ca.crt", secure.host)),
            (another.clone(), another[0].join(&secure.host).join("ca.crt").display().to_string()),
            (elsewhere, format!("{}/ca.crt", secure.host)),
        ] {
            let asked = Places::new(settings(folders)).source(&secure.place()).unwrap().resolve(&selector());
            assert_fault(asked, FaultKind::Unreachable, &["certificate is not to be trusted", &hint]);
        }
        assert!(secure.registry.log().is_empty());
    }
}

#[test]
fn what_has_an_authority_is_not_spoken_to_without_tls() {
    let world = World::of("");
    let content = Content::usual();
    world.publish(&content).unwrap();
    world.registry.forget_log();
    let folder = tempfile::tempdir().unwrap();
    let certificates = certificates(folder.path(), &world.registry.host(), &Authority::new().pem);
    let patience = std::time::Duration::from_secs(1);
    let settings = RegistrySettings { certificates: certificates.clone(), patience, ..world.heard.settings() };
    let asked = Places::new(settings).source(&world.place()).unwrap().resolve(&selector());
    // It waits for a line, and says nothing to a greeting that has none.
    assert_fault(asked, FaultKind::Deadline, &["https://"]);
    assert!(world.registry.log().is_empty());
    // A file without a certificate is said by name, before anybody is asked.
    let file = certificates[0].join(world.registry.host()).join("ca.crt");
    fs::write(&file, "nothing").unwrap();
    let places = Places::new(RegistrySettings { certificates, ..world.heard.settings() });
    let words = file.display().to_string();
    assert_fault(places.source(&world.place()).unwrap().resolve(&selector()), FaultKind::Configuration, &[&words]);
    content.assert_is_in(&world.places, &world.place());
}

/// A proxy that leads every CONNECT to one address, whatever it asks for, and writes down what it was asked.
fn proxy(to: String) -> (String, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let (address, asked) = (listener.local_addr().unwrap(), Arc::new(Mutex::new(Vec::new())));
    let log = asked.clone();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let (stream, log, to) = (stream.unwrap(), log.clone(), to.clone());
            std::thread::spawn(move || {
                let mut reader = BufReader::new(stream.try_clone().unwrap());
                let mut head = String::new();
                while !head.ends_with("\r\n\r\n") && reader.read_line(&mut head).unwrap_or(0) > 0 {}
                log.lock().unwrap().push(head);
                let (mut client, mut server) = (stream, TcpStream::connect(to).unwrap());
                client.write_all(b"HTTP/1.1 200 OK\r\n\r\n").unwrap();
                let (mut back, mut answers) = (client.try_clone().unwrap(), server.try_clone().unwrap());
                std::thread::spawn(move || std::io::copy(&mut answers, &mut back));
                let _ = std::io::copy(&mut reader, &mut server);
            });
        }
    });
    (address.to_string(), asked)
}

#[test]
fn a_proxy_leads_to_hosts_beyond_this_machine_and_to_no_other() {
    let authority = Authority::new();
    let (content, world) = (Content::usual(), World::of(""));
    content.store_in(&world.store);
    let secure = Secure::start("auth".parse().unwrap(), &authority);
    let (address, asked) = proxy(secure.host.clone());
    let folder = tempfile::tempdir().unwrap();
    let settings = RegistrySettings {
        certificates: certificates(folder.path(), "registry.test", &authority.pem),
        proxy: Some(format!("http://us:er@{address}")),
        ..world.heard.settings()
    };
    let places = Places::new(settings.clone());
    // The name is known to nobody but the proxy. The registry calls itself by its own address, which is no token service of this name.
    let far = Place::Registry(repository("registry.test", "team/shop"));
    assert_fault(places.source(&far).unwrap().resolve(&selector()), FaultKind::TokenServiceElsewhere, &[&secure.host]);
    secure.registry.behave(Behaviour::default());
    places.target(&far).unwrap().publish(&content.publication(&["v1"]), &world.store).unwrap();
    content.assert_is_in(&places, &far);
    let heads = asked.lock().unwrap().clone();
    assert!(heads.iter().all(|head| head.starts_with("CONNECT registry.test:443 ")), "{heads:?}");
    assert!(heads.iter().all(|head| head.contains("dXM6ZXI=")) && !heads.is_empty());
    // This machine is asked without it.
    let before = heads.len();
    let near = World::of("");
    content.store_in(&near.store);
    places.target(&near.place()).unwrap().publish(&content.publication(&["v1"]), &near.store).unwrap();
    content.assert_is_in(&places, &near.place());
    assert_eq!(asked.lock().unwrap().len(), before);
    // What is no address of a proxy is said without its password.
    let wrong = RegistrySettings { proxy: Some("socks5://us:er@127.0.0.1".to_owned()), ..settings };
    let fault = support::fault(Places::new(wrong).source(&far).unwrap().resolve(&selector()));
    assert!(fault.kind == FaultKind::Configuration && !fault.reason.contains("er@"), "{}", fault.reason);
}

#[test]
fn an_address_that_an_answer_leads_to_is_found_by_the_proxy_but_not_in_a_nearer_network() {
    use sluicegate_testkit::Fault;
    let authority = Authority::new();
    let content = Content::usual();
    let secure = Secure::start(Behaviour::default(), &authority);
    let world = World::of("");
    content.store_in(&world.store);
    // The proxy is on this machine, nearer than whatever the registry may lead to.
    let (address, asked) = proxy(secure.host.clone());
    let folder = tempfile::tempdir().unwrap();
    certificates(folder.path(), "registry.test", &authority.pem);
    let certificates = certificates(folder.path(), "storage.test", &authority.pem);
    let settings =
        RegistrySettings { certificates, proxy: Some(format!("http://{address}")), ..world.heard.settings() };
    let far = Place::Registry(repository("registry.test", "team/shop"));
    let places = Places::new(settings);
    places.target(&far).unwrap().publish(&content.publication(&["v1"]), &world.store).unwrap();
    let layer = content.layer(0);
    let lead = |to: &str| secure.registry.behave(Behaviour::with_faults([Fault::redirect("/blobs/", to)]));
    lead("https://storage.test/x");
    // It is asked, and has no certificate of that name: so it was the proxy that led there.
    assert_fault(places.source(&far).unwrap().open(&layer).map(|_| ()), FaultKind::Unreachable, &["storage.test"]);
    assert!(asked.lock().unwrap().iter().any(|head| head.starts_with("CONNECT storage.test:443 ")));
    let before = asked.lock().unwrap().len();
    for near in [
        "https://10.0.0.1/x",
        "https://169.254.169.254/x",
        "https://127.0.0.1/x",
        "https://[::1]/x",
        "https://localhost/x",
    ] {
        lead(near);
        let opened = places.source(&far).unwrap().open(&layer).map(|_| ());
        assert_fault(opened, FaultKind::AddressRefused, &["does not lead to"]);
    }
    assert_eq!(asked.lock().unwrap().len(), before);
}

#[test]
fn a_registry_beyond_this_machine_is_asked_with_tls_alone() {
    // Behind the proxy stands one without TLS, which would answer whoever asked without it.
    let world = World::of("");
    let content = Content::usual();
    world.publish(&content).unwrap();
    let (address, asked) = proxy(world.registry.host());
    world.registry.forget_log();
    let (proxy, patience) = (Some(format!("http://{address}")), std::time::Duration::from_secs(1));
    let places = Places::new(RegistrySettings { proxy, patience, ..world.heard.settings() });
    let far = Place::Registry(repository("registry.test", "team/shop"));
    assert_fault(places.source(&far).unwrap().resolve(&selector()), FaultKind::Deadline, &["https://registry.test/"]);
    let heads = asked.lock().unwrap().clone();
    assert!(!heads.is_empty() && heads.iter().all(|head| head.starts_with("CONNECT registry.test:443 ")), "{heads:?}");
    assert!(world.registry.log().is_empty());
    // On this machine it is.
    content.assert_is_in(&places, &world.place());
}
