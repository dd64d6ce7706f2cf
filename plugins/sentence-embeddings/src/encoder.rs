//! The network of a model: computes vectors, scores and numbers of words from tokens, with either implementation.

use plugin_sdk::{BatchError, LoadError};
use transformer::files::file_error;
use transformer::{EncoderThreads, GemmExecutor, Tokens, WeightFiles, Weights};

use crate::graph::Graph;
use crate::model_spec::{Embedding, ModelSpec, SparseEmbedding, WeightsFile};
use crate::network::{HeadKind, Network, pool};
use crate::stages::{Stage, width_after};

/// A loaded network.
pub(crate) enum Encoder {
    /// The built-in implementation, with the threads of each worker.
    Network(Box<Network>, Vec<EncoderThreads>),
    Graph(Box<Graph>),
}

/// A word of the vocabulary and its number.
pub(crate) type Word = (u32, f32);

impl Encoder {
    pub(crate) fn load(spec: &ModelSpec, workers: usize, threads: usize) -> Result<Self, LoadError> {
        let head = spec.purpose.head();
        let (WeightsFile::Safetensors(path, _) | WeightsFile::Onnx(path)) = &spec.weights;
        let unusable = |error: LoadError| {
            LoadError::setting(
                "folder",
                format_args!("cannot use `{}`: {}", path.display(), error.message()),
            )
        };
        match &spec.weights {
            WeightsFile::Onnx(_) if head == HeadKind::MaskedLm => Err(file_error(
                path,
                "is not supported for sparse vectors, expected model.safetensors",
            )),
            WeightsFile::Onnx(path) => Graph::load(path, head != HeadKind::None, workers, threads)
                .map(|graph| Self::Graph(Box::new(graph)))
                .map_err(unusable),
            WeightsFile::Safetensors(path, architecture) => {
                let files = WeightFiles::read(path)?;
                let network = Weights::read(&files, architecture.embeddings.words)
                    .and_then(|weights| Network::load(&weights, (**architecture).clone(), head))
                    .map_err(unusable)?;
                let threads = (0..workers).map(|_| EncoderThreads::new(threads));
                Ok(Self::Network(
                    Box::new(network),
                    threads.collect::<Result<_, _>>()?,
                ))
            }
        }
    }

    /// Returns the size of the vocabulary, if known.
    pub(crate) fn vocabulary(&self) -> Option<usize> {
        match self {
            Self::Network(network, _) => Some(network.vocabulary()),
            Self::Graph(_) => None,
        }
    }

    /// Returns the length of the vectors of tokens, which a graph has to compute.
    fn token_width(&self) -> Result<usize, LoadError> {
        match self {
            Self::Network(network, _) => Ok(network.width()),
            Self::Graph(graph) => {
                let one = Tokens::of_one_text(vec![0]);
                let states = graph.run(&[&one], 0);
                let states = states.map_err(|error| LoadError::setting("folder", error))?;
                Ok(states.first().map_or(0, Vec::len))
            }
        }
    }

    /// Returns the length of the vectors, and checks that the modules match.
    pub(crate) fn width(&self, embedding: &Embedding) -> Result<usize, LoadError> {
        let width = width_after(&embedding.token_stages, self.token_width()?)?;
        let width = width_after(&embedding.stages, width * embedding.pooling.len())?;
        Ok(embedding
            .truncate_dim
            .map_or(width, |dimensions| dimensions.min(width)))
    }

    /// Returns the length of the vectors of tokens after the modules, and checks that they match.
    pub(crate) fn width_of_tokens(&self, stages: &[Stage]) -> Result<usize, LoadError> {
        width_after(stages, self.token_width()?)
    }

    /// Computes a vector for each text, up to the last steps in `Embedding::finish`.
    pub(crate) fn vectors(
        &self,
        texts: &[&Tokens],
        embedding: &Embedding,
        worker: usize,
    ) -> Result<Vec<Vec<f32>>, BatchError> {
        let of_states = |texts: &[&Tokens], states: Vec<f32>| {
            let mut pooled = Vec::new();
            for (tokens, states) in texts
                .iter()
                .zip(split(&after(&embedding.token_stages, texts, states), texts))
            {
                pooled.extend(pool(&embedding.pooling, tokens, states));
            }
            let width = pooled.len() / texts.len();
            embedding.apply_stages(pooled, width)
        };
        self.in_blocks(texts, worker, of_states)
    }

    /// Computes the vectors of all tokens of each text, after these modules.
    pub(crate) fn token_vectors(
        &self,
        texts: &[&Tokens],
        stages: &[Stage],
        worker: usize,
    ) -> Result<Vec<Vec<f32>>, BatchError> {
        let of_states = |texts: &[&Tokens], states: Vec<f32>| {
            let states = after(stages, texts, states);
            split(&states, texts).map(<[f32]>::to_vec).collect()
        };
        self.in_blocks(texts, worker, of_states)
    }

    /// Computes something for each text from the vectors of all tokens of several texts.
    fn in_blocks<R: Send>(
        &self,
        texts: &[&Tokens],
        worker: usize,
        of_states: impl Fn(&[&Tokens], Vec<f32>) -> Vec<R> + Sync,
    ) -> Result<Vec<R>, BatchError> {
        match self {
            Self::Network(network, threads) => Ok(threads[worker].run(&lengths(texts), |block| {
                let texts: Vec<_> = block.iter().map(|index| texts[*index]).collect();
                let states = network.states(&texts);
                of_states(&texts, states)
            })),
            Self::Graph(graph) => {
                let states = graph.run(texts, worker)?;
                let results = states.into_iter().zip(texts);
                Ok(results
                    .flat_map(|(states, tokens)| of_states(&[tokens], states))
                    .collect())
            }
        }
    }

    /// Computes the numbers of all labels for each text or pair of texts, of which there are `labels`.
    pub(crate) fn logits(
        &self,
        texts: &[&Tokens],
        labels: usize,
        worker: usize,
    ) -> Result<Vec<Vec<f32>>, BatchError> {
        match self {
            Self::Network(network, threads) => Ok(threads[worker].run(&lengths(texts), |block| {
                let texts: Vec<_> = block.iter().map(|index| texts[*index]).collect();
                network.logits(&texts)
            })),
            Self::Graph(graph) => {
                let outputs = graph.run(texts, worker)?;
                match outputs.iter().find(|output| output.len() != labels) {
                    None => Ok(outputs),
                    Some(output) => Err(BatchError::failed(format_args!(
                        "the network returned {} numbers for a text, expected {labels}",
                        output.len()
                    ))),
                }
            }
        }
    }

    /// Computes the words of each text that have positive numbers, in the order of the vocabulary.
    pub(crate) fn words(
        &self,
        texts: &[&Tokens],
        embedding: &SparseEmbedding,
        worker: usize,
    ) -> Result<Vec<Vec<Word>>, BatchError> {
        let Self::Network(network, threads) = self else {
            return Err(BatchError::failed(
                "the network does not compute the numbers of words",
            ));
        };
        let vocabulary = network.vocabulary();
        let pooling = embedding.pooling;
        Ok(threads[worker].run(&lengths(texts), |block| {
            let texts: Vec<_> = block.iter().map(|index| texts[*index]).collect();
            let start = || vec![0.0; vocabulary];
            let pooled = network.words(&texts, start, |pooled, rows| pooling.pool(pooled, rows));
            pooled
                .into_iter()
                .map(|pooled| pooling.finish(pooled, embedding.max_words))
                .collect()
        }))
    }
}

/// Applies modules to the vectors of the tokens of several texts.
fn after(stages: &[Stage], texts: &[&Tokens], mut states: Vec<f32>) -> Vec<f32> {
    if !stages.is_empty() {
        let gemm = GemmExecutor::new();
        let mut width = states.len() / lengths(texts).into_iter().sum::<usize>();
        for stage in stages {
            width = stage.apply(&gemm, &mut states, width);
        }
    }
    states
}

/// Splits the vectors of the tokens of several texts by text.
fn split<'s>(states: &'s [f32], texts: &[&Tokens]) -> impl Iterator<Item = &'s [f32]> {
    let width = states.len() / lengths(texts).into_iter().sum::<usize>();
    let mut rest = states;
    lengths(texts).into_iter().map(move |length| {
        let (states, others) = rest.split_at(length * width);
        rest = others;
        states
    })
}

fn lengths(texts: &[&Tokens]) -> Vec<usize> {
    texts.iter().map(|tokens| tokens.len()).collect()
}
