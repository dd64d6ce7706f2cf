//! The native protocol: one route per task, with JSON or raw bodies.
//!
//! `task_handlers` runs a task, [`request_items`] reads the body as items, [`envelope`] splits a JSON body, and
//! [`reply`] writes the reply.

pub mod envelope;
pub mod reply;
pub mod request_items;
pub(super) mod task_handlers;
