//! A receiver of webhooks on this machine.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::mpsc::{self, channel};
use std::thread;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::hmac;
use rustls::crypto::ring as provider;
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use serde_json::Value as Json;

use super::KEY;
use crate::harness::eventually::PATIENCE;
use crate::harness::tls::{Pair, certificate};

/// A message, as it was received.
#[derive(Clone)]
pub(super) struct Message {
    pub(super) path: String,
    pub(super) headers: BTreeMap<String, String>,
    body: Vec<u8>,
}

impl Message {
    /// Reads a request of HTTP/1.1. `None` if the connection is closed before.
    fn read(stream: impl Read) -> Option<Self> {
        let mut reader = BufReader::new(stream);
        let mut lines = Vec::new();
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line).ok()? == 0 {
                return None;
            }
            match line.trim_end() {
                "" => break,
                line => lines.push(line.to_owned()),
            }
        }
        let path = lines[0].split(' ').nth(1).expect("a path").to_owned();
        let headers: BTreeMap<String, String> = lines[1..]
            .iter()
            .filter_map(|line| line.split_once(": "))
            .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))
            .collect();
        let length = headers["content-length"].parse().expect("a number");
        let mut body = vec![0; length];
        reader.read_exact(&mut body).ok()?;
        Some(Self { path, headers, body })
    }

    /// Identifies the message: the same for every attempt.
    pub(super) fn id(&self) -> String {
        self.headers["webhook-id"].clone()
    }

    /// Checks the signature as a receiver does. Returns the body.
    #[track_caller]
    pub(super) fn verified(&self) -> Json {
        let (id, timestamp) = (&self.headers["webhook-id"], &self.headers["webhook-timestamp"]);
        let mut signed = format!("{id}.{timestamp}.").into_bytes();
        signed.extend_from_slice(&self.body);
        let key = hmac::Key::new(hmac::HMAC_SHA256, &STANDARD.decode(KEY).expect("it is base64"));
        let signature = self.headers["webhook-signature"].strip_prefix("v1,");
        let tag = STANDARD
            .decode(signature.expect("a version"))
            .expect("it is base64");
        hmac::verify(&key, &signed, &tag).expect("the signature is valid");
        serde_json::from_slice(&self.body).expect("the body is JSON")
    }
}

/// Receives messages, each on its own thread.
pub(super) struct Receiver {
    url: String,
    messages: mpsc::Receiver<Message>,
}

impl Receiver {
    /// Starts a receiver that answers each message with the status line that `answer` returns.
    pub(super) fn start(answer: impl Fn(&Message) -> &'static str + Send + Sync + 'static) -> Self {
        let (address, messages) = listen(answer, |stream| stream);
        let url = format!("http://{address}");
        Self { url, messages }
    }

    /// Like [`start`](Self::start), over TLS with this certificate.
    pub(super) fn start_with_tls(
        pair: &Pair,
        answer: impl Fn(&Message) -> &'static str + Send + Sync + 'static,
    ) -> Self {
        let key = PrivateKeyDer::from_pem_slice(pair.key.as_bytes()).expect("a key");
        let config = ServerConfig::builder_with_provider(Arc::new(provider::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("the versions are supported")
            .with_no_client_auth()
            .with_single_cert(vec![certificate(&pair.cert)], key)
            .expect("the key belongs to the certificate");
        let config = Arc::new(config);
        let (address, messages) = listen(answer, move |stream| {
            let connection = ServerConnection::new(config.clone()).expect("the settings are valid");
            StreamOwned::new(connection, stream)
        });
        let url = format!("https://{address}");
        Self { url, messages }
    }

    /// The URL of a path.
    pub(super) fn url(&self, path: &str) -> String {
        format!("{}{path}", self.url)
    }

    /// Waits for the next message.
    #[track_caller]
    pub(super) fn next(&self) -> Message {
        self.messages.recv_timeout(PATIENCE).expect("a message arrives")
    }

    /// Whether a message has arrived that was not read.
    pub(super) fn has_message(&self) -> bool {
        self.messages.try_recv().is_ok()
    }
}

/// Accepts connections until the messages are dropped. `wrap` adds TLS.
fn listen<S: Read + Write>(
    answer: impl Fn(&Message) -> &'static str + Send + Sync + 'static,
    wrap: impl Fn(TcpStream) -> S + Send + Sync + 'static,
) -> (SocketAddr, mpsc::Receiver<Message>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
    let address = listener.local_addr().expect("it is bound");
    let (sender, messages) = channel();
    let (answer, wrap) = (Arc::new(answer), Arc::new(wrap));
    thread::spawn(move || {
        for stream in listener.incoming() {
            let (answer, wrap, sender) = (answer.clone(), wrap.clone(), sender.clone());
            let stream = stream.expect("a connection");
            thread::spawn(move || {
                let mut stream = wrap(stream);
                let Some(message) = Message::read(&mut stream) else {
                    return;
                };
                let status = answer(&message);
                let reply = format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
                // The sender may have been killed.
                let _ = stream.write_all(reply.as_bytes()).and_then(|()| stream.flush());
                // The test may be over.
                let _ = sender.send(message);
            });
        }
    });
    (address, messages)
}
