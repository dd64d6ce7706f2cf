//! The log of a child: each record is a datagram to the server, which writes it as its own.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use bytes::Bytes;
use log::kv::{Error, Key, Value, VisitSource};
use log::{Level, LevelFilter, Log, Metadata, Record};
use rustix::buffer::spare_capacity;
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags};

use super::codec::{Decoder, Encoder, WireError};

/// Most bytes of a message; the rest is cut off.
const MOST_MESSAGE: usize = 16 << 10;
/// Most bytes of a target and of the name of a file.
const MOST_NAME: usize = 1 << 10;
/// Maximum number of fields.
const MAX_FIELDS: usize = 8;
/// Most bytes of a datagram: all of the above, and their lengths.
const MOST_DATAGRAM: usize = MOST_MESSAGE + (2 + 2 * MAX_FIELDS) * MOST_NAME + 512;

const RECORD: u8 = 1;

/// The log of the child.
struct ChildLog {
    socket: OwnedFd,
}

/// From now on this process logs to the server, up to `level`. To be called once.
pub(super) fn log_to(socket: OwnedFd, level: LevelFilter) {
    // A second logger can only be one that a test has set, which may stay.
    if log::set_boxed_logger(Box::new(ChildLog { socket })).is_ok() {
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

impl Log for ChildLog {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.level() <= log::max_level()
    }

    fn log(&self, record: &Record<'_>) {
        if !self.enabled(record.metadata()) {
            return;
        }
        let mut fields = Fields(Vec::new());
        // Nothing that it is called with fails.
        let _ = record.key_values().visit(&mut fields);
        let Fields(fields) = fields;
        let message = record.args().to_string();
        let mut to = Encoder::new(RECORD);
        to.u8(record.level() as u8);
        to.text(cut(record.target(), MOST_NAME));
        to.text(cut(&message, MOST_MESSAGE));
        to.text(cut(record.file().unwrap_or_default(), MOST_NAME));
        to.u32(record.line().unwrap_or_default());
        to.count(fields.len());
        for (key, value) in &fields {
            to.text(cut(key, MOST_NAME));
            to.text(cut(value, MOST_NAME));
        }
        let datagram: Vec<u8> = to.parts().flatten().copied().collect();
        // Without a server there is nobody to tell.
        while let Err(Errno::INTR) = rustix::net::send(&self.socket, &datagram, SendFlags::NOSIGNAL) {}
    }

    fn flush(&self) {}
}

/// Writes the records that have come to the server's log. Does not wait; `false` when no more will come.
pub(super) fn write_pending(socket: impl AsFd, buffer: &mut Vec<u8>) -> io::Result<bool> {
    loop {
        buffer.clear();
        buffer.reserve(MOST_DATAGRAM);
        match rustix::net::recv(&socket, spare_capacity(buffer), RecvFlags::DONTWAIT) {
            Ok(_) if buffer.is_empty() => return Ok(false),
            // A record that cannot be read is not worth a complaint for each.
            Ok(_) => drop(write(&Bytes::copy_from_slice(buffer))),
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => return Ok(true),
            Err(errno) => return Err(errno.into()),
        }
    }
}

fn write(datagram: &Bytes) -> Result<(), WireError> {
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
    from.end()?;
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

fn cut(text: &str, most: usize) -> &str {
    &text[..text.floor_char_boundary(most)]
}
