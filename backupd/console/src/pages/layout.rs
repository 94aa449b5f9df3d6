//! The frame around every page, and the small parts that pages share.

use crate::accounts::Caller;
use crate::alerts::state;
use crate::app::App;
use crate::daemons::Seen;
use crate::pages::assets::{CSS_NAME, HTMX_NAME, ICON_NAME};
use crate::roles::Action;
use crate::web::{CSRF_FIELD, Refusal};
use crate::words::{ago, iso, moment, moment_short, span};
use backupd_api::Severity;
use maud::{DOCTYPE, Markup, PreEscaped, html};

/// How good something is: always shown as a sign and a word, never as a colour alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Mood {
    Good,
    /// Not known, or not applicable.
    Plain,
    Warn,
    Bad,
}

impl Mood {
    pub fn class(self) -> &'static str {
        match self {
            Self::Good => "good",
            Self::Plain => "plain",
            Self::Warn => "warn",
            Self::Bad => "bad",
        }
    }

    fn sign(self) -> &'static str {
        match self {
            Self::Good => "✓",
            Self::Plain => "–",
            Self::Warn => "!",
            Self::Bad => "✕",
        }
    }
}

impl From<Severity> for Mood {
    fn from(severity: Severity) -> Self {
        match severity {
            Severity::Critical => Self::Bad,
            Severity::Warning => Self::Warn,
        }
    }
}

const PAGES: [(&str, &str, Action); 8] = [
    ("/", "Posture", Action::SeePosture),
    ("/snapshots", "Snapshots", Action::SeeSnapshots),
    ("/reports", "Restore reports", Action::SeeReports),
    ("/deletions", "Deletions", Action::SeeDeletions),
    ("/hosts", "Hosts", Action::SeeHealth),
    ("/alerts", "Alerts", Action::SeeAlerts),
    ("/record", "Record", Action::SeeAudit),
    ("/accounts", "Accounts", Action::SeeAccounts),
];

/// A page for somebody who is signed in. `here` is the path of its entry in the menu.
pub fn page(app: &App, caller: &Caller, here: &str, title: &str, body: Markup) -> Markup {
    let open = app.db.read(state::open).unwrap_or_default();
    let practice = app.pictures.now().serve.value().map(|view| view.status.practice.clone());
    let worst = open.iter().map(|alert| Mood::from(alert.severity)).max();
    document(
        title,
        html! {
            header.top {
                div.brand { (icon()) span { "Holdfast" } }
                @if let (Some(practice), true) = (practice, caller.role.may(Action::SeePosture)) {
                    span.practice { (practice) }
                }
                nav aria-label="Pages" {
                    @for (path, name, action) in PAGES {
                        @if caller.role.may(action) {
                            a href=(path) aria-current=[(path == here).then_some("page")] {
                                (name)
                                @if let (true, Some(worst)) = (path == "/alerts", worst) {
                                    " " span.count.(worst.class()) { (open.len()) span.unseen { " open" } }
                                }
                            }
                        }
                    }
                }
                form.who method="post" action="/sign-out" {
                    (csrf(caller))
                    span { strong { (caller.name) } br; (caller.role.title()) }
                    button.quiet { "Sign out" }
                }
            }
            main #main { h1 { (title) } (body) }
        },
    )
}

/// A page for somebody who is not signed in.
pub fn outside(title: &str, body: Markup) -> Markup {
    document(
        title,
        html! {
            main.outside #main {
                div.brand { (icon()) span { "Holdfast" } }
                h1 { (title) }
                (body)
            }
        },
    )
}

fn document(title: &str, body: Markup) -> Markup {
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                // No inline style and no eval: the content security policy refuses both.
                meta name="htmx-config"
                content=r#"{"includeIndicatorStyles":false,"allowEval":false,"historyCacheSize":0}"#;
                title { (title) " · Holdfast console" }
                link rel="icon" href={ "/assets/" (*ICON_NAME) } type="image/svg+xml";
                link rel="stylesheet" href={ "/assets/" (*CSS_NAME) };
                script src={ "/assets/" (*HTMX_NAME) } defer {}
            }
            body {
                a.skip href="#main" { "Skip to the content" }
                (body)
            }
        }
    }
}

fn icon() -> Markup {
    html! { img src={ "/assets/" (*ICON_NAME) } alt="" width="28" height="28"; }
}

pub fn refusal(app: &App, caller: Option<&Caller>, refusal: &Refusal) -> Markup {
    let title = match refusal {
        Refusal::SignIn => "Sign in",
        Refusal::Forbidden => "Not for your role",
        Refusal::CrossSite => "The form was not accepted",
        Refusal::NotFound => "Nothing here",
        Refusal::Bad(_) => "That did not work",
        Refusal::Unavailable(_) => "Not available now",
        Refusal::Internal => "The console has a problem",
    };
    let home = caller.map_or("/sign-in", |caller| caller.role.home());
    let body = html! {
        p.lead { (sentence(&refusal.to_string())) }
        @if let (Refusal::Forbidden, Some(caller)) = (refusal, caller) {
            p { "You are signed in as " strong { (caller.name) } " (" (caller.role.title()) ")." }
        }
        p { a.button href=(home) { "Go to the start" } }
    };
    match caller {
        Some(caller) => page(app, caller, "", title, body),
        None => outside(title, body),
    }
}

/// A column of a table by its heading.
#[derive(Debug, Clone, Copy)]
pub enum Column {
    Text(&'static str),
    /// Set to the right.
    Number(&'static str),
}

pub fn columns(columns: &[Column]) -> Markup {
    html! {
        thead {
            tr {
                @for column in columns {
                    @match column {
                        Column::Text(name) => th scope="col" { (name) }
                        Column::Number(name) => th.number scope="col" { (name) }
                    }
                }
            }
        }
    }
}

/// A message of another program as a sentence. An address at its start keeps its letters.
pub fn sentence(text: &str) -> String {
    let address = text.split(' ').next().is_some_and(|word| word.contains(['/', ':', '.', '-']));
    let mut chars = text.chars();
    let first = chars.next().map(|c| if address { c.to_string() } else { c.to_uppercase().to_string() });
    let first = first.unwrap_or_default();
    let end = if text.ends_with(['.', '!', '?']) { "" } else { "." };
    format!("{first}{}{end}", chars.as_str())
}

pub fn csrf(caller: &Caller) -> Markup {
    html! { input type="hidden" name=(CSRF_FIELD) value=(caller.csrf); }
}

pub fn badge(mood: Mood, text: &str) -> Markup {
    html! { span.badge.(mood.class()) { span aria-hidden="true" { (mood.sign()) } " " (text) } }
}

/// `4 minutes ago`, with the moment in the practice's zone for who wants it exactly.
pub fn when(app: &App, unix_ms: i64) -> Markup {
    let exact = moment(unix_ms, app.settings.time_zone);
    html! { time datetime=(iso(unix_ms)) title=(exact) { (ago(unix_ms, app.now_ms())) } }
}

/// The same with the moment in sight, for tables that are printed and kept.
pub fn when_exactly(app: &App, unix_ms: i64) -> Markup {
    html! { (when(app, unix_ms)) br; span.small { (moment_short(unix_ms, app.settings.time_zone)) } }
}

/// How long something has lasted: `34 minutes`.
pub fn lasting(app: &App, since_ms: i64) -> Markup {
    let exact = moment(since_ms, app.settings.time_zone);
    html! { time datetime=(iso(since_ms)) title={ "since " (exact) } { (span(app.now_ms() - since_ms)) } }
}

pub fn when_or(app: &App, unix_ms: Option<i64>, none: &str) -> Markup {
    unix_ms.map_or_else(|| html! { (none) }, |ms| when(app, ms))
}

/// In words: that a daemon does not answer, and how old what is shown is.
pub fn silence<T>(app: &App, seen: &Seen<T>, name: &str, means: &str) -> Markup {
    let Some(silent) = &seen.silent else {
        return match &seen.last {
            Some(_) => html! {},
            None => html! { p.notice.plain role="status" { "Asking " (name) " for the first time…" } },
        };
    };
    let silent_ms = app.now_ms() - silent.since_ms;
    let words =
        if silent_ms < 2_000 { "does not answer".into() } else { format!("has not answered for {}", span(silent_ms)) };
    html! {
        div.notice.bad role="alert" {
            p { strong { (name) " " (words) "." } " " (means) }
            p.small {
                (sentence(&silent.reason)) " "
                @match &seen.last {
                    Some((at, _)) => { "What stands below is from " (when(app, *at)) "." }
                    None => { "Nothing is known from it since this console started." }
                }
            }
        }
    }
}

/// A block that fetches itself anew while the page is open.
pub fn live(id: &str, path: &str, every_s: u32, body: Markup) -> Markup {
    html! {
        div id=(id) hx-get=(path) hx-trigger={ "every " (every_s) "s" } hx-select={ "#" (id) } hx-swap="outerHTML" {
            (body)
        }
    }
}

/// An SVG made by a library of ours from ids and numbers.
pub fn raw(svg: String) -> Markup {
    PreEscaped(svg)
}
