package source_test

import data.source

code := "source.resolved"

hex := "3333333333333333333333333333333333333333333333333333333333333333"

repository := "https://git.example/shop"

allowed := {"source": {"repositories": [repository], "refs": ["refs/heads/main"]}}

unverified := {"source": {"accept_unverified_commits": true}}

without_commit := {"source": {"accept_unverified_commits": true, "accept_sources_without_commit": true}}

uncommitted := {"source": {"accept_unverified_commits": true, "accept_uncommitted_changes": true}}

fetched := fetched_as({"sluicegate.dev/ref": "refs/heads/main"})

fetched_as(reference) := named(object.union(reference, {"sluicegate.dev/commit": "c0ffee", "sluicegate.dev/repository": repository}))

clean := named({"sluicegate.dev/commit-unverified": "c0ffee", "sluicegate.dev/dirty": "false"})

dirty := named({"sluicegate.dev/commit-unverified": "c0ffee", "sluicegate.dev/dirty": "true"})

bare := {"name": "source:shop", "digest": {"sha256": hex}}

image := {"name": "image", "digest": {"sha256": hex}}

named(annotations) := object.union(bare, {"annotations": annotations})

step(dependencies) := {
	"predicateType": "https://slsa.dev/provenance/v1",
	"digest": "sha256:aaaa",
	"predicate": {"buildDefinition": {
		"buildType": "https://sluicegate.dev/step/v1",
		"resolvedDependencies": dependencies,
	}},
}

facts(dependencies) := {"attestations": [step(dependencies)]}

passes(facts_, config) if {
	code in source.pass with input as facts_ with data.sluicegate as config
	count(source.deny) == 0 with input as facts_ with data.sluicegate as config
}

is_silent(facts_, config) if {
	count(source.pass) == 0 with input as facts_ with data.sluicegate as config
	count(source.deny) == 0 with input as facts_ with data.sluicegate as config
}

denials(facts_, config) := found if {
	not code in source.pass with input as facts_ with data.sluicegate as config
	found := source.deny with input as facts_ with data.sluicegate as config
	count(found) > 0
}

test_a_fetched_commit_of_an_allowed_repository_passes if {
	passes(facts([image, fetched]), allowed)
	passes({"attestations": [step([image]), step([fetched])]}, allowed)
}

test_a_reference_that_nobody_named_is_denied_and_so_is_a_commit_without_one if {
	every reference in [{"sluicegate.dev/ref": "refs/pull/7/head"}, {"sluicegate.dev/ref": "c0ffee"}, {"sluicegate.dev/ref": 7}, {}] {
		some violation in denials(facts([fetched_as(reference)]), allowed)
		violation.term == "reference"
		denials(facts([fetched, fetched_as(reference)]), allowed)
		passes(facts([fetched_as(reference)]), {"source": {"repositories": [repository], "refs": ["*"]}})
	}
	below := {"source": {"repositories": [repository], "refs": ["refs/tags/*"]}}
	passes(facts([fetched_as({"sluicegate.dev/ref": "refs/tags/v1"})]), below)
	denials(facts([fetched_as({"sluicegate.dev/ref": "refs/tags"})]), below)
	denials(facts([fetched]), below)
	denials(facts([fetched]), {"source": {"repositories": [repository]}})
	denials(facts([fetched]), {"source": {"repositories": [repository], "refs": []}})
}

test_another_repository_is_denied_by_name if {
	config := {"source": {"repositories": ["https://git.example/other"], "refs": ["*"]}}
	some violation in denials(facts([fetched]), config)
	violation.code == code
	violation.term == repository
	violation.source == "source:shop"
	violation.commit == "c0ffee"
	violation.attestation == "sha256:aaaa"
	contains(violation.msg, repository)
	denials(facts([fetched]), {"source": {"repositories": []}})
	denials(facts([fetched]), {})
	denials(facts([fetched]), unverified)
}

test_an_unverified_commit_leaves_the_rule_silent if {
	every dependency in [clean, dirty, bare] {
		is_silent(facts([dependency]), allowed)
		is_silent(facts([dependency]), {})
		is_silent(facts([fetched, dependency]), allowed)
		is_silent(facts([dependency]), {"source": {"accept_unverified_commits": "true"}})
		is_silent(facts([dependency]), {"source": {"accept_uncommitted_changes": true}})
		is_silent(facts([dependency]), {"source": {"accept_sources_without_commit": true}})
	}
}

test_an_unverified_commit_passes_where_that_is_accepted if {
	passes(facts([clean]), unverified)
	passes(facts([fetched, clean]), object.union(allowed, unverified))
}

test_uncommitted_changes_are_denied_unless_they_are_accepted_too if {
	some violation in denials(facts([dirty]), unverified)
	violation.term == "uncommitted-changes"
	contains(violation.msg, "c0ffee")
	denials(facts([clean, dirty]), unverified)
	passes(facts([dirty]), uncommitted)
	passes(facts([clean, dirty]), uncommitted)
	denials(facts([dirty]), {"source": {"accept_unverified_commits": true, "accept_uncommitted_changes": "true"}})
}

test_tm11_only_the_word_false_says_that_there_are_no_changes if {
	every word in ["", "yes", "False", "FALSE", false, 0, null, ["false"]] {
		odd := named({"sluicegate.dev/commit-unverified": "c0ffee", "sluicegate.dev/dirty": word})
		some violation in denials(facts([odd]), unverified)
		violation.term == "uncommitted-changes"
		denials(facts([clean, odd]), without_commit)
		denials(facts([odd]), uncommitted)
	}
	unsaid := named({"sluicegate.dev/commit-unverified": "c0ffee"})
	denials(facts([unsaid]), unverified)
	denials(facts([unsaid]), without_commit)
	denials(facts([unsaid]), uncommitted)
	passes(facts([clean]), unverified)
}

test_tm11_a_source_without_a_commit_is_denied_unless_that_is_accepted_by_name if {
	every dependency in [
		bare,
		named({}),
		named({"sluicegate.dev/dirty": "false"}),
		named({"sluicegate.dev/dirty": "true"}),
		named({"sluicegate.dev/commit-unverified": "", "sluicegate.dev/dirty": "false"}),
		named({"sluicegate.dev/commit-unverified": 1, "sluicegate.dev/dirty": "false"}),
		named({"sluicegate.dev/commit": "c0ffee"}),
		object.union(bare, {"annotations": "none"}),
	] {
		some violation in denials(facts([dependency]), unverified)
		violation.term == "no-commit"
		violation.source == "source:shop"
		denials(facts([clean, dependency]), unverified)
		denials(facts([dependency]), uncommitted)
		denials(facts([dependency]), {"source": {"accept_unverified_commits": true, "accept_sources_without_commit": "true"}})
		passes(facts([dependency]), without_commit)
	}
	passes(facts([clean]), without_commit)
	denials(facts([dirty]), without_commit)
}

test_half_a_resolution_is_none if {
	every half in [
		named({"sluicegate.dev/commit": "c0ffee"}),
		named({"sluicegate.dev/repository": repository}),
		named({"sluicegate.dev/commit": "", "sluicegate.dev/repository": repository}),
		named({"sluicegate.dev/commit": 1, "sluicegate.dev/repository": repository}),
		named(object.union(fetched.annotations, {"sluicegate.dev/dirty": "true"})),
		named(object.union(fetched.annotations, {"sluicegate.dev/commit-unverified": "c0ffee"})),
	] {
		is_silent(facts([half]), allowed)
	}
}

test_a_source_without_a_digest_is_denied if {
	denials(facts([json.remove(fetched, ["digest"])]), allowed)
	denials(facts([json.remove(fetched, ["digest/sha256"])]), allowed)
	denials(facts([object.union(clean, {"digest": {"sha256": "xyz"}})]), unverified)
	denials(facts([json.remove(dirty, ["digest"])]), uncommitted)
	denials(facts([json.remove(bare, ["digest"])]), without_commit)
}

test_no_source_at_all_is_denied if {
	denials(facts([image]), allowed)
	denials(facts([]), uncommitted)
	denials({}, uncommitted)
	denials({"attestations": []}, uncommitted)
	other := object.union(step([fetched]), {"predicate": {"buildDefinition": {"buildType": "https://example.com/other"}}})
	denials({"attestations": [other]}, allowed)
	denials({"attestations": [object.union(step([fetched]), {"predicateType": "https://cyclonedx.org/bom"})]}, allowed)
}

test_a_step_that_hides_its_dependencies_is_denied if {
	hidden := json.remove(step([]), ["predicate/buildDefinition/resolvedDependencies"])
	denials({"attestations": [step([fetched]), object.union(hidden, {"digest": "sha256:bbbb"})]}, allowed)
	denials({"attestations": [json.remove(step([fetched]), ["predicate"])]}, allowed)
	passes({"attestations": [json.remove(step([fetched]), ["digest"])]}, allowed)
}
