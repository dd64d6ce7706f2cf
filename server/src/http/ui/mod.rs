//! The page that operators keep open: an overview of all models, and one page per model with charts and a form that tries it out.
//!
//! Pages are rendered here, so that the overview works without scripts. What changes is in [`cells`]: pieces of HTML with an
//! id. [`views`] renders them once per second for all pages that show the same, the stream of [`events`] sends those that have
//! changed, and [`history`] the last ten minutes of a task for its charts. All figures come from [`LiveFeed`]; nothing is
//! measured here.
//!
//! Links are relative, so that a proxy can serve the pages under a path prefix. All files are embedded in the executable.

mod cells;
mod estimates;
mod events;
mod figures;
mod files;
mod findings;
mod frontier;
mod history;
mod job_cells;
mod job_events;
mod job_list;
mod jobs_page;
mod layout;
mod model_page;
mod overview;
mod requests;
mod session;
mod sign_in;
mod views;
mod workers;

use std::sync::Arc;

use actix_web::http::header::{CACHE_CONTROL, HeaderName, HeaderValue, LOCATION};
use actix_web::web::{self, ServiceConfig};
use actix_web::{FromRequest, Handler, HttpRequest, HttpResponse, Resource, Responder, guard};
use hyper::http::request::Parts;
use maud::Markup;

use super::html_page::html_page;
use super::request_headers::is_management_port;
use super::respond;
use super::route_handlers::{get, post};
use super::server::Shared;
use crate::api::live::LiveFeed;
use crate::api::{ApiKeys, Client, Sessions};
use crate::routes::{self, Route};
use files::Files;
use views::Views;

/// The state of the pages.
pub(super) struct Ui {
    feed: Arc<LiveFeed>,
    views: Arc<Views>,
    sessions: Sessions,
    files: Files,
    /// Whether the main port requires TLS.
    has_tls: bool,
}

impl Ui {
    pub(super) fn new(feed: Arc<LiveFeed>, keys: ApiKeys, has_tls: bool) -> Self {
        Self {
            feed,
            views: Arc::default(),
            sessions: Sessions::new(keys),
            files: Files::new(),
            has_tls,
        }
    }

    /// The client whose session a request belongs to. `None` if it has no cookie of a session, or if it may change something and
    /// does not come from a page of this server.
    pub(super) fn client(&self, head: &Parts, is_management: bool) -> Option<Client> {
        session::client(self, head, is_management)
    }
}

/// Registers the routes.
pub(super) fn configure(config: &mut ServiceConfig) {
    config
        .service(get(routes::UI_ROOT, redirect))
        .service(get(routes::UI, overview::page))
        .service(get(routes::UI_MODEL, model_page::page))
        .service(get_or_post(routes::UI_JOBS, jobs_page::page, jobs_page::change))
        .service(get(routes::UI_JOB_EVENTS, job_events::stream))
        .service(get(routes::UI_FILE, files::file))
        .service(get(routes::UI_EVENTS, events::stream))
        .service(get(routes::UI_HISTORY, history::history))
        .service(get_or_post(routes::UI_LOGIN, sign_in::form, sign_in::sign_in))
        .service(post(routes::UI_LOGOUT, sign_in::sign_out));
}

/// A route that `read` answers for GET and HEAD, and `write` for POST.
fn get_or_post<R, RArgs, W, WArgs>(route: Route, read: R, write: W) -> Resource
where
    R: Handler<RArgs>,
    RArgs: FromRequest + 'static,
    R::Output: Responder + 'static,
    W: Handler<WArgs>,
    WArgs: FromRequest + 'static,
    W::Output: Responder + 'static,
{
    let reads = guard::Any(guard::Get()).or(guard::Head());
    web::resource(route.patterns.to_vec())
        .route(web::route().guard(reads).to(read))
        .route(web::post().to(write))
        .default_service(web::to(|request: HttpRequest| async move {
            respond::unhandled_method(&request, "GET, HEAD, POST")
        }))
}

/// `GET /ui`: redirects to `ui/`, because links are relative to that directory. The location is relative, for proxies with a path
/// prefix.
async fn redirect() -> HttpResponse {
    respond::status(308).insert_header((LOCATION, "ui/")).finish()
}

/// Content security policy of the pages: their own files, and images that the user chooses.
const POLICY: HeaderValue = HeaderValue::from_static(
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; connect-src 'self'; \
     form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
);

/// Starts a reply with a page. Nothing keeps a copy, since it shows what a key allows.
fn html(status: u16, page: Markup) -> HttpResponse {
    let mut response = html_page(&POLICY);
    response
        .status(actix_web::http::StatusCode::from_u16(status).unwrap_or_default())
        .insert_header((CACHE_CONTROL, "no-store"))
        .insert_header((
            HeaderName::from_static("cross-origin-opener-policy"),
            "same-origin",
        ))
        .insert_header((
            HeaderName::from_static("cross-origin-resource-policy"),
            "same-origin",
        ));
    response.body(page.into_string())
}

/// The state of the pages, which are served.
fn state(shared: &Shared) -> &Ui {
    shared
        .ui
        .as_ref()
        .expect("the routes are registered only if the page is served")
}

/// Whether requests that run tasks can be sent to the port that a request arrived at.
fn can_predict(request: &HttpRequest) -> bool {
    !is_management_port(request)
}
