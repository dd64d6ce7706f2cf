//! Compresses replies for clients that accept it.
//!
//! Only large predictions and documents are compressed. Other replies are sent unchanged and without a content
//! encoding, because some clients offer compression on every request but cannot decompress every reply. The encoder
//! compresses all but the smallest chunks on blocking threads.

use actix_http::encoding::Encoder;
use actix_web::Error;
use actix_web::body::{BodySize, BoxBody, MessageBody};
use actix_web::dev::{ResponseHead, ServiceRequest, ServiceResponse};
use actix_web::http::StatusCode;
use actix_web::http::header::{
    AcceptEncoding, CONTENT_ENCODING, CONTENT_TYPE, ContentEncoding, Encoding, HeaderMap, HeaderValue,
    Preference, Quality, VARY, from_comma_delimited,
};
use actix_web::middleware::Next;

use super::request_headers::RequestHead;
use super::respond;
use crate::api::{Code, Failure};
use crate::codec::media_types::essence;
use crate::routes;

/// Minimum size of a compressed reply in bytes. A smaller one fits in a packet, and compressing it takes longer than
/// sending it.
const MIN_SIZE: u64 = 1024;

/// Supported encodings. Of several that the client prefers equally, the first one is used.
const ENCODINGS: [ContentEncoding; 3] = [
    ContentEncoding::Gzip,
    ContentEncoding::Deflate,
    ContentEncoding::Identity,
];

/// The middleware that compresses replies.
pub(super) async fn compress_replies(
    request: ServiceRequest,
    next: Next<impl MessageBody + 'static>,
) -> Result<ServiceResponse<BoxBody>, Error> {
    let accepted = match AcceptedEncodings::of(request.request()) {
        Ok(accepted) => accepted,
        Err(failure) => {
            let response = respond::failure(request.request(), &failure);
            return Ok(request.into_response(response));
        }
    };
    let path = request.match_info().as_str();
    let is_compressible = routes::find(path).is_none_or(|route| route.is_compressible);
    let response = next.call(request).await?;
    Ok(response.map_body(|head, body| accepted.compress(is_compressible, head, body)))
}

/// The encodings of a reply that a client accepts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct AcceptedEncodings {
    preferred: ContentEncoding,
    /// For replies that are not worth compressing. A client can exclude the identity encoding even for them.
    fallback: ContentEncoding,
}

impl AcceptedEncodings {
    /// # Errors
    /// If the client accepts no supported encoding.
    pub(super) fn of(request: &dyn RequestHead) -> Result<Self, Failure> {
        let values = request.header_values("accept-encoding");
        let values = values.into_iter().map(HeaderValue::from_bytes);
        let values: Vec<HeaderValue> = values.filter_map(Result::ok).collect();
        let accepted = match values.as_slice() {
            [] => None,
            values => from_comma_delimited(values.iter()).ok().map(AcceptEncoding),
        };
        Self::choose(accepted.as_ref()).ok_or_else(|| {
            let message =
                "none of the accepted content encodings is supported; supported: gzip, deflate, identity";
            Failure::new(Code::NotAcceptable, message)
        })
    }

    fn choose(accepted: Option<&AcceptEncoding>) -> Option<Self> {
        let preferred = choose(accepted, true)?;
        let fallback = choose(accepted, false).unwrap_or(preferred);
        Some(Self { preferred, fallback })
    }

    /// Compresses the body of a reply, if it is worth it and the route allows it.
    pub(super) fn compress(
        self,
        is_compressible: bool,
        head: &mut ResponseHead,
        body: impl MessageBody + 'static,
    ) -> BoxBody {
        let is_candidate = is_compressible
            && head.status == StatusCode::OK
            && is_compressible_type(head.headers())
            && !head.headers().contains_key(&CONTENT_ENCODING);
        let encoding = if is_candidate && !is_small(body.size()) {
            self.preferred
        } else {
            self.fallback
        };
        if is_candidate && encoding == ContentEncoding::Identity {
            // The encoder adds this header only to replies that it compresses.
            head.headers_mut()
                .append(VARY, HeaderValue::from_static("accept-encoding"));
        }
        match encoding {
            ContentEncoding::Identity => body.boxed(),
            encoding => Encoder::response(encoding, head, body).boxed(),
        }
    }
}

fn is_small(size: BodySize) -> bool {
    match size {
        BodySize::None => true,
        BodySize::Sized(size) => size < MIN_SIZE,
        BodySize::Stream => false,
    }
}

/// Whether the content type is not already compressed.
fn is_compressible_type(headers: &HeaderMap) -> bool {
    let content_type = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let essence = essence(content_type.unwrap_or_default());
    match essence.split_once('/') {
        Some(("image", subtype)) => subtype == "svg+xml",
        Some(("audio" | "video" | "font", _)) => false,
        Some(("application", subtype)) => {
            !matches!(subtype, "gzip" | "zip" | "zstd" | "x-7z-compressed" | "pdf")
        }
        _ => true,
    }
}

/// Returns the encoding that the client prefers if `compress` is true, otherwise the identity encoding unless the
/// client excludes it. `None` if the client excludes all encodings.
fn choose(accepted: Option<&AcceptEncoding>, compress: bool) -> Option<ContentEncoding> {
    let Some(accepted) = accepted else {
        return Some(ContentEncoding::Identity);
    };
    if !compress && quality(accepted, ContentEncoding::Identity) > Quality::ZERO {
        return Some(ContentEncoding::Identity);
    }
    let mut best = None;
    for encoding in ENCODINGS {
        let quality = quality(accepted, encoding);
        if quality > best.map_or(Quality::ZERO, |(_, quality)| quality) {
            best = Some((encoding, quality));
        }
    }
    best.map(|(encoding, _)| encoding)
}

/// Returns the quality value of an encoding: its own, or that of `*`. An encoding that is not mentioned has quality
/// zero, except the identity encoding, which has the lowest quality above zero.
fn quality(accepted: &AcceptEncoding, encoding: ContentEncoding) -> Quality {
    let quality_of = |preference: &Preference<Encoding>| {
        let found = accepted.iter().find(|item| item.item == *preference);
        found.map(|item| item.quality)
    };
    let default = match encoding {
        ContentEncoding::Identity => Quality::MIN,
        _ => Quality::ZERO,
    };
    quality_of(&Preference::Specific(Encoding::Known(encoding)))
        .or_else(|| quality_of(&Preference::Any))
        .unwrap_or(default)
}

#[cfg(test)]
mod tests {
    use actix_web::http::header::{ACCEPT_ENCODING, Header as _};
    use actix_web::test::TestRequest;

    use super::*;

    #[test]
    fn the_client_gets_the_encoding_that_it_prefers() {
        let chosen = |accepted: &str, compress| {
            let request = TestRequest::default()
                .insert_header((ACCEPT_ENCODING, accepted))
                .to_http_request();
            let accepted = AcceptEncoding::parse(&request).expect("the header is valid");
            choose(Some(&accepted), compress)
        };
        use ContentEncoding::{Deflate, Gzip, Identity};
        // The encodings of a reply that is worth compressing, and of one that is not.
        let cases = [
            ("gzip", Some(Gzip), Some(Identity)),
            ("gzip, deflate, br", Some(Gzip), Some(Identity)),
            ("deflate", Some(Deflate), Some(Identity)),
            ("deflate, gzip;q=0.5", Some(Deflate), Some(Identity)),
            ("identity, gzip;q=0.5", Some(Identity), Some(Identity)),
            ("identity", Some(Identity), Some(Identity)),
            ("br", Some(Identity), Some(Identity)),
            ("*", Some(Gzip), Some(Identity)),
            ("gzip;q=0", Some(Identity), Some(Identity)),
            ("gzip, identity;q=0", Some(Gzip), Some(Gzip)),
            ("gzip;q=0.5, *;q=0", Some(Gzip), Some(Gzip)),
            ("identity;q=0, *", Some(Gzip), Some(Gzip)),
            ("identity;q=0.1, *;q=0", Some(Identity), Some(Identity)),
            ("identity;q=0", None, None),
            ("identity;q=0, br", None, None),
            ("*;q=0", None, None),
        ];
        for (accepted, large, small) in cases {
            assert_eq!(chosen(accepted, true), large, "{accepted}");
            assert_eq!(chosen(accepted, false), small, "{accepted}");
        }
        assert_eq!(choose(None, true), Some(Identity));
    }

    #[test]
    fn compressed_content_types_are_not_compressed_again() {
        let is_compressible = |content_type: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
            is_compressible_type(&headers)
        };
        for content_type in [
            "application/json",
            "text/html; charset=utf-8",
            "image/svg+xml",
            "application/octet-stream",
        ] {
            assert!(is_compressible(content_type), "{content_type}");
        }
        for content_type in ["image/png", "video/mp4", "application/zip", "font/woff2"] {
            assert!(!is_compressible(content_type), "{content_type}");
        }
    }
}
