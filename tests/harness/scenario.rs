//! Builder for the setup of a test.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use tempfile::TempDir;

use super::log::Log;
use super::plugins;
use super::server::Server;

/// A directory with a configuration, and the options for starting a server.
///
/// `$DIR` in the configuration stands for that directory. By default, the server listens on a free port of this machine and copies
/// plugins into the directory. The only `INFERENCE_…` variable in its environment is the directory of the plugins.
pub(crate) struct Scenario {
    dir: TempDir,
    config: PathBuf,
    arguments: Vec<OsString>,
    environment: Vec<(String, String)>,
    open_files: Option<usize>,
    subreaper: bool,
}

impl Scenario {
    /// Creates a scenario with this configuration.
    pub(crate) fn new(config: &str) -> Self {
        plugins::library("template");
        let dir = tempfile::Builder::new()
            .prefix("inference-test-")
            .tempdir()
            .expect("create a temporary directory");
        let scenario = Self {
            config: config_file(dir.path()),
            dir,
            arguments: Vec::new(),
            environment: Vec::new(),
            open_files: None,
            subreaper: false,
        };
        write_config(scenario.dir(), config);
        scenario
    }

    /// Creates a scenario with one model `m` of the plugin `misbehave`, with these lines in `[models.settings]` and
    /// `[models.batching]`.
    pub(crate) fn misbehave(settings: &str, batching: &str) -> Self {
        plugins::library("misbehave");
        Self::new(&format!(
            "[[models]]\nname = \"m\"\nplugin = \"misbehave\"\n\n\
             [models.settings]\n{settings}\n\n[models.batching]\n{batching}\n"
        ))
    }

    /// Creates a scenario with the default configuration of the repository: handwritten digits, and the template.
    pub(crate) fn of_the_repository() -> Self {
        plugins::library("onnx");
        Self {
            config: plugins::repository().join("config/models.toml"),
            ..Self::new("")
        }
    }

    /// Returns the directory.
    pub(crate) fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Adds a flag or argument.
    pub(crate) fn argument(mut self, argument: impl Into<OsString>) -> Self {
        self.arguments.push(argument.into());
        self
    }

    /// Listens on these ports for HTTP and gRPC; 0 picks a free port.
    pub(crate) fn ports(self, http: u16, grpc: u16) -> Self {
        self.argument("--port")
            .argument(http.to_string())
            .argument("--grpc-port")
            .argument(grpc.to_string())
    }

    /// Adds an environment variable.
    pub(crate) fn env(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Limits the number of open files of the server, including connections.
    pub(crate) fn open_files(mut self, max: usize) -> Self {
        self.open_files = Some(max);
        self
    }

    /// Makes orphaned processes children of the server, as for the first process of a container.
    pub(crate) fn adopting_orphans(mut self) -> Self {
        self.subreaper = true;
        self
    }

    /// Starts the server and waits until it is ready.
    #[track_caller]
    pub(crate) fn start(self) -> Server {
        let server = self.start_unready();
        server.wait_until_ready();
        server
    }

    /// Starts the server and waits until it listens, which is before its models are loaded.
    #[track_caller]
    pub(crate) fn start_unready(self) -> Server {
        let mut command = self.command();
        for (flag, value) in [("--host", "127.0.0.1"), ("--port", "0")] {
            if !self.arguments.iter().any(|argument| argument == flag) {
                command.args([flag, value]);
            }
        }
        command.arg("--scratch-dir").arg(self.dir().join("scratch"));
        command.args(&self.arguments);
        std::fs::create_dir_all(self.dir().join("scratch")).expect("create a directory");
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("start the server");
        let log = Log::read(child.stderr.take().expect("standard error is piped"));
        Server::listening(child, log, self.dir)
    }

    /// Runs a command of the executable and waits for its exit.
    pub(crate) fn run(&self, arguments: &[&str]) -> Output {
        self.bare_command()
            .args(arguments)
            .output()
            .expect("start the executable")
    }

    /// Returns a command of the executable without starting it.
    pub(crate) fn to_run(&self, arguments: &[&str]) -> Command {
        let mut command = self.bare_command();
        command.args(arguments);
        command
    }

    fn command(&self) -> Command {
        let mut command = self.bare_command();
        command.arg("--config").arg(&self.config);
        command
    }

    fn bare_command(&self) -> Command {
        let mut command = match self.open_files {
            None => Command::new(plugins::executable()),
            Some(max) => {
                let mut shell = Command::new("sh");
                let limited = format!("ulimit -n {max} && exec \"$0\" \"$@\"");
                shell.arg("-c").arg(limited).arg(plugins::executable());
                shell
            }
        };
        if self.subreaper {
            become_subreaper(&mut command);
        }
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("INFERENCE_") {
                command.env_remove(name);
            }
        }
        command
            .current_dir(self.dir())
            .env("INFERENCE_PLUGIN_DIR", plugins::directory())
            .env("INFERENCE_JOBS_PATH", self.dir().join("jobs.sqlite"))
            .envs(self.environment.iter().map(|(name, value)| (name, value)));
        command
    }
}

/// Makes the process a subreaper. The attribute is preserved by `exec`.
#[allow(
    unsafe_code,
    reason = "a process can only set the attribute itself, between fork and exec"
)]
fn become_subreaper(command: &mut Command) {
    use std::os::unix::process::CommandExt;
    let set = || {
        let own = rustix::process::getpid();
        rustix::process::set_child_subreaper(Some(own)).map_err(std::io::Error::from)
    };
    // SAFETY: the closure makes two system calls and neither allocates nor takes a lock.
    unsafe { command.pre_exec(set) };
}

fn config_file(dir: &Path) -> PathBuf {
    dir.join("models.toml")
}

/// Writes the configuration of a scenario atomically.
pub(crate) fn write_config(dir: &Path, config: &str) {
    let text = config.replace("$DIR", &dir.to_string_lossy());
    let written = dir.join("models.toml.new");
    std::fs::write(&written, text).expect("write the configuration");
    std::fs::rename(written, config_file(dir)).expect("rename the configuration");
}
