//! Compares the decoding of valid files with Pillow, and checks that damaged files are rejected. `make.py` generates the files.

use std::fs;
use std::path::Path;

use image::DynamicImage;
use pictures::{Decoding, Orientation, TruncatedImages};
use plugin_sdk::serde_json::{self, Value as Json};

/// The files, each with the number of bytes after its end marker.
const FILES: [(&str, usize); 22] = [
    ("baseline", 0),
    ("best", 0),
    ("coarse", 0),
    ("optimized", 0),
    ("progressive", 0),
    ("restarts", 0),
    ("restarts_progressive", 0),
    ("grey", 0),
    ("cmyk", 0),
    ("subsampled_1x2", 0),
    ("subsampled_4x1", 0),
    ("subsampled_3x1", 0),
    ("subsampled_luma", 0),
    ("rgb", 0),
    ("separate_scans", 0),
    ("two_scans", 0),
    ("fill_bytes", 0),
    ("last_restart", 0),
    ("trailing_bytes", 5),
    ("thumbnail", 0),
    ("turned", 0),
    ("two_pictures", 0),
];

const STRICT: Decoding = Decoding {
    max_pixels: 10_000,
    truncated_images: TruncatedImages::Reject,
    orientation: Orientation::Ignore,
};

const LENIENT: Decoding = Decoding {
    truncated_images: TruncatedImages::Accept,
    ..STRICT
};

fn read(name: &str) -> Vec<u8> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/images")
        .join(name);
    fs::read(path).expect("read a test file")
}

fn decode(file: &[u8], decoding: &Decoding) -> Result<DynamicImage, String> {
    pictures::decode(file, decoding).map_err(|error| error.to_string())
}

/// Returns the mean absolute difference of the samples of two images.
fn difference(one: &DynamicImage, other: &DynamicImage) -> f64 {
    let (one, other) = (one.to_rgb8(), other.to_rgb8());
    assert_eq!(one.dimensions(), other.dimensions());
    let differences = one
        .as_raw()
        .iter()
        .zip(other.as_raw())
        .map(|(one, other)| one.abs_diff(*other));
    differences.map(f64::from).sum::<f64>() / one.as_raw().len() as f64
}

#[test]
fn valid_files_are_decoded_like_pillow_does() {
    for (name, _) in FILES {
        let expected = image::load_from_memory(&read(&format!("{name}.png"))).expect("a valid PNG");
        let decoded = decode(&read(&format!("{name}.jpg")), &STRICT).expect(name);
        let difference = difference(&decoded, &expected);
        assert!(difference < 1.0, "{name} differs by {difference}");
    }
}

#[test]
fn a_file_truncated_at_any_offset_is_rejected() {
    for (name, trailing) in FILES {
        let file = read(&format!("{name}.jpg"));
        // The second image is ignored.
        let end = if name == "two_pictures" {
            file.len() / 2
        } else {
            file.len() - trailing
        };
        for length in (0..end - 20).step_by(7).chain(end - 20..end) {
            assert!(
                decode(&file[..length], &STRICT).is_err(),
                "{name} truncated to {length} bytes"
            );
        }
    }
}

#[test]
fn a_file_with_an_end_marker_in_the_middle_is_rejected() {
    for name in ["baseline", "progressive", "restarts", "separate_scans", "grey"] {
        let file = read(&format!("{name}.jpg"));
        let scan = file
            .windows(2)
            .position(|pair| pair == [0xFF, 0xDA])
            .expect("a scan");
        for length in scan + 20..file.len() - 2 {
            let cut = [&file[..length], &[0xFF, 0xD9]].concat();
            assert!(
                decode(&cut, &STRICT).is_err(),
                "{name} truncated to {length} bytes"
            );
        }
    }
}

#[test]
fn files_that_pillow_rejects_are_rejected() {
    let rejected: Json = serde_json::from_slice(&read("rejected.json")).expect("valid JSON");
    let mut count = 0;
    for (name, _) in FILES {
        let file = read(&format!("{name}.jpg"));
        for change in rejected[name].as_array().expect("a list") {
            let offset = change["offset"].as_u64().expect("an offset") as usize;
            let bytes = change["bytes"].as_array().expect("a list").iter();
            let bytes: Vec<_> = bytes.map(|byte| byte.as_u64().expect("a byte") as u8).collect();
            let mut changed = file.clone();
            changed[offset..offset + bytes.len()].copy_from_slice(&bytes);
            assert!(
                decode(&changed, &STRICT).is_err(),
                "{name}: {bytes:?} at {offset}"
            );
            count += 1;
        }
    }
    assert!(count > 50, "expected more than 50 damaged files, got {count}");
}

#[test]
fn most_overwritten_image_data_is_rejected() {
    let (mut rejected, mut all) = (0, 0);
    for name in ["baseline", "best", "progressive", "restarts", "two_scans"] {
        let file = read(&format!("{name}.jpg"));
        let scan = file
            .windows(2)
            .position(|pair| pair == [0xFF, 0xDA])
            .expect("a scan");
        for offset in (scan + 14..file.len() - 34).step_by(7) {
            let mut changed = file.clone();
            for (index, byte) in changed[offset..offset + 32].iter_mut().enumerate() {
                *byte ^= (index * 37 + offset) as u8 | 1;
            }
            all += 1;
            rejected += usize::from(decode(&changed, &STRICT).is_err());
        }
    }
    // Some damage results in another valid image, which no decoder can detect.
    assert!(
        rejected * 100 > all * 85,
        "rejected only {rejected} of {all} files"
    );
}

#[test]
fn truncated_files_are_decoded_if_enabled_but_corrupt_files_are_not() {
    for name in ["baseline", "progressive", "restarts", "grey"] {
        let file = read(&format!("{name}.jpg"));
        let whole = decode(&file, &STRICT).expect("a valid file");
        let scan = file
            .windows(2)
            .position(|pair| pair == [0xFF, 0xDA])
            .expect("a scan");
        for length in (scan + 50..file.len() - 2).step_by(5) {
            let decoded = decode(&file[..length], &LENIENT).expect(name);
            assert_eq!(
                (decoded.width(), decoded.height()),
                (whole.width(), whole.height()),
                "{name}"
            );
        }
        let without_end = decode(&file[..file.len() - 2], &LENIENT).expect(name);
        assert!(difference(&without_end, &whole) < 0.1, "{name}");
    }
    let mut corrupt = read("restarts.jpg");
    let restart = corrupt
        .windows(2)
        .position(|pair| pair == [0xFF, 0xD1])
        .expect("a restart marker");
    corrupt[restart + 1] = 0xD3;
    let error = decode(&corrupt, &LENIENT).expect_err("a corrupt file");
    assert_eq!(
        error,
        format!(
            "cannot decode the image: the file is corrupt: expected restart marker 1 at offset {restart}"
        )
    );
}

#[test]
fn errors_describe_the_damage() {
    let file = read("baseline.jpg");
    let end = file.len();
    for (file, problem) in [
        (
            &file[..end - 2],
            "the file is truncated: the end marker is missing",
        ),
        (
            &file[..end / 2 + 200],
            "the file is truncated: it ends within the image data",
        ),
        (
            &file[..30],
            "the file is truncated: it ends within the segment at offset 22",
        ),
        (
            b"\xFF\xD8\xFFgarbage",
            "the file is corrupt: unexpected marker 0x67 before offset 4",
        ),
    ] {
        let error = decode(file, &STRICT).expect_err(problem);
        assert_eq!(error, format!("cannot decode the image: {problem}"));
    }
}

#[test]
fn the_exif_orientation_is_applied_if_enabled() {
    let upright = Decoding {
        orientation: Orientation::Apply,
        ..STRICT
    };
    let stored = decode(&read("turned.jpg"), &STRICT).expect("a valid file");
    let turned = decode(&read("turned.jpg"), &upright).expect("a valid file");
    assert_eq!((stored.width(), stored.height()), (50, 37));
    assert_eq!(turned, stored.rotate90());
    let plain = read("baseline.jpg");
    assert_eq!(decode(&plain, &upright), decode(&plain, &STRICT));
}

#[test]
fn damaged_png_files_are_rejected() {
    let file = read("baseline.png");
    decode(&file, &STRICT).expect("a valid file");
    decode(&[&file[..], b"more"].concat(), &STRICT).expect("trailing bytes are ignored");
    for length in 0..file.len() {
        assert!(
            decode(&file[..length], &STRICT).is_err(),
            "truncated to {length} bytes"
        );
    }
    for offset in 0..file.len() {
        let mut changed = file.clone();
        changed[offset] ^= 0x10;
        assert!(decode(&changed, &STRICT).is_err(), "byte {offset} changed");
    }
    let error = decode(&file[..file.len() - 12], &STRICT).expect_err("no end chunk");
    assert_eq!(
        error,
        "cannot decode the image: the file is truncated: the end chunk is missing"
    );
}

/// Offset and length of the only data chunk of a PNG, without its name and checksum.
fn image_data(file: &[u8]) -> (usize, usize) {
    let name = file
        .windows(4)
        .position(|name| name == b"IDAT")
        .expect("a data chunk");
    let length = file[name - 4..].first_chunk().expect("its length");
    (name + 4, u32::from_be_bytes(*length) as usize)
}

#[test]
fn damaged_image_data_of_a_png_is_rejected_even_if_the_checksum_of_its_chunk_matches() {
    let file = read("baseline.png");
    let (start, length) = image_data(&file);
    let end = start + length;
    for offset in start..end {
        let mut changed = file.clone();
        changed[offset] ^= 0x04;
        let checksum = crc32fast::hash(&changed[start - 4..end]).to_be_bytes();
        changed[end..end + 4].copy_from_slice(&checksum);
        let error = decode(&changed, &STRICT).expect_err("another checksum of the image data");
        // The stream ends with its own checksum.
        let expected = "cannot decode the image: the file is corrupt: the image data is invalid";
        assert!(
            offset < end - 4 || error.starts_with(expected),
            "{offset}: {error}"
        );
    }
}

#[test]
fn a_png_whose_image_data_lacks_its_end_is_rejected() {
    let file = read("baseline.png");
    let (start, length) = image_data(&file);
    for missing in [1, 4, 100] {
        let data = [&b"IDAT"[..], &file[start..start + length - missing]].concat();
        let (checksum, length) = (crc32fast::hash(&data).to_be_bytes(), (length - missing) as u32);
        let after = &file[start + length as usize + missing + 4..];
        let cut = [&file[..start - 8], &length.to_be_bytes(), &data, &checksum, after].concat();
        let error = decode(&cut, &STRICT).expect_err("incomplete image data");
        let expected = "cannot decode the image: the file is truncated: the image data is incomplete";
        assert_eq!(error, expected, "without {missing} bytes");
    }
}

#[test]
fn a_png_whose_palette_has_an_incomplete_entry_is_rejected() {
    let file = read("baseline.png");
    // The palette follows the header, which ends at this offset.
    let (header, rest) = file.split_at(33);
    for (entries, is_valid) in [(6_u8, true), (7, false)] {
        let palette = [&b"PLTE"[..], &vec![0; entries.into()]].concat();
        let checksum = crc32fast::hash(&palette).to_be_bytes();
        let changed = [header, &[0, 0, 0, entries], &palette, &checksum, rest].concat();
        let decoded = decode(&changed, &STRICT).map(drop);
        let error =
            "cannot decode the image: the file is corrupt: the palette has 7 bytes, expected a multiple of 3";
        let expected = if is_valid { Ok(()) } else { Err(error.to_owned()) };
        assert_eq!(decoded, expected, "{entries} bytes");
    }
}

#[test]
fn truncated_webp_files_are_rejected() {
    for name in ["lossless.webp", "lossy.webp"] {
        let file = read(name);
        decode(&file, &STRICT).expect("a valid file");
        decode(&[&file[..], b"more"].concat(), &STRICT).expect("trailing bytes are ignored");
        for length in 0..file.len() {
            assert!(
                decode(&file[..length], &STRICT).is_err(),
                "{name} truncated to {length} bytes"
            );
        }
    }
}
