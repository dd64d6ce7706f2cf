//! JSON Schemas of tensors.

use plugin_abi::manifest::{Kind, TaskManifest, TensorManifest};
use serde_json::{Map, Value as Json, json};

use crate::api::tensors::{BYTES, JSON, TEXT};
use crate::values::DType;

/// Schema of the tensors of one item: an object, or the only tensor without a name.
pub(super) fn tensors_schema(tensors: &[TensorManifest]) -> Json {
    let (mut properties, mut patterns) = (Map::new(), Map::new());
    for tensor in tensors {
        let mut schema = tensor_schema(tensor);
        let shape = match tensor.unranked {
            true => format!("{} of any shape", tensor.dtype),
            false => format!("{} {:?}", tensor.dtype, tensor.shape),
        };
        schema["description"] = match tensor.description.as_str() {
            "" => shape.into(),
            description => format!("{shape}. {description}").into(),
        };
        match tensor.sequence {
            true => patterns.insert(sequence_pattern(&tensor.name), schema),
            false => properties.insert(tensor.name.clone(), schema),
        };
    }
    let object = object_schema(properties, patterns);
    match tensors {
        [only] if !only.sequence => json!({"anyOf": [object, tensor_schema(only)]}),
        _ => object,
    }
}

/// Schema of an object with these members, which are all required, and any members that match a pattern.
fn object_schema(properties: Map<String, Json>, patterns: Map<String, Json>) -> Json {
    let names: Vec<&String> = properties.keys().collect();
    let mut object = json!({"type": "object", "required": names, "additionalProperties": false});
    object["properties"] = properties.into();
    if !patterns.is_empty() {
        object["patternProperties"] = patterns.into();
    }
    object
}

/// Regular expression for the names of the tensors of a sequence.
fn sequence_pattern(name: &str) -> String {
    let mut pattern = "^".to_owned();
    for character in name.chars() {
        if character.is_ascii_punctuation() && !matches!(character, '_' | '-' | '/') {
            pattern.push('\\');
        }
        pattern.push(character);
    }
    pattern + "\\.(0|[1-9][0-9]*)$"
}

fn tensor_schema(tensor: &TensorManifest) -> Json {
    let nested = nested_schema(tensor);
    if tensor.shape.len() < 2 {
        return nested;
    }
    // A schema cannot express which lengths match a shape with a dimension of any size, so only nested arrays are
    // documented for it.
    let flat = tensor.shape.iter().try_fold(1u64, |product, &dim| {
        product.checked_mul(u64::try_from(dim).ok()?)
    });
    match flat {
        Some(length) => {
            let flat = array_schema(element_schema(&tensor.dtype), Some(length));
            json!({"anyOf": [nested, flat]})
        }
        None => nested,
    }
}

/// Schema of a tensor of one item, as arrays nested according to its shape.
fn nested_schema(tensor: &TensorManifest) -> Json {
    if tensor.unranked {
        return json!({});
    }
    let dims = tensor.shape.iter().rev();
    dims.fold(element_schema(&tensor.dtype), |inner, &dim| {
        array_schema(inner, u64::try_from(dim).ok())
    })
}

fn array_schema(items: Json, length: Option<u64>) -> Json {
    match length {
        Some(length) => json!({"type": "array", "items": items, "minItems": length, "maxItems": length}),
        None => json!({"type": "array", "items": items}),
    }
}

/// Schema of the columns (`inputs`) of the V1 protocol: an object with the tensors of a batch, or the only tensor
/// without a name. A task that takes text, bytes or JSON has one column, an array of items.
pub(super) fn columns_schema(task: &TaskManifest, item: &Json, max_items: usize) -> Json {
    let input = &task.input;
    let max_items = if task.unbatched { 1 } else { max_items };
    let column = |items: Json| json!({"type": "array", "minItems": 1, "maxItems": max_items, "items": items});
    let object = |columns: Map<String, Json>| object_schema(columns, Map::new());
    let mut forms = Vec::new();
    if input.kinds.contains(&Kind::Tensors) && task.unbatched {
        forms.push(tensors_schema(&input.tensors));
    } else if input.kinds.contains(&Kind::Tensors) {
        let columns = input.tensors.iter().map(|tensor| {
            let column = column(nested_schema(tensor));
            (tensor.name.clone(), column)
        });
        forms.push(object(columns.collect()));
        if let [only] = input.tensors.as_slice() {
            forms.push(column(nested_schema(only)));
        }
    } else {
        forms.push(column(item.clone()));
    }
    for (kind, name) in [(Kind::Text, TEXT), (Kind::Bytes, BYTES), (Kind::Json, JSON)] {
        if input.kinds.contains(&kind) && input.tensors.iter().all(|tensor| tensor.name != name) {
            let items = (name.to_owned(), column(item.clone()));
            forms.push(object(std::iter::once(items).collect()));
        }
    }
    let items = match task.unbatched {
        true => "each request is one item",
        false => "the first dimension is the batch dimension",
    };
    let description = format!("The only input, or an object with all inputs; {items}.");
    json!({"description": description, "anyOf": forms})
}

fn element_schema(dtype: &str) -> Json {
    match DType::from_name(dtype) {
        Some(DType::Bool) => json!({"type": "boolean"}),
        Some(DType::Bytes) => json!({"type": "string"}),
        Some(DType::Uint8) => json!({"type": "integer", "minimum": 0, "maximum": u8::MAX}),
        Some(DType::Uint16) => json!({"type": "integer", "minimum": 0, "maximum": u16::MAX}),
        Some(DType::Uint32) => json!({"type": "integer", "minimum": 0, "maximum": u32::MAX}),
        Some(DType::Uint64) => json!({"type": "integer", "minimum": 0, "maximum": u64::MAX}),
        Some(DType::Int8) => json!({"type": "integer", "minimum": i8::MIN, "maximum": i8::MAX}),
        Some(DType::Int16) => json!({"type": "integer", "minimum": i16::MIN, "maximum": i16::MAX}),
        Some(DType::Int32) => json!({"type": "integer", "minimum": i32::MIN, "maximum": i32::MAX}),
        Some(DType::Int64) => json!({"type": "integer", "minimum": i64::MIN, "maximum": i64::MAX}),
        Some(DType::Fp16) => json!({"type": "number", "minimum": -65504, "maximum": 65504}),
        Some(DType::Fp32 | DType::Bf16) => {
            json!({"type": "number", "minimum": -3.3e38, "maximum": 3.3e38})
        }
        Some(DType::Fp64) => json!({"type": "number"}),
        None => json!({}),
    }
}
