//! The network of a model, whichever kind it is of: tokens in, vectors or scores out. It knows nothing of text or of tasks.

use std::fs;

use plugin_sdk::{BatchError, LoadError};
use transformer::vectors::normalize;
use transformer::{Lanes, Tokens, Weights};

use crate::bert::{self, Bert};
use crate::folder::{Embedding, Purpose, Recipe, WeightsFile};
use crate::graph::Graph;

/// A loaded network.
pub(crate) enum Encoder {
    /// Computed here, with the threads of each worker.
    Bert(Box<Bert>, Vec<Lanes>),
    Graph(Box<Graph>),
}

impl Encoder {
    pub(crate) fn load(recipe: &Recipe, workers: usize, threads: usize) -> Result<Self, LoadError> {
        let scores = matches!(recipe.purpose, Purpose::Rank { .. });
        let (WeightsFile::Safetensors(path, _) | WeightsFile::Onnx(path)) = &recipe.weights;
        let blame = |error: LoadError| {
            LoadError::setting(
                "folder",
                format_args!("`{}` cannot be used: {}", path.display(), error.message()),
            )
        };
        match &recipe.weights {
            WeightsFile::Onnx(path) => Graph::load(path, scores, workers, threads)
                .map(|graph| Self::Graph(Box::new(graph)))
                .map_err(blame),
            WeightsFile::Safetensors(path, architecture) => {
                let file = fs::read(path).map_err(|error| blame(error.into()))?;
                let bert = Weights::read(&file, bert::WORDS)
                    .and_then(|weights| Bert::load(&weights, architecture.clone(), scores))
                    .map_err(blame)?;
                let lanes = (0..workers).map(|_| Lanes::new(threads));
                Ok(Self::Bert(Box::new(bert), lanes.collect::<Result<_, _>>()?))
            }
        }
    }

    /// How many ids the vocabulary has, where it is known.
    pub(crate) fn vocabulary(&self) -> Option<usize> {
        match self {
            Self::Bert(bert, _) => Some(bert.vocabulary()),
            Self::Graph(_) => None,
        }
    }

    /// Length of the vectors, found by computing one.
    pub(crate) fn width(&self, embedding: &Embedding) -> Result<usize, LoadError> {
        let one = Tokens::of_one_text(vec![0]);
        let vectors = self.vectors(&[&one], embedding, 0);
        let vectors = vectors.map_err(|error| LoadError::setting("folder", error))?;
        Ok(vectors.first().map_or(0, Vec::len))
    }

    /// A vector for each text.
    pub(crate) fn vectors(
        &self,
        texts: &[&Tokens],
        embedding: &Embedding,
        worker: usize,
    ) -> Result<Vec<Vec<f32>>, BatchError> {
        let finish = |states: &[f32], tokens: &Tokens| {
            let mut vector = embedding.pooling.pool(states, states.len() / tokens.len());
            if embedding.normalize {
                normalize(&mut vector);
            }
            vector
        };
        match self {
            Self::Bert(bert, lanes) => Ok(lanes[worker].run(&lengths(texts), |block| {
                let texts: Vec<_> = block.iter().map(|index| texts[*index]).collect();
                let states = bert.states(&texts);
                let mut rest = &states[..];
                let vector = |tokens: &&Tokens| {
                    let (states, others) = rest.split_at(tokens.len() * bert.width());
                    rest = others;
                    finish(states, tokens)
                };
                texts.iter().map(vector).collect()
            })),
            Self::Graph(graph) => {
                let states = graph.run(texts, worker)?;
                Ok(states
                    .iter()
                    .zip(texts)
                    .map(|(states, tokens)| finish(states, tokens))
                    .collect())
            }
        }
    }

    /// A score for each pair of texts.
    pub(crate) fn scores(&self, pairs: &[&Tokens], worker: usize) -> Result<Vec<f32>, BatchError> {
        match self {
            Self::Bert(bert, lanes) => Ok(lanes[worker].run(&lengths(pairs), |block| {
                let pairs: Vec<_> = block.iter().map(|index| pairs[*index]).collect();
                bert.scores(&pairs)
            })),
            Self::Graph(graph) => {
                let outputs = graph.run(pairs, worker)?;
                outputs
                    .into_iter()
                    .map(|output| match output[..] {
                        [score] => Ok(score),
                        _ => Err(BatchError::failed(format_args!(
                            "the network answers {} numbers for a pair, expected one score",
                            output.len()
                        ))),
                    })
                    .collect()
            }
        }
    }
}

fn lengths(texts: &[&Tokens]) -> Vec<usize> {
    texts.iter().map(|tokens| tokens.len()).collect()
}
