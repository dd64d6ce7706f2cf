//! `GET /`: the page for operators for browsers, JSON for other clients. If that page is not served, an HTML page that lists the
//! models.

use actix_web::http::header::{ACCEPT, HeaderValue, LOCATION, VARY};
use actix_web::web::Data;
use actix_web::{HttpRequest, HttpResponse};
use maud::{DOCTYPE, Markup, html};
use serde_json::json;

use super::html_page::{html_page, prefix_of};
use super::monitoring::state_name;
use super::request_headers::is_management_port;
use super::respond;
use super::server::Shared;
use crate::api::open_inference::{SERVER_NAME, SERVER_VERSION};
use crate::build_info;
use crate::registry::ModelEntry;

/// `GET /`
pub(super) async fn root(request: HttpRequest, shared: Data<Shared>) -> HttpResponse {
    let accept = request.headers().get_all(ACCEPT);
    let accept: Vec<&str> = accept.filter_map(|value| value.to_str().ok()).collect();
    let mut response = if prefers_html(&accept.join(",")) && serves_ui(&request, &shared) {
        respond::status(302).insert_header((LOCATION, "ui/")).finish()
    } else if prefers_html(&accept.join(",")) {
        let base = prefix_of(&request).map_or_else(String::new, |prefix| format!("{prefix}/"));
        html_page(&POLICY).body(page(&shared, &base).into_string())
    } else {
        let mut body = json!({
            "name": SERVER_NAME,
            "version": SERVER_VERSION,
            "build": {
                "commit": build_info::COMMIT,
                "date": build_info::DATE,
                "abi_version": build_info::abi_version(),
                "target": build_info::TARGET,
            },
            // KServe's client checks this for liveness.
            "status": "alive",
            "models": "/v1/models",
            "health": "/health",
            "metrics": "/metrics",
        });
        if shared.pages.docs {
            body["docs"] = "/docs/".into();
            body["openapi"] = "/openapi.json".into();
        }
        respond::json(200, body.to_string())
    };
    response
        .headers_mut()
        .insert(VARY, HeaderValue::from_static("accept, x-forwarded-prefix"));
    response
}

/// Whether the port that the request arrived at serves the page for operators.
fn serves_ui(request: &HttpRequest, shared: &Shared) -> bool {
    shared.pages.ui && (!shared.management_only || is_management_port(request))
}

/// Content security policy of the page: inline styles and the icon.
const POLICY: HeaderValue = HeaderValue::from_static(
    "default-src 'none'; style-src 'unsafe-inline'; img-src 'self'; base-uri 'none'; form-action 'none'; \
     frame-ancestors 'none'",
);

const STYLE: &str = "body{font:16px/1.5 system-ui,sans-serif;max-width:46rem;margin:3rem auto;padding:0 1rem;\
    color:#1f2937;background:#fff}h1{margin-bottom:0}small,.description{color:#6b7280}nav a{margin-right:1.2rem}\
    table{border-collapse:collapse;width:100%;margin-top:1.5rem}th,td{text-align:left;vertical-align:top;\
    padding:.5rem .8rem .5rem 0;border-bottom:1px solid #e5e7eb}.ready{color:#15803d}.other{color:#b45309}\
    a{color:#1d4ed8}@media(prefers-color-scheme:dark){body{color:#e5e7eb;background:#111827}a{color:#93c5fd}\
    th,td{border-color:#374151}.ready{color:#4ade80}.other{color:#fbbf24}}";

/// Renders the page. Links start with `base`, which is empty or ends with a slash.
fn page(shared: &Shared, base: &str) -> Markup {
    let snapshot = shared.registry.snapshot();
    let models: Vec<_> = snapshot.models().collect();
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                title { (SERVER_NAME) }
                link rel="icon" href={ (base) "favicon.ico" } type="image/svg+xml";
                style { (maud::PreEscaped(STYLE)) }
            }
            body {
                h1 { (SERVER_NAME) }
                p { small { "version " (SERVER_VERSION) } }
                nav {
                    @if shared.pages.docs {
                        a href={ (base) "docs/" } { "API documentation" }
                        a href={ (base) "openapi.json" } { "OpenAPI" }
                    }
                    a href={ (base) "v1/models" } { "Models" }
                    a href={ (base) "health" } { "Health" }
                    a href={ (base) "metrics" } { "Metrics" }
                }
                @if models.is_empty() {
                    p { "No models are configured." }
                } @else {
                    table {
                        thead { tr { th { "Model" } th { "State" } th { "Tasks" } } }
                        tbody { @for entry in &models { (row(entry, base)) } }
                    }
                }
            }
        }
    }
}

fn row(entry: &ModelEntry, base: &str) -> Markup {
    let state = state_name(entry);
    let class = if entry.is_ready() { "ready" } else { "other" };
    let tasks: Vec<&str> = entry
        .task_manifests()
        .iter()
        .map(|task| task.name.as_str())
        .collect();
    html! {
        tr {
            td {
                a href={ (base) "v1/models/" (super::openapi::path_segment(entry.name())) } { (entry.name()) }
                @if let Some(description) = entry.description() {
                    br;
                    span class="description" { (description) }
                }
            }
            td class=(class) { (state) }
            td { (tasks.join(", ")) }
        }
    }
}

/// Whether the client prefers HTML to JSON. Clients that accept both equally, such as those that accept anything, get
/// JSON.
fn prefers_html(accept: &str) -> bool {
    let quality = |media_type: &str| quality(accept, media_type);
    quality("text/html") > quality("application/json")
}

/// Returns the quality value of a media type in an `Accept` header, from 0 to 1000. The most specific matching range
/// applies.
fn quality(accept: &str, media_type: &str) -> u16 {
    let (kind, _) = media_type.split_once('/').unwrap_or((media_type, ""));
    let ranges = accept.split(',').filter_map(|range| {
        let mut parts = range.split(';').map(str::trim);
        let range = parts.next()?.to_ascii_lowercase();
        let specificity = match range.as_str() {
            "*/*" => 1,
            range if range.strip_suffix("/*") == Some(kind) => 2,
            range if range == media_type => 3,
            _ => return None,
        };
        let weight = parts.find_map(|part| part.strip_prefix("q=").or_else(|| part.strip_prefix("Q=")));
        let weight = weight.map_or(Some(1.0), |weight| weight.trim().parse::<f32>().ok())?;
        Some((specificity, (weight.clamp(0.0, 1.0) * 1000.0) as u16))
    });
    ranges.max().map_or(0, |(_, weight)| weight)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn browsers_prefer_html_and_other_clients_get_json() {
        for (accept, html) in [
            (
                "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,*/*;q=0.8",
                true,
            ),
            ("text/html", true),
            ("Text/HTML;Q=0.5", true),
            ("text/*", true),
            ("text/html, application/json;q=0.9", true),
            ("text/html;q=0.9, application/json", false),
            ("text/html;q=0, */*", false),
            ("*/*", false),
            ("application/json, text/plain, */*", false),
            ("text/html, application/json", false),
            ("application/*", false),
            ("text/html;q=much", false),
            ("", false),
        ] {
            assert_eq!(prefers_html(accept), html, "{accept}");
        }
    }
}
