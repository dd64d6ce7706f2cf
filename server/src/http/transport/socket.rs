//! The socket of a connection, which the parser and the detection of disconnects share.

use std::cell::{Cell, RefCell};
use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use bytes::{Buf as _, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use super::connection::Inbound;
use super::connection_state::{ConnectionState, Phase};
use super::version::{Version, version_of};
use crate::clock;
use crate::tls::TlsStream;

/// A byte stream over a socket.
pub(super) trait Stream: AsyncRead + AsyncWrite + Unpin {
    /// The socket.
    fn socket(&self) -> BorrowedFd<'_>;
}

impl Stream for TcpStream {
    fn socket(&self) -> BorrowedFd<'_> {
        self.as_fd()
    }
}

impl Stream for TlsStream {
    fn socket(&self) -> BorrowedFd<'_> {
        self.get_ref().0.as_fd()
    }
}

/// Maximum number of bytes that are read ahead while a request is being answered. Beyond it, a disconnect is noticed
/// only when the reply is written.
const READ_AHEAD: usize = 64 * 1024;

/// Number of bytes kept from the start of a request, to determine why it was rejected.
const HEAD_PREFIX_LENGTH: usize = 1024;

const CONTENT_LENGTH: &[u8] = b"content-length:";

/// The end of a head.
const BLANK_LINE: &[u8] = b"\r\n\r\n";

/// A socket and the state of its connection.
pub(super) struct Socket<T> {
    stream: RefCell<T>,
    state: Rc<ConnectionState>,
    /// Data that was read while a request was being answered, for the next request.
    ahead: RefCell<BytesMut>,
    /// The first bytes of the current request.
    head_prefix: RefCell<Vec<u8>>,
    /// Status of the parser's reply to a malformed request. The reply is suppressed and replaced by one with a body.
    rejected_status: Cell<Option<u16>>,
    /// See [`Host::accepts`](super::connection::Host).
    accepts: Option<fn(&[u8]) -> bool>,
    /// Whether the parser has consumed everything that it has read when it next waits for a request. If not, the
    /// connection cannot move.
    is_drained: Cell<bool>,
    /// Whether `ahead` starts with a request for another thread.
    moving: Cell<bool>,
    /// The version of HTTP that the client speaks, once its first bytes have arrived.
    version: Cell<Option<Version>>,
}

impl<T: Stream> Socket<T> {
    pub(super) fn new(
        inbound: Inbound<T>,
        accepts: Option<fn(&[u8]) -> bool>,
        state: Rc<ConnectionState>,
    ) -> Self {
        Self {
            stream: RefCell::new(inbound.stream),
            state,
            ahead: RefCell::new(inbound.ahead),
            head_prefix: RefCell::default(),
            rejected_status: Cell::new(None),
            accepts,
            is_drained: Cell::new(true),
            moving: Cell::new(false),
            version: Cell::new(inbound.version),
        }
    }

    /// The socket without the state of its connection.
    pub(super) fn into_inbound(self) -> Inbound<T> {
        Inbound {
            stream: self.stream.into_inner(),
            ahead: self.ahead.into_inner(),
            version: self.version.get(),
        }
    }

    /// Whether the next request is for another thread. The parser will not read it.
    pub(super) fn is_moving(&self) -> bool {
        self.moving.get()
    }

    /// Whether the client speaks HTTP/2, which the parser does not. It will read nothing.
    pub(super) fn is_http2(&self) -> bool {
        self.version.get() == Some(Version::Http2)
    }

    /// Reads the first bytes of the connection, until they show which version of HTTP the client speaks.
    fn poll_version(&self, context: &mut Context<'_>) -> Poll<io::Result<Version>> {
        if let Some(version) = self.version.get() {
            return Poll::Ready(Ok(version));
        }
        let mut ahead = self.ahead.borrow_mut();
        let version = loop {
            if let Some(version) = version_of(&ahead) {
                break version;
            }
            let mut space = [MaybeUninit::uninit(); 4096];
            let mut buffer = ReadBuf::uninit(&mut space);
            ready!(self.poll_stream(|stream| stream.poll_read(context, &mut buffer)))?;
            if buffer.filled().is_empty() {
                // The parser determines what an incomplete head means.
                break Version::Http1;
            }
            self.state.received(clock::now());
            ahead.extend_from_slice(buffer.filled());
        };
        if version == Version::Http1 || !self.is_for_other_thread(&ahead) {
            self.version.set(Some(version));
        }
        Poll::Ready(Ok(version))
    }

    /// Whether these bytes, which the parser would read next, start a request for another thread.
    fn is_for_other_thread(&self, bytes: &[u8]) -> bool {
        let between = matches!(self.state.phase(), Phase::Fresh | Phase::Idle);
        let is_candidate = between && self.is_drained.get() && !bytes.is_empty();
        let is_foreign = self
            .accepts
            .is_some_and(|accepts| is_candidate && !accepts(bytes));
        self.moving.set(is_foreign);
        is_foreign
    }

    /// Status with which the parser rejected a request, if any.
    pub(super) fn rejected_status(&self) -> Option<u16> {
        self.rejected_status.get()
    }

    /// Whether the `content-length` of the current request is out of range, for which the parser has no specific
    /// error.
    pub(super) fn content_length_overflows(&self) -> bool {
        let head_prefix = self.head_prefix.borrow();
        head_prefix.split(|byte| *byte == b'\n').any(|line| {
            let (name, value) = line.split_at(line.len().min(CONTENT_LENGTH.len()));
            let value = value.trim_ascii();
            name.eq_ignore_ascii_case(CONTENT_LENGTH)
                && value.len() >= u64::MAX.ilog10() as usize
                && value.iter().all(u8::is_ascii_digit)
        })
    }

    /// Records that the parser is about to read these bytes.
    fn parsing(&self, bytes: &[u8], now: Instant) {
        // Bytes after a head that the parser has not consumed would not end in a blank line, or would be a whole head.
        self.is_drained.set(bytes.ends_with(BLANK_LINE));
        if matches!(self.state.phase(), Phase::Fresh | Phase::Idle) {
            let mut head_prefix = self.head_prefix.borrow_mut();
            head_prefix.clear();
            head_prefix.extend_from_slice(&bytes[..bytes.len().min(HEAD_PREFIX_LENGTH)]);
        }
        self.state.parsing(bytes, now);
    }

    /// Reads ahead while a request is being answered. Ready when the client has disconnected.
    pub(super) fn poll_disconnect(&self, context: &mut Context<'_>) -> Poll<()> {
        if self.state.is_broken() {
            return Poll::Ready(());
        }
        let mut stream = self.stream.borrow_mut();
        let mut ahead = self.ahead.borrow_mut();
        while self.state.phase() == Phase::Reply && !self.state.has_ended() && ahead.len() < READ_AHEAD {
            let mut space = [MaybeUninit::uninit(); 2048];
            let mut buffer = ReadBuf::uninit(&mut space);
            match ready!(Pin::new(&mut *stream).poll_read(context, &mut buffer)) {
                Ok(()) if buffer.filled().is_empty() => {
                    if !self.state.is_half_close(clock::now()) {
                        return Poll::Ready(());
                    }
                }
                Ok(()) => {
                    self.state.received(clock::now());
                    ahead.extend_from_slice(buffer.filled());
                }
                Err(_) => {
                    self.state.fail();
                    return Poll::Ready(());
                }
            }
        }
        Poll::Pending
    }

    /// Whether a half-closed connection was reset.
    pub(super) fn is_reset(&self) -> bool {
        let stream = self.stream.borrow();
        !matches!(rustix::net::sockopt::socket_error(stream.socket()), Ok(Ok(())))
    }

    /// Whether the operating system has unread data.
    pub(super) fn has_input(&self) -> bool {
        let stream = self.stream.borrow();
        rustix::io::ioctl_fionread(stream.socket()).is_ok_and(|count| count > 0)
    }

    fn poll_stream<R>(&self, poll: impl FnOnce(Pin<&mut T>) -> Poll<io::Result<R>>) -> Poll<io::Result<R>> {
        let polled = poll(Pin::new(&mut *self.stream.borrow_mut()));
        if let Poll::Ready(Err(_)) = polled {
            self.state.fail();
        }
        polled
    }

    /// Suppresses the parser's own reply to a malformed request, which is the only data written between requests.
    /// Returns whether it did.
    fn suppress(&self, bytes: &[u8]) -> bool {
        let suppressed = self.state.is_between_requests();
        if suppressed && self.rejected_status.get().is_none() {
            let status = bytes
                .get(9..12)
                .and_then(|digits| std::str::from_utf8(digits).ok());
            self.rejected_status
                .set(status.and_then(|digits| digits.parse().ok()).or(Some(400)));
        }
        suppressed
    }
}

/// The socket as the parser sees it.
pub(super) struct ParserSide<T>(pub(super) Rc<Socket<T>>);

impl<T: Stream> AsyncRead for ParserSide<T> {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let Socket { ahead, state, .. } = &*self.0;
        if ready!(self.0.poll_version(context))? == Version::Http2 {
            return Poll::Pending;
        }
        let before = buffer.filled().len();
        let mut ahead = ahead.borrow_mut();
        if ahead.is_empty() {
            ready!(self.0.poll_stream(|stream| stream.poll_read(context, buffer)))?;
            if buffer.filled().len() == before {
                state.end_of_stream();
                return Poll::Ready(Ok(()));
            }
            let now = clock::now();
            state.received(now);
            if self.0.is_for_other_thread(&buffer.filled()[before..]) {
                ahead.extend_from_slice(&buffer.filled()[before..]);
                buffer.set_filled(before);
                return Poll::Pending;
            }
            self.0.parsing(&buffer.filled()[before..], now);
        } else {
            if self.0.is_for_other_thread(&ahead) {
                return Poll::Pending;
            }
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
        if self.0.suppress(bytes) {
            return Poll::Ready(Ok(bytes.len()));
        }
        self.0.poll_stream(|stream| stream.poll_write(context, bytes))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if self.0.suppress(parts.first().map_or(&[], |part| part)) {
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
        self.0.state.flushed(clock::now);
        Poll::Ready(Ok(()))
    }

    /// Does nothing: [`super::connection`] closes the socket without losing the reply.
    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// The socket after the parser has finished.
pub(super) struct RawSocket<T>(pub(super) Rc<Socket<T>>);

impl<T: Stream> AsyncRead for RawSocket<T> {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.0.poll_stream(|stream| stream.poll_read(context, buffer))
    }
}

impl<T: Stream> AsyncWrite for RawSocket<T> {
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
