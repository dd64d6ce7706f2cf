//! The inputs and outputs of a file as tasks see them.

use std::collections::HashSet;

use rten_onnx::onnx::{DataType, Dimension, TypeProtoTensor};

use crate::interface::{Declaration, Interface, Type};
use crate::network::{Dim, MapPart, TensorSpec};
use crate::runtime::Abilities;
use crate::values;

/// Maximum number of characters in a name that the server accepts.
const MAX_NAME_LENGTH: usize = 128;

/// Returns the inputs and the outputs of a file. `initializers` has the names of its initializers.
///
/// # Errors
/// The message is a clause that follows the path of the file.
pub(crate) fn declared(
    interface: &Interface,
    initializers: &HashSet<&str>,
    abilities: &dyn Abilities,
) -> Result<(Vec<TensorSpec>, Vec<TensorSpec>), String> {
    let is_input = |input: &&Declaration| !initializers.contains(&*input.name);
    // Files with an old IR version also list their initializers as inputs.
    let inputs = interface.inputs.iter().filter(is_input).enumerate();
    let mut specs = (Vec::new(), Vec::new());
    for (index, input) in inputs {
        specs.0.push(spec("input", index, input, abilities)?);
    }
    for (index, output) in interface.outputs.iter().enumerate() {
        let is_repeated = interface.outputs[..index]
            .iter()
            .any(|other| other.name == output.name);
        if is_repeated {
            continue;
        }
        match &output.kind {
            Type::Sequence(element) if matches!(**element, Type::Map(..)) => {
                specs.1.extend(maps(index, output, element, abilities)?);
            }
            _ => specs.1.push(spec("output", index, output, abilities)?),
        }
    }
    Ok(specs)
}

/// The spec for a tensor or a sequence of tensors. If the file declares it as optional, it is required nevertheless.
fn spec(
    sort: &str,
    index: usize,
    declaration: &Declaration,
    abilities: &dyn Abilities,
) -> Result<TensorSpec, String> {
    let name = &declaration.name;
    let kind = match &declaration.kind {
        Type::Optional(kind) => kind,
        kind => kind,
    };
    let (tensor, sequence) = match kind {
        Type::Tensor(tensor) => (Some(tensor), false),
        Type::Sequence(element) => match &**element {
            Type::Tensor(tensor) => (Some(tensor), true),
            _ => (None, true),
        },
        _ => (None, false),
    };
    if matches!(kind, Type::Unknown) {
        return Err(format!(
            "does not declare the type of its {sort} `{name}`, and it cannot be inferred, expected a tensor or a sequence of tensors"
        ));
    }
    let tensor = tensor.ok_or_else(|| {
        let text = declaration.kind.text();
        format!("declares its {sort} `{name}` as a {text}, expected a tensor or a sequence of tensors")
    })?;
    let declared = tensor.elem_type.unwrap_or(DataType(0));
    let (dtype, held) = known(sort, name, declared, abilities)?;
    Ok(TensorSpec {
        name: client_name(name, sort, index),
        file_name: name.clone(),
        dtype,
        held,
        declared,
        dims: dims(tensor),
        sequence,
        map: None,
        index,
    })
}

/// The specs for a sequence of maps, with one map per row: a tensor of the values, and a tensor of their keys.
fn maps(
    index: usize,
    output: &Declaration,
    element: &Type,
    abilities: &dyn Abilities,
) -> Result<[TensorSpec; 2], String> {
    let name = &output.name;
    let Type::Map(key, value) = element else {
        return Err(format!(
            "declares its output `{name}` as a {}",
            output.kind.text()
        ));
    };
    let Type::Tensor(value) = &**value else {
        let text = value.text();
        return Err(format!(
            "declares its output `{name}` as maps to a {text}, expected numbers"
        ));
    };
    let part = |part: MapPart, declared: DataType, suffix: &str| {
        let (dtype, held) = known("output", name, declared, abilities)?;
        Ok::<_, String>(TensorSpec {
            name: format!("{}{suffix}", client_name(name, "output", index)),
            file_name: name.clone(),
            dtype,
            held,
            declared,
            dims: Some(vec![Dim::Open(String::new()), Dim::Open(String::new())]),
            sequence: false,
            map: Some(part),
            index,
        })
    };
    Ok([
        part(MapPart::Values, value.elem_type.unwrap_or(DataType(0)), "")?,
        part(MapPart::Keys, *key, ".keys")?,
    ])
}

fn known(
    sort: &str,
    name: &str,
    declared: DataType,
    abilities: &dyn Abilities,
) -> Result<(plugin_sdk::DType, values::ElementType), String> {
    let known = values::dtype(declared).zip(abilities.held(declared));
    known.ok_or_else(|| {
        let known = abilities.datatypes();
        format!("declares its {sort} `{name}` with the datatype {declared}, expected {known}")
    })
}

/// The name in the file, or a generated name if clients cannot use it.
fn client_name(name: &str, sort: &str, index: usize) -> String {
    let length = name.chars().count();
    match length == 0 || length > MAX_NAME_LENGTH || name.chars().any(char::is_control) {
        true => format!("{sort}_{index}"),
        false => name.to_owned(),
    }
}

fn dims(tensor: &TypeProtoTensor) -> Option<Vec<Dim>> {
    let dim = |dim: &Dimension| match dim.dim_value.map(usize::try_from) {
        Some(Ok(size)) => Dim::Fixed(size),
        _ => Dim::Open(dim.dim_param.clone().unwrap_or_default()),
    };
    Some(tensor.shape.as_ref()?.dim.iter().map(dim).collect())
}
