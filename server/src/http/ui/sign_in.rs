//! Signing in with a key, and signing out.

use actix_web::http::header::{LOCATION, SET_COOKIE};
use actix_web::web::{self, Data};
use actix_web::{HttpRequest, HttpResponse};
use maud::html;
use serde::Deserialize;

use super::layout::{Layout, page};
use super::session;
use super::{html, state};
use crate::api::{Code, Failure};
use crate::clock;
use crate::http::request_body::receive;
use crate::http::request_headers::RequestHead;
use crate::http::respond;
use crate::http::server::Shared;

/// Maximum size of the form in bytes.
const MAX_FORM: usize = 4096;

/// The form.
#[derive(Deserialize)]
struct SignIn {
    key: String,
}

/// `GET /ui/login`
pub(super) async fn form(request: HttpRequest, shared: Data<Shared>) -> HttpResponse {
    ask(&request, &shared, 200, "../", None)
}

/// The reply to a client that may not see a page: a form that asks for a key. `base` leads to the root of the server.
pub(super) fn ask_for_key(request: &HttpRequest, shared: &Shared, base: &str) -> HttpResponse {
    let problem = request.client().check_key().err();
    // Nothing is wrong with a client that has not been asked yet.
    let problem = problem.filter(|_| request.client().has_key());
    ask(request, shared, 401, base, problem.as_ref())
}

/// `POST /ui/login`
pub(super) async fn sign_in(
    request: HttpRequest,
    payload: web::Payload,
    shared: Data<Shared>,
) -> HttpResponse {
    let opened = async {
        check_origin(&request)?;
        let body = receive(&request, payload.into_inner(), &shared.receive, clock::now(), 0).await?;
        let text = std::str::from_utf8(&body)
            .ok()
            .filter(|text| text.len() <= MAX_FORM)
            .and_then(|text| web::Query::<SignIn>::from_query(text).ok());
        let Some(form) = text else {
            return Err(Failure::new(
                Code::Malformed,
                "expected a form with the field `key`",
            ));
        };
        state(&shared).sessions.open(form.key.as_bytes())
    };
    match opened.await {
        Ok(token) => moved(session::set_cookie(state(&shared), &request, Some(&token))),
        Err(failure) => ask(&request, &shared, failure.code.status(), "../", Some(&failure)),
    }
}

/// `POST /ui/logout`
pub(super) async fn sign_out(request: HttpRequest, shared: Data<Shared>) -> HttpResponse {
    if let Err(failure) = check_origin(&request) {
        return respond::failure(&request, &failure);
    }
    let ui = state(&shared);
    if let Some(token) = session::token(ui, &request) {
        ui.sessions.close(token);
    }
    moved(session::set_cookie(ui, &request, None))
}

/// Redirects to the overview. Location and path are relative, for proxies with a path prefix.
fn moved(cookie: String) -> HttpResponse {
    respond::status(303)
        .insert_header((LOCATION, "./"))
        .insert_header((SET_COOKIE, cookie))
        .insert_header(("cache-control", "no-store"))
        .finish()
}

/// Rejects forms of other pages, which could sign a user in with the key of somebody else.
fn check_origin(request: &HttpRequest) -> Result<(), Failure> {
    if session::is_same_origin(|name| request.header(name)) {
        return Ok(());
    }
    let message = "the request does not come from a page of this server; if there is a proxy, it must pass the header `host` unchanged";
    Err(Failure::new(Code::Forbidden, message))
}

fn ask(
    request: &HttpRequest,
    shared: &Shared,
    status: u16,
    base: &str,
    problem: Option<&Failure>,
) -> HttpResponse {
    let layout = Layout::new(request, shared, "Sign in", base);
    let hint = match shared.keys.requires_client_key() {
        true => {
            "This server requires an API key. A client key shows the models that it may use; a key for administration also \
                 shows the reasons of errors, and reloads models."
        }
        false => "A key for administration shows the reasons of errors, and reloads models.",
    };
    let body = html! {
        main.sign-in {
            h1 { "Sign in" }
            p.muted { (hint) }
            form method="post" action={ (base) "ui/login" } {
                label for="key" { "API key" }
                input #key name="key" type="password" autocomplete="current-password" required autofocus
                    aria-describedby=[problem.map(|_| "problem")];
                @if let Some(problem) = problem {
                    p #problem.problem role="alert" { (problem.message) }
                }
                button.primary type="submit" { "Sign in" }
            }
            p.muted { "The key is sent once. A cookie then stands for it for up to twelve hours." }
        }
    };
    html(status, page(&layout, &body))
}
