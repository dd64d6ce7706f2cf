//! Integer codes that cross the boundary. An assigned code never changes its meaning. The receiver of an unknown code
//! reports an error; it is never undefined behavior.

/// Kinds of a [`RawValue`](crate::RawValue).
pub mod kind {
    /// UTF-8 text.
    pub const TEXT: u32 = 1;
    /// Bytes with a media type.
    pub const BYTES: u32 = 2;
    /// One JSON document in UTF-8.
    pub const JSON: u32 = 3;
    /// Named tensors.
    pub const TENSORS: u32 = 4;
}

/// Datatypes, with the names of the Open Inference Protocol.
pub mod dtype {
    /// One byte, 0 or 1.
    pub const BOOL: u32 = 1;
    /// Unsigned 8-bit integer.
    pub const UINT8: u32 = 2;
    /// Unsigned 16-bit integer.
    pub const UINT16: u32 = 3;
    /// Unsigned 32-bit integer.
    pub const UINT32: u32 = 4;
    /// Unsigned 64-bit integer.
    pub const UINT64: u32 = 5;
    /// Signed 8-bit integer.
    pub const INT8: u32 = 6;
    /// Signed 16-bit integer.
    pub const INT16: u32 = 7;
    /// Signed 32-bit integer.
    pub const INT32: u32 = 8;
    /// Signed 64-bit integer.
    pub const INT64: u32 = 9;
    /// IEEE 754 half precision.
    pub const FP16: u32 = 10;
    /// IEEE 754 single precision.
    pub const FP32: u32 = 11;
    /// IEEE 754 double precision.
    pub const FP64: u32 = 12;
    /// bfloat16: the upper half of an FP32.
    pub const BF16: u32 = 13;
    /// Byte strings. Each is a little-endian `u32` length followed by that many bytes.
    pub const BYTES: u32 = 14;
}

/// Kinds of errors of an item, a batch or a load.
pub mod error {
    /// The input does not match the task's input type. The client is at fault.
    pub const INVALID_INPUT: u32 = 1;
    /// The model failed.
    pub const INTERNAL: u32 = 2;
    /// Not enough memory for a batch of this size. A smaller batch may succeed.
    pub const OUT_OF_MEMORY: u32 = 3;
    /// A setting is missing or invalid. The error names its key.
    pub const SETTINGS: u32 = 4;
    /// The plugin panicked.
    pub const PANIC: u32 = 5;
    /// The model does not support the request.
    pub const UNSUPPORTED: u32 = 6;
}

/// Flags of [`OutputSinkAbi::emit`](crate::OutputSinkAbi::emit).
pub mod emit {
    /// More parts of this item's output follow.
    pub const MORE: u32 = 1;
}

/// Return codes of [`OutputSinkAbi`](crate::OutputSinkAbi).
pub mod sink {
    /// Accepted.
    pub const OK: u32 = 0;
    /// The item was cancelled. Continue with the other items.
    pub const CANCELLED: u32 = 1;
    /// Rejected: the index is out of range, the item is already complete, or the value is inconsistent. Counts as a fault of
    /// the plugin.
    pub const REFUSED: u32 = 2;
    /// Rejected: the client of this item does not support streaming.
    pub const NOT_STREAMING: u32 = 3;
}
