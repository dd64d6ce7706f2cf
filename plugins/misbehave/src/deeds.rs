//! The deeds themselves.

use std::fs;
use std::hint::black_box;
use std::panic::panic_any;
use std::path::Path;
use std::process;
use std::sync::{Condvar, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// Panics when dropped.
pub(crate) struct Bomb;

impl Drop for Bomb {
    fn drop(&mut self) {
        panic_any("misbehave panics in drop");
    }
}

/// Panics with a payload that panics when dropped.
pub(crate) fn panic_twice() -> ! {
    panic_any(Bomb)
}

/// Blocks for `duration`.
pub(crate) fn pause(duration: Duration) {
    let lock = Mutex::new(());
    let guard = lock.lock().unwrap_or_else(PoisonError::into_inner);
    // Nobody notifies: a wake-up before the time is out is spurious, and `wait_timeout_while` waits on.
    let _done = Condvar::new().wait_timeout_while(guard, duration, |()| true);
}

/// Blocks until the file exists, after making another that tells so.
pub(crate) fn wait_for(path: &Path) {
    let mut reached = path.as_os_str().to_owned();
    reached.push(".reached");
    if let Err(error) = fs::write(&reached, b"") {
        log_failure(path, &error);
    }
    while !path.exists() {
        pause(Duration::from_millis(1));
    }
}

/// Whether `path` is missing, which is true once: it exists afterwards.
pub(crate) fn first_time(path: &Path) -> bool {
    fs::File::create_new(path).is_ok()
}

/// Blocks for ever.
pub(crate) fn hang() -> ! {
    loop {
        thread::park();
    }
}

/// Computes on every core for `duration`.
#[allow(
    clippy::disallowed_methods,
    reason = "it burns time by the real clock; nothing decides by it"
)]
pub(crate) fn busy(duration: Duration) {
    let end = Instant::now() + duration;
    let cores = thread::available_parallelism().map_or(1, usize::from);
    thread::scope(|scope| {
        for _ in 0..cores {
            scope.spawn(|| {
                while Instant::now() < end {
                    black_box((0..1000_u64).sum::<u64>());
                }
            });
        }
    });
}

/// Leaks that many bytes, each of them touched, so that they are really there.
pub(crate) fn leak(bytes: usize) {
    black_box(Vec::leak(vec![1_u8; bytes]));
}

/// Prints a line to each of the standard outputs.
#[allow(clippy::print_stdout, reason = "a plugin that prints is what the test orders")]
pub(crate) fn print(line: &str) {
    println!("to standard output: {line}");
    eprintln!("to standard error: {line}");
}

/// Logs the surroundings of the process.
pub(crate) fn describe(threads: usize, variable: &str) {
    let processors = thread::available_parallelism().map_or(0, usize::from);
    let value = std::env::var(variable);
    plugin_sdk::log::info!("{processors} processors, {threads} threads, {variable} is {value:?}");
}

/// Ends the process.
pub(crate) fn exit(code: i32) -> ! {
    process::exit(code)
}

/// Has the process killed, as the system does where memory runs out.
pub(crate) fn kill() -> ! {
    let killer = process::Command::new("sh")
        .args(["-c", "kill -KILL $PPID"])
        .status();
    panic!("the process outlived its killer: {killer:?}")
}

/// Ends the process without a goodbye.
pub(crate) fn abort() -> ! {
    process::abort()
}

/// Aborts the process when the calling thread exits, as libraries do whose state ends with the thread that opened them.
pub(crate) fn bind_thread() {
    struct Bound;
    impl Drop for Bound {
        fn drop(&mut self) {
            abort();
        }
    }
    thread_local!(static BOUND: Bound = const { Bound });
    BOUND.with(|_| ());
}

/// Writes where nobody may.
#[allow(unsafe_code, reason = "the crash is what the test orders")]
pub(crate) fn segfault() {
    // Not null, which a debug build would answer with a panic.
    let nowhere = std::ptr::without_provenance_mut::<u8>(8);
    // SAFETY: none. The first page is never mapped, so this ends the process, as the test wants.
    unsafe { nowhere.write_volatile(1) }
}

/// Calls without end.
pub(crate) fn overflow_the_stack(depth: u64) -> u64 {
    let frame = black_box([depth; 128]);
    if black_box(depth) == u64::MAX {
        return depth;
    }
    overflow_the_stack(depth + 1) + frame[0]
}

fn log_failure(path: &Path, error: &std::io::Error) {
    plugin_sdk::log::error!("cannot tell that {} is waited for: {error}", path.display());
}
