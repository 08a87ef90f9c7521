# METADATA
# scope: package
# title: What was tested
# description: Rules about the test results in the image's closed set.
package tests

result_type := "https://in-toto.io/attestation/test-result/v0.1"

code := "tests.passed"

enough_code := "tests.enough"

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
#   controls:
#     soc2: [CC8.1]
#     pci_dss: ["6.2.3", "6.5.1"]
#     nist_ssdf: [PW.8.2]
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

# METADATA
# title: Enough tests ran
# description: >-
#   The test results of all steps together count at least data.sluicegate.tests.minimum executed tests, and no failure and no error. A skipped test was not
#   executed. What is skipped or removed little by little makes no test fail; this rule sees it.
# custom:
#   short_name: enough
#   solution: >-
#     Bring back the tests that are no longer executed, or let the gate's owners lower data.sluicegate.tests.minimum.
#   requires: ["https://in-toto.io/attestation/test-result/v0.1"]
#   controls:
#     soc2: [CC8.1]
#     pci_dss: ["6.2.3", "6.5.1"]
#     nist_ssdf: [PW.8.1, PW.8.2]
pass contains enough_code if {
	count(results) > 0
	every result in results {
		says_counts(result)
		count_of(result, "failed") == 0
		count_of(result, "errors") == 0
	}
	executed >= minimum
}

deny contains violation if {
	count(results) == 0
	violation := {
		"code": enough_code,
		"msg": "the facts hold no test result: let a step write a report, and name it under the artifact's needs",
	}
}

deny contains violation if {
	not has_minimum
	violation := {
		"code": enough_code,
		"msg": "data.sluicegate.tests.minimum is not a number from 0 up: write how many tests have to be executed",
		"setting": "sluicegate.tests.minimum",
	}
}

deny contains violation if {
	count(results) > 0
	executed < minimum
	violation := {
		"code": enough_code,
		"msg": sprintf("%v executed, and data.sluicegate.tests.minimum is %v: bring back those that are skipped or gone", [were(executed), minimum]),
		"executed": executed,
		"minimum": minimum,
	}
}

deny contains violation if {
	some result in results
	not says_counts(result)
	step := step_of(result)
	violation := {
		"code": enough_code,
		"msg": sprintf("the step %v: its test result does not say how many tests passed, failed and had an error", [step]),
		"term": step,
		"step": step,
		"attestation": digest_of(result),
	}
}

deny contains violation if {
	some result in results
	says_counts(result)
	bad := count_of(result, "failed") + count_of(result, "errors")
	bad > 0
	step := step_of(result)
	violation := {
		"code": enough_code,
		"msg": sprintf("the step %v: %v did not pass: mend what they found", [step, tests(bad)]),
		"term": step,
		"step": step,
		"attestation": digest_of(result),
	}
}

# Not defined where it is missing, negative or no number.
minimum := least if {
	least := data.sluicegate.tests.minimum
	is_number(least)
	least >= 0
}

has_minimum if is_number(minimum)

# Of several results of one step the one with the fewest counts: a second one adds nothing.
executed := sum([min(counts) |
	some step in {step_of(result) | some result in results}
	counts := {executed_in(result) |
		some result in results
		step_of(result) == step
		says_counts(result)
	}
])

executed_in(result) := sum([number(result, field) | some field in ["passed", "failed", "errors"]])

says_counts(result) if {
	count_of(result, "passed") >= 0
	count_of(result, "failed") >= 0
	count_of(result, "errors") >= 0
}

# Not defined where the count is missing or no number.
count_of(result, field) := found if {
	found := result.predicate.sluicegate_counts[field]
	is_number(found)
}

were(1) := "1 test was"

were(total) := sprintf("%v tests were", [total]) if total != 1

has_passed(result) if result.predicate.result == "PASSED"

default attestations := []

attestations := input.attestations if is_array(input.attestations)

results contains statement if {
	some statement in attestations
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
	is_array(result.predicate.failedTests)
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
