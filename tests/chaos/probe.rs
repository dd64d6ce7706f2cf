//! Those to whom nothing may happen: probes, and the clients of a model that is left alone.

use super::World;
use super::ledger::Ledger;
use super::operator::GUEST;
use crate::harness::misbehave::echoes;

/// Asks what machines ask, all the time; the answer is always the good one.
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
        client.get(path).expect(200);
        // A model that comes and goes: it answers, or it is unknown.
        let status = client.predict(GUEST, "text", &echoes(["hello"])).status;
        assert!([200, 404].contains(&status), "{status}");
        world.answered();
    }
}

/// Asks the model whose configuration does not change. It has one task and one client, and always answers.
pub(super) fn ask_the_bystander(world: &World<'_>) -> Ledger {
    let client = world.server.client();
    let mut ledger = Ledger::default();
    while world.goes_on() {
        let value = world.value();
        assert_eq!(
            client.predict("bystander", "text", &echoes([value])).values(),
            [value]
        );
        ledger.bystander += 1;
        world.answered();
    }
    ledger
}
