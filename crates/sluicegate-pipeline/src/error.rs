//! Why a file is refused.

use sluicegate_types::{
    OutputName, StepName,
    nearest::{MAX_LISTED, MAX_WORD, shortened, suggestion},
};

use crate::{
    spot::{Aim, Spot, harmless},
    yaml::Given,
};

/// Why a file, or what is set beside it, is refused. What it says is one line, and where a line of the file is known, that line and a
/// caret below it.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Not YAML of the expected shape: an unknown key, a key twice, a missing key, another type, or what two
    /// readers of YAML understand differently, such as an unquoted yes.
    #[error("{spot}{reason}{}", .spot.excerpt())]
    Syntax {
        /// Where.
        spot: Spot,
        /// What is wrong there.
        reason: String,
    },
    /// Part of the contract that is not built yet.
    #[error("{spot}{what}: not in this version{hint}{}", .spot.excerpt())]
    NotInThisVersion {
        /// Where.
        spot: Spot,
        /// Which key, with its place.
        what: String,
        /// What to do instead, after a semicolon; may be empty.
        hint: String,
    },
    /// Well-formed, and contradictory or out of bounds.
    #[error("{spot}{what}: {reason}{}", .spot.excerpt())]
    Meaning {
        /// Where.
        spot: Spot,
        /// The keys that lead there.
        what: String,
        /// What is wrong.
        reason: String,
    },
    /// A name that nothing has.
    #[error("{spot}{what}: no {kind} is called {name}{hint}{}", .spot.excerpt())]
    Unknown {
        /// Where.
        spot: Spot,
        /// The keys that lead there.
        what: String,
        /// What kind of thing it names.
        kind: &'static str,
        /// The name.
        name: String,
        /// What may be meant, after a semicolon.
        hint: String,
    },
    /// A step that somebody asked for and the pipeline has not.
    #[error("no step is called {name}{hint}")]
    NoStep {
        /// The name.
        name: String,
        /// What may be meant, after a semicolon.
        hint: String,
    },
    /// A step where one of its outputs is meant.
    #[error("{spot}{what}: {step} is a step{}{}", its_outputs(.step, .outputs), .spot.excerpt())]
    StepForOutput {
        /// Where.
        spot: Spot,
        /// The keys that lead there.
        what: String,
        /// The step.
        step: String,
        /// What it leaves, by name.
        outputs: Vec<String>,
    },
    /// An output that its step has not.
    #[error("{spot}{what}: the step {step} has no output {output}{hint}{}", .spot.excerpt())]
    NoOutput {
        /// Where.
        spot: Spot,
        /// The keys that lead there.
        what: String,
        /// The step.
        step: StepName,
        /// The output.
        output: OutputName,
        /// What it has, after a semicolon.
        hint: String,
    },
    /// Nothing to do, so that nothing could be wrong with it.
    #[error("{spot}steps: there is none, and a run of nothing would pass; write one: {{ build: {{ run: make }} }}{}", .spot.excerpt())]
    NoSteps {
        /// Where steps would stand.
        spot: Spot,
    },
    /// Steps that wait for each other.
    #[error("{spot}steps: these wait for each other: {}{}", chain(.steps), .spot.excerpt())]
    Cycle {
        /// Where the first of them is.
        spot: Spot,
        /// Each waits for the next one, and the last for the first.
        steps: Vec<StepName>,
    },
    /// Two things at one place, or one inside the other.
    #[error("{spot}{what}: {reason}{}", .spot.excerpt())]
    Overlap {
        /// Where the second one stands.
        spot: Spot,
        /// The keys that lead there.
        what: String,
        /// Which two.
        reason: String,
    },
    /// A path that leads out of where it has to stay.
    #[error("{spot}{what}: {reason}{}", .spot.excerpt())]
    Escapes {
        /// Where.
        spot: Spot,
        /// The keys that lead there.
        what: String,
        /// Where it has to stay.
        reason: String,
    },
    /// A value that is set for a parameter, or one that is missing.
    #[error("parameter {name}: {reason}")]
    Argument {
        /// The parameter's name, as it was given.
        name: String,
        /// What is wrong.
        reason: String,
    },
}

fn chain(steps: &[StepName]) -> String {
    let names: Vec<&str> = steps.iter().chain(steps.first()).map(StepName::as_str).collect();
    names.join(" -> ")
}

fn its_outputs(step: &str, outputs: &[String]) -> String {
    match outputs {
        [] => " without outputs: name what it leaves under its outputs:".to_owned(),
        [one] => format!(": write {step}.{one}"),
        several if several.len() <= MAX_LISTED => {
            format!(": write {step}.OUTPUT; its outputs are {}", several.join(", "))
        }
        many => format!(": write {step}.OUTPUT; it has {} of them", many.len()),
    }
}

/// Makes errors about one file.
///
/// Places are written as the keys that lead there, `steps.build.needs[1]`; errors are looked up by all of it and say it without the
/// numbers, which nobody counts where a line is named.
#[derive(Clone, Copy)]
pub(crate) struct In<'a> {
    pub(crate) file: &'a str,
    pub(crate) text: &'a str,
}

impl In<'_> {
    /// A value is wrong.
    pub(crate) fn meaning(&self, place: impl AsRef<str>, reason: impl ToString) -> Error {
        self.meaning_at(&place, &place, reason)
    }

    /// A value is wrong, and may hold what is not to be shown.
    pub(crate) fn meaning_unshown(&self, place: impl AsRef<str>, reason: impl ToString) -> Error {
        Error::Meaning { spot: self.value(&place).unshown(), what: said_as(place), reason: reason.to_string() }
    }

    /// A value is wrong, and its place is told in other words than those that lead there.
    pub(crate) fn meaning_at(&self, place: impl AsRef<str>, said: impl AsRef<str>, reason: impl ToString) -> Error {
        Error::Meaning { spot: self.value(place), what: said_as(said), reason: reason.to_string() }
    }

    /// A key is wrong.
    pub(crate) fn name(&self, place: impl AsRef<str>, reason: impl ToString) -> Error {
        Error::Meaning { spot: self.key(&place), what: said_as(place), reason: reason.to_string() }
    }

    /// A value names what nothing is called.
    pub(crate) fn unknown<'a>(
        &self,
        place: impl AsRef<str>,
        kind: &'static str,
        name: &str,
        known: impl IntoIterator<Item = &'a str>,
    ) -> Error {
        let hint = suggestion(name, known);
        Error::Unknown { spot: self.value(&place), what: said_as(place), kind, name: plain(name), hint }
    }

    /// A key names a place that is taken.
    pub(crate) fn overlap(&self, place: impl AsRef<str>, aim: Aim, reason: impl ToString) -> Error {
        let spot = Spot::of(self.file, self.text, place.as_ref(), aim);
        Error::Overlap { spot, what: said_as(place), reason: reason.to_string() }
    }

    /// A path leads out.
    pub(crate) fn escapes(&self, place: impl AsRef<str>, reason: impl ToString) -> Error {
        Error::Escapes { spot: self.value(&place), what: said_as(place), reason: reason.to_string() }
    }

    /// A value names a step, and an output of it is meant.
    pub(crate) fn step_for_output<'a>(
        &self,
        place: impl AsRef<str>,
        step: &str,
        outputs: impl IntoIterator<Item = &'a str>,
    ) -> Error {
        let outputs = outputs.into_iter().map(plain).collect();
        Error::StepForOutput { spot: self.value(&place), what: said_as(place), step: plain(step), outputs }
    }

    /// A value names an output that its step has not.
    pub(crate) fn no_output<'a>(
        &self,
        place: impl AsRef<str>,
        (step, output): (&StepName, &OutputName),
        outputs: impl IntoIterator<Item = &'a OutputName>,
    ) -> Error {
        let hint = suggestion(output.as_str(), outputs.into_iter().map(OutputName::as_str));
        Error::NoOutput {
            spot: self.value(&place),
            what: said_as(place),
            step: step.clone(),
            output: output.clone(),
            hint,
        }
    }

    pub(crate) fn no_steps(&self) -> Error {
        Error::NoSteps { spot: self.key("steps") }
    }

    pub(crate) fn cycle(&self, steps: Vec<StepName>) -> Error {
        let first = steps.first().map(|step| format!("steps.{step}")).unwrap_or_default();
        Error::Cycle { spot: self.value(first), steps }
    }

    pub(crate) fn later(&self, place: impl AsRef<str>) -> Error {
        Error::NotInThisVersion { spot: self.key(&place), what: said_as(place), hint: String::new() }
    }

    /// The same, where the value is what this version hasn't. `said` stands after the place.
    pub(crate) fn later_value(&self, place: impl AsRef<str>, said: &str, hint: &str) -> Error {
        let what = if said.is_empty() { said_as(&place) } else { format!("{}: {}", said_as(&place), plain(said)) };
        Error::NotInThisVersion { spot: self.value(place), what, hint: format!("; {hint}") }
    }

    /// Refuses `key` if it is present.
    pub(crate) fn absent(&self, place: &str, key: &str, value: Given) -> Result<(), Error> {
        let whole = || if place.is_empty() { key.to_owned() } else { format!("{place}.{key}") };
        if value.0 { Err(self.later(whole())) } else { Ok(()) }
    }

    pub(crate) fn version(&self, version: u32) -> Result<(), Error> {
        if version == 1 { Ok(()) } else { Err(self.later_value("version", &version.to_string(), "write version: 1")) }
    }

    /// Where an entry of a list begins, which is looked at later.
    pub(crate) fn entry(&self, place: &str) -> Spot {
        self.key(place)
    }

    fn value(&self, place: impl AsRef<str>) -> Spot {
        Spot::of(self.file, self.text, place.as_ref(), Aim::Value)
    }

    fn key(&self, place: impl AsRef<str>) -> Spot {
        Spot::of(self.file, self.text, place.as_ref(), Aim::Key)
    }
}

/// Characters of a place that an error repeats.
const MAX_PLACE: usize = 4 * MAX_WORD;

/// A place without the numbers of list entries, short and harmless.
pub(crate) fn said_as(place: impl AsRef<str>) -> String {
    let place = place.as_ref();
    let mut said = String::new();
    let mut rest = place;
    while let Some((before, after)) = rest.split_once('[') {
        said.push_str(before);
        match after.split_once(']') {
            Some((number, after)) if !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit()) => {
                rest = after;
            }
            _ => {
                said.push('[');
                rest = after;
            }
        }
    }
    said.push_str(rest);
    said.chars().take(MAX_PLACE).map(harmless).collect()
}

fn plain(word: &str) -> String {
    shortened(word).chars().map(harmless).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_said_without_numbers_shortly_and_harmlessly() {
        assert_eq!(said_as("steps.test.needs[3]"), "steps.test.needs");
        assert_eq!(said_as("a[b].c[1].d["), "a[b].c.d[");
        assert_eq!(said_as("files./a\u{1b}[31m\n"), "files./a\u{fffd}[31m\u{fffd}");
        assert_eq!(said_as("x".repeat(9000)).len(), MAX_PLACE);
    }
}
