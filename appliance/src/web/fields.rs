//! Form fields with their label, hint and message: one look, one way to say what is wrong.

use maud::{Markup, html};
use std::collections::BTreeMap;

/// What is wrong with a form, by field name; the empty name is about the whole form.
#[derive(Default, Clone, Debug)]
pub struct Problems(BTreeMap<&'static str, String>);

impl Problems {
    pub fn add(&mut self, field: &'static str, sentence: impl Into<String>) {
        self.0.entry(field).or_insert_with(|| sentence.into());
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn get(&self, field: &str) -> Option<&str> {
        self.0.get(field).map(String::as_str)
    }

    /// The summary above the form, read out first.
    pub fn summary(&self) -> Markup {
        html! {
            @if !self.is_empty() {
                div.notice.error role="alert" {
                    p { (self.get("").unwrap_or("Nothing was saved yet. Please look at the marked fields.")) }
                }
            }
        }
    }
}

/// An input with a label.
pub struct Field<'a> {
    pub label: &'a str,
    pub name: &'a str,
    pub value: &'a str,
    pub kind: &'a str,
    pub hint: &'a str,
    pub required: bool,
    pub autocomplete: &'a str,
    pub length_max: u32,
}

impl<'a> Field<'a> {
    pub fn new(label: &'a str, name: &'a str, value: &'a str) -> Self {
        Self { label, name, value, kind: "text", hint: "", required: false, autocomplete: "off", length_max: 200 }
    }

    pub fn kind(self, kind: &'a str) -> Self {
        Self { kind, ..self }
    }

    pub fn hint(self, hint: &'a str) -> Self {
        Self { hint, ..self }
    }

    pub fn required(self) -> Self {
        Self { required: true, ..self }
    }

    pub fn autocomplete(self, autocomplete: &'a str) -> Self {
        Self { autocomplete, ..self }
    }

    pub fn show(&self, problems: &Problems) -> Markup {
        let numeric = self.autocomplete == "one-time-code";
        frame(
            self.label,
            self.name,
            self.hint,
            self.required,
            problems,
            &html! {
                input id=(self.name) name=(self.name) type=(self.kind) value=(self.value) required[self.required]
                    autocomplete=(self.autocomplete) maxlength=(self.length_max) inputmode=[numeric.then_some("numeric")]
                    spellcheck="false"
                    aria-invalid=[problems.get(self.name).map(|_| "true")]
                    aria-describedby=[described(self.name, self.hint, problems)];
            },
        )
    }
}

/// A choice among a few.
pub fn select(
    label: &str,
    name: &str,
    value: &str,
    options: &[(String, String)],
    required: bool,
    problems: &Problems,
) -> Markup {
    frame(
        label,
        name,
        "",
        required,
        problems,
        &html! {
            select id=(name) name=(name) required[required] aria-invalid=[problems.get(name).map(|_| "true")]
                aria-describedby=[described(name, "", problems)] {
                @if value.is_empty() || !options.iter().any(|(key, _)| key == value) { option value="" { "Please choose" } }
                @for (key, shown) in options { option value=(key) selected[key == value] { (shown) } }
            }
        },
    )
}

/// A text area.
pub fn area(label: &str, name: &str, value: &str, rows: u32, problems: &Problems) -> Markup {
    frame(
        label,
        name,
        "",
        true,
        problems,
        &html! {
            // The first newline of a text area's content is not part of its value.
            textarea id=(name) name=(name) rows=(rows) required aria-invalid=[problems.get(name).map(|_| "true")]
                aria-describedby=[described(name, "", problems)] { "\n" (value) }
        },
    )
}

/// Options that show what they store.
pub fn same(options: &[&str]) -> Vec<(String, String)> {
    options.iter().map(|o| ((*o).to_owned(), (*o).to_owned())).collect()
}

/// Options given as (stored, shown).
pub fn pairs(options: &[(&str, &str)]) -> Vec<(String, String)> {
    options.iter().map(|(key, shown)| ((*key).to_owned(), (*shown).to_owned())).collect()
}

fn described(name: &str, hint: &str, problems: &Problems) -> Option<String> {
    match (problems.get(name), hint) {
        (Some(_), _) => Some(format!("{name}-error")),
        (None, "") => None,
        _ => Some(format!("{name}-hint")),
    }
}

fn frame(label: &str, name: &str, hint: &str, required: bool, problems: &Problems, input: &Markup) -> Markup {
    html! {
        div.field.invalid[problems.get(name).is_some()] {
            label for=(name) { (label) @if !required { span.optional { " optional" } } }
            (input)
            @if let Some(problem) = problems.get(name) { p.problem id={ (name) "-error" } { (problem) } }
            @else if !hint.is_empty() { p.hint id={ (name) "-hint" } { (hint) } }
        }
    }
}
