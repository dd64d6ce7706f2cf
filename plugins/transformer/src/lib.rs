//! Transformer encoders for plugins that serve model directories in the format of Hugging Face libraries.
//!
//! Loading: `files` reads JSON files, `weights` reads safetensors, and `tokens` wraps the tokenizer. Computation: an `encoder`
//! consists of `linear` layers and `attention`. It runs on packed tokens: the sequences of a batch are concatenated without
//! padding. `threads` distributes sequences to threads, and `pooling` reduces token vectors to one vector.
//!
//! This library does not know about tasks or particular networks.

#![forbid(unsafe_code)]

mod attention;
mod encoder;
pub mod files;
mod linear;
mod pooling;
pub mod threads;
mod tokens;
mod weights;

pub use encoder::{Encoder, Names, Norms, Shape};
pub use linear::{Activation, LayerNorm, Linear};
pub use pooling::{Pooling, dot, normalize};
pub use threads::EncoderThreads;
pub use tokens::{Tokenizer, Tokens};
pub use weights::Weights;

/// Executes matrix products. Creating one is cheap.
pub use rten_gemm::GemmExecutor;
