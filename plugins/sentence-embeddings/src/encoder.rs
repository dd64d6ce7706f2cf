//! The network of a model: computes vectors or scores from tokens, with either implementation.

use std::fs;

use plugin_sdk::{BatchError, LoadError};
use transformer::{EncoderThreads, Tokens, Weights, normalize};

use crate::bert::{self, Bert};
use crate::graph::Graph;
use crate::model_spec::{Embedding, ModelSpec, Purpose, WeightsFile};

/// A loaded network.
pub(crate) enum Encoder {
    /// The built-in implementation, with the threads of each worker.
    Bert(Box<Bert>, Vec<EncoderThreads>),
    Graph(Box<Graph>),
}

impl Encoder {
    pub(crate) fn load(spec: &ModelSpec, workers: usize, threads: usize) -> Result<Self, LoadError> {
        let scores = matches!(spec.purpose, Purpose::Rank { .. });
        let (WeightsFile::Safetensors(path, _) | WeightsFile::Onnx(path)) = &spec.weights;
        let file_error = |error: LoadError| {
            LoadError::setting(
                "folder",
                format_args!("cannot use `{}`: {}", path.display(), error.message()),
            )
        };
        match &spec.weights {
            WeightsFile::Onnx(path) => Graph::load(path, scores, workers, threads)
                .map(|graph| Self::Graph(Box::new(graph)))
                .map_err(file_error),
            WeightsFile::Safetensors(path, architecture) => {
                let file = fs::read(path).map_err(|error| file_error(error.into()))?;
                let bert = Weights::read(&file, bert::WORDS)
                    .and_then(|weights| Bert::load(&weights, architecture.clone(), scores))
                    .map_err(file_error)?;
                let threads = (0..workers).map(|_| EncoderThreads::new(threads));
                Ok(Self::Bert(Box::new(bert), threads.collect::<Result<_, _>>()?))
            }
        }
    }

    /// Returns the size of the vocabulary, if known.
    pub(crate) fn vocabulary(&self) -> Option<usize> {
        match self {
            Self::Bert(bert, _) => Some(bert.vocabulary()),
            Self::Graph(_) => None,
        }
    }

    /// Returns the length of the vectors, by computing one.
    pub(crate) fn width(&self, embedding: &Embedding) -> Result<usize, LoadError> {
        let one = Tokens::of_one_text(vec![0]);
        let vectors = self.vectors(&[&one], embedding, 0);
        let vectors = vectors.map_err(|error| LoadError::setting("folder", error))?;
        Ok(vectors.first().map_or(0, Vec::len))
    }

    /// Computes a vector for each text.
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
            Self::Bert(bert, threads) => Ok(threads[worker].run(&lengths(texts), |block| {
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

    /// Computes a score for each pair of texts.
    pub(crate) fn scores(&self, pairs: &[&Tokens], worker: usize) -> Result<Vec<f32>, BatchError> {
        match self {
            Self::Bert(bert, threads) => Ok(threads[worker].run(&lengths(pairs), |block| {
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
                            "the network returned {} numbers for a pair, expected one score",
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
