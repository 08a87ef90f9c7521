# METADATA
# scope: package
# title: What the SBOM lists
# description: >-
#   Declares no rule. The packages that judge components read them from here, so that 3,000 purls are brought into one form once and not for
#   every rule.
package components

# A list in any other form than an array is read as an empty one, and no rule passes because of that.
default list := []

list := input.sbom.components if is_array(input.sbom.components)

default documents := []

documents := input.sbom.documents if is_array(input.sbom.documents)

# Every purl on a line of its own, in one spelling. It is not defined where a component has no purl that is a text, not even an empty
# one: then nobody can say what is absent. One search in one long text costs far less than a split of each purl.
lines := normal(concat("\n", array.concat(array.concat([""], found), [""]))) if {
	found := [component.purl | some component in list]
	count(found) == count(list)
}

are_readable if is_string(lines)

has_purl(component) if is_string(component.purl)

# The spec lets writers choose whether to encode these, and no registry tells two packages apart by the case of their names.
normal(purl) := strings.replace_n({"%40": "@", "%2b": "+", "%3a": ":", "%7e": "~"}, lower(purl))

# Whether no component is this package. It is true only where the whole text was looked through. What may follow a purl that was written
# without a version or without qualifiers: one of these four.
is_absent(purl) if {
	contains(lines, concat("", ["\n", normal(purl)])) == false
} else if {
	every ending in ["@", "?", "#", "\n"] {
		contains(lines, concat("", ["\n", normal(purl), ending])) == false
	}
}

# Every component that is this package, in any version or, where the purl names one, in that one.
carriers(purl) := [component |
	start := normal(purl)
	some component in list
	line := concat("", [normal(component.purl), "\n"])
	startswith(line, start)
	some ending in ["@", "?", "#", "\n"]
	startswith(line, concat("", [start, ending]))
]

is_purl(text) if regex.match(`^pkg:[A-Za-z][A-Za-z0-9.+-]*/[^\s?#]*[^\s?#/@]$`, text)

# Where a component stands: the names of what it is nested in, outermost first, and its own.
place(component) := concat(" > ", array.concat(nesting(component), [title(component)]))

nesting(component) := [name |
	is_array(component.path)
	some name in component.path
	is_string(name)
]

title(component) := trim_space(concat(" ", [text(component, "name", "without a name"), text(component, "version", "")]))

# A component's field: a violation must never be lost because one is missing.
text(component, field, otherwise) := component[field] if {
	is_string(component[field])
	component[field] != ""
} else := otherwise
