//! The primitives of `item_states`. The model checker runs that module with its own, see `tests/item_states.rs`.

pub(super) use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
pub(super) use std::sync::{Mutex, PoisonError};
