//! Moving in, from a browser: a table is looked at, then brought in; one of documents with the files that it names, as far as
//! one form carries them. Many or large files are for the command line.

use super::fields::{self, Field, Problems};
use super::form::{Form, UPLOAD_BYTES_MAX};
use super::gate::Visit;
use super::layout::{self, Section};
use super::{Method, PageError, Policy, Route, Target, Web};
use crate::access::{Action, Actor, Capacity, Program};
use crate::import::{self, Dates, Encoding, Flaw, ImportError, Input, Options, Report, Table, sentence};
use crate::store::StoreError;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use maud::{Markup, html};

/// Sentences of one kind that a page shows.
const TOLD_MAX: usize = 200;
const TABLES: [(&str, &str); 3] =
    [("patients", "Patients"), ("appointments", "Appointments"), ("documents", "Documents")];
const ENCODINGS: [(&str, &str); 2] = [("unicode", "UTF-8 or UTF-16"), ("windows-1252", "Windows-1252")];
const DATES: [(&str, &str); 3] =
    [("iso", "2024-05-06"), ("dmy", "06.05.2024 (day first)"), ("mdy", "05/06/2024 (month first)")];

pub fn routes(web: &Web) -> Vec<Route> {
    let w = || web.clone();
    let may = Policy::Permits(Action::Update, Target::Users);
    vec![
        Route::new(Method::Get, "/practice/import", may, page, w()),
        Route::new(Method::Post, "/practice/import", may, look_or_carry, w()),
    ]
}

async fn page(State(web): State<Web>, visit: Visit) -> Markup {
    let fields = [("table", "patients"), ("source", "previous"), ("encoding", "unicode"), ("dates", "iso")];
    let form = Form::from_fields(fields.map(|(name, value)| (name.to_owned(), value.to_owned())));
    show(&web, &visit, &form, &Problems::default(), None)
}

fn show(web: &Web, visit: &Visit, form: &Form, problems: &Problems, told: Option<&Markup>) -> Markup {
    let choice = |label, name, options: &[(&str, &str)]| {
        fields::select(label, name, form.text(name), &fields::pairs(options), true, problems)
    };
    let columns = |table: Table| {
        let all = table.columns().iter();
        all.map(|c| if c.required { c.name.to_owned() } else { format!("[{}]", c.name) }).collect::<Vec<_>>().join(", ")
    };
    let hint = format!("Text with commas, semicolons or tabs, at most {} MB", UPLOAD_BYTES_MAX >> 20);
    layout::page(
        web,
        visit,
        Section::Users,
        "Moving in",
        None,
        &html! {
            div.head { h1 { "Moving in" } }
            (problems.summary())
            @if let Some(told) = told { (told) }
            form.sheet method="post" enctype="multipart/form-data" action="/practice/import" { (layout::csrf(visit))
                div.columns {
                    (choice("What the table holds", "table", &TABLES))
                    (Field::new("Table", "file", "").kind("file").required().hint(&hint).show(problems))
                    div.field {
                        label for="files" { "Files" span.optional { " optional" } }
                        input #files type="file" name="files" multiple aria-describedby="files-hint";
                        p.hint #files-hint { "For documents: the files that the table names, at most " (UPLOAD_BYTES_MAX >> 20) " MB together; choose them again for each step" }
                    }
                    (Field::new("Your name for the system that it comes from", "source", form.text("source")).required()
                        .hint("The same name each time: rows are told apart by it and their number").show(problems))
                    (choice("Letters are written as", "encoding", &ENCODINGS))
                    (choice("Days are written as", "dates", &DATES))
                }
                p.actions {
                    button.primary type="submit" name="do" value="look" { "Look only" }
                    button type="submit" name="do" value="carry" { "Bring in" }
                    a.button href="/practice" { "Cancel" }
                }
            }
            p.soft.foot { "The first line names the columns; those in brackets may be left out. Patients: " (columns(Table::Patients))
                ". Appointments: " (columns(Table::Appointments)) ". Documents: " (columns(Table::Documents))
                ". Bringing the same table in again adds nothing twice. Whole folders of documents and FHIR bundles are brought in with " code { "appliance import" } "." }
        },
    )
}

fn choice<T: clap::ValueEnum>(text: &str) -> Option<T> {
    T::from_str(text, false).ok()
}

async fn look_or_carry(State(web): State<Web>, visit: Visit, form: Form) -> Result<Response, PageError> {
    let mut problems = Problems::default();
    let table = match form.text("table") {
        "patients" => Some(Table::Patients),
        "appointments" => Some(Table::Appointments),
        "documents" => Some(Table::Documents),
        _ => None,
    };
    let bytes = form.upload("file").map(|file| file.bytes.to_vec()).filter(|bytes| !bytes.is_empty());
    let (encoding, dates) = (choice::<Encoding>(form.text("encoding")), choice::<Dates>(form.text("dates")));
    if bytes.is_none() {
        problems.add("file", "Please choose the table.");
    }
    for (name, given) in [("table", table.is_some()), ("encoding", encoding.is_some()), ("dates", dates.is_some())] {
        if !given {
            problems.add(name, "Please choose one.");
        }
    }
    let (Some(table), Some(bytes), Some(encoding), Some(dates)) = (table, bytes, encoding, dates) else {
        return Ok((StatusCode::UNPROCESSABLE_ENTITY, show(&web, &visit, &form, &problems, None)).into_response());
    };
    let options = Options { source: form.text("source").to_owned(), encoding, dates, zone: web.settings().zone };
    let carry = form.text("do") == "carry";
    let files: Vec<_> = form.uploads("files").map(|file| (file.name.clone(), file.bytes.clone())).collect();
    let (store, person) = (web.store().clone(), visit.actor.clone());
    // What moves in happened, clash or not: the rules of an import, in the name of who brought it in.
    let actor = Actor { capacity: Capacity::Program(Program::Import), ..person };
    let run = move || -> Result<Report, ImportError> {
        let plan = import::plan(&store, &Input::table(table, bytes).with_files(files), &options)?;
        Ok(if carry { plan.carry_out(&store, &actor, |_| ())? } else { plan.dry_run(&store)? })
    };
    match tokio::task::spawn_blocking(run).await {
        Ok(Ok(report)) => Ok(show(&web, &visit, &form, &problems, Some(&told(&report, carry))).into_response()),
        Ok(Err(ImportError::Store(error))) => Err(error.into()),
        Ok(Err(ImportError::Source)) => {
            problems.add("source", "Please choose 1 to 32 small letters, digits and hyphens.");
            Ok((StatusCode::UNPROCESSABLE_ENTITY, show(&web, &visit, &form, &problems, None)).into_response())
        }
        Ok(Err(_)) => Err(PageError::Internal("import")),
        Err(_) => Err(StoreError::Closed.into()),
    }
}

fn told(report: &Report, carried: bool) -> Markup {
    let sentences = |title: &str, flaws: &[(Table, Flaw)]| {
        html! {
            @if !flaws.is_empty() {
                h2 { (title) }
                ul { @for (table, flaw) in flaws.iter().take(TOLD_MAX) { li { (sentence(*table, flaw)) } } }
                @if flaws.len() > TOLD_MAX { p { "and " (flaws.len() - TOLD_MAX) " more" } }
            }
        }
    };
    html! {
        section.panel aria-label="Result" {
            div.notice.warn[!report.is_whole()] role="status" { p {
                @match (carried, report.is_whole()) {
                    (false, true) => "Nothing was changed. This is what “Bring in” will do.",
                    (false, false) => "Nothing was changed. The rows named below cannot be brought in; the others can.",
                    (true, true) => "Every row is in.",
                    (true, false) => "The rows named below are not in. Correct them and bring the table in again.",
                }
            } }
            table.list {
                caption.quiet { "Rows" }
                (layout::columns(&["Table", "Rows", "New", "Changed", "As before", "Changed here and kept", "Refused"]))
                tbody { @for (table, counts) in &report.tables { tr {
                    th scope="row" { (table.file()) }
                    @for count in [counts.rows, counts.new, counts.changed, counts.same, counts.kept, counts.refused] { td.number { (count) } }
                } } }
            }
            (sentences("Not brought in", &report.flaws))
            (sentences("To look at", &report.doubts))
        }
    }
}
