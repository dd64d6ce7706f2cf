//! The socket of a connection, shared by the parser and by what watches for a client that leaves.

use std::cell::{Cell, RefCell};
use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::os::fd::AsFd;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use bytes::{Buf as _, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::connection_state::{Exchange, Phase};
use crate::clock;

/// What a connection reads from and writes to: TCP, or a layer over it that knows its socket.
pub(super) trait Stream: AsyncRead + AsyncWrite + AsFd + Unpin {}

impl<T: AsyncRead + AsyncWrite + AsFd + Unpin> Stream for T {}

/// Maximum number of bytes of further requests that are read while a request is being answered. Beyond it, a client that
/// leaves is noticed when its reply is written.
const READ_AHEAD: usize = 64 * 1024;

/// Number of bytes that are kept of a request, to find out why it was rejected.
const BEGINNING: usize = 1024;

const CONTENT_LENGTH: &[u8] = b"content-length:";

/// A socket together with the state of its connection.
pub(super) struct Socket<T> {
    stream: RefCell<T>,
    exchange: Rc<Exchange>,
    /// Read while a request was being answered, for the next one.
    ahead: RefCell<BytesMut>,
    /// The first bytes of the last request that was begun.
    beginning: RefCell<Vec<u8>>,
    /// The status of the reply that the parser wrote to a request it could not parse. Held back, for one with a body.
    refusal: Cell<Option<u16>>,
}

impl<T: Stream> Socket<T> {
    pub(super) fn new(stream: T, exchange: Rc<Exchange>) -> Self {
        Self {
            stream: RefCell::new(stream),
            exchange,
            ahead: RefCell::default(),
            beginning: RefCell::default(),
            refusal: Cell::new(None),
        }
    }

    /// The status with which the parser rejected a request, if it did.
    pub(super) fn refusal(&self) -> Option<u16> {
        self.refusal.get()
    }

    /// Whether the request that was begun last announces a body of a length that no number holds. The parser gives no
    /// reason of its own for that.
    pub(super) fn announces_too_much(&self) -> bool {
        let beginning = self.beginning.borrow();
        beginning.split(|byte| *byte == b'\n').any(|line| {
            let (name, value) = line.split_at(line.len().min(CONTENT_LENGTH.len()));
            let value = value.trim_ascii();
            name.eq_ignore_ascii_case(CONTENT_LENGTH)
                && value.len() >= u64::MAX.ilog10() as usize
                && value.iter().all(u8::is_ascii_digit)
        })
    }

    /// The parser is about to see these bytes.
    fn parsing(&self, bytes: &[u8], now: Instant) {
        if matches!(self.exchange.phase(), Phase::Fresh | Phase::Idle) {
            let mut beginning = self.beginning.borrow_mut();
            beginning.clear();
            beginning.extend_from_slice(&bytes[..bytes.len().min(BEGINNING)]);
        }
        self.exchange.parsing(bytes, now);
    }

    /// While a request is being answered, reads ahead. Ready when the client has left.
    pub(super) fn poll_left(&self, context: &mut Context<'_>) -> Poll<()> {
        if self.exchange.is_broken() {
            return Poll::Ready(());
        }
        let mut stream = self.stream.borrow_mut();
        let mut ahead = self.ahead.borrow_mut();
        while self.exchange.phase() == Phase::Reply && !self.exchange.has_ended() && ahead.len() < READ_AHEAD
        {
            let mut space = [MaybeUninit::uninit(); 2048];
            let mut buffer = ReadBuf::uninit(&mut space);
            match ready!(Pin::new(&mut *stream).poll_read(context, &mut buffer)) {
                Ok(()) if buffer.filled().is_empty() => {
                    if !self.exchange.is_half_close(clock::now()) {
                        return Poll::Ready(());
                    }
                }
                Ok(()) => {
                    self.exchange.received(clock::now());
                    ahead.extend_from_slice(buffer.filled());
                }
                Err(_) => {
                    self.exchange.broke();
                    return Poll::Ready(());
                }
            }
        }
        Poll::Pending
    }

    /// Whether a half-closed connection has been reset since.
    pub(super) fn is_reset(&self) -> bool {
        let stream = self.stream.borrow();
        !matches!(rustix::net::sockopt::socket_error(stream.as_fd()), Ok(Ok(())))
    }

    /// Whether the operating system holds bytes that have not been read.
    pub(super) fn has_input(&self) -> bool {
        let stream = self.stream.borrow();
        rustix::io::ioctl_fionread(stream.as_fd()).is_ok_and(|count| count > 0)
    }

    fn poll_stream<R>(&self, poll: impl FnOnce(Pin<&mut T>) -> Poll<io::Result<R>>) -> Poll<io::Result<R>> {
        let polled = poll(Pin::new(&mut *self.stream.borrow_mut()));
        if let Poll::Ready(Err(_)) = polled {
            self.exchange.broke();
        }
        polled
    }

    /// Holds back what the parser writes of its own accord: its reply to a request that cannot be parsed. Nothing else is
    /// written between requests.
    fn hold_back(&self, bytes: &[u8]) -> bool {
        let held = self.exchange.is_between_requests();
        if held && self.refusal.get().is_none() {
            let status = bytes
                .get(9..12)
                .and_then(|digits| std::str::from_utf8(digits).ok());
            self.refusal
                .set(status.and_then(|digits| digits.parse().ok()).or(Some(400)));
        }
        held
    }
}

/// The parser's side of a socket.
pub(super) struct ParserSide<T>(pub(super) Rc<Socket<T>>);

impl<T: Stream> AsyncRead for ParserSide<T> {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let Socket { ahead, exchange, .. } = &*self.0;
        let before = buffer.filled().len();
        let mut ahead = ahead.borrow_mut();
        if ahead.is_empty() {
            ready!(self.0.poll_stream(|stream| stream.poll_read(context, buffer)))?;
            if buffer.filled().len() == before {
                exchange.end_of_stream();
                return Poll::Ready(Ok(()));
            }
            let now = clock::now();
            exchange.received(now);
            self.0.parsing(&buffer.filled()[before..], now);
        } else {
            let count = ahead.len().min(buffer.remaining());
            buffer.put_slice(&ahead[..count]);
            ahead.advance(count);
            self.0.parsing(&buffer.filled()[before..], clock::now());
        }
        Poll::Ready(Ok(()))
    }
}

impl<T: Stream> AsyncWrite for ParserSide<T> {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if self.0.hold_back(bytes) {
            return Poll::Ready(Ok(bytes.len()));
        }
        self.0.poll_stream(|stream| stream.poll_write(context, bytes))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if self.0.hold_back(parts.first().map_or(&[], |part| part)) {
            return Poll::Ready(Ok(parts.iter().map(|part| part.len()).sum()));
        }
        self.0
            .poll_stream(|stream| stream.poll_write_vectored(context, parts))
    }

    fn is_write_vectored(&self) -> bool {
        self.0.stream.borrow().is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.0.poll_stream(|stream| stream.poll_flush(context)))?;
        self.0.exchange.flushed(clock::now);
        Poll::Ready(Ok(()))
    }

    /// Left to [`super::connection`], which closes the socket without losing the reply.
    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// The socket itself, once the parser is done with it.
pub(super) struct Remains<T>(pub(super) Rc<Socket<T>>);

impl<T: Stream> AsyncRead for Remains<T> {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.0.poll_stream(|stream| stream.poll_read(context, buffer))
    }
}

impl<T: Stream> AsyncWrite for Remains<T> {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.0.poll_stream(|stream| stream.poll_write(context, bytes))
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.poll_stream(|stream| stream.poll_flush(context))
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.poll_stream(|stream| stream.poll_shutdown(context))
    }
}
