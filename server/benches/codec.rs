//! The cost of splitting requests and writing replies.

use std::time::Duration;

use bytes::Bytes;
use divan::counter::{BytesCount, ItemsCount};
use inference_server::http::native::reply::{ReplyHead, encode_reply};
use inference_server::http::native::request_items::{BodyLimits, Form, read_body};
use inference_server::values::{DType, Tensor, Value};
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
        .bench(|| read_body(&body, None, &task, LIMITS));
}

#[divan::bench]
fn split_256_texts_of_200_characters(bencher: divan::Bencher<'_, '_>) {
    let body = request(&format!("\"{}\"", "lorem ipsu".repeat(20)));
    let input = ValueManifest::of(Kind::Text);
    read(bencher, body, input);
}

#[divan::bench]
fn read_256_tensors_of_64_floats(bencher: divan::Bencher<'_, '_>) {
    let body = request(&format!("{:?}", vec![0.123_456_78_f32; 64]));
    let input = ValueManifest::of_tensors([TensorManifest::new("x", "FP32", [64])]);
    read(bencher, body, input);
}

#[divan::bench]
fn write_256_tensors_of_384_floats(bencher: divan::Bencher<'_, '_>) {
    let floats: Vec<u8> = (0..384)
        .flat_map(|i| ((i as f32).sin() / 20.0).to_le_bytes())
        .collect();
    let tensor = Tensor::new("embedding", DType::Fp32, vec![384], floats.into())
        .expect("the length of the data matches the shape");
    let outcomes: Vec<_> = (0..256)
        .map(|_| Ok(Value::Tensors(vec![tensor.clone()])))
        .collect();
    let head = ReplyHead {
        model: "model",
        task: "task",
        form: Form::List,
        request_size: 1 << 20,
        inference: Duration::from_millis(5),
        request_id: None,
    };
    bencher
        .counter(ItemsCount::new(256usize * 384))
        .bench(|| encode_reply(&head, &outcomes));
}

/// A batch of 32 images of 3 × 224 × 224 floats, with 1000 floats as the output of each: as JSON, in binary, and the cost of
/// copying the body once.
mod pictures {
    use inference_server::api::tensors::{OutputTensor, items_from_tensors, tensors_from_outcomes};
    use inference_server::http::v2::infer_request::{RequestedOutputs, read_request};
    use inference_server::http::v2::infer_response::{ResponseHead, write_response};

    use super::*;

    const SHAPE: [i64; 3] = [3, 224, 224];
    const ITEMS: usize = 32;

    fn task() -> TaskManifest {
        TaskManifest {
            name: "classify".to_owned(),
            input: ValueManifest::of_tensors([TensorManifest::new("pixels", "FP32", SHAPE)]),
            ..TaskManifest::default()
        }
    }

    fn floats(count: usize) -> impl Iterator<Item = f32> {
        (0..count).map(|index| (index % 255) as f32 / 255.0)
    }

    fn pixels() -> Vec<u8> {
        let count = ITEMS * SHAPE.iter().product::<i64>() as usize;
        floats(count).flat_map(f32::to_le_bytes).collect()
    }

    /// The outcomes of the model: 1000 floats per item.
    fn outcomes() -> Vec<Result<Value, inference_server::error::ItemError>> {
        let data: Bytes = floats(1000).flat_map(f32::to_le_bytes).collect();
        let row = Tensor::new("scores", DType::Fp32, vec![1000], data)
            .expect("the length of the data matches the shape");
        vec![Ok(Value::Tensors(vec![row])); ITEMS]
    }

    fn serve(bencher: divan::Bencher<'_, '_>, body: Vec<u8>, json_length: usize, binary: bool) {
        let (task, body) = (task(), Bytes::from(body));
        let head = ResponseHead {
            model: "m",
            id: None,
            task: &task,
        };
        bencher
            .counter(BytesCount::new(body.len()))
            .with_inputs(outcomes)
            .bench_values(|outcomes| {
                let request = read_request(&body, Some(json_length), &task, LIMITS)
                    .expect("the request is well-formed");
                let items = items_from_tensors(&task, request.inputs, &Bytes::new(), LIMITS)
                    .expect("the request matches the task");
                let outputs: Vec<OutputTensor> =
                    tensors_from_outcomes(&task, outcomes).expect("the outputs can be stacked");
                let encoded = write_response(&head, outputs, &RequestedOutputs::All { binary })
                    .expect("the reply can be encoded");
                (items, encoded)
            });
    }

    #[divan::bench]
    fn copied(bencher: divan::Bencher<'_, '_>) {
        let pixels = pixels();
        let mut to = vec![0; pixels.len()];
        bencher.counter(BytesCount::new(pixels.len())).bench_local(|| {
            to.copy_from_slice(divan::black_box(&pixels));
            divan::black_box(&to);
        });
    }

    #[divan::bench]
    fn served_as_binary(bencher: divan::Bencher<'_, '_>) {
        let pixels = pixels();
        let json = format!(
            "{{\"inputs\":[{{\"name\":\"pixels\",\"datatype\":\"FP32\",\"shape\":[32,3,224,224],\
             \"parameters\":{{\"binary_data_size\":{}}}}}]}}",
            pixels.len()
        );
        let length = json.len();
        serve(bencher, [json.into_bytes(), pixels].concat(), length, true);
    }

    #[divan::bench(sample_count = 5)]
    fn served_as_json(bencher: divan::Bencher<'_, '_>) {
        let numbers: Vec<String> = floats(pixels().len() / 4)
            .map(|float| float.to_string())
            .collect();
        let json = format!(
            "{{\"inputs\":[{{\"name\":\"pixels\",\"datatype\":\"FP32\",\"shape\":[32,3,224,224],\"data\":[{}]}}]}}",
            numbers.join(",")
        );
        let length = json.len();
        serve(bencher, json.into_bytes(), length, false);
    }
}
