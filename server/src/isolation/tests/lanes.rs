//! Lanes carry messages of every length, and say so when the other side is gone, silent or not what it should be.

use std::os::unix::fs::MetadataExt;
use std::time::Duration;

use bytes::Bytes;
use rustix::net::SendFlags;

use super::bytes_of;
use crate::isolation::lane::{self, FarEnd, Lane, LaneError, MOST_INLINE};
use crate::isolation::messages::Request;

fn pair() -> (Lane, FarEnd) {
    Lane::pair().expect("the system has sockets")
}

fn message(bytes: usize) -> Request<'static> {
    Request::Load(Bytes::from((0..bytes).map(|byte| byte as u8).collect::<Vec<_>>()))
}

#[test]
fn messages_of_every_length_come_through_in_both_directions() {
    let (mut near, far) = pair();
    let mut far = far.into_lane();
    let lengths = [
        0,
        1,
        1000,
        MOST_INLINE - 24,
        MOST_INLINE - 16,
        MOST_INLINE - 8,
        MOST_INLINE,
        MOST_INLINE + 1,
        20 << 20,
        3,
    ];
    for length in lengths {
        near.send(message(length).encode())
            .expect("the other side is there");
        let there = far.receive().expect("it was sent");
        far.send(message(length).encode())
            .expect("the other side is there");
        let back = near.receive().expect("it was sent");
        let expected = bytes_of(message(length).encode());
        assert!(there == expected && back == expected, "{length} bytes");
    }
}

#[test]
fn a_message_that_is_too_long_is_not_sent_and_the_lane_stays_in_use() {
    let (mut near, far) = pair();
    let mut far = far.into_lane();
    let length = message(1000).encode().len() as u64;
    near.limit(length - 1);
    let refused = near.send(message(1000).encode());
    assert!(
        matches!(refused, Err(LaneError::TooLong { length: found, most }) if (found, most) == (length, length - 1)),
        "{refused:?}"
    );
    assert_eq!(far.try_receive().expect("the lane is open"), None);
    near.limit(length);
    near.send(message(1000).encode()).expect("it fits");
    let received = far.try_receive().expect("the lane is open");
    assert_eq!(received, Some(bytes_of(message(1000).encode())));
}

#[test]
fn what_was_received_does_not_change_when_the_next_message_comes() {
    let (mut near, far) = pair();
    let mut far = far.into_lane();
    let length = MOST_INLINE * 2;
    near.send(message(length).encode())
        .expect("the other side is there");
    let first = far.receive().expect("it was sent");
    near.send(Request::Load(Bytes::from(vec![0; length])).encode())
        .expect("the other side is there");
    far.receive().expect("it was sent");
    assert!(first == bytes_of(message(length).encode()));
}

#[test]
fn a_side_that_is_gone_is_noticed() {
    let (mut near, far) = pair();
    drop(far);
    assert!(matches!(near.receive(), Err(LaneError::Closed)));
    assert!(matches!(near.send(message(1).encode()), Err(LaneError::Closed)));
}

#[test]
fn a_lane_that_is_closed_tells_whoever_waits_on_it() {
    let (mut near, _far) = pair();
    let socket = near.socket();
    std::thread::scope(|scope| {
        let waiting = scope.spawn(move || near.receive());
        lane::close(&socket);
        let received = waiting.join().expect("it does not panic");
        assert!(matches!(received, Err(LaneError::Closed)), "{received:?}");
    });
}

#[test]
fn a_silent_side_is_waited_for_no_longer_than_asked() {
    let (mut near, _far) = pair();
    let limit = Duration::from_millis(20);
    near.set_timeout(Some(limit)).expect("sockets have timeouts");
    let received = near.receive();
    assert!(matches!(received, Err(LaneError::TimedOut(waited)) if waited == limit));
}

#[test]
fn a_side_that_does_not_read_never_blocks_the_other() {
    let (mut near, _far) = pair();
    let refused = (0..10_000).find_map(|_| near.send(message(1000).encode()).err());
    assert!(matches!(refused, Some(LaneError::TimedOut(_))), "{refused:?}");
}

#[test]
fn what_is_no_message_is_refused() {
    let datagrams: [(&[u8], &str); 4] = [
        (&[1, 2, 9], "a datagram of the kind 9"),
        (&[1, 2, 1], "a message without a length"),
        (
            &[255, 255, 255, 255, 255, 255, 255, 255, 1],
            "a message without a length",
        ),
        (
            &[0, 0, 0, 1, 0, 0, 0, 0, 1],
            "a message of 16777216 bytes that are not there",
        ),
    ];
    for (datagram, says) in datagrams {
        let (mut near, far) = pair();
        rustix::net::send(&far.socket, datagram, SendFlags::empty()).expect("the other side is there");
        let error = near.receive().expect_err(says).to_string();
        assert!(error.contains(says), "{error}");
    }
    let (mut near, far) = pair();
    rustix::net::send(&far.socket, &[0; MOST_INLINE + 2], SendFlags::empty())
        .expect("it is not too long to send");
    let error = near
        .receive()
        .expect_err("it is too long to be believed")
        .to_string();
    assert!(
        error.contains(&format!("a datagram of {} bytes", MOST_INLINE + 2)),
        "{error}"
    );
}

#[test]
fn memory_cannot_be_taken_away_from_the_other_side() {
    let (_near, far) = pair();
    for memory in [far.incoming, far.outgoing] {
        let file = std::fs::File::from(memory);
        file.set_len(1 << 20).expect("it may grow");
        file.set_len(100).expect_err("the other side may have mapped it");
    }
}

#[test]
fn what_is_lent_is_not_copied_and_has_to_be_given_back_before_the_answer() {
    let (mut near, far) = pair();
    let mut far = far.into_lane();
    let length = MOST_INLINE * 2;
    near.send(message(length).encode())
        .expect("the other side is there");
    let lent = far.receive_lent().expect("it was sent");
    assert!(lent == bytes_of(message(length).encode()));
    let payload = lent.slice(1000..);
    drop(lent);
    far.interject(message(1).encode())
        .expect("that may be said meanwhile");
    let error = far.send(message(1).encode()).expect_err("a part is still lent");
    assert!(matches!(error, LaneError::System(_)), "{error}");
    drop(payload);
    far.send(message(1).encode()).expect("nothing is lent any more");
}

#[test]
fn the_memory_of_a_long_message_is_given_back() {
    let (mut near, far) = pair();
    let file = std::fs::File::from(far.incoming.try_clone().expect("a descriptor can be cloned"));
    let mut far = far.into_lane();
    let held = || file.metadata().expect("it is open").blocks() * 512;
    for receive in [Lane::receive, Lane::receive_lent] {
        near.send(message(40 << 20).encode())
            .expect("the other side is there");
        assert!(held() >= 40 << 20);
        drop(receive(&mut far).expect("it was sent"));
        far.send(message(1).encode()).expect("nothing is lent any more");
        assert!(held() <= 17 << 20, "{} bytes are kept", held());
        near.receive().expect("it was sent");
    }
}

#[test]
fn a_memory_file_that_is_long_and_empty_takes_no_memory() {
    let (mut near, far) = pair();
    let file = std::fs::File::from(far.outgoing);
    file.set_len(1 << 32).expect("it is only a number");
    let mut datagram = (1u64 << 32).to_le_bytes().to_vec();
    datagram.push(1);
    rustix::net::send(&far.socket, &datagram, SendFlags::empty()).expect("the other side is there");
    assert!(matches!(near.receive(), Err(LaneError::Nonsense(_))));
}
