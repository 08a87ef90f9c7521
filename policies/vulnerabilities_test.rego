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
	count(vulnerabilities.deny) == 0 with input as facts_
}

denials(facts_) := found if {
	not code in vulnerabilities.pass with input as facts_
	found := vulnerabilities.deny with input as facts_
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
