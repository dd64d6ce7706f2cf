//! The channel for batches, which also sends the handles of prepared items that the process can drop.

use super::failures::unexpected;
use crate::isolation::channel::{Channel, ChannelError};
use crate::isolation::messages::{Reply, Request};

/// The channel for batches.
pub(super) struct BatchChannel {
    pub(super) channel: Channel,
    /// The process has not acknowledged the last release. It may still use the channel's shared memory, which must not be written
    /// to until then.
    release_pending: bool,
}

impl BatchChannel {
    pub(super) fn new(channel: Channel) -> Self {
        Self {
            channel,
            release_pending: false,
        }
    }

    /// Waits until the process has acknowledged the last release.
    pub(super) fn finish_release(&mut self) -> Result<(), ChannelError> {
        if self.release_pending {
            let reply = receive(&mut self.channel)?;
            self.handle_released(&reply)?;
        }
        Ok(())
    }

    /// Sends a release unless the last one has not been acknowledged. Returns whether it was sent.
    pub(super) fn try_release(&mut self, handles: &[u64]) -> bool {
        if self.release_pending {
            let acknowledged = match self.channel.try_receive() {
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
            .channel
            .send(Request::Release(handles.to_vec()).encode())
            .is_ok();
        self.release_pending
    }

    fn handle_released(&mut self, reply: &Reply) -> Result<(), ChannelError> {
        if *reply != Reply::Released {
            return Err(ChannelError::Malformed(unexpected(reply)));
        }
        self.release_pending = false;
        Ok(())
    }
}

/// Waits for the next reply on a channel.
pub(super) fn receive(channel: &mut Channel) -> Result<Reply, ChannelError> {
    let message = channel.receive()?;
    Reply::decode(&message).map_err(|error| ChannelError::Malformed(error.to_string()))
}
