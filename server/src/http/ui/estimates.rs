//! What the policy `adaptive` has learned, in sentences.

use super::figures::{number, time};
use crate::batcher::policy::Estimates;

/// A sentence for each estimate.
pub(super) fn sentences(estimates: &Estimates) -> Vec<String> {
    if estimates.batches == 0 {
        return vec!["The policy has not learned from any batch yet.".to_owned()];
    }
    let mut sentences = Vec::new();
    let unit = if estimates.unit_is_weight {
        "unit of weight"
    } else {
        "item"
    };
    if let (Some(batch), Some(each)) = (estimates.cost_per_batch, estimates.cost_per_unit) {
        sentences.push(format!(
            "A batch takes {}, and {} more for each {unit}, by the last of {} batches.",
            time(batch.as_secs_f64()),
            time(each.as_secs_f64()),
            number(estimates.batches as f64),
        ));
    }
    sentences.push(match estimates.efficient_size {
        Some(size) => {
            format!("Batches of more than {size} items take longer per item, so it does not wait for them.")
        }
        None => "Larger batches take less time per item.".to_owned(),
    });
    sentences.push(match estimates.closed_loop_clients {
        Some(clients) => format!(
            "{clients} clients send their next request after a reply, so a fuller batch is worth a short wait."
        ),
        None => "Requests arrive independently of replies, so it does not wait for clients to return.".to_owned(),
    });
    if let (Some(half), Some(most)) = (estimates.half_return_within, estimates.most_return_within) {
        sentences.push(format!(
            "After a reply, {} requests arrive on average before the next batch ends: half of them within {}, nine of ten within {}.",
            number(estimates.returns_per_reply),
            time(half.as_secs_f64()),
            time(most.as_secs_f64()),
        ));
    }
    if estimates.followers_in_burst >= 0.5 {
        sentences.push(format!(
            "The first request of a burst is followed by {} more.",
            number(estimates.followers_in_burst)
        ));
    }
    if let Some(wait) = estimates.last_wait {
        let expected = estimates
            .last_wait_expected
            .map_or_else(String::new, |items| format!(" for {} more items", number(items)));
        let reason = estimates
            .last_wait_for
            .map_or_else(String::new, |reason| format!(" (`{reason}`)"));
        sentences.push(format!(
            "The latest wait was planned to take {}{expected}{reason}.",
            time(wait.as_secs_f64())
        ));
    }
    sentences
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn each_estimate_has_a_sentence() {
        let mut estimates = Estimates {
            batches: 0,
            cost_per_batch: Some(Duration::from_millis(4)),
            cost_per_unit: Some(Duration::from_micros(250)),
            unit_is_weight: false,
            efficient_size: Some(16),
            returns_per_reply: 0.9,
            half_return_within: Some(Duration::from_micros(300)),
            most_return_within: Some(Duration::from_millis(2)),
            closed_loop_clients: Some(8),
            followers_in_burst: 3.0,
            last_wait: Some(Duration::from_millis(1)),
            last_wait_for: Some("returns"),
            last_wait_expected: Some(7.0),
        };
        assert_eq!(sentences(&estimates).len(), 1);
        estimates.batches = 120;
        assert_eq!(
            sentences(&estimates),
            [
                "A batch takes 4.00 ms, and 250 µs more for each item, by the last of 120 batches.",
                "Batches of more than 16 items take longer per item, so it does not wait for them.",
                "8 clients send their next request after a reply, so a fuller batch is worth a short wait.",
                "After a reply, 0.90 requests arrive on average before the next batch ends: half of them within 300 µs, nine of \
                 ten within 2.00 ms.",
                "The first request of a burst is followed by 3.00 more.",
                "The latest wait was planned to take 1.00 ms for 7.00 more items (`returns`).",
            ]
        );
    }
}
