//! The files of the pages, which are embedded in the executable.

use actix_web::http::header::{CACHE_CONTROL, CONTENT_TYPE, ETAG, IF_NONE_MATCH, X_CONTENT_TYPE_OPTIONS};
use actix_web::web::{Data, Path};
use actix_web::{HttpRequest, HttpResponse};

use super::state;
use crate::digest::Digest;
use crate::http::respond;
use crate::http::server::Shared;

const SCRIPT: &str = "text/javascript; charset=utf-8";
const STYLE: &str = "text/css; charset=utf-8";

/// Name, content type and content of each file.
const FILES: [(&str, &str, &[u8]); 11] = [
    ("app.css", STYLE, include_bytes!("../../../assets/ui/app.css")),
    (
        "answers.js",
        SCRIPT,
        include_bytes!("../../../assets/ui/answers.js"),
    ),
    ("app.js", SCRIPT, include_bytes!("../../../assets/ui/app.js")),
    (
        "charts.js",
        SCRIPT,
        include_bytes!("../../../assets/ui/charts.js"),
    ),
    (
        "element.js",
        SCRIPT,
        include_bytes!("../../../assets/ui/element.js"),
    ),
    (
        "requests.js",
        SCRIPT,
        include_bytes!("../../../assets/ui/requests.js"),
    ),
    (
        "schema.js",
        SCRIPT,
        include_bytes!("../../../assets/ui/schema.js"),
    ),
    (
        "snippets.js",
        SCRIPT,
        include_bytes!("../../../assets/ui/snippets.js"),
    ),
    ("try.js", SCRIPT, include_bytes!("../../../assets/ui/try.js")),
    (
        "uplot.js",
        SCRIPT,
        include_bytes!("../../../assets/uplot/uPlot.iife.min.js"),
    ),
    (
        "uplot.css",
        STYLE,
        include_bytes!("../../../assets/uplot/uPlot.min.css"),
    ),
];

/// The files, with their entity tags.
pub(super) struct Files(Vec<File>);

struct File {
    name: &'static str,
    content_type: &'static str,
    content: &'static [u8],
    tag: String,
}

impl Files {
    pub(super) fn new() -> Self {
        let files = FILES.into_iter().map(|(name, content_type, content)| File {
            name,
            content_type,
            content,
            tag: format!("\"{:.16}\"", Digest::of(content).to_string()),
        });
        Self(files.collect())
    }
}

/// `GET /ui/static/{file}`. Browsers ask whether a file has changed, since it does with the next version of the server.
pub(super) async fn file(request: HttpRequest, shared: Data<Shared>, name: Path<String>) -> HttpResponse {
    let files = &state(&shared).files.0;
    let Some(file) = files.iter().find(|file| file.name == name.as_str()) else {
        return respond::not_found(&request);
    };
    let known = request.headers().get(IF_NONE_MATCH);
    let is_known = known.is_some_and(|tags| {
        let mut tags = tags.to_str().unwrap_or_default().split(',').map(str::trim);
        tags.any(|tag| tag.strip_prefix("W/").unwrap_or(tag) == file.tag)
    });
    let mut response = respond::status(if is_known { 304 } else { 200 });
    response
        .insert_header((ETAG, file.tag.as_str()))
        .insert_header((CACHE_CONTROL, "no-cache"));
    if is_known {
        return response.finish();
    }
    response
        .insert_header((CONTENT_TYPE, file.content_type))
        .insert_header((X_CONTENT_TYPE_OPTIONS, "nosniff"))
        .body(file.content)
}
