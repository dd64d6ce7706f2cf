//! Catches panics before they reach the C ABI, where a panic would terminate the server.

use std::any::Any;
use std::mem;
use std::ops::Deref;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Runs `call` and catches a panic.
///
/// The SDK catches panics in all functions of a model. Use this function to turn the panic of a library into your own error.
///
/// Unwind safety is asserted, because it cannot be required of every model. After a batch that panicked, the next batch can
/// see inconsistent state in the model.
///
/// # Errors
/// The message of the panic.
pub fn contain<T>(call: impl FnOnce() -> T) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(call)).map_err(|payload| {
        let message = message(&*payload);
        discard(payload);
        message
    })
}

/// Returns the message of a panic.
pub(crate) fn message(payload: &dyn Any) -> String {
    match (payload.downcast_ref::<&str>(), payload.downcast_ref::<String>()) {
        (Some(text), _) => (*text).to_owned(),
        (_, Some(text)) => text.clone(),
        _ => "panic without a message".to_owned(),
    }
}

/// Drops the payload of a panic. If that panics as well, the second payload is leaked, because dropping it could panic again.
fn discard(payload: Box<dyn Any + Send>) {
    if let Err(second) = catch_unwind(AssertUnwindSafe(|| drop(payload))) {
        mem::forget(second);
    }
}

/// A value whose `Drop` implementation can panic.
pub(crate) struct Contained<T>(Option<T>);

impl<T> Contained<T> {
    pub(crate) fn new(value: T) -> Self {
        Self(Some(value))
    }

    /// Drops the value. The error is the message of a panic.
    pub(crate) fn dispose(&mut self) -> Result<(), String> {
        let value = self.0.take();
        contain(|| drop(value))
    }
}

impl<T> Deref for Contained<T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.0
            .as_ref()
            .expect("only `dispose` takes the value, and only the owner's `Drop` calls it")
    }
}

impl<T> Drop for Contained<T> {
    fn drop(&mut self) {
        // Does nothing if the owner has already called `dispose`.
        let _message = self.dispose();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Bomb;

    impl Drop for Bomb {
        fn drop(&mut self) {
            std::panic::panic_any("while dropping");
        }
    }

    #[test]
    fn a_payload_whose_drop_panics_is_contained() {
        let outcome = contain(|| std::panic::panic_any(Bomb));
        assert_eq!(outcome, Err("panic without a message".to_owned()));
    }

    #[test]
    fn a_value_whose_drop_panics_is_contained() {
        assert_eq!(Contained::new(Bomb).dispose(), Err("while dropping".to_owned()));
    }

    #[test]
    fn formatted_messages_are_kept() {
        let number = 7;
        assert_eq!(
            contain(|| panic!("got {number}")),
            Err::<(), _>("got 7".to_owned())
        );
    }
}
