//! Integer codes that cross the boundary. A code, once given, keeps its meaning; an unknown one is an error of the side
//! that receives it, never undefined behaviour.

/// What a [`RawValue`](crate::RawValue) holds.
pub mod kind {
    /// UTF-8 text.
    pub const TEXT: u32 = 1;
    /// Bytes with a media type.
    pub const BYTES: u32 = 2;
    /// One JSON document, UTF-8.
    pub const JSON: u32 = 3;
    /// Named tensors.
    pub const TENSORS: u32 = 4;
}

/// Element types, with the names of the Open Inference Protocol.
pub mod dtype {
    /// One byte, 0 or 1.
    pub const BOOL: u32 = 1;
    /// Unsigned 8 bit.
    pub const UINT8: u32 = 2;
    /// Unsigned 16 bit.
    pub const UINT16: u32 = 3;
    /// Unsigned 32 bit.
    pub const UINT32: u32 = 4;
    /// Unsigned 64 bit.
    pub const UINT64: u32 = 5;
    /// Signed 8 bit.
    pub const INT8: u32 = 6;
    /// Signed 16 bit.
    pub const INT16: u32 = 7;
    /// Signed 32 bit.
    pub const INT32: u32 = 8;
    /// Signed 64 bit.
    pub const INT64: u32 = 9;
    /// IEEE 754 half precision.
    pub const FP16: u32 = 10;
    /// IEEE 754 single precision.
    pub const FP32: u32 = 11;
    /// IEEE 754 double precision.
    pub const FP64: u32 = 12;
    /// The upper half of an FP32.
    pub const BF16: u32 = 13;
    /// Byte strings: each a `u32` length and that many bytes.
    pub const BYTES: u32 = 14;
}

/// Why an item, a batch or a load failed.
pub mod error {
    /// The input is not what the task takes: the client's fault.
    pub const INVALID_INPUT: u32 = 1;
    /// The model failed.
    pub const INTERNAL: u32 = 2;
    /// Not enough memory for a batch of this size; a smaller one may do.
    pub const OUT_OF_MEMORY: u32 = 3;
    /// A setting is missing or wrong; the error names its key.
    pub const SETTINGS: u32 = 4;
    /// The plugin panicked.
    pub const PANIC: u32 = 5;
    /// The request asks for what this model cannot do.
    pub const UNSUPPORTED: u32 = 6;
}

/// Flags of [`OutputSinkAbi::emit`](crate::OutputSinkAbi::emit).
pub mod emit {
    /// More parts of this item's output follow.
    pub const MORE: u32 = 1;
}

/// Answers of [`OutputSinkAbi`](crate::OutputSinkAbi).
pub mod sink {
    /// Taken.
    pub const OK: u32 = 0;
    /// Nobody waits for this item any more; go on with the others.
    pub const CANCELLED: u32 = 1;
    /// Refused: no such item, settled already, or a value that contradicts itself. Counted as the plugin's fault.
    pub const REFUSED: u32 = 2;
    /// Refused: whoever waits for this item cannot take an output in parts.
    pub const NOT_STREAMING: u32 = 3;
}
