//! Builtins that are replaced by extensions of the same name, because the engine's own would make a decision impossible to
//! replay (the clock, chance, the machine, the network), or cost without a bound, or panic.
//!
//! An extension's error inside one clause of a function is dropped by the engine when another clause succeeds, so each
//! refusal is also remembered here, and the evaluation fails whatever the engine made of it.

use std::sync::{Arc, Mutex, PoisonError};

use regorus::{Engine, Value};

use crate::policy_error::PolicyError;

/// The most numbers that one `numbers.range` or `numbers.range_step` may give.
const RANGE_LIMIT: u128 = 1_000_000;

/// Name, number of arguments and the reason of each refused builtin.
const REFUSED: &[(&str, u8, &str)] = &[
    ("time.now_ns", 0, "a decision must replay: use input.now"),
    ("rand.intn", 2, "a decision must replay, so nothing in it is random"),
    ("uuid.rfc4122", 1, "a decision must replay, so nothing in it is random"),
    ("opa.runtime", 0, "a decision depends on its input and data, never on the machine"),
    ("http.send", 1, "policies reach no network: bring what they need as data"),
    ("net.lookup_ip_addr", 1, "policies reach no network: bring what they need as data"),
    ("net.cidr_expand", 1, "its result has no bound: use net.cidr_contains"),
];

/// Why `name` is refused; `None` if it is not.
pub(crate) fn refusal(name: &str) -> Option<&'static str> {
    REFUSED.iter().find(|(refused, ..)| *refused == name).map(|(_, _, reason)| *reason)
}

/// The error an extension gives to the engine, which adds the line.
#[derive(Debug, thiserror::Error)]
#[error("{name} is refused: {reason}")]
struct RefusedCall {
    name: String,
    reason: String,
}

/// What the extensions refused during an evaluation.
#[derive(Clone, Default)]
pub(crate) struct Refusals(Arc<Mutex<Option<(String, String)>>>);

impl Refusals {
    /// The first builtin that was refused and why.
    pub(crate) fn first(&self) -> Option<(String, String)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn refuse(&self, name: &str, reason: String) -> RefusedCall {
        let mut first = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        first.get_or_insert_with(|| (name.to_owned(), reason.clone()));
        RefusedCall { name: name.to_owned(), reason }
    }
}

/// Puts the extensions into `engine` and returns where their refusals are remembered.
pub(crate) fn shadow(engine: &mut Engine) -> Result<Refusals, PolicyError> {
    let refusals = Refusals::default();
    let mut add = |name: &str, arguments: u8, extension: Box<dyn regorus::Extension>| {
        engine
            .add_extension(name.to_owned(), arguments, extension)
            .map_err(|error| PolicyError::Engine { reason: format!("cannot shadow {name}: {error}") })
    };
    for &(name, arguments, reason) in REFUSED {
        let refusals = refusals.clone();
        add(name, arguments, Box::new(move |_| Err(refusals.refuse(name, reason.to_owned()).into())))?;
    }
    let ranges = refusals.clone();
    add("numbers.range", 2, Box::new(move |arguments| range("numbers.range", &arguments, 1, &ranges)))?;
    let ranges = refusals.clone();
    add(
        "numbers.range_step",
        3,
        Box::new(move |arguments| match arguments.get(2).and_then(integer) {
            Some(step) if step > 0 => range("numbers.range_step", &arguments, step, &ranges),
            _ => Ok(Value::Undefined),
        }),
    )?;
    // The engine's own panics on an empty text and counts overlapping ones.
    add(
        "strings.count",
        2,
        Box::new(|arguments| match arguments.as_slice() {
            [Value::String(text), Value::String(part)] => Ok(Value::from(text.matches(part.as_ref()).count())),
            _ => Ok(Value::Undefined),
        }),
    )?;
    Ok(refusals)
}

/// `numbers.range` as OPA defines it: from the first to the second, both included, upwards or downwards.
fn range<E: From<RefusedCall>>(name: &str, arguments: &[Value], step: i64, refusals: &Refusals) -> Result<Value, E> {
    let (Some(from), Some(to)) = (arguments.first().and_then(integer), arguments.get(1).and_then(integer)) else {
        return Ok(Value::Undefined);
    };
    let count = i128::from(from).abs_diff(i128::from(to)) / u128::from(step.unsigned_abs()) + 1;
    if count > RANGE_LIMIT {
        let reason = format!("it would give {count} numbers, the limit is {RANGE_LIMIT}");
        return Err(refusals.refuse(name, reason).into());
    }
    let signed = if from <= to { i128::from(step) } else { -i128::from(step) };
    let numbers = (0..).take(count as usize).map(|i: i128| Value::from(i128::from(from) + i * signed));
    Ok(Value::from(numbers.collect::<Vec<_>>()))
}

fn integer(value: &Value) -> Option<i64> {
    value.as_i64().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Evaluates `data.a.x` with the extensions alone, without the look at the syntax tree that comes before.
    fn evaluate(policy: &str) -> (Result<Value, String>, Option<String>) {
        let mut engine = Engine::new();
        engine.set_strict_builtin_errors(false);
        let refusals = shadow(&mut engine).unwrap();
        engine.add_policy("a.rego".into(), format!("package a\n{policy}")).unwrap();
        let value = engine.eval_rule("data.a.x".into()).map_err(|error| error.to_string());
        (value, refusals.first().map(|(name, _)| name))
    }

    #[test]
    fn every_refused_builtin_fails_the_evaluation_with_its_line() {
        for (call, name) in [
            ("time.now_ns()", "time.now_ns"),
            ("rand.intn(\"x\", 2)", "rand.intn"),
            ("uuid.rfc4122(\"x\")", "uuid.rfc4122"),
            ("opa.runtime()", "opa.runtime"),
            ("http.send({})", "http.send"),
            ("net.lookup_ip_addr(\"x\")", "net.lookup_ip_addr"),
            ("net.cidr_expand(\"10.0.0.0/8\")", "net.cidr_expand"),
        ] {
            for rule in [format!("x if {call}"), format!("x if not {call}")] {
                let (value, refused) = evaluate(&rule);
                let error = value.unwrap_err();
                assert!(error.contains("a.rego:2:") && error.contains("is refused"), "{rule}: {error}");
                assert_eq!(refused.as_deref(), Some(name));
            }
        }
        assert_eq!(evaluate("x if not 1 == 2"), (Ok(Value::from(true)), None));
    }

    #[test]
    fn a_refusal_that_the_engine_drops_is_remembered() {
        let (value, refused) = evaluate("x if f(1)\nf(1) if time.now_ns() > 0\nf(1) := true");
        assert_eq!(value, Ok(Value::from(true)), "the engine no longer drops it: the memory can go");
        assert_eq!(refused.as_deref(), Some("time.now_ns"));
    }

    #[test]
    fn ranges_are_those_of_opa() {
        for (call, numbers) in [
            ("numbers.range(1, 3)", vec![1_i64, 2, 3]),
            ("numbers.range(2, 2)", vec![2]),
            ("numbers.range(1, -1)", vec![1, 0, -1]),
            ("numbers.range_step(1, 6, 2)", vec![1, 3, 5]),
            ("numbers.range_step(6, 1, 2)", vec![6, 4, 2]),
            (
                "numbers.range_step(-9223372036854775808, 9223372036854775807, 9223372036854775807)",
                vec![i64::MIN, -1, i64::MAX - 1],
            ),
        ] {
            let numbers: Vec<_> = numbers.into_iter().map(Value::from).collect();
            assert_eq!(evaluate(&format!("x := {call}")), (Ok(Value::from(numbers)), None), "{call}");
        }
        for call in ["numbers.range(1, 2.5)", "numbers.range_step(1, 3, 0)", "numbers.range_step(1, 3, -1)"] {
            assert_eq!(evaluate(&format!("x := {call}")), (Ok(Value::Undefined), None), "{call}");
        }
    }
}
