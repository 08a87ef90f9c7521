use sluicegate_ports::execute::{Account, ExecuteError, StepExecutor, StepRequest};

use crate::{content::raw_entry, fixture::*};

const PASSWD: &str = "root:x:0:0::/root:/bin/sh\napp:x:1000:1000::/home/app:/bin/sh\n";
const GROUP: &str = "root:x:0:\napp:x:1000:\nextra:x:2000:app\n";

fn as_user(user: &str, script: &str) -> StepRequest {
    let mut request = sh(script);
    request.layers.push(layer_of(&[("etc/group", GROUP), ("etc/passwd", PASSWD), ("home/app/.profile", "")]));
    request.user = user.to_owned();
    request
}

fn account(request: &StepRequest) -> Result<Account, ExecuteError> {
    fixture().executor.account(&request.step, &request.layers, &request.user, &request.stop)
}

/// What a program can do with its streams, whoever runs it.
const STREAMS: &str = "id -u; id -G; echo to-stdout > /dev/stdout; echo to-stderr > /dev/stderr; echo tee | tee /dev/stderr; \
                       echo fd > /proc/self/fd/1; read line && echo \"stdin gave: $line\" || echo stdin-is-empty";
const SAID: &str = "to-stdout\nto-stderr\ntee\ntee\nfd\nstdin-is-empty\n";

#[test]
fn ex19_a_named_user_has_its_groups_its_home_and_its_streams() {
    let request = as_user("app", STREAMS);
    assert_eq!(log_of(&request), format!("1000\n1000 2000\n{SAID}"));
    let expected = Account { uid: 1000, gid: 1000, groups: vec![2000], home: "/home/app".to_owned() };
    assert_eq!(account(&request).unwrap(), expected);
    assert_eq!(account(&as_user("1000", "")).unwrap(), expected);
    assert_eq!(log_of(&as_user("app:extra", "id -u; id -G")), "1000\n2000\n");
}

#[test]
fn ex19_a_number_that_no_file_knows_has_group_0_a_home_that_exists_and_its_streams() {
    let request = as_user("12345", STREAMS);
    assert_eq!(log_of(&request), format!("12345\n0\n{SAID}"));
    let found = account(&request).unwrap();
    assert_eq!(found, Account { uid: 12345, gid: 0, groups: vec![], home: "/".to_owned() });
    // An image without either file.
    let mut bare = sh("id -u; id -G");
    bare.user = "12345".into();
    assert_eq!(log_of(&bare), "12345\n0\n");
    assert_eq!(account(&bare).unwrap(), found);
}

#[test]
fn a_user_that_the_image_does_not_have_is_refused_by_name() {
    for (user, word) in [
        ("nobody", "no user \"nobody\""),
        ("app:nobody", "no group \"nobody\""),
        ("2147483648", "id 2147483648"),
        ("0:4294967295", "id 4294967295"),
    ] {
        let request = as_user(user, "true");
        for error in [refused(&request), account(&request).unwrap_err()] {
            assert!(matches!(&error, ExecuteError::Refused { reason, .. } if reason.contains(word)), "{error}");
        }
    }
    assert_eq!(log_of(&as_user("app", "true")), "");
}

#[test]
fn the_topmost_layer_says_who_a_user_is() {
    let mut request = as_user("app", "id -u");
    request.layers.push(layer_of(&[("etc/passwd", "app:x:1234:5::/srv:\n")]));
    assert_eq!(log_of(&request), "1234\n");
    let mut removal = raw_entry("etc/.wh.passwd", tar::EntryType::Regular, "");
    removal.extend([0; 1024]);
    request.layers.push(plain_layer(&fixture().store, &removal));
    assert!(refused(&request).to_string().contains("no user \"app\""));
}
