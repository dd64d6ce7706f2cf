//! Loads real files: plugins that cargo has built, and files that are not plugins.

mod failures;
mod fixtures;
mod model;
mod reload;

use std::path::Path;

use super::run_probe;

/// The probe process of these tests; see [`fixtures::Directories::loader`].
#[test]
#[ignore = "run by other tests in a child process"]
fn probe_child() {
    let last = std::env::args().next_back().unwrap_or_default();
    if Path::new(&last).is_absolute() {
        run_probe(Path::new(&last), || Ok(()));
    }
}
