//! Serves a connection over TLS: the handshake, and then the version of HTTP that was negotiated.

use std::net::SocketAddr;
use std::rc::Rc;

use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use super::Stage;
use super::bridge::Application;
use super::connection::{self, Host, Inbound, LINGER_TIMEOUT, linger};
use super::connection_state::FRESH_GRACE;
use super::http2;
use crate::tls::{self, Alpn, Certificates, HandshakeError, TlsStream};

/// The reply to a request without TLS. The client cannot expect a particular format of errors here.
const PLAIN_HTTP_REPLY: &[u8] = b"HTTP/1.1 400 Bad Request\r\ncontent-type: text/plain; charset=utf-8\r\n\
    content-length: 52\r\nconnection: close\r\n\r\nthis port requires TLS: use https:// in the address\n";

/// Serves a new connection until it is closed.
pub(super) async fn serve<A: Application>(
    stream: TcpStream,
    peer: SocketAddr,
    host: Rc<Host<A>>,
    mut stages: watch::Receiver<Stage>,
    certificates: &Certificates,
) {
    let Some(stream) = accept(stream, peer, &host, &mut stages, certificates).await else {
        return;
    };
    let is_http2 = tls::is_http2(&stream);
    let inbound = Inbound::new(stream);
    if is_http2 {
        Box::pin(http2::serve(inbound, peer, &host, stages)).await;
    } else {
        connection::serve(inbound, peer, host, stages).await;
    }
}

/// Runs the handshake. It has the same time limit as the head of a request.
async fn accept<A: Application>(
    stream: TcpStream,
    peer: SocketAddr,
    host: &Host<A>,
    stages: &mut watch::Receiver<Stage>,
    certificates: &Certificates,
) -> Option<TlsStream> {
    let config = certificates.config(Alpn::Http);
    let handshake = tls::accept(config, stream, host.limits.header_timeout);
    let stopped = async {
        // Fails if the server was dropped.
        let _ = stages.wait_for(|stage| *stage == Stage::Stopped).await;
        sleep(FRESH_GRACE).await;
    };
    let accepted = tokio::select! {
        accepted = handshake => accepted,
        () = stopped => Err(HandshakeError::Timeout(FRESH_GRACE)),
    };
    match accepted {
        Ok(stream) => return Some(stream),
        // Load balancers check a port this way.
        Err(HandshakeError::Disconnected) => {}
        Err(error) => {
            certificates.count_failed_handshake();
            log::info!("TLS handshake with {peer} failed: {error}");
            if let HandshakeError::PlainHttp(mut stream) = error {
                let written = timeout(LINGER_TIMEOUT, stream.write_all(PLAIN_HTTP_REPLY)).await;
                if matches!(written, Ok(Ok(()))) {
                    linger(&mut stream).await;
                }
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reply_to_a_request_without_tls_has_the_length_that_it_states() {
        let text = String::from_utf8_lossy(PLAIN_HTTP_REPLY);
        let (head, body) = text.split_once("\r\n\r\n").expect("a head and a body");
        assert!(
            head.contains(&format!("content-length: {}\r\n", body.len())),
            "{head}"
        );
    }
}
