//! Templates for labels, and a cache of their vectors, since consecutive requests often have the same labels.

use std::collections::{BTreeMap, HashMap};
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use lru::LruCache;
use transformer::Tokens;

/// Placeholder of the label in a template.
const PLACEHOLDER: &str = "{}";

/// A template for the text of a label.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Template {
    before: String,
    after: String,
}

impl Template {
    /// Parses a template, in which the label replaces `{}`.
    pub(crate) fn new(template: &str) -> Result<Self, String> {
        match template.split(PLACEHOLDER).collect::<Vec<_>>()[..] {
            [before, after] => Ok(Self {
                before: before.to_owned(),
                after: after.to_owned(),
            }),
            ref parts => Err(format!(
                "`{template}` has `{PLACEHOLDER}` {} times, expected once, in place of the label",
                parts.len() - 1
            )),
        }
    }

    /// Returns the text of a label.
    pub(crate) fn text(&self, label: &str) -> String {
        format!("{}{label}{}", self.before, self.after)
    }
}

/// Cache of the vectors of labels, shared by all workers.
pub(crate) struct Labels {
    cache: Mutex<LruCache<Vec<u32>, Arc<[f32]>>>,
}

impl Labels {
    /// Creates a cache of at most `capacity` labels.
    pub(crate) fn new(capacity: NonZeroUsize) -> Self {
        Self {
            cache: Mutex::new(LruCache::new(capacity)),
        }
    }

    /// Whether the vector of a label is cached.
    pub(crate) fn contains(&self, label: &Tokens) -> bool {
        self.lock().contains(&label.ids)
    }

    /// Returns the vector of each label. Calls `compute` for labels that are not cached.
    pub(crate) fn vectors(
        &self,
        labels: &[&Tokens],
        compute: impl FnOnce(&[&Tokens]) -> Vec<Vec<f32>>,
    ) -> Vec<Arc<[f32]>> {
        let mut found: HashMap<&[u32], Arc<[f32]>> = HashMap::new();
        // Sorted, so that the same batch is always computed in the same order.
        let mut missing: BTreeMap<&[u32], &Tokens> = BTreeMap::new();
        {
            let mut cache = self.lock();
            for label in labels {
                match cache.get(&label.ids) {
                    Some(vector) => drop(found.insert(&label.ids, Arc::clone(vector))),
                    None => drop(missing.insert(&label.ids, label)),
                }
            }
        }
        let missing: Vec<_> = missing.into_values().collect();
        if missing.is_empty() {
            return in_order(labels, &found);
        }
        // Without holding the lock, so that other workers can proceed.
        let computed = compute(&missing);
        let mut cache = self.lock();
        for (label, vector) in missing.into_iter().zip(computed) {
            let vector: Arc<[f32]> = vector.into();
            cache.put(label.ids.clone(), Arc::clone(&vector));
            found.insert(&label.ids, vector);
        }
        in_order(labels, &found)
    }

    fn lock(&self) -> MutexGuard<'_, LruCache<Vec<u32>, Arc<[f32]>>> {
        // The cache is consistent even after a panic.
        self.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn in_order(labels: &[&Tokens], vectors: &HashMap<&[u32], Arc<[f32]>>) -> Vec<Arc<[f32]>> {
    labels
        .iter()
        .map(|label| Arc::clone(&vectors[&label.ids[..]]))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn label(id: u32) -> Tokens {
        Tokens::of_one_text(vec![id])
    }

    /// Requests the vectors of labels. Returns those that were computed.
    fn request(labels: &Labels, ids: &[u32]) -> Vec<u32> {
        let tokens: Vec<_> = ids.iter().map(|id| label(*id)).collect();
        let mut computed = Vec::new();
        let vectors = labels.vectors(&tokens.iter().collect::<Vec<_>>(), |missing| {
            computed = missing.iter().map(|tokens| tokens.ids[0]).collect();
            computed.iter().map(|id| vec![*id as f32]).collect()
        });
        let got: Vec<_> = vectors.iter().map(|vector| vector[0] as u32).collect();
        assert_eq!(got, ids);
        computed.sort_unstable();
        computed
    }

    #[test]
    fn the_vectors_of_recent_labels_are_cached() {
        let labels = Labels::new(NonZeroUsize::new(3).expect("not 0"));
        assert_eq!(request(&labels, &[1, 2, 1]), [1, 2]);
        assert_eq!(request(&labels, &[2, 3]), [3]);
        assert!(labels.contains(&label(1)));
        assert_eq!(request(&labels, &[4]), [4]);
        assert!(!labels.contains(&label(1)), "the least recently used is evicted");
        assert_eq!(request(&labels, &[1, 2, 3, 4]), [1]);
    }

    #[test]
    fn more_labels_than_fit_in_the_cache_have_vectors() {
        let labels = Labels::new(NonZeroUsize::MIN);
        assert_eq!(request(&labels, &[1, 2, 3]), [1, 2, 3]);
    }

    #[test]
    fn a_template_has_exactly_one_placeholder() {
        let template = Template::new("a {} in {braces}").expect("one placeholder");
        assert_eq!(template.text("cat {}"), "a cat {} in {braces}");
        for (template, count) in [("a photo", "0 times"), ("{} or {}", "2 times")] {
            let problem = Template::new(template).expect_err("not one placeholder");
            assert!(problem.contains(count), "{problem}");
        }
    }
}
