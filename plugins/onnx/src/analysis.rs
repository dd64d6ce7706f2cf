//! Static analysis of a graph: the shapes of its values, and where the items of a batch are in them.
//!
//! `graph` walks a graph node by node and applies the `rules` of its operators. The analysis answers two questions: whether items
//! that are computed together affect each other (`mixing`), and how large the tensors of a run become (`sizes`). It does not
//! depend on runtimes, tasks or files.

mod constant;
mod control_flow;
mod elementwise;
mod gather;
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
