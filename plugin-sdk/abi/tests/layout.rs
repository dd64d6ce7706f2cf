//! The layout of everything that is passed by value, as plugins already built have it. A change here breaks them.

use std::mem::offset_of;

use plugin_abi::{RawBatch, RawError, RawItem, RawLogRecord, RawPrepared, RawTensor, RawValue};

#[test]
#[cfg(target_pointer_width = "64")]
fn structs_that_cross_the_boundary_are_frozen() {
    assert_eq!(size_of::<RawTensor<'_>>(), 56);
    assert_eq!(
        [
            offset_of!(RawTensor<'_>, name),
            offset_of!(RawTensor<'_>, dtype),
            offset_of!(RawTensor<'_>, reserved),
            offset_of!(RawTensor<'_>, shape),
            offset_of!(RawTensor<'_>, data),
        ],
        [0, 16, 20, 24, 40]
    );
    assert_eq!(size_of::<RawValue<'_>>(), 64);
    assert_eq!(
        [
            offset_of!(RawValue<'_>, kind),
            offset_of!(RawValue<'_>, data),
            offset_of!(RawValue<'_>, media_type),
            offset_of!(RawValue<'_>, tensors),
            offset_of!(RawValue<'_>, reserved_word),
        ],
        [0, 8, 24, 40, 56]
    );
    assert_eq!(size_of::<RawItem<'_>>(), 96);
    assert_eq!(
        [
            offset_of!(RawItem<'_>, value),
            offset_of!(RawItem<'_>, parameters),
            offset_of!(RawItem<'_>, prepared),
            offset_of!(RawItem<'_>, reserved),
        ],
        [0, 64, 80, 88]
    );
    assert_eq!(size_of::<RawBatch<'_>>(), 32);
    assert_eq!(
        [
            offset_of!(RawBatch<'_>, task),
            offset_of!(RawBatch<'_>, worker),
            offset_of!(RawBatch<'_>, items),
            offset_of!(RawBatch<'_>, reserved),
        ],
        [0, 4, 8, 24]
    );
    assert_eq!(size_of::<RawPrepared>(), 32);
    assert_eq!(
        [
            offset_of!(RawPrepared, handle),
            offset_of!(RawPrepared, weight),
            offset_of!(RawPrepared, group),
            offset_of!(RawPrepared, reserved),
        ],
        [0, 8, 16, 24]
    );
    assert_eq!(size_of::<RawError>(), 72);
    assert_eq!(
        [
            offset_of!(RawError, kind),
            offset_of!(RawError, message),
            offset_of!(RawError, key)
        ],
        [0, 8, 40]
    );
    assert_eq!(size_of::<RawLogRecord<'_>>(), 56);
    assert_eq!(
        [
            offset_of!(RawLogRecord<'_>, level),
            offset_of!(RawLogRecord<'_>, line),
            offset_of!(RawLogRecord<'_>, target),
            offset_of!(RawLogRecord<'_>, message),
            offset_of!(RawLogRecord<'_>, file),
        ],
        [0, 4, 8, 24, 40]
    );
}
