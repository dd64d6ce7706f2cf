//! Valid files of many kinds are decoded as Pillow decodes them, and damaged ones are rejected. `make.py` writes the files.

use std::fs;
use std::path::Path;

use image::DynamicImage;
use pictures::{Decoding, Orientation, TruncatedImages};
use plugin_sdk::serde_json::{self, Value as Json};

/// The files, and the number of bytes after the end marker.
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
    fs::read(path).expect("the file is part of the repository")
}

fn decode(file: &[u8], decoding: &Decoding) -> Result<DynamicImage, String> {
    pictures::decode(file, decoding).map_err(|error| error.to_string())
}

/// The mean difference of the samples of two images.
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
fn valid_files_of_every_kind_are_decoded_as_pillow_decodes_them() {
    for (name, _) in FILES {
        let expected =
            image::load_from_memory(&read(&format!("{name}.png"))).expect("the reference is a PNG");
        let decoded = decode(&read(&format!("{name}.jpg")), &STRICT).expect(name);
        let difference = difference(&decoded, &expected);
        assert!(difference < 1.0, "{name} differs by {difference}");
    }
}

#[test]
fn a_file_cut_off_anywhere_is_rejected() {
    for (name, trailing) in FILES {
        let file = read(&format!("{name}.jpg"));
        // The second picture does not matter.
        let end = if name == "two_pictures" {
            file.len() / 2
        } else {
            file.len() - trailing
        };
        for length in (0..end - 20).step_by(7).chain(end - 20..end) {
            assert!(
                decode(&file[..length], &STRICT).is_err(),
                "{name} cut to {length} bytes"
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
            assert!(decode(&cut, &STRICT).is_err(), "{name} cut to {length} bytes");
        }
    }
}

#[test]
fn what_pillow_rejects_is_rejected() {
    let rejected: Json = serde_json::from_slice(&read("rejected.json")).expect("the reference is JSON");
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
    assert!(count > 50, "the reference has only {count} damaged files");
}

#[test]
fn most_overwritten_picture_data_is_rejected() {
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
    // Some damage gives another valid picture, which no decoder can tell.
    assert!(rejected * 100 > all * 85, "{rejected} of {all} were rejected");
}

#[test]
fn a_truncated_file_is_decoded_if_that_is_wanted_and_a_corrupt_one_is_not() {
    for name in ["baseline", "progressive", "restarts", "grey"] {
        let file = read(&format!("{name}.jpg"));
        let whole = decode(&file, &STRICT).expect("it is valid");
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
    let error = decode(&corrupt, &LENIENT).expect_err("it is corrupt");
    assert_eq!(
        error,
        format!("image cannot be read: the file is corrupt: expected restart marker 1 at offset {restart}")
    );
}

#[test]
fn errors_say_what_is_wrong_with_a_file() {
    let file = read("baseline.jpg");
    let end = file.len();
    for (file, problem) in [
        (
            &file[..end - 2],
            "the file is truncated: the end marker is missing",
        ),
        (
            &file[..end / 2 + 200],
            "the file is truncated: it ends within the picture data",
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
        assert_eq!(error, format!("image cannot be read: {problem}"));
    }
}

#[test]
fn the_orientation_of_a_photo_is_applied_if_that_is_wanted() {
    let upright = Decoding {
        orientation: Orientation::Apply,
        ..STRICT
    };
    let stored = decode(&read("turned.jpg"), &STRICT).expect("it is valid");
    let turned = decode(&read("turned.jpg"), &upright).expect("it is valid");
    assert_eq!((stored.width(), stored.height()), (50, 37));
    assert_eq!(turned, stored.rotate90());
    let plain = read("baseline.jpg");
    assert_eq!(decode(&plain, &upright), decode(&plain, &STRICT));
}

#[test]
fn damaged_png_files_are_rejected() {
    let file = read("baseline.png");
    decode(&file, &STRICT).expect("it is valid");
    decode(&[&file[..], b"more"].concat(), &STRICT).expect("what follows the end does not matter");
    for length in 0..file.len() {
        assert!(decode(&file[..length], &STRICT).is_err(), "cut to {length} bytes");
    }
    for offset in 0..file.len() {
        let mut changed = file.clone();
        changed[offset] ^= 0x10;
        assert!(decode(&changed, &STRICT).is_err(), "byte {offset} changed");
    }
    let error = decode(&file[..file.len() - 12], &STRICT).expect_err("it has no end");
    assert_eq!(
        error,
        "image cannot be read: the file is truncated: the end chunk is missing"
    );
}

#[test]
fn truncated_webp_files_are_rejected() {
    for name in ["lossless.webp", "lossy.webp"] {
        let file = read(name);
        decode(&file, &STRICT).expect("it is valid");
        decode(&[&file[..], b"more"].concat(), &STRICT).expect("what follows the end does not matter");
        for length in 0..file.len() {
            assert!(
                decode(&file[..length], &STRICT).is_err(),
                "{name} cut to {length} bytes"
            );
        }
    }
}
