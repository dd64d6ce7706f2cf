//! Bytes that a client wrote as text: base64, and data URIs such as `data:image/png;base64,iVBORw0…`.

use base64::Engine as _;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};

/// Padding is welcome but not needed, as clients differ.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// Longest beginning of a data URI, up to its comma: nobody's media type is longer.
const LONGEST_HEAD: usize = 256;

/// A data URI, decoded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DataUri {
    /// Such as `image/png`; empty if it says none.
    pub media_type: String,
    /// The bytes.
    pub data: Vec<u8>,
}

/// Whether a text is a data URI in base64.
pub fn is_one(text: &[u8]) -> bool {
    text.starts_with(b"data:") && head_end(text).is_some_and(|end| text[..end].ends_with(b";base64"))
}

/// Decodes a data URI.
///
/// # Errors
/// What is wrong with it.
pub fn decode(text: &[u8]) -> Result<DataUri, String> {
    let end = head_end(text).filter(|_| is_one(text));
    let Some(end) = end else {
        return Err("expected a data URI such as `data:image/png;base64,…`".to_owned());
    };
    let head = &text["data:".len()..end - ";base64".len()];
    // Parameters of the media type, such as a charset, mean nothing to bytes.
    let media_type = head.split(|&byte| byte == b';').next().unwrap_or_default();
    Ok(DataUri {
        media_type: String::from_utf8_lossy(media_type).trim().to_ascii_lowercase(),
        data: decode_base64(&text[end + 1..])?,
    })
}

/// Decodes base64, with or without padding. Line breaks, spaces and tabs are skipped: many encoders break lines.
///
/// # Errors
/// What is wrong with it.
pub fn decode_base64(text: &[u8]) -> Result<Vec<u8>, String> {
    let is_space = |byte: &u8| matches!(byte, b'\r' | b'\n' | b' ' | b'\t');
    let decoded = if text.iter().any(is_space) {
        let packed: Vec<u8> = text.iter().copied().filter(|byte| !is_space(byte)).collect();
        BASE64.decode(packed)
    } else {
        BASE64.decode(text)
    };
    decoded.map_err(|error| format!("not base64: {error}"))
}

/// Where the comma is.
fn head_end(text: &[u8]) -> Option<usize> {
    memchr::memchr(b',', &text[..text.len().min(LONGEST_HEAD)])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_data_uri_is_a_media_type_and_bytes() {
        let decoded = decode(b"data:image/PNG;charset=x;base64,AAEC").expect("it is one");
        assert_eq!(decoded.media_type, "image/png");
        assert_eq!(decoded.data, [0, 1, 2]);
        let bare = decode(b"data:;base64,AAE").expect("it is one");
        assert_eq!(
            (bare.media_type.as_str(), bare.data.as_slice()),
            ("", [0, 1].as_slice())
        );
    }

    #[test]
    fn base64_may_be_broken_into_lines() {
        for text in ["AA\r\nEC\r\n", "AA\nEC", " AAEC\t", "A A E C"] {
            assert_eq!(decode_base64(text.as_bytes()), Ok(vec![0, 1, 2]), "{text:?}");
            let uri = format!("data:image/png;base64,{text}");
            assert_eq!(
                decode(uri.as_bytes()).map(|uri| uri.data),
                Ok(vec![0, 1, 2]),
                "{uri:?}"
            );
        }
        assert!(decode_base64(b"AA*EC").is_err());
    }

    #[test]
    fn other_texts_are_no_data_uris() {
        for text in [
            "",
            "data:",
            "data:text/plain,hello",
            "iVBORw0",
            "data;base64",
            "Data:;base64,AA",
        ] {
            assert!(!is_one(text.as_bytes()), "{text}");
            assert!(decode(text.as_bytes()).is_err(), "{text}");
        }
        let error = decode(b"data:image/png;base64,*").expect_err("a star is no base64");
        assert!(error.starts_with("not base64"), "{error}");
    }
}
