//! Fuzz tests of the server's own decoders: any input results in a value or an error, never in a panic, and memory is proportional to
//! the size of the input.
//!
//! Each test is short by default. `INFERENCE_FUZZ_SECONDS` sets its duration:
//!
//! ```sh
//! INFERENCE_FUZZ_SECONDS=600 cargo nextest run -p inference-server --test integration fuzz::
//! ```

use std::cell::Cell;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
use bytes::Bytes;
use inference_server::api::BodyLimits;
use inference_server::api::tensors::items_from_tensors;
use inference_server::clock;
use inference_server::codec::data_uri;
use inference_server::codec::read_elements;
use inference_server::http::native::request_items::read_body;
use inference_server::http::v2::infer_request::read_request;
use inference_server::values::{DType, Tensor, Value, byte_strings};
use plugin_abi::manifest::{Kind, TaskManifest, TensorManifest};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use serde_json::Value as Json;

const LIMITS: BodyLimits = BodyLimits { items: 64, depth: 16 };

/// Maximum peak memory in kilobytes of a process that only decodes small inputs.
const MEMORY: u64 = 512 << 10;

/// Runs `check` on values of `strategy` for the configured duration.
fn fuzz<S: Strategy>(strategy: &S, check: impl Fn(S::Value)) {
    let seconds = std::env::var("INFERENCE_FUZZ_SECONDS").ok();
    let time = seconds.map_or(Duration::from_millis(300), |seconds| {
        Duration::from_secs(seconds.parse().expect("INFERENCE_FUZZ_SECONDS is a number"))
    });
    let config = Config {
        cases: 200,
        failure_persistence: None,
        ..Config::default()
    };
    let (begun, cases) = (clock::now(), Cell::new(0u64));
    while begun.elapsed() < time {
        // A runner stops after its number of cases, so each round has its own runner.
        let run = TestRunner::new(config.clone()).run(strategy, |value| {
            cases.set(cases.get() + 1);
            check(value);
            Ok(())
        });
        if let Err(error) = run {
            panic!("after {} cases: {error}", cases.get());
        }
    }
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux has it");
    let peak = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))
        .expect("Linux knows the peak");
    let peak: u64 = peak
        .trim()
        .trim_end_matches(" kB")
        .trim()
        .parse()
        .expect("it is a number");
    eprintln!("{} cases, {} MiB at most", cases.get(), peak >> 10);
    assert!(peak < MEMORY, "{} MiB of memory", peak >> 10);
}

fn task(kind: Kind, dtype: &str, shape: &[i64]) -> TaskManifest {
    let mut task = TaskManifest::default();
    task.input.kinds = vec![kind];
    task.input.tensors = vec![TensorManifest::new("x", dtype, shape)];
    task.output = task.input.clone();
    task
}

fn unbatched(task: TaskManifest) -> TaskManifest {
    TaskManifest {
        unbatched: true,
        ..task
    }
}

fn sequence(mut task: TaskManifest) -> TaskManifest {
    task.input.tensors[0].sequence = true;
    task
}

/// Returns tasks of all kinds.
fn tasks() -> impl Strategy<Value = TaskManifest> {
    prop_oneof![
        Just(task(Kind::Tensors, "FP32", &[2])),
        Just(task(Kind::Tensors, "UINT8", &[-1, 2])),
        Just(task(Kind::Tensors, "BYTES", &[-1])),
        Just(task(Kind::Text, "BYTES", &[])),
        Just(task(Kind::Bytes, "BYTES", &[])),
        Just(task(Kind::Json, "BYTES", &[])),
        Just(unbatched(task(Kind::Tensors, "FP32", &[]))),
        Just(unbatched(task(Kind::Tensors, "UINT8", &[1, -1]))),
        Just(sequence(unbatched(task(Kind::Tensors, "INT64", &[-1])))),
    ]
}

/// Returns random sequences of request fragments, which are more often almost valid than random bytes.
fn pieces() -> impl Strategy<Value = Vec<u8>> {
    let words = [
        "{",
        "}",
        "[",
        "]",
        ",",
        ":",
        "\"",
        "\\",
        "\\u12",
        "\\ud800",
        "\"inputs\":",
        "\"input\":",
        "\"instances\":",
        "\"outputs\":",
        "\"parameters\":",
        "\"name\":",
        "\"x\"",
        "\"TEXT\"",
        "\"shape\":",
        "\"datatype\":",
        "\"FP32\"",
        "\"BYTES\"",
        "\"data\":",
        "\"binary_data_size\":",
        "\"content_type\":",
        "\"base64\"",
        "null",
        "true",
        "1",
        "-1",
        "0.5",
        "1e999",
        "18446744073709551616",
        "[1,2]",
        "[1,1]",
        "\"a\"",
        "\"data:image/png;base64,AAAA\"",
        " ",
        "\n",
    ];
    let word = proptest::sample::select(words.to_vec()).prop_map(|word| word.as_bytes().to_vec());
    let noise = proptest::collection::vec(any::<u8>(), 0..6);
    proptest::collection::vec(prop_oneof![8 => word, 1 => noise], 0..48).prop_map(|pieces| pieces.concat())
}

/// Returns a request that is valid except for one number or name, with trailing bytes.
fn requests() -> impl Strategy<Value = (Vec<u8>, usize)> {
    let names = proptest::sample::select(vec!["x", "x.0", "x.1", "TEXT", "BYTES", "JSON", "y", ""]);
    let dtypes = proptest::sample::select(vec!["FP32", "UINT8", "BYTES", "FP16", "FLOAT"]);
    let dims = proptest::collection::vec(
        prop_oneof![0i64..5, Just(-1), Just(i64::MAX), Just(1 << 40)],
        0..4,
    );
    let data = proptest::option::of(proptest::sample::select(vec![
        "[]",
        "[1,2]",
        "[[1,2]]",
        "[\"a\"]",
        "[\"AAAA\"]",
        "[\"data:;base64,AA\"]",
        "[{}]",
        "1",
        "[1e40]",
    ]));
    let size = proptest::option::of(prop_oneof![0u64..40, Just(u64::MAX)]);
    let input = (names, dtypes, dims, data, size).prop_map(|(name, dtype, dims, data, size)| {
        let data = data.map(|data| format!(",\"data\":{data}")).unwrap_or_default();
        let size = size
            .map(|size| {
                format!(",\"parameters\":{{\"binary_data_size\":{size},\"content_type\":\"base64\"}}")
            })
            .unwrap_or_default();
        format!("{{\"name\":\"{name}\",\"datatype\":\"{dtype}\",\"shape\":{dims:?}{data}{size}}}")
    });
    let inputs = proptest::collection::vec(input, 0..3);
    let binary = proptest::collection::vec(prop_oneof![3 => 0u8..9, 1 => any::<u8>()], 0..64);
    (inputs, binary, 0usize..4).prop_map(|(inputs, binary, off)| {
        let json = format!("{{\"inputs\":[{}]}}", inputs.join(","));
        let length = json.len() + off - off.min(1);
        ([json.into_bytes(), binary].concat(), length)
    })
}

#[test]
fn binary_framing_never_panics() {
    let noise = (pieces(), 0usize..200);
    let request = prop_oneof![3 => requests(), 1 => noise];
    fuzz(
        &(request, proptest::bool::weighted(0.9), tasks()),
        |((body, length), framed, task)| {
            let body = Bytes::from(body);
            let Ok(request) = read_request(&body, framed.then_some(length), &task, LIMITS) else {
                return;
            };
            let inside = |data: &Bytes| {
                body.as_ptr_range().contains(&data.as_ptr()) || data.len() <= 2 * body.len() + 8
            };
            assert!(request.inputs.iter().all(|input| inside(&input.data)));
            if let Ok(items) = items_from_tensors(&task, request.inputs, &request.parameters.for_task, LIMITS)
            {
                assert!((1..=LIMITS.items).contains(&items.len()));
            }
        },
    );
}

#[test]
fn decoding_byte_strings_of_tensors_never_panics() {
    let element = proptest::collection::vec(any::<u8>(), 0..9);
    let whole = proptest::collection::vec(element, 0..9).prop_map(|elements| {
        let prefixed = |element: &Vec<u8>| [&(element.len() as u32).to_le_bytes()[..], element].concat();
        (elements.iter().flat_map(prefixed).collect::<Vec<u8>>(), elements)
    });
    let cut = (0usize..4, 0usize..4, any::<u8>());
    fuzz(
        &(whole, cut, 0u64..12),
        |((mut data, elements), (at, by, noise), claimed)| {
            if by > 0 && !data.is_empty() {
                let at = at * data.len() / 4;
                data[at] = noise;
                data.truncate(data.len() + 1 - by);
            }
            let data = Bytes::from(data);
            match Tensor::new("x", DType::Bytes, vec![claimed], data.clone()) {
                Ok(tensor) => {
                    let found: Vec<Bytes> = byte_strings(tensor.data()).collect();
                    assert_eq!(found.len() as u64, claimed);
                    assert_eq!(
                        found.iter().map(|element| 4 + element.len()).sum::<usize>(),
                        data.len()
                    );
                    let rows = tensor.into_rows(claimed as usize).expect("there are as many");
                    assert!(
                        rows.iter()
                            .zip(&found)
                            .all(|(row, element)| row.data()[4..] == element[..])
                    );
                }
                Err(_) => assert!(by > 0 || claimed != elements.len() as u64),
            }
        },
    );
}

#[test]
fn decoding_base64_never_panics() {
    let bytes = proptest::collection::vec(any::<u8>(), 0..64);
    let text = proptest::collection::vec(
        prop_oneof![9 => proptest::char::range('+', 'z'), 1 => any::<char>()],
        0..64,
    );
    fuzz(&(bytes, text), |(bytes, text)| {
        assert_eq!(
            data_uri::decode_base64(STANDARD.encode(&bytes).as_bytes()),
            Ok(bytes.clone())
        );
        assert_eq!(
            data_uri::decode_base64(STANDARD_NO_PAD.encode(&bytes).as_bytes()),
            Ok(bytes)
        );
        let text: String = text.into_iter().collect();
        if let Ok(decoded) = data_uri::decode_base64(text.as_bytes()) {
            assert!(decoded.len() <= text.len() / 4 * 3 + 3);
        }
    });
}

#[test]
fn parsing_data_uris_never_panics() {
    let bytes = proptest::collection::vec(any::<u8>(), 0..64);
    let noise = "(data:)?[a-z/]{0,12}(;[a-z=;]{0,9})?(;base64)?,?[A-Za-z0-9+/=,;]{0,40}";
    fuzz(
        &(bytes, "image/(png|jpeg|[a-z]{0,300})", noise),
        |(bytes, media_type, noise)| {
            let uri = format!("data:{media_type};base64,{}", STANDARD.encode(&bytes));
            match data_uri::decode(uri.as_bytes()) {
                Ok(decoded) => assert_eq!((decoded.media_type, decoded.data), (media_type, bytes)),
                Err(_) => assert!(media_type.len() > 200, "{uri}"),
            }
            let is_data_uri = data_uri::is_data_uri(noise.as_bytes());
            assert!(
                is_data_uri || data_uri::decode(noise.as_bytes()).is_err(),
                "{noise}"
            );
        },
    );
}

#[test]
fn splitting_json_never_panics() {
    let documents = prop_oneof![
        any::<i32>().prop_map(|number| number.to_string()),
        "\"[a-zA-Z \\\\\\\\n\\[\\]{},:]{0,12}\"",
        Just("{\"a\":[1,{\"b\":\"]}\"}]}".to_owned()),
        Just("null".to_owned()),
    ];
    let envelope = proptest::collection::vec(documents, 0..6)
        .prop_map(|items| format!("{{\"inputs\":[{}]}}", items.join(" ,\n")).into_bytes());
    fuzz(&prop_oneof![envelope, pieces()], |body| {
        let task = task(Kind::Json, "BYTES", &[]);
        let body = Bytes::from(body);
        let read = read_body(&body, None, &task, LIMITS);
        let parsed: Option<Json> = serde_json::from_slice(&body).ok();
        let wanted = parsed.as_ref().and_then(|json| json["inputs"].as_array());
        match read {
            Ok(read) => {
                let parsed = parsed.as_ref().expect("what is split is JSON");
                let items: Vec<&Json> = match wanted {
                    Some(items) => items.iter().collect(),
                    None => vec![&parsed["input"]],
                };
                assert_eq!(read.items.len(), items.len());
                for (item, expected) in read.items.iter().zip(items) {
                    let Ok(Value::Json(item)) = item.as_ref().map(|item| &item.value) else {
                        panic!("a valid item was rejected")
                    };
                    assert_eq!(
                        &serde_json::from_slice::<Json>(item).expect("an item is JSON"),
                        expected
                    );
                }
            }
            Err(error) => {
                let members = parsed
                    .as_ref()
                    .and_then(Json::as_object)
                    .map_or(0, serde_json::Map::len);
                let alone = members == 1 && wanted.is_some_and(|items| !items.is_empty());
                let duplicate = error.to_string().contains("duplicate") || error.to_string().contains("both");
                assert!(!alone || duplicate, "{error}");
            }
        }
    });
}

#[test]
fn parsing_json_numbers_never_panics() {
    let number = prop_oneof![
        any::<f64>()
            .prop_filter("JSON has no other", |float| float.is_finite())
            .prop_map(|float| format!("{float:?}")),
        any::<i64>().prop_map(|integer| integer.to_string()),
        Just("-0".to_owned()),
        Just("1e400".to_owned()),
    ];
    let row = proptest::collection::vec(number, 0..5).prop_map(|row| format!("[{}]", row.join(",")));
    let nested =
        proptest::collection::vec(row.clone(), 0..4).prop_map(|rows| format!("[{}]", rows.join(" , ")));
    fuzz(&prop_oneof![row, nested], |text| {
        let tokens = text.split(['[', ']', ',', ' ']).filter(|token| !token.is_empty());
        let flat: Vec<f64> = tokens
            .map(|token| token.parse().expect("it is a number"))
            .collect();
        match read_elements(&text, DType::Fp64, None) {
            Ok((data, dims)) => {
                let read: Vec<f64> = data
                    .as_chunks()
                    .0
                    .iter()
                    .map(|bytes| f64::from_le_bytes(*bytes))
                    .collect();
                assert_eq!(read, flat, "{text}");
                assert_eq!(dims.iter().product::<u64>(), flat.len() as u64, "{text}");
            }
            Err(error) if error.contains("is out of range") => {
                assert!(flat.iter().any(|float| float.is_infinite()))
            }
            Err(error) => assert!(error.contains("different lengths"), "{text}: {error}"),
        }
        // Integers are either read exactly or rejected, but never rounded.
        if let Ok((data, _)) = read_elements(&text, DType::Int64, None) {
            let read: Vec<f64> = data
                .as_chunks()
                .0
                .iter()
                .map(|bytes| i64::from_le_bytes(*bytes) as f64)
                .collect();
            assert_eq!(read, flat, "{text}");
        }
    });
}
