//! The files of `config/deploy`: they are valid, and the real components work with them.

mod agents;
mod alerts;
mod files;
mod prometheus;
mod scale_out;
