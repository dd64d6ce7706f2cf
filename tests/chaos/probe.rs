//! Those to whom nothing may happen: probes, and the client of a model that is left alone.

use super::World;
use super::deed::Fate;
use super::ledger::Ledger;
use super::operator::GUEST;
use super::target::Target;
use crate::harness::misbehave::echoes;

/// Asks what machines ask, all the time; the answer is always the good one, but for readiness, which models that lose their
/// processes take away.
pub(super) fn probe(world: &World<'_>) {
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
        if !world.goes_on() {
            return;
        }
        let status = client.get(path).status;
        let may_be_unready = ["/readyz", "/health"].contains(path);
        assert!(
            status == 200 || may_be_unready && status == 503,
            "{path}: {status}"
        );
        // A model that comes and goes: it answers, or it is unknown.
        let status = client.predict(GUEST, "text", &echoes(["hello"])).status;
        assert!([200, 404].contains(&status), "{status}");
        world.answered();
    }
}

/// Asks the model whose configuration does not change. It has one client, and always answers.
pub(super) fn ask_the_bystander(world: &World<'_>) -> Ledger {
    let client = world.server.client();
    let mut ledger = Ledger::of(Target::Bystander);
    while world.goes_on() {
        let value = world.value();
        let reply = client.predict(Target::Bystander.model(), "text", &echoes([value]));
        assert_eq!(reply.values(), [value]);
        *ledger.statuses.entry(reply.status).or_default() += 1;
        *ledger.fates.entry(Fate::Success).or_default() += 1;
        world.answered();
    }
    ledger
}
