//! Replies of the child process.

use bytes::Bytes;

use super::code;
use crate::error::ItemError;
use crate::isolation::encoding::{DecodeError, Decoder, Encoder};
use crate::model::{BatchError, MemoryUsage};
use crate::values::{Tensor, Value};

/// A message of the child.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::isolation) enum Reply {
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
    /// An item as JSON. Empty if there is no item of the requested weight.
    Sampled(Bytes),
    /// The memory of the model.
    Memory {
        /// As the model reports it.
        usage: Option<MemoryUsage>,
        /// Time that the model took for its last batch, in nanoseconds.
        batch_nanos: u64,
    },
}

/// An outcome that a model emitted.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::isolation) enum Outcome {
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

impl Reply {
    /// Whether this ends a batch that the server retries in halves, for which the child keeps prepared items.
    pub(in crate::isolation) fn is_retried_in_halves(&self) -> bool {
        matches!(self, Self::Done { result: Err(error), .. } if error.may_succeed_in_halves())
    }

    pub(in crate::isolation) fn encode(&self) -> Encoder<'_> {
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
            Self::Sampled(item) => {
                let mut to = Encoder::new(code::SAMPLED);
                to.payload(item);
                to
            }
            Self::Memory { usage, batch_nanos } => {
                let mut to = Encoder::new(code::MEMORY);
                to.u8(u8::from(usage.is_some()));
                to.u64(usage.map_or(0, |usage| usage.current));
                to.u64(usage.map_or(0, |usage| usage.peak));
                to.u64(*batch_nanos);
                to
            }
        }
    }

    pub(in crate::isolation) fn decode(message: &Bytes) -> Result<Self, DecodeError> {
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
            code::SAMPLED => Self::Sampled(from.payload("an item")?),
            code::MEMORY => {
                let is_reported = from.u8("whether the model reports its memory")? != 0;
                let usage = MemoryUsage {
                    current: from.u64("the memory in use")?,
                    peak: from.u64("the peak of the memory")?,
                };
                Self::Memory {
                    usage: is_reported.then_some(usage),
                    batch_nanos: from.u64("the time of a batch")?,
                }
            }
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
