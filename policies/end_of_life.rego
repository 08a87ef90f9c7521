# METADATA
# scope: package
# title: What is no longer maintained
# description: Rules about systems and packages for which nobody mends vulnerabilities any more.
package end_of_life

system_code := "end_of_life.system"

packages_code := "end_of_life.packages"

# METADATA
# title: The operating system is maintained
# description: >-
#   The scan says that the support of the image's system has not ended, and no date that data.sluicegate.end_of_life gives for the system has
#   come: for its family and release, or for as many parts of the release as the date is about, such as "debian 12". An image without a
#   system passes if its SBOM lists no package of one.
# custom:
#   short_name: system
#   solution: Build on a base image with a release that is maintained.
#   requires: ["https://in-toto.io/attestation/vulns/v0.2"]
#   controls:
#     soc2: [CC7.1]
#     pci_dss: ["6.3.3", "12.3.4"]
#     nist_ssdf: [PW.4.4, RV.1.1]
pass contains system_code if {
	is_string(family)
	is_string(release)
	input.scan.coverage.system.ended == false
	dates_are_readable
	count(names_of_the_system) > 0
	every name in names_of_the_system {
		is_still_ahead(name)
	}
}

pass contains system_code if {
	is_object(input.scan.coverage)
	input.scan.coverage.system == null
	dates_are_readable
	count(data.components.list) > 0
	every kind in ["deb", "rpm", "apk"] {
		contains(data.components.lines, sprintf("\npkg:%v/", [kind])) == false
	}
}

deny contains violation if {
	not has_system
	not has_no_system
	violation := {"code": system_code, "msg": "the facts do not say which operating system the image has: scan it"}
}

deny contains violation if {
	not dates_are_readable
	violation := {
		"code": system_code,
		"msg": "data.sluicegate.end_of_life is not a mapping of systems to dates: write \"FAMILY MAJOR\": a date, such as 2028-06-30",
		"setting": "sluicegate.end_of_life",
	}
}

deny contains violation if {
	has_system
	not is_named
	violation := {"code": system_code, "msg": "the scan does not say family and release of the operating system: scan again with a newer scanner"}
}

deny contains violation if {
	has_system
	not system.ended == false
	violation := {
		"code": system_code,
		"msg": sprintf("the scan does not say that %v is still maintained: build on a newer release", [system_name]),
		"term": system_name,
	}
}

deny contains violation if {
	has_system
	dates_are_readable
	some name in names_of_the_system
	not is_still_ahead(name)
	violation := {
		"code": system_code,
		"msg": sprintf("%v is not maintained since %v (%v in data.sluicegate.end_of_life): build on a newer release", [
			system_name,
			data.sluicegate.end_of_life[name],
			name,
		]),
		"term": name,
	}
}

deny contains violation if {
	has_no_system
	count(data.components.list) == 0
	violation := {"code": system_code, "msg": "the scan found no operating system and the SBOMs list no component: nobody knows what the image is"}
}

deny contains violation if {
	has_no_system
	not data.components.are_readable
	violation := {"code": system_code, "msg": "the scan found no operating system, and purls of the SBOMs can't be read: correct the SBOMs"}
}

deny contains violation if {
	has_no_system
	some kind in ["deb", "rpm", "apk"]
	contains(data.components.lines, sprintf("\npkg:%v/", [kind]))
	violation := {
		"code": system_code,
		"msg": sprintf("the scan found no operating system, and the SBOM lists packages of one (pkg:%v): nobody knows how long it is maintained", [kind]),
		"term": kind,
	}
}

# What the scan says of the system; not defined where it says nothing, null where it found none.
system := input.scan.coverage.system

has_system if is_object(system)

has_no_system if {
	is_object(input.scan.coverage)
	system == null
}

family := system.family if system.family != ""

release := system.release if system.release != ""

is_named if {
	is_string(family)
	is_string(release)
}

default system_name := "the operating system"

system_name := sprintf("%v %v", [family, release]) if is_named

# debian 12.11 is "debian 12" and "debian 12.11": what a maintainer gives a date for has one part in some families and two in others.
names_of_the_system contains name if {
	is_named
	parts := split(release, ".")
	some last, _ in parts
	name := sprintf("%v %v", [family, concat(".", array.slice(parts, 0, last + 1))])
}

dates_are_readable if not "end_of_life" in object.keys(settings)

dates_are_readable if is_object(settings.end_of_life)

is_still_ahead(name) if not name in object.keys(dates)

is_still_ahead(name) if now < moment(dates[name])

default dates := {}

dates := settings.end_of_life if is_object(settings.end_of_life)

# METADATA
# title: No component is a package that nobody maintains
# description: >-
#   No component, however deep it is nested, is a package of data.sluicegate.end_of_life_packages whose date has come: a mapping of purls without
#   a version to dates. {} names none.
# custom:
#   short_name: packages
#   solution: Replace the package with one that is maintained.
#   requires: ["https://cyclonedx.org/bom"]
#   controls:
#     soc2: [CC7.1]
#     pci_dss: ["6.3.2", "6.3.3", "12.3.4"]
#     nist_ssdf: [PW.4.1, PW.4.4]
#   none_is_fine: [packages]
pass contains packages_code if {
	count(data.components.list) > 0
	is_string(data.components.lines)
	is_object(packages)
	is_number(now)
	every purl, date in packages {
		is_fine(purl, date)
	}
}

deny contains violation if {
	count(data.components.list) == 0
	violation := {"code": packages_code, "msg": "the SBOMs list no component: nobody knows what the image consists of"}
}

deny contains violation if {
	not packages_are_listed
	violation := {
		"code": packages_code,
		"msg": "data.sluicegate.end_of_life_packages is not a mapping of purls without a version to dates: write it, {} if it names none",
		"setting": "sluicegate.end_of_life_packages",
	}
}

deny contains violation if {
	not has_now
	violation := {"code": packages_code, "msg": "the facts do not say what time it is: nobody can tell which dates have come"}
}

deny contains violation if {
	not data.components.are_readable
	some component in data.components.list
	not data.components.has_purl(component)
	violation := object.union(about(component), {
		"code": packages_code,
		"msg": sprintf("%v has a purl that can't be read: nobody can say whether it is maintained", [data.components.place(component)]),
		"term": "purl",
	})
}

deny contains violation if {
	some purl, date in packages
	not is_fine(purl, date)
	some component in data.components.carriers(purl)
	violation := object.union(about(component), {
		"code": packages_code,
		"msg": sprintf("%v is not maintained since %v (%v in data.sluicegate.end_of_life_packages): replace it", [
			data.components.place(component),
			date,
			purl,
		]),
		"term": purl,
	})
}

# Not defined where the mapping is missing or has a key that is no purl or a value that is no date.
packages := listed if {
	listed := settings.end_of_life_packages
	is_object(listed)
	count([purl |
		some purl, date in listed
		data.components.is_purl(purl)
		is_number(moment(date))
	]) == count(listed)
}

packages_are_listed if is_object(packages)

has_now if is_number(now)

# From the very second on it is not.
is_fine(_, date) if now < moment(date)

is_fine(purl, _) if data.components.is_absent(purl)

default settings := {}

settings := data.sluicegate if is_object(data.sluicegate)

now := moment(input.now)

# A date alone is its first second in UTC.
moment(text) := time.parse_rfc3339_ns(text) if {
	regex.match(`^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)$`, text)
} else := time.parse_rfc3339_ns(concat("", [text, "T00:00:00Z"])) if {
	regex.match(`^\d{4}-\d\d-\d\d$`, text)
}

about(component) := {
	"subject": data.components.text(component, "purl", ""),
	"package": data.components.text(component, "name", ""),
	"attestation": data.components.text(component, "attestation", "without a digest"),
}
