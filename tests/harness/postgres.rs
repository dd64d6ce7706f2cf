//! A throwaway PostgreSQL server in a temporary directory.

use std::fs::Permissions;
use std::io::{BufRead as _, BufReader};
use std::net::TcpListener;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;

use rustix::process::{Pid, Signal, kill_process};

use super::tls::Pair;
use super::tools;

/// A database server that only this test uses, through a socket in its directory. It is removed when it is dropped.
pub(crate) struct Postgres {
    programs: PathBuf,
    directory: tempfile::TempDir,
    /// `None` while it is stopped.
    process: Mutex<Option<Child>>,
    user: Option<User>,
    port: u16,
    settings: Vec<String>,
}

/// Whom the server runs as. It rejects root.
#[derive(Clone, Copy)]
struct User {
    uid: u32,
    gid: u32,
}

impl Postgres {
    /// Creates and starts a server. `None` if PostgreSQL is not installed.
    pub(crate) fn start() -> Option<Self> {
        Self::create(|_| (5432, vec!["listen_addresses=".to_owned()]))
    }

    /// Creates and starts a server that encrypts connections to a port of `localhost`.
    pub(crate) fn start_with_tls(certificate: &Pair) -> Option<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
        let port = listener.local_addr().expect("it has an address").port();
        drop(listener);
        Self::create(|directory| {
            for (file, text) in [
                ("server.crt", &certificate.cert),
                ("server.key", &certificate.key),
            ] {
                let file = directory.join(file);
                std::fs::write(&file, text).expect("the file can be written");
                std::fs::set_permissions(&file, Permissions::from_mode(0o600)).expect("the file is ours");
                if rustix::process::geteuid().is_root() {
                    let user = User::unprivileged();
                    chown(&file, Some(user.uid), Some(user.gid)).expect("root can change the owner");
                }
            }
            let file = |name| directory.join(name).display().to_string();
            let settings = vec![
                "listen_addresses=127.0.0.1".to_owned(),
                "ssl=on".to_owned(),
                format!("ssl_cert_file={}", file("server.crt")),
                format!("ssl_key_file={}", file("server.key")),
            ];
            (port, settings)
        })
    }

    fn create(settings: impl FnOnce(&Path) -> (u16, Vec<String>)) -> Option<Self> {
        let Some(programs) = programs() else {
            tools::absent(
                "PostgreSQL is not installed",
                "INFERENCE_TEST_POSTGRES to the directory of its programs",
                "apt-get install postgresql",
            );
            return None;
        };
        let directory = tempfile::tempdir().expect("a directory can be created");
        let user = rustix::process::geteuid().is_root().then(User::unprivileged);
        if let Some(user) = user {
            chown(directory.path(), Some(user.uid), Some(user.gid)).expect("root can change the owner");
        }
        let (port, settings) = settings(directory.path());
        let server = Self {
            programs,
            directory,
            process: Mutex::new(None),
            user,
            port,
            settings,
        };
        let initdb = [
            "-D",
            "data",
            "-U",
            "postgres",
            "-A",
            "trust",
            "-E",
            "UTF8",
            "--no-locale",
            "--no-sync",
        ];
        tools::run(server.command("initdb").args(initdb));
        server.run();
        Some(server)
    }

    /// Address of a database.
    pub(crate) fn url(&self, database: &str) -> String {
        let directory = self.directory.path().display().to_string().replace('/', "%2F");
        format!("postgres://postgres@{directory}:{}/{database}", self.port)
    }

    /// Address of a database, through an encrypted connection.
    pub(crate) fn tls_url(&self, database: &str) -> String {
        format!(
            "postgres://postgres@localhost:{}/{database}?sslmode=require",
            self.port
        )
    }

    /// Creates an empty database and returns its address.
    pub(crate) fn create_database(&self, name: &str) -> String {
        self.sql(&format!("CREATE DATABASE {name}"));
        self.url(name)
    }

    /// Runs SQL in the database `postgres`, and returns what it prints.
    pub(crate) fn sql(&self, sql: &str) -> String {
        self.sql_in("postgres", sql)
    }

    /// Runs SQL in a database, and returns what it prints.
    pub(crate) fn sql_in(&self, database: &str, sql: &str) -> String {
        let mut psql = self.command("psql");
        psql.arg("-h")
            .arg(self.directory.path())
            .arg("-p")
            .arg(self.port.to_string());
        tools::run(psql.args([
            "-U",
            "postgres",
            "-d",
            database,
            "-qAtX",
            "-v",
            "ON_ERROR_STOP=1",
            "-c",
            sql,
        ]))
    }

    /// Kills the server with SIGKILL.
    pub(crate) fn kill(&self) {
        let process = self.process.lock().expect("no thread has panicked").take();
        let mut process = process.expect("the server runs");
        process.kill().expect("the server runs");
        process.wait().expect("the server has exited");
    }

    /// Stops the server as an operator does, without waiting for its clients.
    pub(crate) fn stop(&self) {
        let process = self.process.lock().expect("no thread has panicked").take();
        let mut process = process.expect("the server runs");
        // The fast shutdown of PostgreSQL.
        kill_process(Pid::from_child(&process), Signal::INT).expect("the server runs");
        process.wait().expect("the server has exited");
    }

    /// Starts the server again, after [`Self::kill`] or [`Self::stop`]. Waits until it has recovered.
    pub(crate) fn run(&self) {
        // Until the processes of a server that was killed have exited, the new one exits as well.
        while !self.try_run() {}
    }

    fn try_run(&self) -> bool {
        let directory = self.directory.path();
        let mut command = self.command("postgres");
        command.arg("-D").arg("data").arg("-k").arg(directory);
        // Processes are killed, and not the machine, so writes are not lost.
        for setting in [
            "fsync=off",
            "shared_buffers=16MB",
            "max_connections=60",
            "log_min_messages=log",
        ] {
            command.arg("-c").arg(setting);
        }
        for setting in &self.settings {
            command.arg("-c").arg(setting);
        }
        command.arg("-p").arg(self.port.to_string());
        let mut process = command
            .stderr(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .expect("the server can be started");
        let mut log = BufReader::new(process.stderr.take().expect("its log is a pipe"));
        let mut line = String::new();
        while log.read_line(&mut line).is_ok_and(|length| length > 0) {
            if line.contains("database system is ready to accept connections") {
                // Read on, so that it can write.
                std::thread::spawn(move || std::io::copy(&mut log, &mut std::io::sink()));
                *self.process.lock().expect("no thread has panicked") = Some(process);
                return true;
            }
            line.clear();
        }
        process.wait().expect("the server has exited");
        false
    }

    /// A program of PostgreSQL, as the user of the server, in its directory.
    fn command(&self, program: &str) -> Command {
        let program = self.programs.join(program);
        let mut command = match self.user {
            Some(user) => {
                let mut command = Command::new("setpriv");
                command.args([format!("--reuid={}", user.uid), format!("--regid={}", user.gid)]);
                // It exits with the test, even if the test is killed.
                command.args(["--clear-groups", "--pdeathsig=QUIT"]).arg(program);
                command
            }
            None => Command::new(program),
        };
        command
            .current_dir(self.directory.path())
            .env_remove("PGHOST")
            .env("LC_ALL", "C");
        command
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        if let Ok(Some(process)) = self.process.get_mut().map(Option::as_mut) {
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}

impl User {
    /// The user of Debian's package, or else the one who owns nothing.
    fn unprivileged() -> Self {
        let users = std::fs::read_to_string("/etc/passwd").expect("the users can be read");
        let find = |name: &str| {
            let line = users.lines().find(|line| line.split(':').next() == Some(name))?;
            let mut ids = line.split(':').skip(2).map(str::parse);
            Some(Self {
                uid: ids.next()?.ok()?,
                gid: ids.next()?.ok()?,
            })
        };
        find("postgres")
            .or_else(|| find("nobody"))
            .expect("there is an unprivileged user")
    }
}

/// The directory of the programs: that of the environment, or the newest version that Debian has installed, or one in `PATH`.
fn programs() -> Option<PathBuf> {
    if let Some(directory) = std::env::var_os("INFERENCE_TEST_POSTGRES") {
        return Some(directory.into());
    }
    let versions = std::fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .flatten();
    let mut directories: Vec<PathBuf> = versions.map(|version| version.path().join("bin")).collect();
    directories.sort_by_key(|directory| version_of(directory));
    let path = std::env::var_os("PATH").unwrap_or_default();
    let candidates = directories.into_iter().rev().chain(std::env::split_paths(&path));
    candidates
        .into_iter()
        .find(|directory| directory.join("initdb").is_file())
}

fn version_of(directory: &Path) -> u32 {
    let name = directory.parent().and_then(Path::file_name).unwrap_or_default();
    name.to_string_lossy().parse().unwrap_or(0)
}
