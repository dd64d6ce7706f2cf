//! Errors in settings or in a file are reported at load, with the key at fault.

#[allow(dead_code, reason = "every test file uses a part of it")]
mod common;

use common::load;
use plugin_sdk::testing::FailureKind;

const MODELS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/models");

/// Settings, the key at fault, and a part of the message.
const WRONG: &[(&str, &str, &str)] = &[
    ("", "model", "missing field `model`"),
    ("modle = \"one.onnx\"", "modle", "unknown field `modle`"),
    (
        "model = \"none.onnx\"",
        "model",
        "none.onnx` cannot be opened: No such file",
    ),
    ("model = \"make.py\"", "model", "make.py` is not an ONNX file: "),
    (
        "model = \"strings.onnx\"\nruntime = \"rten\"",
        "model",
        "its input `x` with the datatype STRING, expected FLOAT",
    ),
    (
        "model = \"unknown_operator.onnx\"\nruntime = \"rten\"",
        "model",
        "Frobnicate",
    ),
    (
        "model = \"quantized_by_column.onnx\"\nruntime = \"rten\"",
        "model",
        "`MatMulInteger` (`dense`): the operator is not verified",
    ),
    (
        "model = \"quantized_convolution.onnx\"\nruntime = \"rten\"",
        "model",
        "`ConvInteger` (`first`): the operator is not verified",
    ),
    (
        "model = \"one.onnx\"\nthreads = 0",
        "threads",
        "got 0, expected a positive integer",
    ),
    (
        "model = \"one.onnx\"\nthreads = 5000",
        "threads",
        "5000, expected at most 1024",
    ),
    (
        "model = \"one.onnx\"\ntasks.a.max_batch_size = 8",
        "tasks.a.max_batch_size",
        "8, expected 1",
    ),
    (
        "model = \"scalar.onnx\"\nbatch = \"force\"",
        "batch",
        "\"force\" is not possible: input `x` is a scalar; expected",
    ),
    (
        "model = \"anchors.onnx\"\ntasks.a.batch = \"force\"",
        "tasks.a.batch",
        "output `anchors` has the shape [3] for a single item",
    ),
    (
        "model = \"one.onnx\"\nbatch = \"maybe\"",
        "batch",
        "got \"maybe\", expected one of \"auto\", \"none\", \"force\"",
    ),
    (
        "model = \"tokens.onnx\"\ntasks.a.outputs = [\"total\"]",
        "tasks.a.outputs",
        "no output `total`, expected `sum`, `kept`",
    ),
    (
        "model = \"tokens.onnx\"\ntasks.a.outputs = []",
        "tasks.a.outputs",
        "expected at least one output",
    ),
    (
        "model = \"tokens.onnx\"\ntasks.a.inputs = [\"ids\"]",
        "tasks.a.inputs",
        "mask",
    ),
    (
        "model = \"tokens.onnx\"\ntasks.a.inputs = [\"id\"]",
        "tasks.a.inputs",
        "no input `id`, expected `ids`, `mask`",
    ),
    (
        "model = \"tokens.onnx\"\ntasks.a.image = { width = 1, height = 1 }",
        "tasks.a.image",
        "the task takes ids, mask",
    ),
    (
        "model = \"tokens.onnx\"\ntasks.a.labels = [\"x\"]",
        "tasks.a.outputs",
        "has sum, kept: choose with `outputs`",
    ),
    (
        "model = \"channels.onnx\"\ntasks.a.labels = [\"x\"]",
        "tasks.a.labels",
        "1 labels, expected 3: output `logits`",
    ),
    (
        "model = \"channels.onnx\"\ntasks.a.labels = [1, 2, 3]",
        "tasks.a.labels",
        "expected a list of strings, or the path",
    ),
    (
        "model = \"channels.onnx\"\ntasks.a.labels = \"none.txt\"",
        "tasks.a.labels",
        "none.txt` cannot be read",
    ),
    (
        "model = \"channels.onnx\"\ntasks.a.labels = [\"a\", \"b\", \"c\"]\ntasks.a.top_k = 4",
        "tasks.a.top_k",
        "4, expected at most 3",
    ),
    (
        "model = \"channels.onnx\"\ntasks.a.top_k = 4",
        "tasks.a.top_k",
        "is for tasks with `labels`",
    ),
    (
        "model = \"channels.onnx\"\ntasks.a.activation = \"softmax\"",
        "tasks.a.activation",
        "is for tasks with `labels`",
    ),
    (
        "model = \"channels.onnx\"\ntasks.a.activation = \"sofmax\"",
        "tasks.a.activation",
        "got \"sofmax\", expected one of \"none\", \"softmax\", \"sigmoid\"",
    ),
    (
        "model = \"channels.onnx\"\ntasks.a.image = { width = 0, height = 2 }",
        "tasks.a.image.width",
        "expected a positive integer, or \"proportional\"",
    ),
    (
        "model = \"channels.onnx\"\ntasks.a.image = { width = 2, height = 2, channels = \"grey\" }",
        "tasks.a.image",
        "grey images of 2×2 give [1, 2, 2] or [2, 2] or [2, 2, 1] or [4], expected what the input takes: [3, any, any]",
    ),
    (
        "model = \"channels.onnx\"\ntasks.a.image = { width = 2, height = 2, layout = \"nhwc\" }",
        "tasks.a.image",
        "rgb images of 2×2 give [2, 2, 3], expected",
    ),
    (
        "model = \"channels.onnx\"\ntasks.a.image = { width = 2, height = 2, std = [1, 0, 1] }",
        "tasks.a.image.std",
        "0 cannot be divided by",
    ),
    (
        "model = \"channels.onnx\"\ntasks.a.image = { width = 2, height = 2, mean = [1, 0] }",
        "tasks.a.image.mean",
        "[1.0, 0.0], expected one number or three",
    ),
    (
        "model = \"channels.onnx\"\ntasks.a.image = { width = 2, height = 2, scale = [1, 1] }",
        "tasks.a.image.scale",
        "expected two different numbers",
    ),
    (
        "model = \"channels.onnx\"\ntasks.a.image = { width = 2, height = 2 }\ntasks.a.examples = [\"none.png\"]",
        "tasks.a.examples[0]",
        "none.png` cannot be read",
    ),
    (
        "model = \"channels.onnx\"\ntasks.a.image = { width = 2, height = 2 }\ntasks.a.examples = [\"make.py\"]",
        "tasks.a.examples[0]",
        "image is in an unknown format",
    ),
];

#[test]
fn wrong_settings_are_blamed_on_their_key() {
    for (settings, key, message) in WRONG {
        let failure = load(settings, MODELS).expect_err(settings);
        assert_eq!(
            (failure.kind, &*failure.key),
            (FailureKind::Settings, *key),
            "{settings}\n{failure}"
        );
        assert!(failure.message.contains(message), "{settings}\n{failure}");
    }
}

#[test]
fn a_file_that_is_not_a_network_is_rejected() {
    let directory = std::env::temp_dir().join(format!("onnx-load-errors-{}", std::process::id()));
    std::fs::create_dir_all(&directory).expect("a directory for the test's files");
    let good = std::fs::read(format!("{MODELS}/tokens.onnx")).expect("part of the repository");
    for (what, content) in [
        ("empty", &b""[..]),
        ("text", b"hello, world"),
        ("cut", &good[..good.len() / 2]),
    ] {
        std::fs::write(directory.join("model.onnx"), content).expect("it can be written");
        let failure = load("model = \"model.onnx\"", &directory).expect_err(what);
        assert_eq!(
            (failure.kind, &*failure.key),
            (FailureKind::Settings, "model"),
            "{what}: {failure}"
        );
        assert!(
            failure.message.contains("model.onnx` is not an ONNX file: "),
            "{what}: {failure}"
        );
    }
    std::fs::remove_dir_all(directory).expect("it can be removed");
}
