//! Weights stored in files next to the model file (ONNX external data).
//!
//! The model file refers to them by paths relative to its own directory. Any path is accepted unless it leaves that directory,
//! also through a symbolic link: a model file must not be able to read other files on the machine. If the model file is itself a
//! link, as in the cache of Hugging Face, its target's directory is permitted as well. See
//! <https://onnx.ai/onnx/repo-docs/ExternalData.html>.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::fs;
use std::path::{Component, Path, PathBuf};

use rten_onnx::onnx::{
    AttributeProto, DataLocation, DataType, GraphProto, ModelProto, StringStringEntryProto, TensorProto,
};

/// Location of the external data of a tensor.
#[derive(Debug, PartialEq, Eq)]
struct ExternalLocation {
    /// Path relative to the directory of the model file.
    location: String,
    offset: u64,
    /// Length in bytes; `None` means up to the end of the file.
    length: Option<u64>,
}

/// Checks that the external data of all tensors of the model file `model` is available and has the expected size. Returns the
/// files that contain it.
///
/// # Errors
/// Names the tensor and the problem with its data, as a clause about the model file.
pub(crate) fn check(graph: &GraphProto, model: &Path) -> Result<BTreeSet<PathBuf>, String> {
    let mut files = BTreeSet::new();
    each_tensor(graph, &mut |tensor| {
        if is_external(tensor) {
            let file = check_tensor(tensor, model).map_err(|problem| {
                let name = tensor.name.as_deref().unwrap_or_default();
                format!("keeps the weights `{name}` in another file, {problem}")
            })?;
            files.insert(file);
        }
        Ok(())
    })?;
    Ok(files)
}

/// Moves the data of large tensors out of the model, reads the external data files, and makes the tensors refer to the result.
/// Returns the contents together with file names that the embedded runtime accepts. The model must have passed `check`.
///
/// # Errors
/// Names the file that cannot be read, or describes an invalid reference to external data.
pub(crate) fn take(model: &mut ModelProto, directory: &Path) -> Result<Vec<(String, Vec<u8>)>, String> {
    let mut files: Vec<(String, Vec<u8>)> = Vec::new();
    let Some(graph) = &mut model.graph else {
        return Ok(Vec::new());
    };
    // For each entry of `files`, the name of the file it was read from; `None` for data from the model file.
    let mut names: Vec<Option<String>> = Vec::new();
    each_tensor_mut(graph, &mut |tensor| {
        if !is_external(tensor) {
            if let Some(data) = detach(tensor) {
                let (name, length) = (format!("{}.data", files.len()), data.len() as u64);
                refer(tensor, &name, 0, length);
                files.push((name, data));
                names.push(None);
            }
            return Ok(());
        }
        let place = place(tensor)?;
        let index = match names
            .iter()
            .position(|name| name.as_ref() == Some(&place.location))
        {
            Some(index) => index,
            None => {
                let path = directory.join(&place.location);
                let data = fs::read(&path)
                    .map_err(|error| format!("the file `{}` cannot be read: {error}", place.location))?;
                files.push((format!("{}.data", files.len()), data));
                names.push(Some(place.location));
                names.len() - 1
            }
        };
        let (name, data) = &files[index];
        let length = place
            .length
            .unwrap_or((data.len() as u64).saturating_sub(place.offset));
        refer(tensor, name, place.offset, length);
        Ok(())
    })?;
    Ok(files)
}

/// Minimum size in bytes of the tensor data that is moved out of a model.
const LARGE: usize = 1 << 16;

/// Takes the data of a large tensor, which would otherwise be copied when the model is written.
fn detach(tensor: &mut TensorProto) -> Option<Vec<u8>> {
    let raw = tensor.raw_data.as_ref()?;
    let is_large = raw.borrow().len() >= LARGE;
    is_large
        .then(|| tensor.raw_data.take())
        .flatten()
        .map(RefCell::into_inner)
}

/// Makes a tensor refer to a data file.
fn refer(tensor: &mut TensorProto, name: &str, offset: u64, length: u64) {
    let entry = |key: &str, value: String| StringStringEntryProto {
        key: Some(key.to_owned()),
        value: Some(value),
    };
    tensor.data_location = Some(DataLocation::EXTERNAL);
    tensor.external_data = vec![
        entry("location", name.to_owned()),
        entry("offset", offset.to_string()),
        entry("length", length.to_string()),
    ];
}

fn is_external(tensor: &TensorProto) -> bool {
    tensor.data_location == Some(DataLocation::EXTERNAL)
}

/// Checks the external data of a tensor, and returns the path of the file that contains it.
fn check_tensor(tensor: &TensorProto, model: &Path) -> Result<PathBuf, String> {
    let place = place(tensor)?;
    let location = &place.location;
    let path = Path::new(location);
    let inside = path
        .components()
        .all(|component| matches!(component, Component::Normal(_) | Component::CurDir));
    if location.is_empty() || !inside {
        return Err(format!(
            "`{location}`, expected a path within the directory of the model file"
        ));
    }
    let path = model.parent().unwrap_or(Path::new("")).join(path);
    let unreadable = |error| format!("`{location}`, which cannot be opened: {error}");
    let file = fs::metadata(&path).map_err(unreadable)?;
    if !is_within_directory(&path, model).map_err(unreadable)? {
        return Err(format!(
            "`{location}`, a link that leads out of the directory of the model file"
        ));
    }
    if !file.is_file() {
        return Err(format!("`{location}`, which is not a file"));
    }
    let length = place.length.unwrap_or(file.len().saturating_sub(place.offset));
    let end = place.offset.checked_add(length);
    if end.is_none_or(|end| end > file.len()) {
        return Err(format!(
            "`{location}`, which has {} bytes, expected {length} from byte {} on",
            file.len(),
            place.offset
        ));
    }
    match size(tensor) {
        Some(size) if size != length => Err(format!(
            "`{location}`, of which it takes {length} bytes, expected {size} for a tensor of the shape {:?}",
            tensor.dims
        )),
        _ => Ok(path),
    }
}

/// Whether a file is in the directory of the model file, or below, after all links have been followed.
fn is_within_directory(file: &Path, model: &Path) -> std::io::Result<bool> {
    let file = file.canonicalize()?;
    let directory = match model
        .parent()
        .filter(|directory| !directory.as_os_str().is_empty())
    {
        Some(directory) => directory.canonicalize()?,
        None => Path::new(".").canonicalize()?,
    };
    let model = model.canonicalize()?;
    let target = model.parent();
    Ok(file.starts_with(directory) || target.is_some_and(|target| file.starts_with(target)))
}

fn place(tensor: &TensorProto) -> Result<ExternalLocation, String> {
    let text = |key: &str| {
        let entry = tensor
            .external_data
            .iter()
            .find(|entry| entry.key.as_deref() == Some(key));
        entry.and_then(|entry| entry.value.as_deref())
    };
    let number = |key: &str| {
        let number = text(key).map(|text| {
            text.parse::<u64>()
                .map_err(|_| format!("at an invalid {key} `{text}`, expected a number of bytes"))
        });
        number.transpose()
    };
    Ok(ExternalLocation {
        location: text("location")
            .ok_or("whose name is missing (`location`)")?
            .to_owned(),
        offset: number("offset")?.unwrap_or(0),
        length: number("length")?,
    })
}

/// Size of the data in bytes; `None` for types whose elements do not occupy a fixed number of whole bytes.
fn size(tensor: &TensorProto) -> Option<u64> {
    let width = match tensor.data_type? {
        DataType::UINT8 | DataType::INT8 | DataType::BOOL => 1,
        DataType::UINT16 | DataType::INT16 | DataType::FLOAT16 | DataType::BFLOAT16 => 2,
        DataType::FLOAT | DataType::INT32 | DataType::UINT32 => 4,
        DataType::DOUBLE | DataType::INT64 | DataType::UINT64 | DataType::COMPLEX64 => 8,
        _ => return None,
    };
    tensor.dims.iter().try_fold(width, |size: u64, dim| {
        size.checked_mul(u64::try_from(*dim).ok()?)
    })
}

/// Visits all tensors of a graph and of its subgraphs. Stops at the first error.
fn each_tensor(
    graph: &GraphProto,
    visit: &mut impl FnMut(&TensorProto) -> Result<(), String>,
) -> Result<(), String> {
    graph.initializer.iter().try_for_each(&mut *visit)?;
    for attribute in graph.node.iter().flat_map(|node| &node.attribute) {
        let AttributeProto { t, g, .. } = attribute;
        t.iter().try_for_each(&mut *visit)?;
        if let Some(graph) = g {
            each_tensor(graph, visit)?;
        }
    }
    Ok(())
}

/// Visits all tensors of a graph and of its subgraphs mutably. Stops at the first error.
pub(crate) fn each_tensor_mut(
    graph: &mut GraphProto,
    visit: &mut impl FnMut(&mut TensorProto) -> Result<(), String>,
) -> Result<(), String> {
    graph.initializer.iter_mut().try_for_each(&mut *visit)?;
    for attribute in graph.node.iter_mut().flat_map(|node| &mut node.attribute) {
        let AttributeProto { t, g, .. } = attribute;
        t.iter_mut().try_for_each(&mut *visit)?;
        if let Some(graph) = g {
            each_tensor_mut(graph, visit)?;
        }
    }
    Ok(())
}
