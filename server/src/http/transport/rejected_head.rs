//! Replies to requests with late, oversized or malformed heads, which do not reach the application.

use std::time::{Duration, UNIX_EPOCH};

use actix_web::http::StatusCode;
use actix_web::http::header::HttpDate;

use crate::api::{Code, Failure};
use crate::clock;
use crate::http::error_format::ErrorFormat;

/// Maximum size of the head of a request in bytes.
pub(super) const MAX_HEAD_SIZE: usize = 128 * 1024;

/// The error reply to such a request.
#[derive(Debug)]
pub(super) struct RejectedHead {
    status: u16,
    failure: Failure,
}

impl RejectedHead {
    /// The head did not arrive in time.
    pub(super) fn head_timeout(timeout: Duration) -> Self {
        let message = format!(
            "the request head did not arrive within {} s",
            timeout.as_secs_f64()
        );
        Self {
            status: 408,
            failure: Failure::new(Code::RequestTimeout, message),
        }
    }

    /// The `content-length` is out of range.
    pub(super) fn content_length_overflow() -> Self {
        Self {
            status: 413,
            failure: Failure::new(
                Code::TooLarge,
                "the request body is too large: the value of `content-length` is out of range",
            ),
        }
    }

    /// The head is malformed.
    pub(super) fn malformed(status: u16, reason: &str) -> Self {
        let message = match status {
            414 => "the request target is too long: expected at most 65534 bytes".to_owned(),
            431 => format!(
                "the request head is too large: expected at most {} KiB and 100 header fields",
                MAX_HEAD_SIZE / 1024
            ),
            _ => format!("malformed HTTP request: {reason}"),
        };
        Self {
            status,
            failure: Failure::new(Code::Malformed, message),
        }
    }

    /// Writes the reply, after which the connection is closed.
    pub(super) fn write(&self, any_origin: bool) -> Vec<u8> {
        let body = ErrorFormat::Native.write(&self.failure, None);
        let reason = StatusCode::from_u16(self.status)
            .ok()
            .and_then(|status| status.canonical_reason())
            .unwrap_or_default();
        let date = HttpDate::from(UNIX_EPOCH + clock::unix_time());
        let origin = match any_origin {
            true => "access-control-allow-origin: *\r\n",
            false => "",
        };
        let mut reply = format!(
            "HTTP/1.1 {} {reason}\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\
             date: {date}\r\n{origin}\r\n",
            self.status,
            body.len()
        )
        .into_bytes();
        reply.extend_from_slice(&body);
        reply
    }
}
