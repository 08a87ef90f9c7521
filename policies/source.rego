# METADATA
# scope: package
# title: Where the source came from
# description: Rules about the sources that the provenances of the steps name.
package source

provenance_type := "https://slsa.dev/provenance/v1"

step_build_type := "https://sluicegate.dev/step/v1"

code := "source.resolved"

# METADATA
# title: Every source is a commit of an allowed repository
# description: >-
#   Each source that a step read was fetched as a commit by the executor itself, from a repository of
#   data.sluicegate.source.repositories, under a reference of data.sluicegate.source.refs: whoever may open a pull request makes
#   references and commits of an allowed repository that nobody reviewed. A source whose commit nobody verified leaves the rule without an answer, unless
#   data.sluicegate.source.accept_unverified_commits is true; then it passes if it names a commit and says that it has no other changes.
#   One with changes is denied, unless data.sluicegate.source.accept_uncommitted_changes is true, and one that names no commit, unless
#   data.sluicegate.source.accept_sources_without_commit is true.
# custom:
#   short_name: resolved
#   solution: >-
#     Commit what was changed, in a git work tree, and build again. Where nobody verified the commit: build from a source that the
#     executor fetches itself (git and ref of a source), in data.sluicegate.source.repositories, or let the gate's owners set
#     data.sluicegate.source.accept_unverified_commits.
#   requires: ["https://slsa.dev/provenance/v1"]
#   controls:
#     soc2: [CC6.1, CC8.1]
#     pci_dss: ["6.2.3", "6.5.1"]
#     nist_ssdf: [PS.1.1, PS.3.2]
#     slsa: [source-l1]
pass contains code if {
	count(sources) > 0
	count(steps_without_dependencies) == 0
	every source in sources {
		is_good(source)
	}
}

deny contains violation if {
	count(sources) == 0
	violation := {"code": code, "msg": "no step names a source: what the image was built from is not known"}
}

deny contains violation if {
	some step in steps_without_dependencies
	attestation := text(step, "digest", "without a digest")
	violation := {
		"code": code,
		"msg": sprintf("provenance %v does not list what the step depends on", [attestation]),
		"attestation": attestation,
	}
}

deny contains violation if {
	some source in sources
	is_resolved(source.dependency)
	not is_allowed(source.dependency)
	repository := annotation(source.dependency, "sluicegate.dev/repository", "")
	violation := {
		"code": code,
		"msg": sprintf("%v came from %v, which is not in data.sluicegate.source.repositories", [source.dependency.name, repository]),
		"term": repository,
		"source": source.dependency.name,
		"commit": annotation(source.dependency, "sluicegate.dev/commit", ""),
		"attestation": source.attestation,
	}
}

deny contains violation if {
	some source in sources
	is_resolved(source.dependency)
	not is_under_an_allowed_reference(source.dependency)
	violation := {
		"code": code,
		"msg": sprintf("%v was fetched as %v, which data.sluicegate.source.refs does not name: anyone may have made it", [
			source.dependency.name,
			annotation(source.dependency, "sluicegate.dev/ref", "a commit without a reference"),
		]),
		"term": "reference",
		"source": source.dependency.name,
		"commit": annotation(source.dependency, "sluicegate.dev/commit", ""),
		"attestation": source.attestation,
	}
}

deny contains violation if {
	some source in sources
	is_judged(source.dependency)
	not has_digest(source.dependency)
	violation := {
		"code": code,
		"msg": sprintf("%v has no sha256 digest, so nobody can tell what was built", [source.dependency.name]),
		"source": source.dependency.name,
		"attestation": source.attestation,
	}
}

deny contains violation if {
	some source in sources
	is_unverified_and_accepted(source.dependency)
	not has_commit(source.dependency)
	not data.sluicegate.source.accept_sources_without_commit == true
	violation := {
		"code": code,
		"msg": sprintf("%v names no commit, so nobody can tell which changes it holds: build from a git work tree", [source.dependency.name]),
		"term": "no-commit",
		"source": source.dependency.name,
		"attestation": source.attestation,
	}
}

deny contains violation if {
	some source in sources
	is_unverified_and_accepted(source.dependency)
	has_commit(source.dependency)
	not has_accepted_changes(source.dependency)
	commit := annotation(source.dependency, "sluicegate.dev/commit-unverified", "no commit")
	violation := {
		"code": code,
		"msg": sprintf("%v has changes that are not in a commit (on top of %v): commit them and build again", [source.dependency.name, commit]),
		"term": "uncommitted-changes",
		"source": source.dependency.name,
		"attestation": source.attestation,
	}
}

is_good(source) if {
	is_resolved(source.dependency)
	is_allowed(source.dependency)
	is_under_an_allowed_reference(source.dependency)
	has_digest(source.dependency)
}

is_good(source) if {
	is_unverified_and_accepted(source.dependency)
	has_digest(source.dependency)
	has_commit(source.dependency)
	has_accepted_changes(source.dependency)
}

is_good(source) if {
	is_unverified_and_accepted(source.dependency)
	has_digest(source.dependency)
	not has_commit(source.dependency)
	data.sluicegate.source.accept_sources_without_commit == true
}

# Whether the rule says anything about it; a source that is neither resolved nor accepted without leaves it silent.
is_judged(dependency) if is_resolved(dependency)

is_judged(dependency) if is_unverified_and_accepted(dependency)

# Only an executor that fetched the commit itself writes these two, and what it fetched has no changes of somebody's.
is_resolved(dependency) if {
	annotation(dependency, "sluicegate.dev/commit", "") != ""
	annotation(dependency, "sluicegate.dev/repository", "") != ""
	not "sluicegate.dev/commit-unverified" in object.keys(dependency.annotations)
	not is_dirty(dependency)
}

is_unverified_and_accepted(dependency) if {
	not is_resolved(dependency)
	data.sluicegate.source.accept_unverified_commits == true
}

is_allowed(dependency) if {
	repository := dependency.annotations["sluicegate.dev/repository"]
	is_array(data.sluicegate.source.repositories)
	some allowed in data.sluicegate.source.repositories
	allowed == repository
}

is_under_an_allowed_reference(dependency) if {
	reference := annotation(dependency, "sluicegate.dev/ref", "")
	is_array(data.sluicegate.source.refs)
	some pattern in data.sluicegate.source.refs
	names(pattern, reference)
}

names(pattern, reference) if {
	pattern == "*"
	is_string(reference)
}

names(pattern, reference) if pattern == reference

names(pattern, reference) if {
	endswith(pattern, "/*")
	startswith(reference, trim_suffix(pattern, "*"))
}

has_commit(dependency) if annotation(dependency, "sluicegate.dev/commit-unverified", "") != ""

# Only this very word says that there are none: where it is missing, or another, nobody looked.
has_accepted_changes(dependency) if dependency.annotations["sluicegate.dev/dirty"] == "false"

has_accepted_changes(dependency) if {
	dependency.annotations["sluicegate.dev/dirty"] == "true"
	data.sluicegate.source.accept_uncommitted_changes == true
}

# Any word but "false" may mean changes.
is_dirty(dependency) if {
	dirty := dependency.annotations["sluicegate.dev/dirty"]
	dirty != "false"
}

has_digest(dependency) if regex.match(`^[0-9a-f]{64}$`, dependency.digest.sha256)

sources contains {"dependency": dependency, "attestation": text(step, "digest", "without a digest")} if {
	some step in steps
	lists_dependencies(step)
	some dependency in step.predicate.buildDefinition.resolvedDependencies
	startswith(dependency.name, "source:")
}

default attestations := []

attestations := input.attestations if is_array(input.attestations)

steps contains statement if {
	some statement in attestations
	statement.predicateType == provenance_type
	statement.predicate.buildDefinition.buildType == step_build_type
}

steps_without_dependencies contains step if {
	some step in steps
	not lists_dependencies(step)
}

lists_dependencies(step) if is_array(step.predicate.buildDefinition.resolvedDependencies)

annotation(dependency, key, otherwise) := value if {
	value := dependency.annotations[key]
	is_string(value)
} else := otherwise

text(value, field, otherwise) := value[field] if {
	is_string(value[field])
} else := otherwise
