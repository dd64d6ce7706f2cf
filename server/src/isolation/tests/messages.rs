//! What is written is read back as it was, and whatever else comes is refused without harm.

use std::borrow::Cow;

use bytes::Bytes;
use proptest::prelude::*;

use super::{bytes_of, reply, request};
use crate::isolation::messages::{Entry, Outcome, Reply, Request};
use crate::values::{ItemInput, Value};

proptest! {
    #[test]
    fn requests_are_read_back_as_they_were_written(request in request()) {
        prop_assert_eq!(Request::decode(&bytes_of(request.encode())), Ok(request));
    }

    #[test]
    fn replies_are_read_back_as_they_were_written(reply in reply()) {
        prop_assert_eq!(Reply::decode(&bytes_of(reply.encode())), Ok(reply));
    }

    #[test]
    fn a_message_that_is_cut_off_is_refused(reply in reply(), at in any::<prop::sample::Index>()) {
        let whole = bytes_of(reply.encode());
        let cut = whole.slice(..at.index(whole.len()));
        prop_assert!(Reply::decode(&cut).is_err());
    }

    #[test]
    fn a_message_with_something_behind_it_is_refused(reply in reply()) {
        let mut longer = bytes_of(reply.encode()).to_vec();
        longer.push(0);
        prop_assert!(Reply::decode(&Bytes::from(longer)).is_err());
    }

    /// As the memory of a plugin may be damaged, so may be what it sends. Damage that makes another message is not found.
    #[test]
    fn a_damaged_message_is_refused_or_means_something_else_but_does_no_harm(
        reply in reply(),
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
    ) {
        let mut damaged = bytes_of(reply.encode()).to_vec();
        for (at, byte) in damage {
            let at = at.index(damaged.len());
            damaged[at] = byte;
        }
        let _ = Reply::decode(&Bytes::from(damaged));
    }

    #[test]
    fn noise_is_refused_or_means_something_but_does_no_harm(noise in prop::collection::vec(any::<u8>(), 0..400)) {
        let noise = Bytes::from(noise);
        let _ = Reply::decode(&noise);
        let _ = Request::decode(&noise);
    }
}

#[test]
fn a_list_that_cannot_be_there_takes_no_memory() {
    // The head of an answer to a batch that announces four thousand million outcomes.
    let mut message = vec![6, 0, 0, 0, 70, 0];
    message.extend(u32::MAX.to_le_bytes());
    let error = Reply::decode(&Bytes::from(message)).expect_err("they are not there");
    assert_eq!(
        error.to_string(),
        "the message ends in the middle of the outcomes of a batch"
    );
}

#[test]
fn text_and_json_are_checked_again() {
    for value in [
        Value::Text(Bytes::from_static(b"\xff")),
        Value::Json(Bytes::from_static(b"{\"a\":")),
        Value::Json(Bytes::from_static(b"\"\xff\"")),
    ] {
        let done = Reply::Done {
            result: Ok(()),
            outcomes: vec![Outcome::Output { index: 0, value }],
            logged: false,
        };
        Reply::decode(&bytes_of(done.encode())).expect_err("it is not what it says");
    }
}

#[test]
fn payloads_are_not_copied_on_their_way_into_a_message_or_out_of_one() {
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
        release: Vec::new(),
        items: vec![Entry::Raw(Cow::Borrowed(&item))],
    };
    let mut message = request.encode();
    assert!(message.parts().any(|part| part.as_ptr() == data.as_ptr()));
    let received = bytes_of(message);
    let Ok(Request::Predict { items, .. }) = Request::decode(&received) else {
        panic!("it is a batch")
    };
    let [Entry::Raw(item)] = items.as_slice() else {
        panic!("of one item")
    };
    let Value::Bytes { data, .. } = &item.value else {
        panic!("of bytes")
    };
    assert!(received.as_ptr_range().contains(&data.as_ptr()));
    let offset = data.as_ptr().addr() - received.as_ptr().addr();
    assert_eq!(offset % 8, 0, "numbers can be read where they are");
}
