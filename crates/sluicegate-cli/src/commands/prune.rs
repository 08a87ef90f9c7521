use std::{path::Path, process::ExitCode};

use serde_json::{Value, json};
use sluicegate_flow::prune::{
    self as flow, Amount, BrokeOff, Keep, KindPlan, Materials, Parts,
    shared_store::{self, KindPruned, SharedKeep, SharedParts},
};
use sluicegate_ports::{
    Clock,
    prune::{Disposable, PrunableStore},
};

use crate::{
    amounts::amount,
    arguments::Prune,
    gateway_folder::GatewayFolder,
    home::Home,
    wire::{self, SystemClock},
    words::{Problem, Words, printable},
};

/// `prune`.
pub(crate) fn prune(words: &Words, arguments: &Prune) -> Result<ExitCode, Problem> {
    let said = if arguments.shared { of_shared_store(arguments)? } else { of_home(arguments)? };
    if words.json() {
        words.document(&said.document());
    } else {
        said.print(words);
    }
    Ok(ExitCode::SUCCESS)
}

fn of_home(arguments: &Prune) -> Result<Said, Problem> {
    let home = Home::read()?;
    let evidence = wire::evidence_there(&home)?;
    let ledger = wire::whole_ledger_reader(&home)?;
    let store = if arguments.dry_run {
        wire::store(&home)?
    } else {
        wire::store_alone(&home)?.ok_or_else(|| {
            Problem::lost(
                format!("another sluicegate uses the home {}, so nothing was deleted", home.folder().display()),
                "prune when it is done; --dry-run says now what would be deleted",
            )
        })?
    };
    let (waiting, disposable) = (wire::waiting(&home)?, wire::disposable(&home));
    let disposable: Vec<&dyn Disposable> = disposable.iter().map(Box::as_ref).collect();
    let store: &dyn PrunableStore = &store;
    let parts = Parts {
        store,
        evidence: wire::records(&evidence),
        ledger: &ledger,
        waiting: &waiting,
        disposable: &disposable,
    };
    let keep = Keep {
        used_within: Some(arguments.keep_duration).filter(|_| !arguments.all),
        bytes: arguments.keep_storage,
        materials: if arguments.materials { Materials::OfKeptResults } else { Materials::Named },
        now: SystemClock.now(),
    };
    let plan = flow::plan(&parts, &keep)?;
    if !arguments.dry_run {
        flow::carry_out(&parts, &plan)
            .map_err(|off| broke_off(off, "what is left is whole: mend that, then prune again"))?;
    }
    let nothing = Amount::default();
    let mut rows: Vec<Row> = plan.kinds.iter().map(Row::of).collect();
    for (what, deleted, kept) in [
        ("unfinished files", plan.drafts, nothing),
        ("contents that nothing refers to", plan.deleted_contents(), nothing),
        ("contents of what is kept for reuse", nothing, plan.reusable),
        ("contents that records refer to", nothing, plan.recorded),
    ] {
        rows.push(Row { what, deleted, kept });
    }
    let left_alone = plan.strangers.iter().map(|path| path.display().to_string()).collect();
    Ok(Said {
        dry_run: arguments.dry_run,
        shared_store: None,
        deleted: plan.deleted(),
        rows,
        to_come: nothing,
        left_alone,
    })
}

fn of_shared_store(arguments: &Prune) -> Result<Said, Problem> {
    let gateway = GatewayFolder::open(arguments.gateway.as_deref(), Path::new("."))?;
    let named = gateway.gateway.shared.as_ref().ok_or_else(|| {
        Problem::usage(
            "the gateway file names no store that machines share",
            "--gateway names a file with cache: in it",
        )
    })?;
    if !named.push {
        return Err(Problem::usage(
            format!("by this gateway file nothing is written to the shared store {}, nor deleted there", named.shown),
            "prune where cache.push is true, or let whoever runs the store do it",
        ));
    }
    let objects = wire::shared_objects(&gateway, named)?;
    let parts = SharedParts { results: objects.results.as_ref(), contents: objects.contents.as_ref() };
    let keep = SharedKeep {
        put_within: Some(arguments.keep_duration).filter(|_| !arguments.all),
        now: SystemClock.now(),
        dry_run: arguments.dry_run,
    };
    let kinds = shared_store::prune(&parts, &keep)
        .map_err(|off| broke_off(off, "see that the store is there and lets you list and delete, then prune again"))?;
    let (mut deleted, mut to_come) = (Amount::default(), Amount::default());
    for kind in &kinds {
        deleted += kind.deleted;
        to_come += kind.to_come;
    }
    let row = |kind: &KindPruned| Row { what: kind.what, deleted: kind.deleted, kept: kind.kept };
    Ok(Said {
        dry_run: arguments.dry_run,
        shared_store: Some(named.shown.clone()),
        deleted,
        rows: kinds.iter().map(row).collect(),
        to_come,
        left_alone: Vec::new(),
    })
}

/// `next` is what to do now.
fn broke_off(broke_off: BrokeOff, next: &str) -> Problem {
    let before = match broke_off.deleted {
        nothing if nothing == Amount::default() => "nothing was deleted before".to_owned(),
        deleted => format!("{} were deleted before", amount(deleted)),
    };
    Problem::from(*broke_off.error).or(format!("{before}; {next}"))
}

/// What went, or would, and what stays.
struct Said {
    dry_run: bool,
    /// Where, if not in the home.
    shared_store: Option<String>,
    deleted: Amount,
    rows: Vec<Row>,
    /// Of what stays in a shared store: what was put more than a day from now.
    to_come: Amount,
    left_alone: Vec<String>,
}

/// A kind of what there is, with what of it goes and what stays.
struct Row {
    what: &'static str,
    deleted: Amount,
    kept: Amount,
}

impl Row {
    fn of(kind: &KindPlan) -> Self {
        Self { what: kind.what, deleted: kind.deleted(), kept: kind.kept }
    }
}

impl Said {
    fn document(&self) -> Value {
        let counted = |amount: Amount| json!({"count": amount.count, "bytes": amount.bytes});
        let kinds = self.rows.iter();
        let kinds =
            kinds.map(|row| json!({"what": row.what, "deleted": counted(row.deleted), "kept": counted(row.kept)}));
        json!({
            "schemaVersion": 1, "dryRun": self.dry_run, "sharedStore": self.shared_store, "deleted": counted(self.deleted),
            "kinds": kinds.collect::<Vec<_>>(), "toCome": counted(self.to_come),
            "leftAlone": self.left_alone,
        })
    }

    fn print(&self, words: &Words) {
        let gone = if self.dry_run { "TO DELETE" } else { "DELETED" };
        let place = self.shared_store.as_ref().map(|store| format!(" in {}", printable(store))).unwrap_or_default();
        let shown = if self.dry_run { words.open(gone) } else { words.good(gone) };
        let deleted = if self.deleted == Amount::default() { "nothing".to_owned() } else { amount(self.deleted) };
        words.line(format!("{shown}  {deleted}{place}"));
        let line = |what: &str, deleted: &str, kept: &str| words.line(format!("  {what:<40} {deleted:>22} {kept:>22}"));
        let is_there = |row: &&Row| row.deleted != Amount::default() || row.kept != Amount::default();
        if self.rows.iter().any(|row| is_there(&row)) {
            line("", &gone.to_lowercase(), "kept");
        }
        for row in self.rows.iter().filter(is_there) {
            line(row.what, &amount(row.deleted), &amount(row.kept));
        }
        if self.to_come.count > 0 {
            let to_come = amount(self.to_come);
            words.line(format!(
                "  kept: {to_come} put more than a day from now: this machine's clock or the store's is wrong"
            ));
        }
        for stranger in &self.left_alone {
            words.line(printable(&format!("  left alone: {stranger}, which is no content of the store")));
        }
        if self.dry_run {
            words.line("  nothing was deleted");
        }
    }
}
