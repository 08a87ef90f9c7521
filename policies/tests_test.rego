package tests_test

import data.tests

code := "tests.passed"

passed := {
	"predicateType": "https://in-toto.io/attestation/test-result/v0.1",
	"digest": "sha256:aaaa",
	"predicate": {
		"result": "PASSED",
		"passedTests": ["shop.adds"],
		"failedTests": [],
		"sluicegate_counts": {"passed": 1, "failed": 0, "errors": 0, "skipped": 0},
		"sluicegate_step": "test",
		"sluicegate_exit_code": 0,
	},
}

failed(names, counts) := object.union(passed, {"predicate": {
	"result": "FAILED",
	"failedTests": names,
	"sluicegate_counts": counts,
	"sluicegate_exit_code": 1,
}})

facts(statements) := {"attestations": statements}

passes(statements) if {
	code in tests.pass with input as facts(statements)
	count({violation | some violation in tests.deny; violation.code == code}) == 0 with input as facts(statements)
}

denials(facts_) := found if {
	not code in tests.pass with input as facts_
	found := {violation | some violation in tests.deny; violation.code == code} with input as facts_
	count(found) > 0
}

message(statement) := violation.msg if {
	some violation in denials(facts([statement]))
}

test_tests_that_passed_pass if {
	passes([passed])
	passes([passed, object.union(passed, {"digest": "sha256:bbbb"})])
}

test_statements_of_other_types_are_not_judged if {
	sbom := {"predicateType": "https://cyclonedx.org/bom", "predicate": {"result": "FAILED"}, "digest": "sha256:cccc"}
	passes([passed, sbom])
	denials(facts([sbom]))
}

test_failed_tests_are_denied_by_name_step_and_attestation if {
	statement := failed(["shop.adds", "shop.sells"], {"passed": 3, "failed": 1, "errors": 1, "skipped": 0})
	some violation in denials(facts([statement]))
	violation.code == code
	violation.step == "test"
	violation.term == "test"
	violation.attestation == "sha256:aaaa"
	violation.msg == "the step test: 2 tests did not pass: shop.adds, shop.sells (test result sha256:aaaa)"
}

test_one_failed_result_is_enough if {
	statement := object.union(failed(["shop.adds"], {"passed": 0, "failed": 1, "errors": 0, "skipped": 0}), {"digest": "sha256:bbbb"})
	count(denials(facts([passed, statement]))) == 1
	message(statement) == "the step test: 1 test did not pass: shop.adds (test result sha256:bbbb)"
}

test_many_failed_tests_are_named_in_part if {
	names := [sprintf("shop.t%v", [number]) | some number in numbers.range(1, 1000)]
	statement := failed(names, {"passed": 0, "failed": 1200, "errors": 3, "skipped": 0})
	contains(message(statement), "1203 tests did not pass: shop.t1, shop.t2, shop.t3, shop.t4, shop.t5 and 1198 more")
}

test_no_executed_test_is_denied_and_said if {
	statement := failed([], {"passed": 0, "failed": 0, "errors": 0, "skipped": 7})
	contains(message(statement), "no test was executed")
}

test_a_step_that_failed_is_denied_and_said if {
	statement := failed([], {"passed": 4, "failed": 0, "errors": 0, "skipped": 0})
	contains(message(statement), "its tests passed, and it ended with 1")
}

test_warned_is_not_passed if {
	statement := object.union(passed, {"predicate": {"result": "WARNED"}})
	contains(message(statement), "its result is not PASSED")
}

test_nothing_passes_by_being_empty if {
	denials({})
	denials(facts([]))
}

test_a_missing_part_is_denied if {
	denials(facts([json.remove(passed, ["predicate/result"])]))
	denials(facts([json.remove(passed, ["predicate"])]))
	denials(facts([object.union(passed, {"predicate": {"result": "passed"}})]))
	whole := failed(["shop.adds"], {"passed": 3, "failed": 1, "errors": 0, "skipped": 0})
	contains(message(json.remove(whole, ["predicate/sluicegate_counts"])), "1 test did not pass: shop.adds")
	contains(message(json.remove(whole, ["predicate/failedTests"])), "its result is not PASSED")
	denials(facts([json.remove(whole, ["predicate/sluicegate_step"])]))
	denials(facts([json.remove(whole, ["digest"])]))
	denials(facts([object.union(whole, {"predicate": {"failedTests": [1]}})]))
	denials(facts([object.union(whole, {"predicate": {"sluicegate_counts": {"failed": "x", "errors": 0}}})]))
}

enough := "tests.enough"

enough_passes(facts_, minimum) if {
	enough in tests.pass with input as facts_ with data.sluicegate as {"tests": {"minimum": minimum}}
	count({violation | some violation in tests.deny; violation.code == enough}) == 0 with input as facts_
		with data.sluicegate as {"tests": {"minimum": minimum}}
}

enough_denials(facts_, config) := found if {
	not enough in tests.pass with input as facts_ with data.sluicegate as config
	found := {violation | some violation in tests.deny; violation.code == enough} with input as facts_ with data.sluicegate as config
	count(found) > 0
}

counted(counts) := object.union(passed, {"predicate": {"sluicegate_counts": counts}, "digest": "sha256:bbbb"})

test_enough_tests_pass_over_all_results if {
	enough_passes(facts([passed]), 1)
	enough_passes(facts([passed]), 0)
	enough_passes(facts([passed, of_another_step({"passed": 4, "failed": 0, "errors": 0, "skipped": 0})]), 5)
}

of_another_step(counts) := object.union(counted(counts), {"predicate": {"sluicegate_step": "other"}})

test_a_second_result_of_a_step_adds_nothing if {
	more := counted({"passed": 4, "failed": 0, "errors": 0, "skipped": 0})
	enough_passes(facts([passed, more]), 1)
	some violation in enough_denials(facts([passed, more]), {"tests": {"minimum": 2}})
	violation.executed == 1
}

test_too_few_are_denied_and_counted if {
	enough_denials(facts([passed]), {"tests": {"minimum": 2}}) == {{
		"code": enough,
		"msg": "1 test was executed, and data.sluicegate.tests.minimum is 2: bring back those that are skipped or gone",
		"executed": 1,
		"minimum": 2,
	}}
	some violation in enough_denials(facts([counted({"passed": 4, "failed": 0, "errors": 0, "skipped": 9})]), {"tests": {"minimum": 5}})
	violation.msg == "4 tests were executed, and data.sluicegate.tests.minimum is 5: bring back those that are skipped or gone"
}

test_failures_and_errors_are_denied_however_many_ran if {
	enough_denials(facts([passed, counted({"passed": 4, "failed": 1, "errors": 1, "skipped": 0})]), {"tests": {"minimum": 1}}) == {{
		"code": enough,
		"msg": "the step test: 2 tests did not pass: mend what they found",
		"term": "test",
		"step": "test",
		"attestation": "sha256:bbbb",
	}}
	enough_denials(facts([counted({"passed": 4, "failed": 0, "errors": 1, "skipped": 0})]), {"tests": {"minimum": 1}})
}

test_a_missing_minimum_names_the_key_to_write if {
	every odd in [{}, {"tests": {}}, {"tests": {"minimum": null}}, {"tests": {"minimum": "1"}}, {"tests": {"minimum": -1}}, {"tests": 1}, {"tests": null}] {
		enough_denials(facts([passed]), odd) == {{
			"code": enough,
			"msg": "data.sluicegate.tests.minimum is not a number from 0 up: write how many tests have to be executed",
			"setting": "sluicegate.tests.minimum",
		}}
	}
}

test_counts_that_nobody_can_read_are_denied if {
	config := {"tests": {"minimum": 0}}
	every field in ["passed", "failed", "errors"] {
		enough_denials(facts([json.remove(passed, [sprintf("predicate/sluicegate_counts/%v", [field])])]), config) == {{
			"code": enough,
			"msg": "the step test: its test result does not say how many tests passed, failed and had an error",
			"term": "test",
			"step": "test",
			"attestation": "sha256:aaaa",
		}}
		enough_denials(facts([counted(object.union(passed.predicate.sluicegate_counts, {field: "1"}))]), config)
		enough_denials(facts([counted(object.union(passed.predicate.sluicegate_counts, {field: -1}))]), config)
	}
	enough_denials(facts([json.remove(passed, ["predicate"])]), config)
	enough_denials(facts([]), config)
	enough_denials({}, config)
}
