//! The items of which measured batches consist: created by the plugin, or recorded requests.

use std::path::{Path, PathBuf};
use std::{fs, io};

use bytes::Bytes;
use plugin_abi::manifest::TaskManifest;
use serde::Deserialize;
use serde_json::Value as Json;

use super::plan::spread;
use crate::codec::decode_example;
use crate::error::ItemError;
use crate::json::{self, JsonError};
use crate::model::Model;
use crate::values::ItemInput;

/// Maximum number of recorded items of a task that are used.
const MAX_RECORDED: usize = 1000;

/// Maximum number of different weights. All of those that double are among them.
const MAX_WEIGHTS: usize = 32;

/// Items whose weight is at least this fraction of a cell's weight can be in its batches.
const SIMILAR: f64 = 0.8;

/// Why there are no items for a task.
#[derive(Debug, thiserror::Error)]
pub enum ItemsError {
    /// The plugin does not create items.
    #[error(
        "task `{task}` does not create items of a requested weight: give recorded requests with --requests FILE, or implement `sample` in the plugin"
    )]
    NoSamples {
        /// Name of the task.
        task: String,
    },
    /// The plugin failed to create an item, or created an invalid one.
    #[error("task `{task}` created an invalid item of weight {weight}: {reason}")]
    Sample {
        /// Name of the task.
        task: String,
        /// The requested weight.
        weight: u64,
        /// The error.
        reason: String,
    },
    /// The plugin created no item at all.
    #[error(
        "task `{task}` created no item, although it declares that it can: expected at least one of weight 1"
    )]
    NoItem {
        /// Name of the task.
        task: String,
    },
    /// The file has no items for the task.
    #[error("the recorded requests contain no items for task `{task}`")]
    NotRecorded {
        /// Name of the task.
        task: String,
    },
    /// A recorded item is invalid.
    #[error("{}: line {line}: task `{task}` rejected the item: {source}", file.display())]
    Recorded {
        /// The file.
        file: PathBuf,
        /// Line, from 1.
        line: usize,
        /// Name of the task.
        task: String,
        /// The error of the model.
        source: ItemError,
    },
    /// The file cannot be read.
    #[error("cannot read the recorded requests in {}", file.display())]
    Read {
        /// The file.
        file: PathBuf,
        /// The error of the operating system.
        source: io::Error,
    },
    /// A line is not a request.
    #[error(
        "{}: line {line}: {reason}; expected one request per line, such as {{\"inputs\": [\"to be\"]}}", file.display()
    )]
    Line {
        /// The file.
        file: PathBuf,
        /// Line, from 1.
        line: usize,
        /// What is wrong.
        reason: String,
    },
}

/// An item of a recorded request.
#[derive(Clone, Debug, PartialEq)]
pub struct RecordedItem {
    file: PathBuf,
    line: usize,
    /// The task that it is for. `None` for any task.
    task: Option<String>,
    item: Json,
    parameters: Option<Json>,
}

/// A line of the file: the body of a request, and optionally its task.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    task: Option<String>,
    inputs: Option<Vec<Json>>,
    input: Option<Json>,
    parameters: Option<Json>,
}

/// Reads a file of recorded requests: on each line the JSON body of a request to a native route, optionally with the member
/// `task`.
///
/// # Errors
/// The file cannot be read, or a line is not a request.
pub fn read_requests(file: &Path) -> Result<Vec<RecordedItem>, ItemsError> {
    let text = fs::read_to_string(file).map_err(|source| ItemsError::Read {
        file: file.to_owned(),
        source,
    })?;
    let mut items = Vec::new();
    for (line, text) in (1..)
        .zip(text.lines())
        .filter(|(_, text)| !text.trim().is_empty())
    {
        let failed = |reason: String| ItemsError::Line {
            file: file.to_owned(),
            line,
            reason,
        };
        let parsed = json::from_str::<Line>(text).map_err(|error: JsonError| failed(error.message()))?;
        let inputs = match (parsed.inputs, parsed.input) {
            (Some(inputs), None) => inputs,
            (None, Some(input)) => vec![input],
            _ => return Err(failed("one of `inputs` and `input` is required".to_owned())),
        };
        items.extend(inputs.into_iter().map(|item| RecordedItem {
            file: file.to_owned(),
            line,
            task: parsed.task.clone(),
            item,
            parameters: parsed.parameters.clone(),
        }));
    }
    Ok(items)
}

/// An item with its weight and group.
#[derive(Clone, Debug)]
struct WeighedItem {
    input: ItemInput,
    weight: u64,
    group: u64,
    /// Whether it is only in the batches that check the fit.
    is_spare: bool,
}

/// The items for the batches of one task.
#[derive(Clone, Debug)]
pub struct Items(Vec<WeighedItem>);

impl Items {
    /// Makes the plugin create items with doubling weights, up to `max_weight`, until it has no heavier one.
    ///
    /// # Errors
    /// The task does not create items, or they are invalid.
    pub fn sampled(model: &dyn Model, index: usize, max_weight: u64) -> Result<Self, ItemsError> {
        let task = &model.manifest().tasks[index];
        if !task.samples {
            return Err(ItemsError::NoSamples {
                task: task.name.clone(),
            });
        }
        // All items of a task without a prepare step weigh 1.
        let max_weight = if task.prepares { max_weight.max(1) } else { 1 };
        let mut items: Vec<WeighedItem> = Vec::new();
        let (mut wanted, mut unavailable) = (1_u64, None);
        while wanted <= max_weight {
            match sample(model, index, task, wanted)? {
                Some(item) => {
                    let heaviest = items.last().map_or(0, |item| item.weight);
                    if item.weight > heaviest {
                        items.push(item);
                    } else if wanted >= heaviest.saturating_mul(4) {
                        // All items have about the same weight.
                        break;
                    }
                }
                // The lightest item may weigh more than 1.
                None if items.is_empty() => {}
                None => {
                    unavailable = Some(wanted);
                    break;
                }
            }
            wanted = wanted.saturating_mul(2);
        }
        // The heaviest item, which is between the last two weights.
        if let (Some(mut high), Some(last)) = (unavailable, items.last()) {
            let mut low = last.weight;
            while high > low + 1 {
                let middle = low.midpoint(high);
                match sample(model, index, task, middle)? {
                    Some(item) if item.weight > low => {
                        low = item.weight.min(high - 1);
                        items.push(item);
                    }
                    Some(_) => low = middle,
                    None => high = middle,
                }
            }
        }
        if items.is_empty() {
            return Err(ItemsError::NoItem {
                task: task.name.clone(),
            });
        }
        items.sort_by_key(|item| item.weight);
        let weights: Vec<u64> = items.iter().map(|item| item.weight).collect();
        for pair in weights.windows(2) {
            let between = sample(model, index, task, pair[0].midpoint(pair[1]))?;
            items.extend(between.map(|item| WeighedItem {
                is_spare: true,
                ..item
            }));
        }
        items.sort_by_key(|item| item.weight);
        Ok(Self(items))
    }

    /// The items of recorded requests to the task.
    ///
    /// # Errors
    /// There are none, or the model rejects one.
    pub fn recorded(model: &dyn Model, index: usize, recorded: &[RecordedItem]) -> Result<Self, ItemsError> {
        let task = &model.manifest().tasks[index];
        let own = recorded
            .iter()
            .filter(|item| item.task.as_ref().is_none_or(|name| *name == task.name))
            .take(MAX_RECORDED);
        let mut items = Vec::new();
        for item in own {
            let input = decode_example(task, &item.item).and_then(|input| {
                let input = ItemInput {
                    parameters: item
                        .parameters
                        .as_ref()
                        .map_or_else(Bytes::new, |parameters| Bytes::from(parameters.to_string())),
                    ..input
                };
                weigh(model, index, task, input)
            });
            items.push(input.map_err(|source| ItemsError::Recorded {
                file: item.file.clone(),
                line: item.line,
                task: task.name.clone(),
                source,
            })?);
        }
        if items.is_empty() {
            return Err(ItemsError::NotRecorded {
                task: task.name.clone(),
            });
        }
        items.sort_by_key(|item| item.weight);
        Ok(Self(items))
    }

    /// The weights of the items, at most [`MAX_WEIGHTS`] of them, with about equal ratios.
    pub(super) fn weights(&self) -> Vec<u64> {
        let measured = self.0.iter().filter(|item| !item.is_spare);
        let mut weights: Vec<u64> = measured.map(|item| item.weight).collect();
        weights.dedup();
        spread(&weights, MAX_WEIGHTS)
    }

    /// The items of a batch of this size whose heaviest item has this weight, and their weights. If there are too few similar
    /// items, they are repeated.
    pub(super) fn batch(&self, items: u64, weight: u64) -> Vec<(&ItemInput, u64)> {
        let measured = |item: &&WeighedItem| item.weight >= weight && !item.is_spare;
        let Some(heaviest) = self.0.iter().find(measured) else {
            return Vec::new();
        };
        let least = (heaviest.weight as f64 * SIMILAR) as u64;
        let similar = |item: &&WeighedItem| {
            !item.is_spare && item.group == heaviest.group && (least..=heaviest.weight).contains(&item.weight)
        };
        // The heaviest items first.
        let similar: Vec<&WeighedItem> = self.0.iter().rev().filter(similar).collect();
        let batch = similar.iter().cycle().take(items as usize);
        batch.map(|item| (&item.input, item.weight)).collect()
    }

    /// A batch of this size with random items of at most the weight of a random one, and their weights.
    pub(super) fn random_batch(&self, items: u64, random: &mut fastrand::Rng) -> Vec<(&ItemInput, u64)> {
        let heaviest = &self.0[random.usize(..self.0.len())];
        let candidates: Vec<&WeighedItem> = self
            .0
            .iter()
            .filter(|item| item.group == heaviest.group && item.weight <= heaviest.weight)
            .collect();
        let others = (1..items).map(|_| candidates[random.usize(..candidates.len())]);
        let batch = std::iter::once(heaviest).chain(others);
        batch.map(|item| (&item.input, item.weight)).collect()
    }
}

/// An item that the plugin creates for this weight.
fn sample(
    model: &dyn Model,
    index: usize,
    task: &TaskManifest,
    weight: u64,
) -> Result<Option<WeighedItem>, ItemsError> {
    let failed = |reason: String| ItemsError::Sample {
        task: task.name.clone(),
        weight,
        reason,
    };
    let sampled = model
        .sample(index, weight)
        .map_err(|error| failed(error.to_string()))?;
    let Some(json) = sampled else {
        return Ok(None);
    };
    let item = json::from_slice::<Json>(&json).map_err(|error| failed(error.to_string()))?;
    let item = decode_example(task, &item).and_then(|input| weigh(model, index, task, input));
    item.map(Some).map_err(|error| failed(error.to_string()))
}

/// Determines the weight of an item. Items of a task without a prepare step weigh 1.
fn weigh(
    model: &dyn Model,
    index: usize,
    task: &TaskManifest,
    input: ItemInput,
) -> Result<WeighedItem, ItemError> {
    let (weight, group) = if task.prepares {
        let prepared = model.prepare(index, &input)?;
        (prepared.weight, prepared.group)
    } else {
        (1, 0)
    };
    Ok(WeighedItem {
        input,
        weight,
        group,
        is_spare: false,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::values::Value;

    fn items(weights: &[u64]) -> Items {
        let item = |weight: &u64| WeighedItem {
            input: ItemInput {
                value: Value::Text(Bytes::from(weight.to_string())),
                parameters: Bytes::new(),
            },
            weight: *weight,
            group: 0,
            is_spare: false,
        };
        Items(weights.iter().map(item).collect())
    }

    fn weights_of(batch: &[(&ItemInput, u64)]) -> Vec<u64> {
        batch.iter().map(|(_, weight)| *weight).collect()
    }

    #[test]
    fn a_batch_consists_of_the_heaviest_similar_items() {
        let items = items(&[1, 10, 80, 90, 100, 500]);
        assert_eq!(weights_of(&items.batch(3, 100)), [100, 90, 80]);
        assert_eq!(weights_of(&items.batch(5, 100)), [100, 90, 80, 100, 90]);
        assert_eq!(weights_of(&items.batch(2, 500)), [500, 500]);
        assert_eq!(weights_of(&items.batch(2, 501)), Vec::<u64>::new());
    }

    #[test]
    fn few_of_many_weights_are_used_including_the_extremes() {
        let all: Vec<u64> = (1..=1000).collect();
        let weights = items(&all).weights();
        assert_eq!((weights[0], weights.last()), (1, Some(&1000)));
        assert!((20..=MAX_WEIGHTS).contains(&weights.len()), "{weights:?}");
        assert_eq!(items(&[3, 3, 4]).weights(), [3, 4]);
    }

    #[test]
    fn no_weight_that_doubles_is_left_out_if_there_are_many_heavy_items() {
        let doubling = (0..=20).map(|power| 1 << power);
        let heavy = (1..15).map(|nth| (1 << 20) + nth * 10_000);
        let weights = items(&doubling.clone().chain(heavy).collect::<Vec<_>>()).weights();
        let left_out: Vec<u64> = doubling.filter(|weight| !weights.contains(weight)).collect();
        assert_eq!(left_out, [] as [u64; 0], "{weights:?}");
    }

    #[test]
    fn a_file_of_requests_has_a_request_on_each_line() {
        let directory = tempfile::tempdir().expect("a directory can be created");
        let file = directory.path().join("requests.jsonl");
        let read = |text: &str| {
            fs::write(&file, text).expect("the file can be written");
            read_requests(&file)
        };
        let found = read(
            "{\"inputs\": [\"a\", \"b\"]}\n\n{\"task\": \"t\", \"input\": 1, \"parameters\": {\"top\": 2}}\n",
        );
        let found = found.expect("the file is valid");
        let shown: Vec<_> = found
            .iter()
            .map(|item| (item.line, item.task.as_deref(), item.item.to_string()))
            .collect();
        assert_eq!(
            shown,
            [
                (1, None, "\"a\"".to_owned()),
                (1, None, "\"b\"".to_owned()),
                (3, Some("t"), "1".to_owned())
            ]
        );
        for (text, part) in [
            ("{\"inputs\": []}\n[1]\n", "line 2: "),
            ("{}\n", "line 1: one of `inputs` and `input` is required"),
            ("{\"inputs\": [1], \"mode\": 1}\n", "mode"),
        ] {
            let error = read(text).expect_err(text).to_string();
            assert!(
                error.contains(part) && error.contains("one request per line"),
                "{error}"
            );
        }
        let error = read_requests(Path::new("/missing.jsonl")).expect_err("there is no such file");
        assert!(error.to_string().contains("/missing.jsonl"), "{error}");
    }
}
