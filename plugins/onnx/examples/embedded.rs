//! Runs ONNX files on the embedded runtime for a script, whether the check for verified operators accepts them or not, and reports
//! what the check says. With a table of verified operators as its argument, the check is against that table, and models that it
//! accepts run with its guards.
//!
//! Each model runs twice: operators may overwrite the inputs in the second run. The answer has the outputs of both runs if they differ.
//!
//! Reads requests on standard input and answers on standard output. Each is a line of JSON, followed by the bytes of the tensors
//! that the line describes. A request that kills the process has no answer; the script then starts another one.

use std::error::Error;
use std::io::{self, BufRead, Read, Write};
use std::panic::{self, AssertUnwindSafe};
use std::path::Path;

use onnx::direct::{self, Check, Direct, Elements, Tensor};
use plugin_sdk::serde_json::{self, Value as Json, json};

fn main() -> Result<(), Box<dyn Error>> {
    // Panics are answers here.
    panic::set_hook(Box::new(|_| {}));
    let table = std::env::args_os().nth(1);
    let check = table
        .map(|table| Check::with_table(Path::new(&table)))
        .transpose()?;
    let (mut input, mut output) = (io::stdin().lock(), io::stdout().lock());
    let mut line = String::new();
    while input.read_line(&mut line)? > 0 {
        let request: Json = serde_json::from_str(&line)?;
        line.clear();
        let tensors = request["inputs"].as_array().into_iter().flatten();
        let tensors = tensors
            .map(|described| read_tensor(&mut input, described))
            .collect::<Result<Vec<_>, _>>()?;
        let path = Path::new(request["model"].as_str().unwrap_or_default());
        let answered = panic::catch_unwind(AssertUnwindSafe(|| {
            answer(check.as_ref(), &request, path, tensors)
        }));
        let (answer, tensors) = answered.unwrap_or_else(|_| (json!({"error": "panic"}), Vec::new()));
        writeln!(output, "{answer}")?;
        for tensor in tensors {
            output.write_all(&bytes(tensor.elements))?;
        }
        output.flush()?;
    }
    Ok(())
}

fn answer(check: Option<&Check>, request: &Json, path: &Path, inputs: Vec<Tensor>) -> (Json, Vec<Tensor>) {
    let mut answer = json!({});
    match direct::features(path) {
        Ok((nodes, loose)) => {
            let node = |node: &direct::NodeFeatures| json!([node.operator, node.opset, node.features]);
            answer["loose"] = loose.into();
            answer["nodes"] = nodes.iter().map(node).collect();
        }
        Err(error) => answer["error"] = error.into(),
    }
    if let Some(Err(reasons)) = check.map(|check| check.file(path)) {
        answer["rejected"] = reasons.into();
    }
    if request["inputs"].is_null() {
        return (answer, Vec::new());
    }
    let in_place = Direct::load_in_place(path, check).and_then(|model| model.run(inputs.clone()));
    match Direct::load(path, check).and_then(|model| model.run(inputs)) {
        Ok(mut outputs) => {
            answer["outputs"] = outputs.iter().map(describe).collect();
            if let Ok(in_place) = in_place
                && !are_equal(&outputs, &in_place)
            {
                answer["in_place"] = in_place.iter().map(describe).collect();
                outputs.extend(in_place);
            }
            (answer, outputs)
        }
        Err(error) => {
            answer["error"] = error.into();
            (answer, Vec::new())
        }
    }
}

/// Whether tensors have the same shapes and the same bits.
fn are_equal(one: &[Tensor], other: &[Tensor]) -> bool {
    let content = |tensors: &[Tensor]| -> Vec<_> {
        let content = tensors.iter().cloned();
        content
            .map(|tensor| (tensor.shape, bytes(tensor.elements)))
            .collect()
    };
    content(one) == content(other)
}

fn describe(tensor: &Tensor) -> Json {
    let kind = match tensor.elements {
        Elements::F32(_) => "f32",
        Elements::I32(_) => "i32",
        Elements::I8(_) => "i8",
        Elements::U8(_) => "u8",
    };
    json!({"type": kind, "shape": tensor.shape})
}

fn read_tensor(input: &mut impl Read, described: &Json) -> Result<Tensor, Box<dyn Error>> {
    let shape: Vec<usize> = serde_json::from_value(described["shape"].clone())?;
    let kind = described["type"].as_str().unwrap_or_default();
    let size = if matches!(kind, "i8" | "u8") { 1 } else { 4 };
    let mut bytes = vec![0; size * shape.iter().product::<usize>()];
    input.read_exact(&mut bytes)?;
    let words = bytes.as_chunks::<4>().0.iter();
    let elements = match kind {
        "f32" => Elements::F32(words.map(|word| f32::from_le_bytes(*word)).collect()),
        "i32" => Elements::I32(words.map(|word| i32::from_le_bytes(*word)).collect()),
        "i8" => Elements::I8(bytes.iter().map(|byte| i8::from_le_bytes([*byte])).collect()),
        "u8" => Elements::U8(bytes),
        other => return Err(format!("unknown type {other}").into()),
    };
    Ok(Tensor { shape, elements })
}

fn bytes(elements: Elements) -> Vec<u8> {
    match elements {
        Elements::F32(values) => values.iter().flat_map(|value| value.to_le_bytes()).collect(),
        Elements::I32(values) => values.iter().flat_map(|value| value.to_le_bytes()).collect(),
        Elements::I8(values) => values.iter().flat_map(|value| value.to_le_bytes()).collect(),
        Elements::U8(values) => values,
    }
}
