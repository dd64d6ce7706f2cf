use plugin_abi::manifest::{TensorManifest, ValueManifest};

use super::super::proto::model_infer_request::InferRequestedOutputTensor;
use super::*;
use crate::byte_budget::ByteBudget;
use crate::values::{Tensor, Value};

const LIMITS: BodyLimits = BodyLimits { items: 8, depth: 8 };

fn task(dtype: &str) -> TaskManifest {
    let mut task = TaskManifest::default();
    task.input = ValueManifest::of_tensors([TensorManifest::new("x", dtype, [2])]);
    task.output = task.input.clone();
    task
}

fn tensor(datatype: &str, contents: Option<InferTensorContents>) -> InferInputTensor {
    InferInputTensor {
        name: "x".to_owned(),
        datatype: datatype.to_owned(),
        shape: vec![1, 2],
        contents: contents.map_or_else(Bytes::new, |contents| contents.encode_to_vec().into()),
        ..InferInputTensor::default()
    }
}

fn request(input: InferInputTensor, raw: &[&'static [u8]]) -> ModelInferRequest {
    ModelInferRequest {
        inputs: vec![input],
        raw_input_contents: raw.iter().map(|raw| Bytes::from_static(raw)).collect(),
        ..ModelInferRequest::default()
    }
}

fn read(dtype: &str, request: ModelInferRequest) -> Result<InferRequest, String> {
    read_request(
        request,
        &task(dtype),
        LIMITS,
        &mut ByteBudget::new(u64::MAX).hold(0),
    )
    .map_err(|failure| failure.message)
}

fn only(request: InferRequest) -> Tensor {
    match request.items.into_iter().next() {
        Some(Ok(ItemInput {
            value: Value::Tensors(mut tensors),
            ..
        })) => tensors.remove(0),
        other => panic!("one item of tensors: {other:?}"),
    }
}

#[test]
fn typed_lists_and_raw_bytes_are_equivalent() {
    let contents = |fill: fn(&mut InferTensorContents)| {
        let mut contents = InferTensorContents::default();
        fill(&mut contents);
        contents
    };
    let cases: [(&str, InferTensorContents, &'static [u8]); 7] = [
        ("BOOL", contents(|c| c.bool_contents = vec![true, false]), &[1, 0]),
        ("INT8", contents(|c| c.int_contents = vec![-1, 2]), &[255, 2]),
        (
            "INT16",
            contents(|c| c.int_contents = vec![-1, 2]),
            &[255, 255, 2, 0],
        ),
        ("UINT8", contents(|c| c.uint_contents = vec![255, 2]), &[255, 2]),
        (
            "UINT16",
            contents(|c| c.uint_contents = vec![513, 2]),
            &[1, 2, 2, 0],
        ),
        (
            "FP32",
            contents(|c| c.fp32_contents = vec![1.0, 0.0]),
            &[0, 0, 128, 63, 0, 0, 0, 0],
        ),
        (
            "BYTES",
            contents(|c| c.bytes_contents = vec![Bytes::from_static(b"a"), Bytes::new()]),
            &[1, 0, 0, 0, b'a', 0, 0, 0, 0],
        ),
    ];
    for (dtype, typed, raw) in cases {
        let from_typed = read(dtype, request(tensor(dtype, Some(typed.clone())), &[])).expect(dtype);
        let from_raw = read(dtype, request(tensor(dtype, None), &[raw])).expect(dtype);
        let outcome = |tensor: &Tensor| vec![Ok(Value::Tensors(vec![tensor.clone()]))];
        let (typed_wanted, raw_wanted) = (
            RequestedOutputs {
                names: vec![],
                raw: from_typed.requested.raw,
            },
            RequestedOutputs {
                names: vec!["x".to_owned()],
                raw: from_raw.requested.raw,
            },
        );
        let tensor = only(from_typed);
        assert_eq!(tensor, only(from_raw), "{dtype}");
        let task = task(dtype);
        let answer = write_response(&task, outcome(&tensor), &typed_wanted).expect(dtype);
        assert_eq!(answer.outputs[0].contents, Some(typed), "{dtype}");
        assert!(answer.raw_output_contents.is_empty());
        let answer = write_response(&task, outcome(&tensor), &raw_wanted).expect(dtype);
        assert_eq!(answer.outputs[0].contents, None);
        assert_eq!(answer.raw_output_contents, [Bytes::from_static(raw)], "{dtype}");
        assert_eq!(answer.outputs[0].shape, [1, 2]);
    }
}

#[test]
fn a_request_to_an_unbatched_task_is_one_item_with_the_declared_shapes() {
    let scalar = TensorManifest::new("x", "FP32", []);
    let cache = TensorManifest::new("cache", "INT16", [1, -1, 2]);
    let task = TaskManifest {
        input: ValueManifest::of_tensors([scalar.clone(), cache.clone()]),
        output: ValueManifest::of_tensors([scalar, cache]),
        unbatched: true,
        ..TaskManifest::default()
    };
    let input = |name: &str, datatype: &str, shape: &[i64], contents: InferTensorContents| InferInputTensor {
        name: name.to_owned(),
        datatype: datatype.to_owned(),
        shape: shape.to_vec(),
        contents: contents.encode_to_vec().into(),
        ..InferInputTensor::default()
    };
    let one = InferTensorContents {
        fp32_contents: vec![1.5],
        ..InferTensorContents::default()
    };
    let request = ModelInferRequest {
        inputs: vec![
            input("x", "FP32", &[], one.clone()),
            input("cache", "INT16", &[1, 0, 2], InferTensorContents::default()),
        ],
        ..ModelInferRequest::default()
    };
    let mut decoded = ByteBudget::new(u64::MAX).hold(0);
    let request = read_request(request, &task, LIMITS, &mut decoded).expect("the request is valid");
    let [Ok(item)] = &request.items[..] else {
        panic!("expected one item: {:?}", request.items)
    };
    let outcomes = vec![Ok(item.value.clone())];
    let answer = write_response(&task, outcomes, &request.requested).expect("the item succeeded");
    let shapes: Vec<_> = answer.outputs.iter().map(|output| &output.shape[..]).collect();
    assert_eq!(shapes, [&[][..], &[1, 0, 2]]);
    assert_eq!(answer.outputs[0].contents, Some(one));
}

#[test]
fn a_raw_tensor_is_a_slice_of_the_message() {
    let raw: &'static [u8] = &[1, 2];
    let tensor = only(read("UINT8", request(tensor("UINT8", None), &[raw])).expect("the request is valid"));
    assert_eq!(tensor.data().as_ptr(), raw.as_ptr());
}

#[test]
fn errors_state_what_was_found_and_expected() {
    let ints = |values: &[i32]| InferTensorContents {
        int_contents: values.to_vec(),
        ..InferTensorContents::default()
    };
    let shaped = |shape: &[i64]| InferInputTensor {
        shape: shape.to_vec(),
        ..tensor("INT8", Some(ints(&[1, 2])))
    };
    let wanting = |name: &str| ModelInferRequest {
        outputs: vec![InferRequestedOutputTensor {
            name: name.to_owned(),
            ..InferRequestedOutputTensor::default()
        }],
        ..request(tensor("INT8", Some(ints(&[1, 2]))), &[])
    };
    let cases = [
        (
            request(tensor("INT8", None), &[]),
            "input `x` has no data; expected `contents` or `raw_input_contents`",
        ),
        (
            request(tensor("INT8", Some(ints(&[1, 2]))), &[&[1, 2]]),
            "input `x` has both `contents` and `raw_input_contents`; send one of them",
        ),
        (
            request(tensor("INT8", None), &[&[1, 2], &[]]),
            "`raw_input_contents` has 2 elements, but there are 1 inputs; expected one element per input",
        ),
        (
            request(tensor("INT8", Some(ints(&[1, 300]))), &[]),
            "input `x`: element 1: 300 is out of range for INT8",
        ),
        (
            request(tensor("INT8", Some(ints(&[1]))), &[]),
            "tensor `x` of INT8 [1, 2] takes 2 bytes, got 1",
        ),
        (
            request(tensor("INT8", Some(ints(&[1, 2, 3]))), &[]),
            "input `x`: `contents` has 3 elements, expected at most 2 for shape [1, 2]",
        ),
        (
            request(tensor("FP16", Some(ints(&[1]))), &[]),
            "input `x`: FP16 must be sent in `raw_input_contents`",
        ),
        (
            request(shaped(&[-1, 2]), &[]),
            "input `x`: shape [-1, 2] has a negative dimension",
        ),
        (
            request(shaped(&[2]), &[]),
            "input `x` has shape [2], expected [-1, 2], where -1 means any size",
        ),
        (
            wanting("y"),
            "unknown output `y`, did you mean `x`?; expected `x` INT8 [-1, 2]",
        ),
        (
            ModelInferRequest {
                outputs: [wanting("x").outputs, wanting("x").outputs].concat(),
                ..wanting("x")
            },
            "duplicate output `x`; request each output once",
        ),
    ];
    for (request, expected) in cases {
        assert_eq!(read("INT8", request).err().as_deref(), Some(expected));
    }
}
