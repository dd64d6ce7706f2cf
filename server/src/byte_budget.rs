//! A limit on the bytes that all requests hold at the same time, in every protocol.
//!
//! A [`Reservation`] counts bytes from before they arrive until they are freed. It can be attached to a [`Bytes`], whose
//! slices then keep it: an item that waits in a queue is counted as long as it keeps any part of the body that it arrived
//! in. The budget does not allocate, and does not know protocols.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;

/// Maximum size of a body, of what is decoded from it, and of a reply that does not count: small ones are bounded by the number
/// of connections.
pub const MAX_UNCOUNTED: u64 = 4096;

/// The budget of the server.
#[derive(Debug)]
pub struct ByteBudget {
    limit: u64,
    held: AtomicU64,
    rejected: AtomicU64,
}

/// The budget does not have room for a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the requests in flight hold {held} of at most {limit} bytes, and this one needs {needed} more")]
pub struct BudgetExhausted {
    /// Bytes that all requests hold.
    pub held: u64,
    /// Maximum for all requests.
    pub limit: u64,
    /// Bytes that the request asked for.
    pub needed: u64,
}

impl ByteBudget {
    /// A budget of `limit` bytes.
    pub fn new(limit: u64) -> Arc<Self> {
        Arc::new(Self {
            limit,
            held: AtomicU64::new(0),
            rejected: AtomicU64::new(0),
        })
    }

    /// Maximum number of bytes.
    pub fn limit(&self) -> u64 {
        self.limit
    }

    /// Bytes that are held now. Replies can raise it above the limit.
    pub fn held(&self) -> u64 {
        self.held.load(Ordering::Relaxed)
    }

    /// Number of reservations that failed.
    pub fn rejected(&self) -> u64 {
        self.rejected.load(Ordering::Relaxed)
    }

    /// Reserves `bytes` for a request.
    ///
    /// # Errors
    /// The budget does not have room for them.
    pub fn reserve(self: &Arc<Self>, bytes: u64) -> Result<Reservation, BudgetExhausted> {
        let mut reservation = self.hold(0);
        reservation.grow(bytes)?;
        Ok(reservation)
    }

    /// Counts `bytes` that exist already, such as those of a reply, whether or not there is room. Above the limit, new
    /// requests are rejected until enough bytes are freed.
    pub fn hold(self: &Arc<Self>, bytes: u64) -> Reservation {
        self.held.fetch_add(bytes, Ordering::Relaxed);
        Reservation {
            budget: self.clone(),
            bytes,
        }
    }

    fn take(&self, bytes: u64) -> Result<(), BudgetExhausted> {
        let fits = |held: u64| held.checked_add(bytes).filter(|sum| *sum <= self.limit);
        match self.held.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits) {
            Ok(_) => Ok(()),
            Err(held) => {
                self.rejected.fetch_add(1, Ordering::Relaxed);
                Err(BudgetExhausted {
                    held,
                    limit: self.limit,
                    needed: bytes,
                })
            }
        }
    }
}

/// Bytes of one request or reply, which count until this is dropped.
#[derive(Debug)]
pub struct Reservation {
    budget: Arc<ByteBudget>,
    bytes: u64,
}

impl Reservation {
    /// Number of bytes.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Reserves `more` bytes.
    ///
    /// # Errors
    /// The budget does not have room for them; the reservation stays as it was.
    pub fn grow(&mut self, more: u64) -> Result<(), BudgetExhausted> {
        self.budget.take(more)?;
        self.bytes += more;
        Ok(())
    }

    /// Returns what exceeds `bytes` to the budget.
    pub fn shrink_to(&mut self, bytes: u64) {
        let surplus = self.bytes.saturating_sub(bytes);
        self.bytes -= surplus;
        self.budget.held.fetch_sub(surplus, Ordering::Relaxed);
    }

    /// Attaches the reservation to `bytes`: it counts until the last slice of them is dropped.
    pub fn attach(self, bytes: Bytes) -> Bytes {
        struct Reserved {
            bytes: Bytes,
            _reservation: Reservation,
        }
        impl AsRef<[u8]> for Reserved {
            fn as_ref(&self) -> &[u8] {
                &self.bytes
            }
        }
        Bytes::from_owner(Reserved {
            bytes,
            _reservation: self,
        })
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.budget.held.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_rejected_when_the_budget_is_exhausted_and_accepted_when_bytes_are_freed() {
        let budget = ByteBudget::new(100);
        let first = budget.reserve(60).expect("there is room");
        let exhausted = budget.reserve(41).expect_err("there is no room");
        assert_eq!(
            exhausted,
            BudgetExhausted {
                held: 60,
                limit: 100,
                needed: 41
            }
        );
        let second = budget.reserve(40).expect("there is just enough room");
        drop(first);
        assert_eq!((budget.held(), budget.rejected()), (40, 1));
        drop(second);
        assert_eq!(budget.held(), 0);
    }

    #[test]
    fn a_reservation_that_cannot_grow_stays_as_it_was() {
        let budget = ByteBudget::new(100);
        let mut growing = budget.reserve(0).expect("there is room");
        growing.grow(70).expect("there is room");
        growing.grow(u64::MAX).expect_err("there is no room");
        growing.grow(31).expect_err("there is no room");
        assert_eq!((growing.bytes(), budget.held()), (70, 70));
        growing.shrink_to(20);
        growing.shrink_to(30);
        assert_eq!((growing.bytes(), budget.held()), (20, 20));
    }

    #[test]
    fn bytes_are_counted_until_the_last_slice_of_them_is_dropped() {
        let budget = ByteBudget::new(100);
        let body = budget
            .reserve(5)
            .expect("there is room")
            .attach(Bytes::from_static(b"hello"));
        let item = body.slice(1..3);
        drop(body);
        assert_eq!((&item[..], budget.held()), (&b"el"[..], 5));
        drop(item);
        assert_eq!(budget.held(), 0);
    }

    #[test]
    fn replies_are_counted_above_the_limit_and_delay_new_requests() {
        let budget = ByteBudget::new(100);
        let reply = budget.hold(150);
        assert_eq!(budget.held(), 150);
        budget.reserve(1).expect_err("there is no room");
        drop(reply);
        budget.reserve(100).expect("there is room");
    }
}
