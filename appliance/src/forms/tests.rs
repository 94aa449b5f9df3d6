//! Answers of every kind, from a form's fields into a response and back.

use super::answers::field_name;
use super::template::tests::TEXT;
use super::{Answers, Template};
use chrono_tz::{America, Tz, UTC};
use serde_json::{Value, json};

const ZONE: Tz = America::New_York;

fn answers(fields: &[(&str, &str)]) -> Answers {
    Answers::from_fields(fields.iter().copied(), ZONE)
}

fn core(name: &str) -> String {
    format!("http://hl7.org/fhir/StructureDefinition/{name}")
}

fn coding(code: &str, display: &str) -> Value {
    json!({"system": "urn:codes", "code": code, "display": display})
}

/// A questionnaire as other programs make them: every kind of question, sections in sections, conditions of every operator.
pub fn foreign() -> Value {
    let set = json!({"resourceType": "ValueSet", "id": "days", "status": "active", "compose": {"include": [
        {"system": "urn:days", "concept": [{"code": "mo", "display": "Monday"}, {"code": "tu"}]}]}});
    let when = |question: &str, operator: &str, kind: &str, answer: Value| json!([{"question": question, "operator": operator, format!("answer{kind}"): answer}]);
    json!({"resourceType": "Questionnaire", "status": "active", "title": "Intake", "contained": [set], "item": [
        {"linkId": "1", "type": "group", "text": "About you", "item": [
            {"linkId": "1.1", "type": "boolean", "text": "Do you smoke?", "required": true},
            {"linkId": "1.2", "type": "integer", "text": "Cigarettes", "enableWhen": when("1.1", "=", "Boolean", json!(true))},
            {"linkId": "1.3", "type": "display", "text": "That is much.", "enableWhen": when("1.2", ">=", "Integer", json!(20))},
            {"linkId": "1.4", "type": "group", "text": "More", "item": [
                {"linkId": "1.4/a", "type": "choice", "text": "Colour", "answerOption": [
                    {"valueCoding": coding("r", "Red")}, {"valueCoding": coding("g", "Green"), "initialSelected": true}]},
                {"linkId": "1.4/b", "type": "open-choice", "text": "Pet", "answerOption": [{"valueString": "Cat"}, {"valueString": "Dog"}]},
                {"linkId": "1.4/c", "type": "choice", "repeats": true, "text": "Days", "answerValueSet": "#days"},
                {"linkId": "1.4/d", "type": "string", "text": "Why green?", "maxLength": 5,
                 "enableWhen": when("1.4/a", "=", "Coding", json!({"system": "urn:codes", "code": "g"}))}]}]},
        {"linkId": "2", "type": "group", "repeats": true, "text": "Visit", "item": [
            {"linkId": "2.1", "type": "dateTime", "text": "When"},
            {"linkId": "2.2", "type": "quantity", "text": "Weight", "extension": [
                {"url": "http://hl7.org/fhir/StructureDefinition/questionnaire-unitOption",
                 "valueCoding": {"system": "http://unitsofmeasure.org", "code": "kg", "display": "kilogram"}},
                {"url": "http://hl7.org/fhir/StructureDefinition/questionnaire-unitOption",
                 "valueCoding": {"system": "http://unitsofmeasure.org", "code": "[lb_av]", "display": "pound"}}]},
            {"linkId": "2.3", "type": "group", "repeats": true, "text": "Drug", "item": [
                {"linkId": "2.3.1", "type": "string", "text": "Name"},
                {"linkId": "2.3.2", "type": "time", "text": "At", "enableWhen": when("2.3.1", "exists", "Boolean", json!(true))}]}]},
        {"linkId": "3", "type": "date", "text": "Born", "item": [{"linkId": "3.1", "type": "url", "text": "Where that stands"}]},
        {"linkId": "4", "type": "decimal", "text": "Share", "initial": [{"valueDecimal": 0.5}], "readOnly": true},
        {"linkId": "5", "type": "text", "text": "Any visit?", "enableBehavior": "any", "enableWhen": [
            {"question": "2.3.1", "operator": "=", "answerString": "Aspirin"}, {"question": "3", "operator": "<", "answerDate": "1950-01-01"}]}]})
}

#[test]
fn answers_go_into_a_response_and_come_back() {
    let template = Template::parse(TEXT).unwrap();
    let section = template.items.iter().find(|i| i.repeats).unwrap();
    let mut given = answers(&[
        ("a.weight", "80.0"),
        ("a.height", "200"),
        ("a.smoker", "yes"),
        ("a.pack", "12"),
        ("n.section-9", "2"),
        ("a.what.0", "Appendix"),
        ("a.year.0", "1999"),
        ("a.what.1", "Knee"),
        ("a.evil", "x"),
    ]);
    assert_eq!(section.id, "section-9");
    given.settle(&template);
    assert_eq!(given.text("bmi", &[]), "20.0");
    assert!(given.problems(&template).is_empty());
    let items = given.write(&template);
    assert!(items.to_string().contains("\"valueDecimal\":80.0"), "the digits as typed: {items}");
    assert!(!items.to_string().contains("evil"), "what the template does not ask is not stored");
    let read = Answers::read(&template, &json!({"item": items}), ZONE);
    assert_eq!((read.text("what", &[1]), read.count(section, &[]), read.text("year", &[0])), ("Knee", 2, "1999"));
    assert_eq!(read.write(&template), items);
}

#[test]
fn what_is_not_asked_is_neither_kept_nor_missed() {
    let lines = "smoker: Smoker? | choice: yes, no\npack: Pack years | integer | required | if smoker = yes\n";
    let template = Template::parse(lines).unwrap();
    let mut given = answers(&[("a.smoker", "no"), ("a.pack", "7")]);
    given.settle(&template);
    assert!(given.problems(&template).is_empty() && !given.write(&template).to_string().contains("pack"));
    let given = answers(&[("a.smoker", "yes")]);
    assert_eq!(given.problems(&template).len(), 1);
}

#[test]
fn a_draft_keeps_what_is_not_right_yet() {
    let template =
        Template::parse("n: N | integer\nd: D | date\nt: T | boolean\nu: U | string | required | if t = no").unwrap();
    let given = answers(&[("a.n", "about 5"), ("a.d", "spring")]);
    let read = Answers::read(&template, &json!({"item": given.write(&template)}), ZONE);
    assert_eq!((read.text("n", &[]), read.text("d", &[])), ("about 5", "spring"));
    assert_eq!(given.problems(&template).len(), 3, "and an unticked box says no");
}

#[test]
fn every_kind_is_stored_as_its_own_type_where_the_questionnaire_has_it() {
    let questionnaire = foreign();
    assert_eq!(Template::unsupported(&questionnaire), None);
    let template = Template::read(&questionnaire);
    assert!(!template.is_ours(&questionnaire));
    let name = |id: &str, path: &[usize]| field_name('a', id, path);
    let fields: Vec<(String, &str)> = vec![
        (name("1.1", &[]), "yes"),
        (name("1.2", &[]), "25"),
        (name("1.4/a", &[]), "g"),
        (name("1.4/b", &[]), "Hamster"),
        (name("1.4/c", &[]), "mo"),
        (name("1.4/c", &[]), "tu"),
        (name("1.4/d", &[]), "leaf"),
        (field_name('n', "2", &[]), "2"),
        (field_name('n', "2.3", &[1]), "2"),
        (name("2.1", &[0]), "2026-07-01T10:00"),
        (name("2.2", &[1]), "80.5"),
        (field_name('u', "2.2", &[1]), "kg"),
        (name("2.3.1", &[1, 1]), "Aspirin"),
        (name("2.3.2", &[1, 1]), "08:30"),
        (name("2.3.2", &[1, 0]), "09:00"),
        (name("3", &[]), "1960-05-06"),
        (name("3.1", &[]), "https://example.org/a"),
        (name("4", &[]), "0.9"),
        (name("5", &[]), "Since long"),
    ];
    let mut given = Answers::from_fields(fields.iter().map(|(name, value)| (name.as_str(), *value)), ZONE);
    given.keep_fixed(&template, &Answers::initial(&template, ZONE));
    given.settle(&template);
    assert_eq!(given.problems(&template), Default::default());
    let stored = json!({"item": given.write(&template)});
    let expected = json!([
        {"linkId": "1", "text": "About you", "item": [
            {"linkId": "1.1", "text": "Do you smoke?", "answer": [{"valueBoolean": true}]},
            {"linkId": "1.2", "text": "Cigarettes", "answer": [{"valueInteger": 25}]},
            {"linkId": "1.4", "text": "More", "item": [
                {"linkId": "1.4/a", "text": "Colour", "answer": [{"valueCoding": coding("g", "Green")}]},
                {"linkId": "1.4/b", "text": "Pet", "answer": [{"valueString": "Hamster"}]},
                {"linkId": "1.4/c", "text": "Days", "answer": [
                    {"valueCoding": {"system": "urn:days", "code": "mo", "display": "Monday"}}, {"valueCoding": {"system": "urn:days", "code": "tu"}}]},
                {"linkId": "1.4/d", "text": "Why green?", "answer": [{"valueString": "leaf"}]}]}]},
        {"linkId": "2", "text": "Visit", "item": [
            {"linkId": "2.1", "text": "When", "answer": [{"valueDateTime": "2026-07-01T14:00:00Z"}]}]},
        {"linkId": "2", "text": "Visit", "item": [
            {"linkId": "2.2", "text": "Weight", "answer": [{"valueQuantity":
                {"value": serde_json::from_str::<Value>("80.5").unwrap(), "unit": "kilogram", "system": "http://unitsofmeasure.org", "code": "kg"}}]},
            {"linkId": "2.3", "text": "Drug"},
            {"linkId": "2.3", "text": "Drug", "item": [
                {"linkId": "2.3.1", "text": "Name", "answer": [{"valueString": "Aspirin"}]},
                {"linkId": "2.3.2", "text": "At", "answer": [{"valueTime": "08:30:00"}]}]}]},
        {"linkId": "3", "text": "Born", "answer": [{"valueDate": "1960-05-06", "item": [
            {"linkId": "3.1", "text": "Where that stands", "answer": [{"valueUri": "https://example.org/a"}]}]}]},
        {"linkId": "4", "text": "Share", "answer": [{"valueDecimal": serde_json::from_str::<Value>("0.5").unwrap()}]},
        {"linkId": "5", "text": "Any visit?", "answer": [{"valueString": "Since long"}]}
    ]);
    assert_eq!(stored["item"], expected, "{}", stored["item"]);
    let mut response = json!({"resourceType": "QuestionnaireResponse", "status": "completed", "item": stored["item"]});
    assert_eq!(crate::fhir::validate::issues("QuestionnaireResponse", &response), []);
    let read = Answers::read(&template, &response, ZONE);
    assert_eq!(read.differences(&template, &given), [], "and comes back as it was typed");
    read.put(&template, &mut response);
    assert_eq!(response["item"], expected);
    assert_eq!(read.text("2.1", &[0]), "2026-07-01T10:00", "by the practice's clock");
    assert_eq!(Answers::initial(&template, ZONE).text("1.4/a", &[]), "g");
}

#[test]
fn conditions_of_every_operator_are_kept() {
    let asked = |kind: &str, operator: &str, answer: Value, said: &str| {
        let body = json!({"item": [
            {"linkId": "q", "prefix": "1", "type": kind, "text": "Q"},
            {"linkId": "x", "type": "string", "text": "X", "enableWhen": [
                {"question": "q", "operator": operator, format!("answer{}", answer[0].as_str().unwrap()): answer[1]}]}]});
        assert_eq!(Template::unsupported(&body), None);
        let template = Template::read(&body);
        let given = Answers::from_fields([("a.q", said), ("a.x", "kept")].into_iter(), ZONE);
        let mut settled = given.clone();
        settled.settle(&template);
        !settled.text("x", &[]).is_empty()
    };
    for (kind, operator, answer, yes, no) in [
        ("integer", ">", json!(["Integer", 9]), "10", "9"),
        ("integer", ">=", json!(["Integer", 9]), "9", "8"),
        ("decimal", "<", json!(["Decimal", 9]), "8.5", "10"),
        ("decimal", "<=", json!(["Decimal", 9]), "9.0", "9.1"),
        ("date", "<", json!(["Date", "2000-01-01"]), "1999-12-31", "2000-01-01"),
        ("time", ">=", json!(["Time", "12:00:00"]), "12:00", "11:59"),
        ("dateTime", "=", json!(["DateTime", "2026-07-01T14:00:00Z"]), "2026-07-01T10:00", "2026-07-01T14:00"),
        ("string", "!=", json!(["String", "a"]), "b", "A"),
        ("string", "!=", json!(["String", "a"]), "", "a"),
        ("string", "exists", json!(["Boolean", false]), "", "a"),
        ("boolean", "=", json!(["Boolean", false]), "no", "yes"),
        ("boolean", "=", json!(["Boolean", false]), "no", ""),
    ] {
        assert!(asked(kind, operator, answer.clone(), yes), "{kind} {operator} {answer} of {yes}");
        assert!(!asked(kind, operator, answer.clone(), no), "{kind} {operator} {answer} of {no}");
    }
}

fn ucum(code: &str, display: &str) -> Value {
    json!({"url": core("questionnaire-unitOption"),
        "valueCoding": {"system": "http://unitsofmeasure.org", "code": code, "display": display}})
}

/// A quantity, and a question that is asked by it.
fn weighed(units: Value, operator: &str, wanted: Value) -> Value {
    json!({"item": [
        {"linkId": "q", "type": "quantity", "text": "Weight", "extension": units},
        {"linkId": "x", "type": "string", "text": "X", "enableWhen": [{"question": "q", "operator": operator, "answerQuantity": wanted}]}]})
}

#[test]
fn a_quantity_is_compared_in_its_own_unit_alone() {
    let kg = json!({"value": 100, "unit": "kg", "system": "http://unitsofmeasure.org", "code": "kg"});
    let asked = |body: &Value, said: &str, unit: &str| {
        assert_eq!(Template::unsupported(body), None, "{body}");
        let mut given = answers(&[("a.q", said), ("u.q", unit), ("a.x", "kept")]);
        given.settle(&Template::read(body));
        !given.text("x", &[]).is_empty()
    };
    let both = || json!([ucum("kg", "kilograms"), ucum("g", "grams")]);
    for (operator, wanted, yes, no) in [
        (">", kg.clone(), ("101", "kg"), ("3500", "g")),
        ("<", kg.clone(), ("99", "kg"), ("1", "g")),
        ("=", kg.clone(), ("100", "kg"), ("100", "g")),
        ("!=", kg.clone(), ("100", "g"), ("100", "kg")),
        (">", json!({"value": 100, "unit": "kilograms"}), ("101", "kg"), ("3500", "g")),
    ] {
        let body = weighed(both(), operator, wanted);
        assert!(asked(&body, yes.0, yes.1) && !asked(&body, no.0, no.1), "{operator} {yes:?} {no:?}");
    }
    // Without listed units people type one.
    let free = weighed(json!([]), ">", kg.clone());
    assert!(asked(&free, "101", "kg") && !asked(&free, "101", "lb") && !asked(&free, "101", ""));
    let template = Template::read(&free);
    let told: Vec<String> = answers(&[("a.q", "101")]).problems(&template).into_values().collect();
    assert!(told.len() == 1 && told[0].contains("such as kg"), "{told:?}");
    // One unit is fixed and not typed.
    assert!(asked(&weighed(json!([ucum("kg", "kg")]), ">", kg.clone()), "101", ""));
    // What nothing could ever meet is no form.
    for (wanted, words) in
        [(json!({"value": 1, "unit": "pound"}), "in pound"), (json!({"value": 1}), "without its unit")]
    {
        let told = Template::unsupported(&weighed(both(), ">", wanted)).unwrap_or_default();
        assert!(told.contains("depends on “Weight”") && told.contains(words), "{told}");
    }
    let lines = "w: Weight | quantity\nwhy: Why | string | if w = 80 kg\n";
    let own = Template::parse(lines).unwrap();
    let stored = json!({"item": own.write()});
    let read = Template::read(&stored);
    assert!(read.is_ours(&stored) && read.text() == lines && own.unit_missing().is_none(), "{}", read.text());
    let mut given = answers(&[("a.w", "80"), ("u.w", "kg"), ("a.why", "so")]);
    given.settle(&read);
    assert_eq!(given.text("why", &[]), "so");
    assert!(Template::parse(&lines.replace(" kg", "")).unwrap().unit_missing().is_some());
}

#[test]
fn a_value_set_is_offered_whole_or_the_form_is_not() {
    let asked = |set: Value| {
        let mut set = set;
        set["resourceType"] = "ValueSet".into();
        set["id"] = "s".into();
        let body = json!({"contained": [set], "item": [{"linkId": "c", "type": "choice", "text": "Which", "answerValueSet": "#s"}]});
        let offered: Vec<String> = Template::read(&body).items[0].options.iter().map(|o| o.key.clone()).collect();
        (offered, Template::unsupported(&body).unwrap_or_default())
    };
    let include = || json!([{"system": "urn:a", "concept": [{"code": "1"}, {"code": "2"}]}, {"system": "urn:b", "concept": [{"code": "3"}]}]);
    let whole = |set: Value| {
        let (offered, told) = asked(set);
        assert_eq!(told, "");
        offered
    };
    let composed = |exclude: Value| json!({"compose": {"include": include(), "exclude": exclude}});
    assert_eq!(whole(composed(json!([{"system": "urn:a", "concept": [{"code": "1"}]}]))), ["2", "3"]);
    assert_eq!(whole(composed(json!([{"system": "urn:b"}]))), ["1", "2"]);
    assert_eq!(whole(composed(json!([{"system": "urn:b", "concept": [{"code": "1"}]}]))), ["1", "2", "3"]);
    let nested = json!({"expansion": {"contains": [
        {"system": "urn:a", "code": "top", "abstract": true, "contains": [{"system": "urn:a", "code": "leaf", "contains": [{"system": "urn:a", "code": "vein"}]}]},
        {"display": "Others", "contains": [{"system": "urn:a", "code": "other"}]}]}});
    assert_eq!(whole(nested.clone()), ["leaf", "vein", "other"], "what is abstract holds others and is not chosen");
    let mut without = nested.clone();
    without["compose"] = composed(json!([{"system": "urn:a", "concept": [{"code": "vein"}]}, {"system": "urn:a", "filter": [{"op": "=", "property": "p", "value": "v"}]}]))["compose"].clone();
    assert_eq!(whole(without), ["leaf", "other"], "an expansion that was made before the exclusion");
    let filter = json!([{"property": "concept", "op": "is-a", "value": "1"}]);
    for (set, words) in [
        (json!({"compose": {"include": [{"system": "urn:whole"}]}}), "whole code system"),
        (json!({"compose": {"include": [{"valueSet": ["http://x/other"]}]}}), "other value sets"),
        (
            json!({"compose": {"include": [{"system": "urn:a", "concept": [{"code": "1"}], "valueSet": ["http://x"]}]}}),
            "other value sets",
        ),
        (json!({"compose": {"include": [{"system": "urn:a", "filter": filter.clone()}]}}), "filter"),
        (composed(json!([{"system": "urn:a", "filter": filter}])), "filter"),
        (composed(json!([{"valueSet": ["http://x/other"]}])), "other value sets"),
        (json!({"expansion": {"total": 9, "contains": [{"code": "1"}]}}), "in part"),
        (composed(json!([{"system": "urn:a"}, {"system": "urn:b"}])), "lists no answers"),
    ] {
        let (offered, told) = asked(set.clone());
        assert!(told.contains(words) && told.contains("“Which”"), "{set}: {told}");
        assert!(offered.is_empty(), "{set} offers {offered:?}");
    }
}

#[test]
fn answers_are_held_to_their_limits() {
    let of = |kind: &str, limits: &[(&str, Value)]| {
        let extension: Vec<Value> = limits
            .iter()
            .map(|(name, value)| {
                let mut one = value.clone();
                one["url"] = core(name).into();
                one
            })
            .collect();
        json!({"item": [{"linkId": "q", "type": kind, "text": "Q", "repeats": kind == "string", "extension": extension}]})
    };
    for (body, good, bad, words) in [
        (
            of("decimal", &[("minValue", json!({"valueDecimal": 0})), ("maxValue", json!({"valueInteger": 10}))]),
            "10.0",
            "10.5",
            "at most 10",
        ),
        (of("decimal", &[("minValue", json!({"valueDecimal": 0.5}))]), "0,5", "0.4", "at least 0.5"),
        (of("integer", &[("minValue", json!({"valueInteger": -3}))]), "-3", "-4", "at least -3"),
        (of("decimal", &[("maxDecimalPlaces", json!({"valueInteger": 1}))]), "1.5", "1.55", "at most 1 digit after"),
        (of("string", &[("minLength", json!({"valueInteger": 3}))]), "abc", "ab", "at least 3 characters"),
        (
            of("date", &[("minValue", json!({"valueDate": "2020-05"}))]),
            "2020-05-01",
            "2020-04-30",
            "not before 2020-05",
        ),
        (of("date", &[("maxValue", json!({"valueDate": "2020"}))]), "2020-12-31", "2021-01-01", "not after 2020"),
        (of("time", &[("maxValue", json!({"valueTime": "12:00:00"}))]), "12:00", "12:01", "not after 12:00"),
        // 14:00 in Greenwich is 10:00 by the practice's clock.
        (
            of("dateTime", &[("minValue", json!({"valueDateTime": "2026-07-01T14:00:00Z"}))]),
            "2026-07-01T10:00",
            "2026-07-01T09:59",
            "not before 2026-07-01 10:00",
        ),
        (
            of(
                "string",
                &[
                    ("questionnaire-minOccurs", json!({"valueInteger": 1})),
                    ("questionnaire-maxOccurs", json!({"valueInteger": 1})),
                ],
            ),
            "a",
            "a\nb",
            "at most 1 answer.",
        ),
    ] {
        assert_eq!(Template::unsupported(&body), None, "{body}");
        let template = Template::read(&body);
        let told = |said: &str| {
            let fields: Vec<(&str, &str)> = said.split('\n').map(|one| ("a.q", one)).collect();
            answers(&fields).problems(&template).into_values().collect::<Vec<_>>().join(" ")
        };
        assert_eq!(told(good), "", "{body}");
        assert!(told(bad).contains(words), "{bad}: {}", told(bad));
    }
    let body = json!({"item": [{"linkId": "q", "type": "choice", "repeats": true, "answerOption": [
        {"valueString": "None", "extension": [{"url": core("questionnaire-optionExclusive"), "valueBoolean": true}]},
        {"valueString": "Cough"}]}]});
    let template = Template::read(&body);
    assert!(answers(&[("a.q", "None")]).problems(&template).is_empty());
    assert_eq!(answers(&[("a.q", "None"), ("a.q", "Cough")]).problems(&template).len(), 1);
}

#[test]
fn what_is_hidden_keeps_what_it_began_with() {
    let hidden = json!([{"url": core("questionnaire-hidden"), "valueBoolean": true}]);
    let when = json!([{"question": "h", "operator": "=", "answerString": "on"}]);
    let body = json!({"item": [
        {"linkId": "h", "type": "string", "required": true, "extension": hidden, "initial": [{"valueString": "on"}]},
        {"linkId": "g", "type": "group", "extension": hidden, "item": [{"linkId": "in", "type": "string", "required": true}]},
        {"linkId": "x", "type": "string", "enableWhen": when},
        {"linkId": "s", "type": "group", "repeats": true, "item": [
            {"linkId": "v", "type": "string", "readOnly": true, "initial": [{"valueString": "each"}]}, {"linkId": "w", "type": "string"}]}]});
    let template = Template::read(&body);
    let stored = Answers::initial(&template, ZONE);
    let mut given = answers(&[("a.h", "off"), ("a.in", "smuggled"), ("a.x", "asked"), ("a.v.0", "other")]);
    given.keep_fixed(&template, &stored);
    given.settle(&template);
    assert!(given.problems(&template).is_empty());
    given.add_one(&template, "s");
    let written = given.write(&template).to_string();
    assert!(written.contains("\"on\"") && written.contains("asked") && !written.contains("smuggled"), "{written}");
    assert_eq!((given.text("v", &[0]), given.text("v", &[1])), ("each", "each"), "every repetition begins alike");
}

#[test]
fn a_question_may_have_several_answers() {
    let body = json!({"item": [{"linkId": "d", "type": "date", "repeats": true, "text": "Days"},
        {"linkId": "x", "type": "string", "enableWhen": [{"question": "d", "operator": ">", "answerDate": "2026-01-01"}]}]});
    assert_eq!(Template::unsupported(&body), None);
    let template = Template::read(&body);
    let mut given =
        answers(&[("a.d", "2025-01-01"), ("a.d", ""), ("a.d", "2026-02-02"), ("a.d", "2025-01-01"), ("a.x", "why")]);
    given.settle(&template);
    let items = given.write(&template);
    let days: Vec<&str> =
        items[0]["answer"].as_array().unwrap().iter().map(|a| a["valueDate"].as_str().unwrap()).collect();
    assert_eq!(
        days,
        ["2025-01-01", "2026-02-02", "2025-01-01"],
        "each as it was typed, twice where it was typed twice"
    );
    assert_eq!(given.text("x", &[]), "why", "one of them is enough");
    let read = Answers::read(&template, &json!({"item": items}), ZONE);
    assert_eq!(read.write(&template), items);
    assert_eq!(answers(&[("a.d", "2025-01-01"), ("a.d", "soon")]).problems(&template).len(), 1);
}

#[test]
fn what_hides_a_question_hides_those_that_ask_for_it() {
    let when = |question: &str| json!([{"question": question, "operator": "=", "answerString": "y"}]);
    let body = json!({"item": [
        {"linkId": "a", "type": "string"}, {"linkId": "c", "type": "string", "enableWhen": when("b")},
        {"linkId": "b", "type": "string", "enableWhen": when("a")}]});
    let template = Template::read(&body);
    let mut given = answers(&[("a.a", "n"), ("a.b", "y"), ("a.c", "kept?")]);
    given.settle(&template);
    assert_eq!(given.write(&template).as_array().unwrap().len(), 1);
}

#[test]
fn what_cannot_be_asked_is_told() {
    let of = |item: Value| Template::unsupported(&json!({"item": [item]})).unwrap_or_default();
    for (item, words) in [
        (json!({"linkId": "r", "text": "Who", "type": "reference"}), "“Who” asks for an answer of type reference"),
        (json!({"linkId": "f", "type": "attachment"}), "type attachment"),
        (json!({"linkId": "s", "type": "boolean", "repeats": true}), "several times"),
        (json!({"linkId": "s", "type": "quantity", "repeats": true}), "several times"),
        (
            json!({"linkId": "s", "type": "string", "repeats": true, "item": [{"linkId": "t", "type": "string"}]}),
            "questions below",
        ),
        (json!({"linkId": "c", "type": "choice"}), "lists no answers"),
        (json!({"linkId": "c", "type": "choice", "answerValueSet": "http://example.org/set"}), "not contained"),
        (
            json!({"linkId": "m", "type": "string", "modifierExtension": [{"url": "urn:x", "valueBoolean": true}]}),
            "modifier",
        ),
        (
            json!({"linkId": "m", "type": "string", "extension": [{"url": core("regex"), "valueString": "[a-z]+"}]}),
            "pattern",
        ),
        (
            json!({"linkId": "m", "type": "string", "extension": [{"url": core("questionnaire-constraint"), "extension": []}]}),
            "checked by",
        ),
        (
            json!({"linkId": "m", "type": "decimal", "extension": [{"url": core("minValue"), "valueDate": "2020-01-01"}]}),
            "least or a most",
        ),
        (
            json!({"linkId": "m", "type": "date", "extension": [{"url": core("maxValue"), "_valueDate": {}}]}),
            "least or a most",
        ),
        (
            json!({"linkId": "m", "type": "quantity", "extension": [{"url": core("minValue"), "valueDecimal": 1}]}),
            "least or a most",
        ),
        (
            json!({"linkId": "c", "type": "choice", "answerOption": [{"valueReference": {"reference": "Patient/1"}}]}),
            "other than codes",
        ),
        (
            json!({"linkId": "x", "type": "string", "enableWhen": [{"question": "y", "operator": "exists", "answerBoolean": true}]}),
            "no question",
        ),
        (json!({"linkId": "g", "type": "group", "item": [{"linkId": "g", "type": "string"}]}), "twice"),
        (
            json!({"linkId": "e", "type": "decimal", "extension": [{"url": "http://hl7.org/fhir/uv/sdc/StructureDefinition/sdc-questionnaire-calculatedExpression",
            "valueExpression": {"language": "text/fhirpath", "expression": "1 + 1"}}]}),
            "another language",
        ),
    ] {
        assert!(of(item.clone()).contains(words), "{item}: {}", of(item.clone()));
    }
    let mut deep = json!({"linkId": "0", "type": "string"});
    for n in 1..40 {
        deep = json!({"linkId": n.to_string(), "type": "group", "item": [deep]});
    }
    assert!(of(deep).contains("nested"));
    assert_eq!(Template::unsupported(&json!({})), Some("It has no questions.".into()));
}

#[test]
fn a_form_without_its_template_tells_its_answers() {
    let response = json!({"item": [
        {"linkId": "g", "text": "Group", "item": [{"linkId": "q", "text": "Q", "answer": [{"valueCoding": coding("r", "Red")}]}]},
        {"linkId": "n", "answer": [{"valueQuantity": {"value": 5, "unit": "mg"}}]}]});
    let template = Template::of_response(&response);
    let read = Answers::read(&template, &response, UTC);
    assert_eq!(read.words(template.find("q").unwrap().0, &[]), "Red");
    assert_eq!(read.words(template.find("n").unwrap().0, &[]), "5 mg");
}

#[test]
fn no_name_of_a_field_and_no_questionnaire_makes_trouble() {
    for name in ["a.", "a.~", "a.~zz", "a.x.99", "a.x.y", "n.x.", "u.", "a.~ff~fe", "a.x.0.0.0.0.0.0.0.0.0.0.0.0"] {
        let mut given = answers(&[(name, "1"), ("n.2", "20"), ("n.2~2e3.0", "20")]);
        let template = Template::read(&foreign());
        given.add_one(&template, name.get(2..).unwrap_or_default());
        given.settle(&template);
        given.write(&template);
    }
    for odd in [
        json!(null),
        json!({"item": 5}),
        json!({"item": [null, [], {"type": 7, "linkId": []}]}),
        json!({"item": [{"answerOption": {}}]}),
    ] {
        Template::read(&odd);
        Template::unsupported(&odd);
        Template::of_response(&odd);
    }
}
