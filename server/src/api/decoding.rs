//! Counts the memory of decoded items toward the budget of bytes.
//!
//! An item that is a slice of its body is counted with the body. Tensors in JSON, base64 and strings with escapes are decoded
//! into memory of their own, which is reserved before it is allocated.

use std::sync::Arc;

use bytes::Bytes;

use crate::byte_budget::{BudgetExhausted, ByteBudget, MAX_UNCOUNTED, Reservation};
use crate::error::ItemError;
use crate::values::{ItemInput, Value};

/// A reservation for items that are about to be decoded.
#[derive(Debug)]
#[must_use = "dropping it releases the bytes"]
pub struct Decoding(Option<Reservation>);

impl Decoding {
    /// Reserves `max_size` bytes. Small requests are not counted.
    ///
    /// # Errors
    /// The budget does not have room for them.
    pub fn reserve(budget: &Arc<ByteBudget>, max_size: usize) -> Result<Self, BudgetExhausted> {
        let max_size = max_size as u64;
        let reservation = (max_size > MAX_UNCOUNTED).then(|| budget.reserve(max_size));
        reservation.transpose().map(Self)
    }

    /// Returns the whole reservation, to be kept as long as what was decoded.
    pub fn keep_all(self) -> Option<Reservation> {
        self.0
    }

    /// Returns the reservation for what the items take beyond `body`, to be kept as long as the items.
    pub fn keep(self, items: &[Result<ItemInput, ItemError>], body: &Bytes) -> Option<Reservation> {
        let mut reservation = self.0?;
        let range = body.as_ptr_range();
        let decoded = |data: &Bytes| match range.contains(&data.as_ptr()) {
            true => 0,
            false => data.len() as u64,
        };
        let size = items.iter().flatten().map(|item| match &item.value {
            Value::Text(data) | Value::Json(data) | Value::Bytes { data, .. } => decoded(data),
            Value::Tensors(tensors) => tensors.iter().map(|tensor| decoded(tensor.data())).sum(),
        });
        reservation.shrink_to(size.sum());
        (reservation.bytes() > 0).then_some(reservation)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn item(value: Value) -> Result<ItemInput, ItemError> {
        Ok(ItemInput {
            value,
            parameters: Bytes::new(),
        })
    }

    #[test]
    fn only_what_was_decoded_stays_reserved() {
        let budget = ByteBudget::new(100_000);
        let body = Bytes::from(vec![b'x'; 50_000]);
        let decoding = Decoding::reserve(&budget, 60_000).expect("there is room");
        let items = [
            item(Value::Text(body.slice(10..20_000))),
            item(Value::Text(Bytes::from(vec![b'y'; 7_000]))),
            Err(ItemError::Lost),
        ];
        let kept = decoding.keep(&items, &body);
        assert_eq!(budget.held(), 7_000);
        drop(kept);
        assert_eq!(budget.held(), 0);
    }

    #[test]
    fn slices_and_small_items_reserve_nothing() {
        let budget = ByteBudget::new(100_000);
        let body = Bytes::from(vec![b'x'; 50_000]);
        let decoding = Decoding::reserve(&budget, 60_000).expect("there is room");
        assert!(decoding.keep(&[item(Value::Text(body.clone()))], &body).is_none());
        let small = Decoding::reserve(&budget, 4096).expect("there is room");
        assert_eq!(budget.held(), 0);
        assert!(
            small
                .keep(&[item(Value::Text(Bytes::from_static(b"y")))], &body)
                .is_none()
        );
        Decoding::reserve(&budget, 100_001).expect_err("there is no room");
    }
}
