//! What plugins share that serve transformer encoders from folders as Hugging Face's libraries save them: reading the folder's
//! `files`, `weights` and tokeniser (`tokens`), and the arithmetic of encoders on packed tokens, where the sequences of a batch lie one
//! after the other and none is padded: `linear` layers and `attention`, dealt out to threads by `lanes`, and `vectors` that come out.
//!
//! It is a library, not a plugin. It knows nothing of tasks or settings, and of no network in particular.

#![forbid(unsafe_code)]

mod attention;
pub mod files;
mod lanes;
mod linear;
mod tokens;
pub mod vectors;
mod weights;

pub use attention::Attention;
pub use lanes::Lanes;
pub use linear::{Activation, LayerNorm, Linear};
pub use tokens::{Tokenizer, Tokens};
pub use weights::Weights;
