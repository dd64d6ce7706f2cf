//! What plugins share that serve transformer encoders from folders as Hugging Face's libraries save them: reading the folder's
//! `files`, `weights` and tokeniser (`tokens`), and computing encoders on packed tokens, where the sequences of a batch lie one after
//! the other and none is padded: the layers of an `encoder` are made of `linear` ones and `attention`; `lanes` deal sequences out to
//! threads; `pooling` makes one vector of those of a text's tokens; `vectors` are what comes out.
//!
//! It is a library, not a plugin. It knows nothing of tasks, and of no network in particular.

#![forbid(unsafe_code)]

mod attention;
mod encoder;
pub mod files;
pub mod lanes;
mod linear;
mod pooling;
mod tokens;
pub mod vectors;
mod weights;

pub use encoder::{Encoder, Names, Norms, Shape};
pub use lanes::Lanes;
pub use linear::{Activation, LayerNorm, Linear};
pub use pooling::Pooling;
pub use tokens::{Tokenizer, Tokens};
pub use weights::Weights;

/// What multiplies matrices; made anew for each computation, which costs nothing.
pub use rten_gemm::GemmExecutor;
