package vulnerabilities_test

import data.vulnerabilities

code := "vulnerabilities.no_fixable_critical"

critical := {
	"id": "CVE-2025-43859",
	"aliases": ["GHSA-vqfr-h8mv-ghfj"],
	"severity": "CRITICAL",
	"package": "h11",
	"purl": "pkg:pypi/h11@0.14.0",
	"place": "opt/app/h11-0.14.0.dist-info/METADATA",
	"installed": "0.14.0",
	"fixed": "0.16.0",
	"status": "fixed",
	"attestation": "sha256:aaaa",
}

scan := {"tool": "trivy", "version": "0.76.0", "databases": [], "coverage": {"read": [], "unread": []}}

facts(findings) := {"vulnerabilities": findings, "scan": scan}

changed(changes) := object.union(critical, changes)

without(field) := json.remove(critical, [field])

passes(facts_) if {
	code in vulnerabilities.pass with input as facts_
	count({violation | some violation in vulnerabilities.deny; violation.code == code}) == 0 with input as facts_
}

denials(facts_) := found if {
	not code in vulnerabilities.pass with input as facts_
	found := {violation | some violation in vulnerabilities.deny; violation.code == code} with input as facts_
	count(found) > 0
}

test_a_scan_without_findings_passes if passes(facts([]))

test_lesser_findings_pass_with_and_without_a_fix if {
	every severity in ["HIGH", "MEDIUM", "LOW"] {
		passes(facts([changed({"severity": severity})]))
		passes(facts([changed({"severity": severity, "fixed": ""})]))
	}
}

test_a_critical_finding_without_a_fix_passes if {
	passes(facts([without("fixed")]))
	passes(facts([changed({"fixed": ""})]))
	passes(facts([changed({"fixed": " "})]))
	passes(facts([changed({"fixed": null})]))
}

test_a_fixable_critical_finding_is_denied_with_all_that_is_known if {
	found := denials(facts([critical, changed({"severity": "LOW"})]))
	found == {{
		"code": code,
		"msg": "h11 0.14.0 in opt/app/h11-0.14.0.dist-info/METADATA: CVE-2025-43859 (CRITICAL); update to 0.16.0",
		"term": "CVE-2025-43859",
		"subject": "pkg:pypi/h11@0.14.0",
		"severity": "CRITICAL",
		"package": "h11",
		"installed": "0.14.0",
		"fixed": "0.16.0",
		"place": "opt/app/h11-0.14.0.dist-info/METADATA",
		"purl": "pkg:pypi/h11@0.14.0",
		"attestation": "sha256:aaaa",
	}}
}

test_each_finding_is_denied_by_itself if {
	found := denials(facts([critical, changed({"place": "usr/lib/h11"}), changed({"id": "CVE-2025-1"})]))
	count(found) == 3
}

test_a_severity_nobody_has_given_counts_as_critical_when_there_is_a_fix if {
	denials(facts([changed({"severity": "UNKNOWN"})]))
	passes(facts([changed({"severity": "UNKNOWN", "fixed": ""})]))
}

test_a_severity_that_no_scanner_knows_is_denied if {
	every severity in ["critical", "Critical", "CRITICAL ", "NONE", "", 9, null, ["LOW"]] {
		denials(facts([changed({"severity": severity})]))
		denials(facts([changed({"severity": severity, "fixed": ""})]))
	}
	denials(facts([without("severity")]))
}

test_a_fix_that_cannot_be_read_is_denied if {
	denials(facts([changed({"fixed": ["0.16.0"]})]))
	denials(facts([changed({"fixed": 1})]))
	denials(facts([changed({"fixed": false})]))
}

test_a_missing_field_loses_no_finding if {
	every field in ["id", "package", "purl", "place", "installed", "attestation", "aliases", "status"] {
		count(denials(facts([without(field)]))) == 1
	}
	denials(facts([{"severity": "CRITICAL", "fixed": "1"}]))
	denials(facts([{}]))
}

test_nothing_passes_by_being_empty if {
	denials({})
	denials({"vulnerabilities": []})
	denials({"scan": scan})
	denials({"vulnerabilities": [], "scan": {}})
	denials({"vulnerabilities": [], "scan": {"tool": ""}})
	denials({"vulnerabilities": {}, "scan": scan})
	denials({"vulnerabilities": null, "scan": scan})
}

noon := "2026-06-30T12:00:00Z"

high := changed({"severity": "HIGH", "published": "2026-06-20T12:00:00Z"})

unfixed := json.remove(high, ["fixed"])

all_any := {"CRITICAL": "any", "HIGH": "any", "MEDIUM": "any", "LOW": "any", "UNKNOWN": "any"}

# Accepts everything that an explicit word accepts; each test changes one key.
base := {
	"deny": [],
	"triage": [],
	"grace_days": all_any,
	"max_age_days": all_any,
}

settings(changes) := {"vulnerabilities": replaced(base, changes), "vex": {"signers": ["alice"]}}

replaced(old, new) := json.patch(old, [{"op": "add", "path": sprintf("/%v", [key]), "value": value} | some key, value in new])

codes := ["vulnerabilities.severity", "vulnerabilities.grace", "vulnerabilities.age", "vulnerabilities.triaged"]

keys := {
	"vulnerabilities.severity": "deny",
	"vulnerabilities.grace": "grace_days",
	"vulnerabilities.age": "max_age_days",
	"vulnerabilities.triaged": "triage",
}

at(now, findings) := object.union(facts(findings), {"now": now, "subject": {"name": "shop", "digest": "sha256:1111"}, "attestations": []})

saying(facts_, status) := object.union(facts_, {"attestations": [{
	"predicateType": "https://openvex.dev/ns/v0.2.0",
	"subjects": [{"name": "shop", "digest": "sha256:1111"}],
	"signer": {"kind": "key", "name": "alice"},
	"predicate": {"statements": [{
		"vulnerability": {"name": "CVE-2025-43859"},
		"status": status,
		"justification": "component_not_present",
		"products": [{"@id": "pkg:pypi/h11"}],
	}]},
}]})

denied_by(which) := {violation | some violation in vulnerabilities.deny; violation.code == which}

rule_passes(which, facts_, config) if {
	which in vulnerabilities.pass with input as facts_ with data.sluicegate as config
	count(denied_by(which)) == 0 with input as facts_ with data.sluicegate as config
}

rule_denials(which, facts_, config) := found if {
	not which in vulnerabilities.pass with input as facts_ with data.sluicegate as config
	found := denied_by(which) with input as facts_ with data.sluicegate as config
	count(found) > 0
}

message(which, facts_, config) := violation.msg if {
	found := rule_denials(which, facts_, config)
	count(found) == 1
	some violation in found
}

test_every_rule_passes_where_nothing_is_found if {
	every which in codes {
		rule_passes(which, at(noon, []), settings({}))
		rule_passes(which, at(noon, [high, unfixed, critical]), settings({}))
	}
}

test_no_rule_passes_by_being_empty if {
	every which in codes {
		every facts_ in [
			{},
			{"vulnerabilities": []},
			{"scan": scan},
			{"vulnerabilities": [], "scan": {"tool": ""}},
			{"vulnerabilities": {}, "scan": scan},
			{"vulnerabilities": null, "scan": scan},
			{"vulnerabilities": "x", "scan": scan},
			at(noon, [null]),
			at(noon, ["x"]),
			at(noon, [{}]),
			at(noon, [high, []]),
		] {
			rule_denials(which, facts_, settings({}))
		}
	}
}

test_a_missing_setting_names_the_key_to_write if {
	every which, key in keys {
		every odd in [{}, {"vulnerabilities": null}, {"vulnerabilities": json.remove(base, [key])}, settings({key: null}), settings({key: "CRITICAL"})] {
			some violation in rule_denials(which, at(noon, []), odd)
			violation.setting == sprintf("sluicegate.vulnerabilities.%v", [key])
			startswith(violation.msg, sprintf("data.sluicegate.vulnerabilities.%v is not a ", [key]))
		}
	}
	every which in ["vulnerabilities.severity", "vulnerabilities.triaged"] {
		every odd in [["critical"], ["CRITICAL", "SEVERE"], [1], [null], {"CRITICAL": true}] {
			rule_denials(which, at(noon, []), settings({keys[which]: odd}))
		}
	}
}

test_a_severity_that_cannot_be_read_passes_no_rule if {
	every which in codes {
		every severity in ["critical", "", 9, null, ["LOW"]] {
			rule_denials(which, at(noon, [replaced(high, {"severity": severity})]), settings({}))
			rule_denials(which, at(noon, [replaced(unfixed, {"severity": severity})]), settings({}))
		}
		rule_denials(which, at(noon, [json.remove(high, ["severity"])]), settings({}))
	}
	every which in ["vulnerabilities.grace", "vulnerabilities.age"] {
		every fixed in [1, false, ["1"], {}] {
			rule_denials(which, at(noon, [replaced(high, {"fixed": fixed})]), settings({}))
		}
	}
}

test_a_denied_severity_is_denied_with_all_that_is_known if {
	rule_denials("vulnerabilities.severity", at(noon, [high, changed({"severity": "LOW"})]), settings({"deny": ["HIGH"]})) == {{
		"code": "vulnerabilities.severity",
		"msg": concat("", [
			"h11 0.14.0 in opt/app/h11-0.14.0.dist-info/METADATA: CVE-2025-43859 (HIGH), ",
			"which data.sluicegate.vulnerabilities.deny denies; update to 0.16.0",
		]),
		"term": "CVE-2025-43859",
		"subject": "pkg:pypi/h11@0.14.0",
		"severity": "HIGH",
		"package": "h11",
		"installed": "0.14.0",
		"fixed": "0.16.0",
		"place": "opt/app/h11-0.14.0.dist-info/METADATA",
		"purl": "pkg:pypi/h11@0.14.0",
		"attestation": "sha256:aaaa",
	}}
	rule_denials("vulnerabilities.severity", at(noon, [changed({"severity": "UNKNOWN"})]), settings({"deny": ["UNKNOWN"]}))
	endswith(
		message("vulnerabilities.severity", at(noon, [unfixed]), settings({"deny": ["HIGH"]})),
		"no version fixes it: replace the package, or say with VEX why the image is not affected",
	)
}

test_vex_settles_a_denied_severity if {
	config := settings({"deny": ["HIGH"]})
	rule_passes("vulnerabilities.severity", saying(at(noon, [high]), "not_affected"), config)
	rule_passes("vulnerabilities.severity", saying(at(noon, [high]), "fixed"), config)
	rule_denials("vulnerabilities.severity", saying(at(noon, [high]), "under_investigation"), config)
	endswith(
		message("vulnerabilities.severity", saying(at(noon, [high]), "affected"), config),
		"people say that it is affected: update or replace the package",
	)
	rule_denials("vulnerabilities.severity", saying(at(noon, [high]), "not_affected"), replaced(config, {"vex": {"signers": ["bob"]}}))
	rule_denials("vulnerabilities.severity", saying(at(noon, [high, changed({"severity": "HIGH", "id": "X-1"})]), "not_affected"), config)
}

test_grace_ends_at_the_very_second if {
	days := replaced(all_any, {"HIGH": 10})
	config := settings({"grace_days": days})
	rule_passes("vulnerabilities.grace", at("2026-06-30T11:59:59Z", [high]), config)
	rule_denials("vulnerabilities.grace", at(noon, [high]), config) == {{
		"code": "vulnerabilities.grace",
		"msg": concat("", [
			"h11 0.14.0 in opt/app/h11-0.14.0.dist-info/METADATA: CVE-2025-43859 (HIGH) is fixed in 0.16.0; ",
			"the 10 days since the fix appeared are over: update",
		]),
		"term": "CVE-2025-43859",
		"subject": "pkg:pypi/h11@0.14.0",
		"severity": "HIGH",
		"package": "h11",
		"installed": "0.14.0",
		"fixed": "0.16.0",
		"place": "opt/app/h11-0.14.0.dist-info/METADATA",
		"purl": "pkg:pypi/h11@0.14.0",
		"attestation": "sha256:aaaa",
	}}
	rule_passes("vulnerabilities.grace", at("2026-06-30T23:59:59Z", [high]), settings({"grace_days": replaced(days, {"HIGH": 10.5})}))
	rule_denials("vulnerabilities.grace", at("2026-06-20T12:00:00Z", [high]), settings({"grace_days": replaced(days, {"HIGH": 0})}))
	rule_passes("vulnerabilities.grace", at("2026-06-20T11:59:59Z", [high]), settings({"grace_days": replaced(days, {"HIGH": 0})}))

	# What has no fix is not its business, and VEX makes no difference.
	rule_passes("vulnerabilities.grace", at(noon, [unfixed]), config)
	rule_denials("vulnerabilities.grace", saying(at(noon, [high]), "not_affected"), config)
}

test_a_date_of_the_fix_counts_in_place_of_the_advisorys if {
	every name in ["CVE-2025-43859", "GHSA-vqfr-h8mv-ghfj"] {
		config := settings({"grace_days": replaced(all_any, {"HIGH": 10}), "fix_appeared": {name: "2026-06-25T12:00:00Z"}})
		rule_passes("vulnerabilities.grace", at(noon, [high]), config)
		rule_passes("vulnerabilities.grace", at("2026-07-05T11:59:59Z", [high]), config)
		rule_denials("vulnerabilities.grace", at("2026-07-05T12:00:00Z", [high]), config)
		rule_passes("vulnerabilities.grace", at(noon, [json.remove(high, ["published"])]), config)
	}
}

test_the_earliest_date_of_a_fix_counts_and_one_that_cannot_be_read_is_denied if {
	days := replaced(all_any, {"HIGH": 10})
	dates := {"CVE-2025-43859": "2026-06-25T12:00:00Z", "GHSA-vqfr-h8mv-ghfj": "2026-06-01T00:00:00Z"}
	rule_denials("vulnerabilities.grace", at(noon, [high]), settings({"grace_days": days, "fix_appeared": dates}))
	every odd in [{"CVE-2025-43859": "soon"}, {"X": null}, {"X": false}, {"X": 1}, null, "x", []] {
		some violation in rule_denials("vulnerabilities.grace", at("2026-06-21T00:00:00Z", [high]), settings({
			"grace_days": days,
			"fix_appeared": odd,
		}))
		violation.setting == "sluicegate.vulnerabilities.fix_appeared"
	}

	# Another advisory's date makes no difference.
	rule_denials("vulnerabilities.grace", at(noon, [high]), settings({"grace_days": days, "fix_appeared": {"X": "2026-06-29T00:00:00Z"}}))
}

test_without_a_date_or_days_there_is_no_grace if {
	days := replaced(all_any, {"HIGH": 10000})
	rule_passes("vulnerabilities.grace", at(noon, [high]), settings({"grace_days": days}))
	endswith(
		message("vulnerabilities.grace", at(noon, [json.remove(high, ["published"])]), settings({"grace_days": days})),
		"nobody can say since when: update, or write it under data.sluicegate.vulnerabilities.fix_appeared",
	)
	every odd in ["", "soon", null, 1, "2026-06-20", "2026-02-30T00:00:00Z", ["2026-06-20T12:00:00Z"]] {
		rule_denials("vulnerabilities.grace", at(noon, [replaced(high, {"published": odd})]), settings({"grace_days": days}))
		rule_denials("vulnerabilities.grace", at(odd, [high]), settings({"grace_days": days}))
	}
	rule_denials("vulnerabilities.grace", json.remove(at(noon, [high]), ["now"]), settings({"grace_days": days}))
	every odd in [null, "10", -1, "Any", [10]] {
		endswith(
			message("vulnerabilities.grace", at(noon, [high]), settings({"grace_days": replaced(all_any, {"HIGH": odd})})),
			"data.sluicegate.vulnerabilities.grace_days has no number of days for HIGH: write one, or any",
		)
	}
	rule_denials("vulnerabilities.grace", at(noon, [high]), settings({"grace_days": {}}))
	passes_without := json.remove(high, ["id", "aliases", "package", "purl", "place", "installed", "status", "attestation"])
	rule_passes("vulnerabilities.grace", at(noon, [passes_without]), settings({"grace_days": days}))
	rule_denials("vulnerabilities.grace", at(noon, [passes_without]), settings({"grace_days": {}}))
}

test_age_ends_at_the_very_second if {
	config := settings({"max_age_days": replaced(all_any, {"HIGH": 10})})
	rule_passes("vulnerabilities.age", at("2026-06-30T11:59:59Z", [unfixed]), config)
	rule_denials("vulnerabilities.age", at(noon, [unfixed]), config) == {{
		"code": "vulnerabilities.age",
		"msg": concat("", [
			"h11 0.14.0 in opt/app/h11-0.14.0.dist-info/METADATA: CVE-2025-43859 (HIGH) has no fix; ",
			"it is public since 2026-06-20T12:00:00Z, 10 days or more: replace the package",
		]),
		"term": "CVE-2025-43859",
		"subject": "pkg:pypi/h11@0.14.0",
		"severity": "HIGH",
		"package": "h11",
		"installed": "0.14.0",
		"fixed": "",
		"place": "opt/app/h11-0.14.0.dist-info/METADATA",
		"purl": "pkg:pypi/h11@0.14.0",
		"attestation": "sha256:aaaa",
	}}
	every none in ["", " ", null] {
		rule_denials("vulnerabilities.age", at(noon, [replaced(unfixed, {"fixed": none})]), config)
	}

	# What has a fix is not its business.
	rule_passes("vulnerabilities.age", at(noon, [high]), config)
	rule_passes("vulnerabilities.age", saying(at(noon, [unfixed]), "not_affected"), config)
	rule_denials("vulnerabilities.age", saying(at(noon, [unfixed]), "affected"), config)
}

test_without_a_date_or_days_it_is_too_old if {
	config := settings({"max_age_days": replaced(all_any, {"HIGH": 10000})})
	endswith(
		message("vulnerabilities.age", at(noon, [json.remove(unfixed, ["published"])]), config),
		"nobody can say since when it is public: replace the package, or say with VEX why the image is not affected",
	)
	every odd in ["", "soon", null, 1, "2026-06-20"] {
		rule_denials("vulnerabilities.age", at(noon, [replaced(unfixed, {"published": odd})]), config)
		rule_denials("vulnerabilities.age", at(odd, [unfixed]), config)
	}
	every odd in [null, "10", -1, "Any", [10]] {
		endswith(
			message("vulnerabilities.age", at(noon, [unfixed]), settings({"max_age_days": replaced(all_any, {"HIGH": odd})})),
			"data.sluicegate.vulnerabilities.max_age_days has no number of days for HIGH: write one, or any",
		)
	}
}

test_a_serious_finding_is_looked_at if {
	config := settings({"triage": ["HIGH"], "grace_days": replaced(all_any, {"HIGH": 10})})
	rule_passes("vulnerabilities.triaged", at(noon, [changed({"severity": "LOW"})]), config)
	rule_denials("vulnerabilities.triaged", at(noon, [unfixed]), config) == {{
		"code": "vulnerabilities.triaged",
		"msg": concat("", [
			"h11 0.14.0 in opt/app/h11-0.14.0.dist-info/METADATA: nobody has said what CVE-2025-43859 (HIGH) means for the image: ",
			"attest an OpenVEX statement about it, or update",
		]),
		"term": "CVE-2025-43859",
		"subject": "pkg:pypi/h11@0.14.0",
		"severity": "HIGH",
		"package": "h11",
		"installed": "0.14.0",
		"fixed": "",
		"place": "opt/app/h11-0.14.0.dist-info/METADATA",
		"purl": "pkg:pypi/h11@0.14.0",
		"attestation": "sha256:aaaa",
	}}
	every status in ["affected", "not_affected", "fixed"] {
		rule_passes("vulnerabilities.triaged", saying(at(noon, [unfixed]), status), config)
	}
	rule_denials("vulnerabilities.triaged", saying(at(noon, [unfixed]), "under_investigation"), config)
	rule_passes("vulnerabilities.triaged", at("2026-06-30T11:59:59Z", [high]), config)
	rule_denials("vulnerabilities.triaged", at(noon, [high]), config)
	rule_denials("vulnerabilities.triaged", at(noon, [replaced(high, {"fixed": 1})]), config)
	rule_denials("vulnerabilities.triaged", at("2026-06-30T11:59:59Z", [json.remove(high, ["published"])]), config)
}

test_a_missing_field_loses_no_finding_of_the_other_rules if {
	config := {"vulnerabilities": {"deny": ["HIGH"], "triage": ["HIGH"], "grace_days": {}, "max_age_days": {}}}
	every which, finding in {
		"vulnerabilities.severity": high,
		"vulnerabilities.grace": high,
		"vulnerabilities.age": unfixed,
		"vulnerabilities.triaged": high,
	} {
		every field in ["id", "package", "purl", "place", "installed", "attestation", "aliases", "status", "published"] {
			count(rule_denials(which, at(noon, [json.remove(finding, [field])]), config)) == 1
		}
	}
}

test_triage_needs_no_days_of_grace if {
	config := replaced(settings({"triage": ["HIGH"]}), {"vulnerabilities": {"triage": ["HIGH"]}})
	rule_passes("vulnerabilities.triaged", at(noon, [changed({"severity": "LOW"})]), config)
	rule_denials("vulnerabilities.triaged", at(noon, [high]), config)
	rule_passes("vulnerabilities.triaged", saying(at(noon, [high]), "affected"), config)
}

test_only_rfc_3339_is_a_time if {
	every odd in ["2026-06-29 12:00:00Z", "2026-06-29t12:00:00Z", "2026-06-29T12:00:00z", "2026-06-29T12:00Z", "2026-06-29"] {
		config := settings({"grace_days": replaced(all_any, {"HIGH": 10}), "fix_appeared": {"CVE-2025-43859": odd}})
		rule_denials("vulnerabilities.grace", at(noon, [high]), config)
		rule_denials("vulnerabilities.grace", at(odd, [high]), settings({"grace_days": replaced(all_any, {"HIGH": 10000})}))
	}
}
