//! What the end of a child process means, in words.

/// A signal that ended a process, by its meaning and name.
pub fn signal_name(signal: i32) -> String {
    signal_description(signal).map_or_else(|| format!("signal {signal}"), str::to_owned)
}

/// As [`signal_name`], for the signals that have a meaning here. Does not allocate.
pub fn signal_description(signal: i32) -> Option<&'static str> {
    Some(match signal {
        4 => "illegal instruction, built for a newer processor? (SIGILL)",
        5 => "trap (SIGTRAP)",
        6 => "abort (SIGABRT)",
        7 => "bus error (SIGBUS)",
        8 => "arithmetic error (SIGFPE)",
        9 => "killed, out of memory? (SIGKILL)",
        11 => "segmentation fault (SIGSEGV)",
        15 => "terminated (SIGTERM)",
        24 => "out of processor time (SIGXCPU)",
        31 => "forbidden system call (SIGSYS)",
        _ => return None,
    })
}
