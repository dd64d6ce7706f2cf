use super::*;

fn read(text: &str, dtype: &str, shape: &[i64]) -> Result<(Vec<u64>, Vec<u8>), String> {
    let declared = TensorManifest::new("x", dtype, shape);
    read_tensor(text, &declared.name, &declared)
        .map(|tensor| (tensor.shape().to_vec(), tensor.data().to_vec()))
        .map_err(|error| error.to_string())
}

#[test]
fn the_shape_comes_from_the_nesting_or_from_the_manifest() {
    let shape = |text: &str, declared: &[i64]| read(text, "INT8", declared).map(|(shape, _)| shape);
    assert_eq!(shape("[[1,2],[3,4],[5,6]]", &[3, 2]), Ok(vec![3, 2]));
    assert_eq!(shape("[1,2,3,4,5,6]", &[3, 2]), Ok(vec![3, 2]));
    assert_eq!(shape(" [ [1 , 2] , [3 , 4] ] ", &[-1, -1]), Ok(vec![2, 2]));
    assert_eq!(shape("[1,2,3,4,5,6]", &[-1, 2]), Ok(vec![3, 2]));
    assert_eq!(shape("[]", &[-1]), Ok(vec![0]));
    assert_eq!(shape("[]", &[-1, 2]), Ok(vec![0, 2]));
    assert_eq!(shape("[[],[]]", &[-1, -1]), Ok(vec![2, 0]));
    assert_eq!(shape("7", &[]), Ok(vec![]));
    assert_eq!(shape("[7]", &[]), Ok(vec![]));
}

#[test]
fn a_tensor_of_one_element_may_be_a_scalar_and_a_missing_float_is_nan() {
    let one = |text: &str, dtype: &str| read(text, dtype, &[1]);
    assert_eq!(one("41", "INT8"), Ok((vec![1], vec![41])));
    assert_eq!(read("7", "INT8", &[1, 1]), Ok((vec![1, 1], vec![7])));
    assert_eq!(one("\"ab\"", "BYTES"), Ok((vec![1], b"\x02\0\0\0ab".to_vec())));
    let (shape, data) = one("null", "FP32").expect("null is a missing value");
    assert_eq!(shape, [1]);
    assert!(f32::from_le_bytes(data.try_into().expect("four bytes")).is_nan());
    for (text, dtype, shape) in [
        ("null", "INT64", &[1][..]),
        ("null", "BYTES", &[1]),
        ("null", "FP32", &[2]),
        ("null", "FP32", &[-1]),
        ("7", "INT8", &[-1]),
    ] {
        assert!(read(text, dtype, shape).is_err(), "{text} as {dtype} {shape:?}");
    }
}

#[test]
fn an_invalid_shape_is_rejected_with_the_expected_one() {
    let cases: [(&str, &[i64], &str); 9] = [
        (
            "[1,2]",
            &[3],
            "tensor `x`: expected shape [3] or a flat array of 3, got [2]",
        ),
        (
            "[1,2,3]",
            &[-1, 2],
            "tensor `x`: expected shape [-1, 2] or a flat array of a multiple of 2, got [3]",
        ),
        ("[1,2]", &[-1, -1], "tensor `x`: expected shape [-1, -1], got [2]"),
        (
            "5",
            &[2],
            "tensor `x`: expected shape [2] or a flat array of 2, got []",
        ),
        (
            "[[1,2],[3]]",
            &[2, 2],
            "tensor `x`: nested arrays have different lengths or depths near element 3",
        ),
        (
            "[[1],2]",
            &[-1, -1],
            "tensor `x`: nested arrays have different lengths or depths near element 1",
        ),
        (
            "[1,[]]",
            &[-1],
            "tensor `x`: nested arrays have different lengths or depths near element 1",
        ),
        (
            "[[],1]",
            &[-1],
            "tensor `x`: nested arrays have different lengths or depths near element 0",
        ),
        (
            "[[],[[]]]",
            &[-1],
            "tensor `x`: nested arrays have different lengths or depths near element 0",
        ),
    ];
    for (text, declared, expected) in cases {
        assert_eq!(
            read(text, "INT8", declared),
            Err(expected.to_owned()),
            "for {text}"
        );
    }
}

#[test]
fn shapes_that_overflow_are_rejected() {
    assert!(read("[1]", "INT8", &[i64::MAX, i64::MAX, 4]).is_err());
    assert!(read("[]", "INT8", &[i64::MAX, i64::MAX, -1]).is_err());
}

#[test]
fn elements_are_little_endian() {
    let data = |text: &str, dtype: &str| read(text, dtype, &[-1]).map(|(_, data)| data);
    assert_eq!(data("[true,false]", "BOOL"), Ok(vec![1, 0]));
    assert_eq!(data("[255,-0]", "UINT8"), Ok(vec![255, 0]));
    assert_eq!(data("[258]", "UINT16"), Ok(vec![2, 1]));
    assert_eq!(data("[-2]", "INT32"), Ok((-2i32).to_le_bytes().to_vec()));
    assert_eq!(
        data("[18446744073709551615]", "UINT64"),
        Ok(u64::MAX.to_le_bytes().to_vec())
    );
    assert_eq!(
        data("[-9223372036854775808]", "INT64"),
        Ok(i64::MIN.to_le_bytes().to_vec())
    );
    assert_eq!(
        data("[1,0.1]", "FP32"),
        Ok([1f32.to_le_bytes(), 0.1f32.to_le_bytes()].concat())
    );
    assert_eq!(data("[1e-3]", "FP64"), Ok(1e-3f64.to_le_bytes().to_vec()));
    assert_eq!(data("[65504]", "FP16"), Ok(vec![0xff, 0x7b]));
    assert_eq!(data("[1]", "BF16"), Ok(vec![0x80, 0x3f]));
    assert_eq!(
        data(r#"["ab","é\n"]"#, "BYTES"),
        Ok(b"\x02\0\0\0ab\x03\0\0\0\xc3\xa9\n".to_vec())
    );
}

#[test]
fn an_invalid_element_is_rejected_with_its_index() {
    let cases = [
        (
            "[0,256]",
            "UINT8",
            "tensor `x`: element 1: 256 is out of range for UINT8",
        ),
        (
            "[-1]",
            "UINT8",
            "tensor `x`: element 0: -1 is out of range for UINT8",
        ),
        (
            "[18446744073709551616]",
            "UINT64",
            "tensor `x`: element 0: 18446744073709551616 is out of range for UINT64",
        ),
        (
            "[-1]",
            "UINT64",
            "tensor `x`: element 0: -1 is out of range for UINT64",
        ),
        (
            "[1.0]",
            "INT32",
            "tensor `x`: element 0: expected an integer for INT32, got 1.0",
        ),
        (
            "[1e3]",
            "INT32",
            "tensor `x`: element 0: expected an integer for INT32, got 1e3",
        ),
        (
            "[1e39]",
            "FP32",
            "tensor `x`: element 0: 1e39 is out of range for FP32",
        ),
        (
            "[65536]",
            "FP16",
            "tensor `x`: element 0: 65536 is out of range for FP16",
        ),
        (
            "[1e999]",
            "FP64",
            "tensor `x`: element 0: 1e999 is out of range for FP64",
        ),
        (
            "[null]",
            "FP32",
            "tensor `x`: element 0: expected a number, got null",
        ),
        (
            "[\"1\"]",
            "FP32",
            "tensor `x`: element 0: expected a number, got a string",
        ),
        (
            "[{}]",
            "FP32",
            "tensor `x`: element 0: expected a number, got an object",
        ),
        (
            "[1]",
            "BOOL",
            "tensor `x`: element 0: expected true or false, got a number",
        ),
        (
            "[1]",
            "BYTES",
            "tensor `x`: element 0: expected a string or {\"b64\": …}, got a number",
        ),
        ("[1]", "FP8", "tensor `x`: unknown datatype `FP8`"),
    ];
    for (text, dtype, expected) in cases {
        assert_eq!(read(text, dtype, &[-1]), Err(expected.to_owned()), "for {text}");
    }
}
