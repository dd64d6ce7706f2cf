//! Outcomes and items that do not match their hints fail instead of being changed silently.

use serde_json::{Value as Json, json};

use super::{serve, written};
use crate::harness::{Scenario, Server};

fn outcomes() -> Option<Server> {
    serve("outcomes.py", "Outcomes", "")
}

/// Returns the error of an item in a batch with a successful item.
fn error_of(server: &Server, task: &str, bad: &str) -> String {
    let outputs = server
        .predict("m", task, &json!(["good", bad]))
        .expect(200)
        .outputs();
    assert!(outputs[0].get("error").is_none(), "{task}: {outputs:?}");
    let error = &outputs[1]["error"];
    assert_eq!(error["code"], "model_fault", "{task} {bad}: {outputs:?}");
    error["message"].as_str().unwrap_or_default().to_owned()
}

#[test]
fn a_value_that_json_cannot_represent_fails_its_item_with_the_path_to_the_value() {
    let Some(server) = outcomes() else { return };
    for (bad, expected) in [
        ("nan", "`a[0].score` is nan, which is not representable in JSON"),
        ("infinity", "`[1]` is -inf, which is not representable in JSON"),
        ("numpy", "`score` is nan, which is not representable in JSON"),
        ("double", "`score` is inf, which is not representable in JSON"),
        ("array", "`scores[1]` is nan, which is not representable in JSON"),
        ("zero", "`score` is nan, which is not representable in JSON"),
        ("record", "`[0].score` is nan, which is not representable in JSON"),
        (
            "bytes",
            "`data`: a value of type `bytes` is not representable in JSON",
        ),
        (
            "generator",
            "a value of type `generator` is not representable in JSON: return a list",
        ),
        ("truth", "a dict has a key that is neither a str nor an int: True"),
        ("keys", "a dict has two keys that are both `1` in JSON"),
        (
            "surrogate",
            "`a` is a string that is not valid in UTF-8: surrogates not allowed",
        ),
        (
            "key",
            "a string that is not valid in UTF-8: surrogates not allowed",
        ),
        (
            "complex",
            "a value of type `complex` is not representable in JSON",
        ),
        (
            "object",
            "`a`: a value of type `object` is not representable in JSON",
        ),
        (
            "fields",
            "an array with named fields is not representable in JSON",
        ),
        ("endless", "it is nested too deeply, or contains itself"),
    ] {
        let message = error_of(&server, "document", bad);
        assert_eq!(
            message,
            format!("cannot send the model's output: {expected}"),
            "{bad}"
        );
    }
}

#[test]
fn tensors_are_converted_without_changing_values() {
    let Some(server) = outcomes() else { return };
    let good = ["good", "big-endian", "half", "strided", "integers"];
    let outputs = server.predict("m", "tensor", &json!(good)).expect(200).outputs();
    let vector = |numbers: &[f32]| json!({ "output": numbers });
    let same = vector(&[1.5]);
    assert_eq!(
        outputs,
        [
            same.clone(),
            same.clone(),
            same,
            vector(&[0.0, 2.0]),
            vector(&[1.0, 2.0])
        ]
    );
    for (task, bad, expected) in [
        (
            "tensor",
            "overflow",
            "`output` is an array of float64 with 1e+300, which float32 cannot represent",
        ),
        (
            "tensor",
            "imprecise",
            "`output` is an array of int64 with 16777217, which float32 cannot represent",
        ),
        ("tensor", "text", "`output` is an array of str"),
        ("tensor", "none", "it lacks the tensor `output`"),
        ("tensor", "ragged", "ValueError"),
        ("tensor", "masked", "`output` is an array with masked elements"),
        (
            "integers",
            "large",
            "`output` is an array of int64 with 1099511627776, which int32 cannot represent",
        ),
        (
            "integers",
            "unsigned",
            "`output` is an array of uint32 with 2147483648, which int32 cannot represent",
        ),
    ] {
        let message = error_of(&server, task, bad);
        assert!(message.contains(expected), "{bad}: {message}");
    }
}

#[test]
fn collections_without_an_order_or_a_size_are_not_outcomes() {
    let Some(server) = outcomes() else { return };
    for (kind, name) in [
        ("set", "set"),
        ("zero", "ndarray"),
        ("bytes", "bytearray"),
        ("dict", "dict"),
    ] {
        let (_, message) = server
            .predict("m", "collection", &json!([kind]))
            .expect(500)
            .error();
        let expected = format!("returned a value of type `{name}`, expected a list of 1");
        assert!(message.contains(&expected), "{message}");
    }
}

#[test]
fn numbers_in_documents_are_converted_to_arrays_exactly_or_rejected() {
    let Some(server) = outcomes() else { return };
    for (bad, expected) in [
        (
            json!([[1.5]]),
            "`[0]`: expected an array of INT32, got an array of 1: it contains a number that is not an integer",
        ),
        (json!([["1"]]), "it contains a string"),
        (json!([[null]]), "it contains null"),
        (json!([[true, 2]]), "it contains a boolean"),
        (
            json!([[2_147_483_648_u32]]),
            "with 2147483648, which int32 cannot represent",
        ),
        (json!([[1, [2]]]), "its rows have different lengths"),
    ] {
        let outputs = server
            .predict("m", "inside", &json!([[[1, 2]], bad]))
            .expect(200)
            .outputs();
        assert_eq!(outputs[0], 3);
        let message = outputs[1]["error"]["message"].as_str().unwrap_or_default();
        assert!(message.contains(expected), "{bad}: {message}");
        assert_eq!(outputs[1]["error"]["code"], "invalid_input");
    }
}

#[test]
fn numpy_numbers_and_enumerations_are_converted_by_value() {
    let Some(server) = outcomes() else { return };
    let outputs = server
        .predict("m", "scalars", &json!([3, 0, 256]))
        .expect(200)
        .outputs();
    assert_eq!((&outputs[0], &outputs[1]), (&json!(true), &json!(false)));
    let message = outputs[2]["error"]["message"].as_str().unwrap_or_default();
    assert!(
        message.contains("with 256, which uint8 cannot represent"),
        "{message}"
    );
    assert_eq!(
        server.predict("m", "color", &json!(["red"])).outputs(),
        [json!("red")]
    );
}

#[test]
fn a_batch_as_one_array_is_one_call_per_shape() {
    let Some(server) = outcomes() else { return };
    let outputs = server
        .predict("m", "ragged", &json!([[1, 2], [3], [4, 5], []]))
        .expect(200)
        .outputs();
    assert_eq!(
        outputs,
        [json!([2, 2]), json!([1, 1]), json!([2, 2]), json!([1, 0])]
    );
    let Some(scenario) = written(
        "from typing import Annotated\nimport numpy as np\nfrom numpy.typing import NDArray\nimport inference_server\n\
         class Model:\n    @inference_server.task\n    def f(self, xs: Annotated[NDArray[np.float32], (8, 3)]): ...\n",
        "",
    ) else {
        return;
    };
    let said = scenario.start_unready().wait_for_log("model `m`: ");
    assert!(
        said.contains("expected a shape whose first dimension is -1"),
        "{said}"
    );
}

fn draw(server: &Server, task: &str, accept: &str, body: &Json) -> (String, Vec<u8>) {
    let reply = server
        .request("POST", &format!("/v1/models/m/tasks/{task}/predict"))
        .header("accept", accept)
        .json(body)
        .send()
        .expect(200);
    (
        reply.header("content-type").unwrap_or_default().to_owned(),
        reply.body,
    )
}

#[test]
fn an_image_is_returned_raw_to_a_client_that_accepts_it() {
    let Some(server) = outcomes() else { return };
    for body in [json!({"input": "x"}), json!({"inputs": ["x"]})] {
        for accept in [
            "image/png",
            "image/*",
            "application/json;q=0.5, image/png",
            "image/avif, image/*, */*;q=0.8",
        ] {
            let got = draw(&server, "picture", accept, &body);
            assert_eq!(
                got,
                ("image/png".to_owned(), b"\x89PNGx".to_vec()),
                "{accept} {body}"
            );
        }
        for accept in ["*/*", "application/json", "image/jpeg, */*"] {
            assert_eq!(
                draw(&server, "picture", accept, &body).0,
                "application/json",
                "{accept}"
            );
        }
    }
    let two = draw(&server, "picture", "image/png", &json!({"inputs": ["x", "y"]}));
    assert_eq!(two.0, "application/json", "two images are not one");
}

#[test]
fn an_outcome_can_choose_among_several_media_types() {
    let Some(server) = outcomes() else { return };
    for name in ["png", "jpeg"] {
        let got = draw(&server, "either", "image/*", &json!({ "input": name }));
        assert_eq!(got, (format!("image/{name}"), name.as_bytes().to_vec()));
    }
    let outputs = server
        .predict("m", "either", &json!(["png", "gif", "untold"]))
        .outputs();
    let message = |index: usize| outputs[index]["error"]["message"].as_str().unwrap_or_default();
    assert!(message(1).contains("its media type is image/gif, expected image/png or image/jpeg"));
    assert!(message(2).contains("return (bytes, media_type)"));
}

#[test]
fn a_reload_notices_a_change_of_a_declared_file() {
    let text = "import pathlib\nHERE = pathlib.Path(__file__).parent\nclass Model:\n    FILES\n    \
                def load(self):\n        self.word = (HERE / 'data/word.txt').read_text()\n    \
                def f(self, items: list) -> list:\n        return [self.word] * len(items)\n";
    for declared in [
        "files = ['data/word.txt']",
        "files = 'data'",
        "def files(self):\n        return [HERE / 'data' / 'word.txt']",
    ] {
        let Some(scenario) = written(&text.replace("FILES", declared), "") else {
            return;
        };
        super::write(scenario.dir(), "data/word.txt", "one");
        let server = scenario.start();
        let word = |server: &Server| server.predict("m", "f", &json!([0])).outputs()[0].clone();
        assert_eq!(word(&server), "one");
        assert!(server.reload());
        assert_eq!(server.generation("m"), 1, "{declared}: nothing has changed");
        super::write(server.dir(), "data/word.txt", "two");
        assert!(server.reload());
        assert_eq!(
            (word(&server), server.generation("m")),
            (json!("two"), 2),
            "{declared}"
        );
    }
}

#[test]
fn a_declared_file_that_does_not_exist_fails_the_load() {
    for (declared, expected) in [
        ("files = ['weights.bin']", "/weights.bin, which does not exist"),
        (
            "files = [3]",
            "`files` contains 3, expected the path of a file or a directory",
        ),
        ("files = {}", "`files` is {}, expected a list of the paths"),
    ] {
        let text = format!("class Model:\n    {declared}\n    def f(self, items: list) -> list: ...\n");
        let Some(scenario) = written(&text, "") else {
            return;
        };
        let said = scenario.start_unready().wait_for_log("model `m`: ");
        assert!(said.contains(expected), "{said}");
    }
}

#[test]
fn a_pillow_image_is_encoded_in_the_declared_media_type() {
    // A fake class, so that the test does not require Pillow: the plugin identifies images by the name of their class.
    let pillow = "SAVE = {'PNG': None}\nMIME = {'PNG': 'image/png', 'GIF': 'image/gif'}\ndef init(): pass\n\
                  class Image:\n    mode = 'RGB'\n    def save(self, into, format):\n        into.write(b'an image of ' + format.encode())\n\
                  Image.__module__ = 'PIL.Image'\n";
    let text = "from typing import Annotated\nfrom PIL import Image\nclass Model:\n    \
                def f(self, items: list) -> list[Annotated[bytes, 'image/png']]:\n        return [Image.Image() for _ in items]\n    \
                def g(self, items: list) -> list[Annotated[bytes, 'image/gif']]:\n        return [Image.Image() for _ in items]\n";
    let Some(scenario) = written(text, "") else { return };
    super::write(scenario.dir(), "PIL/__init__.py", "");
    super::write(scenario.dir(), "PIL/Image.py", pillow);
    let server: Server = Scenario::start(scenario);
    let got = draw(&server, "f", "image/png", &json!({"input": 1}));
    assert_eq!(got, ("image/png".to_owned(), b"an image of PNG".to_vec()));
    let (_, message) = server.predict("m", "g", &json!([1])).expect(500).error();
    assert!(
        message.contains("Pillow cannot write images with the media type image/gif"),
        "{message}"
    );
}
