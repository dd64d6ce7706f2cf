//! Reading of the server's log.

use std::io::{BufRead, BufReader, Read};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use inference_server::clock;

#[derive(Default)]
struct State {
    lines: Vec<String>,
    ended: bool,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

/// The log of a server from its standard error. A thread reads it until the server exits.
pub(crate) struct Log {
    shared: Arc<Shared>,
    reader: Option<JoinHandle<()>>,
}

impl Log {
    /// Starts to read a log.
    pub(crate) fn read(stream: impl Read + Send + 'static) -> Self {
        let shared = Arc::new(Shared::default());
        let reader = thread::Builder::new()
            .name("log of the server".to_owned())
            .spawn({
                let shared = shared.clone();
                move || read_lines(stream, &shared)
            })
            .expect("start a thread");
        Self {
            shared,
            reader: Some(reader),
        }
    }

    /// Returns all lines so far.
    pub(crate) fn lines(&self) -> Vec<String> {
        self.lock().lines.clone()
    }

    /// Returns all lines so far as one text.
    pub(crate) fn text(&self) -> String {
        self.lines().join("\n")
    }

    /// Whether a line contains `part`.
    pub(crate) fn has(&self, part: &str) -> bool {
        self.lock().lines.iter().any(|line| line.contains(part))
    }

    /// Waits for a line that contains `part`. `None` after `patience`, or if the log has ended without one.
    pub(crate) fn wait_for(&self, part: &str, patience: Duration) -> Option<String> {
        self.wait_for_after(0, part, patience)
    }

    /// Like [`wait_for`](Self::wait_for), ignoring the first `seen` lines.
    pub(crate) fn wait_for_after(&self, seen: usize, part: &str, patience: Duration) -> Option<String> {
        let deadline = clock::now() + patience;
        let mut state = self.lock();
        loop {
            if let Some(line) = state.lines.iter().skip(seen).find(|line| line.contains(part)) {
                return Some(line.clone());
            }
            let left = deadline.saturating_duration_since(clock::now());
            if state.ended || left.is_zero() {
                return None;
            }
            let (next, _) = self
                .shared
                .changed
                .wait_timeout(state, left)
                .unwrap_or_else(PoisonError::into_inner);
            state = next;
        }
    }

    /// Waits until the server has closed its log.
    pub(crate) fn finish(&mut self) {
        if let Some(reader) = self.reader.take() {
            // The thread does not panic. If it did, the lines read so far would remain available.
            let _ = reader.join();
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.shared.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn read_lines(stream: impl Read, shared: &Shared) {
    let mut stream = BufReader::new(stream);
    let mut line = Vec::new();
    loop {
        line.clear();
        let more = matches!(stream.read_until(b'\n', &mut line), Ok(length) if length > 0);
        let mut state = shared.state.lock().unwrap_or_else(PoisonError::into_inner);
        if more {
            state
                .lines
                .push(String::from_utf8_lossy(&line).trim_end().to_owned());
        } else {
            state.ended = true;
        }
        drop(state);
        shared.changed.notify_all();
        if !more {
            return;
        }
    }
}
