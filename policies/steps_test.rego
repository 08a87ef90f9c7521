package steps_test

import data.steps

required := "steps.required"

skipped := "steps.none_skipped"

image_digest := "sha256:1111"

config := {"steps": {"required": ["build", "test"]}}

image := {
	"predicateType": "https://slsa.dev/provenance/v1",
	"digest": "sha256:image",
	"subjects": [{"name": "shop", "digest": image_digest}],
	"predicate": {"buildDefinition": {
		"buildType": "https://sluicegate.dev/image/v1",
		"externalParameters": {"base": "scratch", "files": {"/opt/shop": "build.app"}, "needs": ["test"]},
		"resolvedDependencies": [product],
	}},
}

product := {"name": "build.app", "digest": {"sha256": "cc"}, "annotations": {"sluicegate.dev/attestation": "sha256:build"}}

step(name, inputs, more) := {
	"predicateType": "https://slsa.dev/provenance/v1",
	"digest": sprintf("sha256:%v", [name]),
	"subjects": [{"name": "x", "digest": "sha256:2222"}],
	"predicate": {"buildDefinition": {
		"buildType": "https://sluicegate.dev/step/v1",
		"externalParameters": object.union({"step": name, "inputs": inputs}, more),
		"resolvedDependencies": [],
	}},
}

build := step("build", {"/src": "src"}, {})

testing := step("test", {"/app": "build.app"}, {"reports": {"junit": "/out/junit.xml"}, "needs": ["build"]})

result := {
	"predicateType": "https://in-toto.io/attestation/test-result/v0.1",
	"digest": "sha256:result",
	"predicate": {"result": "PASSED", "sluicegate_step": "test"},
}

facts(statements) := {"subject": {"name": "shop", "digest": image_digest}, "attestations": statements}

whole := facts([image, build, testing, result])

denied_by(code) := {violation | some violation in steps.deny; violation.code == code}

passes(code, facts_, config_) if {
	code in steps.pass with input as facts_ with data.sluicegate as config_
	count(denied_by(code)) == 0 with input as facts_ with data.sluicegate as config_
}

denials(code, facts_, config_) := found if {
	not code in steps.pass with input as facts_ with data.sluicegate as config_
	found := denied_by(code) with input as facts_ with data.sluicegate as config_
	count(found) > 0
}

test_required_steps_that_ran_pass if {
	passes(required, whole, config)
	passes(required, whole, {"steps": {"required": []}})
}

test_a_required_step_that_did_not_run_is_denied_by_name if {
	denials(required, facts([image, build]), config) == {{
		"code": required,
		"msg": "the step test of data.sluicegate.steps.required did not run: name it under the artifact's needs and build again",
		"term": "test",
		"step": "test",
	}}
}

test_a_missing_list_names_the_key_to_write if {
	every odd in [{}, {"steps": {}}, {"steps": {"required": "build"}}, {"steps": {"required": [""]}}, {"steps": {"required": [1]}}, {"steps": null}] {
		denials(required, whole, odd) == {{
			"code": required,
			"msg": "data.sluicegate.steps.required is not a list of names of steps: write it, [] if none is required",
			"setting": "sluicegate.steps.required",
		}}
	}
}

test_a_step_that_ran_once_more_and_made_the_very_same_is_enough if {
	again := object.union(build, {"digest": "sha256:again", "subjects": [{"name": "build.app", "digest": "sha256:cc"}]})
	passes(skipped, facts([image, again, testing, result]), {})
	every other in [
		object.union(again, {"subjects": [{"name": "build.app", "digest": "sha256:dd"}]}),
		object.union(again, {"subjects": [{"name": "build.other", "digest": "sha256:cc"}]}),
		object.union(again, {"subjects": "build.app"}),
		object.remove(again, ["subjects"]),
	] {
		count(denials(skipped, facts([image, other, testing, result]), {})) == 1
	}
	unnamed := json.patch(image, [{"op": "remove", "path": "predicate/buildDefinition/resolvedDependencies/0/digest"}])
	count(denials(skipped, facts([unnamed, again, testing, result]), {})) == 1
}

test_a_whole_chain_passes if {
	passes(skipped, whole, {})

	# A step whose result was taken from another run is there twice.
	passes(skipped, facts([image, build, object.union(build, {"digest": "sha256:origin"}), testing, result]), {})
	denials(skipped, facts([image, object.union(build, {"digest": "sha256:origin"}), testing, result]), {})
}

test_a_step_that_was_taken_out_is_denied_by_whoever_names_it if {
	denials(skipped, facts([image, testing, result]), {}) == {
		{
			"code": skipped,
			"msg": "the image takes build.app, and the facts hold no provenance of that step: run the whole pipeline again",
			"term": "build",
			"step": "build",
			"attestation": "sha256:image",
		},
		{
			"code": skipped,
			"msg": concat("", [
				"the image takes build.app, attested by sha256:build, and the facts hold no provenance of that step: ",
				"run the whole pipeline again",
			]),
			"term": "build",
			"step": "build",
			"attestation": "sha256:image",
		},
		{
			"code": skipped,
			"msg": "the step test takes build.app, and the facts hold no provenance of that step: run the whole pipeline again",
			"term": "build",
			"step": "build",
			"attestation": "sha256:test",
		},
		{
			"code": skipped,
			"msg": "the step test needs build, and the facts hold no provenance of that step: run the whole pipeline again",
			"term": "build",
			"step": "build",
			"attestation": "sha256:test",
		},
	}
	some violation in denials(skipped, facts([image, build]), {})
	violation.msg == "the image needs test, and the facts hold no provenance of that step: run the whole pipeline again"
}

test_a_test_step_without_a_result_that_passed_is_denied if {
	found := {{
		"code": skipped,
		"msg": "the step test was to report tests, and no test result of it says PASSED: run it again",
		"term": "test",
		"step": "test",
		"attestation": "sha256:test",
	}}
	denials(skipped, facts([image, build, testing]), {}) == found
	every word in ["FAILED", "WARNED", "", null, 1] {
		bad := object.union(result, {"predicate": {"result": word}, "digest": "sha256:bad"})
		denials(skipped, facts([image, build, testing, bad]), {}) == found
		denials(skipped, facts([image, build, testing, result, bad]), {}) == found
	}
	denials(skipped, facts([image, build, testing, object.union(result, {"predicate": {"sluicegate_step": "build"}})]), {}) == found
	every path in ["predicate", "predicate/result", "predicate/sluicegate_step", "predicateType"] {
		denials(skipped, facts([image, build, testing, json.remove(result, [path])]), {}) == found
	}

	# A step that reports nothing needs no result.
	quiet := json.remove(testing, ["predicate/buildDefinition/externalParameters/reports"])
	passes(skipped, facts([image, build, quiet]), {})
	denials(skipped, facts([image, build, object.union(quiet, {"predicate": {"buildDefinition": {"externalParameters": {"reports": null}}}})]), {})
}

test_a_missing_field_is_denied if {
	every path in ["files", "needs"] {
		where := sprintf("predicate/buildDefinition/externalParameters/%v", [path])
		denials(skipped, facts([json.remove(image, [where]), build, testing, result]), {})
	}
	every path in ["predicate/buildDefinition/resolvedDependencies", "predicate/buildDefinition/externalParameters", "predicate"] {
		denials(skipped, facts([json.remove(image, [path]), build, testing, result]), {})
		denials(skipped, facts([image, json.remove(build, [path]), testing, result]), {})
		denials(skipped, facts([image, build, json.remove(testing, [path]), result]), {})
	}
	every path in ["predicate/buildDefinition/externalParameters/step", "predicate/buildDefinition/externalParameters/inputs"] {
		denials(skipped, facts([image, build, json.remove(testing, [path]), result]), {})
		denials(skipped, facts([image, json.remove(build, [path]), testing, result]), {})
	}
	every path in ["predicateType", "predicate/buildDefinition/buildType", "subjects"] {
		denials(skipped, facts([json.remove(image, [path]), build, testing, result]), {})
	}
	denials(skipped, {"attestations": whole.attestations}, {})
	denials(skipped, facts([image, json.remove(build, ["digest"]), testing, result]), {})
	passes(skipped, facts([json.remove(image, ["digest"]), build, testing, result]), {})
}

test_ill_typed_parameters_are_denied if {
	every odd in [{"files": {}}, {"files": "x"}, {"files": {"/x": 1}}, {"needs": null}, {"needs": "test"}, {"needs": [1]}] {
		changed := json.patch(image, [
		{"op": "replace", "path": sprintf("/predicate/buildDefinition/externalParameters/%v", [field]), "value": value} |
			some field, value in odd
		])
		denials(skipped, facts([changed, build, testing, result]), {})
	}
	every odd in [{"inputs": null}, {"inputs": "x"}, {"inputs": {"/x": 1}}, {"needs": null}, {"needs": "build"}, {"needs": [1]}, {"step": ""}] {
		changed := json.patch(testing, [
		{"op": "replace", "path": sprintf("/predicate/buildDefinition/externalParameters/%v", [field]), "value": value} |
			some field, value in odd
		])
		denials(skipped, facts([image, build, changed, result]), {})
	}
}

test_nothing_passes_by_being_empty if {
	every facts_ in [{}, facts([]), facts(null), facts("x"), facts({}), facts([null, "x", 1, {}]), facts([result])] {
		denials(skipped, facts_, {})
		denials(required, facts_, config)
		denials(required, facts_, {"steps": {"required": []}})
	}
	denials(skipped, facts([image]), {})
	denials(skipped, facts([build, testing, result]), {})
}
