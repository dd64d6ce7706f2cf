//! What a graph tells of its values without being run: their shapes, and where the items of a batch are in them.
//!
//! `graph` follows a graph node by node, by the `rules` of its operators. Two questions are answered so: whether items that are
//! computed together affect each other (`mixing`), and how large the tensors of a run become (`sizes`). It knows nothing of
//! runtimes, tasks or files.

mod constant;
mod elementwise;
mod graph;
mod layout;
mod linear;
pub(crate) mod mixing;
mod node;
mod record;
mod recurrent;
mod rules;
mod select;
mod size;
pub(crate) mod sizes;
mod statistics;
mod value;
