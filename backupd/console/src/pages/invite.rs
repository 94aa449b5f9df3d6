//! An invitation becomes an account: name, password, authenticator.

use crate::accounts::{self, AccountError, ISSUER, Invitation, PASSWORD_CHARS_MIN};
use crate::pages::layout;
use crate::web::{Answer, Call, Refusal, page, see};
use axum::http::StatusCode;
use axum::response::IntoResponse;
use maud::{Markup, html};
use qrcode::QrCode;
use qrcode::render::svg;
use service::auth::Totp;

pub async fn show(call: Call) -> Answer {
    let invitation = find(&call)?;
    page(form(&call, &invitation, None, ""))
}

pub async fn accept(call: Call) -> Answer {
    if !call.app.throttle.admit(call.address, call.app.now_ms()) {
        return Err(Refusal::Bad("too many attempts came from your network: wait ten minutes".into()));
    }
    let invitation = find(&call)?;
    let name = call.field("name").trim().to_owned();
    if call.field("password") != call.field("again") {
        let text = form(&call, &invitation, Some("the two passwords differ"), &name);
        return Ok((StatusCode::UNPROCESSABLE_ENTITY, text).into_response());
    }
    let (token, password) = (call.path("token").to_owned(), call.field("password").to_owned());
    match call.app.accept(token, name.clone(), password, call.field("code").to_owned()).await {
        Ok(()) => see("/sign-in"),
        Err(AccountError::Db(error)) => Err(error.into()),
        Err(error) => {
            let text = form(&call, &invitation, Some(&error.to_string()), &name);
            Ok((StatusCode::UNPROCESSABLE_ENTITY, text).into_response())
        }
    }
}

fn find(call: &Call) -> Result<Invitation, Refusal> {
    call.app.db.read(|db| accounts::invitation(db, call.app.now_ms(), call.path("token"))).map_err(|e| match e {
        AccountError::Db(error) => error.into(),
        other => Refusal::Bad(other.to_string()),
    })
}

fn form(call: &Call, invitation: &Invitation, error: Option<&str>, name: &str) -> Markup {
    let url = Totp::otpauth_url(&invitation.totp, ISSUER, invitation.role.word());
    layout::outside(
        "Make your account",
        html! {
            p.lead { "You are invited as " strong { (invitation.role.title()) } "." }
            @if let Some(error) = error {
                div.notice.bad role="alert" { p { (layout::sentence(error)) } }
            }
            form.stack method="post" action={ "/invite/" (call.path("token")) } {
                fieldset {
                    legend { "1. Scan it with an authenticator app" }
                    @if let Some(svg) = square(&url) { div.qr { (layout::raw(svg)) } }
                    details {
                        summary { "I cannot scan it" } p {
                            "Type this secret into the app: " code.wrap { (invitation.totp) }
                        }
                    }
                }
                fieldset {
                    legend { "2. Choose a name and a password" }
                    label {
                        "Name" input name="name" value=(name) autocomplete="username" autocapitalize="none" required;
                    }
                    label {
                        "Password, at least " (PASSWORD_CHARS_MIN) " characters"
                        input name="password" type="password" autocomplete="new-password"
                        minlength=(PASSWORD_CHARS_MIN) required;
                    }
                    label { "The same again" input name="again" type="password" autocomplete="new-password" required; }
                }
                fieldset {
                    legend { "3. Type the code that the app shows now" }
                    label {
                        "Code" input name="code" inputmode="numeric" pattern="[0-9 ]{6,7}" maxlength="7"
                        autocomplete="one-time-code" required;
                    }
                }
                button.primary { "Make the account" }
            }
        },
    )
}

fn square(url: &str) -> Option<String> {
    let code = QrCode::new(url.as_bytes()).ok()?;
    let svg = code.render::<svg::Color<'_>>().min_dimensions(220, 220).quiet_zone(true).build();
    // The XML declaration has no place inside HTML.
    svg.find("<svg").and_then(|at| svg.get(at..)).map(str::to_owned)
}
