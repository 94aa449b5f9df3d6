//! Signing in and out.

use crate::accounts::{self, SignedIn};
use crate::lockout::DEVICE_COOKIE;
use crate::pages::layout;
use crate::web::{Answer, COOKIE, Call, Refusal, page, see};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::IntoResponse;
use maud::{Markup, html};
use service::lockout::DEVICE_COOKIE_S;

pub async fn show(call: Call) -> Answer {
    if let Some(caller) = &call.caller {
        return see(caller.role.home());
    }
    page(form(None, ""))
}

pub async fn enter(call: Call) -> Answer {
    let name = call.field("name").trim().to_owned();
    let (password, code) = (call.field("password").to_owned(), call.field("code").to_owned());
    match call.app.sign_in((call.address, call.device.clone()), name.clone(), password, code).await {
        Ok(SignedIn { token, device }) => {
            let home = call.app.db.write(|tx| {
                let caller = accounts::session(tx, call.app.now_ms(), call.app.idle_ms(), &token, false)?;
                Ok::<_, Refusal>(caller.map_or("/sign-in", |caller| caller.role.home()))
            })?;
            let mut response = see(home)?;
            response.headers_mut().insert(header::SET_COOKIE, cookie(COOKIE, &token, None)?);
            if let Some(device) = device {
                let cookie = cookie(DEVICE_COOKIE, &device, Some(DEVICE_COOKIE_S))?;
                response.headers_mut().append(header::SET_COOKIE, cookie);
            }
            Ok(response)
        }
        Err(error @ accounts::AccountError::Refused) => {
            Ok((StatusCode::UNPROCESSABLE_ENTITY, form(Some(&error.to_string()), &name)).into_response())
        }
        Err(error) => {
            log::error!(error:% = error; "console.sign-in-failed");
            Err(Refusal::Internal)
        }
    }
}

pub async fn leave(call: Call) -> Answer {
    let who = call.caller()?.name.clone();
    let token = call.token.clone().unwrap_or_default();
    call.app.db.write(|tx| accounts::sign_out(tx, call.app.now_ms(), &token, &who))?;
    let mut response = see("/sign-in")?;
    response.headers_mut().insert(header::SET_COOKIE, cookie(COOKIE, "", Some(0))?);
    response.headers_mut().insert("clear-site-data", HeaderValue::from_static("\"cache\", \"storage\""));
    Ok(response)
}

fn cookie(name: &str, value: &str, max_age_s: Option<u32>) -> Result<HeaderValue, Refusal> {
    let end = max_age_s.map(|s| format!("; Max-Age={s}")).unwrap_or_default();
    let text = format!("{name}={value}; Path=/; Secure; HttpOnly; SameSite=Strict{end}");
    HeaderValue::from_str(&text).map_err(|_| Refusal::Internal)
}

fn form(error: Option<&str>, name: &str) -> Markup {
    layout::outside(
        "Sign in to the console",
        html! {
            @if let Some(error) = error {
                div.notice.bad role="alert" { p { (layout::sentence(error)) } }
            }
            form.stack method="post" action="/sign-in" {
                label {
                    "Name" input name="name" value=(name) autocomplete="username" autocapitalize="none" required
                    autofocus[name.is_empty()];
                }
                label {
                    "Password" input name="password" type="password" autocomplete="current-password" required
                    autofocus[!name.is_empty()];
                }
                label {
                    "Code from your authenticator"
                    input name="code" inputmode="numeric" pattern="[0-9 ]{6,7}" maxlength="7"
                    autocomplete="one-time-code" required;
                }
                button.primary { "Sign in" }
            }
            p.small {
                "Accounts of this console are its own: the EMR's do not work here. "
                "No account? Ask practice IT for an invitation. This console never shows patient data."
            }
        },
    )
}
