//! One good bundle, and beside it the same bundle with one fault each: every fault has an error of its own.

use std::collections::BTreeSet;

use base64::{Engine, engine::general_purpose::STANDARD as BASE64};
use serde_json::{Value, json};
use sluicegate_attestation::{
    bundle::{Bundle, MAX_BUNDLE, hashedrekord_body, key_hint},
    dsse,
};
use sluicegate_ports::sign::{Signer, TransparencyLog};
use sluicegate_testkit::{VirtualLog, VirtualSigner, sign_payload, sign_statement, today};
use sluicegate_types::{Digest, UnixTime};
use sluicegate_verify::{Error, Revocation, Role, Trust, TrustError, TrustRoot, verify};

use crate::world::{LOG, about_image, changed, flipped, rule, rules, sbom, trust, trust_in, trust_of};

const ENTRY: &str = "/verificationMaterial/tlogEntries/0";

/// A bundle of `builder` at index 5 of a log of 7 entries, so that its proof has hashes on both sides.
fn good() -> (VirtualLog, Vec<u8>) {
    let log = VirtualLog::new(LOG);
    log.fill(5);
    sign_statement(&VirtualSigner::new("builder"), &log, &sbom());
    let other = VirtualSigner::new("person");
    sign_statement(&other, &log, &sbom());
    // Logged once, proved again in the grown tree.
    let bundle = sign_statement(&VirtualSigner::new("builder"), &log, &sbom());
    (log, bundle)
}

fn at(pointer: &str) -> String {
    format!("{ENTRY}/{pointer}")
}

fn edit(value: &mut Value, pointer: &str, change: impl FnOnce(&str) -> String) {
    let place = value.pointer_mut(pointer).unwrap_or_else(|| panic!("no {pointer}"));
    *place = json!(change(place.as_str().unwrap()));
}

#[test]
fn a_good_bundle_is_accepted_and_says_who_where_and_what() {
    let (log, bundle) = good();
    let verified = verify(&bundle, &trust(&log), today()).unwrap();
    assert_eq!((verified.signer(), verified.bundle()), ("builder", Digest::of(&bundle)));
    assert_eq!((verified.log().origin.as_str(), verified.log().index), (LOG, 5));
    assert_eq!(verified.key_id(), key_hint(VirtualSigner::new("builder").public_key()));
    assert!(verified.statement().is_about_image(&crate::world::image()));
    assert!(verified.is_in_role(Role::Steps) && !verified.is_in_role(Role::Records));
}

#[test]
fn the_first_entry_of_a_log_is_accepted_with_its_index_left_out_or_written() {
    let log = VirtualLog::new(LOG);
    let bundle = sign_statement(&VirtualSigner::new("builder"), &log, &sbom());
    assert_eq!(verify(&bundle, &trust(&log), today()).unwrap().log().index, 0);
    let written = changed(&bundle, |value| {
        value.pointer_mut(ENTRY).unwrap()["logIndex"] = json!("0");
        value.pointer_mut(&at("inclusionProof")).unwrap()["logIndex"] = json!("0");
    });
    assert_eq!(verify(&written, &trust(&log), today()).unwrap().log().index, 0);
}

/// What a fault must be called.
enum Is {
    Form,
    Signature,
    Unknown,
    Log,
    Disagrees(&'static str),
}

#[test]
fn each_single_fault_is_refused_by_its_own_name() {
    let (log, bundle) = good();
    let trust = trust(&log);
    let builder = VirtualSigner::new("builder");
    let (other_hint, stranger) =
        (key_hint(VirtualSigner::new("person").public_key()), key_hint(VirtualSigner::new("stranger").public_key()));
    let payload = String::from_utf8(sbom().to_payload().unwrap()).unwrap();
    let other_payload = BASE64.encode(payload.replace("shop", "mall"));
    let other_checkpoint = log.checkpoint(8, &Digest::of(b"another tree"));
    type Change<'a> = Box<dyn Fn(&mut Value) + 'a>;
    let set = |pointer: String, new: Value| -> Change<'_> {
        Box::new(move |value| {
            let (parent, key) = pointer.rsplit_once('/').unwrap();
            value.pointer_mut(parent).unwrap()[key] = new.clone();
        })
    };
    let flip = |pointer: String| -> Change<'_> { Box::new(move |value| edit(value, &pointer, flipped)) };
    let key = "/verificationMaterial/publicKey/hint".to_owned();
    let signature = "/dsseEnvelope/signatures/0/sig".to_owned();
    let faults: Vec<(&str, Is, Change<'_>)> = vec![
        ("payload changed", Is::Signature, set("/dsseEnvelope/payload".to_owned(), json!(other_payload))),
        (
            "signature flipped",
            Is::Signature,
            Box::new(|value| {
                edit(value, &signature, |text| {
                    let mut bytes = BASE64.decode(text).unwrap();
                    bytes[20] ^= 1;
                    BASE64.encode(bytes)
                });
            }),
        ),
        ("signature empty", Is::Signature, set(signature.clone(), json!(""))),
        (
            "another's signature",
            Is::Signature,
            set(signature.clone(), json!(BASE64.encode(builder.sign(b"something else").unwrap()))),
        ),
        ("unknown key", Is::Unknown, set(key.clone(), json!(stranger))),
        ("no key hint", Is::Unknown, set(key.clone(), json!(""))),
        ("hint of another signer", Is::Signature, set(key, json!(other_hint))),
        ("proof hash flipped", Is::Log, flip(at("inclusionProof/hashes/0"))),
        ("last proof hash flipped", Is::Log, flip(at("inclusionProof/hashes/2"))),
        (
            "proof hash removed",
            Is::Log,
            Box::new(|value| {
                value.pointer_mut(&at("inclusionProof/hashes")).unwrap().as_array_mut().unwrap().pop();
            }),
        ),
        (
            "proof hash added",
            Is::Log,
            Box::new(|value| {
                let hashes = value.pointer_mut(&at("inclusionProof/hashes")).unwrap().as_array_mut().unwrap();
                hashes.push(hashes[0].clone());
            }),
        ),
        ("no proof hashes", Is::Log, set(at("inclusionProof/hashes"), json!([]))),
        (
            "checkpoint's size edited",
            Is::Log,
            Box::new(|value| {
                edit(value, &at("inclusionProof/checkpoint/envelope"), |text| text.replacen("\n7\n", "\n8\n", 1));
            }),
        ),
        (
            "checkpoint's origin edited",
            Is::Log,
            Box::new(|value| {
                edit(value, &at("inclusionProof/checkpoint/envelope"), |text| text.replace(LOG, "gol.example"));
            }),
        ),
        ("checkpoint of another tree", Is::Log, set(at("inclusionProof/checkpoint/envelope"), json!(other_checkpoint))),
        ("no checkpoint", Is::Log, set(at("inclusionProof/checkpoint/envelope"), json!(""))),
        ("rootHash flipped", Is::Disagrees("rootHash"), flip(at("inclusionProof/rootHash"))),
        ("treeSize off by one", Is::Disagrees("treeSize"), set(at("inclusionProof/treeSize"), json!("8"))),
        ("treeSize zero-padded", Is::Disagrees("treeSize"), set(at("inclusionProof/treeSize"), json!("07"))),
        ("inner logIndex", Is::Disagrees("inclusionProof.logIndex"), set(at("inclusionProof/logIndex"), json!("4"))),
        (
            "inner logIndex left out",
            Is::Disagrees("inclusionProof.logIndex"),
            Box::new(|value| {
                value.pointer_mut(&at("inclusionProof")).unwrap().as_object_mut().unwrap().remove("logIndex");
            }),
        ),
        ("outer logIndex", Is::Log, set(at("logIndex"), json!("4"))),
        ("outer logIndex beyond the tree", Is::Log, set(at("logIndex"), json!("7"))),
        ("integratedTime set", Is::Disagrees("integratedTime"), set(at("integratedTime"), json!("1767312000"))),
        ("kindVersion 0.0.1", Is::Log, set(at("kindVersion/version"), json!("0.0.1"))),
        ("kind dsse", Is::Log, set(at("kindVersion/kind"), json!("dsse"))),
        (
            "logId beyond byte 4",
            Is::Log,
            Box::new(|value| {
                edit(value, &at("logId/keyId"), |text| {
                    let mut bytes = BASE64.decode(text).unwrap();
                    bytes[4] ^= 1;
                    BASE64.encode(bytes)
                });
            }),
        ),
        (
            "body with a byte more",
            Is::Log,
            Box::new(|value| {
                edit(value, &at("canonicalizedBody"), |text| {
                    BASE64.encode([BASE64.decode(text).unwrap(), b" ".to_vec()].concat())
                });
            }),
        ),
        (
            "a second log entry",
            Is::Form,
            Box::new(|value| {
                let entries = value.pointer_mut("/verificationMaterial/tlogEntries").unwrap().as_array_mut().unwrap();
                entries.push(entries[0].clone());
            }),
        ),
        ("no log entry", Is::Form, set("/verificationMaterial/tlogEntries".to_owned(), json!([]))),
        ("a certificate", Is::Form, set("/verificationMaterial/certificate".to_owned(), json!({"rawBytes": "AAAA"}))),
        (
            "a time stamp",
            Is::Form,
            set(
                "/verificationMaterial/timestampVerificationData".to_owned(),
                json!({"rfc3161Timestamps": [{"signedTimestamp": "AAAA"}]}),
            ),
        ),
        ("a promise", Is::Form, set(at("inclusionPromise"), json!({"signedEntryTimestamp": "AAAA"}))),
        (
            "a second signature",
            Is::Form,
            Box::new(|value| {
                let all = value.pointer_mut("/dsseEnvelope/signatures").unwrap().as_array_mut().unwrap();
                all.push(all[0].clone());
            }),
        ),
        ("a keyid", Is::Form, set("/dsseEnvelope/signatures/0/keyid".to_owned(), json!("builder"))),
        (
            "media type 0.2",
            Is::Form,
            set("/mediaType".to_owned(), json!("application/vnd.dev.sigstore.bundle+json;version=0.2")),
        ),
        ("another payload type", Is::Form, set("/dsseEnvelope/payloadType".to_owned(), json!("application/json"))),
        ("an unknown field", Is::Form, set("/more".to_owned(), json!(true))),
        ("an unknown field in the entry", Is::Form, set(at("more"), json!(true))),
        ("no body", Is::Log, set(at("canonicalizedBody"), json!(""))),
    ];
    assert!(verify(&changed(&bundle, |_| {}), &trust, today()).is_ok(), "written anew it is still good");
    for (name, is, change) in faults {
        let error = verify(&changed(&bundle, change), &trust, today()).map(|_| ()).expect_err(name);
        let fits = match is {
            Is::Form => matches!(error, Error::Form(_)),
            Is::Signature => matches!(error, Error::Signature { .. }),
            Is::Unknown => matches!(error, Error::UnknownSigner { .. }),
            Is::Log => matches!(error, Error::Log { .. }),
            Is::Disagrees(field) => matches!(&error, Error::Disagrees { field: found } if *found == field),
        };
        assert!(fits, "{name}: {error:?}");
    }
}

#[test]
fn a_proved_body_that_is_not_the_one_of_this_signature_is_refused() {
    let (log, bundle) = good();
    let parsed = Bundle::parse(&bundle).unwrap();
    let builder = VirtualSigner::new("builder");
    let pae = Digest::of(&dsse::pae(dsse::IN_TOTO, &parsed.payload));
    let body = hashedrekord_body(&pae, &parsed.signature, builder.public_key());
    let spaced = String::from_utf8(body.clone()).unwrap().replace("\"kind\":", "\"kind\": ").into_bytes();
    for other in [spaced, [body.clone(), b"\n".to_vec()].concat(), b"{}".to_vec()] {
        // The log proves it, and the signature is good: they just do not belong together byte for byte.
        let entry = log.append(&[other]).unwrap().remove(0);
        let bytes = Bundle::assemble(&parsed.payload, &parsed.signature, builder.public_key(), entry).unwrap();
        let error = verify(&bytes, &trust(&log), today()).map(|_| ()).unwrap_err();
        assert!(matches!(error, Error::Log { .. } | Error::Disagrees { field: "canonicalizedBody" }), "{error:?}");
    }
    let entry = log.append(&[body]).unwrap().remove(0);
    let bytes = Bundle::assemble(&parsed.payload, &parsed.signature, builder.public_key(), entry).unwrap();
    assert!(verify(&bytes, &trust(&log), today()).is_ok());
}

#[test]
fn a_log_counts_only_if_the_trusted_root_names_it() {
    let (log, bundle) = good();
    let elsewhere = VirtualLog::new("elsewhere.example");
    let other = sign_statement(&VirtualSigner::new("builder"), &elsewhere, &sbom());
    assert!(verify(&bundle, &trust(&log), today()).is_ok());
    assert!(matches!(verify(&other, &trust(&log), today()), Err(Error::Log { .. })));
    // A log of the same name with another key is another log.
    let mut root: Value = serde_json::from_slice(&elsewhere.trusted_root_json()).unwrap();
    root["tlogs"][0]["baseUrl"] = json!(format!("https://{LOG}"));
    let namesake = trust_of(rules(), vec![], &serde_json::to_vec(&root).unwrap());
    assert!(matches!(verify(&bundle, &namesake, today()), Err(Error::Log { .. })));
    // The root's own name for the log is what the checkpoint must carry.
    let mut renamed: Value = serde_json::from_slice(&log.trusted_root_json()).unwrap();
    renamed["tlogs"][0]["baseUrl"] = json!("https://renamed.example");
    let renamed = trust_of(rules(), vec![], &serde_json::to_vec(&renamed).unwrap());
    let error = verify(&bundle, &renamed, today()).map(|_| ()).unwrap_err();
    assert!(matches!(error, Error::Log { .. } | Error::Disagrees { field: "checkpoint origin" }), "{error:?}");
}

#[test]
fn a_logs_key_counts_from_its_first_to_its_last_second() {
    let (log, bundle) = good();
    let second = |seconds: i64| UnixTime::from_seconds(seconds).unwrap();
    let trust = trust_of(rules(), vec![], &log.trusted_root_json_within(second(1000), Some(second(2000))));
    for (moment, counts) in [(999, false), (1000, true), (2000, true), (2001, false)] {
        let result = verify(&bundle, &trust, second(moment)).map(|_| ());
        match result {
            Ok(()) => assert!(counts, "{moment}"),
            Err(Error::LogWindow { origin, at }) => {
                assert!(!counts && origin == LOG && at == second(moment), "{moment}")
            }
            Err(other) => panic!("{moment}: {other}"),
        }
    }
}

#[test]
fn tm13_an_untimed_log_counts_only_where_it_is_listed() {
    let (log, bundle) = good();
    let root = || TrustRoot::parse(&log.trusted_root_json()).unwrap();
    let listing = |names: &[&str]| {
        let untimed: BTreeSet<String> = names.iter().map(|name| (*name).to_owned()).collect();
        Trust::new(rules(), untimed, vec![], root()).unwrap()
    };
    assert!(verify(&bundle, &listing(&[LOG]), today()).is_ok());
    for names in [&[][..], &["elsewhere.example"]] {
        assert!(matches!(verify(&bundle, &listing(names), today()), Err(Error::Untimed { origin }) if origin == LOG));
    }
}

#[test]
fn tm14_a_revocation_spares_only_entries_below_its_index_of_its_log() {
    let (log, bundle) = good();
    let verified = |signer: &str, before: Option<(&str, u64)>| {
        let line = Revocation { signer: signer.to_owned(), before: before.map(|(log, size)| (log.to_owned(), size)) };
        verify(&bundle, &trust_of(rules(), vec![line], &log.trusted_root_json()), today()).map(|_| ())
    };
    // The bundle is at index 5.
    assert!(verified("builder", Some((LOG, 6))).is_ok());
    assert!(verified("person", None).is_ok());
    for before in [Some((LOG, 5)), Some((LOG, 0)), Some(("elsewhere.example", 6)), None] {
        let error = verified("builder", before).unwrap_err();
        assert!(matches!(&error, Error::Revoked { signer, .. } if signer == "builder"), "{before:?}: {error:?}");
    }
    let lines = [Some((LOG.to_owned(), 6)), Some((LOG.to_owned(), 3))]
        .map(|before| Revocation { signer: "builder".to_owned(), before });
    let both = trust_of(rules(), lines.to_vec(), &log.trusted_root_json());
    assert!(matches!(verify(&bundle, &both, today()), Err(Error::Revoked { .. })), "the strictest line counts");
}

#[test]
fn trust_is_refused_where_it_would_mean_something_else_than_it_says() {
    let log = VirtualLog::new(LOG);
    let root = || TrustRoot::parse(&log.trusted_root_json()).unwrap();
    let new = |rules, revoked| Trust::new(rules, BTreeSet::new(), revoked, root()).map(|_| ());
    assert!(new(rules(), vec![]).is_ok());
    assert!(matches!(new(vec![], vec![]), Err(TrustError::NoSigner)));
    let mut twin = rule("twin", &[Role::Decisions]);
    twin.public_key = VirtualSigner::new("builder").public_key().to_vec();
    let mut twins = rules();
    twins.push(twin);
    assert!(matches!(new(twins, vec![]), Err(TrustError::SameKey { .. })));
    let stranger = Revocation { signer: "stranger".to_owned(), before: None };
    assert!(
        matches!(new(rules(), vec![stranger]), Err(TrustError::RevokedStranger { signer }) if signer == "stranger")
    );
}

#[test]
fn a_trusted_root_with_more_than_logs_or_without_one_is_refused() {
    let log = VirtualLog::new(LOG);
    let good = log.trusted_root_json();
    let refused =
        |change: &dyn Fn(&mut Value)| TrustRoot::parse(&changed(&good, change)).map(|_| ()).unwrap_err().reason;
    assert_eq!(TrustRoot::parse(&good).unwrap().origins().collect::<Vec<_>>(), [LOG]);
    for unused in ["certificateAuthorities", "ctlogs"] {
        let with = changed(&good, |root| root[unused] = json!([{}]));
        assert_eq!(TrustRoot::parse(&with).unwrap().origins().collect::<Vec<_>>(), [LOG], "{unused}");
    }
    assert!(refused(&|root| root["timestampAuthorities"] = json!([{}])).contains("timestampAuthorities"));
    assert!(refused(&|root| root["tlogs"] = json!([])).contains("no log"));
    assert!(refused(&|root| root["mediaType"] = json!("application/json")).contains("not in this version"));
    assert!(refused(&|root| root["tlogs"][0]["baseUrl"] = json!("log.example")).contains("not an http address"));
    assert!(refused(&|root| root["tlogs"][0]["logId"]["keyId"] = json!("AAAA")).contains("32 bytes"));
    assert!(refused(&|root| root["more"] = json!(1)).contains("unknown field"));
    let window = |root: &mut Value| {
        root["tlogs"][0]["publicKey"].as_object_mut().unwrap().remove("validFor");
    };
    assert!(refused(&window).contains("validFor"));
    let padded = |size: usize| [good.clone(), vec![b' '; size - good.len()]].concat();
    assert!(TrustRoot::parse(&padded(4 << 20)).is_ok());
    assert!(TrustRoot::parse(&padded((4 << 20) + 1)).is_err());
}

#[test]
fn a_subject_needs_a_sha256_and_there_are_at_most_1024() {
    let log = VirtualLog::new(LOG);
    let trust = trust(&log);
    let builder = VirtualSigner::new("builder");
    let verified = |subjects: Value| {
        let mut statement: Value = serde_json::from_slice(&sbom().to_payload().unwrap()).unwrap();
        statement["subject"] = subjects;
        verify(&sign_payload(&builder, &log, &serde_json::to_vec(&statement).unwrap()), &trust, today()).map(|_| ())
    };
    let hex = Digest::of(b"x").hex();
    let many = |count: usize| json!(vec![json!({"digest": {"sha256": hex}}); count]);
    assert!(verified(many(1)).is_ok());
    assert!(verified(many(1024)).is_ok());
    for bad in [
        many(1025),
        many(0),
        json!([{"digest": {"sha512": hex.repeat(2)}}]),
        json!([{"digest": {"sha256": hex.to_uppercase()}}]),
        json!([{"digest": {"sha256": hex}}, {"digest": {}}]),
        json!([{"name": "image"}]),
    ] {
        assert!(matches!(verified(bad), Err(Error::Form(_))));
    }
}

#[test]
fn a_bundle_of_16_mebibytes_is_read_and_one_byte_more_is_not() {
    let (log, bundle) = good();
    let padded = |size: usize| [bundle.clone(), vec![b' '; size - bundle.len()]].concat();
    assert!(verify(&padded(MAX_BUNDLE), &trust(&log), today()).is_ok());
    let error = verify(&padded(MAX_BUNDLE + 1), &trust(&log), today()).map(|_| ()).unwrap_err();
    assert!(matches!(error, Error::Form(sluicegate_attestation::Error::TooLarge { .. })), "{error:?}");
}

#[test]
fn what_is_no_bundle_and_no_statement_is_refused() {
    let log = VirtualLog::new(LOG);
    let trust = trust(&log);
    for junk in [&b""[..], b"{}", b"null", b"[[[[", &[0xff; 64]] {
        assert!(matches!(verify(junk, &trust, today()), Err(Error::Form(_))));
    }
    let builder = VirtualSigner::new("builder");
    for payload in [&b""[..], b"{}", b"hello", br#"{"_type":"https://in-toto.io/Statement/v0.1"}"#] {
        let bundle = sign_payload(&builder, &log, payload);
        assert!(matches!(verify(&bundle, &trust, today()), Err(Error::Form(_))));
    }
    let twice = sbom().to_payload().unwrap();
    let twice = [&b"{\"predicateType\":\"x:y\","[..], &twice[1..]].concat();
    assert!(
        matches!(verify(&sign_payload(&builder, &log, &twice), &trust, today()), Err(Error::Form(_))),
        "a key twice"
    );
    let nested = String::from_utf8(sbom().to_payload().unwrap()).unwrap();
    let nested = nested.replace("\"specVersion\"", "\"bomFormat\":\"other\",\"specVersion\"");
    let nested = sign_payload(&builder, &log, nested.as_bytes());
    assert!(matches!(verify(&nested, &trust, today()), Err(Error::Form(_))), "a key twice in the predicate");
    let good = about_image(sbom().predicate_type, sbom().predicate);
    assert!(verify(&sign_statement(&builder, &log, &good), &trust_in(rules(), &log), today()).is_ok());
}
