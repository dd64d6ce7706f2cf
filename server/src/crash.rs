//! Reports how a plugin terminated the process: by a fatal signal, or by a call of `exit`.
//!
//! With `isolation = "thread"`, a segmentation fault, an abort or an `exit(0)` in a plugin terminates the server. The server
//! cannot survive these, but it writes a line to standard error that names the thread and, if the thread was calling a plugin,
//! the model and the task. The exit code is never 0. Signal handlers may only call async-signal-safe functions: they write from a
//! fixed buffer and never allocate. Worker processes do not install handlers, since the server reports how they exit.

use std::cell::Cell;
use std::ffi::{c_int, c_void};
use std::io;
use std::mem::MaybeUninit;
use std::ptr;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

/// Exit code if a plugin calls `exit`: EX_SOFTWARE of sysexits.h.
const EXIT_CODE: c_int = 70;
/// The signals that are caused by a fault in the code.
const FATAL_SIGNALS: [c_int; 5] = [
    libc::SIGSEGV,
    libc::SIGBUS,
    libc::SIGILL,
    libc::SIGFPE,
    libc::SIGABRT,
];

/// The previous handlers, such as that of the standard library for stack overflows.
static PREVIOUS: [OnceLock<libc::sigaction>; FATAL_SIGNALS.len()] =
    [const { OnceLock::new() }; FATAL_SIGNALS.len()];
/// Whether the process is exiting normally.
static IS_EXITING: AtomicBool = AtomicBool::new(false);
/// Whether a report has been written. The handler for stack overflows aborts, which raises a second signal.
static IS_REPORTED: AtomicBool = AtomicBool::new(false);
/// Whether the log is JSON.
static IS_JSON: AtomicBool = AtomicBool::new(false);

/// The plugin call that a thread is in. The strings outlive the call.
#[derive(Clone, Copy)]
struct Call {
    model: *const str,
    task: *const str,
}

thread_local! {
    // `const` and without a destructor, so that a signal handler can read it.
    static CALL: Cell<Option<Call>> = const { Cell::new(None) };
}

/// Runs `call`, which calls the plugin of `model`. `task` is empty for calls that are not about a task.
pub fn within<T>(model: &str, task: &str, call: impl FnOnce() -> T) -> T {
    struct Restore(Option<Call>);
    impl Drop for Restore {
        fn drop(&mut self) {
            CALL.set(self.0);
        }
    }
    let _restore = Restore(CALL.replace(Some(Call { model, task })));
    call()
}

/// Installs the handlers that report fatal signals and unexpected exits. `is_json` is the format of the log.
///
/// # Errors
/// The system rejects a handler.
pub fn install(is_json: bool) -> io::Result<()> {
    IS_JSON.store(is_json, Ordering::Relaxed);
    for (signal, previous) in FATAL_SIGNALS.into_iter().zip(&PREVIOUS) {
        if previous.get().is_none() {
            let replaced = install_handler(signal)?;
            let _ = previous.set(replaced);
        }
    }
    // SAFETY: `on_exit` is a function of this program, which stays mapped until the process exits, and cannot unwind.
    if unsafe { libc::atexit(on_exit) } != 0 {
        return Err(io::Error::other("cannot register an exit handler"));
    }
    Ok(())
}

/// Announces a normal exit, which is not reported.
pub fn expect_exit() {
    IS_EXITING.store(true, Ordering::SeqCst);
}

fn install_handler(signal: c_int) -> io::Result<libc::sigaction> {
    let mut mask = MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: the pointer is to a `sigset_t` that this function owns.
    unsafe { libc::sigemptyset(mask.as_mut_ptr()) };
    let action = libc::sigaction {
        sa_sigaction: on_signal as *const () as usize,
        // SAFETY: `sigemptyset` above has initialized it.
        sa_mask: unsafe { mask.assume_init() },
        // SA_ONSTACK: after a stack overflow, only the alternate stack, which the standard library sets up, is usable.
        sa_flags: libc::SA_SIGINFO | libc::SA_ONSTACK,
        sa_restorer: None,
    };
    let mut previous = MaybeUninit::<libc::sigaction>::uninit();
    // SAFETY: both pointers are to values of this function, and the handler has the signature that SA_SIGINFO requires.
    let result = unsafe { libc::sigaction(signal, &raw const action, previous.as_mut_ptr()) };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the call above has succeeded and initialized it.
    Ok(unsafe { previous.assume_init() })
}

extern "C" fn on_signal(signal: c_int, info: *mut libc::siginfo_t, context: *mut c_void) {
    if !IS_REPORTED.swap(true, Ordering::SeqCst) {
        report(signal_description(signal).unwrap_or("fatal signal"));
    }
    // SAFETY: the kernel passes a valid `siginfo_t` to a handler that was installed with SA_SIGINFO.
    let is_fault = unsafe { (*info).si_code } > 0;
    let index = FATAL_SIGNALS.iter().position(|fatal| *fatal == signal);
    let previous = index.and_then(|index| PREVIOUS[index].get());
    match previous {
        Some(previous) if is_fault && is_handler(previous.sa_sigaction) => {
            forward(previous, signal, info, context);
        }
        _ => {
            restore_default(signal);
            // A faulting instruction runs again after this handler and terminates the process, with the right state for a core
            // dump. A signal that was sent has to be raised again; it is blocked until the handler returns.
            if !is_fault {
                // SAFETY: `raise` has no preconditions.
                unsafe { libc::raise(signal) };
            }
        }
    }
}

fn is_handler(handler: libc::sighandler_t) -> bool {
    handler != libc::SIG_DFL && handler != libc::SIG_IGN
}

/// Calls the previous handler.
fn forward(previous: &libc::sigaction, signal: c_int, info: *mut libc::siginfo_t, context: *mut c_void) {
    type Handler = extern "C" fn(c_int);
    type InfoHandler = extern "C" fn(c_int, *mut libc::siginfo_t, *mut c_void);
    if previous.sa_flags & libc::SA_SIGINFO == 0 {
        // SAFETY: without SA_SIGINFO, the address that the kernel returned is that of a function of this type.
        let handler = unsafe { std::mem::transmute::<libc::sighandler_t, Handler>(previous.sa_sigaction) };
        handler(signal);
    } else {
        // SAFETY: with SA_SIGINFO, the address that the kernel returned is that of a function of this type.
        let handler =
            unsafe { std::mem::transmute::<libc::sighandler_t, InfoHandler>(previous.sa_sigaction) };
        handler(signal, info, context);
    }
}

fn restore_default(signal: c_int) {
    let mut action = MaybeUninit::<libc::sigaction>::zeroed();
    // SAFETY: all fields of a `sigaction` may be zero.
    let action = unsafe { action.assume_init_mut() };
    action.sa_sigaction = libc::SIG_DFL;
    // SAFETY: the pointer is to a value of this function, and a null pointer for the old action is allowed.
    unsafe { libc::sigaction(signal, action, ptr::null_mut()) };
}

/// Called by the C library on `exit`, on the thread that called it.
extern "C" fn on_exit() {
    if IS_EXITING.load(Ordering::SeqCst) {
        return;
    }
    report("call of exit()");
    // SAFETY: `_exit` has no preconditions.
    unsafe { libc::_exit(EXIT_CODE) };
}

/// Writes the report: one line about the fault and this thread.
fn report(what: &str) {
    let mut name = [0_u8; 16];
    // SAFETY: PR_GET_NAME writes at most 16 bytes, a terminating zero included.
    unsafe { libc::prctl(libc::PR_GET_NAME, name.as_mut_ptr()) };
    let length = name.iter().position(|byte| *byte == 0).unwrap_or(name.len());
    let thread = str::from_utf8(&name[..length]).unwrap_or("?");
    let (model, task) = match CALL.get() {
        // SAFETY: `within` is still on this thread's stack and borrows the model's name.
        Some(call) => (unsafe { &*call.model }, {
            // SAFETY: as above, for the task's name.
            unsafe { &*call.task }
        }),
        None => ("", ""),
    };
    let mut line = Line::new();
    write_report(
        &mut line,
        IS_JSON.load(Ordering::Relaxed),
        what,
        thread,
        model,
        task,
    );
    line.print();
}

fn write_report(line: &mut Line, is_json: bool, what: &str, thread: &str, model: &str, task: &str) {
    if is_json {
        line.push("{\"level\":\"ERROR\",\"target\":\"crash\",\"message\":\"");
    } else {
        line.push("[ERROR crash] ");
    }
    line.push_name(what);
    line.push(" in thread `");
    line.push_name(thread);
    line.push("`");
    if !model.is_empty() {
        line.push(", in the plugin of model `");
        line.push_name(model);
        line.push("`");
    }
    if !task.is_empty() {
        line.push(", task `");
        line.push_name(task);
        line.push("`");
    }
    line.push("; terminating the server");
    if !model.is_empty() {
        line.push("; use `isolation = ");
        line.push(if is_json { "\\\"process\\\"" } else { "\"process\"" });
        line.push("` to contain crashes of this plugin");
    }
    if is_json {
        line.push("\"");
        for (key, value) in [("thread", thread), ("model", model), ("task", task)] {
            if !value.is_empty() {
                line.push(",\"");
                line.push(key);
                line.push("\":\"");
                line.push_name(value);
                line.push("\"");
            }
        }
        line.push("}");
    }
    line.push("\n");
}

/// A line of bounded length, on the stack.
struct Line {
    bytes: [u8; 1024],
    length: usize,
}

impl Line {
    fn new() -> Self {
        Self {
            bytes: [0; 1024],
            length: 0,
        }
    }

    fn push(&mut self, text: &str) {
        text.bytes().for_each(|byte| self.push_byte(byte));
    }

    /// Adds text, with characters that JSON would escape replaced.
    fn push_name(&mut self, text: &str) {
        let plain = |byte: u8| {
            if byte < b' ' || byte == b'"' || byte == b'\\' {
                b'?'
            } else {
                byte
            }
        };
        // A longer name would truncate the rest of the line.
        text.bytes()
            .take(128)
            .for_each(|byte| self.push_byte(plain(byte)));
    }

    fn push_byte(&mut self, byte: u8) {
        if let Some(place) = self.bytes.get_mut(self.length) {
            *place = byte;
            self.length += 1;
        }
    }

    fn print(&self) {
        // SAFETY: the pointer and the length are those of the initialized part of the buffer. Nothing can be done about an
        // error.
        unsafe { libc::write(libc::STDERR_FILENO, self.bytes.as_ptr().cast(), self.length) };
    }
}

/// The meaning and name of a signal that terminated a process.
pub fn signal_name(signal: i32) -> String {
    signal_description(signal).map_or_else(|| format!("signal {signal}"), str::to_owned)
}

/// Like [`signal_name`], for the signals that usually terminate a process. Does not allocate.
fn signal_description(signal: i32) -> Option<&'static str> {
    Some(match signal {
        4 => "illegal instruction, perhaps built for a newer CPU (SIGILL)",
        5 => "trap (SIGTRAP)",
        6 => "abort (SIGABRT)",
        7 => "bus error (SIGBUS)",
        8 => "arithmetic error (SIGFPE)",
        9 => "killed, perhaps out of memory (SIGKILL)",
        11 => "segmentation fault (SIGSEGV)",
        15 => "terminated (SIGTERM)",
        24 => "CPU time limit exceeded (SIGXCPU)",
        31 => "forbidden system call (SIGSYS)",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(is_json: bool, model: &str, task: &str) -> String {
        let mut line = Line::new();
        write_report(&mut line, is_json, "abort (SIGABRT)", "model m 0", model, task);
        String::from_utf8(line.bytes[..line.length].to_vec()).expect("the line is text")
    }

    #[test]
    fn a_report_names_the_thread_the_model_and_the_task() {
        assert_eq!(
            written(false, "m", "text"),
            "[ERROR crash] abort (SIGABRT) in thread `model m 0`, in the plugin of model `m`, task `text`; terminating the server; \
             use `isolation = \"process\"` to contain crashes of this plugin\n"
        );
        assert_eq!(
            written(false, "", ""),
            "[ERROR crash] abort (SIGABRT) in thread `model m 0`; terminating the server\n"
        );
        let json: serde_json::Value = serde_json::from_str(&written(true, "m", "text")).expect("it is JSON");
        assert_eq!((&json["model"], &json["task"]), (&"m".into(), &"text".into()));
    }

    #[test]
    fn calls_are_restored_when_they_nest() {
        let model = || {
            // SAFETY: within the calls below, the names are alive.
            CALL.get().map(|call| unsafe { &*call.model }.to_owned())
        };
        within("outer", "", || {
            within("inner", "", || assert_eq!(model().as_deref(), Some("inner")));
            assert_eq!(model().as_deref(), Some("outer"));
        });
        assert_eq!(model(), None);
    }
}
