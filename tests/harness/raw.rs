//! Raw connections, for requests that client libraries cannot send.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, StreamOwned};

use super::eventually::PATIENCE;

/// A raw connection.
pub(crate) struct Raw {
    stream: BufReader<Wire>,
}

/// The bytes of a connection, with or without TLS.
enum Wire {
    Plain(TcpStream),
    Tls(Box<StreamOwned<ClientConnection, TcpStream>>),
}

impl Wire {
    fn tcp(&self) -> &TcpStream {
        match self {
            Self::Plain(stream) => stream,
            Self::Tls(stream) => &stream.sock,
        }
    }
}

impl Read for Wire {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(stream) => stream.read(buffer),
            Self::Tls(stream) => stream.read(buffer),
        }
    }
}

impl Write for Wire {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Plain(stream) => stream.write(bytes),
            Self::Tls(stream) => stream.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Plain(stream) => stream.flush(),
            Self::Tls(stream) => stream.flush(),
        }
    }
}

/// A reply on a raw connection.
#[derive(Debug)]
pub(crate) struct RawReply {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl RawReply {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let found = self
            .headers
            .iter()
            .find(|(other, _)| other.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str())
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    #[track_caller]
    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("invalid JSON: {error}: {self:?}"))
    }
}

impl Raw {
    /// Connects to a server.
    pub(crate) fn connect(address: SocketAddr) -> Self {
        Self {
            stream: BufReader::new(Wire::Plain(open(address))),
        }
    }

    /// Reads this many bytes.
    #[track_caller]
    pub(crate) fn read_exactly(&mut self, count: usize) -> Vec<u8> {
        let mut bytes = vec![0; count];
        self.stream.read_exact(&mut bytes).expect("the server replies");
        bytes
    }

    /// Connects to a server over TLS. Completes the handshake, except for what a server does after it with TLS 1.3, such as
    /// rejecting the certificate of the client.
    pub(crate) fn connect_secure(address: SocketAddr, config: Arc<ClientConfig>) -> io::Result<Self> {
        let name = ServerName::from(address.ip());
        let session = ClientConnection::new(config, name).map_err(io::Error::other)?;
        let mut stream = StreamOwned::new(session, open(address));
        while stream.conn.is_handshaking() {
            stream.conn.complete_io(&mut stream.sock)?;
        }
        Ok(Self {
            stream: BufReader::new(Wire::Tls(Box::new(stream))),
        })
    }

    /// Returns the state of TLS.
    pub(crate) fn session(&self) -> &ClientConnection {
        match self.stream.get_ref() {
            Wire::Tls(stream) => &stream.conn,
            Wire::Plain(_) => panic!("a connection without TLS"),
        }
    }

    /// Reads the status line of a reply. `None` if the server closes the connection or ends TLS.
    pub(crate) fn read_until_reply(&mut self) -> Option<Vec<u8>> {
        let mut line = Vec::new();
        let read = self.stream.read_until(b'\n', &mut line);
        read.is_ok_and(|count| count > 0).then_some(line)
    }

    /// Writes `bytes`.
    pub(crate) fn send(&mut self, bytes: impl AsRef<[u8]>) -> &mut Self {
        self.try_send(bytes).expect("the server reads");
        self
    }

    /// Writes `bytes`. Fails if the server no longer reads.
    pub(crate) fn try_send(&mut self, bytes: impl AsRef<[u8]>) -> io::Result<()> {
        self.stream.get_mut().write_all(bytes.as_ref())
    }

    /// Writes a whole request with a JSON body.
    pub(crate) fn send_json(&mut self, path: &str, body: &str) -> &mut Self {
        self.send(format!(
            "POST {path} HTTP/1.1\r\nhost: test\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        ))
    }

    /// Closes the sending direction.
    pub(crate) fn half_close(&mut self) -> &mut Self {
        self.stream
            .get_ref()
            .tcp()
            .shutdown(Shutdown::Write)
            .expect("a connection can be half closed");
        self
    }

    /// Closes the connection with a reset.
    pub(crate) fn reset(self) {
        rustix::net::sockopt::set_socket_linger(self.stream.get_ref().tcp(), Some(Duration::ZERO))
            .expect("a socket can be told not to linger");
    }

    /// Closes the sending direction, and reads until the server has closed or reset the connection.
    pub(crate) fn finish(mut self) {
        let _ = self.stream.get_ref().tcp().shutdown(Shutdown::Write);
        let _ = self.stream.read_to_end(&mut Vec::new());
    }

    /// Reads at max `max` bytes.
    pub(crate) fn read_some(&mut self, max: usize) {
        // The result does not matter, because the caller disconnects.
        let _ = self.stream.read(&mut vec![0; max]);
    }

    /// Reads one reply. `None` if the connection was closed before.
    pub(crate) fn reply(&mut self) -> Option<RawReply> {
        self.reply_to(false)
    }

    /// Reads the reply to a HEAD request, which has no body.
    pub(crate) fn reply_to_head(&mut self) -> Option<RawReply> {
        self.reply_to(true)
    }

    fn reply_to(&mut self, head: bool) -> Option<RawReply> {
        let status_line = self.line()?;
        let status = status_line
            .split(' ')
            .nth(1)
            .and_then(|status| status.parse().ok());
        let status = status.unwrap_or_else(|| panic!("invalid status line: {status_line:?}"));
        let mut headers = Vec::new();
        loop {
            let line = self.line().expect("a head ends in an empty line");
            let Some((name, value)) = line.split_once(':') else {
                break;
            };
            headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
        }
        let mut reply = RawReply {
            status,
            headers,
            body: Vec::new(),
        };
        if status >= 200 && ![204, 304].contains(&status) && !head {
            reply.body = self.body_of(&reply);
        }
        Some(reply)
    }

    fn body_of(&mut self, reply: &RawReply) -> Vec<u8> {
        let mut body = Vec::new();
        if let Some(length) = reply.header("content-length") {
            let length: u64 = length.parse().expect("a length is a number");
            let read = self.stream.by_ref().take(length).read_to_end(&mut body);
            assert_eq!(
                read.expect("the body can be read") as u64,
                length,
                "the body ended early"
            );
        } else if reply.header("transfer-encoding") == Some("chunked") {
            loop {
                let size = self.line().expect("a chunk has a size");
                let size = u64::from_str_radix(size.trim(), 16).expect("a size is hexadecimal");
                self.stream
                    .by_ref()
                    .take(size)
                    .read_to_end(&mut body)
                    .expect("a chunk can be read");
                self.line();
                if size == 0 {
                    break;
                }
            }
        } else {
            // Read until the connection is closed. A reset after the body is accepted.
            let _ = self.stream.read_to_end(&mut body);
        }
        body
    }

    /// Whether the server closes or resets the connection without sending another byte, within [`PATIENCE`].
    pub(crate) fn is_closed(&mut self) -> bool {
        let mut byte = [0];
        match self.stream.read(&mut byte) {
            Ok(count) => count == 0,
            Err(error) => !matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut),
        }
    }

    /// Reads a line and removes its end. `None` if the connection is closed.
    fn line(&mut self) -> Option<String> {
        let mut line = Vec::new();
        match self.stream.read_until(b'\n', &mut line) {
            Ok(0) => None,
            Ok(_) => Some(
                String::from_utf8_lossy(&line)
                    .trim_end_matches(['\r', '\n'])
                    .to_owned(),
            ),
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
                panic!("the server neither replied nor closed the connection within {PATIENCE:?}")
            }
            Err(_) => None,
        }
    }
}

fn open(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).expect("connect to the server");
    stream.set_read_timeout(Some(PATIENCE)).expect("set a timeout");
    stream.set_write_timeout(Some(PATIENCE)).expect("set a timeout");
    stream.set_nodelay(true).expect("set TCP_NODELAY");
    stream
}
