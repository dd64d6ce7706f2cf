//! Reloads under load: no request fails, and all models change atomically.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use serde_json::json;

use crate::harness::misbehave::echoes;
use crate::harness::{Client, Scenario, eventually, rounds};

/// Returns a configuration with two models that report the round of the configuration, and one model that never changes.
fn config(round: usize) -> String {
    let tagged = |name: &str| {
        format!(
            "[[models]]\nname = \"{name}\"\nplugin = \"misbehave\"\n[models.settings]\ntag = \"{round}\"\n\n"
        )
    };
    let bystander = "[[models]]\nname = \"bystander\"\nplugin = \"template\"\n";
    format!("{}{}{bystander}", tagged("first"), tagged("second"))
}

#[test]
fn reloads_under_load_fail_no_request_and_swap_all_models_atomically() {
    let reloads = rounds(20, 200);
    let server = Scenario::new(&config(0)).start();
    // Generation numbers are shared by all models, which load in parallel.
    let bystander = server.generation("bystander");
    let (stop, answered) = (AtomicBool::new(false), AtomicU64::new(0));
    thread::scope(|scope| {
        let clients: Vec<_> = (0..3)
            .map(|_| {
                let (client, stop, answered) = (server.client(), &stop, &answered);
                scope.spawn(move || ask_both_in_turn(&client, stop, answered))
            })
            .chain([{
                let (client, stop, answered) = (server.client(), &stop, &answered);
                scope.spawn(move || ask_the_bystander(&client, stop, answered))
            }])
            .collect();
        for round in 1..=reloads {
            let before = answered.load(Ordering::Relaxed);
            server.write_config(&config(round));
            assert!(server.reload(), "reload {round} failed");
            assert_eq!(round_of(&server, "first"), round);
            assert_eq!(round_of(&server, "second"), round);
            eventually("requests to go on", || match answered.load(Ordering::Relaxed) {
                now if now > before || clients.iter().any(thread::ScopedJoinHandle::is_finished) => Ok(()),
                now => Err(now),
            });
        }
        stop.store(true, Ordering::Relaxed);
        for client in clients {
            assert_eq!(client.join().expect("a client ends"), Ok(()));
        }
    });
    assert_eq!(
        server.generation("bystander"),
        bystander,
        "what did not change was loaded again"
    );
    server.wait_for_metric("inference_generations_live", &[], 3);
    let lost = server
        .metrics()
        .count("inference_items_total", &[("outcome", "lost")]);
    assert_eq!(lost, 0);
    eprintln!(
        "{reloads} reloads, {} requests answered, none failed",
        answered.into_inner()
    );
}

fn round_of(client: &Client, model: &str) -> usize {
    let reply = client.predict(model, "text", &echoes(["which?"]));
    reply.report().tag().parse().expect("a tag is a round")
}

/// Sends requests to both models in turn. After a round has been observed in one model, the other must not report an earlier one,
/// since both change at the same moment.
fn ask_both_in_turn(client: &Client, stop: &AtomicBool, answered: &AtomicU64) -> Result<(), String> {
    let mut latest = 0;
    for model in ["first", "second"].iter().cycle() {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let reply = client.predict(model, "text", &echoes([1, 2]));
        if reply.status != 200 {
            return Err(reply.text());
        }
        let rounds: Vec<usize> = reply
            .reports()
            .iter()
            .map(|report| report.tag().parse().expect("a tag is a round"))
            .collect();
        if rounds.iter().any(|round| *round < latest) || rounds[0] != rounds[1] {
            return Err(format!(
                "`{model}` answers from round {rounds:?}, after round {latest} was seen"
            ));
        }
        latest = rounds[0];
        answered.fetch_add(1, Ordering::Relaxed);
    }
    Ok(())
}

fn ask_the_bystander(client: &Client, stop: &AtomicBool, answered: &AtomicU64) -> Result<(), String> {
    while !stop.load(Ordering::Relaxed) {
        let reply = client.predict("bystander", "echo", &json!(["still here"]));
        if reply.status != 200 {
            return Err(reply.text());
        }
        answered.fetch_add(1, Ordering::Relaxed);
    }
    Ok(())
}
