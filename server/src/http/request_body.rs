//! Receives and decompresses request bodies, with limits on size and time.
//!
//! Compressed bodies are decompressed on a blocking thread. The size limit also applies to the decompressed body, so
//! that a small body cannot expand into a large one.

use std::io::Read;
use std::time::{Duration, Instant};

use actix_web::HttpRequest;
use actix_web::error::PayloadError;
use actix_web::http::header::{CONTENT_ENCODING, CONTENT_LENGTH};
use actix_web::web::{self, Bytes, BytesMut};
use bytes::BufMut as _;
use flate2::read::{DeflateDecoder, MultiGzDecoder, ZlibDecoder};
use futures_util::StreamExt as _;

use crate::api::{Code, Failure};

/// Limits on receiving a body.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ReceiveLimits {
    /// Maximum size in bytes, both as sent and after decompression.
    pub(crate) size: usize,
    /// Maximum time for the whole body to arrive.
    pub(crate) timeout: Duration,
}

/// Alignment of the data after the head of a body. The allocator does not guarantee more, and no element is larger.
const ALIGNMENT: usize = 16;

/// Receives the body of a request that arrived at `received`. If the body is assembled from several chunks or
/// decompressed, the data after its first `head` bytes is aligned for every element type, so that it does not have to
/// be copied again.
pub(crate) async fn receive(
    request: &HttpRequest,
    payload: web::Payload,
    limits: ReceiveLimits,
    received: Instant,
    head: usize,
) -> Result<Bytes, Failure> {
    let padding = head.wrapping_neg() % ALIGNMENT;
    let encoding = Encoding::of(request)?;
    let announced = request
        .headers()
        .get(CONTENT_LENGTH)
        .and_then(|length| length.to_str().ok())
        .and_then(|length| length.parse::<u64>().ok());
    if announced.is_some_and(|length| length > limits.size as u64) {
        return Err(too_large(limits.size));
    }
    let deadline = tokio::time::Instant::from_std(received + limits.timeout);
    let body = tokio::time::timeout_at(deadline, collect(payload, announced, limits.size, padding))
        .await
        .map_err(|_| Failure::body_timeout(limits.timeout))??;
    match encoding {
        Encoding::Identity => Ok(body),
        Encoding::Gzip | Encoding::Deflate => {
            web::block(move || decompress(&body, encoding, limits.size, padding))
                .await
                .map_err(|_| {
                    Failure::new(
                        Code::Internal,
                        "failed to decompress the request body: no thread available",
                    )
                })?
        }
    }
}

async fn collect(
    mut payload: web::Payload,
    announced: Option<u64>,
    limit: usize,
    padding: usize,
) -> Result<Bytes, Failure> {
    // Most bodies arrive in one chunk, which is used without copying.
    let mut first = Bytes::new();
    let mut all = BytesMut::new();
    while let Some(chunk) = payload.next().await {
        let chunk = chunk.map_err(|error| receive_failure(error, limit))?;
        if first.len() + all.len().saturating_sub(padding) + chunk.len() > limit {
            return Err(too_large(limit));
        }
        if first.is_empty() && all.is_empty() {
            first = chunk;
            continue;
        }
        if all.is_empty() {
            // Does not allocate the full announced length, so that memory is in proportion to what was received.
            let announced = announced
                .and_then(|length| usize::try_from(length).ok())
                .unwrap_or(0);
            all.reserve(padding + announced.min(1 << 20).max(first.len() + chunk.len()));
            all.put_bytes(0, padding);
            all.extend_from_slice(&std::mem::take(&mut first));
        }
        all.extend_from_slice(&chunk);
    }
    Ok(if all.is_empty() {
        first
    } else {
        all.freeze().slice(padding..)
    })
}

fn receive_failure(error: PayloadError, limit: usize) -> Failure {
    match error {
        PayloadError::Overflow => too_large(limit),
        error => Failure::new(
            Code::Malformed,
            format!("failed to receive the request body: {error}"),
        ),
    }
}

fn too_large(limit: usize) -> Failure {
    Failure::new(
        Code::TooLarge,
        format!("the request body is too large: expected at most {limit} bytes"),
    )
}

/// The content encoding of a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Encoding {
    Identity,
    Gzip,
    Deflate,
}

impl Encoding {
    fn of(request: &HttpRequest) -> Result<Self, Failure> {
        let values: Vec<&[u8]> = request
            .headers()
            .get_all(CONTENT_ENCODING)
            .map(|value| value.as_bytes().trim_ascii())
            .collect();
        match values.as_slice() {
            [] | [b""] => Ok(Self::Identity),
            [one] if one.eq_ignore_ascii_case(b"identity") => Ok(Self::Identity),
            [one] if one.eq_ignore_ascii_case(b"gzip") || one.eq_ignore_ascii_case(b"x-gzip") => {
                Ok(Self::Gzip)
            }
            [one] if one.eq_ignore_ascii_case(b"deflate") => Ok(Self::Deflate),
            others => {
                let got: Vec<_> = others
                    .iter()
                    .map(|value| String::from_utf8_lossy(value))
                    .collect();
                let got = got.join(", ");
                Err(Failure::new(
                    Code::UnsupportedMediaType,
                    format!("unsupported content encoding `{got}`; supported: gzip, deflate, identity"),
                ))
            }
        }
    }
}

fn decompress(body: &[u8], encoding: Encoding, limit: usize, padding: usize) -> Result<Bytes, Failure> {
    let mut out = Vec::with_capacity(padding + body.len().saturating_mul(3).min(limit));
    out.resize(padding, 0);
    // One byte beyond the limit shows that the limit is exceeded.
    let max_read = limit as u64 + 1;
    let result = match encoding {
        Encoding::Identity => body.take(max_read).read_to_end(&mut out),
        Encoding::Gzip => MultiGzDecoder::new(body).take(max_read).read_to_end(&mut out),
        Encoding::Deflate if is_zlib(body) => ZlibDecoder::new(body).take(max_read).read_to_end(&mut out),
        // Some clients omit the zlib header, which the encoding requires despite its name.
        Encoding::Deflate => DeflateDecoder::new(body).take(max_read).read_to_end(&mut out),
    };
    if out.len() - padding > limit {
        return Err(Failure::new(
            Code::TooLarge,
            format!("the request body is too large: expected at most {limit} bytes after decompression"),
        ));
    }
    result
        .map(|_| Bytes::from(out).slice(padding..))
        .map_err(|error| {
            Failure::new(
                Code::Malformed,
                format!("failed to decompress the request body: {error}"),
            )
        })
}

fn is_zlib(body: &[u8]) -> bool {
    match body {
        [method, flags, ..] => method & 0x0f == 8 && u16::from_be_bytes([*method, *flags]) % 31 == 0,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use actix_web::test::TestRequest;
    use actix_web::{FromRequest as _, dev};
    use flate2::Compression;
    use flate2::write::GzEncoder;
    use futures_util::stream;

    use super::*;
    use crate::clock;

    const LIMITS: ReceiveLimits = ReceiveLimits {
        size: 1 << 20,
        timeout: Duration::from_secs(10),
    };

    /// Receives a body that arrives in several chunks.
    async fn receive_pieces(pieces: Vec<Vec<u8>>, encoding: &str, head: usize) -> Bytes {
        let request = TestRequest::default()
            .insert_header((CONTENT_ENCODING, encoding))
            .to_http_request();
        let pieces = pieces.into_iter().map(|piece| Ok(Bytes::from(piece)));
        let mut payload: dev::Payload = dev::Payload::Stream {
            payload: Box::pin(stream::iter(pieces)),
        };
        let payload = web::Payload::from_request(&request, &mut payload)
            .await
            .expect("there is a payload");
        receive(&request, payload, LIMITS, clock::now(), head)
            .await
            .expect("the body is within the limit")
    }

    #[actix_web::test]
    async fn the_data_after_the_head_is_aligned_for_every_element_type() {
        let body: Vec<u8> = (0..20_000u32).map(|byte| byte as u8).collect();
        let mut packed = GzEncoder::new(Vec::new(), Compression::fast());
        packed.write_all(&body).expect("writing to memory succeeds");
        let packed = packed.finish().expect("writing to memory succeeds");
        for head in (0..40).chain([4097]) {
            for (sent, encoding) in [(&body, "identity"), (&packed, "gzip")] {
                let pieces = sent.chunks(33).map(<[u8]>::to_vec).collect();
                let received = receive_pieces(pieces, encoding, head).await;
                assert!(received == body, "{encoding}, head of {head}");
                let address = received.as_ptr().addr() + head;
                assert_eq!(address % ALIGNMENT, 0, "{encoding}, head of {head}");
            }
        }
    }
}
