//! Compresses replies for clients that accept it.
//!
//! Only what gains from it is compressed: replies to predictions and documents that are not small. Everything else goes
//! out as it is, and says nothing about its encoding: some clients offer compression on every request and cannot read
//! what they then get. The encoder compresses all but the smallest pieces on blocking threads.

use actix_http::encoding::Encoder;
use actix_web::body::{BodySize, BoxBody, MessageBody};
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::http::StatusCode;
use actix_web::http::header::{
    AcceptEncoding, CONTENT_ENCODING, CONTENT_TYPE, ContentEncoding, Encoding, HeaderMap, HeaderValue,
    Preference, Quality, VARY,
};
use actix_web::middleware::Next;
use actix_web::{Error, HttpMessage as _};

use super::respond;
use crate::api::{Code, Failure};
use crate::codec::media_types::essence;
use crate::routes;

/// Replies with fewer bytes are not compressed: a packet holds them as they are, and compressing them takes longer than
/// sending them.
const MIN_SIZE: u64 = 1024;

/// The encodings in the order in which they are chosen, of several that a client likes as well.
const ENCODINGS: [ContentEncoding; 3] = [
    ContentEncoding::Gzip,
    ContentEncoding::Deflate,
    ContentEncoding::Identity,
];

/// The layer itself.
pub(super) async fn layer(
    request: ServiceRequest,
    next: Next<impl MessageBody + 'static>,
) -> Result<ServiceResponse<BoxBody>, Error> {
    let accepted = request.get_header::<AcceptEncoding>();
    let Some(preferred) = choose(accepted.as_ref(), true) else {
        let message =
            "none of the accepted content encodings can be served; the server has gzip, deflate and identity";
        let response = respond::failure(request.request(), &Failure::new(Code::NotAcceptable, message));
        return Ok(request.into_response(response));
    };
    // An identity that the client rules out is no choice, whatever the reply is.
    let fallback = choose(accepted.as_ref(), false).unwrap_or(preferred);
    let path = request.match_info().as_str();
    let is_compressible = routes::find(path).is_none_or(|route| route.is_compressible);
    let response = next.call(request).await?;
    Ok(response
        .map_body(|head, body| {
            let is_candidate = is_compressible
                && head.status == StatusCode::OK
                && gains(head.headers())
                && !head.headers().contains_key(&CONTENT_ENCODING);
            let encoding = if is_candidate && !is_small(body.size()) {
                preferred
            } else {
                fallback
            };
            if is_candidate && encoding == ContentEncoding::Identity {
                // The encoder adds this to what it encodes.
                head.headers_mut()
                    .append(VARY, HeaderValue::from_static("accept-encoding"));
            }
            Encoder::response(encoding, head, body)
        })
        .map_into_boxed_body())
}

fn is_small(size: BodySize) -> bool {
    match size {
        BodySize::None => true,
        BodySize::Sized(size) => size < MIN_SIZE,
        BodySize::Stream => false,
    }
}

/// Whether a reply of this content type is not compressed already.
fn gains(headers: &HeaderMap) -> bool {
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

/// The encoding that a client likes best. One that is `worthwhile` may be a compression; otherwise it is the identity,
/// unless the client rules that out. `None` if the client rules out all of them.
fn choose(accepted: Option<&AcceptEncoding>, worthwhile: bool) -> Option<ContentEncoding> {
    let Some(accepted) = accepted else {
        return Some(ContentEncoding::Identity);
    };
    if !worthwhile && quality(accepted, ContentEncoding::Identity) > Quality::ZERO {
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

/// How much a client likes an encoding: as it says for this one, or for all others. Of what it does not mention, it
/// accepts only the identity, and likes everything else better.
fn quality(accepted: &AcceptEncoding, encoding: ContentEncoding) -> Quality {
    let quality_of = |preference: &Preference<Encoding>| {
        let found = accepted.iter().find(|item| item.item == *preference);
        found.map(|item| item.quality)
    };
    let unmentioned = match encoding {
        ContentEncoding::Identity => Quality::MIN,
        _ => Quality::ZERO,
    };
    quality_of(&Preference::Specific(Encoding::Known(encoding)))
        .or_else(|| quality_of(&Preference::Any))
        .unwrap_or(unmentioned)
}

#[cfg(test)]
mod tests {
    use actix_web::http::header::{ACCEPT_ENCODING, Header as _};
    use actix_web::test::TestRequest;

    use super::*;

    #[test]
    fn the_encoding_is_what_the_client_likes_best() {
        let chosen = |accepted: &str, worthwhile| {
            let request = TestRequest::default()
                .insert_header((ACCEPT_ENCODING, accepted))
                .to_http_request();
            let accepted = AcceptEncoding::parse(&request).expect("the header is valid");
            choose(Some(&accepted), worthwhile)
        };
        use ContentEncoding::{Deflate, Gzip, Identity};
        // For a reply that is worth compressing, and for another.
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
    fn what_is_compressed_already_is_not_compressed_again() {
        let gains = |content_type: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
            gains(&headers)
        };
        for content_type in [
            "application/json",
            "text/html; charset=utf-8",
            "image/svg+xml",
            "application/octet-stream",
        ] {
            assert!(gains(content_type), "{content_type}");
        }
        for content_type in ["image/png", "video/mp4", "application/zip", "font/woff2"] {
            assert!(!gains(content_type), "{content_type}");
        }
    }
}
