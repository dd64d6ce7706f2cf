//! The server's own times of a step: the difference between two scrapes of `/metrics`.

use std::collections::BTreeMap;

use super::report::ServerSide;

/// The metrics of one task at one moment.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Counters {
    queue: Sum,
    prepare: Sum,
    inference: Sum,
    encode: Sum,
    batch_size: Sum,
    /// Items by outcome.
    items: BTreeMap<String, f64>,
}

/// Sum and count of a histogram.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Sum {
    total: f64,
    count: f64,
}

impl Sum {
    /// The mean of the observations since `before`. `None` if there were none, or if the server was restarted.
    fn mean_since(self, before: Self) -> Option<f64> {
        let count = self.count - before.count;
        (count > 0.0).then(|| (self.total - before.total) / count)
    }
}

impl Counters {
    /// Reads the series of a task from Prometheus' text format. `None` if there are none.
    pub(super) fn read(exposition: &str, model: &str, task: &str) -> Option<Self> {
        let mut counters = Self::default();
        let mut found = false;
        for (name, labels, value) in exposition.lines().filter_map(sample) {
            let is = |label: &str, wanted: &str| labels.get(label).is_some_and(|got| got == wanted);
            if !is("model", model) || !is("task", task) {
                continue;
            }
            if name == "inference_items_total" {
                found = true;
                let outcome = labels.get("outcome").cloned().unwrap_or_default();
                *counters.items.entry(outcome).or_default() += value;
            } else if let Some(number) = counters.number(name) {
                found = true;
                *number = value;
            }
        }
        found.then_some(counters)
    }

    fn number(&mut self, name: &str) -> Option<&mut f64> {
        let (family, is_count) = match name.strip_suffix("_count") {
            Some(family) => (family, true),
            None => (name.strip_suffix("_sum")?, false),
        };
        let sum = match family {
            "inference_queue_seconds" => &mut self.queue,
            "inference_prepare_seconds" => &mut self.prepare,
            "inference_seconds" => &mut self.inference,
            "inference_encode_seconds" => &mut self.encode,
            "inference_batch_size" => &mut self.batch_size,
            _ => return None,
        };
        Some(if is_count { &mut sum.count } else { &mut sum.total })
    }

    /// The means and counts since `before`.
    pub(super) fn since(&self, before: &Self) -> ServerSide {
        let items = |counters: &Self, success: bool| -> f64 {
            let of_kind = counters
                .items
                .iter()
                .filter(|(outcome, _)| (*outcome == "success") == success);
            of_kind.map(|(_, count)| count).sum()
        };
        let difference = |success| (items(self, success) - items(before, success)).max(0.0) as u64;
        ServerSide {
            queue_seconds: self.queue.mean_since(before.queue),
            prepare_seconds: self.prepare.mean_since(before.prepare),
            inference_seconds: self.inference.mean_since(before.inference),
            encode_seconds: self.encode.mean_since(before.encode),
            batch_size: self.batch_size.mean_since(before.batch_size),
            batches: (self.batch_size.count - before.batch_size.count).max(0.0) as u64,
            items_succeeded: difference(true),
            items_failed: difference(false),
        }
    }
}

/// Parses a line such as `name{label="value"} 1.5`. `None` for comments and other lines.
fn sample(line: &str) -> Option<(&str, BTreeMap<&str, String>, f64)> {
    let (name, rest) = line.split_once('{')?;
    let (labels, rest) = labels(rest)?;
    let value = rest.split_whitespace().next()?.parse().ok()?;
    (!name.starts_with('#')).then_some((name, labels, value))
}

/// Parses the labels up to the closing brace, and returns the rest of the line. Values can contain any character, some of
/// them escaped.
fn labels(mut rest: &str) -> Option<(BTreeMap<&str, String>, &str)> {
    let mut labels = BTreeMap::new();
    loop {
        rest = rest.trim_start_matches([',', ' ']);
        if let Some(after) = rest.strip_prefix('}') {
            return Some((labels, after));
        }
        let (name, quoted) = rest.split_once("=\"")?;
        let mut value = String::new();
        let mut characters = quoted.char_indices();
        let end = loop {
            match characters.next()? {
                (at, '"') => break at,
                (_, '\\') => value.push(match characters.next()?.1 {
                    'n' => '\n',
                    other => other,
                }),
                (_, other) => value.push(other),
            }
        };
        labels.insert(name, value);
        rest = &quoted[end + 1..];
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BEFORE: &str = r#"
# HELP inference_queue_seconds Time an item waited.
# TYPE inference_queue_seconds histogram
inference_queue_seconds_bucket{model="m",task="t",le="0.001"} 3
inference_queue_seconds_bucket{model="m",task="t",le="+Inf"} 4
inference_queue_seconds_sum{model="m",task="t"} 0.5
inference_queue_seconds_count{model="m",task="t"} 4
inference_queue_seconds_sum{model="m",task="other"} 99
inference_batch_size_sum{model="m",task="t"} 4
inference_batch_size_count{model="m",task="t"} 2
inference_items_total{model="m",outcome="success",task="t"} 4
inference_items_total{model="m",outcome="invalid",task="t"} 0
inference_reloads_total{result="success"} 1
process_open_fds 12
"#;

    const AFTER: &str = r#"
inference_queue_seconds_sum{model="m",task="t"} 1.5
inference_queue_seconds_count{model="m",task="t"} 14
inference_queue_seconds_count{model="m",task="other"} 99
inference_batch_size_sum{model="m",task="t"} 24
inference_batch_size_count{model="m",task="t"} 6
inference_items_total{model="m",outcome="success",task="t"} 22
inference_items_total{model="m",outcome="invalid",task="t"} 1
inference_items_total{model="m",outcome="fault",task="t"} 1
"#;

    fn read(text: &str) -> Counters {
        Counters::read(text, "m", "t").expect("the task is there")
    }

    #[test]
    fn means_cover_the_time_between_two_scrapes() {
        let side = read(AFTER).since(&read(BEFORE));
        assert_eq!(side.queue_seconds, Some(0.1));
        assert_eq!((side.batch_size, side.batches), (Some(5.0), 4));
        assert_eq!((side.items_succeeded, side.items_failed), (18, 2));
        assert_eq!(side.encode_seconds, None);
    }

    #[test]
    fn there_is_no_mean_after_a_restart() {
        let side = read(BEFORE).since(&read(AFTER));
        assert_eq!(
            (side.queue_seconds, side.batch_size, side.items_failed),
            (None, None, 0)
        );
    }

    #[test]
    fn text_without_the_task_has_no_counters() {
        assert_eq!(Counters::read(BEFORE, "m", "u"), None);
        assert_eq!(Counters::read("<html>{</html>", "m", "t"), None);
    }

    #[test]
    fn values_of_labels_can_contain_any_character() {
        let line = r#"f{a="x,y}",b="say \"hi\"\\",c=""} 2"#;
        let (name, labels, value) = sample(line).expect("it is a sample");
        assert_eq!((name, value), ("f", 2.0));
        assert_eq!(
            (labels["a"].as_str(), labels["b"].as_str(), labels["c"].as_str()),
            ("x,y}", "say \"hi\"\\", "")
        );
    }
}
