//! What people call an element of a record: the words in place of the names that programs use.

/// Elements whose words are not those of their name.
const WORDS: [(&str, &str); 53] = [
    ("abatementDateTime", "ended"),
    ("active", "in use"),
    ("asNeededBoolean", "as needed"),
    ("asserter", "stated by"),
    ("attachment", "file"),
    ("authored", "written"),
    ("authoredOn", "ordered on"),
    ("basedOn", "ordered by"),
    ("birthDate", "birth date"),
    ("clinicalStatus", "state"),
    ("comparator", "more or less than"),
    ("contentType", "kind of file"),
    ("deceasedBoolean", "deceased"),
    ("deceasedDateTime", "died"),
    ("doseAndRate", "dose"),
    ("dosageInstruction", "dosage"),
    ("effectiveDateTime", "when"),
    ("effectivePeriod", "when"),
    ("encounter", "visit"),
    ("extension", "further detail"),
    ("family", "family name"),
    ("gender", "sex"),
    ("given", "given name"),
    ("hasMember", "part"),
    ("identifier", "number"),
    ("interpretation", "rating"),
    ("item", "question"),
    ("line", "street"),
    ("linkId", "name of the question"),
    ("lotNumber", "lot"),
    ("medicationCodeableConcept", "medication"),
    ("medicationReference", "medication"),
    ("occurrenceDateTime", "when"),
    ("onsetDateTime", "since"),
    ("payor", "insurer"),
    ("performer", "done by"),
    ("period", "time"),
    ("postalCode", "postal code"),
    ("prefix", "title"),
    ("protocolApplied", "series"),
    ("recordedDate", "recorded on"),
    ("recorder", "recorded by"),
    ("reference", "record"),
    ("referenceRange", "usual range"),
    ("requester", "ordered by"),
    ("subject", "patient"),
    ("subscriberId", "member number"),
    ("system", "list that it is from"),
    ("telecom", "phone or mail"),
    ("url", "address"),
    ("use", "used as"),
    ("vaccineCode", "vaccine"),
    ("verificationStatus", "certainty"),
];

/// Ends of names that tell the type of the value, which people do not ask for.
const TYPES: [&str; 13] = [
    "CodeableConcept",
    "Attachment",
    "Reference",
    "DateTime",
    "Quantity",
    "Boolean",
    "Integer",
    "Decimal",
    "Period",
    "String",
    "Coding",
    "Range",
    "Ratio",
];

/// The words for one element.
pub fn word(name: &str) -> String {
    if let Some((_, word)) = WORDS.iter().find(|(known, _)| *known == name) {
        return (*word).to_owned();
    }
    // The shadow of a simple element holds its extensions.
    let plain = name.strip_prefix('_').unwrap_or(name);
    let value = plain.strip_prefix("value").filter(|kind| kind.starts_with(|c: char| c.is_ascii_uppercase()));
    if value.is_some() {
        return "value".to_owned();
    }
    let typed = TYPES.iter().find_map(|end| plain.strip_suffix(end)).filter(|rest| !rest.is_empty());
    let mut words = String::new();
    for letter in typed.unwrap_or(plain).chars() {
        if letter.is_ascii_uppercase() {
            words.push(' ');
        }
        words.extend(letter.to_lowercase());
    }
    words
}

/// The first letter large.
pub fn sentence(words: &str) -> String {
    let mut letters = words.chars();
    letters.next().map(|first| first.to_uppercase().chain(letters).collect()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_become_words() {
        for (name, told) in [
            ("birthDate", "birth date"),
            ("valueQuantity", "value"),
            ("value", "value"),
            ("multipleBirthBoolean", "multiple birth"),
            ("maritalStatus", "marital status"),
            ("_given", "given"),
            ("", ""),
        ] {
            assert_eq!(word(name), told, "{name}");
        }
        assert_eq!(sentence("état"), "État");
    }
}
