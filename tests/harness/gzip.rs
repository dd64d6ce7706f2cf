//! Compression of requests.

use std::io::Write as _;

use flate2::Compression;
use flate2::write::GzEncoder;

/// Compresses `data` as well as possible.
pub(crate) fn gzip(data: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(data).expect("a vector takes everything");
    encoder.finish().expect("a vector takes everything")
}
