//! Keeps panics inside the plugin. A panic that reaches the C ABI ends the server.

use std::any::Any;
use std::mem;
use std::ops::Deref;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Runs `call`. A panic in it becomes its message.
///
/// The SDK contains panics in all functions of a model. Call this to turn the panic of a library into an error of your own.
///
/// Unwind safety is asserted, since there is no way to state it of an author's model: what a batch that panicked leaves
/// behind in the model is seen by the next batch, as with a poisoned lock.
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

/// The message of a panic.
pub(crate) fn message(payload: &dyn Any) -> String {
    match (payload.downcast_ref::<&str>(), payload.downcast_ref::<String>()) {
        (Some(text), _) => (*text).to_owned(),
        (_, Some(text)) => text.clone(),
        _ => "panic without a message".to_owned(),
    }
}

/// Drops the payload of a panic, which may itself panic. What that second panic carries is leaked: it ends here.
fn discard(payload: Box<dyn Any + Send>) {
    if let Err(second) = catch_unwind(AssertUnwindSafe(|| drop(payload))) {
        mem::forget(second);
    }
}

/// A value of the author's whose `Drop` may panic.
pub(crate) struct Contained<T>(Option<T>);

impl<T> Contained<T> {
    pub(crate) fn new(value: T) -> Self {
        Self(Some(value))
    }

    /// Drops the value; the error is the message of a panic.
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
            .expect("the value is taken by `dispose` alone, which only its owner's `Drop` calls")
    }
}

impl<T> Drop for Contained<T> {
    fn drop(&mut self) {
        // Its owner has disposed of it as a rule, and said what happened.
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
