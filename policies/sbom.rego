# METADATA
# scope: package
# title: What it consists of
# description: Rules about the software bills of materials of the image, the components that they list, and their licences.
package sbom

sbom_type := "https://cyclonedx.org/bom"

present_code := "sbom.present"

complete_code := "sbom.complete"

ntia_code := "sbom.ntia"

licenses_code := "sbom.licenses"

banned_code := "sbom.banned"

# A file is known by its hash, an application (as scanners use the word: a lock file or a program) by the place where the libraries below it
# were found, and an operating system by family and release. No registry gives them a purl, and files and places have no version.
not_packages := {"operating-system", "application", "file"}

# METADATA
# title: There is an SBOM of the image
# description: >-
#   At least one SBOM is about the image itself and lists a component.
# custom:
#   short_name: present
#   solution: >-
#     Build with a builder that writes an SBOM of the image. An image of files that no analyser knows needs an SBOM of the step's output.
#   requires: ["https://cyclonedx.org/bom"]
#   controls:
#     soc2: [CC6.8, CC7.1]
#     pci_dss: ["6.3.2"]
#     nist_ssdf: [PS.3.2]
pass contains present_code if {
	count(data.components.list) > 0
	count(documents_of_the_image) > 0
}

deny contains violation if {
	count(documents_of_the_image) == 0
	violation := {
		"code": present_code,
		"msg": "no SBOM that lists a component is about the image: build it with a builder that writes one",
		"subject": image,
	}
}

deny contains violation if {
	count(data.components.list) == 0
	violation := {
		"code": present_code,
		"msg": "the SBOMs list no component: nobody knows what the image consists of",
		"subject": image,
	}
}

documents_of_the_image contains document.attestation if {
	some document in data.components.documents
	is_number(document.components)
	document.components > 0
	some statement in attestations
	statement.digest == document.attestation
	statement.predicateType == sbom_type
	is_array(statement.subjects)
	some subject in statement.subjects
	subject.digest == input.subject.digest
}

default attestations := []

attestations := input.attestations if is_array(input.attestations)

default image := "that is judged"

image := input.subject.digest if is_string(input.subject.digest)

# METADATA
# title: Every component can be told apart
# description: >-
#   Each component has a name, a version and a purl. Operating systems, applications (places where libraries were found) and files need
#   a name only: no registry gives them a purl. A component that does not say its type needs all three.
# custom:
#   short_name: complete
#   solution: >-
#     Let the tool that wrote the SBOM say name, version and purl of the component, or correct the SBOM that the step writes.
#   requires: ["https://cyclonedx.org/bom"]
#   controls:
#     soc2: [CC6.8, CC7.1]
#     pci_dss: ["6.3.2"]
#     nist_ssdf: [PS.3.2, PW.4.1]
pass contains complete_code if {
	count(data.components.list) > 0
	are_complete
}

deny contains violation if {
	count(data.components.list) == 0
	violation := {"code": complete_code, "msg": "the SBOMs list no component: nobody knows what the image consists of"}
}

deny contains violation if {
	not are_complete
	some component in data.components.list
	some field in ["name", "version", "purl"]
	is_owed(component, field)
	not has(component, field)
	violation := object.union(about(component), {
		"code": complete_code,
		"msg": sprintf("%v has no %v: let the tool that wrote the SBOM say it", [data.components.place(component), field]),
		"term": field,
	})
}

# The comparisons say "a text that is not empty": texts stand between numbers and arrays in Rego's order. They cost a tenth of a call, and
# there may be thousands of components. That purls are texts is known where data.components.lines is.
are_complete if {
	is_string(data.components.lines)
	count(identified) + count(named) == count(data.components.list)
}

identified := [component |
	some component in data.components.list
	component.purl > ""
	component.version > ""
	component.name > ""
	component.version < []
	component.name < []
]

# What is no package and not among those: a name is enough.
named := [component |
	some component in others
	component.type in not_packages
	not is_identified(component)
	has(component, "name")
]

others := [component | some component in data.components.list; component.type != "library"]

is_identified(component) if {
	has(component, "purl")
	has(component, "version")
	has(component, "name")
}

is_no_package(component) if component.type in not_packages

is_owed(_, "name") := true

is_owed(component, field) if {
	field != "name"
	not is_no_package(component)
}

has(component, field) if {
	is_string(component[field])
	component[field] != ""
}

# METADATA
# title: The SBOMs have the NTIA's minimum elements
# description: >-
#   Each SBOM names an author and a time and says of all its components what depends on what, and each component has a supplier, a
#   name, a version and a purl as its other unique identifier. Operating systems, applications and files need a name only, as in
#   sbom.complete. data.sluicegate.sbom.ntia is true where a gate demands this, and false where it does not.
# custom:
#   short_name: ntia
#   solution: >-
#     Use a tool that writes the named element. Package managers of languages often know no supplier: waive those by purl, or let the
#     gate's owners set data.sluicegate.sbom.ntia to false.
#   requires: ["https://cyclonedx.org/bom"]
#   controls:
#     soc2: [CC6.8, CC7.1]
#     pci_dss: ["6.3.2"]
#     nist_ssdf: [PS.3.2, PW.4.1]
pass contains ntia_code if data.sluicegate.sbom.ntia == false

pass contains ntia_code if {
	data.sluicegate.sbom.ntia == true
	count(data.components.list) > 0
	count(data.components.documents) > 0
	every document in data.components.documents {
		names_authors(document)
		says_when(document)
		relates(document)
	}
	are_supplied
}

deny contains violation if {
	not ntia_is_set
	violation := {
		"code": ntia_code,
		"msg": "data.sluicegate.sbom.ntia is neither true nor false: write whether the gate demands the NTIA's minimum elements",
		"setting": "sluicegate.sbom.ntia",
	}
}

deny contains violation if {
	data.sluicegate.sbom.ntia == true
	count(data.components.list) == 0
	violation := {"code": ntia_code, "msg": "the SBOMs list no component: nobody knows what the image consists of"}
}

deny contains violation if {
	data.sluicegate.sbom.ntia == true
	count(data.components.documents) == 0
	violation := {"code": ntia_code, "msg": "the facts hold no SBOM: build the image with a builder that writes one"}
}

deny contains violation if {
	data.sluicegate.sbom.ntia == true
	some document in data.components.documents
	some element in missing_elements(document)
	attestation := data.components.text(document, "attestation", "without a digest")
	violation := {
		"code": ntia_code,
		"msg": sprintf("the SBOM %v %v: use a tool that writes it", [attestation, element.what]),
		"term": element.name,
		"attestation": attestation,
	}
}

deny contains violation if {
	data.sluicegate.sbom.ntia == true
	not are_supplied
	some component in data.components.list
	some field in ["name", "supplier", "version", "purl"]
	is_owed(component, field)
	not has(component, field)
	violation := object.union(about(component), {
		"code": ntia_code,
		"msg": sprintf("%v has no %v, which the NTIA's minimum elements demand", [data.components.place(component), field]),
		"term": field,
	})
}

ntia_is_set if is_boolean(data.sluicegate.sbom.ntia)

are_supplied if {
	is_string(data.components.lines)
	(count(supplied) + count(unsupplied)) + count(named) == count(data.components.list)
}

supplied := [component |
	some component in identified
	component.supplier > ""
	component.supplier < []
]

# What is no package has a purl and a version, and nobody who supplied it.
unsupplied := [component |
	some component in identified
	component.type in not_packages
	not has(component, "supplier")
]

names_authors(document) if {
	is_array(document.authors)
	some author in document.authors
	is_string(author)
	trim_space(author) != ""
}

says_when(document) if {
	regex.match(`^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)$`, document.timestamp)
	time.parse_rfc3339_ns(document.timestamp) > 0
}

# A component that is in no relationship may belong to anything.
relates(document) if {
	is_number(document.related)
	is_number(document.components)
	document.components > 0
	document.related >= document.components
}

missing_elements(document) := {element |
	not names_authors(document)
	element := {"name": "author", "what": "names no author"}
} | (undated(document) | unrelated(document))

undated(document) := {element |
	not says_when(document)
	element := {"name": "timestamp", "what": "does not say when it was made"}
}

unrelated(document) := {element |
	not relates(document)
	element := {"name": "relationship", "what": "does not say of all its components what depends on what"}
}

# METADATA
# title: Every licence is an allowed one
# description: >-
#   Each component has an alternative of licences that all stand in data.sluicegate.licenses.allowed; "*" there accepts every licence, also one
#   that can't be read. A component that says nothing about its licence is accepted where data.sluicegate.licenses.unknown is allow.
#   Operating systems, applications and files without one are not judged, as they are no packages. Exceptions for a package are waivers.
# custom:
#   short_name: licenses
#   solution: >-
#     Replace the component, let the gate's owners add the licence to data.sluicegate.licenses.allowed, or waive it for this purl.
#   requires: ["https://cyclonedx.org/bom"]
#   controls:
#     soc2: [CC3.2, CC9.2]
#     pci_dss: ["6.3.2"]
#     nist_ssdf: [PO.1.3, PW.4.1]
pass contains licenses_code if {
	count(data.components.list) > 0
	is_set(allowed_licenses)
	unknown_licenses in {"allow", "deny"}
	are_licensed
}

deny contains violation if {
	count(data.components.list) == 0
	violation := {"code": licenses_code, "msg": "the SBOMs list no component: nobody knows what the image consists of"}
}

deny contains violation if {
	not licenses_are_listed
	violation := {
		"code": licenses_code,
		"msg": "data.sluicegate.licenses.allowed is not a list of SPDX ids: write it, [\"*\"] if every licence is accepted",
		"setting": "sluicegate.licenses.allowed",
	}
}

deny contains violation if {
	not unknown_licenses in {"allow", "deny"}
	violation := {
		"code": licenses_code,
		"msg": "data.sluicegate.licenses.unknown is neither allow nor deny: write what holds for a component without a licence",
		"setting": "sluicegate.licenses.unknown",
	}
}

deny contains violation if {
	is_set(allowed_licenses)
	not are_licensed
	some component in data.components.list
	not licenses_of(component) in accepted
	some refused in refused_licenses(component)
	violation := object.union(about(component), {
		"code": licenses_code,
		"msg": sprintf("%v %v", [data.components.place(component), refused.what]),
		"term": refused.term,
	})
}

# Not defined where the list is missing or holds something that is no text.
allowed_licenses := listed if {
	is_array(data.sluicegate.licenses.allowed)
	listed := {id | some id in data.sluicegate.licenses.allowed}
	count({id | some id in listed; is_string(id); id != ""}) == count(listed)
}

licenses_are_listed if is_set(allowed_licenses)

default unknown_licenses := ""

unknown_licenses := data.sluicegate.licenses.unknown

are_licensed if {
	count(licenses) == count(data.components.list)
	stated == accepted
	unlicensed_are_accepted
}

# What components say, each answer once: thousands of them say the same few things.
licenses := [component.licenseOptions | some component in data.components.list]

stated := {options | some options in licenses} - {[]}

accepted := {options | some options in stated; is_accepted(options)}

is_accepted(options) if {
	is_array(options)
	some option in options
	is_array(option)
	count(option) > 0
	every id in option {
		id in allowed_licenses
	}
}

is_accepted(options) if {
	"*" in allowed_licenses
	says_something(options)
}

unlicensed_are_accepted if unknown_licenses == "allow"

unlicensed_are_accepted if {
	unknown_licenses == "deny"
	silent := [component | some component in data.components.list; component.licenseOptions == []]
	count([component | some component in silent; component.type in not_packages]) == count(silent)
}

says_something(null) := true

says_something(options) if {
	is_array(options)
	some option in options
	is_array(option)
	some id in option
	is_string(id)
}

# Of several alternatives the one that comes nearest is told, so that a waiver for each of its licences is enough.
refused_licenses(component) := {refused |
	options := component.licenseOptions
	is_array(options)
	nearest := min([[count(ids), ids] | some option in options; ids := refused_ids(option)])
	some id in nearest[1]
	refused := {"term": id, "what": sprintf("is under %v, which is not in data.sluicegate.licenses.allowed", [id])}
} | (unlicensed(component) | unreadable(component))

refused_ids(option) := ids if {
	is_array(option)
	count(option) > 0
	ids := sort([shown(id) | some id in option; not id in allowed_licenses])
} else := ["nothing that can be read"]

shown(id) := id if {
	is_string(id)
} else := sprintf("%v", [id])

unlicensed(component) := {refused |
	component.licenseOptions == []
	not unknown_licenses == "allow"
	not is_no_package(component)
	refused := {
		"term": "unknown",
		"what": "says nothing about its licence, and data.sluicegate.licenses.unknown is not allow",
	}
}

unreadable(component) := {{
	"term": "unreadable",
	"what": "has a licence that can't be read: let the tool that wrote the SBOM write an SPDX expression",
} |
	not is_array(licenses_of(component))
}

default licenses_of(_) := null

licenses_of(component) := component.licenseOptions

# METADATA
# title: No component is a banned package
# description: >-
#   No component, however deep it is nested, is a package of data.sluicegate.banned_packages: a purl there without a version bans every version,
#   one with a version only that. How a purl is encoded and the case of its letters make no difference. [] bans none.
# custom:
#   short_name: banned
#   solution: Replace the package in what brings it in, or let the gate's owners take it out of data.sluicegate.banned_packages.
#   requires: ["https://cyclonedx.org/bom"]
#   controls:
#     soc2: [CC6.8, CC7.1]
#     pci_dss: ["6.3.1", "6.3.2"]
#     nist_ssdf: [PW.4.1, PW.4.4]
#   none_is_fine: [banned]
pass contains banned_code if {
	count(data.components.list) > 0
	is_set(banned)
	is_string(data.components.lines)
	every purl in banned {
		data.components.is_absent(purl)
	}
}

deny contains violation if {
	count(data.components.list) == 0
	violation := {"code": banned_code, "msg": "the SBOMs list no component: nobody knows what the image consists of"}
}

deny contains violation if {
	not bans_are_listed
	violation := {
		"code": banned_code,
		"msg": "data.sluicegate.banned_packages is not a list of purls without qualifiers: write it, [] if none is banned",
		"setting": "sluicegate.banned_packages",
	}
}

deny contains violation if {
	not data.components.are_readable
	some component in data.components.list
	not data.components.has_purl(component)
	violation := object.union(about(component), {
		"code": banned_code,
		"msg": sprintf("%v has a purl that can't be read: nobody can say whether it is banned", [data.components.place(component)]),
		"term": "purl",
	})
}

deny contains violation if {
	some purl in banned
	not data.components.is_absent(purl)
	some component in data.components.carriers(purl)
	violation := object.union(about(component), {
		"code": banned_code,
		"msg": sprintf("%v is banned (%v in data.sluicegate.banned_packages): replace it", [data.components.place(component), purl]),
		"term": purl,
	})
}

# Not defined where the list is missing or holds something that is no purl.
banned := listed if {
	is_array(data.sluicegate.banned_packages)
	listed := {purl | some purl in data.sluicegate.banned_packages}
	count({purl | some purl in listed; data.components.is_purl(purl)}) == count(listed)
}

bans_are_listed if is_set(banned)

# What every violation says of its component.
about(component) := {
	"subject": data.components.text(component, "purl", ""),
	"package": data.components.text(component, "name", ""),
	"attestation": data.components.text(component, "attestation", "without a digest"),
}
