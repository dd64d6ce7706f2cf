//! Memory for the tensors of runs: a run starts only if its tensors fit into the memory that is available.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::analysis::sizes::Sizes;
use crate::memory;

/// Runs that need fewer bytes than this are not checked against the available memory.
const SMALL_RUN: u64 = 64 << 20;

/// Bytes per element for most types. Some types are smaller, but the values computed from them are larger.
const ELEMENT_SIZE: u64 = 4;

/// Size of `elements` elements in bytes.
fn bytes(elements: i64) -> u64 {
    elements.unsigned_abs().saturating_mul(ELEMENT_SIZE)
}

/// Checks that the tensors of a run fit into memory in addition to `reserved` bytes that other runs still need: the largest
/// tensor together with what is computed from it, and all tensors that are live at the same time.
pub(crate) fn fits(sizes: &Sizes, reserved: u64) -> Result<(), String> {
    let Some((largest, node)) = &sizes.largest else {
        return Ok(());
    };
    let (largest, total) = (bytes(*largest), bytes(sizes.peak));
    if largest.max(total) < SMALL_RUN {
        return Ok(());
    }
    let Some(available) = memory::available() else {
        return Ok(());
    };
    let available = available.saturating_sub(reserved);
    let gigabytes = |bytes: u64| bytes as f64 / 1e9;
    if largest > available / 2 {
        let size = gigabytes(largest);
        return Err(format!(
            "a tensor of {size:.1} GB ({node}) is too large for the memory that is available"
        ));
    }
    if total > available / 4 * 3 {
        let size = gigabytes(total);
        return Err(format!(
            "tensors of {size:.1} GB that are needed at the same time are too large for the memory that is available"
        ));
    }
    Ok(())
}

/// Memory reserved by the large runs in progress, in bytes.
#[derive(Default)]
pub(crate) struct Reservations(AtomicU64);

impl Reservations {
    /// Reserves memory for a run.
    ///
    /// # Errors
    /// The run needs more memory than is available.
    pub(crate) fn reserve(&self, sizes: &Sizes) -> Result<Reservation<'_>, String> {
        let bytes = Some(bytes(sizes.peak))
            .filter(|bytes| *bytes >= SMALL_RUN)
            .unwrap_or(0);
        // Memory that other runs have already allocated counts twice, so concurrent large runs are rejected somewhat early.
        let others = self.0.fetch_add(bytes, Ordering::Relaxed);
        let reservation = Reservation {
            total: &self.0,
            bytes,
        };
        fits(sizes, others).map(|()| reservation)
    }
}

/// Memory reserved for a run, released when the run ends.
pub(crate) struct Reservation<'a> {
    total: &'a AtomicU64,
    bytes: u64,
}

impl Drop for Reservation<'_> {
    fn drop(&mut self) {
        self.total.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}
