//! HAProxy as a layer-4 load balancer, which handles connections rather than requests, like a Kubernetes Service.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

use super::eventually::eventually;
use super::{Server, Signal, tools};

/// A running load balancer. It is killed on drop.
pub(crate) struct HaProxy {
    child: Child,
    dir: TempDir,
    http: SocketAddr,
    grpc: SocketAddr,
}

impl HaProxy {
    /// Starts a load balancer for HTTP and gRPC. It checks `/readyz` of each server ten times per second. Returns `None` if HAProxy
    /// is not installed.
    pub(crate) fn start(servers: &[Server]) -> Option<Self> {
        let program = program()?;
        let addresses = || {
            servers
                .iter()
                .map(|server| (server.address(), server.grpc_address()))
        };
        let dir = tempfile::tempdir().expect("create a temporary directory");
        // Both are open at the same time, so that the ports differ.
        let free = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").expect("a port is free"));
        let [http, grpc] = free.map(|listener| listener.local_addr().expect("it listens"));
        let mut config = format!(
            "global\n  stats socket {}/stats\n\ndefaults\n  mode tcp\n  retries 0\n  balance roundrobin\n  \
             option httpchk GET /readyz\n  default-server check inter 100ms fall 1 rise 1\n  timeout connect 10s\n  \
             timeout client 60s\n  timeout server 60s\n  timeout check 2s\n",
            dir.path().display()
        );
        config.push_str(&format!("\nlisten http\n  bind {http}\n"));
        for (number, (server, _)) in addresses().enumerate() {
            config.push_str(&format!("  server s{number} {server}\n"));
        }
        config.push_str(&format!("\nlisten grpc\n  bind {grpc}\n"));
        for (number, (checked, server)) in addresses().enumerate() {
            config.push_str(&format!(
                "  server s{number} {server} check port {}\n",
                checked.port()
            ));
        }
        let file = dir.path().join("haproxy.cfg");
        std::fs::write(&file, config).expect("write the configuration");
        let child = Command::new(program)
            .arg("-f")
            .arg(file)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("HAProxy can be started");
        let balancer = Self {
            child,
            dir,
            http,
            grpc,
        };
        for number in 0..servers.len() {
            balancer.wait_for(number, "UP");
        }
        Some(balancer)
    }

    /// Returns the address for HTTP.
    pub(crate) fn http(&self) -> SocketAddr {
        self.http
    }

    /// Returns the address for gRPC.
    pub(crate) fn grpc(&self) -> SocketAddr {
        self.grpc
    }

    /// Waits until the load balancer reports a server as `UP` or `DOWN`.
    #[track_caller]
    pub(crate) fn wait_for(&self, server: usize, status: &str) {
        eventually(
            &format!("HAProxy to see server {server} {status}"),
            || match self.statuses(server) {
                Some(found) if found.iter().all(|found| found.starts_with(status)) => Ok(()),
                found => Err(found),
            },
        );
    }

    /// Restarts its servers one by one with `start`, which receives the ports for HTTP and gRPC that the server had. Each one
    /// receives requests again before the next one is stopped.
    #[track_caller]
    pub(crate) fn restart_all(&self, servers: &mut [Server], start: impl Fn(u16, u16) -> Server) {
        for (number, server) in servers.iter_mut().enumerate() {
            let (http, grpc) = (server.address().port(), server.grpc_address().port());
            server.signal(Signal::TERM);
            assert_eq!(server.wait_for_exit().code(), Some(0));
            *server = start(http, grpc);
            self.wait_for(number, "UP");
        }
    }

    /// Returns the reported status of a server, for HTTP and for gRPC.
    fn statuses(&self, server: usize) -> Option<[String; 2]> {
        let socket = self.dir.path().join("stats");
        let status = |listener: &str| statistic(&socket, listener, &format!("s{server}"), "status");
        Some([status("http")?, status("grpc")?])
    }
}

/// Returns the path of HAProxy. On Debian, it is only in the `PATH` of root.
pub(crate) fn program() -> Option<PathBuf> {
    [PathBuf::from("/usr/sbin/haproxy")]
        .into_iter()
        .find(|program| program.is_file())
        .or_else(|| tools::find("INFERENCE_TEST_HAPROXY", &["haproxy"], "apt-get install haproxy"))
}

/// Returns a column of the statistics of a server or of a whole proxy (`BACKEND`), from the control socket of HAProxy.
pub(super) fn statistic(socket: &Path, proxy: &str, server: &str, column: &str) -> Option<String> {
    let mut socket = UnixStream::connect(socket).ok()?;
    socket.write_all(b"show stat\n").ok()?;
    let mut table = String::new();
    socket.read_to_string(&mut table).ok()?;
    let index = table.lines().next()?.split(',').position(|name| name == column)?;
    let prefix = format!("{proxy},{server},");
    let line = table.lines().find(|line| line.starts_with(&prefix))?;
    line.split(',').nth(index).map(str::to_owned)
}

impl Drop for HaProxy {
    fn drop(&mut self) {
        // Fails if the process has already exited.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
