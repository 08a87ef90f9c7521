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
	count(tests.deny) == 0 with input as facts(statements)
}

denials(facts_) := found if {
	not code in tests.pass with input as facts_
	found := tests.deny with input as facts_
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
