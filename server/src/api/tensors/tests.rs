//! Conversion between tensors and items.

use bytes::Bytes;
use plugin_abi::manifest::{Kind, TaskManifest, TensorManifest};

use super::*;
use crate::api::BodyLimits;
use crate::api::failure::Code;
use crate::error::ItemError;
use crate::values::{DType, ItemInput, Tensor, Value};

const LIMITS: BodyLimits = BodyLimits { items: 4, depth: 4 };

fn task(kinds: &[Kind], tensors: &[(&str, &str, &[i64])]) -> TaskManifest {
    let mut task = TaskManifest::default();
    task.input.kinds = kinds.to_vec();
    task.input.tensors = tensors
        .iter()
        .map(|(name, dtype, shape)| TensorManifest::new(*name, *dtype, *shape))
        .collect();
    task.output = task.input.clone();
    task.output.kinds.truncate(1);
    task
}

fn input(name: &str, dtype: DType, shape: &[u64], data: &[u8]) -> InputTensor {
    InputTensor {
        name: name.to_owned(),
        dtype,
        shape: shape.to_vec(),
        data: Bytes::copy_from_slice(data),
        media_types: MediaTypes::default(),
    }
}

fn texts(name: &str, shape: &[u64], elements: &[&[u8]]) -> InputTensor {
    let data: Vec<u8> = elements
        .iter()
        .flat_map(|element| [&(element.len() as u32).to_le_bytes()[..], element].concat())
        .collect();
    input(name, DType::Bytes, shape, &data)
}

fn read(task: &TaskManifest, inputs: Vec<InputTensor>) -> Result<Vec<Value>, String> {
    let items = items_from_tensors(task, inputs, &Bytes::new(), LIMITS).map_err(|error| error.to_string())?;
    Ok(items
        .into_iter()
        .map(|item| item.expect("no item fails").value)
        .collect())
}

fn pixels() -> TaskManifest {
    task(&[Kind::Tensors], &[("x", "UINT8", &[2]), ("y", "INT16", &[])])
}

#[test]
fn rows_are_items_and_slices_of_the_request() {
    let x = input("x", DType::Uint8, &[2, 2], &[1, 2, 3, 4]);
    let y = input("y", DType::Int16, &[2], &[5, 0, 6, 0]);
    let sent = x.data.clone();
    let items = read(&pixels(), vec![y, x]).expect("the inputs are valid");
    let [Value::Tensors(first), Value::Tensors(second)] = items.as_slice() else {
        panic!("two items of tensors: {items:?}")
    };
    assert_eq!(
        (first[0].name(), first[0].shape(), &first[0].data()[..]),
        ("x", &[2][..], &[1, 2][..])
    );
    assert_eq!(
        (second[1].name(), second[1].shape(), &second[1].data()[..]),
        ("y", &[][..], &[6, 0][..])
    );
    assert_eq!(second[0].data().as_ptr(), sent[2..].as_ptr(), "a copy was made");
}

#[test]
fn each_element_has_its_own_media_type_and_fails_alone_if_the_task_does_not_accept_it() {
    let mut task = task(&[Kind::Bytes], &[]);
    task.input.media_types = vec!["image/png".to_owned()];
    let read = |media_types: MediaTypes| {
        let input = InputTensor {
            media_types,
            ..texts(BYTES, &[3], &[b"1", b"2", b"3"])
        };
        let items =
            items_from_tensors(&task, vec![input], &Bytes::new(), LIMITS).expect("the tensor is well-formed");
        let media_type = |item: Result<ItemInput, ItemError>| match item.map(|item| item.value) {
            Ok(Value::Bytes { media_type, .. }) => media_type,
            Ok(other) => panic!("{other:?} is not bytes"),
            Err(error) => error.to_string(),
        };
        items.into_iter().map(media_type).collect::<Vec<_>>()
    };
    let rejected = "unsupported media type `image/gif`: task `` accepts image/png";
    let each = ["image/png", "image/gif", ""].map(str::to_owned).to_vec();
    assert_eq!(read(MediaTypes::Each(each)), ["image/png", rejected, ""]);
    assert_eq!(read(MediaTypes::Shared("image/gif".to_owned())), [rejected; 3]);
    assert_eq!(
        read(MediaTypes::Shared("image/PNG; a=b".to_owned())),
        ["image/PNG; a=b"; 3]
    );
    let unknown = "application/octet-stream";
    assert_eq!(read(MediaTypes::Shared(unknown.to_owned())), [unknown; 3]);
}

#[test]
fn elements_are_items_if_the_task_takes_no_tensors() {
    let cases = [
        (Kind::Text, TEXT, Value::Text(Bytes::from_static(b"12"))),
        (Kind::Json, JSON, Value::Json(Bytes::from_static(b"12"))),
        (
            Kind::Bytes,
            BYTES,
            Value::Bytes {
                data: Bytes::from_static(b"12"),
                media_type: String::new(),
            },
        ),
    ];
    for (kind, name, expected) in cases {
        for shape in [&[2u64][..], &[2, 1]] {
            let items = read(&task(&[kind], &[]), vec![texts(name, shape, &[b"12", b"3"])]);
            assert_eq!(
                items.as_ref().map(|items| (items.len(), &items[0])),
                Ok((2, &expected))
            );
        }
    }
}

#[test]
fn the_name_of_the_tensor_selects_the_kind() {
    let task = task(&[Kind::Bytes, Kind::Tensors], &[("x", "UINT8", &[1])]);
    let named: Vec<String> = inputs(&task).iter().map(|spec| spec.name.to_owned()).collect();
    assert_eq!(named, ["x"]);
    let as_tensor = read(&task, vec![input("x", DType::Uint8, &[1, 1], &[7])]);
    assert!(matches!(as_tensor.as_deref(), Ok([Value::Tensors(_)])));
    let as_bytes = read(&task, vec![texts(BYTES, &[1], &[b"png"])]);
    assert!(matches!(as_bytes.as_deref(), Ok([Value::Bytes { .. }])));
}

#[test]
fn errors_state_what_was_found_and_expected() {
    let x = || input("x", DType::Uint8, &[2, 2], &[1, 2, 3, 4]);
    let y = || input("y", DType::Int16, &[2], &[5, 0, 6, 0]);
    let takes = "expected `x` UINT8 [-1, 2], `y` INT16 [-1]";
    let cases = [
        (vec![x()], format!("missing input `y`; {takes}")),
        (vec![], format!("missing input `x`; {takes}")),
        (vec![x(), y(), x()], "duplicate input `x`".to_owned()),
        (
            vec![input("xx", DType::Uint8, &[1, 2], &[0, 0])],
            format!("unknown input `xx`, did you mean `x`?; {takes}"),
        ),
        (
            vec![input("x", DType::Fp32, &[1, 2], &[0; 8]), y()],
            "input `x` has datatype FP32, expected UINT8".to_owned(),
        ),
        (
            vec![input("x", DType::Uint8, &[2, 3], &[0; 6]), y()],
            "input `x` has shape [2, 3], expected [-1, 2], where -1 means any size".to_owned(),
        ),
        (
            vec![input("x", DType::Uint8, &[2], &[0; 2]), y()],
            "input `x` has shape [2], expected [-1, 2], where -1 means any size".to_owned(),
        ),
        (
            vec![input("x", DType::Uint8, &[], &[0]), y()],
            "input `x` has shape [], expected [-1, 2], where -1 means any size".to_owned(),
        ),
        (
            vec![input("x", DType::Uint8, &[0, 2], &[]), y()],
            "input `x` has no items: the shape is [0, 2]; expected at least one item".to_owned(),
        ),
        (
            vec![input("x", DType::Uint8, &[5, 2], &[0; 10]), y()],
            "input `x` has 5 items, expected at most 4 per request".to_owned(),
        ),
        (
            vec![input("x", DType::Uint8, &[1, 2], &[0; 2]), y()],
            "input `y` has 2 items, but input `x` has 1; the first dimensions must be equal".to_owned(),
        ),
        (
            vec![input("x", DType::Uint8, &[2, 2], &[0; 3]), y()],
            "tensor `x` of UINT8 [2, 2] takes 4 bytes, got 3".to_owned(),
        ),
    ];
    for (inputs, expected) in cases {
        assert_eq!(read(&pixels(), inputs), Err(expected));
    }
    let cases = [
        (
            Kind::Text,
            texts(TEXT, &[1], &[b"a\xff"]),
            "input `TEXT`: element 0 is not UTF-8: invalid byte at offset 1",
        ),
        (
            Kind::Json,
            texts(JSON, &[2], &[b"1", b"{"]),
            "input `JSON`: element 1 is not JSON: the document ends within an object at line 1 column 1",
        ),
        (
            Kind::Json,
            texts(JSON, &[1], &[b"[[[[[]]]]]"]),
            "input `JSON`: element 0 is not JSON: nested too deeply at offset 4: expected at most 4 levels",
        ),
        (
            Kind::Text,
            input(TEXT, DType::Bytes, &[1], &[9, 0, 0, 0, b'a']),
            "tensor `TEXT` of BYTES [1]: expected 1 length-prefixed elements, the data is cut or too long at element 0",
        ),
    ];
    for (kind, input, expected) in cases {
        assert_eq!(read(&task(&[kind], &[]), vec![input]), Err(expected.to_owned()));
    }
}

fn tensor(shape: &[u64], data: &[u8]) -> Tensor {
    Tensor::new("x", DType::Uint8, shape, Bytes::copy_from_slice(data)).expect("the data matches the shape")
}

#[test]
fn outcomes_become_tensors_with_one_row_each() {
    let first = tensor(&[2], &[1, 2]);
    let outcomes = vec![
        Ok(Value::Tensors(vec![first.clone()])),
        Ok(Value::Tensors(vec![tensor(&[2], &[3, 4])])),
    ];
    let mut outputs = tensors_from_outcomes(&pixels(), outcomes).expect("the shapes are equal");
    let output = outputs.remove(0);
    assert_eq!((output.name.as_str(), &output.shape[..]), ("x", &[2, 2][..]));
    assert_eq!(output.rows[0].as_ptr(), first.data().as_ptr(), "a copy was made");
    assert_eq!(&output.into_data()[..], &[1, 2, 3, 4]);

    let outputs = tensors_from_outcomes(&pixels(), vec![Ok(Value::Text(Bytes::from_static(b"ab")))])
        .expect("text can be a tensor");
    assert_eq!(
        (outputs[0].name.as_str(), &outputs[0].shape[..]),
        (TEXT, &[1, 1][..])
    );
    assert_eq!(&outputs[0].rows[0][..], b"\x02\0\0\0ab");
}

#[test]
fn one_failed_item_fails_the_request_with_the_most_severe_error() {
    let outcomes = vec![
        Ok(Value::Text(Bytes::new())),
        Err(ItemError::Invalid("a bad text".to_owned())),
        Err(ItemError::Fault("it broke".to_owned())),
    ];
    let failure = tensors_from_outcomes(&pixels(), outcomes).expect_err("items failed");
    assert_eq!(
        (failure.code, failure.message.as_str()),
        (Code::ModelFault, "item 2 of 3: it broke")
    );
    let failure = tensors_from_outcomes(&pixels(), vec![Err(ItemError::Invalid("no".to_owned()))])
        .expect_err("it failed");
    assert_eq!(failure.message, "no");
}

#[test]
fn outputs_of_different_shapes_are_rejected() {
    let outcomes = vec![
        Ok(Value::Tensors(vec![tensor(&[2], &[1, 2])])),
        Ok(Value::Tensors(vec![tensor(&[1], &[3])])),
    ];
    let failure = tensors_from_outcomes(&pixels(), outcomes).expect_err("they do not stack");
    assert_eq!(failure.code, Code::Unsupported);
    assert!(
        failure
            .message
            .starts_with("output `x` has shape [2] for item 0, but [1] for item 1"),
        "{}",
        failure.message
    );
}

#[test]
fn an_unknown_output_is_rejected() {
    let error = check_requested(&pixels(), ["x", "z"].into_iter()).expect_err("there is no z");
    assert_eq!(
        error.to_string(),
        "unknown output `z`, did you mean `x`?; expected `x` UINT8 [-1, 2], `y` INT16 [-1]"
    );
}

#[test]
fn an_output_can_be_requested_once() {
    assert_eq!(check_requested(&pixels(), ["y", "x"].into_iter()), Ok(()));
    let error = check_requested(&pixels(), ["x", "y", "x"].into_iter()).expect_err("x is there twice");
    assert_eq!(
        error.to_string(),
        "duplicate output `x`; request each output once"
    );
}

#[test]
fn the_maximum_size_of_an_input_follows_from_its_name_and_shape() {
    let max = |task: &TaskManifest, name: &str, shape: &[u64]| {
        max_elements(task, name, shape, LIMITS).map_err(|error| error.to_string())
    };
    assert_eq!(max(&pixels(), "x", &[1, 1000]), Ok(Some(8)));
    assert_eq!(max(&pixels(), "y", &[]), Ok(Some(4)));
    assert_eq!(
        max(&pixels(), "y", &[5]),
        Err("input `y` has 5 items, expected at most 4 per request".to_owned())
    );
    assert!(max(&pixels(), "z", &[1]).is_err());
    let open = task(&[Kind::Bytes, Kind::Tensors], &[("x", "UINT8", &[-1])]);
    assert_eq!(max(&open, "x", &[1, 1000]), Ok(None));
    assert_eq!(max(&open, BYTES, &[3]), Ok(Some(4)));
}
