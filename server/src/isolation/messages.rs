//! The messages between the server and a child process.
//!
//! On each channel (`channel`), requests of the server and replies of the child alternate:
//!
//! | request of the server | reply of the child |
//! | --- | --- |
//! | [`Request::Load`] | [`Reply::Loaded`] or [`Reply::LoadFailed`] |
//! | [`Request::Prepare`] | [`Reply::Prepared`] or [`Reply::PrepareFailed`] |
//! | [`Request::Predict`] | any number of [`Reply::Part`], each answered with [`Request::PartStatus`], and then [`Reply::Done`] |
//! | [`Request::Release`] | [`Reply::Released`] |
//! | [`Request::Sample`] | [`Reply::Sampled`] or [`Reply::PrepareFailed`] |
//! | [`Request::ReadMemory`] | [`Reply::Memory`] |
//!
//! The server does not wait for [`Reply::Released`], but it reads the reply before it sends anything else on the channel, because
//! until then the child may use the channel's shared memory.
//!
//! The messages about loading contain JSON, since their content is JSON in any case. Messages about batches do not.

mod from_child;
mod from_server;

pub(super) use from_child::{Outcome, Reply};
pub(super) use from_server::{BatchEntry, Request};

mod code {
    pub(super) const LOAD: u8 = 1;
    pub(super) const PREPARE: u8 = 2;
    pub(super) const PREDICT: u8 = 3;
    pub(super) const RELEASE: u8 = 4;
    pub(super) const PART_STATUS: u8 = 5;
    pub(super) const SAMPLE: u8 = 6;
    pub(super) const READ_MEMORY: u8 = 7;

    pub(super) const LOADED: u8 = 65;
    pub(super) const LOAD_FAILED: u8 = 66;
    pub(super) const PREPARED: u8 = 67;
    pub(super) const PREPARE_FAILED: u8 = 68;
    pub(super) const PART: u8 = 69;
    pub(super) const DONE: u8 = 70;
    pub(super) const RELEASED: u8 = 71;
    pub(super) const SAMPLED: u8 = 72;
    pub(super) const MEMORY: u8 = 73;
}
