//! Restore reports: the list, one report with its evidence, and the owner's approval.
//!
//! An approval is signed by the owner's own key on the owner's own computer. The console never sees that key: the owner
//! enrols its public half once, makes the approval with `report-verify approve`, and uploads the result. So whoever
//! breaks into this console, or into the server, still cannot approve anything.

use crate::accounts;
use crate::app::App;
use crate::audit::{self, Act};
use crate::daemons::Daemon;
use crate::pages::activity;
use crate::pages::layout::Column::{Number, Text};
use crate::pages::layout::{
    Column, Mood, badge, columns, csrf, page as frame, raw, sentence, silence, when, when_exactly,
};
use crate::roles::Action;
use crate::web::{Answer, Call, Refusal, page, see};
use crate::words::{duration, word};
use axum::http::{HeaderValue, header};
use axum::response::IntoResponse;
use backup_report::{Approval, Bundle, Outcome, OwnerRole, PublicKey, Verified, VerifyError, render_html, verify};
use backupd_api::{ClientError, Event, FailureKind, ReportRow, Request};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use maud::{Markup, html};

const COLUMNS: &[Column] = &[
    Text("Drill"),
    Text("From store"),
    Text("Verdict"),
    Number("Time to recover"),
    Number("Work lost"),
    Text("Approved"),
    Number("Log entry"),
    Text("Report"),
];

const SHOWN_MAX: usize = 200;

pub async fn list(call: Call) -> Answer {
    let picture = call.app.pictures.now();
    let view = picture.verifier.value();
    let reports = view.map(|view| view.reports.as_slice()).unwrap_or_default();
    let body = html! {
        p.lead {
            "For each drill the records were restored from one store alone, the real EMR was started on them, and \
             what it said was compared with what it said when the snapshot was taken."
        }
        (silence(&call.app, &picture.verifier, "backupd verifier", "No drill runs while it is down."))
        @if view.is_none() {
            p.empty { "Not known until backupd verifier answers." }
        } @else if reports.is_empty() {
            p.empty { "There is no report yet. Start the first drill from the posture page." }
        } @else { (table(&call.app, reports)) }
        @if let Some(view) = view {
            h2 { "For an auditor" }
            p {
                "Reports are signed with the key of this fingerprint. Compare it with the one in the practice's \
                 paper binder, not with this page alone:"
            }
            p { code.wrap { (view.status.key_fingerprint) } }
            p { "The log holds " strong { (view.status.log_size) } " entries. "
                @if view.status.same_host_as_writer {
                    (badge(Mood::Warn, "Same host"))
                    " The verifier runs on the machine that writes the backups: weaker evidence, and each report \
                     says so."
                }
                @else {
                    (badge(Mood::Good, "Separate host"))
                    " The verifier runs on another machine than the one that writes the backups."
                }
            }
        }
    };
    page(frame(&call.app, call.caller()?, "/reports", "Restore reports", body))
}

fn table(app: &App, reports: &[ReportRow]) -> Markup {
    html! {
        div.scroll {
            table {
                caption {
                    (reports.len()) " reports, newest first" @if reports.len() > SHOWN_MAX {
                        "; the newest " (SHOWN_MAX) " are shown"
                    }
                }
                (columns(COLUMNS))
                tbody {
                    @for row in reports.iter().take(SHOWN_MAX) {
                        @let (mood, verdict) = activity::verdict(row.verdict);
                        tr {
                            td { (when_exactly(app, row.at_unix_ms)) }
                            td { (row.store) }
                            td { (badge(mood, verdict)) }
                            td.number { (row.rto_ms.map_or_else(|| "not measured".to_owned(), duration)) }
                            td.number { (row.rpo_ms.map_or_else(|| "not measured".to_owned(), duration)) }
                            td { @if row.approved { (badge(Mood::Good, "Yes")) } @else { "not yet" } }
                            td.number { (row.log_index) }
                            td { a href={ "/reports/" (row.id) } { "Open" span.unseen { " report " (row.id) } } }
                        }
                    }
                }
            }
        }
    }
}

/// The files of one report by name.
struct Evidence(Vec<(String, Vec<u8>)>);

impl Evidence {
    async fn of(call: &Call) -> Result<Self, Refusal> {
        let id = report_id(call)?;
        let answer = call.app.daemons.ask(Daemon::Verifier, &Request::Evidence { id: id.to_owned() }).await;
        let files = match answer {
            Ok(Event::Evidence { files }) => files,
            Ok(_) => return Err(unavailable(&ClientError::Malformed)),
            Err(ClientError::Failed(failure)) if failure.kind == FailureKind::NotFound => {
                return Err(Refusal::NotFound);
            }
            Err(error) => return Err(unavailable(&error)),
        };
        let decode = |file: backupd_api::EvidenceFile| Some((file.name, STANDARD.decode(file.base64).ok()?));
        let files = files.into_iter().map(decode).collect::<Option<Vec<_>>>();
        files.map(Self).ok_or_else(|| unavailable(&ClientError::Malformed))
    }

    fn file(&self, name: &str) -> &[u8] {
        self.0.iter().find(|(found, _)| found == name).map_or(&[], |(_, bytes)| bytes)
    }

    fn verify(&self, id: &str, fingerprint: Option<&str>) -> Result<Verified, VerifyError> {
        let of = |ext: &str| self.file(&format!("{id}.{ext}")).to_vec();
        let approval = |n: usize| {
            let part = |ext: &str| of(&format!("approval-{n}.{ext}"));
            let (bytes, proof) = (part("json"), part("proof"));
            (!bytes.is_empty()).then(|| (bytes, (!proof.is_empty()).then_some(proof)))
        };
        let bundle = Bundle {
            report: of("json"),
            signature: of("sig"),
            public_key: of("pub"),
            proof: of("proof"),
            approvals: (1..).map_while(approval).collect(),
        };
        verify(&bundle, fingerprint.and_then(|text| text.parse().ok()))
    }
}

fn report_id(call: &Call) -> Result<&str, Refusal> {
    let id = call.path("id");
    let fits = (1..=64).contains(&id.len()) && id.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
    if fits { Ok(id) } else { Err(Refusal::NotFound) }
}

fn unavailable(error: &ClientError) -> Refusal {
    Refusal::Unavailable(format!(
        "the verifier could not give this report: {}. Reports are kept; try again when it answers",
        crate::daemons::reason(error)
    ))
}

pub async fn show(call: Call) -> Answer {
    let evidence = Evidence::of(&call).await?;
    let id = report_id(&call)?;
    let picture = call.app.pictures.now();
    let fingerprint = picture.verifier.value().map(|view| view.status.key_fingerprint.clone());
    let checked = evidence.verify(id, fingerprint.as_deref());
    let caller = call.caller()?;
    let body = html! {
        p.back { a href="/reports" { "All restore reports" } }
        @match &checked {
            Ok(verified) => {
                (checked_now(verified))
                section.report { (raw(inner(&render_html(&verified.report)))) }
            }
            Err(error) => {
                div.notice.bad role="alert" {
                    p { strong { "Do not rely on this report." } " " (sentence(&error.to_string())) }
                    p { "Keep the files, and call your backup engineer: evidence was changed or damaged." }
                }
            }
        }
        @if caller.role.may(Action::DownloadEvidence) { (files(id, &evidence, fingerprint.as_deref())) }
        (approvals(&call, id, checked.as_ref().ok())?)
    };
    page(frame(&call.app, caller, "/reports", "Restore report", body))
}

fn checked_now(verified: &Verified) -> Markup {
    let known = verified.outcome == Outcome::Verified;
    let (mood, word) = if known { (Mood::Good, "Checked now") } else { (Mood::Warn, "Signed with another key") };
    html! {
        div.notice.(mood.class()) {
            p {
                (badge(mood, word))
                " The signature fits these exact bytes, the verdict follows from its fields, and the report is entry "
                strong { (verified.index) } " of the " (verified.checkpoint.size) " in the log."
            }
            @if !known {
                p {
                    "But the key is not the one that the verifier uses now: " code.wrap {
                        (verified.fingerprint.to_string())
                    }
                    ". After a change of keys that is right for older reports; otherwise somebody else made it. \
                     Compare with the paper binder."
                }
            }
        }
    }
}

/// What stands between `<body>` and `</body>`: our own style sheet dresses it.
fn inner(page: &str) -> String {
    let from = page.find("<body>").map_or(0, |at| at + "<body>".len());
    let to = page.rfind("</body>").unwrap_or(page.len());
    // The frame has the page's first heading.
    page.get(from..to)
        .unwrap_or_default()
        .replace("<h2", "<h3")
        .replace("</h2", "</h3")
        .replace("<h1", "<h2")
        .replace("</h1", "</h2")
}

fn files(id: &str, evidence: &Evidence, fingerprint: Option<&str>) -> Markup {
    let fingerprint = fingerprint.unwrap_or("FINGERPRINT");
    html! {
        section.evidence {
            h2 { "Evidence" }
            p { a.button.primary href={ "/reports/" (id) "/evidence.tar" } { "Download all files (.tar)" } }
            p {
                "Unpack it on any Linux machine with bash and OpenSSL 3, without network, and run this one command \
                 there. The fingerprint must come from the practice's paper binder:"
            }
            pre { code { "bash verify.sh " (id) ".json --key-fingerprint " (fingerprint) } }
            details {
                summary { "Single files" }
                ul { @for (name, bytes) in &evidence.0 {
                    li {
                        a href={ "/reports/" (id) "/file/" (name) } { (name) } span.small {
                            " (" (bytes.len()) " bytes)"
                        }
                    }
                } }
            }
        }
    }
}

fn approvals(call: &Call, id: &str, verified: Option<&Verified>) -> Result<Markup, Refusal> {
    let caller = call.caller()?;
    let owners = call.app.db.read(accounts::approval_keys)?;
    let given = verified.map(|verified| verified.approvals.as_slice()).unwrap_or_default();
    Ok(html! {
        section.approval {
            h2 { "Approval" }
            @if given.is_empty() { p { "Nobody has approved this report yet. Only the practice's owner can." } }
            @for (approval, index) in given {
                @let fingerprint = approval.fingerprint().to_string();
                @let owner = owners.iter().find(|(_, key)| *key == fingerprint);
                p {
                    @match owner {
                        Some((name, _)) => { (badge(Mood::Good, "Approved")) " by " strong { (name) } }
                        None => {
                            (badge(Mood::Warn, "Approved by an unknown key"))
                            " that no owner of this console has enrolled"
                        }
                    }
                    ", decision " strong { (word(&approval.decision())) } ", "
                    (when(&call.app, approval.signed_unix_ms()))
                    @if let Some(index) = index { ", log entry " (index) }
                    ". Key " code.wrap { (fingerprint) }
                }
            }
            @if caller.role.may(Action::ApproveReport) && verified.is_some() {
                @let key = owners.iter().find(|(name, _)| *name == caller.name).map(|(_, key)| key.as_str());
                @if !given.iter().any(|(approval, _)| Some(approval.fingerprint().to_string().as_str()) == key) {
                    (approve_form(call, id, key)?)
                }
            }
        }
    })
}

fn approve_form(call: &Call, id: &str, key: Option<&str>) -> Result<Markup, Refusal> {
    let caller = call.caller()?;
    Ok(html! {
        div.card #approve {
            h3 { "Approve this report" }
            p {
                "You sign with your own key on your own computer. The key never comes here, so nobody who breaks \
                 into this server can approve in your name."
            }
            @match key {
                None => {
                    p { strong { "First, once: enrol your key." } " On your computer:" }
                    pre {
                        code {
                            "openssl genpkey -algorithm ed25519 -out owner.pem\nopenssl pkey -in owner.pem -pubout \
                             -out owner.pub"
                        }
                    }
                    form method="post" action="/approval-key" enctype="multipart/form-data" {
                        (csrf(caller))
                        input type="hidden" name="back" value=(id);
                        label { "Public key (owner.pub)" input type="file" name="key" required; }
                        button.primary { "Enrol this key" }
                    }
                    p.small { "It cannot be replaced by a click later: a new key needs a new account." }
                }
                Some(key) => {
                    ol {
                        li {
                            a href={ "/reports/" (id) "/file/" (id) ".json" } { "Download the report" }
                            ", and read it."
                        }
                        li {
                            "On your computer:" pre {
                                code {
                                    "report-verify approve " (id)
                                    ".json --key owner.pem --decision certified --out approval.json"
                                }
                            }
                        }
                        li {
                            form method="post" action={ "/reports/" (id) "/approval" } enctype="multipart/form-data" {
                                (csrf(caller))
                                label { "Approval (approval.json)" input type="file" name="approval" required; }
                                button.primary { "Send the approval" }
                            }
                        }
                    }
                    p.small { "Your enrolled key: " code.wrap { (key) } }
                }
            }
        }
    })
}

pub async fn file(call: Call) -> Answer {
    let evidence = Evidence::of(&call).await?;
    let wanted = call.path("name");
    let Some((name, bytes)) = evidence.0.into_iter().find(|(name, _)| name == wanted) else {
        return Err(Refusal::NotFound);
    };
    record_download(&call)?;
    attachment(&name, "application/octet-stream", bytes)
}

pub async fn tar(call: Call) -> Answer {
    let evidence = Evidence::of(&call).await?;
    let id = report_id(&call)?;
    let at_s = u64::try_from(call.app.now_ms() / 1000).unwrap_or_default();
    let archive = crate::tar::archive(&format!("report-{id}"), at_s, &evidence.0).ok_or_else(|| {
        Refusal::Unavailable("a file's name is too long for the archive: take the single files".into())
    })?;
    record_download(&call)?;
    attachment(&format!("report-{id}.tar"), "application/x-tar", archive)
}

fn record_download(call: &Call) -> Result<(), Refusal> {
    let (who, id) = (&call.caller()?.name, report_id(call)?);
    call.app.db.write(|tx| audit::append(tx, call.app.now_ms(), who, Act::EvidenceDownloaded, id))?;
    Ok(())
}

pub fn attachment(name: &str, kind: &'static str, bytes: Vec<u8>) -> Answer {
    let plain = name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'));
    let name = if plain { name } else { "evidence" };
    let disposition =
        HeaderValue::from_str(&format!("attachment; filename=\"{name}\"")).map_err(|_| Refusal::Internal)?;
    let mut response = bytes.into_response();
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    response.headers_mut().insert(header::CONTENT_DISPOSITION, disposition);
    Ok(response)
}

/// Enrols the public half of the owner's approval key, once.
pub async fn enrol(call: Call) -> Answer {
    let key = PublicKey::from_pem(call.file("key")).map_err(|e| Refusal::Bad(e.to_string()))?;
    let (who, fingerprint) = (&call.caller()?.name, key.fingerprint().to_string());
    let enrolled = call.app.db.write(|tx| accounts::enrol_key(tx, call.app.now_ms(), who, &fingerprint))?;
    if !enrolled {
        let text = "your account has a key already, or this key belongs to another account: ask for a new account";
        return Err(Refusal::Bad(text.into()));
    }
    let back = call.field("back");
    let fits = !back.is_empty() && back.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
    match (back, fits) {
        ("deletions", _) => see("/deletions#decide"),
        (_, true) => see(&format!("/reports/{back}#approve")),
        (_, false) => see("/reports"),
    }
}

pub async fn approve(call: Call) -> Answer {
    let id = report_id(&call)?;
    let who = call.caller()?.name.clone();
    let bytes = call.file("approval").to_vec();
    let record = |act| call.app.db.write(|tx| audit::append(tx, call.app.now_ms(), &who, act, id));
    if let Err(reason) = own_approval(&call, id, &who, &bytes)? {
        record(Act::ApprovalRefused)?;
        return Err(Refusal::Bad(reason));
    }
    let request = Request::Approve { id: id.to_owned(), approval: bytes };
    match call.app.daemons.ask(Daemon::Verifier, &request).await {
        Ok(Event::Approved) => {
            record(Act::ReportApproved)?;
            crate::poll::verifier(&call.app).await?;
            see(&format!("/reports/{id}"))
        }
        Ok(_) => Err(unavailable(&ClientError::Malformed)),
        Err(ClientError::Failed(failure)) => {
            record(Act::ApprovalRefused)?;
            Err(Refusal::Bad(failure.message))
        }
        Err(error) => Err(unavailable(&error)),
    }
}

/// Whether the approval is about this report and signed by the key that this owner has enrolled.
fn own_approval(call: &Call, id: &str, who: &str, bytes: &[u8]) -> Result<Result<(), String>, Refusal> {
    let keys = call.app.db.read(accounts::approval_keys)?;
    let Some((_, enrolled)) = keys.iter().find(|(name, _)| name == who) else {
        return Ok(Err("enrol your key first".to_owned()));
    };
    let approval = match Approval::parse(bytes) {
        Ok(approval) => approval,
        Err(error) => return Ok(Err(format!("{error}: send the file that `report-verify approve` wrote"))),
    };
    let problem = if approval.report_id().as_str() != id {
        "this approval is about another report: choose the file made for this one"
    } else if approval.fingerprint().to_string() != *enrolled {
        "this approval was not signed with the key that you enrolled"
    } else if approval.role() != OwnerRole::Owner {
        "this approval was not made in the role of the owner: make it with `--role owner`"
    } else {
        return Ok(Ok(()));
    };
    Ok(Err(problem.to_owned()))
}
