//! Every check of the verifier and the gate, proved by its absence: what it refuses stands beside the same without the fault, and
//! with the check switched off the test of its name turns red and the fault gets through.
//!
//! Another check that refuses the same fault in its own words is a second line of defence; the table names it, and the fault gets
//! through only where it is switched off as well.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test stops at the first thing that is not as it should be")]

mod admission;
mod bundles;
mod by_hand;
mod closed_sets;
mod exceptions;
mod fixture;
mod gate;
#[allow(dead_code, reason = "the gate's own tests use the rest of it")]
#[path = "../gate_world/mod.rs"]
mod gate_world;
mod indexes;
mod origins;
mod places;
mod promotion;
mod records;

use std::{cell::Cell, collections::BTreeSet, panic, sync::Once};

use fixture::Tried;
use sluicegate_types::checks::{Check, without};

/// One line of the table.
struct Row {
    check: Check,
    /// Further checks that refuse the same fault; each in other words.
    behind: &'static [Check],
    name: &'static str,
    scenario: fn() -> Tried,
}

macro_rules! every_check {
    ($($check:ident $(behind $($behind:ident)+)? : $module:ident :: $name:ident;)+) => {
        const TABLE: &[Row] = &[
            $(Row {
                check: Check::$check,
                behind: &[$($(Check::$behind,)+)?],
                name: stringify!($name),
                scenario: $module::$name,
            },)+
        ];

        $(#[test]
        fn $name() {
            $module::$name().holds().unwrap();
        })+
    };
}

every_check! {
    Signature behind LogEntry CanonicalizedBody: bundles::tm06_a_signature_is_the_signers_over_these_bytes;
    LogEntry: bundles::tm13_an_entry_is_proved_by_its_log;
    CheckpointOrigin: bundles::tm13_a_checkpoint_carries_the_name_that_the_trusted_root_has_for_its_log;
    TreeSize: bundles::tm13_the_tree_size_is_the_checkpoints;
    RootHash: bundles::tm13_the_root_hash_is_the_checkpoints;
    LogIndex: bundles::tm13_both_log_indexes_are_one;
    KindVersion: bundles::tm13_an_entry_is_of_the_one_kind_that_is_read;
    IntegratedTime: bundles::tm14_a_time_that_nobody_signed_is_refused;
    CanonicalizedBody: bundles::tm13_the_logged_body_is_the_one_of_this_signature;
    LogWindow: bundles::tm14_a_logs_key_counts_within_its_window;
    Untimed: bundles::tm13_a_log_without_time_counts_only_where_it_is_listed;
    Revocation: bundles::tm14_a_revoked_signer_is_not_believed;
    Role: bundles::tm06_a_key_says_only_what_its_roles_say;
    Builder: bundles::tm06_a_key_claims_only_its_builders;
    Verifier: bundles::tm05_a_key_decides_only_as_its_verifiers;
    DecisionEnvironment: bundles::tm05_a_key_decides_only_for_its_environments;
    PromotionEnvironment: bundles::tm05_a_key_promotes_only_to_its_environments;
    Verdict: bundles::tm05_a_decisions_key_says_yes_and_a_records_key_everything_else;
    OneKeyOneSigner: bundles::tm06_every_signer_has_a_key_of_its_own;
    DistinctIdentities: bundles::tm06_two_keys_of_one_person_are_one_voice;
    Threshold: bundles::tm06_a_group_speaks_with_as_many_voices_as_it_says;
    MemberRepositories: bundles::tm06_a_voice_counts_only_where_its_own_list_lets_it;
    Repositories: closed_sets::tm06_a_signer_speaks_only_for_its_repositories;
    Copies: admission::tm12_copies_of_a_bundle_are_one_statement;
    AboutTheImage: closed_sets::tm01_the_digest_decides_what_an_attached_bundle_is_about;
    ContentKind: closed_sets::tm01_a_file_is_no_directory_of_the_same_digest;
    NamedIsThere: closed_sets::tm03_what_the_provenance_names_is_there;
    NamedIsBelieved: closed_sets::tm03_what_the_provenance_names_is_to_be_believed;
    StepsRole: closed_sets::tm06_evidence_of_a_run_is_by_keys_of_the_role_steps;
    SameRun: closed_sets::tm03_every_step_of_a_set_is_of_one_run;
    StepExitCode: closed_sets::tm03_a_step_that_failed_proves_nothing;
    OneProvenance: closed_sets::tm03_a_step_has_one_provenance_in_a_set;
    ProductIsNamed: closed_sets::tm03_every_product_and_every_input_is_resolved;
    ProductIsAttested: closed_sets::tm03_a_product_is_attested_by_its_step_in_the_set;
    ProductIsSubject: closed_sets::tm01_a_product_is_a_subject_of_what_attests_it;
    Needs: closed_sets::tm03_what_is_needed_is_in_the_set;
    Describes: closed_sets::tm03_a_description_is_of_something_in_the_set;
    ScanReport: closed_sets::tm04_a_scan_comes_with_its_raw_report;
    TestRun: closed_sets::tm03_a_test_result_is_of_the_run_of_its_step;
    TestExitCode: closed_sets::tm03_a_test_result_has_the_exit_code_of_its_step;
    TestReport: closed_sets::tm03_a_test_result_is_over_a_report_that_its_step_wrote;
    TestSubjects: closed_sets::tm03_a_test_result_is_about_what_its_step_read;
    TestRecomputed: closed_sets::tm03_a_test_result_says_what_its_raw_report_says;
    TestMaterial: closed_sets::tm02_a_test_counts_only_if_what_it_tested_is_material_of_the_image;
    TestResultIsThere: closed_sets::tm02_a_step_that_reported_its_tests_has_a_test_result;
    StepImageIsDescribed: closed_sets::tm02_the_image_of_a_step_is_described;
    OutputIsDescribed: closed_sets::tm02_every_output_is_described;
    OriginIsThere: origins::tm09_the_origin_of_a_result_is_in_the_set;
    OriginIsFirst: origins::tm09_a_hit_names_no_other_hit;
    OriginBuilder: origins::tm09_a_result_is_of_the_same_builder;
    OriginKey: origins::tm09_both_keys_agree;
    OriginWork: origins::tm09_a_result_is_of_the_same_work;
    OriginInputs: origins::tm09_a_result_is_of_the_same_inputs;
    OriginOutputs: origins::tm09_a_result_is_what_the_origin_left;
    GateScanRole: gate::tm04_the_gates_scan_is_by_the_role_records;
    GateScanSubject: gate::tm04_the_gates_scan_is_of_this_image;
    GateScanReport: gate::tm04_the_gates_scan_is_over_the_report_that_it_names;
    KnownScanScanner: gate::tm04_an_earlier_scan_is_by_the_same_scanner_with_the_same_database;
    KnownScanSubject behind GateScanSubject: gate::tm04_an_earlier_scan_is_of_this_image;
    KnownScanRole behind GateScanRole: gate::tm04_an_earlier_scan_is_the_gates_own;
    SummaryAgrees: gate::tm04_the_signed_summary_agrees_with_the_raw_report;
    AcceptedDatabase: gate::tm04_a_brought_scan_counts_with_the_gates_database_only;
    AcceptedDatabaseAge: gate::tm04_a_brought_scan_counts_while_its_database_is_fresh;
    ByHandRole: gate::tm06_what_a_machine_says_outside_the_set_is_not_by_hand;
    ByHandType: gate::tm02_an_sbom_or_a_test_result_by_hand_counts_for_nothing;
    RequiredKind: gate::tm02_each_required_kind_is_there;
    EmptySbom: gate::tm02_an_sbom_that_names_nothing_is_none;
    GateScan: gate::tm04_the_gate_scans_itself;
    DatabaseAge: gate::tm04_the_gates_database_is_fresh;
    DatabaseFuture: gate::tm04_the_gates_database_is_not_from_the_future;
    NothingRead: gate::tm04_a_scan_that_read_nothing_is_none;
    CoverageGap: gate::tm04_a_gap_in_the_scan_leaves_it_undecided;
    StrictExecutables: gate::tm04_a_strict_gate_wants_each_executable_of_the_base_in_a_package;
    PolicyError: gate::tm02_a_policy_that_cannot_be_asked_allows_nothing;
    NoRule: gate::tm02_a_gate_without_rules_allows_nothing;
    Deny behind Silent: gate::tm02_one_denial_denies;
    Contradiction behind Silent: gate::tm02_a_rule_that_passes_and_denies_denies;
    Silent: gate::tm02_a_rule_without_an_answer_allows_nothing;
    RequiredField: exceptions::tm02_a_rule_that_demands_a_fact_does_not_pass_without_it;
    UnlistedDenials: exceptions::tm17_denials_that_are_not_listed_are_not_waived;
    WaiverCode: exceptions::tm17_a_waiver_is_for_its_rule_only;
    WaiverTerm: exceptions::tm17_a_waiver_is_for_its_term_only;
    WaiverPackage: exceptions::tm17_a_waiver_is_for_its_package_only;
    WaiverScope: exceptions::tm17_a_waiver_is_for_its_image_or_repository_only;
    WaiverEnvironment: exceptions::tm17_a_waiver_is_for_its_environment_only;
    WaiverExpiry: exceptions::tm17_a_waiver_is_over_at_its_end;
    CoverageDigest: exceptions::tm04_a_gap_is_accepted_by_its_content;
    CoverageKind: exceptions::tm04_a_gap_of_the_image_is_accepted_by_its_kind;
    CoverageExpiry: exceptions::tm04_an_accepted_gap_is_open_again_at_its_end;
    AcceptedUntil: exceptions::tm05_a_decision_ends_with_what_it_rests_on;
    FetchDigest: places::tm01_bytes_are_those_of_their_digest;
    FetchSize: places::tm01_bytes_are_as_many_as_described;
    EveryPlatform: indexes::tm03_every_platform_of_an_index_is_proved;
    PermitOfEach: indexes::tm03_the_permit_of_an_index_is_made_of_one_of_each_of_its_images;
    PermitsAlike: indexes::tm03_the_permits_of_an_index_are_for_one_place_moment_and_gateway;
    OnlyDocuments: indexes::tm12_what_is_exempt_holds_nothing_but_documents;
    ReferrerSubject: places::tm12_what_is_listed_is_attached_by_its_own_subject;
    OwnPlace: promotion::tm10_an_environment_is_not_promoted_to_itself;
    Backwards: promotion::tm10_a_tag_goes_back_only_with_rollback;
    PlatformBackwards: indexes::tm10_an_index_takes_no_image_back_without_rollback;
    NothingToRollBack: promotion::tm10_a_rollback_goes_to_what_was_there_before;
    PermitAge: promotion::tm10_a_permit_is_used_in_time;
    EffectiveTime behind PermitAge: promotion::tm07_an_effective_time_makes_no_permit;
    DryRun: promotion::tm10_a_dry_run_spends_nothing;
    TagMoved: places::tm10_the_tag_moves_only_from_what_the_permit_saw;
    EnvironmentMark: places::tm10_only_a_promotion_writes_to_an_environments_place;
    ReadBackTag: places::tm10_the_tag_is_read_back;
    ReadBackBlobs: places::tm10_every_blob_is_read_back;
    AdmitRepository: admission::tm05_a_decision_admits_where_it_was_decided_for;
    AdmitVerdict: admission::tm05_a_denial_admits_nothing;
    AdmitEnvironment: admission::tm05_a_decision_admits_to_its_environment_only;
    AdmitResource: admission::tm05_a_decision_admits_its_image_in_its_repository_only;
    AdmitVerifier: admission::tm05_a_decision_of_another_gate_admits_nothing;
    AdmitGateway: admission::tm05_a_decision_under_another_gateway_admits_nothing;
    AdmitExpired: admission::tm05_a_decision_admits_until_it_expires;
    AdmitFuture: admission::tm05_a_decision_from_the_future_admits_nothing;
    AdmitAuthority: admission::tm07_a_judge_chosen_by_who_is_judged_admits_nothing_elsewhere;
    AdmitCovers: admission::tm03_a_decision_admits_over_the_whole_set_that_it_names;
    AdmitBasis: admission::tm05_the_record_of_a_gated_promotion_admits_nothing_where_there_is_no_gate;
    AdmitDestination: admission::tm05_a_promotion_record_admits_to_its_destination_only;
    AdmitImage: admission::tm05_a_promotion_record_admits_its_image_only;
    AdmitSet: admission::tm03_a_promotion_record_admits_over_a_whole_set_only;
    FileSubject: by_hand::tm01_a_bundle_verifies_its_own_file_only;
    FileKind: by_hand::tm01_an_image_or_a_directory_is_no_file;
    FileAlone: by_hand::tm06_a_members_word_for_its_group_is_not_its_own_about_a_file;
    ByHandForbidden: by_hand::tm06_nobody_says_by_hand_what_only_machines_say;
    ByHandKey: by_hand::tm06_a_machines_key_says_nothing_by_hand;
    ByHandPlace: by_hand::tm10_nothing_is_attached_by_hand_in_an_environments_place;
    NewestRecord: records::tm16_nothing_is_recorded_behind_a_record_that_is_not_its_leaf;
    RecordIsLeaf: records::tm16_every_record_is_its_leaf;
    RecordsMissing: records::tm16_every_leaf_has_its_record;
    OccupantLedger: records::tm16_nothing_is_promoted_over_what_was_decided_under_more_of_the_ledger;
    EvidenceContent: records::tm16_what_records_name_is_in_the_store_as_it_was;
    CutBack behind Rewritten: records::tm16_a_ledger_is_not_shorter_than_a_signed_statement_says;
    Rewritten: records::tm16_a_ledger_has_the_root_that_a_signed_statement_says;
}

thread_local! {
    static QUIET: Cell<bool> = const { Cell::new(false) };
}

/// What `act` gives, or that it panicked, without a word about it.
fn quietly<T>(act: impl FnOnce() -> T + panic::UnwindSafe) -> Result<T, String> {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let loud = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            if !QUIET.get() {
                loud(info);
            }
        }));
    });
    QUIET.set(true);
    let result = panic::catch_unwind(act);
    QUIET.set(false);
    result.map_err(|_| "it panicked".to_owned())
}

#[test]
fn every_check_has_a_line_in_the_table() {
    let mut listed: Vec<Check> = TABLE.iter().map(|row| row.check).collect();
    listed.sort();
    let mut all = Check::ALL.to_vec();
    all.sort();
    assert_eq!(listed, all, "one line for each check");
    let names: BTreeSet<&str> = TABLE.iter().map(|row| row.name).collect();
    assert_eq!(names.len(), TABLE.len(), "each with a test of its own");
}

#[test]
fn switching_any_single_check_off_turns_its_named_test_red() {
    let green = |row: &&Row| without(&[row.check], || quietly(|| (row.scenario)().holds())) == Ok(Ok(()));
    let still_green: Vec<&str> = TABLE.iter().filter(green).map(|row| row.name).collect();
    assert_eq!(still_green, [] as [&str; 0], "these do not need the check that they are named for");
}

#[test]
fn without_its_check_and_what_stands_behind_it_every_fault_gets_through() {
    let mut faults = Vec::new();
    for row in TABLE {
        let off: Vec<Check> = row.behind.iter().copied().chain([row.check]).collect();
        match without(&off, || quietly(|| (row.scenario)().gets_through())) {
            Ok(Ok(())) => {}
            Ok(Err(reason)) | Err(reason) => faults.push(format!("{:?}: {reason}", row.check)),
        }
        if row.behind.is_empty() {
            continue;
        }
        // The check alone refuses in its own words, and what stands behind it refuses without it.
        if let Err(reason) = without(row.behind, || (row.scenario)().holds()) {
            faults.push(format!("{:?} without those behind it: {reason}", row.check));
        }
        for kept in row.behind {
            let off: Vec<Check> = off.iter().copied().filter(|check| check != kept).collect();
            if without(&off, || quietly(|| (row.scenario)().gets_through())) == Ok(Ok(())) {
                faults.push(format!("{:?}: {kept:?} does not stand behind it", row.check));
            }
        }
    }
    assert_eq!(faults, [] as [&str; 0]);
}

#[test]
fn a_check_is_back_when_its_absence_ends() {
    let test = || bundles::tm14_a_revoked_signer_is_not_believed().holds();
    test().unwrap();
    assert!(without(&[Check::Revocation], test).is_err());
    assert!(quietly(|| without(&[Check::Revocation], || panic!("it breaks off"))).is_err());
    test().unwrap();
    let elsewhere = without(&[Check::Revocation], || std::thread::spawn(test).join().unwrap());
    elsewhere.unwrap();
}
