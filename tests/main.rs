//! Tests of the whole product: the real executable, real plugins, real sockets.
//!
//! Each module is one promise to users. What they need to be run is in [`harness`].

mod harness;

mod admission;
mod batching;
mod bench_command;
mod faults;
mod floors;
mod hostile_input;
mod loading;
mod reload;
mod responsiveness;
mod shutdown;
mod browser;
mod commands;
mod http_surface;
mod metric_names;
mod openapi;
mod precedence;
mod quickstart;
