//! What all pages have in common: the head, and the bar at the top.

use actix_web::{HttpRequest, HttpResponse};
use maud::{DOCTYPE, Markup, html};

use super::{html as reply, jobs_page};
use crate::api::Failure;
use crate::api::open_inference::{SERVER_NAME, SERVER_VERSION};
use crate::http::request_headers::RequestHead;
use crate::http::server::Shared;

/// The parts of a page around its content.
pub(super) struct Layout {
    title: String,
    /// Leads to the root of the server; ends with a slash.
    base: String,
    /// The name of the user, if there is a key.
    user: Option<String>,
    can_sign_in: bool,
    docs: bool,
    jobs: bool,
    /// Whether the page is the list of jobs.
    is_jobs: bool,
    /// Whether the page shows figures, which are kept up to date.
    is_live: bool,
}

impl Layout {
    pub(super) fn new(request: &HttpRequest, shared: &Shared, title: &str, base: &str) -> Self {
        let client = request.client();
        let name = || {
            let kind = if client.is_admin() {
                "administrator"
            } else {
                "client"
            };
            client.key_name().unwrap_or(kind).to_owned()
        };
        Self {
            title: title.to_owned(),
            base: base.to_owned(),
            user: client.has_key().then(name),
            can_sign_in: shared.keys.has_admin_key() || shared.keys.requires_client_key(),
            docs: shared.pages.docs,
            jobs: jobs_page::is_available(shared),
            is_jobs: false,
            is_live: false,
        }
    }

    /// The page with the jobs.
    pub(super) fn of_jobs(request: &HttpRequest, shared: &Shared, base: &str) -> Self {
        Self {
            is_jobs: true,
            ..Self::new(request, shared, "Jobs", base)
        }
    }

    /// A page whose figures are kept up to date.
    pub(super) fn live(self) -> Self {
        Self {
            is_live: true,
            ..self
        }
    }
}

/// A page that says what failed.
pub(super) fn failure(request: &HttpRequest, shared: &Shared, base: &str, failure: &Failure) -> HttpResponse {
    let layout = Layout::new(request, shared, "Not available", base);
    let body = html! {
        main #main {
            h1 { "Not available" }
            p #failure role="alert" { (failure.message) }
            p { a href={ (base) "ui/" } { "All models" } }
        }
    };
    reply(failure.code.status(), page(&layout, &body))
}

/// A page. Without scripts, it loads itself again every ten seconds.
pub(super) fn page(layout: &Layout, body: &Markup) -> Markup {
    let base = &layout.base;
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                title { (layout.title) " · " (SERVER_NAME) }
                link rel="icon" href={ (base) "favicon.ico" } type="image/svg+xml";
                @if layout.is_live {
                    link rel="stylesheet" href={ (base) "ui/static/uplot.css" };
                }
                link rel="stylesheet" href={ (base) "ui/static/app.css" };
                @if layout.is_live {
                    script defer src={ (base) "ui/static/uplot.js" } {}
                    script type="module" src={ (base) "ui/static/app.js" } {}
                    noscript { meta http-equiv="refresh" content="10"; }
                }
            }
            body {
                a.skip href="#main" { "Skip to the content" }
                (bar(layout))
                @if layout.is_live { p #offline.banner role="alert" hidden {} }
                (body)
            }
        }
    }
}

fn bar(layout: &Layout) -> Markup {
    let base = &layout.base;
    html! {
        header.bar {
            a.brand href={ (base) "ui/" } {
                img src={ (base) "favicon.ico" } alt="" width="22" height="22";
                span { (SERVER_NAME) }
                small { (SERVER_VERSION) }
            }
            nav aria-label="Server" {
                a href={ (base) "ui/" } { "Models" }
                @if layout.jobs {
                    a href={ (base) "ui/jobs" } aria-current=[layout.is_jobs.then_some("page")] { "Jobs" }
                }
                @if layout.docs {
                    a href={ (base) "docs/" } { "API" }
                }
                a href={ (base) "metrics" } { "Metrics" }
            }
            div.session {
                @if layout.is_live {
                    span #connection.connection role="status" hidden { "connecting" }
                }
                @match &layout.user {
                    Some(user) => {
                        span.user title="The key of this session" { (user) }
                        form method="post" action={ (base) "ui/logout" } {
                            button.quiet type="submit" { "Sign out" }
                        }
                    }
                    None if layout.can_sign_in => {
                        a.quiet href={ (base) "ui/login" } { "Sign in" }
                    }
                    None => {}
                }
            }
        }
    }
}
