use std::process::ExitCode;

use serde_json::{Value, json};
use sluicegate_flow::prune::{self as flow, Amount, Keep, Materials, Parts, Plan};
use sluicegate_ports::{
    Clock,
    prune::{Disposable, PrunableStore},
};

use crate::{
    amounts::amount,
    arguments::Prune,
    home::Home,
    wire::{self, SystemClock},
    words::{Problem, Words, printable},
};

/// `prune`.
pub(crate) fn prune(words: &Words, arguments: &Prune) -> Result<ExitCode, Problem> {
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
        flow::carry_out(&parts, &plan).map_err(|broke_off| {
            let deleted = amount(broke_off.deleted);
            Problem::from(*broke_off.error)
                .or(format!("{deleted} were deleted before, and what is left is whole: mend that, then prune again"))
        })?;
    }
    if words.json() {
        words.document(&document(&plan, arguments.dry_run));
    } else {
        print(words, &plan, arguments.dry_run);
    }
    Ok(ExitCode::SUCCESS)
}

/// Each kind of what there is, with what of it goes and what stays.
fn rows(plan: &Plan) -> Vec<(&'static str, Amount, Amount)> {
    let mut rows: Vec<_> = plan.kinds.iter().map(|kind| (kind.what, kind.deleted(), kind.kept)).collect();
    let nothing = Amount::default();
    rows.push(("unfinished files", plan.drafts, nothing));
    rows.push(("contents that nothing refers to", plan.deleted_contents(), nothing));
    rows.push(("contents of what is kept for reuse", nothing, plan.reusable));
    rows.push(("contents that records refer to", nothing, plan.recorded));
    rows
}

fn document(plan: &Plan, dry_run: bool) -> Value {
    let counted = |amount: Amount| json!({"count": amount.count, "bytes": amount.bytes});
    let kinds = rows(plan);
    let kinds = kinds
        .into_iter()
        .map(|(what, deleted, kept)| json!({"what": what, "deleted": counted(deleted), "kept": counted(kept)}));
    json!({
        "schemaVersion": 1, "dryRun": dry_run, "deleted": counted(plan.deleted()), "kinds": kinds.collect::<Vec<_>>(),
        "leftAlone": plan.strangers.iter().map(|path| path.display().to_string()).collect::<Vec<_>>(),
    })
}

fn print(words: &Words, plan: &Plan, dry_run: bool) {
    let gone = if dry_run { "TO DELETE" } else { "DELETED" };
    let row = |what: &str, deleted: &str, kept: &str| words.line(format!("  {what:<40} {deleted:>22} {kept:>22}"));
    words.line(format!("{}  {}", if dry_run { words.open(gone) } else { words.good(gone) }, amount(plan.deleted())));
    row("", &gone.to_lowercase(), "kept");
    for (what, deleted, kept) in rows(plan) {
        if deleted != Amount::default() || kept != Amount::default() {
            row(what, &amount(deleted), &amount(kept));
        }
    }
    for stranger in &plan.strangers {
        words.line(printable(&format!("  left alone: {}, which is no content of the store", stranger.display())));
    }
    if dry_run {
        words.line("  nothing was deleted");
    }
}
