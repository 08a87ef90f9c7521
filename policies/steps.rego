# METADATA
# scope: package
# title: Which steps ran
# description: Rules about the steps that the image's provenance, the steps' own and the gate's owners name.
package steps

provenance_type := "https://slsa.dev/provenance/v1"

result_type := "https://in-toto.io/attestation/test-result/v0.1"

step_build_type := "https://sluicegate.dev/step/v1"

image_build_type := "https://sluicegate.dev/image/v1"

required_code := "steps.required"

skipped_code := "steps.none_skipped"

# METADATA
# title: Every required step ran
# description: >-
#   The facts hold the provenance of at least one step, and of each step in data.sluicegate.steps.required. An empty list requires none.
# custom:
#   short_name: required
#   solution: >-
#     Add the step to the pipeline and name it under the artifact's needs, or let the gate's owners take it out of
#     data.sluicegate.steps.required.
#   requires: ["https://slsa.dev/provenance/v1"]
#   controls:
#     soc2: [CC7.1, CC8.1]
#     pci_dss: ["6.2.3", "6.5.1"]
#     nist_ssdf: [PO.4.1, PS.3.2]
#     slsa: [build-l1]
#   none_is_fine: [required]
pass contains required_code if {
	count(steps) > 0
	is_set(required)
	every name in required {
		name in names
	}
}

deny contains violation if {
	count(steps) == 0
	violation := {"code": required_code, "msg": "no provenance is of a step: nobody knows what ran"}
}

deny contains violation if {
	not steps_are_listed
	violation := {
		"code": required_code,
		"msg": "data.sluicegate.steps.required is not a list of names of steps: write it, [] if none is required",
		"setting": "sluicegate.steps.required",
	}
}

deny contains violation if {
	some name in required
	not name in names
	violation := {
		"code": required_code,
		"msg": sprintf("the step %v of data.sluicegate.steps.required did not run: name it under the artifact's needs and build again", [name]),
		"term": name,
		"step": name,
	}
}

# METADATA
# title: No step that something rests on was left out
# description: >-
#   Each step that the image's provenance names under files or needs, and that a step's names under inputs or needs, has a provenance in the
#   facts; so has each product that says which attestation it came with, or another one of that step about the very same product. A step that was to report tests has a test result, and that
#   says PASSED.
# custom:
#   short_name: none_skipped
#   solution: Run the whole pipeline again and promote what it makes; do not take attestations out of what is promoted.
#   requires: ["https://slsa.dev/provenance/v1"]
#   controls:
#     soc2: [CC7.1, CC8.1]
#     pci_dss: ["6.2.3", "6.5.1"]
#     nist_ssdf: [PO.4.1, PS.3.2, PW.8.2]
#     slsa: [build-l1]
#   none_is_fine: [demands, testing_steps]
pass contains skipped_code if {
	count(images) > 0
	count(steps) > 0
	count(resting) > 0
	every statement in resting {
		is_readable(statement)
	}
	every demand in demands {
		is_met(demand)
	}
	every step in testing_steps {
		has_passed(step)
	}
}

deny contains violation if {
	count(images) == 0
	violation := {"code": skipped_code, "msg": "no provenance is of the image's building: nobody knows which steps it rests on"}
}

deny contains violation if {
	count(steps) == 0
	violation := {"code": skipped_code, "msg": "no provenance is of a step: nobody knows what ran"}
}

deny contains violation if {
	some statement in resting
	not is_readable(statement)
	attestation := digest_of(statement)
	violation := {
		"code": skipped_code,
		"msg": sprintf("provenance %v does not say in a known form what it rests on: build with a builder that does", [attestation]),
		"attestation": attestation,
	}
}

deny contains violation if {
	some demand in demands
	not is_met(demand)
	violation := {
		"code": skipped_code,
		"msg": sprintf("%v, and the facts hold no provenance of that step: run the whole pipeline again", [demand.reason]),
		"term": demand.step,
		"step": demand.step,
		"attestation": demand.attestation,
	}
}

deny contains violation if {
	some step in testing_steps
	not has_passed(step)
	name := name_of(step)
	violation := {
		"code": skipped_code,
		"msg": sprintf("the step %v was to report tests, and no test result of it says PASSED: run it again", [name]),
		"term": name,
		"step": name,
		"attestation": digest_of(step),
	}
}

# Not defined where the list is missing or holds something that is no name.
required := listed if {
	is_array(data.sluicegate.steps.required)
	listed := {name | some name in data.sluicegate.steps.required; is_string(name); name != ""}
	count({name | some name in data.sluicegate.steps.required}) == count(listed)
}

default attestations := []

attestations := input.attestations if is_array(input.attestations)

steps_are_listed if is_set(required)

provenances contains statement if {
	some statement in attestations
	statement.predicateType == provenance_type
}

steps contains statement if {
	some statement in provenances
	statement.predicate.buildDefinition.buildType == step_build_type
}

images contains statement if {
	some statement in provenances
	statement.predicate.buildDefinition.buildType == image_build_type
	is_array(statement.subjects)
	some subject in statement.subjects
	subject.digest == input.subject.digest
}

names contains name if {
	some step in steps
	name := step.predicate.buildDefinition.externalParameters.step
	is_string(name)
	name != ""
}

# Every statement that says what something rests on.
resting := images | steps

# Which attestation is whose: the same step may have two, its own and that of the run whose result it took.
known contains attested if {
	some step in steps
	name := step.predicate.buildDefinition.externalParameters.step
	attested := {"attestation": step.digest, "step": name}
}

# What which step made, byte for byte.
made contains product if {
	some step in steps
	name := step.predicate.buildDefinition.externalParameters.step
	is_array(step.subjects)
	some subject in step.subjects
	product := {"step": name, "name": subject.name, "digest": subject.digest}
}

is_readable(statement) if {
	statement.predicate.buildDefinition.buildType == image_build_type
	is_object(parameters(statement).files)
	holds_texts(parameters(statement).files)
	count(parameters(statement).files) > 0
	is_array(parameters(statement).needs)
	holds_texts(parameters(statement).needs)
	is_array(statement.predicate.buildDefinition.resolvedDependencies)
}

is_readable(statement) if {
	statement.predicate.buildDefinition.buildType == step_build_type
	is_string(parameters(statement).step)
	parameters(statement).step != ""
	is_object(parameters(statement).inputs)
	holds_texts(parameters(statement).inputs)
	needs_are_readable(statement)
	is_array(statement.predicate.buildDefinition.resolvedDependencies)
}

needs_are_readable(statement) if not "needs" in object.keys(parameters(statement))

needs_are_readable(statement) if {
	is_array(parameters(statement).needs)
	holds_texts(parameters(statement).needs)
}

holds_texts(values) if {
	is_collection(values)
	count([value | some value in values; is_string(value)]) == count(values)
}

# A name without a dot is a source's: source.resolved asks where that came from.
demands contains {"step": step, "attestation": digest_of(statement), "reason": reason} if {
	some statement in resting
	some field in ["files", "inputs"]
	some product in listed(statement, field)
	contains(product, ".")
	step := split(product, ".")[0]
	reason := sprintf("%v takes %v", [owner(statement), product])
}

demands contains {"step": step, "attestation": digest_of(statement), "reason": reason} if {
	some statement in resting
	some step in listed(statement, "needs")
	reason := sprintf("%v needs %v", [owner(statement), step])
}

demands contains demand if {
	some statement in resting
	some dependency in dependencies(statement)
	by := dependency.annotations["sluicegate.dev/attestation"]
	step := split(dependency.name, ".")[0]
	demand := {
		"step": step,
		"attestation": digest_of(statement),
		"by": by,
		"made": {"step": step, "name": dependency.name, "digest": digest_of_content(dependency)},
		"reason": sprintf("%v takes %v, attested by %v", [owner(statement), dependency.name, by]),
	}
}

is_met(demand) if {
	not "by" in object.keys(demand)
	demand.step in names
}

is_met(demand) if {"attestation": demand.by, "step": demand.step} in known

# The step ran once more since, and made the very same.
is_met(demand) if demand.made in made

# Every form of reports is a promise to report, only no such field is none.
testing_steps contains step if {
	some step in steps
	"reports" in object.keys(parameters(step))
}

has_passed(step) if {
	said := {word |
		some result in attestations
		result.predicateType == result_type
		result.predicate.sluicegate_step == parameters(step).step
		word := verdict(result)
	}
	said == {"PASSED"}
}

default verdict(_) := "nothing"

verdict(result) := result.predicate.result

owner(statement) := sprintf("the step %v", [name_of(statement)]) if {
	statement.predicate.buildDefinition.buildType == step_build_type
} else := "the image"

default parameters(_) := {}

parameters(statement) := found if {
	found := statement.predicate.buildDefinition.externalParameters
	is_object(found)
}

listed(statement, field) := {text |
	values := parameters(statement)[field]
	is_collection(values)
	some text in values
	is_string(text)
}

is_collection(values) if is_array(values)

is_collection(values) if is_object(values)

default dependencies(_) := []

dependencies(statement) := found if {
	found := statement.predicate.buildDefinition.resolvedDependencies
	is_array(found)
}

default name_of(_) := "without a name"

name_of(step) := name if {
	name := parameters(step).step
	is_string(name)
}

default digest_of_content(_) := ""

digest_of_content(dependency) := concat(":", ["sha256", dependency.digest.sha256])

default digest_of(_) := "without a digest"

digest_of(statement) := digest if {
	digest := statement.digest
	is_string(digest)
}
