//! Clients that must not be affected: probes, and the client of a model whose configuration does not change.

use super::World;
use super::items::Outcome;
use super::ledger::Ledger;
use super::operator::OPTIONAL_MODEL;
use super::targets::Target;
use crate::harness::misbehave::echoes;

/// Sends probes. All of them must succeed, except that the server is not ready while a model has lost its processes.
pub(super) fn run(world: &World<'_>) {
    let client = world.server.client();
    let paths = [
        "/livez",
        "/readyz",
        "/health",
        "/metrics",
        "/v1/models",
        "/openapi.json",
    ];
    for path in paths.iter().cycle() {
        if !world.is_running() {
            return;
        }
        let status = client.get(path).status;
        let may_be_unready = ["/readyz", "/health"].contains(path);
        assert!(
            status == 200 || may_be_unready && status == 503,
            "{path}: {status}"
        );
        // The optional model either replies or is unknown.
        let status = client.predict(OPTIONAL_MODEL, "text", &echoes(["hello"])).status;
        assert!([200, 404].contains(&status), "{status}");
        world.answered();
    }
}

/// Sends requests to the bystander, the only client of which this is. All must succeed.
pub(super) fn call_bystander(world: &World<'_>) -> Ledger {
    let client = world.server.client();
    let mut ledger = Ledger::of(Target::Bystander);
    while world.is_running() {
        let value = world.value();
        let reply = client.predict(Target::Bystander.model(), "text", &echoes([value]));
        assert_eq!(reply.values(), [value]);
        *ledger.statuses.entry(reply.status).or_default() += 1;
        *ledger.outcomes.entry(Outcome::Success).or_default() += 1;
        world.answered();
    }
    ledger
}
