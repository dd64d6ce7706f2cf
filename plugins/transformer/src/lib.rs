//! Transformer encoders for plugins that serve model directories in the format of Hugging Face libraries.
//!
//! Loading: `files` reads JSON files and checks their keys against tables such as those in `config_keys`, `weights` reads
//! safetensors, and `tokens` wraps the tokenizer. Computation: an `encoder` consists of `linear` layers and `attention`, whose
//! queries and keys can be `rotary`. It runs on packed tokens: the sequences of a batch are concatenated without padding.
//! `threads` distributes sequences to threads, and `pooling` reduces token vectors to one vector.
//!
//! This library does not know about tasks or particular networks.

#![forbid(unsafe_code)]

mod attention;
pub mod config_keys;
mod encoder;
pub mod files;
mod linear;
mod pooling;
mod rotary;
pub mod threads;
mod tokens;
mod weights;

pub use attention::{RelativePositions, Sequence};
pub use encoder::{Biases, Encoder, Gate, LayerShape, Names, Norms, Shape};
pub use linear::{Activation, Linear, Norm, NormKind};
pub use pooling::{Pooling, dot, normalize};
pub use rotary::{Rotary, RotaryScaling};
pub use threads::EncoderThreads;
pub use tokens::{TextToken, Tokenizer, Tokens, Truncation};
pub use weights::{WeightFiles, Weights};

/// Executes matrix products. Creating one is cheap.
pub use rten_gemm::GemmExecutor;
