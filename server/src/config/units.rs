//! Durations and sizes as text with units, such as `"5ms"`, `"2m"` and `"64MiB"`.

use std::time::Duration;

/// Units of size in lower case, with their number of bytes.
const SIZE_UNITS: [(&str, u64); 9] = [
    ("b", 1),
    ("kb", 1_000),
    ("mb", 1_000_000),
    ("gb", 1_000_000_000),
    ("tb", 1_000_000_000_000),
    ("kib", 1 << 10),
    ("mib", 1 << 20),
    ("gib", 1 << 30),
    ("tib", 1 << 40),
];

/// Reads a duration. The error is a hint.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    let text = text.trim();
    if text != "0" && !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(missing_duration_unit(text));
    }
    humantime::parse_duration(text).map_err(|_| {
        "write a number and a unit (`ms`, `s`, `m` or `h`), such as \"5ms\" or \"1m 30s\"".to_owned()
    })
}

/// The hint for a duration without a unit.
pub(super) fn missing_duration_unit(number: &str) -> String {
    format!("add a unit: \"{number}ms\", \"{number}s\" or \"{number}m\"")
}

/// Reads a size in bytes, such as `64MiB`. The error is a hint.
pub fn size(text: &str) -> Result<u64, String> {
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let unit = unit.trim().to_lowercase();
    let general = || "write an integer and a unit (`B`, `KiB`, `MiB` or `GiB`), such as \"64MiB\"".to_owned();
    let Ok(count) = number.parse::<u64>() else {
        return Err(general());
    };
    match unit.as_str() {
        "" if count == 0 => Ok(0),
        "" => Err(missing_size_unit(count)),
        "k" | "m" | "g" | "t" => {
            let unit = unit.to_uppercase();
            Err(format!(
                "write \"{count}{unit}iB\" for powers of 1024, or \"{count}{unit}B\" for powers of 1000"
            ))
        }
        _ => match SIZE_UNITS.iter().find(|(name, _)| *name == unit) {
            Some((_, bytes)) => count
                .checked_mul(*bytes)
                .ok_or_else(|| "use a smaller number".to_owned()),
            None => Err(general()),
        },
    }
}

/// The hint for a size without a unit.
pub(super) fn missing_size_unit(bytes: u64) -> String {
    format!("add a unit: \"{}\"", show_size(bytes))
}

/// The shortest exact notation of a size.
pub(super) fn show_size(bytes: u64) -> String {
    [
        (1 << 40, "TiB"),
        (1 << 30, "GiB"),
        (1 << 20, "MiB"),
        (1 << 10, "KiB"),
    ]
    .into_iter()
    .find(|(unit, _)| bytes >= *unit && bytes.is_multiple_of(*unit))
    .map_or_else(
        || format!("{bytes}B"),
        |(unit, name)| format!("{}{name}", bytes / unit),
    )
}

/// The shortest exact notation of a duration, in whole microseconds.
pub(super) fn show_duration(duration: Duration) -> String {
    let micros = duration.as_micros();
    if !micros.is_multiple_of(1000) {
        return format!("{micros}us");
    }
    let millis = duration.as_millis();
    if millis == 0 {
        return "0s".to_owned();
    }
    [(3_600_000, "h"), (60_000, "m"), (1_000, "s")]
        .into_iter()
        .find(|(unit, _)| millis.is_multiple_of(*unit))
        .map_or_else(
            || format!("{millis}ms"),
            |(unit, name)| format!("{}{name}", millis / unit),
        )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_units() {
        for (text, bytes) in [
            ("0B", 0),
            ("0", 0),
            ("512KiB", 524_288),
            ("64 MiB", 67_108_864),
            ("1GB", 1_000_000_000),
            ("2gib", 1 << 31),
        ] {
            assert_eq!(size(text), Ok(bytes), "{text}");
        }
        for text in [
            "",
            "MiB",
            "64",
            "64M",
            "1.5GiB",
            "-1B",
            "64 parsecs",
            "99999999999999TiB",
            "99999999999999999999B",
        ] {
            assert!(size(text).is_err(), "{text}");
        }
    }

    #[test]
    fn durations_have_units() {
        for (text, millis) in [
            ("0s", 0),
            ("0", 0),
            ("5ms", 5),
            ("30s", 30_000),
            ("2m", 120_000),
            ("1m 30s", 90_000),
        ] {
            assert_eq!(duration(text), Ok(Duration::from_millis(millis)), "{text}");
        }
        for text in ["", "5", "s", "-5s", "5 parsecs", "99999999999999999999s"] {
            assert!(duration(text).is_err(), "{text}");
        }
    }

    proptest::proptest! {
        #[test]
        fn the_notation_of_a_size_parses_to_the_same_size(bytes: u64) {
            proptest::prop_assert_eq!(size(&show_size(bytes)), Ok(bytes));
        }

        #[test]
        fn the_notation_of_a_duration_parses_to_the_same_duration(micros in 0..u64::MAX / 1_000_000) {
            let written = Duration::from_micros(micros);
            proptest::prop_assert_eq!(duration(&show_duration(written)), Ok(written));
        }

        #[test]
        fn no_text_makes_the_parsers_panic(text: String) {
            let _ = size(&text);
            let _ = duration(&text);
        }
    }
}
