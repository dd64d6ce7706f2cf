//! The test harness: a scenario builder, a client, and functions that wait for observable conditions.
//!
//! The server is the real executable with real plugins, with its own port and directory. The harness interacts with it only through
//! sockets, signals, its log and its metrics.

pub(crate) mod browser;
pub(crate) mod client;
pub(crate) mod clients;
pub(crate) mod collector;
pub(crate) mod effort;
pub(crate) mod eventually;
pub(crate) mod gate;
pub(crate) mod grpc;
pub(crate) mod gzip;
pub(crate) mod haproxy;
pub(crate) mod http2;
pub(crate) mod load;
pub(crate) mod log;
pub(crate) mod metrics;
pub(crate) mod misbehave;
pub(crate) mod numbered_jobs;
pub(crate) mod plugins;
pub(crate) mod postgres;
pub(crate) mod processes;
pub(crate) mod prometheus;
pub(crate) mod raw;
pub(crate) mod resources;
pub(crate) mod scenario;
pub(crate) mod server;
pub(crate) mod shipped_proxy;
pub(crate) mod small_disk;
pub(crate) mod tls;
pub(crate) mod tools;
pub(crate) mod vectors;
pub(crate) mod visit;

pub(crate) use client::{Client, Pending, Reply};
pub(crate) use effort::{rounds, seed};
pub(crate) use eventually::eventually;
pub(crate) use metrics::Metrics;
pub(crate) use scenario::Scenario;
pub(crate) use server::{Server, Signal};
