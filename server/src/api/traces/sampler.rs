//! Decides whether a request is traced, by the rules of OpenTelemetry's samplers.

use crate::config::SamplingSettings;
use crate::trace_context::{TraceContext, TraceId};

/// Number of values of the part of a trace id that decides.
const RANGE: f64 = (1_u64 << 63) as f64;

/// A sampler.
pub(super) struct Sampler {
    follows_parent: bool,
    /// Traces below this are sampled.
    limit: u64,
}

impl Sampler {
    pub(super) fn new(settings: SamplingSettings) -> Self {
        Self {
            follows_parent: settings.follows_parent,
            limit: (settings.ratio * RANGE) as u64,
        }
    }

    /// Whether a request is traced that is part of this trace. All servers with the same ratio decide alike.
    pub(super) fn samples(&self, trace: TraceId, parent: Option<&TraceContext>) -> bool {
        match parent.filter(|_| self.follows_parent) {
            Some(parent) => parent.is_sampled,
            None => (trace.get() as u64) >> 1 < self.limit,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sampler(follows_parent: bool, ratio: f64) -> Sampler {
        Sampler::new(SamplingSettings {
            follows_parent,
            ratio,
        })
    }

    #[test]
    fn the_decision_of_the_client_applies_if_it_is_followed() {
        for (flags, is_sampled) in [("00", false), ("01", true)] {
            let text = format!("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-{flags}");
            let parent = TraceContext::parse(text.as_bytes()).expect("it is valid");
            for ratio in [0.0, 1.0] {
                let samples = |follows| sampler(follows, ratio).samples(parent.trace, Some(&parent));
                assert_eq!(samples(true), is_sampled);
                assert_eq!(samples(false), ratio > 0.0);
            }
        }
    }

    #[test]
    fn the_ratio_is_the_share_of_random_traces() {
        let count = |ratio| {
            let sampler = sampler(true, ratio);
            let traces = (0..20_000).map(|_| TraceId::random());
            traces.filter(|trace| sampler.samples(*trace, None)).count()
        };
        assert_eq!((count(0.0), count(1.0)), (0, 20_000));
        // The standard deviation is 42.
        assert!((1500..2500).contains(&count(0.1)));
    }
}
