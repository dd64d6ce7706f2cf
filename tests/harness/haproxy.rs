//! HAProxy as a layer-4 load balancer, which handles connections rather than requests, like a Kubernetes Service.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

use super::eventually::eventually;
use super::tools;

/// A running load balancer. It is killed on drop.
pub(crate) struct HaProxy {
    child: Child,
    dir: TempDir,
    http: SocketAddr,
    grpc: SocketAddr,
}

impl HaProxy {
    /// Starts a load balancer for servers with these addresses for HTTP and gRPC. It checks `/readyz` of each server ten times per
    /// second. Returns `None` if HAProxy is not installed.
    pub(crate) fn start(servers: &[(SocketAddr, SocketAddr)]) -> Option<Self> {
        let program = program()?;
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
        for (number, (server, _)) in servers.iter().enumerate() {
            config.push_str(&format!("  server s{number} {server}\n"));
        }
        config.push_str(&format!("\nlisten grpc\n  bind {grpc}\n"));
        for (number, (checked, server)) in servers.iter().enumerate() {
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
