//! Decodes base64, and data URIs such as `data:image/png;base64,iVBORw0…`.

use base64::Engine as _;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};

/// Padding is optional, since not all clients send it.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// Maximum length of a data URI up to its comma. No media type is longer.
const MAX_HEAD_LENGTH: usize = 256;

/// A decoded data URI.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DataUri {
    /// Media type, such as `image/png`; empty if the URI has none.
    pub media_type: String,
    /// Decoded data.
    pub data: Vec<u8>,
}

/// Whether `text` starts like a data URI with base64 data.
pub fn is_data_uri(text: &[u8]) -> bool {
    text.starts_with(b"data:") && head_end(text).is_some_and(|end| text[..end].ends_with(b";base64"))
}

/// Decodes a data URI.
///
/// # Errors
/// If the text is not a data URI with valid base64 data.
pub fn decode(text: &[u8]) -> Result<DataUri, String> {
    let end = head_end(text).filter(|_| is_data_uri(text));
    let Some(end) = end else {
        return Err("expected a data URI such as `data:image/png;base64,…`".to_owned());
    };
    let head = &text["data:".len()..end - ";base64".len()];
    // Parameters of the media type, such as a charset, are ignored.
    let media_type = head.split(|&byte| byte == b';').next().unwrap_or_default();
    Ok(DataUri {
        media_type: String::from_utf8_lossy(media_type).trim().to_ascii_lowercase(),
        data: decode_base64(&text[end + 1..])?,
    })
}

/// Decodes base64 with or without padding. Whitespace is ignored, since many encoders insert line breaks.
///
/// # Errors
/// If the text is not base64.
pub fn decode_base64(text: &[u8]) -> Result<Vec<u8>, String> {
    let is_space = |byte: &u8| matches!(byte, b'\r' | b'\n' | b' ' | b'\t');
    let decoded = if text.iter().any(is_space) {
        let packed: Vec<u8> = text.iter().copied().filter(|byte| !is_space(byte)).collect();
        BASE64.decode(packed)
    } else {
        BASE64.decode(text)
    };
    decoded.map_err(|error| format!("invalid base64: {error}"))
}

/// Returns the offset of the comma.
fn head_end(text: &[u8]) -> Option<usize> {
    memchr::memchr(b',', &text[..text.len().min(MAX_HEAD_LENGTH)])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_data_uri_has_a_media_type_and_data() {
        let decoded = decode(b"data:image/PNG;charset=x;base64,AAEC").expect("the URI is valid");
        assert_eq!(decoded.media_type, "image/png");
        assert_eq!(decoded.data, [0, 1, 2]);
        let bare = decode(b"data:;base64,AAE").expect("the URI is valid");
        assert_eq!(
            (bare.media_type.as_str(), bare.data.as_slice()),
            ("", [0, 1].as_slice())
        );
    }

    #[test]
    fn base64_may_contain_whitespace() {
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
    fn other_texts_are_not_data_uris() {
        for text in [
            "",
            "data:",
            "data:text/plain,hello",
            "iVBORw0",
            "data;base64",
            "Data:;base64,AA",
        ] {
            assert!(!is_data_uri(text.as_bytes()), "{text}");
            assert!(decode(text.as_bytes()).is_err(), "{text}");
        }
        let error = decode(b"data:image/png;base64,*").expect_err("an asterisk is not base64");
        assert!(error.starts_with("invalid base64"), "{error}");
    }
}
