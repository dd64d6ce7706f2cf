//! Shared by the benchmarks of the real server: runs the server as a child process and generates load.

#![allow(dead_code, reason = "no benchmark uses all of it")]

pub(crate) mod load;
pub(crate) mod server;
