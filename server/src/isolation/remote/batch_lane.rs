//! The lane for batches, which also sends the handles of prepared items that the process can drop.

use super::failures::unexpected;
use crate::isolation::lane::{Lane, LaneError};
use crate::isolation::messages::{Reply, Request};

/// The lane for batches.
pub(super) struct BatchLane {
    pub(super) lane: Lane,
    /// The process has not acknowledged the last release. It may still use the lane's shared memory, which must not be written
    /// to until then.
    release_pending: bool,
}

impl BatchLane {
    pub(super) fn new(lane: Lane) -> Self {
        Self {
            lane,
            release_pending: false,
        }
    }

    /// Waits until the process has acknowledged the last release.
    pub(super) fn finish_release(&mut self) -> Result<(), LaneError> {
        if self.release_pending {
            let reply = receive(&mut self.lane)?;
            self.handle_released(&reply)?;
        }
        Ok(())
    }

    /// Sends a release unless the last one has not been acknowledged. Returns whether it was sent.
    pub(super) fn try_release(&mut self, handles: &[u64]) -> bool {
        if self.release_pending {
            let acknowledged = match self.lane.try_receive() {
                Ok(Some(message)) => {
                    Reply::decode(&message).is_ok_and(|reply| self.handle_released(&reply).is_ok())
                }
                Ok(None) | Err(_) => false,
            };
            if !acknowledged {
                return false;
            }
        }
        self.release_pending = self
            .lane
            .send(Request::Release(handles.to_vec()).encode())
            .is_ok();
        self.release_pending
    }

    fn handle_released(&mut self, reply: &Reply) -> Result<(), LaneError> {
        if *reply != Reply::Released {
            return Err(LaneError::Malformed(unexpected(reply)));
        }
        self.release_pending = false;
        Ok(())
    }
}

/// Waits for the next reply on a lane.
pub(super) fn receive(lane: &mut Lane) -> Result<Reply, LaneError> {
    let message = lane.receive()?;
    Reply::decode(&message).map_err(|error| LaneError::Malformed(error.to_string()))
}
