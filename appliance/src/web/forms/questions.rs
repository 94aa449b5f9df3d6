//! The questions of a template as fields of a page, and their answers as they are read.

use crate::dates;
use crate::forms::{Answers, Condition, Item, Kind, Place, Template, Unit, field_name};
use maud::{Markup, html};
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// What is wrong with single questions.
pub type Told = BTreeMap<Place, String>;

/// Answers that stand side by side; more of them are a list to choose from.
const SIDE_BY_SIDE: usize = 4;
/// Fields of a question that may have several answers.
const ANSWERS_SHOWN: usize = 20;

/// What every question of a page is drawn with.
struct Page<'a> {
    template: &'a Template,
    answers: &'a Answers,
    told: &'a Told,
    /// Shown without being part of a form.
    still: bool,
}

/// The questions of a template as fields; `still` shows them without being part of a form.
pub fn questions(template: &Template, answers: &Answers, told: &Told, still: bool) -> Markup {
    Page { template, answers, told, still }.items(&template.items, &[])
}

impl Page<'_> {
    fn items(&self, items: &[Item], path: &[usize]) -> Markup {
        html! { @for item in items.iter().filter(|item| !item.hidden) {
            @if item.kind == Kind::Group { (self.group(item, path)) } @else { (self.question(item, path)) }
        } }
    }

    fn group(&self, item: &Item, path: &[usize]) -> Markup {
        let count = self.answers.count(item, path);
        let name = field_name('n', &item.id, path);
        let inside = |index: usize| if item.repeats { [path, &[index]].concat() } else { path.to_vec() };
        html! {
            @if item.repeats && !self.still { input type="hidden" name=(name) value=(count); }
            @for index in 0..count {
                @let path = inside(index);
                fieldset.questions data-if=[self.condition(item, &path)] {
                    @if !item.text.is_empty() || item.repeats { legend { (item.text) @if item.repeats { " " span.soft { (index + 1) } } } }
                    (self.items(&item.items, &path))
                }
            }
            @if item.repeats && !self.still {
                @let full = item.limits.answers_max.is_some_and(|most| count >= most);
                @if !full { p data-if=[self.condition(item, &inside(0))] { button.small type="submit" name="do" value={ "add " (name.trim_start_matches("n.")) } aria-label={ "Add another: " (item.text) } { "Add another" } } }
            }
        }
    }

    /// A question with what stands below it.
    fn question(&self, item: &Item, path: &[usize]) -> Markup {
        if item.kind == Kind::Display {
            return html! { p.soft data-if=[self.condition(item, path)] { (item.text) } };
        }
        let place = (item.id.clone(), path.to_vec());
        let name = field_name('a', &item.id, path);
        let field = if self.still { format!("still-{name}") } else { name.clone() };
        let problem = self.told.get(&place);
        let answered = json!({"any": false, "when": [{"op": "exists", "names": [name], "is": ["yes"]}]}).to_string();
        html! {
            div.field.invalid[problem.is_some()] data-if=[self.condition(item, path)] {
                (self.input(item, path, &field, problem.is_some()))
                @if let Some(hint) = self.unit_hint(item) { p.hint { (hint) } }
                @if let Some(problem) = problem { p.problem id={ (field) "-error" } { (problem) } }
                @if !item.items.is_empty() { div.below data-if=[(!self.still).then_some(answered)] { (self.items(&item.items, path)) } }
            }
        }
    }

    fn input(&self, item: &Item, path: &[usize], field: &str, invalid: bool) -> Markup {
        let said = self.answers.text(&item.id, path);
        let described = invalid.then(|| format!("{field}-error"));
        let wrong = invalid.then_some("true");
        let fixed = item.read_only || item.calculation.is_some();
        let several = item.kind.is_choice() && item.repeats;
        match item.kind {
            Kind::Boolean if item.tick => html! {
                label.check { input type="checkbox" id=(field) name=(field) value="yes" checked[said == "yes"]; " " (item.text) }
            },
            Kind::Boolean => {
                let words = [("yes".to_owned(), "Yes".to_owned()), ("no".to_owned(), "No".to_owned())];
                self.side_by_side(item, path, (field, described.as_deref()), &words)
            }
            Kind::Choice | Kind::OpenChoice
                if several || item.kind == Kind::Choice && item.options.len() <= SIDE_BY_SIDE =>
            {
                let words: Vec<(String, String)> =
                    item.options.iter().map(|o| (o.key.clone(), o.label.clone())).collect();
                self.side_by_side(item, path, (field, described.as_deref()), &words)
            }
            _ if item.repeats => self.several(item, path, (field, described.as_deref())),
            _ => html! {
                label for=(field) { (item.text) (optional(item)) }
                @match item.kind {
                    Kind::Choice => select id=(field) name=(field) disabled[fixed] aria-invalid=[wrong] aria-describedby=[described] {
                        option value="" { "Please choose" }
                        @for option in &item.options { option value=(option.key) selected[option.key == said] { (option.label) } }
                    },
                    Kind::OpenChoice => {
                        input id=(field) name=(field) value=(shown(item, said)) list={ (field) "-list" } autocomplete="off" maxlength="500" readonly[fixed]
                            aria-invalid=[wrong] aria-describedby=[described];
                        datalist id={ (field) "-list" } { @for option in &item.options { option value=(option.label) {} } }
                    },
                    kind => {
                        (one_field(item, (field, field), said, described.as_deref(), None))
                        @if kind == Kind::Quantity { (self.unit(item, path, fixed)) }
                    },
                }
            },
        }
    }

    /// A question with several answers: a field for each, and one more. The button saves what is there, so that the page comes
    /// back with another one, with and without the script.
    fn several(&self, item: &Item, path: &[usize], (field, described): (&str, Option<&str>)) -> Markup {
        let said = self.answers.texts(&item.id, path);
        let most = item.limits.answers_max.unwrap_or(ANSWERS_SHOWN).min(ANSWERS_SHOWN);
        let free = said.len() < most && !item.read_only;
        let all = said.iter().map(String::as_str).chain(free.then_some("")).enumerate();
        html! {
            fieldset.choice aria-describedby=[described] { legend { (item.text) (optional(item)) }
                @for (number, text) in all.map(|(at, text)| (at + 1, text)) {
                    @let id = if number == 1 { field.to_owned() } else { format!("{field}-{number}") };
                    @let label = format!("{}, answer {number}", item.text);
                    p { (one_field(item, (&id, field), text, described, Some(&label)))
                        @if let Some(unit) = item.units.first() { span.unit { " " (unit.label) } } }
                }
                @if free && !self.still {
                    button.small type="submit" name="do" value={ "add " (field.trim_start_matches("a.")) } aria-label={ "Add another answer: " (item.text) } { "Add another" }
                }
            }
        }
    }

    /// In which unit other questions count a quantity that may be answered in several.
    fn unit_hint(&self, item: &Item) -> Option<String> {
        if item.kind != Kind::Quantity || item.units.len() == 1 {
            return None;
        }
        let units = self.template.counted_in(item);
        (!units.is_empty()).then(|| format!("Whether more is asked depends on the number in {}.", units.join(" or ")))
    }

    /// Answers to tick: one, or several where the question may have several.
    fn side_by_side(
        &self,
        item: &Item,
        path: &[usize],
        (field, described): (&str, Option<&str>),
        words: &[(String, String)],
    ) -> Markup {
        let kind = if item.repeats { "checkbox" } else { "radio" };
        let said = self.answers.texts(&item.id, path);
        let free = said.iter().find(|text| !words.iter().any(|(key, _)| key == *text)).map_or("", String::as_str);
        html! {
            fieldset.choice aria-describedby=[described] { legend { (item.text) (optional(item)) }
                @for (key, label) in words {
                    label.check { input type=(kind) name=(field) value=(key) checked[said.contains(key)] disabled[item.read_only]; " " (label) }
                }
                @if item.kind == Kind::OpenChoice {
                    label { "Another answer " input type="text" name=(field) value=(free) autocomplete="off" maxlength="500" readonly[item.read_only]; }
                }
            }
        }
    }

    fn unit(&self, item: &Item, path: &[usize], fixed: bool) -> Markup {
        let name = field_name('u', &item.id, path);
        let field = if self.still { format!("still-{name}") } else { name };
        let said = self.answers.unit(&item.id, path);
        let label = format!("Unit of {}", item.text);
        match item.units.as_slice() {
            [only] => html! { span.unit { " " (only.label) } },
            [] => {
                html! { input.unit id=(field) name=(field) value=(said) placeholder="Unit" aria-label=(label) autocomplete="off" maxlength="40" readonly[fixed]; }
            }
            units => html! { select.unit id=(field) name=(field) aria-label=(label) disabled[fixed] {
                option value="" { "Unit" }
                @for unit in units { option value=(unit.key()) selected[unit.key() == said] { (unit.label) } }
            } },
        }
    }

    /// The conditions of an item, for the script that hides what is not asked; the server drops its answers by the same rule.
    fn condition(&self, item: &Item, path: &[usize]) -> Option<String> {
        if self.still || item.conditions.is_empty() {
            return None;
        }
        let mut own: Vec<&str> = self.template.find(&item.id)?.1;
        if item.kind == Kind::Group && item.repeats {
            own.push(&item.id);
        }
        let when = item.conditions.iter().filter_map(|condition| {
            let (question, around) = self.template.find(&condition.question)?;
            let shared = around.iter().zip(&own).take_while(|(one, two)| one == two).count();
            let near = path.get(..shared).unwrap_or_default();
            let mut names = Vec::new();
            self.answers.walk(self.template, &mut |other, at, _| {
                if other.id == question.id && at.starts_with(near) {
                    names.push(field_name('a', &other.id, at));
                }
            });
            // What nobody sees does not change while the page is open.
            if question.hidden {
                return Some(json!({"fixed": self.answers.meets(self.template, item, condition, path)}));
            }
            let wanted = self.answers.wanted(condition, question);
            let label = question.options.iter().find(|option| option.key == wanted).map(|option| option.label.clone());
            let kind = match question.kind {
                Kind::Integer | Kind::Decimal | Kind::Quantity => "number",
                Kind::Date | Kind::DateTime | Kind::Time => "time",
                _ => "words",
            };
            let is: Vec<String> = [wanted].into_iter().chain(label).collect();
            let mut when =
                json!({"op": condition.operator.code(), "names": names, "kind": kind, "is": is, "tick": question.tick});
            if question.kind == Kind::Quantity {
                when["units"] = units(question, condition);
            }
            Some(when)
        });
        Some(json!({"any": item.any, "when": when.collect::<Vec<Value>>()}).to_string())
    }
}

/// The units that count for a condition, as the fields name them; null where there is no field, because one unit is fixed.
fn units(question: &Item, condition: &Condition) -> Value {
    match question.units.as_slice() {
        [_] => Value::Null,
        [] if condition.unit.label.is_empty() => json!([""]),
        [] => {
            [&condition.unit.label, &condition.unit.code].into_iter().filter(|name| !name.is_empty()).cloned().collect()
        }
        all => all.iter().filter(|unit| unit.is(&condition.unit)).map(Unit::key).collect(),
    }
}

/// A field to type an answer into; where several stand together each has its own label.
fn one_field(
    item: &Item,
    (id, name): (&str, &str),
    said: &str,
    described: Option<&str>,
    label: Option<&str>,
) -> Markup {
    let (fixed, wrong) = (item.read_only || item.calculation.is_some(), described.map(|_| "true"));
    let (most, format) = (item.limits.length_max, item.limits.format.as_deref());
    let decimal = item.kind.is_number() || item.kind == Kind::Quantity;
    html! {
        @if item.kind == Kind::Text {
            textarea id=(id) name=(name) rows="4" data-phrases="" maxlength=[most] placeholder=[format] readonly[fixed]
                aria-invalid=[wrong] aria-describedby=[described] aria-label=[label] { "\n" (said) }
        } @else {
            input id=(id) name=(name) value=(said) autocomplete="off" maxlength=(most.unwrap_or(500)) placeholder=[format] readonly[fixed]
                type=(input_type(item.kind, said)) inputmode=[decimal.then_some("decimal")]
                aria-invalid=[wrong] aria-describedby=[described] aria-label=[label];
        }
    }
}

fn optional(item: &Item) -> Markup {
    html! {
        @if item.calculation.is_some() { span.optional { " calculated" } }
        @else if item.read_only { span.optional { " not to be changed" } }
        @else if !item.required { span.optional { " optional" } }
    }
}

fn shown<'a>(item: &'a Item, said: &'a str) -> &'a str {
    item.options.iter().find(|option| option.key == said).map_or(said, |option| &option.label)
}

/// The browser's own field, unless it could not show what stands in it: half a date, or words.
fn input_type(kind: Kind, said: &str) -> &'static str {
    let is = |whole: bool, kind: &'static str| if said.is_empty() || whole { kind } else { "text" };
    match kind {
        Kind::Date => is(dates::parse_day(said).is_some(), "date"),
        Kind::DateTime => is(said.len() >= 16 && said.as_bytes().get(10) == Some(&b'T'), "datetime-local"),
        Kind::Time => is(dates::parse_time(said.get(..5).unwrap_or_default()).is_some(), "time"),
        _ => "text",
    }
}

/// Questions and answers to be read.
pub fn answered(template: &Template, answers: &Answers) -> Markup {
    read_items(&template.items, answers, &[], 2)
}

fn read_items(items: &[Item], answers: &Answers, path: &[usize], level: u8) -> Markup {
    html! { @for item in items.iter().filter(|item| !item.hidden) {
        @if item.kind == Kind::Group {
            @for index in 0..answers.count(item, path) {
                @let path = if item.repeats { [path, &[index]].concat() } else { path.to_vec() };
                @let title = html! { (item.text) @if item.repeats { " " (index + 1) } };
                // What nothing was said of is left out; what was said stands inside of its section.
                @if is_answered(&item.items, answers, &path) { section.answers {
                    @if level == 2 { h2 { (title) } } @else { h3 { (title) } }
                    (read_items(&item.items, answers, &path, 3))
                } }
            }
        } @else {
            @let said = answers.words(item, path);
            @if !said.is_empty() {
                dl.facts { div { dt { (item.text) } dd.text { (said) } } }
                (read_items(&item.items, answers, path, level))
            }
        }
    } }
}

fn is_answered(items: &[Item], answers: &Answers, path: &[usize]) -> bool {
    items.iter().filter(|item| !item.hidden).any(|item| {
        let inside = |index| if item.repeats { [path, &[index]].concat() } else { path.to_vec() };
        match item.kind {
            Kind::Group => {
                (0..answers.count(item, path)).any(|index| is_answered(&item.items, answers, &inside(index)))
            }
            _ => !answers.texts(&item.id, path).is_empty(),
        }
    })
}
