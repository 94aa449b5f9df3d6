//! Identifiers and contact persons of a patient, as rows of the registration page. A row that nobody changed leaves its element as
//! it is, to the byte; what the page does not know (extensions, identifiers of other kinds) stays in any case.

use super::fields::{self, Field, Problems};
use super::form::Form;
use super::merge;
use super::reading::{RECORD_NUMBER, concept, list, text};
use maud::{Markup, html};
use serde_json::{Map, Value, json};

const IDENTIFIER_TYPE: &str = "http://terminology.hl7.org/CodeSystem/v2-0203";
const CONTACT_ROLE: &str = "http://terminology.hl7.org/CodeSystem/v2-0131";
/// Kinds of identifiers, by their codes in v2-0203; what has no code there is called by its text.
const KINDS: [(&str, &str); 8] = [
    ("MR", "Medical record number"),
    (MEMBER, "Insurance member number"),
    (SOCIAL, "Social Security number"),
    ("NI", "National person number"),
    ("DL", "Driver’s license number"),
    ("PPN", "Passport number"),
    ("PI", "Patient number elsewhere"),
    (OTHER, "Other number"),
];
const MEMBER: &str = "MB";
const SOCIAL: &str = "SS";
/// The issuer of the Social Security numbers of the United States.
const US_SOCIAL: &str = "http://hl7.org/fhir/sid/us-ssn";
/// Letters are codes of v2-0131.
const ROLES: [(&str, &str); 4] = [
    ("C", "Emergency contact"),
    ("N", "Next of kin"),
    ("CN", "Emergency contact and next of kin"),
    (OTHER, "Other contact"),
];
const OTHER: &str = "other";
const CELL_CHARS_MAX: usize = 200;

/// The two lists of a `Patient` that are entered in rows.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Part {
    Identifiers,
    Contacts,
}

/// One row: what stands in the element at place `at`, or shall become a new one.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct Row {
    at: Option<usize>,
    cells: [String; 4],
}

/// Names of the form's fields for one row; `row` holds all of it at once, on the page on which two changes meet.
struct Names {
    row: &'static str,
    at: &'static str,
    cells: [&'static str; 4],
}

macro_rules! names {
    ($prefix:literal, $a:literal, $b:literal, $c:literal, $d:literal, [$($n:literal),*]) => {
        [$(Names {
            row: concat!($prefix, $n),
            at: concat!($prefix, $n, "-at"),
            cells: [concat!($prefix, $n, $a), concat!($prefix, $n, $b), concat!($prefix, $n, $c), concat!($prefix, $n, $d)],
        }),*]
    };
}

static IDENTIFIERS: [Names; 8] = names!("id-", "-kind", "-called", "-system", "-value", [1, 2, 3, 4, 5, 6, 7, 8]);
static CONTACTS: [Names; 4] = names!("contact-", "-role", "-relation", "-name", "-phone", [1, 2, 3, 4]);

impl Row {
    /// An identifier's kind, system and value.
    pub fn identifier(&self) -> (&str, &str, &str) {
        let [kind, _, system, value] = &self.cells;
        (kind, system, value)
    }

    /// Whether both are one number: of one issuer, or of one kind where none is named.
    fn is_same_number(&self, other: &Row) -> bool {
        let ([kind, called, system, value], [kind_of, called_of, system_of, value_of]) = (&self.cells, &other.cells);
        let of_one = system == system_of && (!system.is_empty() || (kind, called) == (kind_of, called_of));
        of_one && !plain(value).is_empty() && plain(value) == plain(value_of)
    }

    fn told(&self, part: Part) -> String {
        if part.is_blank(self) {
            return String::new();
        }
        let (label, value) = self.shown(part);
        format!("{label}: {value}")
    }

    /// Label and words, as the chart and the downtime pack say it.
    pub fn shown(&self, part: Part) -> (String, String) {
        let word = |all: &[(&str, &str)], code: &str| {
            all.iter().find(|(known, _)| *known == code).map_or("Contact", |(_, word)| word).to_owned()
        };
        let [first, second, third, fourth] = &self.cells;
        match part {
            Part::Identifiers => {
                let label = if second.is_empty() { word(&KINDS, first) } else { second.clone() };
                let issuer = if third.is_empty() { String::new() } else { format!(" ({third})") };
                (label, format!("{fourth}{issuer}"))
            }
            Part::Contacts => {
                let relation = if second.is_empty() { String::new() } else { format!(" ({second})") };
                let phone = if fourth.is_empty() { String::new() } else { format!(", phone {fourth}") };
                (word(&ROLES, first), format!("{third}{relation}{phone}"))
            }
        }
    }

    /// All of the row in one value.
    fn joined(&self) -> String {
        let at = self.at.map(|at| at.to_string()).unwrap_or_default();
        if at.is_empty() && self.cells.iter().all(String::is_empty) {
            at
        } else {
            format!("{at}\t{}", self.cells.join("\t"))
        }
    }

    fn split(joined: &str) -> Row {
        let mut parts = joined.split('\t');
        let at = parts.next().and_then(|at| at.parse().ok());
        Row { at, cells: std::array::from_fn(|_| parts.next().unwrap_or_default().trim().to_owned()) }
    }
}

impl Part {
    fn element(self) -> &'static str {
        match self {
            Part::Identifiers => "identifier",
            Part::Contacts => "contact",
        }
    }

    fn names(self) -> &'static [Names] {
        match self {
            Part::Identifiers => &IDENTIFIERS,
            Part::Contacts => &CONTACTS,
        }
    }

    /// Whether a row says nothing: its element goes, where it has one.
    fn is_blank(self, row: &Row) -> bool {
        let [_, second, third, fourth] = &row.cells;
        match self {
            Part::Identifiers => fourth.is_empty(),
            Part::Contacts => second.is_empty() && third.is_empty() && fourth.is_empty(),
        }
    }

    fn read(self, element: &Value) -> Option<[String; 4]> {
        let cells = match self {
            Part::Identifiers => read_identifier(element)?.map(str::to_owned),
            Part::Contacts => read_contact(element)?,
        };
        Some(cells).filter(|cells| !cells.iter().any(|cell| cell.contains('\t')))
    }

    fn write(self, element: &mut Map<String, Value>, before: &[String; 4], cells: &[String; 4]) {
        match self {
            Part::Identifiers => write_identifier(element, before, cells),
            Part::Contacts => write_contact(element, before, cells),
        }
    }

    /// The rows of a patient.
    pub fn rows(self, patient: &Value) -> Vec<Row> {
        let elements = list(patient, self.element()).iter().enumerate();
        let rows = elements.filter_map(|(at, element)| Some(Row { at: Some(at), cells: self.read(element)? }));
        rows.take(self.names().len()).collect()
    }

    /// What a form says, each row with its place among the form's rows.
    fn typed(self, form: &Form) -> Vec<(usize, Row)> {
        let row = |names: &Names| match form.raw(names.row) {
            "" => Row {
                at: form.text(names.at).parse().ok(),
                cells: names.cells.map(|name| form.text(name).replace('\t', " ")),
            },
            joined => Row::split(joined),
        };
        let rows = self.names().iter().map(row).enumerate();
        rows.filter(|(_, row)| row.at.is_some() || row.cells.iter().any(|cell| !cell.is_empty())).collect()
    }

    /// The fields of a form that shows these rows.
    pub fn fields(self, rows: &[Row]) -> Vec<(String, String)> {
        let pairs = self.names().iter().zip(rows).flat_map(|(names, row)| {
            let at = row.at.map(|at| at.to_string()).unwrap_or_default();
            let cells = names.cells.iter().zip(&row.cells).map(|(name, cell)| ((*name).to_owned(), cell.clone()));
            cells.chain([(names.at.to_owned(), at)])
        });
        pairs.collect()
    }

    /// Writes a form's rows into a patient. Elements of which the form says nothing stay.
    pub fn apply(self, patient: &mut Map<String, Value>, form: &Form) {
        let mut elements = match patient.get(self.element()) {
            Some(Value::Array(elements)) => elements.clone(),
            _ => Vec::new(),
        };
        let (before, mut gone) = (elements.clone(), Vec::new());
        for (_, row) in self.typed(form) {
            let stored = row.at.and_then(|at| Some((at, self.read(before.get(at)?)?)));
            match (stored, self.is_blank(&row)) {
                (Some((at, _)), true) => gone.push(at),
                (Some((at, stored)), false) => {
                    if let Some(Value::Object(element)) = elements.get_mut(at) {
                        self.write(element, &stored, &row.cells);
                    }
                }
                (None, true) => {}
                (None, false) => {
                    let mut element = Map::new();
                    self.write(&mut element, &Default::default(), &row.cells);
                    elements.push(element.into());
                }
            }
        }
        let mut place = 0;
        elements.retain(|_| {
            place += 1;
            !gone.contains(&(place - 1))
        });
        if elements.is_empty() {
            patient.remove(self.element());
        } else if elements != before {
            patient.insert(self.element().into(), elements.into());
        }
    }

    /// Rows that two people changed at once, a field each: what was opened, what was typed, what is stored now.
    pub fn merged(self, base: &[Row], form: &Form, theirs: &[Row]) -> Vec<merge::Field> {
        let mut mine: Vec<Row> = self.typed(form).into_iter().map(|(_, row)| row).collect();
        let mut theirs = theirs.to_vec();
        // What is stored as it was opened is the same row; what is left of both is taken in order.
        let mut found: Vec<Option<Row>> =
            base.iter().map(|row| take(&mut theirs, |other| other.cells == row.cells)).collect();
        for place in &mut found {
            if place.is_none() && !theirs.is_empty() {
                *place = Some(theirs.remove(0));
            }
        }
        let mut slots: Vec<[Row; 3]> = Vec::new();
        for (row, found) in base.iter().zip(found) {
            // A form that says nothing of it leaves it.
            let own = take(&mut mine, |own| own.at == row.at).unwrap_or_else(|| row.clone());
            slots.push([row.clone(), own, found.unwrap_or_default()]);
        }
        for own in mine {
            let other = take(&mut theirs, |other| other.cells == own.cells).unwrap_or_default();
            slots.push([Row::default(), own, other]);
        }
        // What only the other one added stays unless the form speaks of it.
        slots.extend(theirs.into_iter().map(|other| [Row::default(), Row { at: other.at, ..Row::default() }, other]));
        let field = |(names, rows): (&Names, [Row; 3])| {
            let at = rows.last().and_then(|theirs| theirs.at);
            let words: Vec<(String, String)> =
                rows.iter().map(|row| (Row { at, ..row.clone() }.joined(), row.told(self))).collect();
            let [base, own, other] = rows.map(|row| Row { at, ..row }.joined());
            let label = if self == Part::Identifiers { "Number" } else { "Contact person" };
            merge::Field::new(names.row, label, &base, &own, &other).words(words)
        };
        self.names().iter().zip(slots).map(field).collect()
    }

    /// Says what is wrong with the rows of a form. A row that says what it said when the record was opened is not asked about:
    /// who changes something else need not know better.
    pub fn check(self, form: &Form, opened: &[Row], problems: &mut Problems) {
        let typed = self.typed(form);
        let is_new = |row: &Row| !opened.iter().any(|stored| stored.at == row.at && stored.cells == row.cells);
        for (place, row) in typed.iter().filter(|(_, row)| is_new(row)) {
            let twice = |(at, other): &&(usize, Row)| {
                at != place && (at < place || !is_new(other)) && row.is_same_number(other)
            };
            let Some(Names { cells: names, .. }) = self.names().get(*place) else { continue };
            for (name, cell) in names.iter().zip(&row.cells) {
                if cell.chars().count() > CELL_CHARS_MAX {
                    problems.add(name, format!("Please shorten this to {CELL_CHARS_MAX} characters."));
                }
            }
            match self {
                Part::Identifiers if typed.iter().any(|other| twice(&other)) => {
                    problems.add(names[3], "This number stands here already; empty one of the two.");
                }
                Part::Identifiers => check_identifier(row, names, problems),
                Part::Contacts => {
                    let stored = opened.iter().find(|stored| row.at.is_some() && stored.at == row.at);
                    check_contact(row, stored.map_or("", |stored| &stored.cells[3]), names, problems);
                }
            }
        }
    }

    /// The rows of a form, and one more to fill in.
    pub fn show(self, form: &Form, problems: &Problems) -> Markup {
        let typed = self.typed(form);
        let free = (0..self.names().len()).find(|place| !typed.iter().any(|(taken, _)| taken == place));
        let fresh = free.map(|place| (place, Row::default()));
        let (legend, label, id) = match self {
            Part::Identifiers => ("Numbers", "Number", "identifiers"),
            Part::Contacts => ("Contact persons", "Contact person", "contacts"),
        };
        html! {
            fieldset id=(id) {
                legend { (legend) }
                @if self == Part::Identifiers { p.hint { "The practice’s own record number is given by itself. Numbers that other programs keep stay as they are. \
                    To remove one, empty its field “Number”." } }
                @else { p.hint { "Who is called in an emergency, and the next of kin. To remove one, empty its fields." } }
                @for (shown, (place, row)) in typed.iter().chain(&fresh).enumerate() {
                    @if let Some(names) = self.names().get(*place) {
                        fieldset.questions { legend { (label) " " (shown + 1) }
                            @if let Some(at) = row.at { input type="hidden" name=(names.at) value=(at); }
                            div.columns { (self.inputs(row, names, problems)) }
                        }
                    }
                }
            }
        }
    }

    fn inputs(self, row: &Row, names: &Names, problems: &Problems) -> Markup {
        let [first, second, third, fourth] = names.cells;
        let [a, b, c, d] = &row.cells;
        match self {
            Part::Identifiers => html! {
                (fields::select("What it is", first, a, &fields::pairs(&KINDS), false, problems))
                (Field::new("Number", fourth, d).show(problems))
                (Field::new("Called", second, b).hint("For another number, such as: Employee number").show(problems))
                (Field::new("Issuer", third, c).hint("Its address, where it has one, such as urn:oid:1.2.3").show(problems))
            },
            Part::Contacts => html! {
                (fields::select("What for", first, a, &fields::pairs(&ROLES), false, problems))
                (Field::new("Name", third, c).show(problems))
                (Field::new("Relationship", second, b).hint("For example: sister").show(problems))
                (Field::new("Phone", fourth, d).kind("tel").show(problems))
            },
        }
    }
}

fn take(rows: &mut Vec<Row>, is: impl Fn(&Row) -> bool) -> Option<Row> {
    rows.iter().position(is).map(|place| rows.remove(place))
}

fn plain(value: &str) -> String {
    value.chars().filter(|c| c.is_alphanumeric()).collect::<String>().to_lowercase()
}

/// How much a shared identifier says: families share the number of an insurance, other numbers are one person's.
pub fn shared(own: &[Row], other: &[Row]) -> Option<bool> {
    let same = |one: &Row, two: &Row| {
        let ((kind, system, value), (other_kind, other_system, other_value)) = (one.identifier(), two.identifier());
        let issuer = system == other_system || system.is_empty() || other_system.is_empty();
        kind == other_kind && issuer && !plain(value).is_empty() && plain(value) == plain(other_value)
    };
    let found = own.iter().filter(|one| other.iter().any(|two| same(one, two)));
    found.map(|one| one.identifier().0 != MEMBER).max()
}

/// The identifiers of a form that are whole.
pub fn identifiers_of(form: &Form) -> Vec<Row> {
    let typed = Part::Identifiers.typed(form).into_iter().map(|(_, row)| row);
    typed.filter(|row| !Part::Identifiers.is_blank(row) && !row.identifier().0.is_empty()).collect()
}

fn check_identifier(
    row: &Row,
    [kind_name, called_name, system_name, value_name]: &[&'static str; 4],
    problems: &mut Problems,
) {
    let [kind, called, system, value] = &row.cells;
    if value.is_empty() {
        // A row that was there is emptied to remove it.
        if row.at.is_none() {
            problems.add(value_name, "Please enter the number, or choose nothing before it.");
        }
        return;
    }
    if !KINDS.iter().any(|(code, _)| code == kind) {
        problems.add(kind_name, "Please choose what this number is.");
    }
    let is_social = system == US_SOCIAL || kind == SOCIAL && system.is_empty();
    if is_social && !is_social_security(value) {
        let told = "A Social Security number has nine digits, such as 123-45-6789, and no part of zeros alone. One of another country \
                    is a national person number.";
        problems.add(value_name, told);
    }
    if kind != OTHER && !called.is_empty() {
        problems.add(called_name, "Only “Other number” is called something.");
    }
    if system == RECORD_NUMBER {
        problems.add(system_name, "The practice gives these numbers by itself; leave this empty.");
    } else if !system.is_empty() && (!system.contains(':') || system.contains(char::is_whitespace)) {
        problems.add(system_name, "An issuer is an address such as urn:oid:1.2.3; leave it empty otherwise.");
    }
}

/// Three, two and four digits, none of them zeros alone, with spaces or dashes between them or not.
fn is_social_security(value: &str) -> bool {
    let digits: String = value.chars().filter(|c| !matches!(c, ' ' | '-')).collect();
    let parts = [digits.get(..3), digits.get(3..5), digits.get(5..)];
    let whole = |part: &Option<&str>| part.is_some_and(|part| part.bytes().any(|b| b != b'0'));
    digits.len() == 9 && digits.bytes().all(|b| b.is_ascii_digit()) && parts.iter().all(whole)
}

/// `known` is the phone number that stood there.
fn check_contact(
    row: &Row,
    known: &str,
    [role_name, _, name_name, phone_name]: &[&'static str; 4],
    problems: &mut Problems,
) {
    let [role, _, name, phone] = &row.cells;
    if Part::Contacts.is_blank(row) {
        if row.at.is_none() {
            problems.add(name_name, "Please enter the name, or choose nothing before it.");
        }
        return;
    }
    if !ROLES.iter().any(|(code, _)| code == role) {
        problems.add(role_name, "Please choose what this person is called for.");
    }
    if name.is_empty() {
        problems.add(name_name, "Please enter the name.");
    }
    let digits = phone.chars().filter(char::is_ascii_digit).count();
    if phone.is_empty() && role.starts_with('C') {
        problems.add(phone_name, "An emergency contact needs a phone number.");
    } else if !phone.is_empty() && phone != known && digits < 5 {
        problems.add(phone_name, "A phone number has at least five digits.");
    }
}

/// Kind, what it is called, system, value; `None` for what the page leaves alone.
fn read_identifier(element: &Value) -> Option<[&str; 4]> {
    let (system, value) = (text(element, "/system"), text(element, "/value"));
    if value.is_empty() || system == RECORD_NUMBER {
        return None;
    }
    let Some(kind) = element.get("type") else {
        // Some issuers issue one kind of number.
        return Some([if system == US_SOCIAL { SOCIAL } else { OTHER }, "", system, value]);
    };
    let codings = list(kind, "coding");
    if codings.is_empty() {
        return Some([OTHER, text(kind, "/text"), system, value]);
    }
    let known =
        codings.iter().filter(|coding| text(coding, "/system") == IDENTIFIER_TYPE).map(|coding| text(coding, "/code"));
    let known = known.into_iter().find(|code| *code != OTHER && KINDS.iter().any(|(kind, _)| kind == code))?;
    Some([known, "", system, value])
}

fn write_identifier(element: &mut Map<String, Value>, before: &[String; 4], cells: &[String; 4]) {
    let [kind, called, system, value] = cells;
    if before.iter().take(2).ne([kind, called]) {
        let word = KINDS.iter().find(|(code, _)| code == kind).map_or("", |(_, word)| word);
        let kind = match (kind.as_str(), called.as_str()) {
            (OTHER, "") => Value::Null,
            (OTHER, called) => json!({"text": called}),
            (code, _) => json!({"coding": [{"system": IDENTIFIER_TYPE, "code": code, "display": word}], "text": word}),
        };
        put(element, "type", kind);
    }
    for (name, cell, was) in [("system", system, before.get(2)), ("value", value, before.get(3))] {
        if Some(cell) != was {
            put(element, name, if cell.is_empty() { Value::Null } else { cell.as_str().into() });
        }
    }
}

fn is_role(relationship: &Value, letter: &str) -> bool {
    list(relationship, "coding")
        .iter()
        .any(|c| matches!(text(c, "/system"), "" | CONTACT_ROLE) && text(c, "/code") == letter)
}

/// Whether it says how the person is called, and not for what.
fn is_relation(relationship: &Value) -> bool {
    !is_role(relationship, "C") && !is_role(relationship, "N")
}

/// Role, relation, name, phone; `None` for what names nobody.
fn read_contact(element: &Value) -> Option<[String; 4]> {
    let all = list(element, "relationship");
    let is = |letter| all.iter().any(|one| is_role(one, letter));
    let role = match (is("C"), is("N")) {
        (true, true) => "CN",
        (true, false) => "C",
        (false, true) => "N",
        (false, false) => OTHER,
    };
    let relation = concept(all.iter().find(|one| is_relation(one)));
    let name = match text(element, "/name/text") {
        "" => {
            let given =
                element.get("name").map_or(&[][..], |name| list(name, "given")).iter().filter_map(Value::as_str);
            given.chain([text(element, "/name/family")]).filter(|part| !part.is_empty()).collect::<Vec<_>>().join(" ")
        }
        whole => whole.to_owned(),
    };
    let phone = list(element, "telecom")
        .iter()
        .find(|one| text(one, "/system") == "phone")
        .map_or("", |one| text(one, "/value"));
    (!name.is_empty() || !phone.is_empty()).then(|| [role.into(), relation.into(), name, phone.into()])
}

fn write_contact(element: &mut Map<String, Value>, before: &[String; 4], cells: &[String; 4]) {
    let [role, relation, name, phone] = cells;
    let [role_before, relation_before, name_before, phone_before] = before;
    let mut all = taken(element, "relationship");
    if relation != relation_before {
        if let Some(place) = all.iter().position(is_relation).filter(|_| !relation_before.is_empty()) {
            all.remove(place);
        }
        if !relation.is_empty() {
            all.push(json!({"text": relation}));
        }
    }
    if role != role_before {
        all.retain(is_relation);
        let letters = role.chars().filter(|letter| matches!(letter, 'C' | 'N') && role != OTHER);
        let coded = letters.map(|letter| {
            let display = if letter == 'C' { "Emergency Contact" } else { "Next-of-Kin" };
            json!({"coding": [{"system": CONTACT_ROLE, "code": letter.to_string(), "display": display}]})
        });
        all.splice(0..0, coded.collect::<Vec<_>>());
    }
    put(element, "relationship", all.into());
    if name != name_before {
        let mut own = match element.get("name") {
            Some(Value::Object(own)) => own.clone(),
            _ => Map::new(),
        };
        // The whole name was typed anew: the parts of the old one would contradict it.
        own.retain(|part, _| {
            !matches!(part.trim_start_matches('_'), "text" | "family" | "given" | "prefix" | "suffix")
        });
        put(&mut own, "text", if name.is_empty() { Value::Null } else { name.as_str().into() });
        put(element, "name", if own.is_empty() { Value::Null } else { own.into() });
    }
    if phone != phone_before {
        let mut telecom = taken(element, "telecom");
        let place = telecom.iter().position(|one| text(one, "/system") == "phone");
        match (place, phone.as_str()) {
            (Some(place), "") => drop(telecom.remove(place)),
            (Some(place), phone) => {
                if let Some(one) = telecom.get_mut(place) {
                    one["value"] = phone.into();
                }
            }
            (None, phone) => telecom.push(json!({"system": "phone", "value": phone})),
        }
        put(element, "telecom", telecom.into());
    }
}

fn taken(element: &Map<String, Value>, name: &str) -> Vec<Value> {
    element.get(name).and_then(Value::as_array).cloned().unwrap_or_default()
}

/// Puts a value in its place; FHIR knows neither null nor an empty list.
fn put(element: &mut Map<String, Value>, name: &str, value: Value) {
    if value.is_null() || value.as_array().is_some_and(Vec::is_empty) {
        element.remove(name);
    } else {
        element.insert(name.into(), value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn form(pairs: &[(&str, &str)]) -> Form {
        Form::from_fields(pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())))
    }

    fn patient() -> Value {
        json!({"identifier": [
            {"system": RECORD_NUMBER, "value": "100001"},
            {"extension": [{"url": "urn:x", "valueString": "y"}], "use": "usual", "value": "M-1", "period": {"start": "2020"},
             "type": {"coding": [{"system": IDENTIFIER_TYPE, "code": "MB", "display": "Member"}], "text": "Member"}},
            {"type": {"coding": [{"system": "urn:far", "code": "ZZ"}]}, "value": "7"},
            {"system": "urn:oid:1.2", "value": "A"}],
         "contact": [
            {"relationship": [{"coding": [{"system": CONTACT_ROLE, "code": "N"}]}, {"coding": [{"code": "WIFE", "display": "wife"}]}],
             "name": {"family": "Roe", "given": ["Ann"]}, "telecom": [{"system": "fax", "value": "1"}], "gender": "female"},
            {"organization": {"display": "Employer"}}]})
    }

    fn saved(patient: &Value, form: &Form) -> Value {
        let mut body = patient.as_object().unwrap().clone();
        Part::Identifiers.apply(&mut body, form);
        Part::Contacts.apply(&mut body, form);
        body.into()
    }

    fn opened(patient: &Value) -> Vec<(String, String)> {
        let rows = |part: Part| part.fields(&part.rows(patient));
        [rows(Part::Identifiers), rows(Part::Contacts)].concat()
    }

    #[test]
    fn what_nobody_changed_stays_to_the_byte() {
        let patient = patient();
        for fields in [opened(&patient), Vec::new()] {
            assert_eq!(saved(&patient, &Form::from_fields(fields)).to_string(), patient.to_string());
        }
        assert_eq!(Part::Identifiers.rows(&patient).len(), 2, "neither the practice's own nor one of an unknown kind");
        assert_eq!(Part::Contacts.rows(&patient)[0].cells, ["N", "wife", "Ann Roe", ""]);
    }

    #[test]
    fn a_row_changes_its_element_and_nothing_beside_what_was_typed() {
        let patient = patient();
        let set = |changes: &[(&str, &str)]| {
            let mut fields = opened(&patient);
            for (name, value) in changes {
                fields.retain(|(known, _)| known != name);
                fields.push(((*name).to_owned(), (*value).to_owned()));
            }
            saved(&patient, &Form::from_fields(fields))
        };
        let told = set(&[
            ("id-1-value", "M-2"),
            ("id-2-value", ""),
            ("contact-1-phone", "555 1234"),
            ("contact-1-role", "CN"),
        ]);
        let member = &told["identifier"][1];
        assert_eq!((&member["value"], &member["period"]["start"]), (&json!("M-2"), &json!("2020")));
        assert_eq!(
            (&member["extension"], &member["type"]),
            (&patient["identifier"][1]["extension"], &patient["identifier"][1]["type"])
        );
        assert_eq!(told["identifier"].as_array().unwrap().len(), 3, "the emptied one is gone");
        assert_eq!(told["identifier"][2], patient["identifier"][2]);
        let contact = &told["contact"][0];
        assert_eq!(
            contact["telecom"],
            json!([{"system": "fax", "value": "1"}, {"system": "phone", "value": "555 1234"}])
        );
        assert_eq!((&contact["name"], &contact["gender"]), (&patient["contact"][0]["name"], &json!("female")));
        assert_eq!(contact["relationship"].as_array().unwrap().len(), 3, "two roles and the relation");
        let fresh = set(&[
            ("id-3-kind", "other"),
            ("id-3-called", "Staff"),
            ("id-3-value", "9"),
            ("contact-1-name", "Ann Poe"),
        ]);
        assert_eq!(fresh["identifier"][4], json!({"type": {"text": "Staff"}, "value": "9"}));
        assert_eq!(fresh["contact"][0]["name"], json!({"text": "Ann Poe"}));
        let gone = set(&[("contact-1-name", ""), ("contact-1-relation", "")]);
        assert_eq!(gone["contact"], json!([{"organization": {"display": "Employer"}}]));
    }

    #[test]
    fn two_changes_of_the_rows_meet_without_loss() {
        let patient = patient();
        let base = Part::Identifiers.rows(&patient);
        // The other one removed the first row and added another; this one changed the second.
        let mut theirs = patient.clone();
        theirs["identifier"].as_array_mut().unwrap().remove(1);
        theirs["identifier"].as_array_mut().unwrap().push(json!({"value": "NEW"}));
        let now = Part::Identifiers.rows(&theirs);
        let mut typed = Part::Identifiers.fields(&base);
        typed.iter_mut().filter(|(name, _)| name == "id-2-value").for_each(|(_, value)| *value = "B".into());
        let fields = Part::Identifiers.merged(&base, &Form::from_fields(typed), &now);
        assert_eq!(fields.len(), 2);
        // Choosing mine where it is a change, and theirs otherwise, keeps all three.
        let chosen = fields
            .iter()
            .map(|f| (f.name.to_owned(), if f.mine == f.base { f.theirs.clone() } else { f.mine.clone() }));
        let told = saved(&theirs, &Form::from_fields(chosen));
        let values: Vec<&str> = list(&told, "identifier").iter().map(|one| text(one, "/value")).collect();
        assert_eq!(values, ["100001", "7", "B", "NEW"]);
    }

    #[test]
    fn says_what_is_wrong_with_a_row() {
        let wrong = |pairs: &[(&str, &str)]| {
            let mut problems = Problems::default();
            Part::Identifiers.check(&form(pairs), &[], &mut problems);
            Part::Contacts.check(&form(pairs), &[], &mut problems);
            !problems.is_empty()
        };
        assert!(!wrong(&[]) && !wrong(&[("id-1-kind", "MB"), ("id-1-value", "1")]));
        assert!(!wrong(&[("contact-1-role", "N"), ("contact-1-name", "Ann")]));
        assert!(!wrong(&[("id-1-kind", "SS"), ("id-1-value", "123 45 6789")]));
        assert!(!wrong(&[
            ("id-1-kind", "SS"),
            ("id-1-value", "756.9217.0769.85"),
            ("id-1-system", "urn:oid:2.16.756.5.32")
        ]));
        assert!(!wrong(&[("id-1-kind", "PPN"), ("id-1-value", "1"), ("id-2-kind", "DL"), ("id-2-value", "1")]));
        for bad in [
            &[("id-1-value", "1")][..],
            &[("id-1-kind", "MB")],
            &[("id-1-kind", "XX"), ("id-1-value", "1")],
            &[("id-1-kind", "MB"), ("id-1-value", "1"), ("id-1-system", "no address")],
            &[("id-1-kind", "SS"), ("id-1-value", "abc")],
            &[("id-1-kind", "SS"), ("id-1-value", "123-45-678")],
            &[("id-1-kind", "SS"), ("id-1-value", "123-00-6789")],
            &[("id-1-kind", "other"), ("id-1-value", "abc"), ("id-1-system", US_SOCIAL)],
            &[("id-1-kind", "PPN"), ("id-1-value", "A 1"), ("id-2-kind", "PPN"), ("id-2-value", "a1")],
            &[("id-1-kind", "MR"), ("id-1-value", "1"), ("id-1-system", RECORD_NUMBER)],
            &[("contact-1-role", "C"), ("contact-1-name", "Ann")],
            &[("contact-1-role", "N"), ("contact-1-phone", "555 1234")],
            &[("contact-1-role", "N"), ("contact-1-name", "Ann"), ("contact-1-phone", "12")],
            &[("contact-1-name", "Ann"), ("contact-1-phone", "555 1234")],
        ] {
            assert!(wrong(bad), "{bad:?}");
        }
    }

    #[test]
    fn what_stands_there_already_is_not_asked_about() {
        let stored = json!({"identifier": [{"system": US_SOCIAL, "value": "abc"}, {"value": "7"}, {"value": "7"}],
            "contact": [{"name": {"text": "Ann"}, "telecom": [{"system": "phone", "value": "555"}]}]});
        let rows = [Part::Identifiers.rows(&stored), Part::Contacts.rows(&stored)];
        assert_eq!(rows[0][0].shown(Part::Identifiers).0, "Social Security number");
        let problems = |changed: &[(&str, &str)]| {
            let mut fields = opened(&stored);
            for (name, value) in changed {
                fields.retain(|(known, _)| known != name);
                fields.push(((*name).to_owned(), (*value).to_owned()));
            }
            let (form, mut problems) = (Form::from_fields(fields), Problems::default());
            Part::Identifiers.check(&form, &rows[0], &mut problems);
            Part::Contacts.check(&form, &rows[1], &mut problems);
            !problems.is_empty()
        };
        assert!(!problems(&[]) && !problems(&[("id-4-kind", "PPN"), ("id-4-value", "8")]));
        assert!(!problems(&[("contact-1-relation", "sister")]), "the phone number was there before");
        for change in [("id-1-value", "abd"), ("contact-1-phone", "556"), ("id-4-value", "7")] {
            assert!(problems(&[change, ("id-4-kind", "other")]), "{change:?}");
        }
    }

    #[test]
    fn a_number_of_one_person_says_more_than_one_of_a_family() {
        let rows = |kind: &str, value: &str| identifiers_of(&form(&[("id-1-kind", kind), ("id-1-value", value)]));
        assert_eq!(shared(&rows("SS", "123-45-6789"), &rows("SS", "123456789")), Some(true));
        assert_eq!(shared(&rows("MB", "a1"), &rows("MB", "A1")), Some(false));
        assert_eq!(shared(&rows("SS", "1"), &rows("MB", "1")), None);
        assert_eq!(shared(&rows("SS", "-"), &rows("SS", "-")), None, "no letter is no number");
    }
}
