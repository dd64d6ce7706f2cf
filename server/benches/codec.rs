//! What splitting requests and writing replies costs.

use std::time::Duration;

use bytes::Bytes;
use divan::counter::{BytesCount, ItemsCount};
use inference_server::http::body::{BodyLimits, Envelope, Form, read_body};
use inference_server::http::encode::{ReplyHead, encode_reply};
use inference_server::protocol::{DType, Tensor, Value};
use plugin_abi::manifest::{Kind, TaskManifest, TensorManifest, ValueManifest};

fn main() {
    divan::main();
}

const LIMITS: BodyLimits = BodyLimits {
    items: 4096,
    depth: 128,
};

fn request(item: &str) -> Bytes {
    let items = vec![item; 256].join(",");
    Bytes::from(format!("{{\"inputs\":[{items}]}}"))
}

fn read(bencher: divan::Bencher<'_, '_>, body: Bytes, input: ValueManifest) {
    let task = TaskManifest {
        name: "task".to_owned(),
        input,
        ..TaskManifest::default()
    };
    bencher
        .counter(ItemsCount::new(256usize))
        .counter(BytesCount::new(body.len()))
        .bench(|| read_body(&body, None, Envelope::Native, &task, LIMITS));
}

#[divan::bench]
fn split_256_texts_of_200_characters(bencher: divan::Bencher<'_, '_>) {
    let body = request(&format!("\"{}\"", "lorem ipsu".repeat(20)));
    let input = ValueManifest {
        kinds: vec![Kind::Text],
        ..ValueManifest::default()
    };
    read(bencher, body, input);
}

#[divan::bench]
fn read_256_tensors_of_64_floats(bencher: divan::Bencher<'_, '_>) {
    let body = request(&format!("{:?}", vec![0.123_456_78_f32; 64]));
    let input = ValueManifest {
        kinds: vec![Kind::Tensors],
        tensors: vec![TensorManifest {
            name: "x".to_owned(),
            dtype: "FP32".to_owned(),
            shape: vec![64],
            ..TensorManifest::default()
        }],
        ..ValueManifest::default()
    };
    read(bencher, body, input);
}

#[divan::bench]
fn write_256_tensors_of_384_floats(bencher: divan::Bencher<'_, '_>) {
    let floats: Vec<u8> = (0..384)
        .flat_map(|i| ((i as f32).sin() / 20.0).to_le_bytes())
        .collect();
    let tensor = Tensor::new("embedding", DType::Fp32, vec![384], floats.into())
        .expect("the data is as long as the shape says");
    let outcomes: Vec<_> = (0..256)
        .map(|_| Ok(Value::Tensors(vec![tensor.clone()])))
        .collect();
    let head = ReplyHead {
        model: "model",
        task: "task",
        form: Form::List,
        inference: Duration::from_millis(5),
        request_id: None,
    };
    bencher
        .counter(ItemsCount::new(256usize * 384))
        .bench(|| encode_reply(&head, &outcomes));
}
