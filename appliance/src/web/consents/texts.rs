//! The practice's consent texts: versions, what each governs, and where patients are asked for it.

use super::super::fields::{self, Field, Problems, area};
use super::super::form::Form;
use super::super::gate::Visit;
use super::super::layout::{self, Section};
use super::super::login::redirect;
use super::super::{PageError, Web};
use crate::access::{Action, Governs, Object, authorize};
use crate::audit;
use crate::consents::{self, Text};
use crate::store::{StoreError, Tx};
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use maud::{Markup, html};

const NEW: &str = "new";
const BODY_CHARS_MAX: usize = 30_000;
/// The word of the form for a text that governs nothing.
const NOTHING: &str = "none";
/// The words of the form for [`Text::needed`].
const NEEDED: [(&str, &str); 2] =
    [("yes", "It happens only with this consent"), ("no", "It happens unless the patient refused or withdrew")];

pub async fn page(State(web): State<Web>, visit: Visit) -> Result<Markup, PageError> {
    let all = web.store().internal(consents::texts).await?;
    let may = authorize(&visit.actor, Action::Update, Object::resource("HealthcareService")).is_ok();
    let length = |months: i64| if months == 0 { "until withdrawn".to_owned() } else { format!("{months} months") };
    Ok(layout::page(
        &web,
        &visit,
        Section::Patients,
        "Consent texts",
        None,
        &html! {
            div.head { h1 { "Consent texts" } @if may { a.button.primary href="/consents/new" { "Write a text" } } }
            @if all.is_empty() { p.empty { "None yet. A practice administrator writes them; patients sign them from their chart." } }
            @else { table.list {
                (layout::columns(&["Title", "Version", "Good for", "Governs", "Asked for", "State"]))
                tbody { @for t in &all { tr.past[!t.in_use] {
                    th scope="row" { @if may { a href={ "/consents/" (t.id) } { (t.title) } } @else { (t.title) } }
                    td { (t.version) } td { (length(t.months)) }
                    td { @if let Some(governs) = t.governs { (governs.told()) span.soft { " · " (if t.needed { "only with it" } else { "unless refused" }) } } @else { "–" } }
                    td { (if t.portal { "in the portal" } else { "in the practice" }) } td { (if t.in_use { "in use" } else { "retired" }) }
                } } }
            } }
        },
    ))
}

pub async fn edit(State(web): State<Web>, visit: Visit, Path(id): Path<String>) -> Result<Markup, PageError> {
    let own = id.clone();
    let found = if id == NEW {
        None
    } else {
        Some(web.store().internal(move |db| consents::text(db, &own)).await?.ok_or(PageError::NotFound)?)
    };
    let fields = match &found {
        Some(t) => [
            ("title", t.title.clone()),
            ("body", t.body.clone()),
            ("months", t.months.to_string()),
            ("governs", t.governs.map_or(NOTHING, Governs::as_str).to_owned()),
            ("needed", if t.needed { "yes".into() } else { "no".into() }),
            ("portal", if t.portal { "yes".into() } else { String::new() }),
            ("in_use", if t.in_use { "yes".into() } else { String::new() }),
            ("version", t.version.to_string()),
        ],
        None => [
            ("title", String::new()),
            ("body", String::new()),
            ("months", "0".into()),
            ("governs", NOTHING.into()),
            ("needed", "yes".into()),
            ("portal", String::new()),
            ("in_use", "yes".into()),
            ("version", "0".into()),
        ],
    };
    let form = Form::from_fields(fields.map(|(n, v)| (n.to_owned(), v)));
    Ok(text_form(&web, &visit, &id, &form, &Problems::default()))
}

fn text_form(web: &Web, visit: &Visit, id: &str, form: &Form, problems: &Problems) -> Markup {
    let or = |name: &str, other: &'static str| match form.text(name) {
        "" => other.to_owned(),
        word => word.to_owned(),
    };
    let (governs, needed) = (or("governs", NOTHING), or("needed", "yes"));
    let things: Vec<(String, String)> = fields::pairs(&[(NOTHING, "Nothing that this program enforces")])
        .into_iter()
        .chain(Governs::ALL.iter().map(|one| (one.as_str().to_owned(), one.told().to_owned())))
        .collect();
    layout::page(
        web,
        visit,
        Section::Patients,
        "Consent text",
        None,
        &html! {
            div.head { h1 { (if id == NEW { "Write a consent text" } else { "A new version of this text" }) } }
            (problems.summary())
            form.sheet method="post" action={ "/consents/" (id) } {
                (layout::csrf(visit)) input type="hidden" name="version" value=(form.text("version"));
                (Field::new("Title", "title", form.text("title")).required().show(problems))
                (area("Text", "body", form.raw("body"), 16, problems))
                (Field::new("Good for months (0: until withdrawn)", "months", form.text("months")).kind("number").required().show(problems))
                (fields::select("Governs", "governs", &governs, &things, true, problems))
                (fields::select("What it governs", "needed", &needed, &fields::pairs(&NEEDED), true, problems))
                p.hint { "Who refused or withdrew is kept to it from that moment, whatever is chosen here. The practice's own people are never \
                    kept from a record by it." }
                label.check { input type="checkbox" name="portal" value="yes" checked[form.text("portal") == "yes"]; " Ask patients for it in the portal" }
                label.check { input type="checkbox" name="in_use" value="yes" checked[form.text("in_use") == "yes"]; " In use" }
                p.hint { "What was signed before stays what it was: a change makes a new version for the next signature." }
                (layout::save_or_cancel("Save", "/consents"))
            }
        },
    )
}

pub async fn save(
    State(web): State<Web>,
    visit: Visit,
    Path(id): Path<String>,
    form: Form,
) -> Result<Response, PageError> {
    let mut problems = Problems::default();
    if form.text("title").is_empty() || form.text("title").chars().count() > 120 {
        problems.add("title", "Please give a title of at most 120 characters.");
    }
    if form.text("body").is_empty() || form.raw("body").chars().count() > BODY_CHARS_MAX {
        problems.add("body", "A text has 1 to 30,000 characters.");
    }
    let months = form.text("months").parse().ok().filter(|m| (0..=600).contains(m));
    if months.is_none() {
        problems.add("months", "A whole number from 0 to 600.");
    }
    let governs = Governs::parse(form.text("governs"));
    if governs.is_none() && !matches!(form.text("governs"), "" | NOTHING) {
        problems.add("governs", "Please choose one.");
    }
    let (Some(months), true) = (months, problems.is_empty()) else {
        return Ok((StatusCode::UNPROCESSABLE_ENTITY, text_form(&web, &visit, &id, &form, &problems)).into_response());
    };
    let fresh = crate::clock::new_id().map_err(|_| PageError::Internal("randomness"))?;
    let store = move |tx: &mut Tx<'_>| {
        let id = if id == NEW { fresh } else { id };
        let newest = consents::text(tx.connection(), &id)?.map_or(0, |t| t.version);
        if form.text("version").parse() != Ok(newest) {
            return Err(StoreError::VersionConflict { current: u32::try_from(newest).unwrap_or(0) });
        }
        let text = Text {
            id: id.clone(),
            version: newest + 1,
            title: form.text("title").to_owned(),
            body: form.raw("body").trim_end().to_owned(),
            months,
            governs,
            // What is not said is the narrower one.
            needed: form.text("needed") != "no",
            portal: form.text("portal") == "yes",
            in_use: form.text("in_use") == "yes",
        };
        consents::add_text(tx, &text)?;
        tx.note(audit::Event::new(audit::Action::Update, "consent-text", &id));
        Ok(())
    };
    web.store().write(&visit.actor, store).await?;
    Ok(redirect("/consents"))
}
