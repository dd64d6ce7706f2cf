//! Load from clients that keep their connections and do not retry.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};

use super::eventually::eventually;
use super::raw::Raw;

/// Clients that send the same request until they are stopped.
pub(crate) struct Load {
    shared: Arc<Shared>,
    clients: Vec<JoinHandle<Vec<String>>>,
}

struct Shared {
    stop: AtomicBool,
    replies: AtomicU64,
}

impl Load {
    /// Starts clients that send this body to a path.
    pub(crate) fn start(clients: usize, address: SocketAddr, path: &str, body: &str) -> Self {
        Self::start_with(clients, move || Ok(Raw::connect(address)), path, body)
    }

    /// Like [`start`](Self::start), with connections that `connect` opens.
    pub(crate) fn start_with(
        clients: usize,
        connect: impl Fn() -> io::Result<Raw> + Clone + Send + 'static,
        path: &str,
        body: &str,
    ) -> Self {
        let shared = Arc::new(Shared {
            stop: AtomicBool::new(false),
            replies: AtomicU64::new(0),
        });
        let clients = (0..clients)
            .map(|_| {
                let (shared, connect) = (shared.clone(), connect.clone());
                let (path, body) = (path.to_owned(), body.to_owned());
                thread::spawn(move || run(&shared, &connect, &path, &body))
            })
            .collect();
        Self { shared, clients }
    }

    /// Waits until the clients have received this many more replies.
    pub(crate) fn wait_for_replies(&self, more: u64) {
        let before = self.shared.replies.load(Ordering::Relaxed);
        eventually(&format!("{more} more replies"), || {
            match self.shared.replies.load(Ordering::Relaxed) - before {
                received if received < more => Err(received),
                _ => Ok(()),
            }
        });
    }

    /// Stops the clients after their present requests. Returns the requests that failed.
    pub(crate) fn stop(self) -> Vec<String> {
        self.shared.stop.store(true, Ordering::Relaxed);
        let failures = self.clients.into_iter().map(JoinHandle::join);
        failures
            .flat_map(|failures| failures.expect("a client does not panic"))
            .collect()
    }
}

/// Sends requests until the load is stopped. Returns the failures. A request that was not answered is not repeated.
fn run(shared: &Shared, connect: &dyn Fn() -> io::Result<Raw>, path: &str, body: &str) -> Vec<String> {
    let mut failures = Vec::new();
    let mut connection = None;
    while !shared.stop.load(Ordering::Relaxed) {
        let mut kept = match connection.take().map_or_else(connect, Ok) {
            Ok(open) => open,
            Err(error) => {
                failures.push(format!("cannot connect: {error}"));
                continue;
            }
        };
        let request = format!(
            "POST {path} HTTP/1.1\r\nhost: test\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        let sent = kept.try_send(request);
        let Some(reply) = sent.ok().and_then(|()| kept.reply()) else {
            failures.push("the connection was closed without a reply".to_owned());
            continue;
        };
        match reply.status {
            200 => {
                shared.replies.fetch_add(1, Ordering::Relaxed);
            }
            status => failures.push(format!("{status}: {}", reply.text())),
        }
        if reply.header("connection") != Some("close") {
            connection = Some(kept);
        }
    }
    failures
}
