//! The operator, who changes the configuration all the time, and at times gets it wrong.

use std::fmt;

use fastrand::Rng;

use super::World;
use crate::harness::Server;

/// A model that comes and goes.
pub(super) const GUEST: &str = "guest";

/// Most requests that are answered between two reloads.
const MOST_BETWEEN: u64 = 300;

/// What nobody changes.
const SERVER: &str = "[server]\nmax_body_size = \"1MiB\"\n[logging]\naccess_log = false\n";

/// How `p` is isolated. Two processes, one of which dies now and then.
const PROCESSES: &str = "isolation = \"process\"\nworkers = 2\nrestart_delay = \"1ms\"\npredict_timeout = \"1s\"\n\
                         sandbox = \"best-effort\"\nmax_memory = \"1GiB\"\ncpus = 1\nenv = { CHAOS = \"on\" }";

/// Settings of `m` that it refuses.
const REFUSED: [&str; 4] = [
    "on_load = \"error\"",
    "on_load = \"panic\"",
    "fail_warm_up = true",
    "no_such_setting = 1",
];

/// The operator, and the configuration that is in force.
pub(super) struct Operator {
    rng: Rng,
    /// Tells one configuration of `m` from another.
    tag: u64,
    /// The same of `p`.
    process_tag: u64,
    batching: String,
    guest: bool,
    generations: u64,
    reloads: u64,
    refusals: u64,
}

impl Operator {
    pub(super) fn new(rng: Rng) -> Self {
        Self {
            rng,
            tag: 0,
            process_tag: 0,
            batching: String::new(),
            guest: false,
            generations: 0,
            reloads: 0,
            refusals: 0,
        }
    }

    /// How often a library may have been opened since the start, by reloads that were accepted or refused.
    pub(super) fn loads(&self) -> u64 {
        self.generations + self.refusals
    }

    /// The configuration in force.
    pub(super) fn config(&self) -> String {
        self.config_with("")
    }

    /// The same, with one more setting of `m`.
    fn config_with(&self, setting: &str) -> String {
        let settings = format!("tag = \"{}\"\nbatch_ms = 1\n{setting}", self.tag);
        let mut config = SERVER.to_owned();
        config += &model("m", "workers = 2", &settings, &self.batching);
        let settings = format!("tag = \"{}\"\nbatch_ms = 1", self.process_tag);
        config += &model("p", PROCESSES, &settings, &self.batching);
        config += &model("bystander", "", "", "");
        if self.guest {
            config += &model(GUEST, "", "", "");
        }
        config
    }

    /// Reloads until it is told to stop, each time after a random number of answers.
    pub(super) fn operate(&mut self, world: &World<'_>) {
        while world.goes_on() {
            if self.rng.u8(..4) == 0 {
                self.get_it_wrong(world);
            } else {
                self.change(world);
            }
            world.wait_for_answers(self.rng.u64(..MOST_BETWEEN));
        }
    }

    /// Leaves only the models of the beginning.
    pub(super) fn tidy(&mut self, server: &Server) {
        self.guest = false;
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
                self.guest = !self.guest;
                self.generations += u64::from(self.guest);
            }
            _ => {}
        }
        world.server.write_config(&self.config());
        while !world.server.reload() {
            assert!(loads_p, "a reload failed: {}", self.config());
            // Somebody has killed a process that was being loaded, which is a reason to refuse a reload.
            self.refusals += 1;
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
            // At times too small for all callers at once, never for one request.
            self.rng.u8(8..64),
        );
    }

    fn get_it_wrong(&mut self, world: &World<'_>) {
        let before = world.server.generation("m");
        let wrong = match self.rng.usize(..REFUSED.len() + 3) {
            0 => self.config().replace("[models.settings]", "[models.settings"),
            1 => self.config().replace("workers", "wrokers"),
            2 => self.config() + &model("wrong", "", "", "").replace("misbehave", "missing"),
            n => self.config_with(REFUSED[n - 3]),
        };
        world.server.write_config(&wrong);
        assert!(!world.server.reload(), "this was accepted: {wrong}");
        assert_eq!(world.server.generation("m"), before);
        self.refusals += 1;
    }
}

impl fmt::Display for Operator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} reloads with {} new generations, {} refused reloads",
            self.reloads, self.generations, self.refusals
        )
    }
}

fn model(name: &str, keys: &str, settings: &str, batching: &str) -> String {
    format!(
        "[[models]]\nname = \"{name}\"\nplugin = \"misbehave\"\n{keys}\n\
         [models.settings]\n{settings}\n[models.batching]\n{batching}\n"
    )
}
