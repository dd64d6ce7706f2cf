//! Tests of the whole product: the real executable, real plugins, real sockets.
//!
//! Each module is one promise to users. What they need to be run is in [`harness`].

mod harness;

mod admission;
mod amplification;
mod bad_requests;
mod batch_log;
mod batching;
mod bench_command;
mod browser;
mod chaos;
mod clip;
mod commands;
mod connections;
mod content_types;
mod conventions;
mod crashes;
mod disconnects;
mod documentation;
mod draining;
mod existing_clients;
mod exit_paths;
mod faults;
mod frozen_abi;
mod fuzz;
mod grpc_surface;
mod hostile_input;
mod http_semantics;
mod http_surface;
mod inflight_bytes;
mod isolation;
mod isolation_limits;
mod isolation_prepare;
mod isolation_processes;
mod keys;
mod layers;
mod loading;
mod metric_names;
mod onnx_conformance;
mod onnx_runtime;
mod openapi;
mod precedence;
mod python;
mod quickstart;
mod reload;
mod reload_refused;
mod reload_under_load;
mod repository;
mod request_metrics;
mod responsiveness;
mod sentence_embeddings;
mod shutdown;
mod slow_clients;
mod soak;
mod stuck;
