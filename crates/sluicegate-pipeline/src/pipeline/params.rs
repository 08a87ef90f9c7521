//! Parameters: what may be set from outside.

use std::collections::BTreeMap;

use regex::{Regex, RegexBuilder};
use sluicegate_types::{
    NameError, OutputName,
    nearest::{shortened, suggestion},
};

use super::{Param, ParamKind, Pipeline, wire::WireParam};
use crate::{Error, In, spot::Aim, yaml::Ordered};

/// Parameters of one file.
const MAX_PARAMS: usize = 256;
/// Bytes of a pattern and of a description.
const MAX_WORDS: usize = 1024;
/// Bytes of a value.
const MAX_VALUE: usize = 64 * 1024;
/// Bytes that a compiled pattern takes.
const MAX_COMPILED: usize = 1024 * 1024;

pub(super) fn params(at: &In<'_>, wire: Ordered<WireParam>) -> Result<BTreeMap<OutputName, Param>, Error> {
    if wire.0.len() > MAX_PARAMS {
        return Err(at.meaning("params", format!("more than {MAX_PARAMS}")));
    }
    let mut params: BTreeMap<OutputName, Param> = BTreeMap::new();
    for (name, wire) in wire.0 {
        let place = format!("params.{name}");
        let name: OutputName = name.parse().map_err(|e: NameError| at.name(&place, e.of("parameter name")))?;
        if let Some(other) = params.keys().find(|other| variable(other) == variable(&name)) {
            let reason = format!("{other} is the variable {} too; rename one of them", variable(&name));
            return Err(at.overlap(&place, Aim::Key, reason));
        }
        let kind = match wire.kind.as_deref() {
            None | Some("string") => ParamKind::String,
            Some("integer") => ParamKind::Integer,
            Some("boolean") => ParamKind::Boolean,
            Some(other) => {
                let hint = suggestion(other, ["string", "integer", "boolean"]);
                return Err(at.meaning(format!("{place}.type"), format!("{:?} is unknown{hint}", shortened(other))));
            }
        };
        if wire.description.as_ref().is_some_and(|text| text.len() > MAX_WORDS) {
            return Err(at.meaning(format!("{place}.description"), format!("at most {MAX_WORDS} bytes")));
        }
        if let Some(pattern) = &wire.pattern {
            whole(pattern).map_err(|reason| at.meaning(format!("{place}.pattern"), reason))?;
        }
        let param = Param { kind, pattern: wire.pattern, default: wire.default, description: wire.description };
        if let Some(default) = &param.default {
            fits(&param, default).map_err(|reason| at.meaning(format!("{place}.default"), reason))?;
        }
        params.insert(name, param);
    }
    Ok(params)
}

/// The variable that steps see a parameter as.
pub(super) fn variable(name: &OutputName) -> String {
    format!("PARAM_{}", name.as_str().to_ascii_uppercase().replace('-', "_"))
}

impl Pipeline {
    /// The variables of all parameters, with the values that were set and the defaults of the others.
    pub fn arguments(&self, set: &[(String, String)]) -> Result<BTreeMap<String, String>, Error> {
        let wrong = |name: &str, reason: String| Error::Argument { name: shortened(name), reason };
        let mut values: BTreeMap<&OutputName, &String> = BTreeMap::new();
        for (name, value) in set {
            let Some((known, param)) = self.params.iter().find(|(known, _)| known.as_str() == name) else {
                let hint = suggestion(name, self.params.keys().map(OutputName::as_str));
                let declare = if hint.contains("did you mean") { "" } else { "; declare it under params: of the file" };
                return Err(wrong(name, format!("the pipeline {} has no such parameter{hint}{declare}", self.name)));
            };
            fits(param, value).map_err(|reason| wrong(name, reason))?;
            if values.insert(known, value).is_some() {
                return Err(wrong(name, "it is set twice; set it once".to_owned()));
            }
        }
        let mut arguments = BTreeMap::new();
        for (name, param) in &self.params {
            let value = values.get(name).copied().or(param.default.as_ref()).ok_or_else(|| {
                let about = param.description.as_ref().map(|text| format!(" ({text})")).unwrap_or_default();
                wrong(name.as_str(), format!("it has no value and no default{about}; set it with --set {name}=VALUE"))
            })?;
            arguments.insert(variable(name), value.clone());
        }
        Ok(arguments)
    }
}

/// Why a value is none of a parameter's.
fn fits(param: &Param, value: &str) -> Result<(), String> {
    let shown = shortened(value);
    if value.len() > MAX_VALUE || value.contains('\0') {
        return Err(format!("a value is at most {MAX_VALUE} bytes without a zero byte"));
    }
    match param.kind {
        // One number is written in one way, so that no reader makes another number or text of it.
        ParamKind::Integer if value.parse::<i64>().ok().is_none_or(|number| number.to_string() != value) => {
            return Err(format!("{shown:?} is no integer: write digits, perhaps after a -, without leading zeros"));
        }
        ParamKind::Boolean if value != "true" && value != "false" => {
            return Err(format!("{shown:?} is neither true nor false"));
        }
        _ => {}
    }
    match &param.pattern {
        Some(pattern) if !whole(pattern)?.is_match(value) => {
            Err(format!("{shown:?} does not match {pattern:?} as a whole"))
        }
        _ => Ok(()),
    }
}

/// A pattern that takes whole values only.
fn whole(pattern: &str) -> Result<Regex, String> {
    if pattern.len() > MAX_WORDS {
        return Err(format!("a pattern is at most {MAX_WORDS} bytes"));
    }
    let compiled = |text: &str| RegexBuilder::new(text).size_limit(MAX_COMPILED).dfa_size_limit(MAX_COMPILED).build();
    // By itself first: a parenthesis too many would otherwise close the one that is put around it.
    compiled(pattern)
        .and_then(|_| compiled(&format!(r"\A(?:{pattern})\z")))
        .map_err(|error| format!("no regular expression that can be used: {}", last_line(&error.to_string())))
}

/// The library draws the pattern first; what is wrong with it is said last.
fn last_line(text: &str) -> String {
    let line = text.lines().last().unwrap_or_default();
    line.strip_prefix("error: ").unwrap_or(line).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pipeline(params: &str) -> Result<Pipeline, String> {
        let text = format!(
            "version: 1\nname: p\nparams: {params}\nsteps: {{ a: {{ run: make, image: oci:x, outputs: {{ o: /out/o }} }} }}\n\
             artifacts: {{ i: {{ base: scratch, files: {{ /o: a.o }}, repository: oci:out }} }}\n"
        );
        Pipeline::parse("p.yaml", &text).map_err(|error| error.to_string())
    }

    fn arguments(params: &str, set: &[(&str, &str)]) -> Result<Vec<(String, String)>, String> {
        let set: Vec<_> = set.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let found = pipeline(params)?.arguments(&set).map_err(|error| error.to_string())?;
        Ok(found.into_iter().collect())
    }

    #[test]
    fn values_are_set_or_the_defaults_and_never_changed() {
        let of = |name: &str, value: &str| Ok(vec![(name.to_owned(), value.to_owned())]);
        assert_eq!(arguments("{ go-version: { default: 1.20 } }", &[]), of("PARAM_GO_VERSION", "1.20"));
        for scalar in ["0755", "0x10", "1e3", "2024-01-02", "true", "1_000", "+1", ".5"] {
            assert_eq!(arguments(&format!("{{ v: {{ default: {scalar} }} }}"), &[]), of("PARAM_V", scalar));
        }
        assert_eq!(arguments("{ v: { default: a } }", &[("v", "b = c\nd")]), of("PARAM_V", "b = c\nd"));
        assert_eq!(arguments("{ v: {} }", &[("v", "")]), of("PARAM_V", ""));
        for none in ["null", "~", "Null", ""] {
            let found = arguments(&format!("{{ v: {{ default: {none} }} }}"), &[]).unwrap_err();
            assert!(found.contains("line 3, column ") && found.contains("quote it"), "{none}: {found}");
        }
        assert_eq!(arguments("{ v: { default: \"null\" } }", &[]), of("PARAM_V", "null"));
    }

    #[test]
    fn what_is_set_has_to_be_known_once_and_of_its_kind() {
        let params = "{ version: { pattern: 'v[0-9.]+', description: what is released }, count: { type: integer, default: 1 }, \
                      b: { type: boolean, default: false } }";
        let good = [("version", "v1.2"), ("count", "-7"), ("b", "true")];
        assert_eq!(arguments(params, &good).unwrap().len(), 3);
        for (set, says) in [
            (
                vec![],
                "parameter version: it has no value and no default (what is released); set it with --set version=VALUE",
            ),
            (vec![("verison", "v1")], "parameter verison: the pipeline p has no such parameter; did you mean version?"),
            (
                vec![("registry", "v1")],
                "has no such parameter; there is b, count, version; declare it under params: of the file",
            ),
            (vec![("version", "1.2")], "\"1.2\" does not match \"v[0-9.]+\" as a whole"),
            (vec![("version", "v1.2-rc")], "as a whole"),
            (vec![("version", "xv1")], "as a whole"),
            (vec![("version", "v1\n")], "as a whole"),
            (vec![("version", "v1"), ("version", "v1")], "it is set twice"),
            (vec![("version", "v1"), ("count", "1.0")], "is no integer"),
            (vec![("version", "v1"), ("count", "007")], "without leading zeros"),
            (vec![("version", "v1"), ("count", "9223372036854775808")], "is no integer"),
            (vec![("version", "v1"), ("b", "yes")], "neither true nor false"),
            (vec![("version", "v\0")], "without a zero byte"),
        ] {
            let found = arguments(params, &set).unwrap_err();
            assert!(found.contains(says), "{set:?}: {found}");
        }
        let long = "v".repeat(MAX_VALUE + 1);
        assert!(
            arguments("{ v: {} }", &[("v", &long[1..])]).is_ok() && arguments("{ v: {} }", &[("v", &long)]).is_err()
        );
    }

    #[test]
    fn a_pattern_takes_whole_values_whatever_it_does_to_what_is_around_it() {
        for (pattern, good, bad) in [
            ("a|ab", "ab", "abc"),
            ("a|b", "b", "bb"),
            ("(?x) a b # both", "", ""),
            ("(?m)^a$", "a", "a\\nb"),
            ("a)|(?:b", "", ""),
            ("(a", "", ""),
            ("(?:(?:(?:a{1000}){1000}){1000})", "", ""),
        ] {
            let with = |value: &str| {
                let text = format!("{{ v: {{ pattern: '{pattern}', default: \"{value}\" }} }}");
                pipeline(&text).map(drop)
            };
            match good {
                "" => assert!(with("a").unwrap_err().contains("no regular expression"), "{pattern}: {:?}", with("a")),
                good => assert!(with(good).is_ok() && with(bad).unwrap_err().contains("as a whole"), "{pattern}"),
            }
        }
    }
}
