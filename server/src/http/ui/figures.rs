//! Figures as people read them: short, and with the digits that matter.

/// Three significant digits, with `k` or `M` for large numbers.
pub(super) fn number(value: f64) -> String {
    match value {
        value if value >= 999_500.0 => format!("{}M", digits(value / 1e6)),
        value if value >= 9_995.0 => format!("{}k", digits(value / 1e3)),
        value if value >= 99.95 => format!("{value:.0}"),
        0.0 => "0".to_owned(),
        value if value < 0.005 => "< 0.01".to_owned(),
        value => digits(value),
    }
}

/// A number of things.
pub(super) fn count(value: usize) -> String {
    match value {
        0..=9_999 => value.to_string(),
        _ => number(value as f64),
    }
}

fn digits(value: f64) -> String {
    match value {
        value if value >= 99.95 => format!("{value:.0}"),
        value if value >= 9.995 => format!("{value:.1}"),
        value => format!("{value:.2}"),
    }
}

/// A duration in the unit that fits.
pub(super) fn time(seconds: f64) -> String {
    match seconds {
        seconds if seconds < 0.000_999_5 => format!("{:.0} µs", seconds * 1e6),
        seconds if seconds < 0.009_995 => format!("{:.2} ms", seconds * 1e3),
        seconds if seconds < 0.099_95 => format!("{:.1} ms", seconds * 1e3),
        seconds if seconds < 0.999_5 => format!("{:.0} ms", seconds * 1e3),
        seconds if seconds < 9.995 => format!("{seconds:.2} s"),
        seconds => format!("{seconds:.0} s"),
    }
}

/// A share in percent.
pub(super) fn percent(share: f64) -> String {
    format!("{:.0}%", share * 100.0)
}

/// How long ago something was.
pub(super) fn ago(seconds: u64) -> String {
    match seconds {
        0..=59 => "less than a minute ago".to_owned(),
        60..=7199 => format!("{} min ago", seconds / 60),
        7200..=172_799 => format!("{} h ago", seconds / 3600),
        _ => format!("{} days ago", seconds / 86_400),
    }
}

/// A value, or a dash if there is none.
pub(super) fn or_dash<T>(value: Option<T>, format: impl FnOnce(T) -> String) -> String {
    value.map_or_else(|| "–".to_owned(), format)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_have_three_significant_digits() {
        for (value, text) in [
            (0.0, "0"),
            (0.001, "< 0.01"),
            (0.25, "0.25"),
            (9.999, "10.0"),
            (12.34, "12.3"),
            (99.97, "100"),
            (1234.0, "1234"),
            (12_345.0, "12.3k"),
            (1_234_567.0, "1.23M"),
        ] {
            assert_eq!(number(value), text, "{value}");
        }
        assert_eq!([0, 2, 9_999, 65_536].map(count), ["0", "2", "9999", "65.5k"]);
        for (seconds, text) in [
            (0.000_42, "420 µs"),
            (0.001_234, "1.23 ms"),
            (0.012_34, "12.3 ms"),
            (0.25, "250 ms"),
            (1.5, "1.50 s"),
            (61.0, "61 s"),
        ] {
            assert_eq!(time(seconds), text, "{seconds}");
        }
        assert_eq!([0.0, 0.257, 1.0].map(percent), ["0%", "26%", "100%"]);
        assert_eq!(
            [5, 90, 7300, 200_000].map(ago),
            ["less than a minute ago", "1 min ago", "2 h ago", "2 days ago"]
        );
    }
}
