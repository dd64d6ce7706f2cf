//! The prepare step in model processes.

use serde_json::{Value as Json, json};

use crate::harness::Scenario;
use crate::harness::misbehave::{echo, echoes, perform};

fn scenario(workers: usize) -> Scenario {
    Scenario::new(&format!(
        "[[models]]\nname = \"m\"\nplugin = \"misbehave\"\nisolation = \"process\"\nworkers = {workers}\n\
         predict_timeout = \"2s\"\nrestart_delay = \"1ms\"\n[models.batching]\nmax_batch_size = 4\npolicy = \"greedy\"\n"
    ))
}

#[test]
fn the_weights_of_prepared_items_are_known_before_their_batch_is_formed() {
    let server = Scenario::new(
        "[[models]]\nname = \"m\"\nplugin = \"misbehave\"\nisolation = \"process\"\n[models.batching]\n\
         max_batch_weight = 10\nweight_rule = \"sum\"\npolicy = \"greedy\"\n",
    )
    .start();
    let occupied = server.occupy("m");
    let items: Json = (0..4).map(|value| json!({"value": value, "weight": 5})).collect();
    let pending = server.predict_in_background("m", "prepared", &items);
    server.wait_for_metric(
        "inference_queue_weight",
        &[("model", "m"), ("task", "prepared")],
        20,
    );
    occupied.release();
    let sizes: Vec<u64> = pending
        .reply()
        .reports()
        .iter()
        .map(|report| report.batch_size())
        .collect();
    assert_eq!(sizes, [2, 2, 2, 2]);
}

#[test]
fn an_item_that_kills_its_process_in_the_prepare_step_fails_alone() {
    let server = scenario(1).start();
    for action in ["abort_in_prepare", "hang_in_prepare"] {
        let inputs = json!([echo(1), echo(2), perform(action, 3), echo(4), echo(5), echo(6)]);
        let outputs = server.predict("m", "prepared", &inputs).expect(200).outputs();
        let values: Vec<&Json> = outputs.iter().map(|output| &output["value"]).collect();
        assert_eq!(
            values,
            [&json!(1), &json!(2), &Json::Null, &json!(4), &json!(5), &json!(6)],
            "{action}"
        );
        let message = outputs[2]["error"]["message"].as_str().unwrap_or_default();
        assert!(
            message.contains("while preparing this item for the second time"),
            "{message}"
        );
    }
    server.shut_down();
}

#[test]
fn an_item_whose_process_dies_in_the_prepare_step_is_prepared_again() {
    let server = scenario(1).start();
    for action in ["abort_in_prepare", "hang_in_prepare"] {
        let mut fatal = perform(action, "survives");
        fatal["once"] = format!("{}/{action}", server.dir().display()).into();
        let reply = server.predict("m", "prepared", &json!([echo("beside"), fatal]));
        assert_eq!(reply.values(), [json!("beside"), json!("survives")], "{action}");
    }
}

#[test]
fn items_prepared_by_a_dead_process_are_run_by_its_replacement() {
    let server = scenario(1).start();
    let fatal =
        json!([{"do": "abort", "once": format!("{}/once", server.dir().display()), "value": "fatal"}]);
    let occupied = server.occupy("m");
    let dying = server.predict_in_background("m", "text", &fatal);
    server.wait_for_queued("m", "text", 1);
    let prepared = server.predict_in_background("m", "prepared", &echoes(0..12));
    server.wait_for_metric(
        "inference_queue_weight",
        &[("model", "m"), ("task", "prepared")],
        12,
    );
    occupied.release();
    assert_eq!(dying.reply().values(), [json!("fatal")]);
    assert_eq!(
        prepared.reply().values(),
        (0..12).map(Json::from).collect::<Vec<_>>()
    );
    server.shut_down();
}

#[test]
fn with_several_processes_items_complete_regardless_of_where_they_were_prepared() {
    let server = scenario(3).start();
    let fatal = json!({"do": "exit", "once": format!("{}/once", server.dir().display()), "value": 0});
    let pending: Vec<_> = (1..=12)
        .map(|first| {
            let mut items: Vec<Json> = (0..9).map(|item| echo(first * 100 + item)).collect();
            if first == 6 {
                items.push(fatal.clone());
            }
            server.predict_in_background("m", "prepared", &Json::from(items))
        })
        .collect();
    for (index, pending) in pending.into_iter().enumerate() {
        let first = (index + 1) * 100;
        let values = pending.reply().values();
        let expected: Vec<Json> = (first..first + 9).map(Json::from).collect();
        assert_eq!(values[..9], expected);
    }
    server.shut_down();
}
