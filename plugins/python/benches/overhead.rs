//! What a batch costs over a direct call of the method: 32 items of each kind, answered by methods that do nothing with them.
//!
//! `INFERENCE_TEST_PYTHON` names the Python, which needs numpy. In the process itself, without the server: what a process of
//! its own adds is in the server's benchmark `isolation`.

use std::env;
use std::hint::black_box;
use std::path::Path;

use abi_stable::sabi_trait::TD_Opaque;
use abi_stable::sabi_types::RMut;
use abi_stable::std_types::{RSlice, RStr};
use divan::Bencher;
use plugin_abi::codes::{dtype, kind};
use plugin_abi::{OutputSinkAbi, OutputSinkAbi_TO, RawBatch, RawItem, RawTensor, RawValue};
use plugin_sdk::serde_json::json;
use plugin_sdk::testing::Harness;
use python::Python;

const ITEMS: usize = 32;
const FLOATS: usize = 384;

fn main() {
    divan::main();
}

/// Takes every answer.
struct Nowhere;

impl OutputSinkAbi for Nowhere {
    fn emit(&mut self, _index: u32, value: RawValue<'_>, _flags: u32) -> u32 {
        black_box(value);
        0
    }

    fn emit_batch(&mut self, tensors: RSlice<'_, RawTensor<'_>>) -> u32 {
        black_box(tensors);
        0
    }

    fn fail(&mut self, _index: u32, _kind: u32, message: RStr<'_>) -> u32 {
        panic!("an item failed: {message}")
    }
}

fn load() -> Harness<Python> {
    let python = env::var("INFERENCE_TEST_PYTHON").unwrap_or_else(|_| "python3".to_owned());
    let class = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/nothing.py");
    let settings = json!({"class": format!("{}:Nothing", class.display()), "python": python});
    match Harness::<Python>::load_behind(settings) {
        Ok(model) => model,
        Err(failure) => panic!("{failure}"),
    }
}

/// Batches of 32 small documents, texts, or tensors of 1.5 KB.
#[divan::bench(args = ["text", "json", "dataclass", "tensor", "tensors_in_one"])]
fn batch(bencher: Bencher<'_, '_>, task: &str) {
    let model = load();
    let tasks = &model.manifest().tasks;
    let index = tasks
        .iter()
        .position(|other| other.name == task)
        .expect("it is in `nothing.py`");
    let (text, document) = (
        "a short text of some words",
        r#"{"name": "a short text", "size": 3, "ratio": 0.5}"#,
    );
    let data = vec![0_u8; 4 * FLOATS];
    let shape = [FLOATS as u64];
    let tensor = [RawTensor {
        name: RStr::from("input"),
        dtype: dtype::FP32,
        reserved: 0,
        shape: RSlice::from(&shape[..]),
        data: RSlice::from(&data[..]),
    }];
    let (kind, data, tensors) = match task {
        "text" => (kind::TEXT, text, &tensor[..0]),
        "json" | "dataclass" => (kind::JSON, document, &tensor[..0]),
        _ => (kind::TENSORS, "", &tensor[..]),
    };
    let item = RawItem {
        value: RawValue {
            kind,
            reserved: 0,
            data: RSlice::from(data.as_bytes()),
            media_type: RStr::from(""),
            tensors: RSlice::from(tensors),
            reserved_word: 0,
        },
        parameters: RStr::from(""),
        prepared: 0,
        reserved: 0,
    };
    let items = [item; ITEMS];
    bencher.bench_local(|| {
        let batch = RawBatch {
            task: u32::try_from(index).expect("a few tasks"),
            worker: 0,
            items: RSlice::from(&items[..]),
            reserved: 0,
        };
        let mut nowhere = Nowhere;
        let sink = OutputSinkAbi_TO::from_ptr(RMut::new(&mut nowhere), TD_Opaque);
        model
            .abi()
            .predict_batch(batch, sink)
            .into_result()
            .expect("the batch runs");
    });
}
