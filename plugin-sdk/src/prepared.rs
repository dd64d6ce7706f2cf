//! Prepared items as the server holds them: a number that stands for a box of the plugin's.

#![allow(
    unsafe_code,
    reason = "a handle is an owning pointer on its way through the C ABI"
)]

use std::any::Any;

/// What a handle points to. The inner box carries its type, so that a handle that comes back with the wrong task is
/// noticed and never read as something it is not.
type Slot = Box<dyn Any + Send + Sync>;

/// Gives `value` away. The handle is never 0, since it is the address of a `Slot`.
pub(crate) fn give<T: Send + Sync + 'static>(value: T) -> usize {
    let slot: Slot = Box::new(value);
    Box::into_raw(Box::new(slot)).expose_provenance()
}

/// What `handle` stands for; `None` if it is 0 or stands for something of another type.
///
/// The lifetime is the caller's to choose: it must be that of the call in which the server lends the handle.
///
/// # Safety
/// `handle` is 0, or came from [`give`] and is not taken back before `'a` ends.
pub(crate) unsafe fn lend<'a, T: 'static>(handle: usize) -> Option<&'a T> {
    let slot = std::ptr::with_exposed_provenance::<Slot>(handle);
    // SAFETY: the pointer is null, which `as_ref` checks, or the address of a live `Slot`, by this function's contract.
    // Nobody has a `&mut` to a slot: `take` is the only other place that reads handles.
    let slot = unsafe { slot.as_ref() }?;
    slot.downcast_ref()
}

/// Takes back what `handle` stands for; `None` if it is 0.
///
/// # Safety
/// `handle` is 0, or came from [`give`] and is used nowhere else and never again.
pub(crate) unsafe fn take(handle: usize) -> Option<Slot> {
    let slot = std::ptr::with_exposed_provenance_mut::<Slot>(handle);
    if slot.is_null() {
        return None;
    }
    // SAFETY: it came from `Box::into_raw` in `give` and is given up by the caller, by this function's contract.
    let slot = unsafe { Box::from_raw(slot) };
    Some(*slot)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_handle_of_another_type_is_noticed() {
        let handle = give(String::from("words"));
        // SAFETY: `handle` is live until the last line.
        assert_eq!(unsafe { lend::<String>(handle) }, Some(&"words".to_owned()));
        // SAFETY: as above.
        assert_eq!(unsafe { lend::<u64>(handle) }, None);
        // SAFETY: nothing borrows from it any more.
        assert!(unsafe { take(handle) }.is_some());
    }

    #[test]
    fn zero_is_no_handle() {
        // SAFETY: 0 is allowed.
        assert_eq!(unsafe { lend::<String>(0) }, None);
        // SAFETY: 0 is allowed.
        assert!(unsafe { take(0) }.is_none());
    }
}
