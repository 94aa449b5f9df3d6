//! Two people changed one thing: what each of them entered stands side by side, and the second one decides. Nothing is
//! overwritten in silence, and nothing that was typed is lost.

use super::gate::Visit;
use super::layout::{self, Section};
use super::{Web, chart, dates};
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use maud::{Markup, html};

/// One field of the form, three times.
pub struct Field {
    pub name: &'static str,
    pub label: &'static str,
    /// As it was when the form was opened.
    pub base: String,
    pub mine: String,
    /// As somebody else saved it meanwhile.
    pub theirs: String,
    /// Words for values that are codes; empty where a value is its own word.
    pub words: Vec<(String, String)>,
}

impl Field {
    pub fn new(name: &'static str, label: &'static str, base: &str, mine: &str, theirs: &str) -> Field {
        let (base, mine, theirs) = (base.to_owned(), mine.to_owned(), theirs.to_owned());
        Field { name, label, base, mine, theirs, words: Vec::new() }
    }

    pub fn words(self, words: Vec<(String, String)>) -> Field {
        Field { words, ..self }
    }

    fn word<'a>(&'a self, value: &'a str) -> &'a str {
        let known = self.words.iter().find(|(key, _)| key == value).map(|(_, word)| word.as_str());
        match known.unwrap_or(value) {
            "" => "nothing",
            word => word,
        }
    }

    /// Which of both is chosen beforehand: the one that is a change. Where both changed it, a person chooses.
    fn chosen(&self) -> Option<&str> {
        if self.mine == self.base {
            Some(&self.theirs)
        } else if self.theirs == self.base {
            Some(&self.mine)
        } else {
            None
        }
    }
}

/// What the page is about.
pub struct Merge<'a> {
    pub section: Section,
    pub banner: Option<&'a Markup>,
    /// What was changed twice.
    pub what: &'a str,
    /// Where the form is sent: the same address as before.
    pub action: &'a str,
    pub back: &'a str,
    pub patient: &'a str,
    /// The version that is current now.
    pub version: u32,
    /// When the other one saved, as FHIR says it.
    pub saved: &'a str,
    pub fields: Vec<Field>,
    /// Fields that go along unseen.
    pub hidden: Vec<(&'static str, String)>,
}

impl Merge<'_> {
    /// Whether both saved the same: a form that was sent twice, or two people of one mind.
    pub fn is_same(&self) -> bool {
        self.fields.iter().all(|field| field.mine == field.theirs)
    }

    pub fn page(&self, web: &Web, visit: &Visit) -> Response {
        let saved = dates::show(self.saved, web.settings().zone);
        let page = layout::page(
            web,
            visit,
            self.section,
            "Changed by two people",
            self.banner,
            &html! {
                div.head { h1 { "Changed by two people" } }
                div.notice.warn role="alert" { p { "While you had this form open, somebody else saved " (self.what) " (" (saved) "). Nothing of yours is \
                    saved yet. Choose for each field what is right, then save." } }
                form.sheet method="post" action=(self.action) {
                    (layout::csrf(visit)) (chart::form_identity(self.patient, &self.version.to_string()))
                    @for (name, value) in &self.hidden { input type="hidden" name=(name) value=(value); }
                    @for field in &self.fields { (choice(field)) }
                    (layout::save_or_cancel("Save what is chosen", self.back))
                }
            },
        );
        (StatusCode::CONFLICT, page).into_response()
    }
}

fn choice(field: &Field) -> Markup {
    if field.mine == field.theirs {
        return html! { input type="hidden" name=(field.name) value=(field.mine); };
    }
    let chosen = field.chosen();
    html! {
        fieldset.merge {
            legend { (field.label) }
            @for (who, value) in [("Yours", &field.mine), ("Saved meanwhile", &field.theirs)] {
                label.check {
                    input type="radio" name=(field.name) value=(value) required checked[chosen == Some(value.as_str())];
                    " " b { (who) ": " } (field.word(value))
                }
            }
            @if chosen.is_none() { p.hint { "Both of you changed this; before it was: " (field.word(&field.base)) } }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_one_change_is_chosen_and_of_two_none() {
        let field = |base, mine, theirs| Field::new("x", "X", base, mine, theirs);
        assert_eq!(field("a", "b", "a").chosen(), Some("b"));
        assert_eq!(field("a", "a", "c").chosen(), Some("c"));
        assert_eq!(field("a", "b", "c").chosen(), None);
        assert_eq!(field("a", "", "a").chosen(), Some(""));
        assert_eq!(field("", "", "").word(""), "nothing");
    }
}
