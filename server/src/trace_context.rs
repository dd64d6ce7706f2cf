//! The context of a distributed trace, as W3C Trace Context defines it: parses and writes `traceparent`.

use std::fmt;

/// The id of a trace; never zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TraceId(u128);

/// The id of a span; never zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SpanId(u64);

/// A span in a trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TraceContext {
    /// The trace.
    pub trace: TraceId,
    /// The span.
    pub span: SpanId,
    /// Whether the span is recorded.
    pub is_sampled: bool,
}

impl TraceId {
    /// A new random id.
    pub fn random() -> Self {
        Self(fastrand::u128(1..))
    }

    /// The number that the id is.
    pub fn get(self) -> u128 {
        self.0
    }
}

impl SpanId {
    /// A new random id.
    pub fn random() -> Self {
        Self(fastrand::u64(1..))
    }

    /// The number that the id is.
    pub fn get(self) -> u64 {
        self.0
    }
}

impl fmt::Display for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl fmt::Display for SpanId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// Bit of the flags that marks a sampled span.
const SAMPLED: u8 = 1;

impl TraceContext {
    /// Parses the value of `traceparent`. `None` if it is invalid, in which case the request starts a new trace.
    pub fn parse(traceparent: &[u8]) -> Option<Self> {
        let text = traceparent.trim_ascii();
        let (known, rest) = text.split_at_checked(55)?;
        let separated = [2, 35, 52].iter().all(|at| known[*at] == b'-');
        let version = hexadecimal(&known[..2])?;
        // Later versions may append fields.
        let ends = match version {
            0 => rest.is_empty(),
            0xff => false,
            _ => rest.is_empty() || rest[0] == b'-',
        };
        if !separated || !ends {
            return None;
        }
        let (trace, span) = (hexadecimal(&known[3..35])?, hexadecimal(&known[36..52])?);
        let flags = hexadecimal(&known[53..])?;
        (trace != 0 && span != 0).then_some(Self {
            trace: TraceId(trace),
            span: SpanId(span as u64),
            is_sampled: flags as u8 & SAMPLED != 0,
        })
    }

    /// The value of `traceparent`, which is also that of `traceresponse`.
    pub fn traceparent(&self) -> String {
        format!(
            "00-{}-{}-{:02x}",
            self.trace,
            self.span,
            u8::from(self.is_sampled)
        )
    }
}

/// Parses hexadecimal digits in lower case.
fn hexadecimal(digits: &[u8]) -> Option<u128> {
    digits.iter().try_fold(0, |value: u128, digit| {
        let digit = match digit {
            b'0'..=b'9' => digit - b'0',
            b'a'..=b'f' => digit - b'a' + 10,
            _ => return None,
        };
        Some(value << 4 | u128::from(digit))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_valid_traceparent_is_written_as_it_was_read() {
        for valid in [
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-00000000000000000000000000000001-0000000000000001-00",
        ] {
            let context = TraceContext::parse(valid.as_bytes()).expect("it is valid");
            assert_eq!(context.traceparent(), valid);
        }
    }

    #[test]
    fn a_later_version_can_have_more_fields_and_flags() {
        let parse = |text: &str| TraceContext::parse(text.as_bytes()).map(|context| context.traceparent());
        let written = Some("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".to_owned());
        assert_eq!(
            parse("cc-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-ff-what"),
            written
        );
        assert_eq!(
            parse(" 01-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-03\t"),
            written
        );
    }

    #[test]
    fn an_invalid_traceparent_is_not_a_context() {
        for invalid in [
            "",
            "00",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-1",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-more",
            "cc-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01.more",
            "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01",
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
            "00_0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319g-b7ad6b7169203331-01",
        ] {
            assert_eq!(TraceContext::parse(invalid.as_bytes()), None, "{invalid}");
        }
    }
}
