//! The messages between the server and a child process.
//!
//! They travel in lanes (`transport`), on each of which the server asks and the child answers, strictly in turns:
//!
//! | the server asks | the child answers |
//! | --- | --- |
//! | [`Request::Load`] | [`Reply::Loaded`] or [`Reply::Refused`] |
//! | [`Request::Prepare`] | [`Reply::Prepared`] or [`Reply::Failed`] |
//! | [`Request::Predict`] | any number of [`Reply::Part`], each of which the server answers with [`Request::Status`], and then [`Reply::Done`] |
//! | [`Request::Release`] | [`Reply::Released`] |
//!
//! The server does not wait for [`Reply::Released`], but reads it before it sends anything else on the lane: until then the
//! memory of the lane may be lent to the child.
//!
//! The two messages of a start hold JSON, as what they carry is JSON anyway; what is said for a batch never is.

use std::borrow::Cow;

use bytes::Bytes;

use super::codec::{Decoder, Encoder, WireError};
use crate::error::ItemError;
use crate::model::{BatchError, SinkStatus};
use crate::values::{ItemInput, Tensor, Value};

/// What the server says.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Request<'a> {
    /// Load the model; a `Setup` as JSON.
    Load(Bytes),
    /// Prepare an item and keep it.
    Prepare {
        /// Index of the task.
        task: u32,
        /// The item.
        item: Cow<'a, ItemInput>,
    },
    /// Run a batch.
    Predict {
        /// Index of the task.
        task: u32,
        /// Ids of the requests, for the log.
        requests: Cow<'a, str>,
        /// Prepared items that are not needed any more.
        release: Vec<u64>,
        /// The batch.
        items: Vec<Entry<'a>>,
    },
    /// These prepared items are not needed any more.
    Release(Vec<u64>),
    /// What became of a part.
    Status(SinkStatus),
}

/// One item of a batch.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Entry<'a> {
    /// An item of a task that does not prepare.
    Raw(Cow<'a, ItemInput>),
    /// An item that this child has not prepared and has to, before it runs the batch.
    Unprepared(Cow<'a, ItemInput>),
    /// An item that this child has prepared and kept.
    Held(u64),
}

/// What the child says.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Reply {
    /// The model is loaded; its manifest as JSON.
    Loaded(Bytes),
    /// The model is not loaded; a `LoadFailure` as JSON.
    Refused(Bytes),
    /// The item is prepared and kept.
    Prepared {
        /// What it is kept under.
        handle: u64,
        /// See [`PreparedItem`](crate::model::PreparedItem).
        weight: u64,
        /// See [`PreparedItem`](crate::model::PreparedItem).
        group: u64,
    },
    /// The item cannot be prepared.
    Failed(ItemError),
    /// The prepared items are dropped.
    Released,
    /// A part of the output of an item; more follow.
    Part {
        /// Which item.
        index: u32,
        /// The part.
        value: Value,
    },
    /// The batch has been run.
    Done {
        /// What the model returned.
        result: Result<(), BatchError>,
        /// What it put into the sink, in that order.
        outcomes: Vec<Outcome>,
        /// Whether the plugin logged an error while it ran the batch.
        logged: bool,
    },
}

/// Something that a model put into its sink.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Outcome {
    /// The output, or the last part of it, of one item.
    Output {
        /// Which item.
        index: u32,
        /// The output.
        value: Value,
    },
    /// The outputs of all items.
    Rows(Vec<Tensor>),
    /// The failure of one item.
    Failure {
        /// Which item.
        index: u32,
        /// Why.
        error: ItemError,
    },
    /// The weight of one item, which settles nothing.
    Weight {
        /// Which item.
        index: u32,
        /// How much.
        weight: u64,
    },
}

mod code {
    pub(super) const LOAD: u8 = 1;
    pub(super) const PREPARE: u8 = 2;
    pub(super) const PREDICT: u8 = 3;
    pub(super) const RELEASE: u8 = 4;
    pub(super) const STATUS: u8 = 5;

    pub(super) const LOADED: u8 = 65;
    pub(super) const REFUSED: u8 = 66;
    pub(super) const PREPARED: u8 = 67;
    pub(super) const FAILED: u8 = 68;
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
            Self::Status(status) => {
                let mut to = Encoder::new(code::STATUS);
                to.u8(status_code(*status));
                to
            }
        }
    }

    pub(super) fn decode(message: &Bytes) -> Result<Request<'static>, WireError> {
        let (code, mut from) = Decoder::new(message)?;
        let request = match code {
            code::LOAD => Request::Load(from.payload("the settings of a start")?),
            code::PREPARE => Request::Prepare {
                task: from.u32("a task")?,
                item: Cow::Owned(from.item()?),
            },
            code::PREDICT => Request::Predict {
                task: from.u32("a task")?,
                requests: Cow::Owned(from.text("ids of requests")?.to_owned()),
                release: decode_handles(&mut from)?,
                items: from.list("the items of a batch", Entry::decode)?,
            },
            code::RELEASE => Request::Release(decode_handles(&mut from)?),
            code::STATUS => Request::Status(decode_status(from.u8("the status of a part")?)?),
            code => {
                return Err(WireError::Code {
                    what: "a request",
                    code,
                });
            }
        };
        from.end()?;
        Ok(request)
    }
}

impl Entry<'_> {
    const RAW: u8 = 1;
    const UNPREPARED: u8 = 2;
    const HELD: u8 = 3;

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
            Self::Held(handle) => {
                to.u8(Self::HELD);
                to.u64(*handle);
            }
        }
    }

    fn decode(from: &mut Decoder<'_>) -> Result<Entry<'static>, WireError> {
        match from.u8("an item of a batch")? {
            Self::RAW => from.item().map(Cow::Owned).map(Entry::Raw),
            Self::UNPREPARED => from.item().map(Cow::Owned).map(Entry::Unprepared),
            Self::HELD => from.u64("a handle").map(Entry::Held),
            code => Err(WireError::Code {
                what: "an item of a batch",
                code,
            }),
        }
    }
}

impl Reply {
    /// Whether it is the end of a batch that comes back in halves, for which the child keeps what it has prepared.
    pub(super) fn is_run_again(&self) -> bool {
        matches!(self, Self::Done { result: Err(error), .. } if error.may_succeed_in_halves())
    }

    pub(super) fn encode(&self) -> Encoder<'_> {
        match self {
            Self::Loaded(manifest) => {
                let mut to = Encoder::new(code::LOADED);
                to.payload(manifest);
                to
            }
            Self::Refused(failure) => {
                let mut to = Encoder::new(code::REFUSED);
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
            Self::Failed(error) => {
                let mut to = Encoder::new(code::FAILED);
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
                logged,
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
                to.u8(u8::from(*logged));
                to
            }
        }
    }

    pub(super) fn decode(message: &Bytes) -> Result<Self, WireError> {
        let (code, mut from) = Decoder::new(message)?;
        let reply = match code {
            code::LOADED => Self::Loaded(from.payload("a manifest")?),
            code::REFUSED => Self::Refused(from.payload("the reason of a refusal")?),
            code::PREPARED => Self::Prepared {
                handle: from.u64("a handle")?,
                weight: from.u64("a weight")?,
                group: from.u64("a group")?,
            },
            code::FAILED => Self::Failed(from.item_error()?),
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
                        return Err(WireError::Code {
                            what: "the result of a batch",
                            code,
                        });
                    }
                },
                outcomes: from.list("the outcomes of a batch", Outcome::decode)?,
                logged: from.u8("whether an error was logged")? != 0,
            },
            code => {
                return Err(WireError::Code {
                    what: "a reply",
                    code,
                });
            }
        };
        from.end()?;
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

    fn decode(from: &mut Decoder<'_>) -> Result<Self, WireError> {
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
            code => Err(WireError::Code {
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

fn decode_handles(from: &mut Decoder<'_>) -> Result<Vec<u64>, WireError> {
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

fn decode_status(code: u8) -> Result<SinkStatus, WireError> {
    match code {
        0 => Ok(SinkStatus::Accepted),
        1 => Ok(SinkStatus::Cancelled),
        2 => Ok(SinkStatus::Rejected),
        3 => Ok(SinkStatus::NotStreaming),
        code => Err(WireError::Code {
            what: "the status of a part",
            code,
        }),
    }
}
