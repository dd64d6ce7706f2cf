//! Reads request headers: the request id and the options of a request.

use actix_web::http::header::HeaderValue;
use actix_web::{HttpMessage as _, HttpRequest};

use crate::api::{Call, Failure, RequestOptions};

/// The request id, from the client or generated. The middleware adds it to the request.
#[derive(Clone, Debug)]
pub(super) struct RequestId(pub(super) String);

/// Returns the request id.
pub(super) fn request_id(request: &HttpRequest) -> Option<String> {
    request.extensions().get::<RequestId>().map(|id| id.0.clone())
}

/// Reads the options of a request. The default timeout is that of the model.
pub(super) fn request_options(request: &HttpRequest, call: &Call) -> Result<RequestOptions, Failure> {
    let header = |name| request.headers().get(name).map(HeaderValue::as_bytes);
    let mut options = RequestOptions::read(header, call.entry.settings.request_timeout)?;
    if let Some(id) = request_id(request) {
        options.request_id = id.into();
    }
    Ok(options)
}
