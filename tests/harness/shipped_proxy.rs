//! HAProxy and nginx with the configurations of `config/deploy`, in which only addresses and paths are replaced.

use std::fs::{File, Permissions};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

use super::eventually::eventually;
use super::haproxy;
use super::plugins::repository;
use super::tools;

/// A server behind the proxy.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Backend {
    pub(crate) http: SocketAddr,
    pub(crate) grpc: SocketAddr,
    /// Port of its agent for HAProxy. No agent listens on port 1.
    pub(crate) agent_port: u16,
}

/// A running proxy. It is killed on drop, and its log is printed if the test fails.
pub(crate) struct ShippedProxy {
    child: Child,
    dir: TempDir,
    http: SocketAddr,
    grpc: SocketAddr,
}

/// Returns the path of a file in `config/deploy`.
pub(crate) fn deployment(path: &str) -> PathBuf {
    repository().join("config/deploy").join(path)
}

/// Returns the path of nginx. On Debian, it is only in the `PATH` of root.
pub(crate) fn nginx_program() -> Option<PathBuf> {
    [PathBuf::from("/usr/sbin/nginx")]
        .into_iter()
        .find(|program| program.is_file())
        .or_else(|| tools::find("INFERENCE_TEST_NGINX", &["nginx"], "apt-get install nginx"))
}

/// Replaces texts, each of which must occur.
fn replace(file: &Path, replacements: &[(&str, String)]) -> String {
    let mut text = std::fs::read_to_string(file).expect("read a configuration");
    for (from, to) in replacements {
        assert!(text.contains(from), "{} has no {from:?}", file.display());
        text = text.replace(from, to);
    }
    text
}

/// Returns two different free addresses, for HTTP and gRPC.
fn free_addresses() -> [SocketAddr; 2] {
    let listeners = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").expect("a port is free"));
    listeners.map(|listener| listener.local_addr().expect("it listens"))
}

/// The addresses of the three servers in the configurations.
const HTTP: [&str; 3] = ["10.0.0.11:8080", "10.0.0.12:8080", "10.0.0.13:8080"];
const GRPC: [&str; 3] = ["10.0.0.11:9000", "10.0.0.12:9000", "10.0.0.13:9000"];

impl ShippedProxy {
    /// Starts HAProxy and waits until it considers all servers up. Returns `None` if it is not installed.
    pub(crate) fn haproxy(backends: [Backend; 3]) -> Option<Self> {
        let program = haproxy::program()?;
        let dir = tempfile::tempdir().expect("create a temporary directory");
        let [http, grpc] = free_addresses();
        let mut replacements = vec![
            (
                "/run/haproxy/admin.sock",
                dir.path().join("stats").display().to_string(),
            ),
            ("bind :80\n", format!("bind {http}\n")),
            ("bind :9000 ", format!("bind {grpc} ")),
            // The agents have different ports.
            (" agent-port 8081", String::new()),
        ];
        for (index, backend) in backends.iter().enumerate() {
            let to = format!("{} agent-port {}", backend.http, backend.agent_port);
            replacements.push((HTTP[index], to));
            replacements.push((GRPC[index], backend.grpc.to_string()));
        }
        let config = dir.path().join("haproxy.cfg");
        let text = replace(&deployment("haproxy/haproxy.cfg"), &replacements);
        std::fs::write(&config, text).expect("write the configuration");
        let mut command = Command::new(program);
        command.arg("-f").arg(config);
        let proxy = Self::start(command, dir, http, grpc);
        for server in 1..=3 {
            proxy.wait_for_haproxy(server, "UP");
        }
        Some(proxy)
    }

    /// Starts nginx and waits until it listens. Returns `None` if it is not installed.
    pub(crate) fn nginx(backends: [Backend; 3]) -> Option<Self> {
        let program = nginx_program()?;
        let dir = tempfile::tempdir().expect("create a temporary directory");
        // Its worker processes run as another user if the tests run as root.
        std::fs::set_permissions(dir.path(), Permissions::from_mode(0o755)).expect("set permissions");
        let [http, grpc] = free_addresses();
        let config = nginx_config(dir.path(), http, grpc, backends);
        let mut command = Command::new(program);
        command.args(["-e", "stderr", "-c"]).arg(config);
        let proxy = Self::start(command, dir, http, grpc);
        eventually("nginx to listen", || TcpStream::connect(http).map(drop));
        Some(proxy)
    }

    fn start(mut command: Command, dir: TempDir, http: SocketAddr, grpc: SocketAddr) -> Self {
        let log = File::create(dir.path().join("log")).expect("create a file");
        let child = command
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a file can be shared"))
            .stderr(log)
            .spawn()
            .expect("the proxy can be started");
        Self {
            child,
            dir,
            http,
            grpc,
        }
    }

    /// Returns the address for HTTP.
    pub(crate) fn http(&self) -> SocketAddr {
        self.http
    }

    /// Returns the address for gRPC.
    pub(crate) fn grpc(&self) -> SocketAddr {
        self.grpc
    }

    /// Waits until HAProxy reports a server, counted from 1, as `UP` or `DOWN`.
    #[track_caller]
    fn wait_for_haproxy(&self, server: usize, status: &str) {
        eventually(&format!("HAProxy to see server {server} {status}"), || match self
            .haproxy_statistic(&format!("server{server}"), "status")
        {
            Some(found) if found.starts_with(status) => Ok(()),
            found => Err(found),
        });
    }

    /// Returns a column of HAProxy's statistics of a server for HTTP, or of all (`BACKEND`).
    pub(crate) fn haproxy_statistic(&self, server: &str, column: &str) -> Option<String> {
        haproxy::statistic(&self.dir.path().join("stats"), "http_servers", server, column)
    }
}

/// Writes the configuration of nginx into a directory and returns its path.
pub(crate) fn nginx_config(
    dir: &Path,
    http: SocketAddr,
    grpc: SocketAddr,
    backends: [Backend; 3],
) -> PathBuf {
    let directory = dir.display();
    let temporary = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|kind| format!("    {kind}_temp_path {directory}/{kind};\n"));
    let mut replacements = vec![
        (
            "events {\n",
            format!("daemon off;\npid {directory}/pid;\nevents {{\n"),
        ),
        (
            "http {\n",
            format!("http {{\n    access_log off;\n{}", temporary.concat()),
        ),
        ("listen 80;", format!("listen {http};")),
        ("listen 9000 ", format!("listen {grpc} ")),
    ];
    for (index, backend) in backends.iter().enumerate() {
        replacements.push((HTTP[index], backend.http.to_string()));
        replacements.push((GRPC[index], backend.grpc.to_string()));
    }
    let config = dir.join("nginx.conf");
    let text = replace(&deployment("nginx/nginx.conf"), &replacements);
    std::fs::write(&config, text).expect("write the configuration");
    config
}

impl Drop for ShippedProxy {
    fn drop(&mut self) {
        // SIGTERM, so that nginx stops its worker processes. Fails if the process has already exited.
        let pid = rustix::process::Pid::from_child(&self.child);
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        let _ = self.child.wait();
        if std::thread::panicking() {
            let log = std::fs::read_to_string(self.dir.path().join("log")).unwrap_or_default();
            let lines: Vec<&str> = log.lines().collect();
            let last = &lines[lines.len().saturating_sub(50)..];
            eprintln!("--- end of the log of the proxy\n{}\n---", last.join("\n"));
        }
    }
}
