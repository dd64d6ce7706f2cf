//! Kills model processes, as the kernel does when memory runs out.

use fastrand::Rng;

use super::World;
use crate::harness::Signal;

/// Maximum number of replies between two kills.
const MAX_REQUESTS_BETWEEN: u64 = 200;

/// Kills random processes. Returns the number of kills.
pub(super) fn run(world: &World<'_>, mut rng: Rng) -> u64 {
    let mut kills = 0;
    while world.wait_for_replies(rng.u64(1..MAX_REQUESTS_BETWEEN)) {
        if let Some(process) = rng.choice(world.server.processes()) {
            // The process may have exited in the meantime.
            kills += u64::from(process.try_signal(Signal::KILL));
        }
    }
    kills
}
