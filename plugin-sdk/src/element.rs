//! Rust types that can be elements of tensors.

use plugin_abi::DType;

/// A Rust type that can be an element of a tensor.
pub trait Element: bytemuck::Pod + sealed::Sealed {
    /// The corresponding datatype.
    const DTYPE: DType;

    #[doc(hidden)]
    fn hold(values: Vec<Self>) -> Elements;
}

mod sealed {
    pub trait Sealed {}
}

/// The elements of an owned tensor in their own type, which avoids a copy into bytes.
#[derive(Clone, Debug, PartialEq)]
#[doc(hidden)]
#[allow(
    missing_docs,
    reason = "an implementation detail that is public only because `Element` refers to it"
)]
pub enum Elements {
    U8(Vec<u8>),
    U16(Vec<u16>),
    U32(Vec<u32>),
    U64(Vec<u64>),
    I8(Vec<i8>),
    I16(Vec<i16>),
    I32(Vec<i32>),
    I64(Vec<i64>),
    F32(Vec<f32>),
    F64(Vec<f64>),
}

macro_rules! elements {
    ($($rust:ty, $dtype:ident, $variant:ident;)*) => {
        $(
            impl sealed::Sealed for $rust {}
            impl Element for $rust {
                const DTYPE: DType = DType::$dtype;
                fn hold(values: Vec<Self>) -> Elements {
                    Elements::$variant(values)
                }
            }
        )*
        impl Elements {
            pub(crate) fn bytes(&self) -> &[u8] {
                match self {
                    $(Self::$variant(values) => bytemuck::cast_slice(values),)*
                }
            }
        }
    };
}

elements! {
    u8, Uint8, U8;
    u16, Uint16, U16;
    u32, Uint32, U32;
    u64, Uint64, U64;
    i8, Int8, I8;
    i16, Int16, I16;
    i32, Int32, I32;
    i64, Int64, I64;
    f32, Fp32, F32;
    f64, Fp64, F64;
}
