//! Loading real files: built plugins, and what is not one.

mod failures;
mod fixtures;
mod model;
mod reload;

use std::path::Path;

use super::run_trial;

/// The child's side of the trials of these tests; see [`fixtures::loader`].
#[test]
#[ignore = "is run by the other tests, in a process of its own"]
fn trial_child() {
    let last = std::env::args().next_back().unwrap_or_default();
    if Path::new(&last).is_absolute() {
        run_trial(Path::new(&last), || Ok(()));
    }
}
