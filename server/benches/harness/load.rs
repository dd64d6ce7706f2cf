//! A closed loop of keep-alive connections on one thread, so that the client uses little of the machine that it shares with the
//! server. It supports only the HTTP/1.1 that the replies need: a status line and a content-length.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use inference_server::clock;
use rustix::buffer::spare_capacity;
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection};

/// A request that is sent on each connection again as soon as it is answered.
pub(crate) struct Load<'a> {
    pub(crate) address: SocketAddr,
    pub(crate) request: &'a [u8],
    pub(crate) connections: usize,
}

/// The latencies of all replies.
pub(crate) struct Latencies {
    pub(crate) elapsed: Duration,
    sorted: Vec<Duration>,
}

impl Latencies {
    pub(crate) fn count(&self) -> usize {
        self.sorted.len()
    }

    /// The latency that this fraction of the replies did not exceed.
    pub(crate) fn quantile(&self, share: f64) -> Duration {
        let rank = (share * self.sorted.len() as f64).ceil() as usize;
        self.sorted[rank.saturating_sub(1)]
    }

    pub(crate) fn append(&mut self, other: Self) {
        self.elapsed += other.elapsed;
        self.sorted.extend(other.sorted);
        self.sorted.sort_unstable();
    }
}

impl Load<'_> {
    /// Opens the connections, and runs for this duration.
    pub(crate) fn run(&self, duration: Duration) -> io::Result<Latencies> {
        Connections::open(self.address, self.connections, None)?.run(self.request, duration)
    }
}

/// Open connections.
pub(crate) struct Connections {
    poll: OwnedFd,
    all: Vec<Connection>,
}

impl Connections {
    /// Opens connections, over TLS if it is configured.
    pub(crate) fn open(
        address: SocketAddr,
        count: usize,
        tls: Option<&Arc<ClientConfig>>,
    ) -> io::Result<Self> {
        let poll = epoll::create(CreateFlags::CLOEXEC)?;
        let mut all = Vec::with_capacity(count);
        for index in 0..count {
            let connection = Connection::open(address, tls)?;
            epoll::add(
                &poll,
                &connection.stream,
                EventData::new_u64(index as u64),
                EventFlags::IN,
            )?;
            all.push(connection);
        }
        Ok(Self { poll, all })
    }

    /// Runs for this duration. Each connection finishes its last request, so each has at least one reply. A status other than
    /// 200 is an error.
    pub(crate) fn run(&mut self, request: &[u8], duration: Duration) -> io::Result<Latencies> {
        self.run_mix(|_| request, duration)
    }

    /// Like `run`, with different requests, chosen by their number.
    pub(crate) fn run_mix<'a>(
        &mut self,
        request: impl Fn(usize) -> &'a [u8],
        duration: Duration,
    ) -> io::Result<Latencies> {
        let mut sorted = Vec::new();
        let begin = clock::now();
        let mut requests = (0..).map(request);
        let mut next = || requests.next().unwrap_or_default();
        for connection in &mut self.all {
            connection.send(next())?;
        }
        let mut running = self.all.len();
        let mut events = Vec::with_capacity(self.all.len());
        while running > 0 {
            events.clear();
            epoll::wait(&self.poll, spare_capacity(&mut events), None)?;
            for event in &events {
                let connection = &mut self.all[event.data.u64() as usize];
                if !connection.receive()? {
                    continue;
                }
                let now = clock::now();
                sorted.push(now - connection.sent);
                if now - begin < duration {
                    connection.send(next())?;
                } else {
                    running -= 1;
                }
            }
        }
        let elapsed = clock::now() - begin;
        sorted.sort_unstable();
        Ok(Latencies { elapsed, sorted })
    }
}

struct Connection {
    stream: TcpStream,
    tls: Option<ClientConnection>,
    sent: Instant,
    answer: Vec<u8>,
}

impl Connection {
    fn open(address: SocketAddr, tls: Option<&Arc<ClientConfig>>) -> io::Result<Self> {
        let mut stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        let mut tls = tls
            .map(|config| ClientConnection::new(config.clone(), ServerName::from(address.ip())))
            .transpose()
            .map_err(io::Error::other)?;
        if let Some(tls) = &mut tls {
            while tls.is_handshaking() {
                tls.complete_io(&mut stream)?;
            }
        }
        Ok(Self {
            stream,
            tls,
            sent: clock::now(),
            answer: Vec::with_capacity(BUFFER),
        })
    }

    fn send(&mut self, request: &[u8]) -> io::Result<()> {
        self.answer.clear();
        self.sent = clock::now();
        let Some(tls) = &mut self.tls else {
            return self.stream.write_all(request);
        };
        tls.writer().write_all(request)?;
        while tls.wants_write() {
            tls.write_tls(&mut self.stream)?;
        }
        Ok(())
    }

    /// Reads what has arrived. Returns the number of bytes, of which there may be none over TLS, or an error if the server
    /// closed the connection.
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let closed = || io::Error::other("the server closed a keep-alive connection");
        let Some(tls) = &mut self.tls else {
            return match self.stream.read(buffer)? {
                0 => Err(closed()),
                count => Ok(count),
            };
        };
        if tls.read_tls(&mut self.stream)? == 0 {
            return Err(closed());
        }
        tls.process_new_packets().map_err(io::Error::other)?;
        match tls.reader().read(buffer) {
            Ok(0) => Err(closed()),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(0),
            read => read,
        }
    }

    /// Reads the available bytes. Returns true when the reply is complete.
    fn receive(&mut self) -> io::Result<bool> {
        let mut buffer = [0; BUFFER];
        let count = self.read(&mut buffer)?;
        self.answer.extend_from_slice(&buffer[..count]);
        let Some(head) = self.answer.windows(4).position(|window| window == b"\r\n\r\n") else {
            return Ok(false);
        };
        let head_length = head + 4;
        let head = std::str::from_utf8(&self.answer[..head]).map_err(io::Error::other)?;
        if self.answer.len() < head_length + content_length(head)? {
            return Ok(false);
        }
        if !head.starts_with("HTTP/1.1 200 ") {
            return Err(io::Error::other(format!(
                "expected 200, found {}",
                String::from_utf8_lossy(&self.answer)
            )));
        }
        Ok(true)
    }
}

const BUFFER: usize = 64 * 1024;

fn content_length(head: &str) -> io::Result<usize> {
    head.lines()
        .find_map(|line| {
            let (name, value) = line.split_once(':')?;
            name.eq_ignore_ascii_case("content-length")
                .then(|| value.trim().parse().ok())?
        })
        .ok_or_else(|| io::Error::other(format!("expected a reply with a content-length, found {head}")))
}

/// A request with one item, as JSON.
pub(crate) fn post(path: &str, item: &str) -> Vec<u8> {
    post_body(path, &format!("{{\"input\":{item}}}"))
}

/// A request with several items that are equal.
pub(crate) fn post_items(path: &str, item: &str, count: usize) -> Vec<u8> {
    let items = vec![item; count].join(",");
    post_body(path, &format!("{{\"inputs\":[{items}]}}"))
}

fn post_body(path: &str, body: &str) -> Vec<u8> {
    format!(
        "POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

/// A request without a body.
pub(crate) fn get(path: &str) -> Vec<u8> {
    format!("GET {path} HTTP/1.1\r\nhost: localhost\r\n\r\n").into_bytes()
}

/// Sends one request on a new connection, and returns the reply from the status line on.
pub(crate) fn once(address: SocketAddr, path: &str) -> io::Result<String> {
    let mut stream = TcpStream::connect(address)?;
    stream.write_all(
        format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").as_bytes(),
    )?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}
