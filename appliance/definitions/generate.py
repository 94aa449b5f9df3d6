#!/usr/bin/env python3
"""Draws elements.tsv, codes.tsv and search.tsv from the R4 definitions.

usage: generate.py PACKAGE_FOLDER [--check]

PACKAGE_FOLDER is the unpacked npm package hl7.fhir.r4.examples 4.0.1 (it holds the definitions too; CC0-1.0).
With --check nothing is written: the exit code says whether the tables are what the definitions give.
"""
import json
import pathlib
import re
import sys

HERE = pathlib.Path(__file__).parent
TYPES_FILE = HERE.parent / "src/fhir/types.rs"
# Answered, and kept in a table of its own: it is never stored as a resource.
TOLD = {"AuditEvent"}
# The element table draws these in whatever resource uses them.
PRIMITIVE = re.compile(r"http://hl7.org/fhirpath/System\.(\w+)")
# Elements by which a resource can come into a patient's compartment, in the order in which the store looks.
COMPARTMENT = ["patient", "subject", "beneficiary", "participant.actor", "for", "individual", "policyHolder", "source", "sender"]
# Which types of a choice a kind of search reads.
READS = {
    "token": {"CodeableConcept", "Coding", "Identifier", "code", "boolean", "string", "ContactPoint", "id", "uri", "canonical"},
    "string": {"string", "HumanName", "Address", "markdown"},
    "date": {"date", "dateTime", "instant", "Period"},
    "reference": {"Reference", "canonical", "uri"},
    "quantity": {"Quantity", "Age", "Money", "Duration", "Count", "Distance"},
    "uri": {"uri", "url", "canonical", "oid"},
}


class Definitions:
    def __init__(self, folder):
        self.structures, self.params, self.value_sets, self.code_systems = {}, [], {}, {}
        for path in sorted(folder.glob("*.json")):
            if not path.name.startswith(("StructureDefinition-", "SearchParameter-", "ValueSet-", "CodeSystem-")):
                continue
            item = json.loads(path.read_text())
            kind = item["resourceType"]
            if kind == "StructureDefinition" and item.get("derivation") != "constraint":
                self.structures[item["type"]] = item
            elif kind == "SearchParameter" and item.get("url", "").startswith("http://hl7.org/fhir/SearchParameter/"):
                self.params.append(item)
            elif kind == "ValueSet":
                self.value_sets[item["url"]] = item
            elif kind == "CodeSystem":
                self.code_systems[item["url"]] = item

    def codes(self, url):
        """(system, codes) of a value set that lists codes of one system; None where it does not."""
        value_set = self.value_sets.get(url.split("|")[0])
        include = (value_set or {}).get("compose", {}).get("include", [])
        if "exclude" in (value_set or {}).get("compose", {}) or not include:
            return None
        found, systems = [], []
        for part in include:
            if "valueSet" in part or "filter" in part or "system" not in part:
                return None
            systems.append(part["system"])
            if "concept" in part:
                found += [concept["code"] for concept in part["concept"]]
                continue
            system = self.code_systems.get(part["system"])
            if not system or system.get("content") != "complete":
                return None
            stack = list(system.get("concept", []))
            while stack:
                concept = stack.pop()
                found.append(concept["code"])
                stack += concept.get("concept", [])
        return (systems[0] if len(set(systems)) == 1 else ""), sorted(set(found))


def type_word(kind):
    code = kind["code"]
    primitive = PRIMITIVE.match(code)
    if primitive:
        return "string"
    if code in ("Reference", "canonical"):
        targets = [profile.rsplit("/", 1)[1] for profile in kind.get("targetProfile", [])]
        if code == "Reference":
            return f"Reference({' '.join(targets)})" if targets and "Resource" not in targets else "Reference"
    return code


def elements(definitions, kept):
    """(text of elements.tsv, {bound value sets}, {(parent, name): (types, max)})"""
    lines, bound, index = [], set(), {}
    wanted = [name for name in definitions.structures if definitions.structures[name]["kind"] != "primitive-type"]
    for name in sorted(wanted):
        structure = definitions.structures[name]
        if structure["kind"] == "resource" and name not in kept and not structure["abstract"]:
            continue
        if name in ("Resource", "DomainResource"):
            continue
        groups = {}
        for element in structure["snapshot"]["element"]:
            if "." not in element["path"]:
                groups.setdefault(element["path"], [])
                continue
            parent, field = element["path"].rsplit(".", 1)
            if "contentReference" in element:
                types = element["contentReference"].lstrip("#")
            else:
                words = [type_word(kind) for kind in element.get("type", [])]
                nested = words and words[0] in ("BackboneElement", "Element") and any(
                    other["path"].startswith(element["path"] + ".") for other in structure["snapshot"]["element"]
                )
                types = element["path"] if nested else "|".join(words)
            binding = element.get("binding", {})
            codes = ""
            if binding.get("strength") == "required" and definitions.codes(binding.get("valueSet", "")):
                codes = binding["valueSet"].split("|")[0].rsplit("/", 1)[1]
                bound.add(binding["valueSet"].split("|")[0])
            flags = ("S" if element.get("isSummary") else "") + ("M" if element.get("isModifier") else "")
            most = "1" if element["max"] == "1" else "*"
            groups.setdefault(parent, []).append("\t".join(["", field, f"{element['min']}{most}{flags}", types, codes]).rstrip("\t"))
            index[parent, field] = (element.get("type", []), element["max"], binding, types)
        for parent, fields in groups.items():
            lines.append(parent)
            lines += fields
    return "\n".join(lines) + "\n", bound, index


def resolve(index, kind, path, form):
    """The JSON paths of one FHIRPath of plain element names; choices become one path for each type that the form reads."""
    walked = [("", kind)]
    for step in path.split("."):
        field, condition = re.match(r"(\w+)(\[.*\])?$", step).groups()
        after = []
        for text, parent in walked:
            if (parent, field) in index:
                types, _, _, word = index[parent, field]
                if form == "uri" or field != "extension":
                    inner = word.split("|")[0].split("(")[0]
                    after.append((f"{text}.{field}{condition or ''}", inner))
            elif (parent, field + "[x]") in index:
                for choice in index[parent, field + "[x]"][0]:
                    code = choice["code"]
                    if condition and condition != f"[{code}]":
                        continue
                    if code in READS[form]:
                        after.append((f"{text}.{field}{code[0].upper()}{code[1:]}", code))
            else:
                raise SystemExit(f"{kind}: no element {parent}.{field}")
        walked = after
    return [(text.lstrip("."), inner) for text, inner in walked if inner.split("(")[0] in READS[form] or "." in inner]


def paths(definitions, index, param, kind, form):
    """([path], {type words}) of a parameter for one resource type."""
    found = []
    for part in param["expression"].split("|"):
        part = part.strip()
        if part.startswith("("):
            part = part[1:-1].strip()
        part = re.sub(r"\.where\(resolve\(\) is (\w+)\)", "", part)
        part = re.sub(r"\.where\((\w+)='(\w+)'\)", r"[\1=\2]", part)
        part = re.sub(r" as (\w+)$", r"[\1]", part.strip())
        part = re.sub(r"\.as\((\w+)\)", r"[\1]", part)
        if not part.startswith(kind + "."):
            continue
        rest = part[len(kind) + 1 :].replace(")", "")
        if "(" in rest or " " in rest:
            raise SystemExit(f"{kind} {param['code']}: cannot draw {part}")
        found += resolve(index, kind, rest, form)
    return found


def allowed(param, expression_kind):
    only = re.findall(rf"{expression_kind}\.[\w.]+\.where\(resolve\(\) is (\w+)\)", param["expression"])
    return only or param.get("target", [])


def search(definitions, index, kept):
    rows = []
    for line in (HERE / "search.txt").read_text().splitlines():
        if line.startswith("#") or not line.strip():
            continue
        kind, *names = line.split()
        rows += [row(definitions, index, kept, kind, name) for name in sorted(names)]
    return "\n".join(rows) + "\n"


def row(definitions, index, kept, kind, name):
    param = next((p for p in definitions.params if p["code"] == name and kind in p["base"] and "expression" in p), None)
    if param is None:
        raise SystemExit(f"{kind}: R4 has no search parameter {name}")
    form = param["type"]
    found = paths(definitions, index, param, kind, form)
    if not found:
        raise SystemExit(f"{kind} {name}: no path")
    texts = list(dict.fromkeys(text for text, _ in found))
    targets = [target for target in allowed(param, kind) if target in kept] if form == "reference" else []
    if len(targets) > 20:
        targets = ["*"]
    system = ""
    if form == "token" and all(inner == "code" for _, inner in found) and len(texts) == 1 and "." not in texts[0]:
        binding = index[kind, texts[0].split("[")[0]][2]
        codes = definitions.codes(binding.get("valueSet", "")) if binding.get("strength") == "required" else None
        system = codes[0] if codes else ""
    if form == "reference" and name in ("patient", "subject") and len(texts) == 1:
        form = compartment_form(index, kind, name, texts[0])
    return "\t".join([kind, name, form, " ".join(targets), system, " ".join(texts)])


def compartment_form(index, kind, name, text):
    """`patient`/`subject` where the store's own column answers; `reference` where other elements may fill that column."""
    def refers(path):
        parent, _, field = (kind + "." + path).rpartition(".")
        types, most = index.get((parent, field), ([], "0", None, ""))[:2]
        targets = [profile for kind in types for profile in kind.get("targetProfile", [])]
        return bool(types) and (not targets or any(profile.endswith(("/Patient", "/Resource")) for profile in targets))
    sources = [path for path in COMPARTMENT if refers(path)]
    single = index[kind, text][1] == "1" if (kind, text) in index else False
    return name if sources == [text] and single else "reference"


def main():
    folder, check = pathlib.Path(sys.argv[1]), "--check" in sys.argv[2:]
    kept = set(re.findall(r'^    "(\w+)",$', TYPES_FILE.read_text(), re.M))
    definitions = Definitions(folder)
    table, bound, index = elements(definitions, kept | TOLD)
    codes = []
    for url in sorted(bound, key=lambda url: url.rsplit("/", 1)[1]):
        system, words = definitions.codes(url)
        codes.append("\t".join([url.rsplit("/", 1)[1], system, " ".join(words)]))
    made = {"elements.tsv": table, "codes.tsv": "\n".join(codes) + "\n", "search.tsv": search(definitions, index, kept)}
    same = True
    for name, text in made.items():
        path = HERE / name
        if check:
            same = same and path.exists() and path.read_text() == text
        else:
            path.write_text(text)
    sys.exit(0 if same else "the tables are not what the definitions give: run generate.py without --check")


main()
