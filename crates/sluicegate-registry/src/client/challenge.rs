//! `WWW-Authenticate`: what a registry wants before it answers (RFC 9110, section 11.6.1; distribution's token specification).

/// A challenge that this client can meet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Challenge {
    /// Name and password.
    Basic,
    /// A token of this service.
    Bearer {
        /// The token service's address.
        realm: String,
        /// What the registry is called there; may be empty.
        service: String,
    },
}

/// Bytes of one header.
const MAX_HEADER: usize = 8 * 1024;

/// The first challenge of these headers that this client can meet, a token before a password.
pub(crate) fn parse<'a>(headers: impl Iterator<Item = &'a str>) -> Option<Challenge> {
    let mut basic = None;
    for header in headers.filter(|header| header.len() <= MAX_HEADER) {
        for (scheme, parameters) in challenges(header) {
            if scheme.eq_ignore_ascii_case("bearer") {
                let of = |name: &str| parameters.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, v)| v);
                if let Some(realm) = of("realm") {
                    let service = of("service").cloned().unwrap_or_default();
                    return Some(Challenge::Bearer { realm: realm.clone(), service });
                }
            }
            if scheme.eq_ignore_ascii_case("basic") {
                basic = Some(Challenge::Basic);
            }
        }
    }
    basic
}

type Parameters = Vec<(String, String)>;

/// `Scheme key=value, key="value", Scheme …`. What is out of form ends the list.
fn challenges(header: &str) -> Vec<(String, Parameters)> {
    let mut out: Vec<(String, Parameters)> = Vec::new();
    let mut rest = header.trim_start_matches([' ', ',', '\t']);
    while !rest.is_empty() {
        let end = rest.find([' ', '=', ',']).unwrap_or(rest.len());
        let (word, after) = rest.split_at(end);
        if word.is_empty() {
            break;
        }
        if let Some(value) = after.strip_prefix('=') {
            let Some(last) = out.last_mut() else { break };
            let Some((value, after)) = value_of(value) else { break };
            last.1.push((word.to_owned(), value));
            rest = after;
        } else {
            out.push((word.to_owned(), Vec::new()));
            rest = after;
        }
        rest = rest.trim_start_matches([' ', ',', '\t']);
    }
    out
}

/// A token or a quoted text, and what comes behind it.
fn value_of(text: &str) -> Option<(String, &str)> {
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text.find([',', ' ']).unwrap_or(text.len());
        return Some((text[..end].to_owned(), &text[end..]));
    };
    let mut value = String::new();
    let mut characters = quoted.char_indices();
    while let Some((at, c)) = characters.next() {
        match c {
            '"' => return Some((value, &quoted[at + 1..])),
            '\\' => value.push(characters.next()?.1),
            c => value.push(c),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_challenges_of_real_registries_are_read() {
        let bearer =
            |realm: &str, service: &str| Challenge::Bearer { realm: realm.to_owned(), service: service.to_owned() };
        for (header, challenge) in [
            (
                r#"Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:a/b:pull,push""#,
                Some(bearer("https://auth.docker.io/token", "registry.docker.io")),
            ),
            ("bearer realm=https://x.example/token", Some(bearer("https://x.example/token", ""))),
            (r#"Basic realm="Registry Realm""#, Some(Challenge::Basic)),
            (r#"Basic realm="x", Bearer realm="https://x.example/t""#, Some(bearer("https://x.example/t", ""))),
            (r#"Bearer service="x""#, None),
            (r#"Negotiate"#, None),
            (r#"Bearer realm="https://x.example/t"#, None),
            ("", None),
            (",,= =", None),
        ] {
            assert_eq!(parse([header].into_iter()), challenge, "{header}");
        }
        assert_eq!(parse(["Negotiate", "Basic realm=x"].into_iter()), Some(Challenge::Basic));
        let long = format!("Basic realm={}", "x".repeat(MAX_HEADER));
        assert_eq!(parse([long.as_str()].into_iter()), None);
    }
}
