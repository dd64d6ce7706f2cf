//! The inference server: loads models as plugins, batches their items task by task, and serves them over HTTP and gRPC.
//!
//! `server/ARCHITECTURE.md` describes how the modules work together.
//!
//! # Layers
//! A module imports only from layers below its own; `tests/layers.rs` reads this list and checks it.
//!
//! **Application**: builds the parts and owns every thread.
//! - [`app`]: start, reload and shutdown of the server, in order; the commands `calibrate`, `check` and `inspect`.
//! - [`batch`]: the command `batch`, a client that runs the requests of a file as jobs (feature `batch`).
//! - [`bench`](mod@bench): the command `bench`, a client that load-tests a server (feature `bench`).
//! - [`cli`]: the command line.
//! - [`client`]: the HTTP client of the commands `batch`, `bench` and `status`.
//! - [`init`]: the server as the first process of a container.
//! - [`logging`]: the log, as text or JSON.
//! - [`open_files`]: the limit on open files.
//! - [`scaffold`]: the command `new`, which writes an example of a model: a plugin crate, or a model in Python.
//! - [`status`]: the command `status`, which shows the state of a server in a terminal (feature `status`).
//!
//! **Protocols**: the outside world.
//! - [`grpc`]: the Open Inference Protocol over gRPC, health and reflection (feature `grpc`).
//! - [`http`]: connections, routes, bodies and documentation of every protocol over HTTP.
//! - [`signals`]: signals that the process handles.
//!
//! **Service**: what all protocols share.
//! - [`api`]: addressing, request options, tensors, keys, the access log, and errors as status codes.
//! - [`jobs`]: requests that are stored durably and run in the background.
//!
//! **Lifecycle**: which models are live.
//! - [`registry`]: the models and their serving generations.
//! - [`reload`]: loads and replaces the models of a configuration.
//!
//! **Execution**: running batches.
//! - [`calibration`]: measures the memory and the time of batches, and the file of the results.
//! - [`engine`]: the queue, the workers, and the path of a request through them.
//! - [`isolation`]: models in worker processes.
//! - [`loader`]: opens plugins and creates models.
//!
//! **Policy**: pure decisions, without threads, clocks or I/O.
//! - [`batcher`]: which items run next, and when.
//! - [`config`]: parses and validates the configuration.
//! - [`explanation`]: why a model is not ready, why its batches are small, and what limits its throughput.
//!
//! **Foundation**: values, and access to the operating system that everything needs.
//! - [`allocator`]: the allocator of the executable.
//! - [`batch_context`]: the current batch of a thread, for log lines.
//! - [`batching`]: batching rules as values.
//! - [`build_info`]: the commit, date and target of this build.
//! - [`byte_budget`]: the limit on the bytes that all requests hold.
//! - [`cl100k_base`]: decodes token ids of OpenAI's vocabulary.
//! - [`clock`]: the only place where the time is read.
//! - [`codec`]: the JSON form of items.
//! - [`console`]: output of commands.
//! - [`crash`]: reports how a plugin or a signal terminated a process.
//! - [`digest`]: SHA-256 digests, of keys and of files.
//! - [`error`]: errors of items and requests.
//! - [`html_report`]: pages with plots (features `bench` and `calibrate`).
//! - [`json`]: parses JSON, with errors in the terms of JSON.
//! - [`latency`]: counts of latencies, and percentiles.
//! - [`metrics`]: the metrics of the server.
//! - [`model`]: the interface to a loaded model.
//! - [`niceness`]: scheduling niceness.
//! - [`resources`]: limits of worker processes as values.
//! - [`routes`]: the table of the server's routes.
//! - [`secret`]: text that must not be shown.
//! - [`suggest`]: suggestions for misspelled names.
//! - [`system_memory`]: the memory of the machine and of the cgroups of this process.
//! - [`tls`]: certificates and their replacement, and handshakes.
//! - [`trace_context`]: the context of a distributed trace.
//! - [`values`]: the values of items: inputs, outputs, tensors.

#[allow(
    unsafe_code,
    reason = "the options of the allocator are set by functions in C"
)]
pub mod allocator;
pub mod api;
pub mod app;
#[cfg(feature = "batch")]
pub mod batch;
pub mod batch_context;
pub mod batcher;
pub mod batching;
#[cfg(feature = "bench")]
pub mod bench;
pub mod build_info;
pub mod byte_budget;
pub mod calibration;
pub mod cl100k_base;
pub mod cli;
#[cfg(any(feature = "batch", feature = "bench", feature = "status"))]
#[cfg_attr(
    not(all(feature = "batch", feature = "bench")),
    allow(dead_code, reason = "each command uses another part of the client")
)]
pub mod client;
pub mod clock;
pub mod codec;
pub mod config;
pub mod console;
#[allow(
    unsafe_code,
    reason = "signal handlers and exit handlers are functions of the C library"
)]
pub mod crash;
pub mod digest;
pub mod engine;
pub mod error;
pub mod explanation;
#[cfg(feature = "grpc")]
pub mod grpc;
#[cfg(any(feature = "bench", feature = "calibrate"))]
pub mod html_report;
pub mod http;
pub mod init;
pub mod isolation;
pub mod jobs;
pub mod json;
pub mod latency;
pub mod loader;
pub mod logging;
pub mod metrics;
pub mod model;
pub mod niceness;
pub mod open_files;
pub mod registry;
pub mod reload;
pub mod resources;
pub mod routes;
pub mod scaffold;
pub mod secret;
pub mod signals;
#[cfg(feature = "status")]
pub mod status;
pub mod suggest;
pub mod system_memory;
pub mod tls;
pub mod trace_context;
pub mod values;
