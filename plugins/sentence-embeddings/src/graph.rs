//! Encoders in ONNX files, for networks that this plugin does not implement itself. Texts of the same length are computed
//! together, so no padding is needed.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use plugin_sdk::{BatchError, LoadError};
use rten::{Model, NodeId, RunOptions, ThreadPool, Value};
use rten_tensor::{NdTensor, Tensor};
use transformer::Tokens;

/// A loaded file.
pub(crate) struct Graph {
    model: Model,
    ids: NodeId,
    mask: Option<NodeId>,
    types: Option<NodeId>,
    output: NodeId,
    /// One pool for each worker, so that concurrent batches do not wait for each other.
    pools: Vec<Arc<ThreadPool>>,
}

impl Graph {
    /// Loads a file. The network returns a vector for each token, or a score for each text if `scores` is true.
    pub(crate) fn load(path: &Path, scores: bool, workers: usize, threads: usize) -> Result<Self, LoadError> {
        let model = Model::load_file(path)?;
        let names: Vec<_> = model
            .input_ids()
            .iter()
            .map(|id| {
                model
                    .node_info(*id)
                    .and_then(|node| node.name().map(str::to_owned))
            })
            .collect();
        let known = ["input_ids", "attention_mask", "token_type_ids"];
        let name_of = |name: &Option<String>| name.clone().unwrap_or_default();
        if let Some(unknown) = names
            .iter()
            .map(name_of)
            .find(|name| !known.contains(&name.as_str()))
        {
            return Err(LoadError::new(format_args!(
                "it has the unknown input `{unknown}`, expected {}",
                known.join(", ")
            )));
        }
        let input = |name: &str| {
            names
                .iter()
                .position(|known| known.as_deref() == Some(name))
                .map(|index| model.input_ids()[index])
        };
        let ids = input("input_ids").ok_or_else(|| LoadError::new("it has no input `input_ids`"))?;
        let candidates: &[&str] = if scores {
            &["logits"]
        } else {
            &["last_hidden_state", "token_embeddings"]
        };
        let output = candidates.iter().find_map(|name| model.find_node(name));
        let output = output.ok_or_else(|| {
            LoadError::new(format_args!("it has no output `{}`", candidates.join("` or `")))
        })?;
        Ok(Self {
            ids,
            mask: input("attention_mask"),
            types: input("token_type_ids"),
            output,
            model,
            pools: (0..workers)
                .map(|_| Arc::new(ThreadPool::with_num_threads(threads)))
                .collect(),
        })
    }

    /// Returns the output for each sequence: the vectors of its tokens, or its score.
    pub(crate) fn run(&self, sequences: &[&Tokens], worker: usize) -> Result<Vec<Vec<f32>>, BatchError> {
        let mut by_length = BTreeMap::<_, Vec<_>>::new();
        for (index, tokens) in sequences.iter().enumerate() {
            by_length.entry(tokens.len()).or_default().push(index);
        }
        let mut outputs = vec![Vec::new(); sequences.len()];
        for (length, indexes) in by_length {
            let group: Vec<_> = indexes.iter().map(|index| sequences[*index]).collect();
            let computed = self.run_group(&group, length, worker)?;
            let rows = computed.chunks_exact(computed.len() / indexes.len());
            for (index, row) in indexes.into_iter().zip(rows) {
                outputs[index] = row.to_vec();
            }
        }
        Ok(outputs)
    }

    fn run_group(&self, sequences: &[&Tokens], length: usize, worker: usize) -> Result<Vec<f32>, BatchError> {
        let stack = |part: fn(&Tokens) -> &[u32]| {
            let values = sequences.iter().flat_map(|tokens| part(tokens));
            let values: Vec<_> = values.map(|value| *value as i32).collect();
            Value::from(NdTensor::from_data([sequences.len(), length], values))
        };
        let ones = || {
            Value::from(NdTensor::from_data(
                [sequences.len(), length],
                vec![1_i32; sequences.len() * length],
            ))
        };
        let mut inputs = vec![(self.ids, stack(|tokens| &tokens.ids).into())];
        inputs.extend(self.mask.map(|mask| (mask, ones().into())));
        inputs.extend(
            self.types
                .map(|types| (types, stack(|tokens| &tokens.types).into())),
        );
        let pool = Arc::clone(&self.pools[worker % self.pools.len()]);
        let options = RunOptions::default().with_thread_pool(Some(pool));
        let [output] = self.model.run_n(inputs, [self.output], Some(options))?;
        Ok(Tensor::<f32>::try_from(output)?.into_data())
    }
}
