//! API documentation: the OpenAPI document and Swagger UI.
//!
//! Omitted from builds without the feature `docs`. All files are embedded in the executable. Links are relative, so that a
//! proxy can serve the pages under a path prefix.

use std::sync::Arc;

use actix_web::http::header::{CONTENT_ENCODING, CONTENT_TYPE, HeaderValue, LOCATION, VARY};
use actix_web::web::{Data, Path};
use actix_web::{HttpRequest, HttpResponse};
use maud::{DOCTYPE, html};
use serde_json::json;

use super::html_page::{FORWARDED_PREFIX, html_page, prefix_of};
use super::offload::run_blocking;
use super::openapi::{self, COLLAPSED_TAGS, Document, DocumentedModel, KeySettings, document, with_server};
use super::request_headers::is_management_port;
use super::respond;
use super::server::Shared;
use crate::api::Failure;
use crate::api::open_inference::SERVER_NAME;
use crate::registry::Snapshot;
use crate::routes;

/// The OpenAPI document of one set of models, without its servers.
pub(super) struct WrittenDocument {
    /// Version of the registry's snapshot that it describes.
    version: u64,
    /// The document for the management port.
    all: String,
    /// The document for the main port, if `management_only` removes routes from it.
    main: Option<String>,
}

/// `GET /openapi.json`. The document is cached until the models change.
pub(super) async fn openapi(request: HttpRequest, shared: Data<Shared>) -> HttpResponse {
    match current_document(&shared).await {
        Ok(cached) => {
            let main = cached.main.as_ref().filter(|_| !is_management_port(&request));
            respond::status(200)
                .content_type("application/json")
                .insert_header((VARY, FORWARDED_PREFIX))
                .body(with_server(main.unwrap_or(&cached.all), prefix_of(&request)))
        }
        Err(failure) => respond::failure(&request, &failure),
    }
}

async fn current_document(shared: &Data<Shared>) -> Result<Arc<WrittenDocument>, Failure> {
    let snapshot = shared.registry.snapshot();
    let cached = shared.openapi.load_full();
    if let Some(cached) = cached.filter(|cached| cached.version == snapshot.version) {
        return Ok(cached);
    }
    let (max_items, management_only) = (shared.body.items, shared.management_only);
    let keys = KeySettings {
        clients: shared.keys.requires_client_key(),
        admin: shared.keys.has_admin_key(),
        named: shared.keys.has_named_keys(),
    };
    let written = run_blocking(move || {
        let write = || document_of(&snapshot, max_items, keys);
        WrittenDocument {
            version: snapshot.version,
            all: openapi::serialize(&write()),
            main: management_only.then(|| openapi::serialize(&write().without(routes::is_management))),
        }
    });
    let written = Arc::new(written.await?);
    shared.openapi.store(Some(written.clone()));
    Ok(written)
}

fn document_of(snapshot: &Snapshot, max_items: usize, keys: KeySettings) -> Document {
    let models: Vec<_> = snapshot
        .models()
        .filter_map(|entry| {
            let routes: Vec<(&str, usize)> = entry
                .tasks
                .iter()
                .enumerate()
                .filter_map(|(index, task)| Some((task.route.as_deref()?, index)))
                .collect();
            Some((entry, entry.generation()?, routes))
        })
        .collect();
    let documented: Vec<DocumentedModel<'_>> = models
        .iter()
        .map(|(entry, generation, routes)| DocumentedModel {
            name: entry.name(),
            description: entry.description().unwrap_or_default(),
            manifest: &generation.manifest,
            default_task: entry.default_task,
            routes,
            embeddings: &entry.settings.embeddings,
        })
        .collect();
    document(&documented, max_items, keys)
}

/// `GET /docs`: redirects to `docs/`, because the page's files are relative to that directory. The location is
/// relative, for proxies with a path prefix.
pub(super) async fn redirect() -> HttpResponse {
    respond::status(308).insert_header((LOCATION, "docs/")).finish()
}

/// The files of Swagger UI that the page loads. Releases omit the others.
const FILES: [&str; 2] = ["swagger-ui-bundle.js", "swagger-ui.css"];

/// `GET /docs/…`: Swagger UI.
pub(super) async fn page(request: HttpRequest, shared: Data<Shared>, file: Path<String>) -> HttpResponse {
    match file.as_str() {
        "" | "index.html" => return html_page(&DOCS_POLICY).body(index().into_string()),
        "swagger-initializer.js" => {
            return respond::status(200)
                .content_type("text/javascript")
                .body(initializer());
        }
        _ => {}
    }
    let file = FILES
        .contains(&file.as_str())
        .then(|| utoipa_swagger_ui::serve(&file, shared.swagger.clone()));
    let Some(Ok(Some(file))) = file else {
        return respond::not_found(&request);
    };
    let mut response = respond::status(200);
    if let Ok(content_type) = HeaderValue::from_str(&file.content_type) {
        response.insert_header((CONTENT_TYPE, content_type));
    }
    if file.gzpipped {
        response.insert_header((CONTENT_ENCODING, "gzip"));
    }
    response.body(file.bytes.into_owned())
}

/// Content security policy of Swagger UI: its own files, and images embedded in its style sheet.
const DOCS_POLICY: HeaderValue = HeaderValue::from_static(
    "default-src 'self'; img-src 'self' data:; style-src 'self' 'unsafe-inline'; base-uri 'none'; \
     frame-ancestors 'none'",
);

fn index() -> maud::Markup {
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                title { (SERVER_NAME) " API" }
                link rel="icon" href="../favicon.ico" type="image/svg+xml";
                link rel="stylesheet" href="swagger-ui.css";
            }
            body {
                div id="swagger-ui" {}
                script src="swagger-ui-bundle.js" {}
                script src="swagger-initializer.js" {}
            }
        }
    }
}

/// The script that starts Swagger UI. It collapses the tags of other protocols, unless the URL links to an operation.
fn initializer() -> String {
    let collapsed = json!(COLLAPSED_TAGS);
    format!(
        r##"window.onload = () => {{
  const ui = SwaggerUIBundle({{
    url: "../openapi.json",
    dom_id: "#swagger-ui",
    deepLinking: true,
    displayRequestDuration: true,
    defaultModelsExpandDepth: 0,
    validatorUrl: null,
    onComplete: () => {{
      if (location.hash.length < 3) {{
        for (const tag of {collapsed}) ui.layoutActions.show(["operations-tag", tag], false);
      }}
    }},
  }});
}};
"##
    )
}
