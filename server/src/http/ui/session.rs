//! The cookie of a session, and which requests it counts for.
//!
//! A browser sends the cookie with every request to this server, whichever page causes it. `SameSite=Strict` prevents that for
//! pages of other sites. A site includes all ports of a host, so a request that may change something counts only if it also
//! comes from a page of this origin.

use actix_web::HttpRequest;
use hyper::http::request::Parts;

use super::Ui;
use crate::api::traces::Scheme;
use crate::api::{Client, SESSION_MAX_AGE};
use crate::http::request_headers::{RequestHead, first_value, is_management_port, scheme};

/// Name of the cookie. With the prefix, browsers accept it only over TLS and for this host.
const NAME: &str = "inference_ui";
const SECURE_NAME: &str = "__Host-inference_ui";

/// The client whose session a request belongs to.
pub(super) fn client(ui: &Ui, head: &Parts, is_management: bool) -> Option<Client> {
    let forwarded = first_value(head, "x-forwarded-proto");
    let name = cookie_name(is_secure(ui, forwarded, is_management));
    let cookies = head.headers.get_all("cookie");
    let token = cookies.iter().find_map(|cookie| find(cookie.as_bytes(), name))?;
    let changes_nothing = head.method == hyper::Method::GET || head.method == hyper::Method::HEAD;
    if !changes_nothing && !is_same_origin(|name| first_value(head, name)) {
        return None;
    }
    ui.sessions.client(token)
}

/// The token of the session of a request.
pub(super) fn token<'a>(ui: &Ui, request: &'a HttpRequest) -> Option<&'a [u8]> {
    let name = cookie_name(is_secure_request(ui, request));
    let mut cookies = request.headers().get_all("cookie");
    cookies.find_map(|cookie| find(cookie.as_bytes(), name))
}

/// The header `set-cookie` that opens a session, or ends it if `token` is `None`.
pub(super) fn set_cookie(ui: &Ui, request: &HttpRequest, token: Option<&str>) -> String {
    let is_secure = is_secure_request(ui, request);
    format!(
        "{}={}; Path=/; Max-Age={}; HttpOnly; SameSite=Strict{}",
        cookie_name(is_secure),
        token.unwrap_or_default(),
        token.map_or(0, |_| SESSION_MAX_AGE.as_secs()),
        if is_secure { "; Secure" } else { "" }
    )
}

/// Whether a request comes from a page of this server. Scripts of other pages can set neither of these headers.
pub(super) fn is_same_origin<'a>(header: impl Fn(&'static str) -> Option<&'a [u8]>) -> bool {
    if let Some(site) = header("sec-fetch-site") {
        return site == b"same-origin";
    }
    let authority = |origin: &'a [u8]| {
        let rest = origin.strip_prefix(b"https://");
        rest.or_else(|| origin.strip_prefix(b"http://"))
    };
    let origin = header("origin").and_then(authority);
    origin.is_some_and(|origin| Some(origin) == header("host"))
}

fn is_secure_request(ui: &Ui, request: &HttpRequest) -> bool {
    let is_management = is_management_port(request);
    is_secure(ui, request.header("x-forwarded-proto"), is_management)
}

/// Whether the browser reaches the server over TLS: directly, or through a proxy that says so.
fn is_secure(ui: &Ui, forwarded_proto: Option<&[u8]>, is_management: bool) -> bool {
    scheme(ui.has_tls && !is_management, forwarded_proto) == Scheme::Https
}

fn cookie_name(is_secure: bool) -> &'static str {
    if is_secure { SECURE_NAME } else { NAME }
}

/// The value of the cookie `name` in a header `cookie`.
fn find<'a>(header: &'a [u8], name: &str) -> Option<&'a [u8]> {
    let mut pairs = header.split(|byte| *byte == b';').map(<[u8]>::trim_ascii);
    pairs.find_map(|pair| pair.strip_prefix(name.as_bytes())?.strip_prefix(b"="))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cookie_is_found_among_others() {
        for (header, value) in [
            ("inference_ui=abc", Some("abc")),
            ("a=b; inference_ui=abc; c=d", Some("abc")),
            ("inference_ui=", Some("")),
            ("inference_ui2=abc; xinference_ui=abc", None),
            ("__Host-inference_ui=abc", None),
            ("inference_ui", None),
            ("", None),
        ] {
            let found = find(header.as_bytes(), NAME);
            assert_eq!(found, value.map(str::as_bytes), "{header}");
        }
    }

    #[test]
    fn only_pages_of_this_server_are_of_the_same_origin() {
        let check = |headers: &[(&'static str, &'static str)]| {
            let find = |name: &'static str| {
                let found = headers.iter().find(|(known, _)| *known == name);
                found.map(|(_, value)| value.as_bytes())
            };
            is_same_origin(find)
        };
        let host = ("host", "gpu-7:8080");
        for (headers, expected) in [
            (vec![host, ("origin", "http://gpu-7:8080")], true),
            (vec![host, ("origin", "https://gpu-7:8080")], true),
            (vec![host, ("sec-fetch-site", "same-origin")], true),
            (vec![host, ("origin", "http://gpu-7:9090")], false),
            (vec![host, ("origin", "http://gpu-7")], false),
            (vec![host, ("origin", "null")], false),
            (vec![host, ("origin", "gpu-7:8080")], false),
            (vec![host], false),
            (vec![("origin", "http://gpu-7:8080")], false),
            (
                vec![
                    host,
                    ("origin", "http://gpu-7:8080"),
                    ("sec-fetch-site", "same-site"),
                ],
                false,
            ),
            (vec![host, ("sec-fetch-site", "cross-site")], false),
            (vec![host, ("sec-fetch-site", "none")], false),
        ] {
            assert_eq!(check(&headers), expected, "{headers:?}");
        }
    }
}
