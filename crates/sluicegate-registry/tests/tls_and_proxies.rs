//! Registries with a certificate authority of their own, and registries behind a proxy.

use std::{
    fs,
    net::{Ipv4Addr, TcpListener},
    path::PathBuf,
    sync::Arc,
};

use sluicegate_outbound::OutboundSettings;
use sluicegate_ports::images::{FaultKind, ImagePlaces};
use sluicegate_registry::{Places, RegistrySettings};
use sluicegate_testkit::{Behaviour, ConnectProxy, TestAuthority, TestRegistry};
use sluicegate_types::Place;

use crate::support::{Content, Heard, World, assert_fault, repository, selector};

/// An authority that vouches for this machine and for a name that only the proxy knows.
fn authority() -> TestAuthority {
    TestAuthority::of(&["127.0.0.1", "registry.test"])
}

/// A registry that speaks TLS. It ends with the test's process.
struct Secure {
    registry: Arc<TestRegistry>,
    host: String,
}

impl Secure {
    fn start(behaviour: Behaviour, authority: &TestAuthority) -> Self {
        let registry = Arc::new(TestRegistry::start(behaviour));
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let host = listener.local_addr().unwrap().to_string();
        let (served, authority, origin) = (registry.clone(), authority.clone(), format!("https://{host}"));
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (served, authority, origin) = (served.clone(), authority.clone(), origin.clone());
                std::thread::spawn(move || served.serve(authority.accept(stream.unwrap()), &origin));
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

fn trusting(certificates: Vec<PathBuf>, settings: RegistrySettings) -> RegistrySettings {
    RegistrySettings { outbound: OutboundSettings { certificates, ..settings.outbound }, ..settings }
}

fn behind(proxy: String, settings: RegistrySettings) -> RegistrySettings {
    RegistrySettings { outbound: OutboundSettings { proxy: Some(proxy), ..settings.outbound }, ..settings }
}

#[test]
fn an_authority_of_its_own_counts_for_the_host_that_it_is_for() {
    let (authority, stranger) = (authority(), authority());
    let (content, world) = (Content::usual(), World::of(""));
    content.store_in(&world.store);
    for words in ["", "auth,uses=4,absolute,no-referrers"] {
        let secure = Secure::start(words.parse().unwrap(), &authority);
        let folder = tempfile::tempdir().unwrap();
        let settings = |certificates| trusting(certificates, Heard::default().settings());
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
    let certificates = certificates(folder.path(), &world.registry.host(), &authority().pem);
    let patience = std::time::Duration::from_secs(1);
    let settings = RegistrySettings { patience, ..trusting(certificates.clone(), world.heard.settings()) };
    let asked = Places::new(settings).source(&world.place()).unwrap().resolve(&selector());
    // It waits for a line, and says nothing to a greeting that has none.
    assert_fault(asked, FaultKind::Deadline, &["https://"]);
    assert!(world.registry.log().is_empty());
    // A file without a certificate is said by name, before anybody is asked.
    let file = certificates[0].join(world.registry.host()).join("ca.crt");
    fs::write(&file, "nothing").unwrap();
    let places = Places::new(trusting(certificates, world.heard.settings()));
    let words = file.display().to_string();
    assert_fault(places.source(&world.place()).unwrap().resolve(&selector()), FaultKind::Configuration, &[&words]);
    content.assert_is_in(&world.places, &world.place());
}

#[test]
fn a_proxy_leads_to_hosts_beyond_this_machine_and_to_no_other() {
    let authority = authority();
    let (content, world) = (Content::usual(), World::of(""));
    content.store_in(&world.store);
    let secure = Secure::start("auth".parse().unwrap(), &authority);
    let proxy = ConnectProxy::to(&secure.host);
    let folder = tempfile::tempdir().unwrap();
    let certificates = certificates(folder.path(), "registry.test", &authority.pem);
    let settings = behind(format!("http://us:er@{}", proxy.host), trusting(certificates, world.heard.settings()));
    let places = Places::new(settings.clone());
    // The name is known to nobody but the proxy. The registry calls itself by its own address, which is no token service of this name.
    let far = Place::Registry(repository("registry.test", "team/shop"));
    assert_fault(places.source(&far).unwrap().resolve(&selector()), FaultKind::TokenServiceElsewhere, &[&secure.host]);
    secure.registry.behave(Behaviour::default());
    places.target(&far).unwrap().publish(&content.publication(&["v1"]), &world.store).unwrap();
    content.assert_is_in(&places, &far);
    let heads = proxy.asked();
    assert!(heads.iter().all(|head| head.starts_with("CONNECT registry.test:443 ")), "{heads:?}");
    assert!(heads.iter().all(|head| head.contains("dXM6ZXI=")) && !heads.is_empty());
    // This machine is asked without it.
    let before = heads.len();
    let near = World::of("");
    content.store_in(&near.store);
    places.target(&near.place()).unwrap().publish(&content.publication(&["v1"]), &near.store).unwrap();
    content.assert_is_in(&places, &near.place());
    assert_eq!(proxy.asked().len(), before);
    // What is no address of a proxy is said without its password.
    let wrong = behind("socks5://us:er@127.0.0.1".to_owned(), settings);
    let fault = crate::support::fault(Places::new(wrong).source(&far).unwrap().resolve(&selector()));
    assert!(fault.kind == FaultKind::Configuration && !fault.reason.contains("er@"), "{}", fault.reason);
}

#[test]
fn an_address_that_an_answer_leads_to_is_found_by_the_proxy_but_not_in_a_nearer_network() {
    use sluicegate_testkit::Fault;
    let authority = authority();
    let content = Content::usual();
    let secure = Secure::start(Behaviour::default(), &authority);
    let world = World::of("");
    content.store_in(&world.store);
    // The proxy is on this machine, nearer than whatever the registry may lead to.
    let proxy = ConnectProxy::to(&secure.host);
    let folder = tempfile::tempdir().unwrap();
    certificates(folder.path(), "registry.test", &authority.pem);
    let certificates = certificates(folder.path(), "storage.test", &authority.pem);
    let settings = behind(format!("http://{}", proxy.host), trusting(certificates, world.heard.settings()));
    let far = Place::Registry(repository("registry.test", "team/shop"));
    let places = Places::new(settings);
    places.target(&far).unwrap().publish(&content.publication(&["v1"]), &world.store).unwrap();
    let layer = content.layer(0);
    let lead = |to: &str| secure.registry.behave(Behaviour::with_faults([Fault::redirect("/blobs/", to)]));
    lead("https://storage.test/x");
    // It is asked, and has no certificate of that name: so it was the proxy that led there.
    assert_fault(places.source(&far).unwrap().open(&layer).map(|_| ()), FaultKind::Unreachable, &["storage.test"]);
    assert!(proxy.asked().iter().any(|head| head.starts_with("CONNECT storage.test:443 ")));
    let before = proxy.asked().len();
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
    assert_eq!(proxy.asked().len(), before);
}

#[test]
fn a_registry_beyond_this_machine_is_asked_with_tls_alone() {
    // Behind the proxy stands one without TLS, which would answer whoever asked without it.
    let world = World::of("");
    let content = Content::usual();
    world.publish(&content).unwrap();
    let proxy = ConnectProxy::to(&world.registry.host());
    world.registry.forget_log();
    let patience = std::time::Duration::from_secs(1);
    let settings = behind(format!("http://{}", proxy.host), world.heard.settings());
    let places = Places::new(RegistrySettings { patience, ..settings });
    let far = Place::Registry(repository("registry.test", "team/shop"));
    assert_fault(places.source(&far).unwrap().resolve(&selector()), FaultKind::Deadline, &["https://registry.test/"]);
    let heads = proxy.asked();
    assert!(!heads.is_empty() && heads.iter().all(|head| head.starts_with("CONNECT registry.test:443 ")), "{heads:?}");
    assert!(world.registry.log().is_empty());
    // On this machine it is.
    content.assert_is_in(&places, &world.place());
}
