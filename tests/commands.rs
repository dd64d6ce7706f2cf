//! The commands beside serving.
