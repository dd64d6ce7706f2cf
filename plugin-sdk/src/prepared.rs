//! Handles of prepared items, which the server keeps until the items have been processed.

#![allow(unsafe_code, reason = "a handle is an owning pointer that crosses the C ABI")]

use std::any::Any;

/// The target of a handle. The inner box knows its type, so that a handle that is passed to the wrong task is detected.
type Slot = Box<dyn Any + Send + Sync>;

/// Converts `value` into a handle. The handle is never 0, since it is the address of a `Slot`.
pub(crate) fn into_handle<T: Send + Sync + 'static>(value: T) -> usize {
    let slot: Slot = Box::new(value);
    Box::into_raw(Box::new(slot)).expose_provenance()
}

/// Borrows the value behind `handle`. `None` if the handle is 0 or its value has a different type.
///
/// The caller chooses the lifetime, which must be that of the call for which the server passes the handle.
///
/// # Safety
/// `handle` is 0, or was returned by [`into_handle`] and is not passed to [`from_handle`] before `'a` ends.
pub(crate) unsafe fn borrow<'a, T: 'static>(handle: usize) -> Option<&'a T> {
    let slot = std::ptr::with_exposed_provenance::<Slot>(handle);
    // SAFETY: by this function's contract, the pointer is null, which `as_ref` checks, or the address of a live `Slot`. There
    // is no `&mut` to a slot, because only `from_handle` also reads handles.
    let slot = unsafe { slot.as_ref() }?;
    slot.downcast_ref()
}

/// Returns ownership of the value behind `handle`. `None` if the handle is 0.
///
/// # Safety
/// `handle` is 0, or was returned by [`into_handle`], is not borrowed, and is not used again.
pub(crate) unsafe fn from_handle(handle: usize) -> Option<Slot> {
    let slot = std::ptr::with_exposed_provenance_mut::<Slot>(handle);
    if slot.is_null() {
        return None;
    }
    // SAFETY: by this function's contract, it was returned by `Box::into_raw` in `into_handle` and is not used again.
    let slot = unsafe { Box::from_raw(slot) };
    Some(*slot)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_handle_of_a_different_type_is_detected() {
        let handle = into_handle(String::from("words"));
        // SAFETY: `handle` is live until the last line.
        assert_eq!(unsafe { borrow::<String>(handle) }, Some(&"words".to_owned()));
        // SAFETY: as above.
        assert_eq!(unsafe { borrow::<u64>(handle) }, None);
        // SAFETY: the handle is no longer borrowed.
        assert!(unsafe { from_handle(handle) }.is_some());
    }

    #[test]
    fn handle_zero_has_no_value() {
        // SAFETY: 0 is allowed.
        assert_eq!(unsafe { borrow::<String>(0) }, None);
        // SAFETY: 0 is allowed.
        assert!(unsafe { from_handle(0) }.is_none());
    }
}
