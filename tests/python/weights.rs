//! Classes that state the weights of their items.

use serde_json::{Value as Json, json};

use super::{class, config, python, serve};
use crate::harness::{Scenario, Server};

/// Starts a server with batches of up to four words, which run when they are full.
fn weighed(keys: &str) -> Option<Server> {
    let python = python()?;
    let keys =
        format!("{keys}\n[models.batching]\npolicy = \"fixed\"\nmax_delay = \"60s\"\nmax_batch_weight = 4\n");
    Some(Scenario::new(&config(&python, &class("weights.py", "Weighed"), &keys)).start())
}

/// The texts of the batch of each item.
fn batches(reply: &Json) -> Vec<Vec<String>> {
    let outputs = reply["outputs"].as_array().cloned().unwrap_or_default();
    let texts = |output: &Json| {
        let batch = output["batch"].as_array().cloned().unwrap_or_default();
        let text = |text: &Json| text.as_str().unwrap_or_default().to_owned();
        batch.iter().map(text).collect()
    };
    outputs.iter().map(texts).collect()
}

#[test]
fn items_are_batched_by_the_weight_that_the_class_states() {
    for keys in ["", "isolation = \"thread\""] {
        let Some(server) = weighed(keys) else { return };
        let inputs = json!(["a b", "c d", "e f", "g h", "i j k l"]);
        let reply = server.predict("m", "words", &inputs).expect(200).json();
        let sizes: Vec<usize> = batches(&reply).iter().map(Vec::len).collect();
        assert_eq!(sizes, [2, 2, 2, 2, 1], "{reply}");
    }
}

#[test]
fn items_of_different_groups_do_not_share_a_batch() {
    let Some(server) = weighed("") else { return };
    let inputs = json!(["group1 a", "group2 a", "group1 b", "group2 b"]);
    let reply = server.predict("m", "words", &inputs).expect(200).json();
    let batches = batches(&reply);
    assert_eq!(batches[0], ["group1 a", "group1 b"], "{reply}");
    assert_eq!(batches[1], ["group2 a", "group2 b"], "{reply}");
}

#[test]
fn an_item_without_a_weight_fails_alone() {
    let Some(server) = weighed("") else { return };
    let reply = server.predict("m", "words", &json!(["bad", "wrong", "a b c d"]));
    let reply = reply.expect(200).json();
    assert_eq!(
        reply["outputs"][0]["error"]["message"], "the text has no weight",
        "{reply}"
    );
    assert_eq!(reply["outputs"][0]["error"]["code"], "invalid_input", "{reply}");
    let fault = "`weigh` returned 'heavy', expected an integer of at most 2**40, or a pair of it and a group";
    assert_eq!(reply["outputs"][1]["error"]["message"], fault, "{reply}");
    assert_eq!(reply["outputs"][2]["batch"], json!(["a b c d"]), "{reply}");
}

#[test]
fn tensors_can_be_weighed() {
    let Some(server) = weighed("") else { return };
    let inputs = json!([[1.0, 2.0], [3.0, 4.0], [1.0, 2.0, 3.0, 4.0]]);
    let reply = server.predict("m", "lengths", &inputs).expect(200).json();
    assert_eq!(reply["outputs"], json!([2, 2, 4]));
}

#[test]
fn methods_with_other_parameters_than_the_optional_ones_are_tasks() {
    let Some(server) = serve("weights.py", "Sampler", "") else {
        return;
    };
    let reply = server.predict("m", "sample", &json!(["a"])).expect(200).json();
    assert_eq!(reply["outputs"], json!(["A"]));
    let reply = server.predict("m", "weigh", &json!(["abc"])).expect(200).json();
    assert_eq!(reply["outputs"], json!([3]));
}

#[test]
fn a_class_creates_items_for_its_calibration() {
    let Some(python) = python() else { return };
    let scenario = Scenario::new(&config(&python, &class("weights.py", "Weighed"), ""));
    let arguments = ["calibrate", "--config", "models.toml", "--max-time", "2s"];
    let ran = scenario.run(&arguments);
    assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
    let text = std::fs::read_to_string(scenario.dir().join("calibration/m.json")).expect("it was written");
    let file: Json = serde_json::from_str(&text).expect("it is JSON");
    for task in ["words", "lengths"] {
        let points = file["tasks"][task]["points"].as_array().expect("it was measured");
        assert!(points.iter().any(|point| point["heaviest"] == 100), "{task}");
    }
}
