//! Who a machine says it is: files and helpers that are there, that are not, and that do not work.

use std::{fs, os::unix::fs::PermissionsExt, path::Path, time::Duration};

use sluicegate_ports::images::FaultKind;
use sluicegate_testkit::{Answer, Behaviour, When};
use sluicegate_types::Selector;

use crate::support::{Content, World, assert_fault, credentials, selector};

fn helper(folder: &Path, name: &str, script: &str) {
    let path = folder.join(format!("docker-credential-{name}"));
    // Written elsewhere and moved, as a file that is open for writing can't be started.
    let draft = folder.join("draft");
    fs::write(&draft, format!("#!/bin/sh\n{script}\n")).unwrap();
    fs::set_permissions(&draft, fs::Permissions::from_mode(0o755)).unwrap();
    fs::rename(&draft, &path).unwrap();
}

fn world(words: &str, folder: &Path, json: &str) -> World {
    World::with(words.parse().unwrap(), |host, settings| {
        settings.credentials = credentials(folder, &json.replace("HOST", host));
        settings.programs = vec![folder.to_owned()];
        settings.patience = Duration::from_secs(2);
    })
}

#[test]
fn ex_29_a_helper_that_cannot_be_asked_stops_no_public_image() {
    let content = Content::usual();
    for (name, script) in [
        ("not-installed", None),
        ("not-found", Some("echo not found; exit 1")),
        ("nothing-known", Some("echo credentials not found in native keychain; exit 1")),
        ("garbage", Some("echo '<html>'")),
        ("hangs", Some("exec sleep 600")),
    ] {
        let folder = tempfile::tempdir().unwrap();
        if let Some(script) = script {
            helper(folder.path(), name, script);
        }
        let json = format!(r#"{{"credsStore": "{name}"}}"#);
        let program = format!("docker-credential-{name}");
        let public = world("", folder.path(), &json);
        public.publish(&content).unwrap();
        content.assert_is_in(&public.places, &public.place());
        let warned = public.heard.warned();
        assert!(warned.contains(&program) && warned.contains("config.json"), "{warned}");
        assert_eq!(warned.lines().count(), 1, "{warned}");
        // A token service that wants nobody, too.
        let public = world("auth,anonymous-pull", folder.path(), &json);
        public.publish(&content).unwrap();
        // And one that wants somebody.
        for words in ["auth,user=me:word", "basic,user=me:word"] {
            let private = world(words, folder.path(), &json);
            let asked = private.source().resolve(&selector());
            assert_fault(asked, FaultKind::Unauthorized, &[&program, "config.json", &private.registry.host()]);
        }
    }
}

#[test]
fn ex_29_the_same_helper_that_works() {
    let content = Content::usual();
    for words in ["auth,user=me:word", "basic,user=me:word", ""] {
        for json in
            [r#"{"credsStore": "works"}"#, r#"{"credHelpers": {"HOST": "works"}, "credsStore": "not-installed"}"#]
        {
            let folder = tempfile::tempdir().unwrap();
            helper(folder.path(), "works", r#"read host; echo "{\"Username\":\"me\",\"Secret\":\"word\"}""#);
            let world = world(words, folder.path(), json);
            world.publish(&content).unwrap();
            content.assert_is_in(&world.places, &world.place());
            assert_eq!(world.heard.warned(), "");
        }
    }
}

#[test]
fn a_registry_may_want_a_password_here_and_a_token_there() {
    let content = Content::usual();
    let folder = tempfile::tempdir().unwrap();
    let json = r#"{"auths": {"HOST": {"username":"me","password":"word"}}}"#;
    let world = world("auth,user=me:word", folder.path(), json);
    let basic = Answer::error(401, "UNAUTHORIZED").header("WWW-Authenticate", r#"Basic realm="here""#);
    let faults = vec![When::any("/blobs/").first(2).before_auth().answer(basic)];
    world.registry.behave(Behaviour { faults, ..("auth,user=me:word".parse().unwrap()) });
    world.publish(&content).unwrap();
    content.assert_is_in(&world.places, &world.place());
    // One that wants the other each time is left alone.
    let wants = |had: &str, challenge: &str| {
        let answer = Answer::error(401, "UNAUTHORIZED").header("WWW-Authenticate", challenge);
        When::any("/v2/").with_header("authorization", had).before_auth().answer(answer)
    };
    let bearer = r#"Bearer realm="{origin}/token",service="x""#;
    let faults = vec![wants("Basic", bearer), wants("Bearer", "Basic realm=x")];
    world.registry.behave(Behaviour { faults, ..("auth,user=me:word".parse().unwrap()) });
    world.registry.forget_log();
    assert_fault(world.source().resolve(&selector()), FaultKind::Unauthorized, &[&world.registry.host()]);
    assert!(world.registry.log().len() <= 10, "{}", world.registry.log().len());
}

#[test]
fn ex_29_a_file_that_is_broken_or_empty_is_said_or_passed_over() {
    let content = Content::usual();
    let folder = tempfile::tempdir().unwrap();
    for broken in ["{", "[]", "", r#"{"auths": 7}"#, r#"{"auths": {"HOST": {"auth": "bm8="}}}"#] {
        let world = world("", folder.path(), broken);
        assert_fault(world.publish(&content), FaultKind::Configuration, &["config.json"]);
        assert!(world.registry.log().iter().all(|one| one.path_and_query == "/v2/"), "{broken}");
    }
    for empty in
        ["{}", r#"{"auths": {"HOST": {}}}"#, r#"{"auths": {"HOST": {"auth": ""}}}"#, r#"{"auths": {"HOST": null}}"#]
    {
        let world = world("", folder.path(), empty);
        world.publish(&content).unwrap();
        assert_eq!(world.heard.warned(), "", "{empty}");
    }
}

#[test]
fn neg_credentials_go_to_the_host_that_they_are_for() {
    let content = Content::usual();
    let folder = tempfile::tempdir().unwrap();
    // The same machine at another port, by another name, below a path: all of them are others.
    for key in [
        "127.0.0.1",
        "localhost",
        "127.0.0.1:1",
        "https://HOST.example",
        "HOST/team",
        "https://HOST/team/shop",
        "x.HOST",
    ] {
        let json = format!(r#"{{"auths": {{"{key}": {{"username":"me","password":"word"}}}}}}"#);
        let private = world("basic,user=me:word", folder.path(), &json);
        assert_fault(private.publish(&content), FaultKind::Unauthorized, &["none is known"]);
        assert!(private.registry.log().iter().all(|one| !one.had_authorization), "{key}");
    }
    for key in ["HOST", "https://HOST", "http://HOST/v2/", "https://HOST/v1/"] {
        let json = format!(r#"{{"auths": {{"{key}": {{"username":"me","password":"word"}}}}}}"#);
        world("basic,user=me:word", folder.path(), &json).publish(&content).unwrap();
    }
    // A wrong password is tried once, for each question.
    let json = r#"{"auths": {"HOST": {"username":"me","password":"wrong"}}}"#;
    for words in ["basic,user=me:word", "auth,user=me:word"] {
        let private = world(words, folder.path(), json);
        let asked = private.source().resolve(&Selector::Tag("v1".parse().unwrap()));
        assert_fault(asked, FaultKind::Unauthorized, &[&private.registry.host()]);
        assert_eq!(private.registry.log().iter().filter(|one| one.had_authorization).count(), 1, "{words}");
    }
}
