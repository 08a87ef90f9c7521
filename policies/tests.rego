# METADATA
# scope: package
# title: What was tested
# description: Rules about the test results in the image's closed set.
package tests

result_type := "https://in-toto.io/attestation/test-result/v0.1"

code := "tests.passed"

# METADATA
# title: The tests passed
# description: >-
#   The closed set of the image has at least one test result, and the result of each is PASSED: the step ended with 0, at least one
#   test was executed, none failed and none had an error.
# custom:
#   short_name: passed
#   solution: >-
#     Mend what the named tests found and build again. A pipeline without a test result needs a step with a report, named under
#     the artifact's needs.
#   requires: ["https://in-toto.io/attestation/test-result/v0.1"]
pass contains code if {
	count(results) > 0
	every result in results {
		has_passed(result)
	}
}

deny contains violation if {
	count(results) == 0
	violation := {"code": code, "msg": "the facts hold no test result: let a step write a report, and name it under the artifact's needs"}
}

deny contains violation if {
	some result in results
	not has_passed(result)
	step := step_of(result)
	attestation := digest_of(result)
	violation := {
		"code": code,
		"msg": sprintf("the step %v: %v (test result %v)", [step, reason(result), attestation]),
		"term": step,
		"step": step,
		"attestation": attestation,
	}
}

has_passed(result) if result.predicate.result == "PASSED"

results contains statement if {
	some statement in input.attestations
	statement.predicateType == result_type
}

# At most five names: the rest stands in the test result.
reason(result) := sprintf("%v did not pass: %v%v", [tests(total), concat(", ", array.slice(names, 0, 5)), more(total - 5)]) if {
	names := failed_tests(result)
	count(names) > 0
	total := max([count(names), number(result, "failed") + number(result, "errors")])
} else := "no test was executed" if {
	sum([number(result, "passed"), number(result, "failed"), number(result, "errors")]) == 0
} else := sprintf("its tests passed, and it ended with %v", [result.predicate.sluicegate_exit_code]) if {
	sum([number(result, "failed"), number(result, "errors")]) == 0
	result.predicate.sluicegate_exit_code != 0
} else := "its result is not PASSED"

failed_tests(result) := [name |
	some name in result.predicate.failedTests
	is_string(name)
]

number(result, field) := found if {
	found := result.predicate.sluicegate_counts[field]
	is_number(found)
} else := 0

tests(1) := "1 test"

tests(total) := sprintf("%v tests", [total]) if total != 1

more(left) := sprintf(" and %v more", [left]) if {
	left > 0
} else := ""

default step_of(_) := "without a name"

step_of(result) := step if {
	step := result.predicate.sluicegate_step
	is_string(step)
}

default digest_of(_) := "without a digest"

digest_of(result) := digest if {
	digest := result.digest
	is_string(digest)
}
