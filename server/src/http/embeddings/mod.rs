//! Embeddings in the protocols of OpenAI and Cohere, and what text-embeddings-inference shares with them.
//!
//! [`inputs`] reads texts and token ids, [`input_type`] what they are for, [`options`] what clients can choose, and [`vectors`]
//! truncates, normalizes and writes embeddings. Any task that declares itself an embedding works in all of these protocols.

pub(super) mod cohere;
pub(super) mod input_type;
pub(super) mod inputs;
pub(super) mod openai;
pub(super) mod options;
pub(super) mod vectors;
