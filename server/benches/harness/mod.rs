//! What benchmarks of the real server share: the server as a child process, and load on it.

#![allow(dead_code, reason = "no benchmark needs all of it")]

pub(crate) mod load;
pub(crate) mod server;
