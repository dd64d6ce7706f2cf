//! The messages between the server and a child process.
//!
//! On each lane (`lane`), requests of the server and replies of the child alternate:
//!
//! | request of the server | reply of the child |
//! | --- | --- |
//! | [`Request::Load`] | [`Reply::Loaded`] or [`Reply::LoadFailed`] |
//! | [`Request::Prepare`] | [`Reply::Prepared`] or [`Reply::PrepareFailed`] |
//! | [`Request::Predict`] | any number of [`Reply::Part`], each answered with [`Request::PartStatus`], and then [`Reply::Done`] |
//! | [`Request::Release`] | [`Reply::Released`] |
//!
//! The server does not wait for [`Reply::Released`], but it reads the reply before it sends anything else on the lane, because
//! until then the child may use the lane's shared memory.
//!
//! The messages about loading contain JSON, since their content is JSON in any case. Messages about batches do not.

use std::borrow::Cow;

use bytes::Bytes;

use super::codec::{DecodeError, Decoder, Encoder};
use crate::error::ItemError;
use crate::model::{BatchError, SinkStatus};
use crate::values::{ItemInput, Tensor, Value};

/// A message of the server.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Request<'a> {
    /// Loads the model. Contains a `Setup` as JSON.
    Load(Bytes),
    /// Prepares an item and keeps the result.
    Prepare {
        /// Index of the task.
        task: u32,
        /// The item.
        item: Cow<'a, ItemInput>,
    },
    /// Runs a batch.
    Predict {
        /// Index of the task.
        task: u32,
        /// Ids of the requests, for the log.
        requests: Cow<'a, str>,
        /// Handles of prepared items to drop.
        release: Vec<u64>,
        /// The items of the batch.
        items: Vec<BatchEntry<'a>>,
    },
    /// Drops prepared items.
    Release(Vec<u64>),
    /// The status of a part.
    PartStatus(SinkStatus),
}

/// One item of a batch.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum BatchEntry<'a> {
    /// An item of a task that does not prepare items.
    Raw(Cow<'a, ItemInput>),
    /// An item that has to be prepared before the batch runs.
    Unprepared(Cow<'a, ItemInput>),
    /// The handle of an item that this process has prepared.
    Prepared(u64),
}

/// A message of the child.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Reply {
    /// The model has been loaded. Contains its manifest as JSON.
    Loaded(Bytes),
    /// The model could not be loaded. Contains a `LoadFailure` as JSON.
    LoadFailed(Bytes),
    /// The item has been prepared.
    Prepared {
        /// Handle of the item.
        handle: u64,
        /// See [`PreparedItem`](crate::model::PreparedItem).
        weight: u64,
        /// See [`PreparedItem`](crate::model::PreparedItem).
        group: u64,
    },
    /// The item could not be prepared.
    PrepareFailed(ItemError),
    /// The prepared items have been dropped.
    Released,
    /// A part of the output of an item, with more to follow.
    Part {
        /// Index of the item.
        index: u32,
        /// The part.
        value: Value,
    },
    /// The batch has been run.
    Done {
        /// The result of the model.
        result: Result<(), BatchError>,
        /// The outcomes in the order in which the model emitted them.
        outcomes: Vec<Outcome>,
        /// Whether the plugin logged an error while it ran the batch.
        logged_error: bool,
    },
}

/// An outcome that a model emitted.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Outcome {
    /// The output of an item, or the last part of it.
    Output {
        /// Index of the item.
        index: u32,
        /// The output.
        value: Value,
    },
    /// The outputs of all items.
    Rows(Vec<Tensor>),
    /// An item failed.
    Failure {
        /// Index of the item.
        index: u32,
        /// The error.
        error: ItemError,
    },
    /// The weight of an item. It is not an outcome by itself.
    Weight {
        /// Index of the item.
        index: u32,
        /// The weight.
        weight: u64,
    },
}

mod code {
    pub(super) const LOAD: u8 = 1;
    pub(super) const PREPARE: u8 = 2;
    pub(super) const PREDICT: u8 = 3;
    pub(super) const RELEASE: u8 = 4;
    pub(super) const PART_STATUS: u8 = 5;

    pub(super) const LOADED: u8 = 65;
    pub(super) const LOAD_FAILED: u8 = 66;
    pub(super) const PREPARED: u8 = 67;
    pub(super) const PREPARE_FAILED: u8 = 68;
    pub(super) const PART: u8 = 69;
    pub(super) const DONE: u8 = 70;
    pub(super) const RELEASED: u8 = 71;
}

impl Request<'_> {
    pub(super) fn encode(&self) -> Encoder<'_> {
        match self {
            Self::Load(setup) => {
                let mut to = Encoder::new(code::LOAD);
                to.payload(setup);
                to
            }
            Self::Prepare { task, item } => {
                let mut to = Encoder::new(code::PREPARE);
                to.u32(*task);
                to.item(item);
                to
            }
            Self::Predict {
                task,
                requests,
                release,
                items,
            } => {
                let mut to = Encoder::new(code::PREDICT);
                to.u32(*task);
                to.text(requests);
                encode_handles(&mut to, release);
                to.count(items.len());
                for entry in items {
                    entry.encode(&mut to);
                }
                to
            }
            Self::Release(handles) => {
                let mut to = Encoder::new(code::RELEASE);
                encode_handles(&mut to, handles);
                to
            }
            Self::PartStatus(status) => {
                let mut to = Encoder::new(code::PART_STATUS);
                to.u8(status_code(*status));
                to
            }
        }
    }

    pub(super) fn decode(message: &Bytes) -> Result<Request<'static>, DecodeError> {
        let (code, mut from) = Decoder::new(message)?;
        let request = match code {
            code::LOAD => Request::Load(from.payload("the setup")?),
            code::PREPARE => Request::Prepare {
                task: from.u32("a task")?,
                item: Cow::Owned(from.item()?),
            },
            code::PREDICT => Request::Predict {
                task: from.u32("a task")?,
                requests: Cow::Owned(from.text("ids of requests")?.to_owned()),
                release: decode_handles(&mut from)?,
                items: from.list("the items of a batch", BatchEntry::decode)?,
            },
            code::RELEASE => Request::Release(decode_handles(&mut from)?),
            code::PART_STATUS => Request::PartStatus(decode_status(from.u8("the status of a part")?)?),
            code => {
                return Err(DecodeError::UnknownCode {
                    what: "a request",
                    code,
                });
            }
        };
        from.finish()?;
        Ok(request)
    }
}

impl BatchEntry<'_> {
    const RAW: u8 = 1;
    const UNPREPARED: u8 = 2;
    const PREPARED: u8 = 3;

    fn encode<'a>(&'a self, to: &mut Encoder<'a>) {
        match self {
            Self::Raw(item) => {
                to.u8(Self::RAW);
                to.item(item);
            }
            Self::Unprepared(item) => {
                to.u8(Self::UNPREPARED);
                to.item(item);
            }
            Self::Prepared(handle) => {
                to.u8(Self::PREPARED);
                to.u64(*handle);
            }
        }
    }

    fn decode(from: &mut Decoder<'_>) -> Result<BatchEntry<'static>, DecodeError> {
        match from.u8("an item of a batch")? {
            Self::RAW => from.item().map(Cow::Owned).map(BatchEntry::Raw),
            Self::UNPREPARED => from.item().map(Cow::Owned).map(BatchEntry::Unprepared),
            Self::PREPARED => from.u64("a handle").map(BatchEntry::Prepared),
            code => Err(DecodeError::UnknownCode {
                what: "an item of a batch",
                code,
            }),
        }
    }
}

impl Reply {
    /// Whether this ends a batch that the server retries in halves, for which the child keeps prepared items.
    pub(super) fn is_retried_in_halves(&self) -> bool {
        matches!(self, Self::Done { result: Err(error), .. } if error.may_succeed_in_halves())
    }

    pub(super) fn encode(&self) -> Encoder<'_> {
        match self {
            Self::Loaded(manifest) => {
                let mut to = Encoder::new(code::LOADED);
                to.payload(manifest);
                to
            }
            Self::LoadFailed(failure) => {
                let mut to = Encoder::new(code::LOAD_FAILED);
                to.payload(failure);
                to
            }
            Self::Prepared {
                handle,
                weight,
                group,
            } => {
                let mut to = Encoder::new(code::PREPARED);
                to.u64(*handle);
                to.u64(*weight);
                to.u64(*group);
                to
            }
            Self::PrepareFailed(error) => {
                let mut to = Encoder::new(code::PREPARE_FAILED);
                to.item_error(error);
                to
            }
            Self::Released => Encoder::new(code::RELEASED),
            Self::Part { index, value } => {
                let mut to = Encoder::new(code::PART);
                to.u32(*index);
                to.value(value);
                to
            }
            Self::Done {
                result,
                outcomes,
                logged_error,
            } => {
                let mut to = Encoder::new(code::DONE);
                match result {
                    Ok(()) => to.u8(0),
                    Err(error) => {
                        to.u8(1);
                        to.batch_error(error);
                    }
                }
                to.count(outcomes.len());
                for outcome in outcomes {
                    outcome.encode(&mut to);
                }
                to.u8(u8::from(*logged_error));
                to
            }
        }
    }

    pub(super) fn decode(message: &Bytes) -> Result<Self, DecodeError> {
        let (code, mut from) = Decoder::new(message)?;
        let reply = match code {
            code::LOADED => Self::Loaded(from.payload("a manifest")?),
            code::LOAD_FAILED => Self::LoadFailed(from.payload("the reason of a failed load")?),
            code::PREPARED => Self::Prepared {
                handle: from.u64("a handle")?,
                weight: from.u64("a weight")?,
                group: from.u64("a group")?,
            },
            code::PREPARE_FAILED => Self::PrepareFailed(from.item_error()?),
            code::RELEASED => Self::Released,
            code::PART => Self::Part {
                index: from.u32("the index of an item")?,
                value: from.value()?,
            },
            code::DONE => Self::Done {
                result: match from.u8("the result of a batch")? {
                    0 => Ok(()),
                    1 => Err(from.batch_error()?),
                    code => {
                        return Err(DecodeError::UnknownCode {
                            what: "the result of a batch",
                            code,
                        });
                    }
                },
                outcomes: from.list("the outcomes of a batch", Outcome::decode)?,
                logged_error: from.u8("whether an error was logged")? != 0,
            },
            code => {
                return Err(DecodeError::UnknownCode {
                    what: "a reply",
                    code,
                });
            }
        };
        from.finish()?;
        Ok(reply)
    }
}

impl Outcome {
    const OUTPUT: u8 = 1;
    const ROWS: u8 = 2;
    const FAILURE: u8 = 3;
    const WEIGHT: u8 = 4;

    fn encode<'a>(&'a self, to: &mut Encoder<'a>) {
        match self {
            Self::Output { index, value } => {
                to.u8(Self::OUTPUT);
                to.u32(*index);
                to.value(value);
            }
            Self::Rows(tensors) => {
                to.u8(Self::ROWS);
                to.tensors(tensors);
            }
            Self::Failure { index, error } => {
                to.u8(Self::FAILURE);
                to.u32(*index);
                to.item_error(error);
            }
            Self::Weight { index, weight } => {
                to.u8(Self::WEIGHT);
                to.u32(*index);
                to.u64(*weight);
            }
        }
    }

    fn decode(from: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        match from.u8("an outcome")? {
            Self::OUTPUT => Ok(Self::Output {
                index: from.u32("the index of an item")?,
                value: from.value()?,
            }),
            Self::ROWS => from.tensors().map(Self::Rows),
            Self::FAILURE => Ok(Self::Failure {
                index: from.u32("the index of an item")?,
                error: from.item_error()?,
            }),
            Self::WEIGHT => Ok(Self::Weight {
                index: from.u32("the index of an item")?,
                weight: from.u64("the weight of an item")?,
            }),
            code => Err(DecodeError::UnknownCode {
                what: "an outcome",
                code,
            }),
        }
    }
}

fn encode_handles(to: &mut Encoder<'_>, handles: &[u64]) {
    to.count(handles.len());
    for &handle in handles {
        to.u64(handle);
    }
}

fn decode_handles(from: &mut Decoder<'_>) -> Result<Vec<u64>, DecodeError> {
    from.list("handles", |from| from.u64("a handle"))
}

fn status_code(status: SinkStatus) -> u8 {
    match status {
        SinkStatus::Accepted => 0,
        SinkStatus::Cancelled => 1,
        SinkStatus::Rejected => 2,
        SinkStatus::NotStreaming => 3,
    }
}

fn decode_status(code: u8) -> Result<SinkStatus, DecodeError> {
    match code {
        0 => Ok(SinkStatus::Accepted),
        1 => Ok(SinkStatus::Cancelled),
        2 => Ok(SinkStatus::Rejected),
        3 => Ok(SinkStatus::NotStreaming),
        code => Err(DecodeError::UnknownCode {
            what: "the status of a part",
            code,
        }),
    }
}
