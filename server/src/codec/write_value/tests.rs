use proptest::prelude::*;
use serde_json::Value as Json;

use super::*;

fn tensor(dtype: DType, shape: &[u64], data: Vec<u8>) -> Value {
    let tensor = Tensor::new("y", dtype, shape.to_vec(), data.into()).expect("the data matches the shape");
    Value::Tensors(vec![tensor])
}

fn output(value: Value) -> String {
    let mut json = Vec::new();
    write_value(&mut json, &value).expect("JSON can express it");
    String::from_utf8(json).expect("JSON is text")
}

#[test]
fn tensors_are_nested_according_to_their_shape() {
    let bytes = |n: u8| (0..n).collect::<Vec<u8>>();
    assert_eq!(
        output(tensor(DType::Uint8, &[2, 3], bytes(6))),
        r#"{"y":[[0,1,2],[3,4,5]]}"#
    );
    assert_eq!(
        output(tensor(DType::Uint8, &[2, 2, 2], bytes(8))),
        r#"{"y":[[[0,1],[2,3]],[[4,5],[6,7]]]}"#
    );
    assert_eq!(
        output(tensor(DType::Uint8, &[1, 1, 1], bytes(1))),
        r#"{"y":[[[0]]]}"#
    );
    assert_eq!(output(tensor(DType::Uint8, &[], bytes(1))), r#"{"y":0}"#);
    assert_eq!(output(tensor(DType::Uint8, &[0], vec![])), r#"{"y":[]}"#);
    assert_eq!(output(tensor(DType::Uint8, &[0, 3], vec![])), r#"{"y":[]}"#);
    assert_eq!(output(tensor(DType::Uint8, &[2, 0], vec![])), r#"{"y":[[],[]]}"#);
    assert_eq!(
        output(tensor(DType::Uint8, &[2, 2, 0], vec![])),
        r#"{"y":[[[],[]],[[],[]]]}"#
    );
    assert_eq!(
        output(tensor(DType::Uint8, &[u64::MAX, 0], vec![])),
        r#"{"y":[]}"#
    );
}

#[test]
fn every_datatype_has_a_json_form() {
    let le = |value: f32| value.to_le_bytes().to_vec();
    assert_eq!(
        output(tensor(DType::Bool, &[2], vec![0, 1])),
        r#"{"y":[false,true]}"#
    );
    assert_eq!(output(tensor(DType::Int8, &[1], vec![0xff])), r#"{"y":[-1]}"#);
    assert_eq!(
        output(tensor(DType::Uint64, &[1], vec![0xff; 8])),
        r#"{"y":[18446744073709551615]}"#
    );
    assert_eq!(
        output(tensor(DType::Fp32, &[2], [le(0.1), le(1.0)].concat())),
        r#"{"y":[0.1,1.0]}"#
    );
    assert_eq!(
        output(tensor(DType::Fp64, &[1], 0.1f64.to_le_bytes().to_vec())),
        r#"{"y":[0.1]}"#
    );
    assert_eq!(
        output(tensor(DType::Fp16, &[1], vec![0x00, 0x3e])),
        r#"{"y":[1.5]}"#
    );
    assert_eq!(
        output(tensor(DType::Bf16, &[1], vec![0xc0, 0xbf])),
        r#"{"y":[-1.5]}"#
    );
    assert_eq!(
        output(tensor(DType::Bytes, &[2], b"\x01\0\0\0\"\0\0\0\0".to_vec())),
        r#"{"y":["\"",""]}"#
    );
}

proptest! {
    #[test]
    fn floats_survive_the_round_trip(values in prop::collection::vec(prop::num::f32::NORMAL | prop::num::f32::SUBNORMAL | prop::num::f32::ZERO, 0..50)) {
        let data: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        let json = output(tensor(DType::Fp32, &[values.len() as u64], data));
        let numbers = json.trim_start_matches("{\"y\":[").trim_end_matches("]}");
        let read: Vec<f32> = numbers
            .split(',')
            .filter(|number| !number.is_empty())
            .map(|number| number.parse().expect("the element is a number"))
            .collect();
        prop_assert_eq!(read, values);
    }

    #[test]
    fn nested_arrays_have_the_elements_in_order(shape in prop::collection::vec(0u64..4, 0..4)) {
        let elements: u64 = shape.iter().product();
        let data: Vec<u8> = (0..elements).map(|i| i as u8).collect();
        let json: Json = serde_json::from_str(&output(tensor(DType::Uint8, &shape, data.clone()))).expect("the text is JSON");
        let mut flat = Vec::new();
        let mut at = vec![&json["y"]];
        while let Some(value) = at.pop() {
            match value {
                Json::Array(values) => at.extend(values.iter().rev()),
                value => flat.push(value.as_u64().expect("the element is a number") as u8),
            }
        }
        prop_assert_eq!(flat, data);
    }
}
