//! Channels carry messages of every length, and detect when the other side is closed, silent or sends invalid data.

use std::os::unix::fs::MetadataExt;
use std::time::Duration;

use bytes::Bytes;
use rustix::net::SendFlags;

use super::bytes_of;
use crate::isolation::channel::{self, Channel, ChannelError, MAX_INLINE, PeerEnd};
use crate::isolation::messages::Request;

fn pair() -> (Channel, PeerEnd) {
    Channel::pair().expect("sockets can be created")
}

fn message(bytes: usize) -> Request<'static> {
    Request::Load(Bytes::from((0..bytes).map(|byte| byte as u8).collect::<Vec<_>>()))
}

#[test]
fn messages_of_every_length_are_received_in_both_directions() {
    let (mut own, peer) = pair();
    let mut peer = peer.into_channel();
    let lengths = [
        0,
        1,
        1000,
        MAX_INLINE - 24,
        MAX_INLINE - 16,
        MAX_INLINE - 8,
        MAX_INLINE,
        MAX_INLINE + 1,
        20 << 20,
        3,
    ];
    for length in lengths {
        own.send(message(length).encode()).expect("the peer is open");
        let received = peer.receive().expect("the message was sent");
        peer.send(message(length).encode()).expect("the peer is open");
        let back = own.receive().expect("the message was sent");
        let expected = bytes_of(message(length).encode());
        assert!(received == expected && back == expected, "{length} bytes");
    }
}

#[test]
fn a_message_that_is_too_long_is_not_sent_and_the_channel_remains_usable() {
    let (mut own, peer) = pair();
    let mut peer = peer.into_channel();
    let length = message(1000).encode().len() as u64;
    own.set_max_message(length - 1);
    let rejected = own.send(message(1000).encode());
    assert!(
        matches!(rejected, Err(ChannelError::TooLong { length: found, max }) if (found, max) == (length, length - 1)),
        "{rejected:?}"
    );
    assert_eq!(peer.try_receive().expect("the channel is open"), None);
    own.set_max_message(length);
    own.send(message(1000).encode()).expect("the message fits");
    let received = peer.try_receive().expect("the channel is open");
    assert_eq!(received, Some(bytes_of(message(1000).encode())));
}

#[test]
fn a_received_message_does_not_change_when_the_next_one_arrives() {
    let (mut own, peer) = pair();
    let mut peer = peer.into_channel();
    let length = MAX_INLINE * 2;
    own.send(message(length).encode()).expect("the peer is open");
    let first = peer.receive().expect("the message was sent");
    own.send(Request::Load(Bytes::from(vec![0; length])).encode())
        .expect("the peer is open");
    peer.receive().expect("the message was sent");
    assert!(first == bytes_of(message(length).encode()));
}

#[test]
fn a_closed_peer_is_detected() {
    let (mut own, peer) = pair();
    drop(peer);
    assert!(matches!(own.receive(), Err(ChannelError::Closed)));
    assert!(matches!(own.send(message(1).encode()), Err(ChannelError::Closed)));
}

#[test]
fn closing_a_channel_wakes_the_thread_that_waits_on_it() {
    let (mut own, _far) = pair();
    let socket = own.socket();
    std::thread::scope(|scope| {
        let waiting = scope.spawn(move || own.receive());
        channel::close(&socket);
        let received = waiting.join().expect("the thread does not panic");
        assert!(matches!(received, Err(ChannelError::Closed)), "{received:?}");
    });
}

#[test]
fn receiving_from_a_silent_peer_times_out() {
    let (mut own, _far) = pair();
    let limit = Duration::from_millis(20);
    own.set_timeout(Some(limit)).expect("sockets have timeouts");
    let received = own.receive();
    assert!(matches!(received, Err(ChannelError::TimedOut(waited)) if waited == limit));
}

#[test]
fn sending_to_a_peer_that_does_not_read_never_blocks() {
    let (mut own, _far) = pair();
    let rejected = (0..10_000).find_map(|_| own.send(message(1000).encode()).err());
    assert!(
        matches!(rejected, Some(ChannelError::TimedOut(_))),
        "{rejected:?}"
    );
}

#[test]
fn malformed_datagrams_are_rejected() {
    let datagrams: [(&[u8], &str); 4] = [
        (&[1, 2, 9], "unknown kind 9 of datagram"),
        (&[1, 2, 1], "invalid length"),
        (&[255, 255, 255, 255, 255, 255, 255, 255, 1], "invalid length"),
        (
            &[0, 0, 0, 1, 0, 0, 0, 0, 1],
            "its 16777216 bytes are not in shared memory",
        ),
    ];
    for (datagram, expected) in datagrams {
        let (mut own, peer) = pair();
        rustix::net::send(&peer.socket, datagram, SendFlags::empty()).expect("the peer is open");
        let error = own.receive().expect_err(expected).to_string();
        assert!(error.contains(expected), "{error}");
    }
    let (mut own, peer) = pair();
    rustix::net::send(&peer.socket, &[0; MAX_INLINE + 2], SendFlags::empty())
        .expect("a datagram of this length can be sent");
    let error = own
        .receive()
        .expect_err("the datagram is longer than any message")
        .to_string();
    assert!(
        error.contains(&format!("datagram of {} bytes", MAX_INLINE + 2)),
        "{error}"
    );
}

#[test]
fn a_side_cannot_shrink_the_shared_memory() {
    let (_near, peer) = pair();
    for memory in [peer.reader, peer.writer] {
        let file = std::fs::File::from(memory);
        file.set_len(1 << 20).expect("the file can grow");
        file.set_len(100)
            .expect_err("the file is sealed against shrinking");
    }
}

#[test]
fn a_borrowed_message_is_not_copied_and_must_be_dropped_before_the_reply() {
    let (mut own, peer) = pair();
    let mut peer = peer.into_channel();
    let length = MAX_INLINE * 2;
    own.send(message(length).encode()).expect("the peer is open");
    let borrowed = peer.receive_borrowed().expect("the message was sent");
    assert!(borrowed == bytes_of(message(length).encode()));
    let payload = borrowed.slice(1000..);
    drop(borrowed);
    peer.send_without_reclaim(message(1).encode())
        .expect("the borrow does not prevent this message");
    let error = peer
        .send(message(1).encode())
        .expect_err("a slice is still borrowed");
    assert!(matches!(error, ChannelError::Io(_)), "{error}");
    drop(payload);
    peer.send(message(1).encode()).expect("the borrow has ended");
}

#[test]
fn the_memory_of_a_long_message_is_freed() {
    let (mut own, peer) = pair();
    let file = std::fs::File::from(peer.reader.try_clone().expect("a descriptor can be cloned"));
    let mut peer = peer.into_channel();
    let allocated = || file.metadata().expect("the file is open").blocks() * 512;
    for receive in [Channel::receive, Channel::receive_borrowed] {
        own.send(message(40 << 20).encode()).expect("the peer is open");
        assert!(allocated() >= 40 << 20);
        drop(receive(&mut peer).expect("the message was sent"));
        peer.send(message(1).encode()).expect("the borrow has ended");
        assert!(allocated() <= 17 << 20, "{} bytes are kept", allocated());
        own.receive().expect("the message was sent");
    }
}

#[test]
fn a_long_sparse_memory_file_does_not_use_memory() {
    let (mut own, peer) = pair();
    let file = std::fs::File::from(peer.writer);
    file.set_len(1 << 32).expect("the file can be sparse");
    let mut datagram = (1u64 << 32).to_le_bytes().to_vec();
    datagram.push(1);
    rustix::net::send(&peer.socket, &datagram, SendFlags::empty()).expect("the peer is open");
    assert!(matches!(own.receive(), Err(ChannelError::Malformed(_))));
}
