//! The log of a child process: sends each record to the server as a datagram, and writes it to the server's log there.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use bytes::Bytes;
use log::kv::{Error, Key, Value, VisitSource};
use log::{Level, LevelFilter, Log, Metadata, Record};
use rustix::buffer::spare_capacity;
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags};

use super::encoding::{DecodeError, Decoder, Encoder};

/// Maximum length of a message. Longer ones are truncated.
const MAX_MESSAGE_BYTES: usize = 16 << 10;
/// Maximum length of a target, a file name, and the key and value of a field.
const MAX_NAME_BYTES: usize = 1 << 10;
/// Maximum number of fields.
const MAX_FIELDS: usize = 8;
/// Maximum length of a datagram: all of the above, and their lengths.
const MAX_DATAGRAM_BYTES: usize = MAX_MESSAGE_BYTES + (2 + 2 * MAX_FIELDS) * MAX_NAME_BYTES + 512;

const RECORD_CODE: u8 = 1;

/// Sends log records to the server.
struct SocketLogger {
    socket: OwnedFd,
}

/// Makes this process log to the server, up to `level`. Must be called once.
pub(super) fn init_logger(socket: OwnedFd, level: LevelFilter) {
    // Fails only if a test has set a logger.
    if log::set_boxed_logger(Box::new(SocketLogger { socket })).is_ok() {
        log::set_max_level(level);
    }
}

/// The fields of a record, at most [`MAX_FIELDS`].
struct Fields(Vec<(String, String)>);

impl<'kvs> VisitSource<'kvs> for Fields {
    fn visit_pair(&mut self, key: Key<'kvs>, value: Value<'kvs>) -> Result<(), Error> {
        if self.0.len() < MAX_FIELDS {
            self.0.push((key.to_string(), value.to_string()));
        }
        Ok(())
    }
}

impl Log for SocketLogger {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.level() <= log::max_level()
    }

    fn log(&self, record: &Record<'_>) {
        if !self.enabled(record.metadata()) {
            return;
        }
        let mut fields = Fields(Vec::new());
        // `visit_pair` never fails.
        let _ = record.key_values().visit(&mut fields);
        let Fields(fields) = fields;
        let message = record.args().to_string();
        let mut to = Encoder::new(RECORD_CODE);
        to.u8(record.level() as u8);
        to.text(truncate(record.target(), MAX_NAME_BYTES));
        to.text(truncate(&message, MAX_MESSAGE_BYTES));
        to.text(truncate(record.file().unwrap_or_default(), MAX_NAME_BYTES));
        to.u32(record.line().unwrap_or_default());
        to.count(fields.len());
        for (key, value) in &fields {
            to.text(truncate(key, MAX_NAME_BYTES));
            to.text(truncate(value, MAX_NAME_BYTES));
        }
        let datagram: Vec<u8> = to.parts().flatten().copied().collect();
        // Ignores errors, because there is nowhere to report that the server has exited.
        while let Err(Errno::INTR) = rustix::net::send(&self.socket, &datagram, SendFlags::NOSIGNAL) {}
    }

    fn flush(&self) {}
}

/// Logs the records that have arrived. Does not block. Returns `false` if the connection is closed.
pub(super) fn forward_pending(socket: impl AsFd, buffer: &mut Vec<u8>) -> io::Result<bool> {
    loop {
        buffer.clear();
        buffer.reserve(MAX_DATAGRAM_BYTES);
        match rustix::net::recv(&socket, spare_capacity(buffer), RecvFlags::DONTWAIT) {
            Ok(_) if buffer.is_empty() => return Ok(false),
            // Malformed records are ignored, because reporting each of them could fill the log.
            Ok(_) => drop(forward(&Bytes::copy_from_slice(buffer))),
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => return Ok(true),
            Err(errno) => return Err(errno.into()),
        }
    }
}

fn forward(datagram: &Bytes) -> Result<(), DecodeError> {
    let (_, mut from) = Decoder::new(datagram)?;
    let level = match from.u8("a level")? {
        1 => Level::Error,
        2 => Level::Warn,
        3 => Level::Info,
        4 => Level::Debug,
        _ => Level::Trace,
    };
    let target = from.text("a target")?;
    let message = from.text("a message")?;
    let file = from.text("a file")?;
    let line = from.u32("a line")?;
    let fields = from.list("the fields of a record", |from| {
        Ok((
            from.text("the name of a field")?,
            from.text("the value of a field")?,
        ))
    })?;
    from.finish()?;
    let metadata = Metadata::builder().level(level).target(target).build();
    let logger = log::logger();
    if logger.enabled(&metadata) {
        logger.log(
            &Record::builder()
                .metadata(metadata)
                .key_values(&fields)
                .args(format_args!("{message}"))
                .file((!file.is_empty()).then_some(file))
                .line((line > 0).then_some(line))
                .build(),
        );
    }
    Ok(())
}

fn truncate(text: &str, max_bytes: usize) -> &str {
    &text[..text.floor_char_boundary(max_bytes)]
}
