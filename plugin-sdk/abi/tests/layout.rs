//! The layout of what crosses the boundary by value is frozen. A difference here breaks every plugin that was ever built.

use std::fmt::Write;
use std::mem::{align_of, offset_of, size_of};

use plugin_abi::{RawBatch, RawError, RawItem, RawLogRecord, RawPrepared, RawTensor, RawValue};

macro_rules! layout {
    ($text:ident, $type:ident { $($field:ident),* $(,)? }) => {
        writeln!($text, "{}: {} bytes, aligned to {}", stringify!($type), size_of::<$type>(), align_of::<$type>())
            .expect("a String takes everything");
        $(
            writeln!($text, "  {} at {}", stringify!($field), offset_of!($type, $field))
                .expect("a String takes everything");
        )*
    };
}

#[cfg(target_pointer_width = "64")]
#[test]
fn the_layout_of_version_1_is_what_it_always_was() {
    let mut text = String::new();
    layout!(
        text,
        RawTensor {
            name,
            dtype,
            reserved,
            shape,
            data
        }
    );
    layout!(
        text,
        RawValue {
            kind,
            reserved,
            data,
            media_type,
            tensors,
            reserved_word
        }
    );
    layout!(
        text,
        RawItem {
            value,
            parameters,
            prepared,
            reserved
        }
    );
    layout!(
        text,
        RawBatch {
            task,
            worker,
            items,
            reserved
        }
    );
    layout!(
        text,
        RawPrepared {
            handle,
            weight,
            group,
            reserved
        }
    );
    layout!(
        text,
        RawError {
            kind,
            reserved,
            message,
            key
        }
    );
    layout!(
        text,
        RawLogRecord {
            level,
            line,
            target,
            message,
            file
        }
    );
    insta::assert_snapshot!(text);
}
