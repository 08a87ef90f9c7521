package hermetic_test

import data.hermetic

accepting := {"hermetic": {"accept_shared_caches": true}}

image := {"name": "image", "digest": {"sha256": "aa"}}

cache := {
	"name": "cache:deps",
	"uri": "urn:sluicegate:cache:sha256:bb",
	"annotations": {"sluicegate.dev/unverified": "true"},
}

step(name, parameters, dependencies) := {
	"predicateType": "https://slsa.dev/provenance/v1",
	"digest": sprintf("sha256:%v", [name]),
	"predicate": {"buildDefinition": {
		"buildType": "https://sluicegate.dev/step/v1",
		"externalParameters": object.union({"step": name}, parameters),
		"resolvedDependencies": dependencies,
	}},
}

alone(network) := step("build", {"network": network}, [image])

plain := alone("none")

cached := step("build", {"network": "none", "caches": {"deps": "/cache"}}, [image, cache])

facts(steps) := {"attestations": steps}

passes(code, steps, config) if {
	code in hermetic.pass with input as facts(steps) with data.sluicegate as config
	count({violation | some violation in hermetic.deny; violation.code == code}) == 0 with input as facts(steps)
		with data.sluicegate as config
}

is_silent(code, steps, config) if {
	not code in hermetic.pass with input as facts(steps) with data.sluicegate as config
	count({violation | some violation in hermetic.deny; violation.code == code}) == 0 with input as facts(steps)
		with data.sluicegate as config
}

denials(code, steps, config) := found if {
	not code in hermetic.pass with input as facts(steps) with data.sluicegate as config
	found := {violation | some violation in hermetic.deny; violation.code == code} with input as facts(steps)
		with data.sluicegate as config
	count(found) > 0
}

test_steps_without_a_network_or_with_a_list_pass if {
	passes("hermetic.network", [plain], {})
	passes("hermetic.network", [alone("allow"), plain], {})
}

test_tm08_the_machines_own_network_is_denied_by_the_steps_name if {
	some violation in denials("hermetic.network", [plain, step("fetch", {"network": "host"}, [image])], accepting)
	violation.term == "host"
	violation.step == "fetch"
	violation.attestation == "sha256:fetch"
	contains(violation.msg, "fetch")

	# One that says nothing beside it does not hide it.
	denials("hermetic.network", [alone("host"), step("other", {}, [image])], {})
	denials("hermetic.network", [json.remove(alone("host"), ["digest"])], {})
	denials("hermetic.network", [json.remove(alone("host"), ["predicate/buildDefinition/externalParameters/step"])], {})
}

test_a_step_that_does_not_say_its_network_leaves_the_rule_silent if {
	every odd in [
		step("build", {}, [image]),
		alone(""),
		alone("None"),
		alone("HOST"),
		alone(null),
		alone(["none"]),
		alone({"none": true}),
		json.remove(plain, ["predicate/buildDefinition/externalParameters"]),
		object.union(plain, {"predicate": {"buildDefinition": {"externalParameters": "none"}}}),
	] {
		is_silent("hermetic.network", [odd], {})
		is_silent("hermetic.network", [plain, odd], {})
	}
}

test_no_step_at_all_is_denied if {
	every code in ["hermetic.network", "hermetic.caches"] {
		denials(code, [], accepting)
		denials(code, [object.union(plain, {"predicateType": "https://cyclonedx.org/bom"})], accepting)
		other := object.union(plain, {"predicate": {"buildDefinition": {"buildType": "https://example.com/other"}}})
		denials(code, [other], accepting)
	}
}

test_a_shared_cache_is_denied_unless_that_is_accepted_by_name if {
	passes("hermetic.caches", [plain], {})
	passes("hermetic.caches", [step("build", {"caches": {}}, [image])], {})
	some violation in denials("hermetic.caches", [plain, cached], {})
	violation.term == "deps"
	violation.step == "build"
	contains(violation.msg, "deps")
	passes("hermetic.caches", [plain, cached], accepting)
	every word in ["true", 1, false, null] {
		denials("hermetic.caches", [cached], {"hermetic": {"accept_shared_caches": word}})
	}

	# It says nothing about the network.
	passes("hermetic.network", [cached], {})
}

test_half_a_word_about_a_cache_is_enough if {
	denials("hermetic.caches", [step("build", {"caches": {"deps": "/cache"}}, [image])], {})
	denials("hermetic.caches", [step("build", {}, [image, cache])], {})
	denials("hermetic.caches", [json.remove(cached, ["predicate/buildDefinition/externalParameters"])], {})
	denials("hermetic.caches", [json.remove(cached, ["predicate/buildDefinition/resolvedDependencies"])], {})
}

test_a_step_that_does_not_say_what_it_read_leaves_the_rule_silent if {
	every odd in [
		json.remove(plain, ["predicate/buildDefinition/externalParameters"]),
		json.remove(plain, ["predicate/buildDefinition/resolvedDependencies"]),
		step("build", {"caches": "deps"}, [image]),
		step("build", {"caches": null}, [image]),
		step("build", {}, [json.remove(image, ["name"])]),
		step("build", {}, "image"),
	] {
		is_silent("hermetic.caches", [odd], {})
		is_silent("hermetic.caches", [plain, odd], {})
		is_silent("hermetic.caches", [odd], accepting)
	}
}
