//! The native routes: one for each task, with bodies of its own JSON form or of raw text and bytes.

pub mod envelope;
pub mod reply;
pub mod request_items;
pub(super) mod task_handlers;
