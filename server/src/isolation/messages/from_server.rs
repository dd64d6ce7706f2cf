//! Requests of the server.

use std::borrow::Cow;

use bytes::Bytes;

use super::code;
use crate::isolation::encoding::{DecodeError, Decoder, Encoder};
use crate::model::SinkStatus;
use crate::values::ItemInput;

/// A message of the server.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::isolation) enum Request<'a> {
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
        /// Ids of their traces, for the log.
        traces: Cow<'a, str>,
        /// Handles of prepared items to drop.
        release: Vec<u64>,
        /// The items of the batch.
        items: Vec<BatchEntry<'a>>,
    },
    /// Drops prepared items.
    Release(Vec<u64>),
    /// The status of a part.
    PartStatus(SinkStatus),
    /// Creates an item of about this weight.
    Sample {
        /// Index of the task.
        task: u32,
        /// The weight.
        weight: u64,
    },
    /// Reads the memory of the model, and starts a new measurement of its peak.
    ReadMemory {
        /// Whether the process first returns free memory to the operating system.
        trim: bool,
    },
}

/// One item of a batch.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::isolation) enum BatchEntry<'a> {
    /// An item of a task that does not prepare items.
    Raw(Cow<'a, ItemInput>),
    /// An item that has to be prepared before the batch runs.
    Unprepared(Cow<'a, ItemInput>),
    /// The handle of an item that this process has prepared.
    Prepared(u64),
}

impl Request<'_> {
    pub(in crate::isolation) fn encode(&self) -> Encoder<'_> {
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
                traces,
                release,
                items,
            } => {
                let mut to = Encoder::new(code::PREDICT);
                to.u32(*task);
                to.text(requests);
                to.text(traces);
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
            Self::Sample { task, weight } => {
                let mut to = Encoder::new(code::SAMPLE);
                to.u32(*task);
                to.u64(*weight);
                to
            }
            Self::ReadMemory { trim } => {
                let mut to = Encoder::new(code::READ_MEMORY);
                to.u8(u8::from(*trim));
                to
            }
        }
    }

    pub(in crate::isolation) fn decode(message: &Bytes) -> Result<Request<'static>, DecodeError> {
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
                traces: Cow::Owned(from.text("ids of traces")?.to_owned()),
                release: decode_handles(&mut from)?,
                items: from.list("the items of a batch", BatchEntry::decode)?,
            },
            code::RELEASE => Request::Release(decode_handles(&mut from)?),
            code::PART_STATUS => Request::PartStatus(decode_status(from.u8("the status of a part")?)?),
            code::SAMPLE => Request::Sample {
                task: from.u32("a task")?,
                weight: from.u64("a weight")?,
            },
            code::READ_MEMORY => Request::ReadMemory {
                trim: from.u8("whether to trim")? != 0,
            },
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
