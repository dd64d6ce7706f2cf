//! An operator who keeps changing the configuration and sometimes writes an invalid one.

use std::fmt;

use fastrand::Rng;

use super::World;
use crate::harness::Server;

/// A model that is repeatedly added and removed.
pub(super) const OPTIONAL_MODEL: &str = "optional";

/// Maximum number of replies between two reloads.
const MAX_REQUESTS_BETWEEN: u64 = 300;

/// The part of the configuration that never changes. Models start further threads for preparation on demand; with one, their
/// number is always the same.
const SERVER: &str =
    "[server]\nmax_body_size = \"1MiB\"\nprepare_threads = 1\n[logging]\naccess_log = false\n";

/// Isolation of the model `p`.
const PROCESSES: &str = "isolation = \"process\"\nworkers = 2\nrestart_delay = \"1ms\"\npredict_timeout = \"1s\"\n\
                         sandbox = \"best-effort\"\nmax_memory = \"1GiB\"\ncpus = 1\nenv = { CHAOS = \"on\" }";

/// Settings with which the model `m` fails to load.
const INVALID_SETTINGS: [&str; 4] = [
    "on_load = \"error\"",
    "on_load = \"panic\"",
    "fail_warm_up = true",
    "no_such_setting = 1",
];

/// The operator with the current configuration.
pub(super) struct Operator {
    rng: Rng,
    /// Identifies the configuration of `m`.
    tag: u64,
    /// Identifies the configuration of `p`.
    process_tag: u64,
    batching: String,
    has_optional_model: bool,
    generations: u64,
    reloads: u64,
    failures: u64,
}

impl Operator {
    pub(super) fn new(rng: Rng) -> Self {
        Self {
            rng,
            tag: 0,
            process_tag: 0,
            batching: String::new(),
            has_optional_model: false,
            generations: 0,
            reloads: 0,
            failures: 0,
        }
    }

    /// Returns the maximum number of times that a library has been opened since the start, by successful and failed reloads.
    pub(super) fn loads(&self) -> u64 {
        self.generations + self.failures
    }

    /// Returns the current configuration.
    pub(super) fn config(&self) -> String {
        self.config_with("")
    }

    /// Returns the current configuration with an additional setting of `m`.
    fn config_with(&self, setting: &str) -> String {
        let settings = format!("tag = \"{}\"\nbatch_ms = 1\n{setting}", self.tag);
        let mut config = SERVER.to_owned();
        config += &model("m", "workers = 2", &settings, &self.batching);
        let settings = format!("tag = \"{}\"\nbatch_ms = 1", self.process_tag);
        config += &model("p", PROCESSES, &settings, &self.batching);
        config += &model("bystander", "", "", "");
        if self.has_optional_model {
            config += &model(OPTIONAL_MODEL, "", "", "");
        }
        config
    }

    /// Reloads until the end of the phase, each time after a random number of replies.
    pub(super) fn operate(&mut self, world: &World<'_>) {
        while world.is_running() {
            if self.rng.u8(..4) == 0 {
                self.reload_invalid_config(world);
            } else {
                self.change(world);
            }
            world.wait_for_replies(self.rng.u64(..MAX_REQUESTS_BETWEEN));
        }
    }

    /// Restores the initial list of models.
    pub(super) fn reset(&mut self, server: &Server) {
        self.has_optional_model = false;
        server.write_config(&self.config());
        assert!(server.reload(), "a reload failed: {}", self.config());
    }

    fn change(&mut self, world: &World<'_>) {
        let before = world.server.generation("m");
        let (mut loads_m, mut loads_p) = (false, false);
        match self.rng.u8(..10) {
            0..=4 => {
                self.tag += 1;
                self.generations += 1;
                loads_m = true;
            }
            5..=6 => self.change_batching(),
            7 => {
                self.process_tag += 1;
                loads_p = true;
            }
            8 => {
                self.has_optional_model = !self.has_optional_model;
                self.generations += u64::from(self.has_optional_model);
            }
            _ => {}
        }
        world.server.write_config(&self.config());
        while !world.server.reload() {
            assert!(loads_p, "a reload failed: {}", self.config());
            // The reload failed because a process was killed while it loaded the model.
            self.failures += 1;
        }
        let after = world.server.generation("m");
        assert_eq!(after != before, loads_m, "generation {before}, then {after}");
        self.reloads += 1;
    }

    fn change_batching(&mut self) {
        let policies = ["adaptive", "greedy", "fixed", "off"];
        self.batching = format!(
            "policy = \"{}\"\nmax_batch_size = {}\nmax_queue_size = {}",
            policies[self.rng.usize(..policies.len())],
            self.rng.u8(1..32),
            // Sometimes too small for all clients together, but never for one request.
            self.rng.u8(8..64),
        );
    }

    fn reload_invalid_config(&mut self, world: &World<'_>) {
        let before = world.server.generation("m");
        let invalid = match self.rng.usize(..INVALID_SETTINGS.len() + 3) {
            0 => self.config().replace("[models.settings]", "[models.settings"),
            1 => self.config().replace("workers", "wrokers"),
            2 => self.config() + &model("invalid", "", "", "").replace("misbehave", "missing"),
            n => self.config_with(INVALID_SETTINGS[n - 3]),
        };
        world.server.write_config(&invalid);
        assert!(!world.server.reload(), "expected the reload to fail: {invalid}");
        assert_eq!(world.server.generation("m"), before);
        self.failures += 1;
    }
}

impl fmt::Display for Operator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} reloads with {} new generations, {} failed reloads",
            self.reloads, self.generations, self.failures
        )
    }
}

fn model(name: &str, keys: &str, settings: &str, batching: &str) -> String {
    format!(
        "[[models]]\nname = \"{name}\"\nplugin = \"misbehave\"\n{keys}\n\
         [models.settings]\n{settings}\n[models.batching]\n{batching}\n"
    )
}
