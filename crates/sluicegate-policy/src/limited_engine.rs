//! The engine with every limit set: what it is given is counted, checked and bounded, and whatever it makes of that comes back
//! as a value or an error.

use std::{
    collections::{BTreeMap, BTreeSet},
    num::{NonZeroU32, NonZeroUsize},
    thread,
    time::{Duration, Instant},
};

use regorus::{
    Engine, Value,
    unstable::{Module, Ref},
    utils::limits::{ExecutionTimerConfig, PolicyLengthConfig},
};

use crate::{
    builtins, call_graph, data_documents,
    definedness::{self, Rewritten},
    expression_length,
    policy_error::{Place, PolicyError},
    rego::{EvaluationLimits, SourceFile},
    rego_tests::FileCoverage,
    shadowed_builtins,
    shadowed_builtins::Refusals,
};

/// Work units between two looks at the clock; one unit is about a microsecond.
const CLOCK_INTERVAL: NonZeroU32 = NonZeroU32::MIN.saturating_add(63);

/// Bytes of address space for the stack; only what is used becomes memory. A level of expressions takes up to 20 KiB unoptimised.
const STACK_BYTES: usize = 64 << 20;

/// Files that were parsed and checked, with the engine that can evaluate them.
pub(crate) struct LimitedEngine {
    engine: Engine,
    /// The files as they were written.
    modules: Vec<Ref<Module>>,
    /// Those that the engine has in another form.
    lines: BTreeMap<String, Rewritten>,
    refusals: Refusals,
    input: Value,
    printed: Vec<String>,
}

impl LimitedEngine {
    /// Parses `files` and refuses what must not be evaluated.
    pub(crate) fn new(files: &[&SourceFile], limits: &EvaluationLimits) -> Result<Self, PolicyError> {
        let engine = Self::parse(files, limits)?;
        call_graph::check(&engine.modules)?;
        Ok(engine)
    }

    /// Parses `files`, which are looked at and not evaluated.
    pub(crate) fn parse(files: &[&SourceFile], limits: &EvaluationLimits) -> Result<Self, PolicyError> {
        within("policy files", files.len() as u64, limits.files)?;
        let mut names: Vec<_> = files.iter().map(|file| file.name.as_str()).collect();
        names.sort_unstable();
        if let Some(pair) = names.windows(2).find(|pair| pair[0] == pair[1]) {
            return Err(PolicyError::SameName { name: pair[0].to_owned() });
        }
        let (mut engine, mut refusals) = Self::engine(limits)?;
        for file in files {
            within(&format!("bytes of {}", file.name), file.text.len() as u64, limits.policy_bytes)?;
            expression_length::check(&file.name, &file.text)?;
            add(&mut engine, &file.name, file.text.clone())?;
        }
        let modules = engine.get_modules().clone();
        let rewritten =
            files.iter().zip(&modules).map(|(file, module)| definedness::rewrite(&file.name, &file.text, module));
        let rewritten = rewritten.collect::<Result<Vec<_>, _>>()?;
        let mut lines = BTreeMap::new();
        if rewritten.iter().any(Option::is_some) {
            (engine, refusals) = Self::engine(limits)?;
            for (file, rewritten) in files.iter().zip(rewritten) {
                match rewritten {
                    Some(rewritten) => {
                        add(&mut engine, &file.name, rewritten.text.clone())?;
                        lines.insert(file.name.clone(), rewritten);
                    }
                    None => add(&mut engine, &file.name, file.text.clone())?,
                }
            }
        }
        Ok(Self { engine, modules, lines, refusals, input: Value::Undefined, printed: Vec::new() })
    }

    /// One that knows no file yet.
    fn engine(limits: &EvaluationLimits) -> Result<(Engine, Refusals), PolicyError> {
        let mut engine = Engine::new();
        // OPA's meaning of a failing builtin is undefined. Otherwise one file would say different things here and there.
        engine.set_strict_builtin_errors(false);
        // Prints would otherwise go to standard error.
        engine.set_gather_prints(true);
        let bytes = usize::try_from(limits.policy_bytes).ok().and_then(NonZeroUsize::new).unwrap_or(NonZeroUsize::MIN);
        engine.set_policy_length_config(PolicyLengthConfig {
            max_col: u32::try_from(limits.policy_bytes).ok().and_then(NonZeroU32::new).unwrap_or(NonZeroU32::MAX),
            max_file_bytes: bytes,
            max_lines: bytes,
        });
        engine.set_execution_timer_config(ExecutionTimerConfig {
            limit: Duration::from_millis(limits.milliseconds),
            check_interval: CLOCK_INTERVAL,
        });
        let refusals = shadowed_builtins::shadow(&mut engine)?;
        builtins::add(&mut engine)?;
        Ok((engine, refusals))
    }

    /// Everything in the files that must not be evaluated.
    pub(crate) fn unfit_calls(&self) -> Vec<PolicyError> {
        call_graph::check_all(&self.modules)
    }

    /// The syntax trees, in the order of the files.
    pub(crate) fn modules(&self) -> &[Ref<Module>] {
        &self.modules
    }

    /// Merges `documents` into `data`.
    pub(crate) fn set_data(&mut self, documents: &[SourceFile], limits: &EvaluationLimits) -> Result<(), PolicyError> {
        within("data files", documents.len() as u64, limits.files)?;
        let bytes = documents.iter().map(|document| document.text.len() as u64).sum();
        within("bytes of data documents", bytes, limits.data_bytes)?;
        let packages: Vec<_> =
            self.modules.iter().map(|module| call_graph::static_path(&module.package.refr)).collect();
        let data = data_documents::merge(documents, &packages)?;
        self.engine.add_data(Value::from(data)).map_err(|error| PolicyError::Engine { reason: error.to_string() })
    }

    /// The text of a JSON object as a value.
    pub(crate) fn read_input(input: &str, limits: &EvaluationLimits) -> Result<Value, PolicyError> {
        within("bytes of input", input.len() as u64, limits.input_bytes)?;
        data_documents::within_parts("the input", input)?;
        let input = Value::from_json_str(input).map_err(|error| PolicyError::Input { reason: error.to_string() })?;
        if input.as_object().is_err() {
            return Err(PolicyError::Input { reason: "it is not a JSON object".to_owned() });
        }
        Ok(input)
    }

    /// Sets `input`.
    pub(crate) fn take_input(&mut self, input: Value) {
        self.engine.set_input(input.clone());
        self.input = input;
    }

    /// Sets `input`, the text of a JSON object.
    pub(crate) fn set_input(&mut self, input: &str, limits: &EvaluationLimits) -> Result<(), PolicyError> {
        self.take_input(Self::read_input(input, limits)?);
        Ok(())
    }

    /// What the last question printed, with the place of each.
    pub(crate) fn take_printed(&mut self) -> Vec<String> {
        std::mem::take(&mut self.printed)
    }

    /// Notes from now on which lines are reached.
    pub(crate) fn watch_coverage(&mut self) {
        self.engine.set_enable_coverage(true);
    }

    /// Which lines were reached since.
    pub(crate) fn coverage(&self) -> Result<Vec<FileCoverage>, PolicyError> {
        let report = self.engine.get_coverage_report();
        let report = report.map_err(|error| PolicyError::Engine { reason: error.to_string() })?;
        let of_file = |file: regorus::coverage::File| {
            let rewritten = self.lines.get(&file.path);
            let original = |line| rewritten.map_or(line, |rewritten| rewritten.original_line(line));
            let covered: BTreeSet<_> = file.covered.into_iter().map(original).collect();
            let uncovered = file.not_covered.into_iter().map(original).filter(|line| !covered.contains(line));
            FileCoverage { uncovered: uncovered.collect(), covered: covered.into_iter().collect(), file: file.path }
        };
        Ok(report.files.into_iter().map(of_file).collect())
    }

    /// Whether a JSON pointer leads to something in `input`; null is nothing.
    pub(crate) fn input_has(&self, pointer: &str) -> bool {
        let parts = pointer.split('/').skip(1).map(|part| part.replace("~1", "/").replace("~0", "~"));
        let mut at = self.input.clone();
        for part in parts {
            at = match &at {
                Value::Array(_) => part.parse::<usize>().map_or(Value::Undefined, |number| at[number].clone()),
                _ => at[part.as_str()].clone(),
            };
        }
        !matches!(at, Value::Undefined | Value::Null)
    }

    /// The value of the one expression `query`; `None` if it is undefined.
    pub(crate) fn ask(&mut self, query: &str, limits: &EvaluationLimits) -> Result<Option<Value>, PolicyError> {
        let results = self.answered(query, limits)?;
        let expression = results.result.into_iter().next().and_then(|result| result.expressions.into_iter().next());
        Ok(expression.map(|expression| expression.value).filter(|value| *value != Value::Undefined))
    }

    fn evaluation_error(&self, text: &str) -> PolicyError {
        PolicyError::from_engine(text, |place, reason| {
            let line = u32::try_from(place.line).unwrap_or(u32::MAX);
            let line = self.lines.get(&place.file).map_or(place.line, |file| file.original_line(line).into());
            PolicyError::Evaluation { place: Place { line, ..place }, reason }
        })
    }

    fn answered(&mut self, query: &str, limits: &EvaluationLimits) -> Result<regorus::QueryResults, PolicyError> {
        let timed_out = PolicyError::TimedOut { milliseconds: limits.milliseconds };
        let started = Instant::now();
        let answer = self.engine.eval_query(query.to_owned(), false);
        let elapsed = started.elapsed();
        self.printed = self.engine.take_prints().unwrap_or_default();
        let answer = answer.map_err(|error| error.to_string());
        if let Some((builtin, reason)) = self.refusals.first() {
            // The engine may have dropped the error with its line; the name is still known.
            let place = answer.err().and_then(|text| match self.evaluation_error(&text) {
                PolicyError::Evaluation { place, .. } => Some(place),
                _ => None,
            });
            let somewhere = Place { file: "the policies".to_owned(), line: 0, column: 0 };
            return Err(PolicyError::RefusedBuiltin { place: place.unwrap_or(somewhere), builtin, reason });
        }
        // The engine drops an error of one function clause, its own time-out too, when another clause succeeds.
        if elapsed > Duration::from_millis(limits.milliseconds) {
            return Err(timed_out);
        }
        answer.map_err(|text| {
            let is_late = text.contains("execution exceeded time limit");
            if is_late { timed_out } else { self.evaluation_error(&text) }
        })
    }
}

/// What only OPA's own cases ask for: facts that are no object, queries that bind names.
#[cfg(test)]
impl LimitedEngine {
    /// Whether an error of a builtin is one of the evaluation.
    pub(crate) fn be_strict(&mut self, strict: bool) {
        self.engine.set_strict_builtin_errors(strict);
    }

    pub(crate) fn add_value(&mut self, data: Value) -> Result<(), PolicyError> {
        self.engine.add_data(data).map_err(|error| PolicyError::Engine { reason: error.to_string() })
    }

    pub(crate) fn set_any_input(&mut self, input: Value) {
        self.take_input(input);
    }

    /// What the query binds, once for each way in which it holds.
    pub(crate) fn ask_bindings(&mut self, query: &str, limits: &EvaluationLimits) -> Result<Vec<Value>, PolicyError> {
        let results = self.answered(query, limits)?;
        // A query that is false or undefined in one of its parts does not hold.
        let holds = |result: &regorus::QueryResult| {
            result.expressions.iter().all(|e| !matches!(e.value, Value::Undefined | Value::Bool(false)))
        };
        Ok(results.result.into_iter().filter(holds).map(|result| result.bindings).collect())
    }
}

/// Runs `work` on a thread whose stack holds whatever the checks of nesting let through, also where the caller's is small.
/// A panic of the engine (there are builtins that panic) becomes an error.
pub(crate) fn guarded<T: Send>(work: impl FnOnce() -> Result<T, PolicyError> + Send) -> Result<T, PolicyError> {
    thread::scope(|scope| {
        let thread = thread::Builder::new()
            .name("policies".to_owned())
            .stack_size(STACK_BYTES)
            .spawn_scoped(scope, work)
            .map_err(|error| PolicyError::Engine { reason: format!("cannot start its thread: {error}") })?;
        thread.join().unwrap_or_else(|panic| {
            let words = panic
                .downcast_ref::<&str>()
                .map(|words| (*words).to_owned())
                .or_else(|| panic.downcast_ref::<String>().cloned())
                .unwrap_or_default();
            Err(PolicyError::Engine { reason: format!("it panicked: {words}") })
        })
    })
}

fn add(engine: &mut Engine, name: &str, text: String) -> Result<(), PolicyError> {
    let added = engine.add_policy(name.to_owned(), text).map_err(|error| error.to_string());
    added
        .map(drop)
        .map_err(|error| PolicyError::from_engine(&error, |place, reason| PolicyError::Syntax { place, reason }))
}

fn within(what: &str, found: u64, limit: u64) -> Result<(), PolicyError> {
    if found > limit { Err(PolicyError::TooMuch { what: what.to_owned(), found, limit }) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_of_the_engine_is_an_error() {
        let failed: Result<(), _> = guarded(|| unreachable!("inside"));
        assert!(matches!(failed, Err(PolicyError::Engine { reason }) if reason.contains("inside")));
        assert_eq!(guarded(|| Ok(1)), Ok(1));
    }
}
