//! Receives and decompresses request bodies, with limits on size and time.
//!
//! Compressed bodies are decompressed on a blocking thread. The size limit also applies to the decompressed body, so
//! that a small body cannot expand into a large one.

use std::io::Read;
use std::sync::Arc;
use std::time::{Duration, Instant};

use actix_web::dev::Payload;
use actix_web::error::PayloadError;
use actix_web::web::{self, Bytes, BytesMut};
use bytes::BufMut as _;
use flate2::read::{DeflateDecoder, MultiGzDecoder, ZlibDecoder};
use futures_util::StreamExt as _;

use super::request_headers::RequestHead;
use crate::api::{Code, Failure};
use crate::byte_budget::{ByteBudget, MAX_UNCOUNTED, Reservation};

/// Limits on receiving a body.
#[derive(Clone, Debug)]
pub(crate) struct ReceiveLimits {
    /// Maximum size in bytes, both as sent and after decompression.
    pub(crate) size: usize,
    /// Maximum time for the whole body to arrive.
    pub(crate) timeout: Duration,
    /// The budget of all requests, which counts the body for as long as any part of it is in use.
    pub(crate) budget: Arc<ByteBudget>,
}

/// A compressed body is decompressed in pieces of this size, each of which is reserved.
const DECOMPRESSED_PIECE: u64 = 1 << 20;

/// Alignment of the data after the head of a body. The allocator does not guarantee more, and no element is larger.
const ALIGNMENT: usize = 16;

/// Receives the body of a request that arrived at `received`. If the body is assembled from several chunks or
/// decompressed, the data after its first `head` bytes is aligned for every element type, so that it does not have to
/// be copied again.
pub(crate) async fn receive(
    request: &dyn RequestHead,
    payload: Payload,
    limits: &ReceiveLimits,
    received: Instant,
    head: usize,
) -> Result<Bytes, Failure> {
    let padding = head.wrapping_neg() % ALIGNMENT;
    let encoding = Encoding::of(request)?;
    let announced = request
        .header("content-length")
        .and_then(|length| std::str::from_utf8(length).ok())
        .and_then(|length| length.parse::<u64>().ok());
    let max_size = limits
        .size
        .min(usize::try_from(limits.budget.limit()).unwrap_or(usize::MAX));
    if announced.is_some_and(|length| length > max_size as u64) {
        return Err(too_large(max_size));
    }
    // Before the body is received, so that the client learns early that there is no room.
    let mut reservation = limits.budget.reserve(announced.map_or(0, counted))?;
    let deadline = tokio::time::Instant::from_std(received + limits.timeout);
    let collected = collect(payload, announced, max_size, padding, &mut reservation);
    let body = tokio::time::timeout_at(deadline, collected)
        .await
        .map_err(|_| Failure::body_timeout(limits.timeout))??;
    match encoding {
        Encoding::Identity => Ok(attach(reservation, body)),
        Encoding::Gzip | Encoding::Deflate => {
            web::block(move || decompress(&body, encoding, max_size, padding, reservation))
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

/// The part of `size` bytes that counts toward the budget: small bodies are bounded by the number of connections.
fn counted(size: u64) -> u64 {
    if size > MAX_UNCOUNTED { size } else { 0 }
}

/// Keeps the reservation for as long as any part of `body` is in use.
fn attach(mut reservation: Reservation, body: Bytes) -> Bytes {
    reservation.shrink_to(counted(body.len() as u64));
    if reservation.bytes() == 0 {
        body
    } else {
        reservation.attach(body)
    }
}

async fn collect(
    mut payload: Payload,
    announced: Option<u64>,
    limit: usize,
    padding: usize,
    reservation: &mut Reservation,
) -> Result<Bytes, Failure> {
    // Most bodies arrive in one chunk, which is used without copying.
    let mut first = Bytes::new();
    let mut all = BytesMut::new();
    while let Some(chunk) = payload.next().await {
        let chunk = chunk.map_err(|error| receive_failure(error, limit))?;
        let size = first.len() + all.len().saturating_sub(padding) + chunk.len();
        if size > limit {
            return Err(too_large(limit));
        }
        reservation.grow(counted(size as u64).saturating_sub(reservation.bytes()))?;
        if first.is_empty() && all.is_empty() {
            first = chunk;
            continue;
        }
        if all.is_empty() {
            // The announced length is within the budget, and its pages take memory only when they are written.
            let announced = announced
                .and_then(|length| usize::try_from(length).ok())
                .unwrap_or(0);
            all.reserve(padding + announced.max(first.len() + chunk.len()));
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
    fn of(request: &dyn RequestHead) -> Result<Self, Failure> {
        let mut values = request.header_values("content-encoding");
        for value in &mut values {
            *value = value.trim_ascii();
        }
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

/// Decompresses `body`, whose compressed bytes `reservation` covers.
fn decompress(
    body: &[u8],
    encoding: Encoding,
    limit: usize,
    padding: usize,
    mut reservation: Reservation,
) -> Result<Bytes, Failure> {
    let mut decoder: Box<dyn Read + '_> = match encoding {
        Encoding::Identity => Box::new(body),
        Encoding::Gzip => Box::new(MultiGzDecoder::new(body)),
        Encoding::Deflate if is_zlib(body) => Box::new(ZlibDecoder::new(body)),
        // Some clients omit the zlib header, which the encoding requires despite its name.
        Encoding::Deflate => Box::new(DeflateDecoder::new(body)),
    };
    let compressed = reservation.bytes();
    let mut out = vec![0; padding];
    loop {
        let before = out.len();
        let read = decoder.by_ref().take(DECOMPRESSED_PIECE).read_to_end(&mut out);
        let size = out.len() - padding;
        if size > limit {
            return Err(Failure::new(
                Code::TooLarge,
                format!("the request body is too large: expected at most {limit} bytes after decompression"),
            ));
        }
        read.map_err(|error| {
            Failure::new(
                Code::Malformed,
                format!("failed to decompress the request body: {error}"),
            )
        })?;
        if out.len() == before {
            break;
        }
        // The compressed bytes are still in memory.
        let needed = compressed + counted(size as u64);
        reservation.grow(needed.saturating_sub(reservation.bytes()))?;
    }
    Ok(attach(reservation, Bytes::from(out).slice(padding..)))
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

    use actix_web::http::header::CONTENT_ENCODING;
    use actix_web::test::TestRequest;
    use flate2::Compression;
    use flate2::write::GzEncoder;
    use futures_util::stream;

    use super::*;
    use crate::clock;

    fn limits(budget: &Arc<ByteBudget>) -> ReceiveLimits {
        ReceiveLimits {
            size: 1 << 20,
            timeout: Duration::from_secs(10),
            budget: budget.clone(),
        }
    }

    /// Receives a body that arrives in several chunks.
    async fn receive_pieces(
        pieces: Vec<Vec<u8>>,
        encoding: &str,
        head: usize,
        budget: &Arc<ByteBudget>,
    ) -> Result<Bytes, Failure> {
        let request = TestRequest::default()
            .insert_header((CONTENT_ENCODING, encoding))
            .to_http_request();
        let pieces = pieces.into_iter().map(|piece| Ok(Bytes::from(piece)));
        let payload: Payload = Payload::Stream {
            payload: Box::pin(stream::iter(pieces)),
        };
        receive(&request, payload, &limits(budget), clock::now(), head).await
    }

    fn gzip(body: &[u8]) -> Vec<u8> {
        let mut packed = GzEncoder::new(Vec::new(), Compression::fast());
        packed.write_all(body).expect("writing to memory succeeds");
        packed.finish().expect("writing to memory succeeds")
    }

    #[actix_web::test]
    async fn a_body_counts_until_its_last_part_is_dropped_and_is_rejected_if_it_does_not_fit() {
        let budget = ByteBudget::new(100_000);
        let body = vec![b'x'; 60_000];
        for (sent, encoding) in [(body.clone(), "identity"), (gzip(&body), "gzip")] {
            let pieces: Vec<_> = sent.chunks(7_000).map(<[u8]>::to_vec).collect();
            let received = receive_pieces(pieces.clone(), encoding, 0, &budget).await;
            let item = received.expect("there is room").slice(1..2);
            assert_eq!(budget.held(), 60_000, "{encoding}");
            let failure = receive_pieces(pieces, encoding, 0, &budget).await;
            let failure = failure.expect_err("there is no room");
            assert_eq!(
                (failure.code, failure.retry_after),
                (Code::Overloaded, Some(Duration::from_secs(1))),
                "{encoding}"
            );
            assert_eq!(budget.held(), 60_000, "{encoding}");
            drop(item);
            assert_eq!(budget.held(), 0, "{encoding}");
        }
        let small = receive_pieces(vec![vec![b'x'; 4096]], "identity", 0, &budget).await;
        assert_eq!((small.map(|body| body.len()), budget.held()), (Ok(4096), 0));
    }

    #[actix_web::test]
    async fn the_data_after_the_head_is_aligned_for_every_element_type() {
        let body: Vec<u8> = (0..20_000u32).map(|byte| byte as u8).collect();
        let packed = gzip(&body);
        let budget = ByteBudget::new(u64::MAX);
        for head in (0..40).chain([4097]) {
            for (sent, encoding) in [(&body, "identity"), (&packed, "gzip")] {
                let pieces = sent.chunks(33).map(<[u8]>::to_vec).collect();
                let received = receive_pieces(pieces, encoding, head, &budget).await;
                let received = received.expect("the body is within the limit");
                assert!(received == body, "{encoding}, head of {head}");
                let address = received.as_ptr().addr() + head;
                assert_eq!(address % ALIGNMENT, 0, "{encoding}, head of {head}");
            }
        }
    }
}
