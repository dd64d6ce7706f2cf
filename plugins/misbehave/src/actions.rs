//! Implementations of the actions.

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
    // The condition variable is never notified, and `wait_timeout_while` ignores spurious wake-ups.
    let _result = Condvar::new().wait_timeout_while(guard, duration, |()| true);
}

/// Creates the file `path` with `.reached` appended, and blocks until `path` exists.
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

/// Creates the file `path`. Returns false if it already exists.
pub(crate) fn first_time(path: &Path) -> bool {
    fs::File::create_new(path).is_ok()
}

/// Blocks forever.
pub(crate) fn hang() -> ! {
    loop {
        thread::park();
    }
}

/// Multiplies a vector with a square matrix, `times` times.
pub(crate) fn multiply(vector: &[f32], times: usize) {
    let row: Vec<f32> = (0..vector.len()).map(|index| (index % 7) as f32 * 0.01).collect();
    let mut vector = vector.to_vec();
    for _ in 0..times {
        let product = (0..vector.len()).map(|_| {
            let products = vector.iter().zip(black_box(&row)).map(|(a, b)| a * b);
            products.sum::<f32>().tanh()
        });
        vector = product.collect();
    }
    black_box(vector);
}

/// Computes on every core for `duration`.
#[allow(
    clippy::disallowed_methods,
    reason = "computes for a real duration, on which no decision depends"
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

/// Leaks memory. Every byte is written, so that the memory is resident.
pub(crate) fn leak(bytes: usize) {
    black_box(Vec::leak(vec![1_u8; bytes]));
}

/// Prints a line to standard output and to standard error.
#[allow(clippy::print_stdout, reason = "tests request a plugin that prints")]
pub(crate) fn print(line: &str) {
    println!("to standard output: {line}");
    eprintln!("to standard error: {line}");
}

/// Logs the number of processors and threads, and an environment variable.
pub(crate) fn describe(threads: usize, variable: &str) {
    let processors = thread::available_parallelism().map_or(0, usize::from);
    let value = std::env::var(variable);
    plugin_sdk::log::info!("{processors} processors, {threads} threads, {variable} is {value:?}");
}

/// Exits the process.
pub(crate) fn exit(code: i32) -> ! {
    process::exit(code)
}

/// Kills the process with SIGKILL, as the kernel does when memory runs out.
pub(crate) fn kill() -> ! {
    let killer = process::Command::new("sh")
        .args(["-c", "kill -KILL $PPID"])
        .status();
    panic!("the process was not killed: {killer:?}")
}

/// Aborts the process.
pub(crate) fn abort() -> ! {
    process::abort()
}

/// Aborts the process when the calling thread exits, like libraries whose state is bound to the thread that opened them.
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

/// Writes to an unmapped address.
#[allow(unsafe_code, reason = "tests request a crash")]
pub(crate) fn segfault() {
    // Not null, because debug builds check for that and panic.
    let address = std::ptr::without_provenance_mut::<u8>(8);
    // SAFETY: unsound on purpose. The first page is never mapped, so this terminates the process, as the test requests.
    unsafe { address.write_volatile(1) }
}

/// Recurses until the stack overflows.
pub(crate) fn overflow_the_stack(depth: u64) -> u64 {
    let frame = black_box([depth; 128]);
    if black_box(depth) == u64::MAX {
        return depth;
    }
    overflow_the_stack(depth + 1) + frame[0]
}

fn log_failure(path: &Path, error: &std::io::Error) {
    plugin_sdk::log::error!("cannot create the marker file for {}: {error}", path.display());
}
