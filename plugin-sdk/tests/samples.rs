//! Tests of what a plugin provides for measuring its batches: items of a requested weight, and the memory of the model.

use std::sync::atomic::{AtomicU64, Ordering};

use plugin_sdk::prelude::*;
use plugin_sdk::testing::{FailureKind, Harness};

/// Counts words, and reports an arena that grows with the longest text.
struct Words {
    peak: AtomicU64,
}

impl Model for Words {
    type Settings = NoSettings;

    fn load(_settings: NoSettings, _context: &LoadContext) -> Result<Self, LoadError> {
        Ok(Self {
            peak: AtomicU64::new(0),
        })
    }

    fn tasks() -> Tasks<Self> {
        Tasks::new()
            .add_prepared("count", Count)
            .add("upper", Upper)
            .add("plain", Plain)
    }

    fn memory_usage(&self) -> Option<MemoryUsage> {
        let peak = self.peak.swap(0, Ordering::Relaxed);
        Some(MemoryUsage { current: 64, peak })
    }
}

struct Count;

impl PreparedTask<Words> for Count {
    type Input = Text;
    type Output = Json<usize>;
    type Prepared = usize;

    fn describe(&self) -> TaskInfo {
        TaskInfo::new("Counts words.").samples()
    }

    fn prepare(&self, _model: &Words, item: Item<&str>) -> Result<Prepared<usize>, ItemError> {
        let words = item.value.split_whitespace().count();
        Ok(Prepared::new(words).weight(words as u64))
    }

    fn predict(&self, model: &Words, batch: Batch<&usize>) -> BatchResult<usize> {
        let most = batch.iter().map(|words| **words as u64).max().unwrap_or(0);
        model.peak.fetch_max(1000 * most, Ordering::Relaxed);
        batch.map(|words| *words)
    }

    fn sample(&self, _model: &Words, weight: u64) -> Option<plugin_sdk::serde_json::Value> {
        assert!(weight != 13, "thirteen words");
        (weight <= 100).then(|| json!("word ".repeat(weight as usize)))
    }
}

struct Upper;

impl Task<Words> for Upper {
    type Input = Text;
    type Output = Text;

    fn describe(&self) -> TaskInfo {
        TaskInfo::new("Converts to upper case.").samples()
    }

    fn predict(&self, _model: &Words, batch: Batch<&str>) -> BatchResult<String> {
        batch.map(str::to_uppercase)
    }

    fn sample(&self, _model: &Words, _weight: u64) -> Option<plugin_sdk::serde_json::Value> {
        Some(json!("a word"))
    }
}

/// A task without samples.
struct Plain;

impl Task<Words> for Plain {
    type Input = Text;
    type Output = Text;

    fn predict(&self, _model: &Words, batch: Batch<&str>) -> BatchResult<String> {
        batch.map(str::to_owned)
    }
}

fn words() -> Harness<Words> {
    Harness::load(json!({})).expect("it has no settings")
}

#[test]
fn a_task_creates_items_of_the_requested_weight() {
    let words = words();
    for weight in [1, 7, 100] {
        let item = words.sample("count", weight).expect("it does not fail");
        let item = item.expect("there is an item of this weight");
        assert_eq!(words.prepare("count", &item).expect("valid").weight, weight);
    }
    assert_eq!(words.sample("count", 101), Ok(None));
    assert_eq!(words.sample("upper", 1), Ok(Some(json!("a word"))));
}

#[test]
fn the_manifest_declares_which_tasks_create_items() {
    let words = words();
    let declared: Vec<bool> = words.manifest().tasks.iter().map(|task| task.samples).collect();
    assert_eq!(declared, [true, true, false]);
}

#[test]
#[should_panic(expected = "add `TaskInfo::samples`")]
fn a_task_that_does_not_declare_samples_is_not_asked_for_one() {
    let _item = words().sample("plain", 1);
}

#[test]
fn a_panic_while_creating_an_item_is_an_error() {
    let error = words().sample("count", 13).expect_err("it panics");
    assert_eq!(error.kind, FailureKind::Panic);
    assert!(error.message.contains("thirteen words"), "{}", error.message);
}

#[test]
fn the_peak_of_the_memory_is_measured_from_one_report_to_the_next() {
    let words = words();
    assert!(words.memory_usage().is_some());
    words.predict("count", &[json!("to be or not")]);
    let usage = |peak| Some(MemoryUsage { current: 64, peak });
    assert_eq!(words.memory_usage(), usage(4000));
    assert_eq!(words.memory_usage(), usage(0));
}
