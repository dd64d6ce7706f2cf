//! Stores of durable jobs: each passes the same [`conformance`] suite, also when calls to it fail.

mod conformance;
mod crashes;
mod faults;
mod fixture;
mod postgres;
mod sqlite;
