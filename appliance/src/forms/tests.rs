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
    given.keep_read_only(&template, &Answers::initial(&template, ZONE));
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
        (json!({"linkId": "s", "type": "string", "repeats": true}), "several times"),
        (json!({"linkId": "c", "type": "choice"}), "lists no answers"),
        (json!({"linkId": "c", "type": "choice", "answerValueSet": "http://example.org/set"}), "lists no answers"),
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
