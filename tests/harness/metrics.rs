//! Parsing of `/metrics`.

use std::collections::{BTreeMap, BTreeSet};

/// Labels of a sample.
type Labels = BTreeMap<String, String>;

/// All metrics at one moment.
#[derive(Clone, Debug)]
pub(crate) struct Metrics {
    samples: Vec<(String, Labels, f64)>,
    types: BTreeMap<String, String>,
}

impl Metrics {
    /// Parses the Prometheus text format.
    pub(crate) fn parse(text: &str) -> Self {
        let mut metrics = Self {
            samples: Vec::new(),
            types: BTreeMap::new(),
        };
        for line in text.lines() {
            if let Some(of_type) = line.strip_prefix("# TYPE ") {
                let (family, kind) = of_type.split_once(' ').expect("a family and its type");
                metrics.types.insert(family.to_owned(), kind.to_owned());
            } else if !line.starts_with('#') && !line.trim().is_empty() {
                metrics.samples.push(sample(line));
            }
        }
        metrics
    }

    /// Returns the sum of the samples with this name whose labels include `labels`. Panics if there is no metric with this name.
    pub(crate) fn sum(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        assert!(
            self.samples.iter().any(|(other, ..)| other == name),
            "no metric named {name}"
        );
        self.samples
            .iter()
            .filter(|(other, of_sample, _)| {
                other == name
                    && labels
                        .iter()
                        .all(|(label, value)| of_sample.get(*label).is_some_and(|got| got == value))
            })
            .map(|(.., value)| value)
            .sum()
    }

    /// Like [`sum`](Self::sum), for integer values.
    pub(crate) fn count(&self, name: &str, labels: &[(&str, &str)]) -> u64 {
        self.sum(name, labels) as u64
    }

    /// Returns the number of observations in the bucket of a histogram with this upper bound, excluding those in lower buckets.
    pub(crate) fn in_bucket(&self, histogram: &str, labels: &[(&str, &str)], bound: f64) -> u64 {
        let name = format!("{histogram}_bucket");
        let mut cumulative: BTreeMap<u64, f64> = BTreeMap::new();
        for (_, of_sample, value) in self.samples.iter().filter(|(other, ..)| *other == name) {
            let fits = labels
                .iter()
                .all(|(label, value)| of_sample.get(*label).is_some_and(|got| got == value));
            let end: f64 = of_sample["le"].parse().expect("a bound is a number");
            if fits && end.is_finite() {
                // The bounds are positive, so their bits have the same order.
                *cumulative.entry(end.to_bits()).or_default() += value;
            }
        }
        let up_to = cumulative.get(&bound.to_bits()).copied();
        let up_to = up_to.unwrap_or_else(|| panic!("{histogram} has no bucket that ends at {bound}"));
        let below = cumulative
            .range(..bound.to_bits())
            .next_back()
            .map_or(0.0, |(_, value)| *value);
        (up_to - below) as u64
    }

    /// Returns the families with their types and label names, except those about the process.
    pub(crate) fn families(&self) -> BTreeMap<String, (String, BTreeSet<String>)> {
        self.types
            .iter()
            .map(|(family, kind)| {
                let labels = self
                    .samples
                    .iter()
                    .filter(|(name, ..)| {
                        name.strip_prefix(family.as_str())
                            .is_some_and(|rest| matches!(rest, "" | "_bucket" | "_sum" | "_count"))
                    })
                    .flat_map(|(_, labels, _)| labels.keys().cloned())
                    .filter(|label| label != "le")
                    .collect();
                (family.clone(), (kind.clone(), labels))
            })
            .collect()
    }

    /// Returns all samples as name, labels and value.
    pub(crate) fn samples(&self) -> &[(String, Labels, f64)] {
        &self.samples
    }
}

fn sample(line: &str) -> (String, Labels, f64) {
    let (head, value) = line.rsplit_once(' ').expect("a sample ends in its value");
    let value = value
        .parse()
        .unwrap_or_else(|error| panic!("{value:?} is no number: {error}"));
    let Some((name, labels)) = head.split_once('{') else {
        return (head.to_owned(), Labels::new(), value);
    };
    let labels = labels.trim_end_matches('}');
    let labels = labels.split("\",").filter(|pair| !pair.is_empty()).map(|pair| {
        let (label, value) = pair.split_once("=\"").expect("a label has a quoted value");
        (label.trim().to_owned(), value.trim_end_matches('"').to_owned())
    });
    (name.to_owned(), labels.collect(), value)
}
