//! Tests messages and channels within this process. The integration tests run real child processes.

mod channels;
mod messages;
mod remote;

use std::borrow::Cow;

use bytes::Bytes;
use proptest::prelude::*;

use super::encoding::Encoder;
use super::messages::{BatchEntry, Outcome, Reply, Request};
use crate::error::ItemError;
use crate::model::{BatchError, MemoryUsage, SinkStatus};
use crate::values::{DType, ItemInput, Tensor, Value};

/// The message as it is received.
fn bytes_of(mut message: Encoder<'_>) -> Bytes {
    let length = message.len();
    let bytes: Vec<u8> = message.parts().flatten().copied().collect();
    assert_eq!(bytes.len(), length, "`len` is the length of the parts");
    Bytes::from(bytes)
}

fn payload() -> impl Strategy<Value = Bytes> {
    prop::collection::vec(any::<u8>(), 0..200).prop_map(Bytes::from)
}

fn tensor() -> impl Strategy<Value = Tensor> {
    ("[a-z]{0,8}", prop::collection::vec(0u64..5, 0..4), any::<u8>()).prop_map(|(name, shape, byte)| {
        let length = shape.iter().product::<u64>() as usize * 4;
        let data = Bytes::from(vec![byte; length]);
        Tensor::new(name, DType::Fp32, shape, data).expect("four bytes for each element")
    })
}

fn value() -> impl Strategy<Value = Value> {
    prop_oneof![
        ".{0,40}".prop_map(|text| Value::Text(Bytes::from(text))),
        (payload(), "[a-z]{0,5}/[a-z]{0,5}").prop_map(|(data, media_type)| Value::Bytes { data, media_type }),
        ".{0,40}".prop_map(|text| Value::Json(Bytes::from(serde_json::json!([text]).to_string()))),
        prop::collection::vec(tensor(), 0..4).prop_map(Value::Tensors),
    ]
}

fn item() -> impl Strategy<Value = ItemInput> {
    (value(), payload()).prop_map(|(value, parameters)| ItemInput { value, parameters })
}

fn item_error() -> impl Strategy<Value = ItemError> {
    ".{0,20}".prop_flat_map(|message| {
        prop::sample::select(vec![
            ItemError::Invalid(message.clone()),
            ItemError::Fault(message.clone()),
            ItemError::OutOfMemory(message.clone()),
            ItemError::Unsupported(message),
        ])
    })
}

fn entry() -> impl Strategy<Value = BatchEntry<'static>> {
    prop_oneof![
        item().prop_map(Cow::Owned).prop_map(BatchEntry::Raw),
        item().prop_map(Cow::Owned).prop_map(BatchEntry::Unprepared),
        any::<u64>().prop_map(BatchEntry::Prepared),
    ]
}

fn handles() -> impl Strategy<Value = Vec<u64>> {
    prop::collection::vec(any::<u64>(), 0..5)
}

fn request() -> impl Strategy<Value = Request<'static>> {
    let status = prop::sample::select(vec![
        SinkStatus::Accepted,
        SinkStatus::Cancelled,
        SinkStatus::Rejected,
        SinkStatus::NotStreaming,
    ]);
    prop_oneof![
        payload().prop_map(Request::Load),
        (any::<u32>(), item().prop_map(Cow::Owned)).prop_map(|(task, item)| Request::Prepare { task, item }),
        (any::<u32>(), handles(), prop::collection::vec(entry(), 0..8)).prop_map(|(task, release, items)| {
            Request::Predict {
                task,
                requests: "a,b".into(),
                traces: "c".into(),
                release,
                items,
            }
        }),
        handles().prop_map(Request::Release),
        status.prop_map(Request::PartStatus),
        (any::<u32>(), any::<u64>()).prop_map(|(task, weight)| Request::Sample { task, weight }),
        any::<bool>().prop_map(|trim| Request::ReadMemory { trim }),
    ]
}

fn outcome() -> impl Strategy<Value = Outcome> {
    prop_oneof![
        (any::<u32>(), value()).prop_map(|(index, value)| Outcome::Output { index, value }),
        prop::collection::vec(tensor(), 0..3).prop_map(Outcome::Rows),
        (any::<u32>(), item_error()).prop_map(|(index, error)| Outcome::Failure { index, error }),
        (any::<u32>(), any::<u64>()).prop_map(|(index, weight)| Outcome::Weight { index, weight }),
    ]
}

fn reply() -> impl Strategy<Value = Reply> {
    let result = prop_oneof![
        Just(Ok(())),
        ".{0,20}".prop_map(|message| Err(BatchError::OutOfMemory(message))),
        ".{0,20}".prop_map(|message| Err(BatchError::Panicked(message))),
        item_error().prop_map(|error| Err(BatchError::Failed(error))),
        item_error().prop_map(|error| Err(BatchError::TooLarge(error))),
    ];
    prop_oneof![
        payload().prop_map(Reply::Loaded),
        payload().prop_map(Reply::LoadFailed),
        (any::<u64>(), any::<u64>(), any::<u64>()).prop_map(|(handle, weight, group)| Reply::Prepared {
            handle,
            weight,
            group
        }),
        item_error().prop_map(Reply::PrepareFailed),
        Just(Reply::Released),
        payload().prop_map(Reply::Sampled),
        (any::<Option<(u64, u64)>>(), any::<u64>()).prop_map(|(usage, batch_nanos)| Reply::Memory {
            usage: usage.map(|(current, peak)| MemoryUsage { current, peak }),
            batch_nanos,
        }),
        (any::<u32>(), value()).prop_map(|(index, value)| Reply::Part { index, value }),
        (result, prop::collection::vec(outcome(), 0..8)).prop_map(|(result, outcomes)| Reply::Done {
            result,
            outcomes,
            logged_error: true,
        }),
    ]
}
