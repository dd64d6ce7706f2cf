//! Writes the output of commands to standard output and standard error.
//!
//! Unlike the printing macros of the standard library, these functions do not panic if the text cannot be written. A closed pipe,
//! as with `… | head`, is not an error; any other error is returned to the caller.

use std::io::{self, Write};

/// Writes `text` to standard output.
///
/// # Errors
/// The text could not be written, for example because the disk is full. A closed pipe is not an error.
pub fn print(text: &str) -> io::Result<()> {
    write_to(io::stdout().lock(), text)
}

/// Writes a line to standard error. Errors are ignored, since there is nowhere to report them.
pub fn report(line: impl std::fmt::Display) {
    let _ = write_to(io::stderr().lock(), &format!("{line}\n"));
}

/// Maps the error of a closed pipe to success.
pub fn ignore_closed_pipe(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => other,
    }
}

fn write_to(mut stream: impl Write, text: &str) -> io::Result<()> {
    // Flushed explicitly: standard output buffers an incomplete line, and ignores errors when the process exits.
    let written = stream.write_all(text.as_bytes()).and_then(|()| stream.flush());
    ignore_closed_pipe(written)
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Failing(io::ErrorKind);

    impl Write for Failing {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(self.0.into())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_closed_pipe_is_not_an_error_but_a_full_disk_is() {
        assert!(write_to(Failing(io::ErrorKind::BrokenPipe), "text").is_ok());
        let error = write_to(Failing(io::ErrorKind::StorageFull), "text").expect_err("the disk is full");
        assert_eq!(error.kind(), io::ErrorKind::StorageFull);
    }
}
