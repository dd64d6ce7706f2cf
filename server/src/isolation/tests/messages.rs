//! Messages are decoded as they were encoded, and malformed messages are rejected.

use std::borrow::Cow;

use bytes::Bytes;
use proptest::prelude::*;

use super::{bytes_of, reply, request};
use crate::isolation::messages::{BatchEntry, Outcome, Reply, Request};
use crate::values::{ItemInput, Value};

proptest! {
    #[test]
    fn requests_are_decoded_as_they_were_encoded(request in request()) {
        prop_assert_eq!(Request::decode(&bytes_of(request.encode())), Ok(request));
    }

    #[test]
    fn replies_are_decoded_as_they_were_encoded(reply in reply()) {
        prop_assert_eq!(Reply::decode(&bytes_of(reply.encode())), Ok(reply));
    }

    #[test]
    fn a_truncated_message_is_rejected(reply in reply(), at in any::<prop::sample::Index>()) {
        let whole = bytes_of(reply.encode());
        let cut = whole.slice(..at.index(whole.len()));
        prop_assert!(Reply::decode(&cut).is_err());
    }

    #[test]
    fn a_message_with_trailing_bytes_is_rejected(reply in reply()) {
        let mut longer = bytes_of(reply.encode()).to_vec();
        longer.push(0);
        prop_assert!(Reply::decode(&Bytes::from(longer)).is_err());
    }

    /// The memory of a plugin may be corrupted. A corrupted message that is valid cannot be detected.
    #[test]
    fn decoding_a_corrupted_message_does_not_panic(
        reply in reply(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
    ) {
        let mut corrupted = bytes_of(reply.encode()).to_vec();
        for (at, byte) in changes {
            let at = at.index(corrupted.len());
            corrupted[at] = byte;
        }
        let _ = Reply::decode(&Bytes::from(corrupted));
    }

    #[test]
    fn decoding_random_bytes_does_not_panic(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        let bytes = Bytes::from(bytes);
        let _ = Reply::decode(&bytes);
        let _ = Request::decode(&bytes);
    }
}

#[test]
fn a_list_longer_than_the_message_does_not_allocate_memory() {
    // The head of a reply that announces four billion outcomes.
    let mut message = vec![6, 0, 0, 0, 70, 0];
    message.extend(u32::MAX.to_le_bytes());
    let error = Reply::decode(&Bytes::from(message)).expect_err("the outcomes are missing");
    assert_eq!(error.to_string(), "it ends within the outcomes of a batch");
}

#[test]
fn text_and_json_are_validated() {
    for value in [
        Value::Text(Bytes::from_static(b"\xff")),
        Value::Json(Bytes::from_static(b"{\"a\":")),
        Value::Json(Bytes::from_static(b"\"\xff\"")),
    ] {
        let done = Reply::Done {
            result: Ok(()),
            outcomes: vec![Outcome::Output { index: 0, value }],
            logged_error: false,
        };
        Reply::decode(&bytes_of(done.encode())).expect_err("the value is invalid");
    }
}

#[test]
fn payloads_are_neither_copied_when_encoded_nor_when_decoded() {
    let data = Bytes::from(vec![7; 1000]);
    let value = Value::Bytes {
        data: data.clone(),
        media_type: String::new(),
    };
    let item = ItemInput {
        value,
        parameters: Bytes::new(),
    };
    let request = Request::Predict {
        task: 0,
        requests: "".into(),
        traces: "".into(),
        release: Vec::new(),
        items: vec![BatchEntry::Raw(Cow::Borrowed(&item))],
    };
    let mut message = request.encode();
    assert!(message.parts().any(|part| part.as_ptr() == data.as_ptr()));
    let received = bytes_of(message);
    let Ok(Request::Predict { items, .. }) = Request::decode(&received) else {
        panic!("expected a batch")
    };
    let [BatchEntry::Raw(item)] = items.as_slice() else {
        panic!("expected one item")
    };
    let Value::Bytes { data, .. } = &item.value else {
        panic!("expected bytes")
    };
    assert!(received.as_ptr_range().contains(&data.as_ptr()));
    let offset = data.as_ptr().addr() - received.as_ptr().addr();
    assert_eq!(offset % 8, 0, "the payload is aligned");
}
