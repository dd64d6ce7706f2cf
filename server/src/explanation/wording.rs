//! Numbers as people read them.

use super::Window;

/// A share in percent. Only what is nothing or everything is 0% or 100%.
pub(super) fn percent(share: f64) -> String {
    let percent = (share * 100.0).clamp(0.0, 100.0);
    match percent {
        percent if percent > 0.0 && percent < 1.0 => "less than 1%".to_owned(),
        percent if percent > 99.0 && percent < 100.0 => "99%".to_owned(),
        percent => format!("{percent:.0}%"),
    }
}

/// A mean of a count: with a decimal if it is small.
pub(super) fn number(mean: f64) -> String {
    if mean < 9.95 {
        format!("{mean:.1}")
    } else {
        format!("{mean:.0}")
    }
}

/// A duration in its unit, with two or three digits.
pub(super) fn time(seconds: f64) -> String {
    let (value, unit) = match seconds {
        seconds if seconds < 0.000_999_5 => (seconds * 1e6, "µs"),
        seconds if seconds < 0.999_5 => (seconds * 1e3, "ms"),
        seconds => (seconds, "s"),
    };
    if value < 9.95 {
        format!("{value:.1} {unit}")
    } else {
        format!("{value:.0} {unit}")
    }
}

/// A number of bytes in its binary unit.
pub fn bytes(bytes: u64) -> String {
    let mut value = bytes as f64;
    let mut units = ["bytes", "KiB", "MiB", "GiB", "TiB"].into_iter();
    let mut unit = units.next().unwrap_or_default();
    for next in units {
        if value < 1024.0 {
            break;
        }
        (value, unit) = (value / 1024.0, next);
    }
    match unit {
        "bytes" => format!("{value:.0} {unit}"),
        _ => format!("{value:.1} {unit}"),
    }
}

/// The length of a window, as in "in the last minute".
pub(super) fn span(window: &Window) -> String {
    match window.seconds.round() {
        seconds if (59.0..=61.0).contains(&seconds) => "minute".to_owned(),
        1.0 => "second".to_owned(),
        seconds => format!("{seconds:.0} seconds"),
    }
}

/// A noun with its number, in singular or plural.
pub(super) fn counted(count: usize, noun: &str) -> String {
    match count {
        1 => format!("1 {noun}"),
        _ => format!("{count} {noun}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_the_digits_that_matter() {
        for (share, text) in [
            (0.0, "0%"),
            (0.004, "less than 1%"),
            (0.5, "50%"),
            (0.998, "99%"),
            (1.0, "100%"),
            (1.2, "100%"),
        ] {
            assert_eq!(percent(share), text, "{share}");
        }
        assert_eq!([0.0, 1.04, 9.96, 123.4].map(number), ["0.0", "1.0", "10", "123"]);
        for (seconds, text) in [
            (0.000_085, "85 µs"),
            (0.001, "1.0 ms"),
            (0.020_4, "20 ms"),
            (0.999_7, "1.0 s"),
            (12.0, "12 s"),
        ] {
            assert_eq!(time(seconds), text);
        }
        assert_eq!([12, 1536, 5 << 30].map(bytes), ["12 bytes", "1.5 KiB", "5.0 GiB"]);
        assert_eq!(
            (counted(1, "worker"), counted(2, "worker")),
            ("1 worker".to_owned(), "2 workers".to_owned())
        );
    }

    #[test]
    fn a_window_is_as_long_as_it_is() {
        let of = |seconds| {
            span(&Window {
                seconds,
                ..Window::default()
            })
        };
        assert_eq!(
            ["minute", "second", "7 seconds"],
            [60.2, 1.01, 7.3].map(of).each_ref().map(String::as_str)
        );
    }
}
