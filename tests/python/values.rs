//! Conversion of items and outcomes by the type hints of a method.

use serde_json::{Value as Json, json};

use super::{class, config, python, serve};
use crate::harness::vectors::list;
use crate::harness::{Scenario, Server};

fn kinds() -> Option<Server> {
    serve("kinds.py", "Kinds", "")
}

fn assert_outputs(server: &Server, task: &str, inputs: Json, expected: Json) {
    let reply = server.predict("m", task, &inputs);
    assert_eq!(Json::Array(reply.outputs()), expected, "{task} {inputs}");
}

#[test]
fn items_and_outcomes_are_converted_by_their_hints() {
    let Some(server) = kinds() else { return };
    for (task, inputs, expected) in [
        ("text", json!(["größe", ""]), json!(["eßörg", ""])),
        (
            "raw",
            json!([{"b64": "AQI="}]),
            json!([{"b64": "AgE=", "media_type": "image/x-made-up"}]),
        ),
        (
            "anything",
            json!([null, 1, -2.5, "a\u{1F600}\"\\", [true], {"b": {"c": []}}]),
            json!([null, 1, -2.5, "a\u{1F600}\"\\", [true], {"b": {"c": []}}]),
        ),
        (
            "typed",
            json!([null, 1, 1.0, true, "", [], {}]),
            json!(["NoneType", "int", "float", "bool", "str", "list", "dict"]),
        ),
        (
            "shapes",
            json!([{"corners": [{"x": 1}, {"x": 2, "y": 3}]}, {"corners": [], "labels": {"a": 1}}]),
            json!([
                {"corners": [{"x": 1.0, "y": 0.0}, {"x": 2.0, "y": 3.0}], "labels": {}},
                {"corners": [], "labels": {"a": 1}}
            ]),
        ),
        (
            "boxes",
            json!([{"corner": [1, 2], "color": "red"}]),
            json!(["(1, 2) red"]),
        ),
        (
            "choices",
            json!([3, "l", null]),
            json!(["3", "<Size.LARGE: 'l'>", "None"]),
        ),
        (
            "people",
            json!([{"name": "ada"}, {"name": "alan", "ages": [41]}]),
            json!([{"name": "ADA", "ages": []}, {"name": "ALAN", "ages": [41]}]),
        ),
        (
            "nested",
            json!([{"points": [[1, 2, 3], [4, 5, 6]]}]),
            json!([21.0]),
        ),
        (
            "foreign",
            json!([0, 1, 2, 3, 4, 7]),
            json!([0.5, [0, 1], [3], [1, true], "l", {"1": "a"}]),
        ),
        (
            "narrowed",
            json!(["", "abc"]),
            json!([{"output": [0.0]}, {"output": [3.0]}]),
        ),
        (
            "batch",
            json!([[0, 1], [2, 3]]),
            json!([{"output": [1.0, 2.0]}, {"output": [3.0, 4.0]}]),
        ),
        // Vectors of different lengths in one batch.
        (
            "vector",
            json!([[0, 1], [2], []]),
            json!([{"output": [0.0, 2.0]}, {"output": [4.0]}, {"output": []}]),
        ),
        (
            "located",
            json!([{"corners": [[1, 2, 3]], "ids": [5, 9]}, {"corners": [], "ids": [1]}]),
            json!([{"scores": [6.0], "best": 1}, {"scores": [], "best": 0}]),
        ),
    ] {
        assert_outputs(&server, task, inputs, expected);
    }
}

#[test]
fn integers_of_any_size_are_preserved() {
    let Some(server) = kinds() else { return };
    let large = "1000000000000000000000000000000";
    let reply = server.predict("m", "foreign", &json!([5])).expect(200).text();
    assert!(reply.contains(large), "{reply}");
    let path = "/v1/models/m/tasks/anything/predict";
    let call = server.request("POST", path);
    let reply = call
        .body("application/json", format!("{{\"input\": {large}}}"))
        .send();
    assert!(reply.text().contains(large), "{}", reply.text());
}

#[test]
fn an_item_that_does_not_match_its_hint_fails_alone_with_the_path_to_the_error() {
    let Some(server) = kinds() else { return };
    for (task, good, bad, message) in [
        (
            "shapes",
            json!({"corners": []}),
            json!({"corners": [{"x": 1}, {"x": "one"}]}),
            "`corners[1].x`: expected a number, got the string \"one\"",
        ),
        (
            "shapes",
            json!({"corners": []}),
            json!({"corners": [], "labels": {"a": true}}),
            "`labels.a`: expected an integer, got true",
        ),
        (
            "shapes",
            json!({"corners": []}),
            json!({}),
            "`corners`: missing field",
        ),
        (
            "shapes",
            json!({"corners": []}),
            json!({"corners": [], "size": 1}),
            "`size`: unknown field, expected one of corners, labels",
        ),
        (
            "shapes",
            json!({"corners": []}),
            json!({"corners": [{"x": -1}]}),
            "`corners[0]`: x is negative",
        ),
        (
            "shapes",
            json!({"corners": []}),
            json!([]),
            "expected an object, got an array of 0",
        ),
        (
            "boxes",
            json!({"corner": [1, 2], "color": "red"}),
            json!({"corner": [1], "color": "red"}),
            "`corner`: expected an array of 2, got an array of 1",
        ),
        (
            "boxes",
            json!({"corner": [1, 2], "color": "red"}),
            json!({"corner": [1, 2], "color": "blue"}),
            "`color`: expected one of 'red', 'green', got the string \"blue\"",
        ),
        (
            "people",
            json!({"name": "ada"}),
            json!({"name": ""}),
            "`name`: String should have at least 1 character",
        ),
        (
            "groups",
            json!({"leader": {"name": "ada"}}),
            json!({"leader": {"name": "ada", "ages": [1, "x"]}}),
            "`leader.ages[1]`: Input should be a valid integer, unable to parse string as an integer",
        ),
        (
            "nested",
            json!({"points": [[0, 0, 0]]}),
            json!({"points": [[1, 2]]}),
            "`points`: expected the shape [-1, 3], got [1, 2]",
        ),
    ] {
        let outputs = server.predict("m", task, &json!([good, bad, good])).outputs();
        let error = &outputs[1]["error"];
        assert_eq!(
            (&error["code"], &error["message"]),
            (&json!("invalid_input"), &json!(message)),
            "{task}: {bad}"
        );
        assert!(
            outputs[0].get("error").is_none() && outputs[0] == outputs[2],
            "{task}: {outputs:?}"
        );
    }
    let reply = server.predict("m", "shapes", &json!([{}]));
    assert_eq!(reply.status, 422);
}

#[test]
fn numbers_out_of_range_are_client_errors() {
    let Some(server) = kinds() else { return };
    let large = format!("1{}", "0".repeat(400));
    for (task, good, bad) in [
        (
            "shapes",
            "{\"corners\": [{\"x\": 1}]}",
            format!("{{\"corners\": [{{\"x\": {large}}}]}}"),
        ),
        ("bytes", "[255]", "[256]".to_owned()),
    ] {
        let path = format!("/v1/models/m/tasks/{task}/predict");
        let body = format!("{{\"inputs\": [{good}, {bad}]}}");
        let reply = server
            .request("POST", &path)
            .body("application/json", body)
            .send();
        let outputs = reply.expect(200).outputs();
        assert_eq!(
            outputs[1]["error"]["code"], "invalid_input",
            "{task}: {outputs:?}"
        );
    }
}

#[test]
fn validation_by_the_author_fails_no_other_item() {
    let Some(server) = kinds() else { return };
    let inputs = json!([{"values": [1, 2]}, {"values": [2, 1]}, {"values": [3, 4]}]);
    let outputs = server.predict("m", "ordered", &inputs).outputs();
    assert_eq!((&outputs[0], &outputs[2]), (&json!(1.0), &json!(3.0)));
    assert_eq!(outputs[1]["error"]["message"], "the values are not in order");
    let outputs = server
        .predict("m", "broken", &json!([1, {"word": "a"}, 2]))
        .outputs();
    assert_eq!((&outputs[0], &outputs[2]), (&json!("1"), &json!("2")));
    assert_eq!(outputs[1]["error"]["code"], "model_fault", "{outputs:?}");
    server.wait_for_log("KeyError: 'a'");
}

#[test]
fn a_number_that_python_rejects_fails_alone() {
    let Some(server) = kinds() else { return };
    let digits = "1".repeat(5000);
    let body = format!("{{\"inputs\": [1, {digits}, [2]]}}");
    let path = "/v1/models/m/tasks/anything/predict";
    let reply = server.request("POST", path).body("application/json", body).send();
    let text = reply.expect(200).text();
    // Older versions of Python accept it.
    assert!(
        text.contains(&digits) || text.contains("Exceeds the limit"),
        "{text}"
    );
    assert!(text.contains("[2]"), "{text}");
}

#[test]
fn binary_tensors_are_preserved_bit_by_bit() {
    let Some(server) = kinds() else { return };
    // Values that JSON cannot represent.
    let numbers = [
        f32::from_bits(0x7fc0_1234),
        f32::INFINITY,
        -0.0,
        f32::from_bits(1),
    ];
    let data: Vec<u8> = numbers.iter().flat_map(|number| number.to_le_bytes()).collect();
    let header = json!({
        "inputs": [{
            "name": "input", "shape": [2, 2], "datatype": "FP32", "parameters": {"binary_data_size": data.len()}
        }],
        "parameters": {"binary_data_output": true}
    })
    .to_string();
    let reply = server
        .request("POST", "/v2/models/m.vector/infer")
        .header("inference-header-content-length", &header.len().to_string())
        .body("application/octet-stream", [header.into_bytes(), data].concat())
        .send()
        .expect(200);
    let length = reply
        .header("inference-header-content-length")
        .expect("a binary reply");
    let length: usize = length.parse().expect("a length");
    let doubled: Vec<u8> = numbers
        .iter()
        .flat_map(|number| (number * 2.0).to_le_bytes())
        .collect();
    assert_eq!(&reply.body[length..], doubled);
}

#[test]
fn tensors_with_a_different_datatype_or_shape_are_rejected() {
    let Some(server) = kinds() else { return };
    for (datatype, shape, message) in [
        (
            "FP64",
            json!([1, 2]),
            "input `input` has datatype FP64, expected FP32",
        ),
        (
            "FP32",
            json!([1, 3]),
            "input `input` has shape [1, 3], expected [-1, 2]",
        ),
    ] {
        let count = shape[1].as_u64().expect("a size");
        let data: Vec<f32> = vec![0.0; usize::try_from(count).expect("small")];
        let request =
            json!({"inputs": [{"name": "input", "shape": shape, "datatype": datatype, "data": data}]});
        let reply = server.post("/v2/models/m.batch/infer", &request);
        assert!((400..500).contains(&reply.status), "{}", reply.text());
        assert!(reply.text().contains(message), "{}", reply.text());
    }
}

#[test]
fn a_method_reads_the_parameters_of_each_request() {
    let Some(server) = kinds() else { return };
    let repeat = |parameters: Json| {
        server.post(
            "/v1/models/m/tasks/repeated/predict",
            &json!({"inputs": ["ab", "c"], "parameters": parameters}),
        )
    };
    assert_eq!(
        repeat(json!({"times": 2})).outputs(),
        [json!("abab"), json!("cc")]
    );
    assert_eq!(repeat(json!({})).outputs(), [json!("ab"), json!("c")]);
    let rejected = repeat(json!({"times": "often"})).text();
    assert!(rejected.contains("`times`: expected an integer"), "{rejected}");
}

#[test]
fn hints_and_docstrings_document_the_tasks() {
    let Some(server) = kinds() else { return };
    let model = server.model("m");
    let tasks = list(&model["tasks"]);
    let names: Vec<&str> = tasks.iter().filter_map(|task| task["name"].as_str()).collect();
    assert!(
        !names.contains(&"helper") && !names.contains(&"_private"),
        "{names:?}"
    );
    let task = |name: &str| tasks.iter().find(|task| task["name"] == name).expect("the task");
    assert_eq!(task("text")["description"], "Reverses a text.");
    assert_eq!(task("text")["examples"], json!(["an example"]));
    assert_eq!(task("raw")["examples"], json!([{"b64": "AQI="}]));
    assert_eq!(task("raw")["output"]["media_types"], json!(["image/x-made-up"]));
    assert_eq!(
        task("shapes")["input"]["schema"]["properties"]["corners"]["items"],
        json!({
            "type": "object", "additionalProperties": false, "required": ["x"],
            "properties": {"x": {"type": "number"}, "y": {"type": "number"}}
        })
    );
    assert_eq!(
        task("groups")["input"]["schema"]["properties"]["leader"]["properties"]["name"]["minLength"],
        1
    );
    let tensor = |name: &str, dtype: &str, shape: Json| json!({"name": name, "dtype": dtype, "shape": shape, "description": ""});
    assert_eq!(
        task("located")["input"]["tensors"],
        json!([
            tensor("corners", "FP32", json!([-1, 3])),
            tensor("ids", "INT64", json!([-1]))
        ])
    );
    assert_eq!(
        task("located")["output"]["tensors"],
        json!([
            tensor("scores", "FP64", json!([-1])),
            tensor("best", "INT32", json!([]))
        ])
    );
}

#[test]
fn a_function_is_a_model_with_one_task() {
    let Some(python) = python() else { return };
    let server = Scenario::new(&config(&python, &class("kinds.py", "shout"), "")).start();
    let reply = server.post("/v1/models/m/predict", &json!({"input": "hello"}));
    assert_eq!(reply.expect(200).json()["output"], "HELLO");
    assert_eq!(server.model("m")["tasks"][0]["name"], "shout");
}
