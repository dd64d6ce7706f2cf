use plugin_abi::manifest::TensorManifest;
use serde_json::{Value as Json, json};

use super::*;

const LIMITS: BodyLimits = BodyLimits { items: 8, depth: 16 };

fn task(kind: Kind, shape: &[i64], dtype: &str) -> TaskManifest {
    let mut task = TaskManifest::default();
    task.input.kinds = vec![kind];
    task.input.tensors = vec![TensorManifest::new("x", dtype, shape)];
    task.output = task.input.clone();
    task
}

fn floats() -> TaskManifest {
    task(Kind::Tensors, &[2], "FP32")
}

fn read(task: &TaskManifest, json: &Json, binary: &[u8]) -> Result<InferRequest, String> {
    let mut body = json.to_string().into_bytes();
    let length = body.len();
    body.extend_from_slice(binary);
    read_request(&body.into(), Some(length), task, LIMITS).map_err(|failure| failure.message)
}

fn x(more: Json) -> Json {
    let mut input = json!({"name": "x", "shape": [1, 2], "datatype": "FP32"});
    for (key, value) in more.as_object().expect("the members are an object") {
        input[key] = value.clone();
    }
    input
}

#[test]
fn tensors_are_json_or_binary_data_after_it() {
    let binary = [1f32.to_le_bytes(), 2f32.to_le_bytes()].concat();
    for json in [x(json!({"data": [1, 2]})), x(json!({"data": [[1.0, 2.0]]}))] {
        let request = read(&floats(), &json!({"inputs": [json]}), &[]).expect("the request is valid");
        assert_eq!(&request.inputs[0].data[..], binary);
    }
    let both = json!({"inputs": [
        x(json!({"parameters": {"binary_data_size": 8}})),
        x(json!({"name": "y", "parameters": {"binary_data_size": 0}, "shape": [0, 2]})),
    ]});
    let mut two = floats();
    two.input.tensors.push(TensorManifest::new("y", "FP32", [2]));
    let request = read(&two, &both, &binary).expect("the request is valid");
    assert_eq!(&request.inputs[0].data[..], binary);
    assert!(request.inputs[1].data.is_empty());
}

#[test]
fn binary_data_is_a_slice_of_the_body() {
    let json = json!({"inputs": [x(json!({"parameters": {"binary_data_size": 8}}))]}).to_string();
    let body = Bytes::from([json.as_bytes(), &[0; 8]].concat());
    let request = read_request(&body, Some(json.len()), &floats(), LIMITS).expect("the request is valid");
    assert_eq!(request.inputs[0].data.as_ptr(), body[json.len()..].as_ptr());
}

#[test]
fn additional_members_are_accepted() {
    let request = json!({
        "id": "", "parameters": null, "outputs": null, "unknown": {"a": [1]},
        "inputs": [x(json!({"data": [1, 2], "parameters": null, "unknown": 1}))],
    });
    let request = read(&floats(), &request, &[]).expect("the request is valid");
    assert_eq!(request.id, None);
    assert_eq!(request.requested, RequestedOutputs::All { binary: false });
}

#[test]
fn binary_data_output_applies_only_if_no_output_is_named() {
    let requested = |parameters: Json, outputs: Json| {
        let request =
            json!({"parameters": parameters, "inputs": [x(json!({"data": [1, 2]}))], "outputs": outputs});
        read(&floats(), &request, &[])
            .expect("the request is valid")
            .requested
    };
    let named = |binary| {
        RequestedOutputs::Named(vec![RequestedOutput {
            name: "x".to_owned(),
            binary,
        }])
    };
    let all = json!({"binary_data_output": true});
    assert_eq!(
        requested(all.clone(), json!([])),
        RequestedOutputs::All { binary: true }
    );
    assert_eq!(requested(all, json!([{"name": "x"}])), named(false));
    let one = json!([{"name": "x", "parameters": {"binary_data": true, "classification": 0}}]);
    assert_eq!(requested(json!({}), one), named(true));
}

#[test]
fn a_body_without_json_is_the_only_input() {
    let raw = |task: &TaskManifest, body: &[u8]| {
        let body = Bytes::copy_from_slice(body);
        let request = read_request(&body, Some(0), task, LIMITS).map_err(|failure| failure.message)?;
        let input = request.inputs.into_iter().next().expect("there is an element");
        Ok((input.shape, input.data.to_vec()))
    };
    assert_eq!(raw(&floats(), &[0; 16]), Ok((vec![2, 2], vec![0; 16])));
    let open = task(Kind::Tensors, &[-1], "FP32");
    assert_eq!(raw(&open, &[0; 16]), Ok((vec![1, 4], vec![0; 16])));
    let text = task(Kind::Text, &[], "BYTES");
    assert_eq!(raw(&text, b"ab"), Ok((vec![1, 1], b"\x02\0\0\0ab".to_vec())));
    let refused: Result<_, String> =
        Err("a raw body of 15 bytes does not match input `x` FP32 [-1, 2]".to_owned());
    assert_eq!(raw(&floats(), &[0; 15]), refused);
}

#[test]
fn data_uris_and_declared_base64_are_decoded() {
    let read = |data: &str, content_type: &str| {
        let input = json!({"name": "BYTES", "shape": [1], "datatype": "BYTES", "data": [data],
            "parameters": {"content_type": content_type}});
        let request = read(&task(Kind::Bytes, &[], "BYTES"), &json!({"inputs": [input]}), &[])?;
        let input = request.inputs.into_iter().next().expect("there is an element");
        let element = byte_strings(&input.data).next().expect("there is an element");
        let media_type = match input.media_types {
            MediaTypes::Shared(media_type) => media_type,
            MediaTypes::Each(each) => each.concat(),
        };
        Ok::<_, String>((element.to_vec(), media_type))
    };
    assert_eq!(read("AAEC", ""), Ok((b"AAEC".to_vec(), String::new())));
    assert_eq!(read("AAEC", "base64"), Ok((vec![0, 1, 2], String::new())));
    assert_eq!(
        read("x", "image/png"),
        Ok((b"x".to_vec(), "image/png".to_owned()))
    );
    assert_eq!(
        read("data:image/png;base64,AAEC", "str"),
        Ok((vec![0, 1, 2], "image/png".to_owned()))
    );
    let error = read("*", "base64").expect_err("a star is no base64");
    assert!(
        error.starts_with("input `BYTES`: element 0: invalid base64"),
        "{error}"
    );
}

#[test]
fn half_precision_is_accepted_only_as_binary_data() {
    let task = task(Kind::Tensors, &[2], "FP16");
    let request = json!({"inputs": [x(json!({"data": [1, 2], "datatype": "FP16"}))]});
    assert_eq!(
        read(&task, &request, &[]).err().as_deref(),
        Some("input `x`: FP16 must be sent as binary data, not as JSON")
    );
    let binary = json!({"datatype": "FP16", "parameters": {"binary_data_size": 4}});
    let request = json!({"inputs": [x(binary)]});
    assert!(read(&task, &request, &[0, 60, 0, 64]).is_ok());
}

#[test]
fn errors_state_what_was_found_and_expected() {
    let inputs = |input: Json| json!({ "inputs": [input] });
    let cases = [
        (
            inputs(x(json!({"data": [1, 2], "parameters": {"binary_data_size": 8}}))),
            8,
            "input `x` has both `data` and `binary_data_size`; send one of them",
        ),
        (
            inputs(x(json!({}))),
            0,
            "input `x` has no data; expected `data`, or `parameters.binary_data_size` and binary data after the JSON",
        ),
        (
            inputs(x(json!({"parameters": {"binary_data_size": 8}}))),
            7,
            "input `x` has 8 bytes of binary data, but the body has only 7 left of 7",
        ),
        (
            inputs(x(json!({"parameters": {"binary_data_size": u64::MAX}}))),
            7,
            "input `x` has 18446744073709551615 bytes of binary data, but the body has only 7 left of 7",
        ),
        (
            inputs(x(json!({"parameters": {"binary_data_size": 8}}))),
            9,
            "the body has 9 bytes of binary data, but the inputs have only 8",
        ),
        (
            inputs(x(json!({"data": [1, 2, 3]}))),
            0,
            "input `x` has `data` of length 3, expected 2 for shape [1, 2]",
        ),
        (
            inputs(x(json!({"data": [[1], [2]]}))),
            0,
            "input `x`: `data` has shape [2, 1], expected [1, 2]",
        ),
        (
            inputs(x(json!({"data": 1, "shape": [1, 1]}))),
            0,
            "input `x`: expected `data` to be an array",
        ),
        (
            inputs(x(json!({"data": [1, "2"]}))),
            0,
            "input `x`: element 1: expected a number, got a string",
        ),
        (
            inputs(x(json!({"data": [1, [2]]}))),
            0,
            "input `x`: nested arrays have different lengths or depths near element 1",
        ),
        (
            inputs(x(json!({"data": [1, 2], "shape": [-1, 2]}))),
            0,
            "input `x`: shape [-1, 2] has a negative dimension",
        ),
        (
            inputs(x(json!({"data": [1, 2], "shape": [1, 1i64 << 62, 1i64 << 62]}))),
            0,
            "input `x` has `data` of length 2, expected more than 2^64 for shape [1, 4611686018427387904, 4611686018427387904]",
        ),
        (
            inputs(x(json!({"data": [1, 2], "datatype": "FP16"}))),
            0,
            "input `x` has datatype FP16, expected FP32",
        ),
        (
            inputs(x(json!({"data": [1, 2], "datatype": "FLOAT"}))),
            0,
            "input `x`: unknown datatype `FLOAT`; expected one of BOOL, UINT8, UINT16, UINT32, UINT64, INT8, INT16, INT32, INT64, \
             FP16, FP32, FP64, BF16, BYTES",
        ),
        (
            inputs(x(json!({"parameters": {"shared_memory_region": "r"}}))),
            0,
            "input `x`: shared memory is not supported; send the tensor in the body",
        ),
        (
            json!({"inputs": [], "outputs": [{"name": "x", "parameters": {"classification": 3}}]}),
            0,
            "output `x`: `classification` is not supported; remove the parameter",
        ),
        (
            json!({"inputs": [], "outputs": [{"name": "y"}]}),
            0,
            "unknown output `y`, did you mean `x`?; expected `x` FP32 [-1, 2]",
        ),
        (
            json!({"inputs": [], "outputs": [{"name": "x"}, {"name": "x"}]}),
            0,
            "duplicate output `x`; request each output once",
        ),
        (
            inputs(x(json!({"data": [1], "shape": [9, 2]}))),
            0,
            "input `x` has 9 items, expected at most 8 per request",
        ),
        (
            inputs(x(json!({"data": vec![0; 100_000], "shape": [1, 100_000]}))),
            0,
            "input `x`: more than 65552 elements, expected at most 16",
        ),
        (
            json!({"inputs": [], "outputs": vec![json!({"name": "x"}); 1025]}),
            0,
            "malformed request body: too many elements in an array: expected at most 1024 at line 1 column 13349; \
             the JSON has 13350 bytes according to the header Inference-Header-Content-Length",
        ),
    ];
    for (request, binary, expected) in cases {
        let read = read(&floats(), &request, &vec![0; binary]);
        assert_eq!(read.expect_err(expected), expected);
    }
}

#[test]
fn json_errors_state_the_position() {
    let read = |body: &'static str, length| {
        read_request(&Bytes::from_static(body.as_bytes()), length, &floats(), LIMITS)
            .expect_err("it is malformed")
            .message
    };
    assert_eq!(
        read("{\"inputs\":[]}", Some(14)),
        "header Inference-Header-Content-Length is 14, but the body has only 13 bytes"
    );
    assert_eq!(
        read("", None),
        "malformed request body: the document ends where a value is expected at line 1 column 0"
    );
    assert_eq!(
        read("{}", None),
        "malformed request body: missing field `inputs` at line 1 column 2"
    );
    assert_eq!(
        read("{\"inputs\":[]} x", Some(15)),
        "malformed request body: unexpected characters after the document at line 1 column 15; the JSON has \
         15 bytes according to the header Inference-Header-Content-Length"
    );
    let deep = read("[[[[[[[[[[[[[[[[[", None);
    assert_eq!(
        deep,
        "the request body is nested too deeply at offset 16: expected at most 16 levels"
    );
    let header = header_length(Some(b"-1")).expect_err("no length is negative");
    assert_eq!(
        header.message,
        "invalid value `-1` for header Inference-Header-Content-Length: expected a number of bytes"
    );
}

#[test]
fn an_array_is_not_an_object_with_its_members_in_order() {
    let input = r#"{"name":"x","shape":[1,2],"datatype":"FP32","data":[1,2]}"#;
    let cases = [
        format!("[null, null, [{input}], null]"),
        r#"{"inputs":[["x",[1,2],"FP32",null,[1,2]]]}"#.to_owned(),
        r#"{"inputs":[{"name":"x","shape":[1,2],"datatype":"FP32","parameters":[8]}]}"#.to_owned(),
        format!(r#"{{"inputs":[{input}],"outputs":[["x",null]]}}"#),
        format!(r#"{{"inputs":[{input}],"outputs":[{{"name":"x","parameters":[true]}}]}}"#),
    ];
    for body in cases {
        let failure = read_request(&Bytes::from(body.clone()), None, &floats(), LIMITS).expect_err(&body);
        assert!(
            failure
                .message
                .starts_with("malformed request body: got an array, expected an object at line 1 column "),
            "{body}: {}",
            failure.message
        );
    }
    let body = format!(r#"{{"inputs":[{input}],"parameters":[1]}}"#);
    let failure = read_request(&Bytes::from(body), None, &floats(), LIMITS).expect_err("an array");
    assert_eq!(failure.message, "`parameters`: got an array, expected an object");
}

#[test]
fn binary_data_without_the_header_is_rejected_with_the_header_to_send() {
    let json = json!({"inputs": [x(json!({"parameters": {"binary_data_size": 8}}))]}).to_string();
    for binary in [&[0xff; 8][..], &[b'['; 8], &[b'1'; 8]] {
        let body = Bytes::from([json.as_bytes(), binary].concat());
        let failure = read_request(&body, None, &floats(), LIMITS).expect_err("there is no header");
        let length = json.len();
        assert_eq!(
            failure.message,
            format!(
                "the body has 8 bytes after the JSON; to send binary tensors, set the header \
                Inference-Header-Content-Length: {length}"
            )
        );
    }
}

#[test]
fn each_data_uri_of_a_tensor_keeps_its_own_media_type() {
    let read = |content_type: &str, data: Json| {
        let count = data.as_array().map(Vec::len);
        let input = json!({"name": "BYTES", "shape": [count], "datatype": "BYTES", "data": data,
            "parameters": {"content_type": content_type}});
        let request = read(&task(Kind::Bytes, &[], "BYTES"), &json!({"inputs": [input]}), &[]);
        request
            .expect("the request is valid")
            .inputs
            .remove(0)
            .media_types
    };
    let each = |types: &[&str]| MediaTypes::Each(types.iter().map(|&name| name.to_owned()).collect());
    let data = json!([
        "data:image/png;base64,AAEC",
        "data:image/gif;base64,AA\nEC",
        "data:;base64,AA",
        "plain"
    ]);
    assert_eq!(read("", data.clone()), each(&["image/png", "image/gif", "", ""]));
    assert_eq!(
        read("image/jpeg", data),
        each(&["image/png", "image/gif", "", "image/jpeg"])
    );
    let base64 = json!(["data:image/png;base64,AAEC", "AA\r\nEC"]);
    assert_eq!(read("base64", base64), each(&["image/png", ""]));
    assert_eq!(
        read("image/png", json!(["a"])),
        MediaTypes::Shared("image/png".to_owned())
    );
}
