//! Distinguishes HTTP/2 from HTTP/1.1 by the first bytes of a connection.

/// A version of HTTP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Version {
    /// HTTP/1.1 or HTTP/1.0.
    Http1,
    Http2,
}

/// What a client sends first if it knows that the server speaks HTTP/2.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// A prefix of [`PREFACE`] with which no request of HTTP/1.1 starts: the method is reserved.
const DISTINCTIVE: usize = b"PRI ".len();

/// The version that the client speaks. `None` if that cannot be determined from these bytes.
pub(super) fn version_of(start: &[u8]) -> Option<Version> {
    let compared = start.len().min(PREFACE.len());
    if start[..compared] != PREFACE[..compared] {
        return Some(Version::Http1);
    }
    (compared >= DISTINCTIVE).then_some(Version::Http2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_preface_is_recognized_in_any_number_of_parts() {
        for length in 0..4 {
            assert_eq!(version_of(&PREFACE[..length]), None, "{length}");
        }
        for length in 4..=PREFACE.len() {
            assert_eq!(version_of(&PREFACE[..length]), Some(Version::Http2), "{length}");
        }
        let with_settings = [PREFACE, b"\0\0\0\x04\0\0\0\0\0"].concat();
        assert_eq!(version_of(&with_settings), Some(Version::Http2));
    }

    #[test]
    fn everything_else_is_left_to_the_parser_of_http_1() {
        for start in [
            "GET / HTTP/1.1",
            "PO",
            "PUT",
            "\r\n",
            "PRI * HTTP/1.1",
            "\x16\x03\x01",
        ] {
            assert_eq!(version_of(start.as_bytes()), Some(Version::Http1), "{start:?}");
        }
    }
}
