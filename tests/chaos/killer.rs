//! Somebody who kills processes of models, such as a kernel that is out of memory.

use fastrand::Rng;

use super::World;
use crate::harness::Signal;

/// Most requests that are answered between two kills.
const MOST_BETWEEN: u64 = 200;

/// Kills a random process again and again. How often.
pub(super) fn kill(world: &World<'_>, mut rng: Rng) -> u64 {
    let mut kills = 0;
    while world.wait_for_answers(rng.u64(1..MOST_BETWEEN)) {
        if let Some(process) = rng.choice(world.server.processes()) {
            // It may have ended meanwhile, in another way.
            kills += u64::from(process.try_signal(Signal::KILL));
        }
    }
    kills
}
