//! Labels as texts, and their vectors, which are remembered: the labels of one request are most often those of the next. It knows
//! nothing of images.

use std::collections::{BTreeMap, HashMap};
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use lru::LruCache;
use transformer::Tokens;

/// What stands for the label in a template.
const PLACE: &str = "{}";

/// The text that is made of a label.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Template {
    before: String,
    after: String,
}

impl Template {
    /// Reads a template, in which `{}` stands for the label.
    pub(crate) fn new(written: &str) -> Result<Self, String> {
        match written.split(PLACE).collect::<Vec<_>>()[..] {
            [before, after] => Ok(Self {
                before: before.to_owned(),
                after: after.to_owned(),
            }),
            ref parts => Err(format!(
                "`{written}` has `{PLACE}` {} times, expected once, where the label goes",
                parts.len() - 1
            )),
        }
    }

    /// The text of a label.
    pub(crate) fn text(&self, label: &str) -> String {
        format!("{}{label}{}", self.before, self.after)
    }
}

/// Vectors of labels, shared by all workers. The most recent are kept.
pub(crate) struct Labels {
    known: Mutex<LruCache<Vec<u32>, Arc<[f32]>>>,
}

impl Labels {
    /// Remembers at most that many.
    pub(crate) fn new(max: NonZeroUsize) -> Self {
        Self {
            known: Mutex::new(LruCache::new(max)),
        }
    }

    /// Whether the vector of a label is known now.
    pub(crate) fn knows(&self, label: &Tokens) -> bool {
        self.known().contains(&label.ids)
    }

    /// The vector of each label, of which `compute` makes those that are not known.
    pub(crate) fn vectors(
        &self,
        labels: &[&Tokens],
        compute: impl FnOnce(&[&Tokens]) -> Vec<Vec<f32>>,
    ) -> Vec<Arc<[f32]>> {
        let mut found: HashMap<&[u32], Arc<[f32]>> = HashMap::new();
        // Ordered, so that the same batch is computed in the same way each time.
        let mut missing: BTreeMap<&[u32], &Tokens> = BTreeMap::new();
        {
            let mut known = self.known();
            for label in labels {
                match known.get(&label.ids) {
                    Some(vector) => drop(found.insert(&label.ids, Arc::clone(vector))),
                    None => drop(missing.insert(&label.ids, label)),
                }
            }
        }
        let missing: Vec<_> = missing.into_values().collect();
        if missing.is_empty() {
            return in_order(labels, &found);
        }
        // Without the lock: other workers go on meanwhile.
        let computed = compute(&missing);
        let mut known = self.known();
        for (label, vector) in missing.into_iter().zip(computed) {
            let vector: Arc<[f32]> = vector.into();
            known.put(label.ids.clone(), Arc::clone(&vector));
            found.insert(&label.ids, vector);
        }
        in_order(labels, &found)
    }

    fn known(&self) -> MutexGuard<'_, LruCache<Vec<u32>, Arc<[f32]>>> {
        // What is remembered is whole whoever panicked.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
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

    /// Asks for the vectors of labels, and says which had to be computed.
    fn ask(labels: &Labels, ids: &[u32]) -> Vec<u32> {
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
    fn the_vectors_of_the_latest_labels_are_remembered() {
        let labels = Labels::new(NonZeroUsize::new(3).expect("it is not 0"));
        assert_eq!(ask(&labels, &[1, 2, 1]), [1, 2]);
        assert_eq!(ask(&labels, &[2, 3]), [3]);
        assert!(labels.knows(&label(1)));
        assert_eq!(ask(&labels, &[4]), [4]);
        assert!(!labels.knows(&label(1)), "it is the oldest of four");
        assert_eq!(ask(&labels, &[1, 2, 3, 4]), [1]);
    }

    #[test]
    fn more_labels_than_are_remembered_have_vectors_all_the_same() {
        let labels = Labels::new(NonZeroUsize::MIN);
        assert_eq!(ask(&labels, &[1, 2, 3]), [1, 2, 3]);
    }

    #[test]
    fn a_template_has_one_place_for_the_label() {
        let template = Template::new("a {} in {braces}").expect("it has one");
        assert_eq!(template.text("cat {}"), "a cat {} in {braces}");
        for (written, count) in [("a photo", "0 times"), ("{} or {}", "2 times")] {
            let problem = Template::new(written).expect_err("it has not one");
            assert!(problem.contains(count), "{problem}");
        }
    }
}
