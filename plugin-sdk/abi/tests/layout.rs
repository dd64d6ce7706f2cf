//! Pins the layout of the types that cross the boundary by value. Any change breaks every existing plugin.

use std::fmt::Write;
use std::mem::{align_of, offset_of, size_of};

use plugin_abi::{
    RawBatch, RawError, RawItem, RawLogRecord, RawMemoryUsage, RawPrepared, RawTensor, RawValue,
};

macro_rules! layout {
    ($text:ident, $type:ident { $($field:ident),* $(,)? }) => {
        writeln!($text, "{}: {} bytes, aligned to {}", stringify!($type), size_of::<$type>(), align_of::<$type>())
            .expect("writing to a String cannot fail");
        $(
            writeln!($text, "  {} at {}", stringify!($field), offset_of!($type, $field))
                .expect("writing to a String cannot fail");
        )*
    };
}

#[cfg(target_pointer_width = "64")]
#[test]
fn the_layout_of_version_1_does_not_change() {
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
        RawMemoryUsage {
            is_reported,
            reserved,
            current,
            peak,
            reserved_word
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
