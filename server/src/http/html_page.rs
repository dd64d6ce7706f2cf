//! What HTML pages share: their headers, their icon, and the path prefix of their links.

use actix_web::http::header::{CONTENT_SECURITY_POLICY, HeaderName, HeaderValue, X_CONTENT_TYPE_OPTIONS};
use actix_web::{HttpRequest, HttpResponse, HttpResponseBuilder};

use super::openapi::forwarded_prefix;
use super::respond;

/// Header set by proxies that remove a prefix from the request path.
pub(super) const FORWARDED_PREFIX: &str = "x-forwarded-prefix";

/// Returns the path prefix that a proxy has removed, if it is safe to use in links.
pub(super) fn prefix_of(request: &HttpRequest) -> Option<&str> {
    forwarded_prefix(request.headers().get(FORWARDED_PREFIX)?.to_str().ok()?)
}

/// Starts a reply with an HTML page.
pub(super) fn html_page(policy: &HeaderValue) -> HttpResponseBuilder {
    let mut response = respond::status(200);
    response
        .content_type("text/html; charset=utf-8")
        .insert_header((CONTENT_SECURITY_POLICY, policy.clone()))
        .insert_header((X_CONTENT_TYPE_OPTIONS, "nosniff"))
        .insert_header((HeaderName::from_static("referrer-policy"), "no-referrer"));
    response
}

/// `GET /favicon.ico`
pub(super) async fn favicon() -> HttpResponse {
    respond::status(200)
        .content_type("image/svg+xml")
        .insert_header(("cache-control", "public, max-age=86400"))
        .body(FAVICON)
}

/// An icon that shows items entering a batch.
const FAVICON: &str = r##"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 32 32"><rect width="32" height="32" rx="7" fill="#1d4ed8"/><g fill="#fff"><circle cx="7" cy="9" r="2.5"/><circle cx="7" cy="16" r="2.5"/><circle cx="7" cy="23" r="2.5"/><rect x="17" y="6" width="9" height="20" rx="2"/></g><path d="M11 9h5M11 16h5M11 23h5" stroke="#fff" stroke-width="1.6"/></svg>"##;
