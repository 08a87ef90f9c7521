//! Token services that are too near, answer without end, or say back what they were asked with.

use serde_json::json;
use sluicegate_ports::images::FaultKind;
use sluicegate_testkit::{Answer, Behaviour, Fault, When};

use crate::{
    held_image::{holding, resolve},
    support::{World, assert_fault, credentials, fault},
};

#[test]
fn a_token_service_elsewhere_is_no_nearer_than_the_registry() {
    // Even one that the operator named is not looked for where cloud machines find their keys.
    for (service, kind) in [("169.254.169.254", FaultKind::AddressRefused), ("127.0.0.1:1", FaultKind::Unreachable)] {
        let world = World::with(Behaviour::default(), |host, settings| {
            settings.token_services = vec![(host.to_owned(), service.to_owned())];
        });
        world.registry.behave(Behaviour::with_faults([Fault::realm_at(&format!("https://{service}/token"))]));
        assert_fault(resolve(&world), kind, &[service]);
    }
}

#[test]
fn an_answer_with_a_token_has_an_end() {
    const LIMIT: usize = 1 << 20;
    for (size, is_good) in [(LIMIT, true), (LIMIT + 1, false)] {
        let challenge = Answer::error(401, "UNAUTHORIZED")
            .header("WWW-Authenticate", r#"Bearer realm="{origin}/token",service="x""#);
        let mut token = br#"{"token":"t"}"#.to_vec();
        token.resize(size, b' ');
        let given = When::any("/token").answer(Answer::status(200).bytes(token));
        let (world, content) = holding([When::any("/manifests/").first(1).answer(challenge), given]);
        match is_good {
            true => assert_eq!(resolve(&world).unwrap().digest, content.digest()),
            false => assert_fault(resolve(&world), FaultKind::TooLarge, &["1048576"]),
        }
    }
}

#[test]
fn what_is_said_back_of_a_token_is_not_repeated() {
    let folder = tempfile::tempdir().unwrap();
    let says = |words: &str| {
        let message = format!("you sent {words}.");
        Answer::status(403).bytes(json!({"errors": [{"code": "DENIED", "message": message}]}).to_string())
    };
    // The first token of a registry, and what the token service gives tokens for.
    for (words, fault_here) in [
        ("auth", When::any("/manifests/v1").answer(says("token-1"))),
        ("auth,identity=quite-secret", When::any("/token").answer(says("quite-secret"))),
    ] {
        let world =
            World::with(Behaviour { faults: vec![fault_here], ..(words.parse().unwrap()) }, |host, settings| {
                let json = format!(r#"{{"auths":{{"{host}":{{"identitytoken":"quite-secret"}}}}}}"#);
                if words.contains("identity") {
                    settings.credentials = credentials(folder.path(), &json);
                }
            });
        let fault = fault(resolve(&world));
        assert!(fault.kind == FaultKind::Unauthorized && fault.reason.contains("you sent ***."), "{}", fault.reason);
    }
}
