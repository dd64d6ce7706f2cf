//! The socket of an HTTP/2 connection.

use std::cell::RefCell;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::{Buf as _, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::connection::Inbound;
use super::http2_state::Http2State;
use super::socket::Stream;

/// A socket, and what was read from it to recognize HTTP/2.
pub(super) struct Http2Socket<T> {
    stream: RefCell<T>,
    ahead: RefCell<BytesMut>,
    state: Rc<Http2State>,
}

impl<T: Stream> Http2Socket<T> {
    pub(super) fn new(inbound: Inbound<T>, state: Rc<Http2State>) -> Self {
        Self {
            stream: RefCell::new(inbound.stream),
            ahead: RefCell::new(inbound.ahead),
            state,
        }
    }

    /// Writes, and records whether the socket accepted the data.
    fn poll_write<R>(&self, write: impl FnOnce(Pin<&mut T>) -> Poll<io::Result<R>>) -> Poll<io::Result<R>> {
        let written = write(Pin::new(&mut *self.stream.borrow_mut()));
        self.state.set_blocked(written.is_pending());
        written
    }
}

/// The socket as hyper sees it.
pub(super) struct SocketHandle<T>(pub(super) Rc<Http2Socket<T>>);

impl<T: Stream> AsyncRead for SocketHandle<T> {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let mut ahead = self.0.ahead.borrow_mut();
        if ahead.is_empty() {
            return Pin::new(&mut *self.0.stream.borrow_mut()).poll_read(context, buffer);
        }
        let count = ahead.len().min(buffer.remaining());
        buffer.put_slice(&ahead[..count]);
        ahead.advance(count);
        Poll::Ready(Ok(()))
    }
}

impl<T: Stream> AsyncWrite for SocketHandle<T> {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.0.poll_write(|stream| stream.poll_write(context, bytes))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.0
            .poll_write(|stream| stream.poll_write_vectored(context, parts))
    }

    fn is_write_vectored(&self) -> bool {
        self.0.stream.borrow().is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.poll_write(|stream| stream.poll_flush(context))
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.poll_write(|stream| stream.poll_shutdown(context))
    }
}
