//! Signing in with a key, and signing out.

use actix_web::http::header::{LOCATION, SET_COOKIE};
use actix_web::web::{self, Data};
use actix_web::{HttpRequest, HttpResponse};
use maud::html;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::layout::{Layout, page};
use super::session;
use super::{html, state};
use crate::api::{Code, Failure};
use crate::clock;
use crate::http::openapi::path_segment;
use crate::http::request_body::receive;
use crate::http::request_headers::RequestHead;
use crate::http::respond;
use crate::http::server::Shared;

/// What the paths of pages begin with.
const UI_PATH: &str = "/ui/";

/// Maximum size of the form in bytes.
const MAX_FORM: usize = 4096;

/// The form.
#[derive(Deserialize)]
struct SignIn {
    key: String,
}

/// Where to go after signing in.
#[derive(Deserialize)]
pub(super) struct Next {
    /// The page, relative to `/ui/`.
    #[serde(default)]
    next: String,
}

/// `GET /ui/login`
pub(super) async fn form(request: HttpRequest, shared: Data<Shared>) -> HttpResponse {
    ask(&request, &shared, 200, ("../", ""), None)
}

/// The reply to a client that may not see a page: a form that asks for a key. `base` leads to the root of the server.
pub(super) fn ask_for_key(request: &HttpRequest, shared: &Shared, base: &str) -> HttpResponse {
    let problem = match request.client().check_key() {
        Err(failure) if request.client().has_key() => Some(failure.message),
        _ if session::token(state(shared), request).is_some_and(|token| !token.is_empty()) => {
            Some("The session has ended. Sign in again.".to_owned())
        }
        // Nothing is wrong with a client that has not been asked yet.
        _ => None,
    };
    let path = request.path().strip_prefix(UI_PATH).unwrap_or_default();
    let next = match request.query_string() {
        "" => path.to_owned(),
        query => format!("{path}?{query}"),
    };
    ask(request, shared, 401, (base, &next), problem.as_deref())
}

/// `POST /ui/login`
pub(super) async fn sign_in(
    request: HttpRequest,
    payload: web::Payload,
    shared: Data<Shared>,
    next: web::Query<Next>,
) -> HttpResponse {
    let next = &next.next;
    let opened = async {
        let form: SignIn = read_form(&request, payload, &shared, "the field `key`").await?;
        state(&shared).sessions.open(form.key.as_bytes())
    };
    match opened.await {
        Ok(token) => moved(next, session::set_cookie(state(&shared), &request, Some(&token))),
        Err(failure) => {
            let status = failure.code.status();
            ask(&request, &shared, status, ("../", next), Some(&failure.message))
        }
    }
}

/// Reads a form that a page of this server has sent. `expected` describes its fields.
///
/// # Errors
/// `Forbidden` if it comes from elsewhere; `Malformed` if it has other fields.
pub(super) async fn read_form<T: DeserializeOwned>(
    request: &HttpRequest,
    payload: web::Payload,
    shared: &Shared,
    expected: &str,
) -> Result<T, Failure> {
    check_origin(request)?;
    let body = receive(request, payload.into_inner(), &shared.receive, clock::now(), 0).await?;
    let form = std::str::from_utf8(&body)
        .ok()
        .filter(|text| text.len() <= MAX_FORM)
        .and_then(|text| web::Query::<T>::from_query(text).ok());
    let unexpected = || Failure::new(Code::Malformed, format!("expected a form with {expected}"));
    form.map(web::Query::into_inner).ok_or_else(unexpected)
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
    moved("", session::set_cookie(ui, &request, None))
}

/// Redirects to a page. The location is relative, for proxies with a path prefix, and so that it cannot lead elsewhere.
fn moved(next: &str, cookie: String) -> HttpResponse {
    let is_page = next.is_ascii() && !next.chars().any(|character| character.is_ascii_control());
    let next = if is_page { next } else { "" };
    respond::status(303)
        .insert_header((LOCATION, format!("./{next}")))
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
    (base, next): (&str, &str),
    problem: Option<&str>,
) -> HttpResponse {
    let layout = Layout::new(request, shared, "Sign in", base);
    let hint = match shared.keys.requires_client_key() {
        true => {
            "This server requires an API key. A client key shows the models that it may use; a key for administration also \
                 shows the reasons of errors, and reloads models."
        }
        false => "A key for administration shows the reasons of errors, and reloads models.",
    };
    let action = match next {
        "" => format!("{base}ui/login"),
        next => format!("{base}ui/login?next={}", path_segment(next)),
    };
    let body = html! {
        main.sign-in {
            h1 { "Sign in" }
            p.muted { (hint) }
            form method="post" action=(action) {
                label for="key" { "API key" }
                input #key name="key" type="password" autocomplete="current-password" required autofocus
                    aria-describedby=[problem.map(|_| "problem")];
                @if let Some(problem) = problem {
                    p #problem.problem role="alert" { (problem) }
                }
                button.primary type="submit" { "Sign in" }
            }
            p.muted { "The key is sent once. A cookie then stands for it for up to twelve hours." }
        }
    };
    html(status, page(&layout, &body))
}
