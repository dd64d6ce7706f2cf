//! Checks of outputs: whether they match what the manifest declares.

use crate::codes::kind;
use crate::manifest::{Kind, TensorManifest, ValueManifest};
use crate::{DType, RawTensor, RawValue};

/// Checks that an output has the declared kind, and that its tensors match the declared ones. Returns the kind.
///
/// # Errors
/// The difference between the output and its declaration.
pub fn output(value: &RawValue<'_>, declared: &ValueManifest) -> Result<Kind, String> {
    let got = match value.kind {
        kind::TEXT => Kind::Text,
        kind::BYTES => Kind::Bytes,
        kind::JSON => Kind::Json,
        kind::TENSORS => Kind::Tensors,
        other => return Err(format!("the plugin's output has the unknown kind {other}")),
    };
    check_kind(got, declared)?;
    if got == Kind::Tensors {
        let tensors = value.tensors.iter();
        check_tensors(tensors.map(|tensor| (tensor, tensor.shape.as_slice())), declared)?;
    }
    Ok(got)
}

/// Like [`output`], for the output tensors of a whole batch of `items` items, whose first dimension is the batch.
///
/// # Errors
/// Same as [`output`].
pub fn output_rows(tensors: &[RawTensor<'_>], items: usize, declared: &ValueManifest) -> Result<(), String> {
    check_kind(Kind::Tensors, declared)?;
    for tensor in tensors {
        if tensor.shape.first() != Some(&(items as u64)) {
            return Err(format!(
                "the plugin's tensor `{}` has the shape {:?}, expected {items} rows, one per item",
                tensor.name,
                tensor.shape.as_slice()
            ));
        }
    }
    check_tensors(
        tensors
            .iter()
            .map(|tensor| (tensor, &tensor.shape.as_slice()[1..])),
        declared,
    )
}

fn check_kind(got: Kind, declared: &ValueManifest) -> Result<(), String> {
    match declared.kinds.first() {
        Some(kind) if *kind == got => Ok(()),
        Some(kind) => Err(format!(
            "the plugin's output is of kind {}, its manifest declares {}",
            got.name(),
            kind.name()
        )),
        None => Err(format!(
            "the plugin's output is of kind {}, its manifest declares none",
            got.name()
        )),
    }
}

/// Checks tensors, each with its shape for one item.
fn check_tensors<'t, 'a: 't>(
    tensors: impl ExactSizeIterator<Item = (&'t RawTensor<'a>, &'t [u64])> + Clone,
    declared: &ValueManifest,
) -> Result<(), String> {
    let mut non_sequence_count = 0;
    for (tensor, shape) in tensors.clone() {
        let name = tensor.name.as_str();
        let Some((index, _)) = declared.find_tensor(name) else {
            let known: Vec<&str> = declared.tensors.iter().map(|manifest| &*manifest.name).collect();
            return Err(format!(
                "the plugin's output has a tensor `{name}`, its manifest declares {}",
                known.join(", ")
            ));
        };
        let manifest = &declared.tensors[index];
        non_sequence_count += usize::from(!manifest.sequence);
        let dtype = DType::from_code(tensor.dtype).ok_or_else(|| {
            format!(
                "the plugin's tensor `{name}` has the unknown datatype {}",
                tensor.dtype
            )
        })?;
        let matches = |(&size, &declared): (&u64, &i64)| declared < 0 || size == declared.unsigned_abs();
        let is_declared = dtype.name() == manifest.dtype
            && (manifest.unranked
                || shape.len() == manifest.shape.len() && shape.iter().zip(&manifest.shape).all(matches));
        if !is_declared {
            return Err(format!(
                "the plugin's tensor `{name}` is {dtype} {shape:?}, its manifest declares {} {:?}",
                manifest.dtype, manifest.shape
            ));
        }
    }
    let names = tensors.map(|(tensor, _)| tensor.name.as_str());
    let missing = declared
        .tensors
        .iter()
        .find(|manifest| !manifest.sequence && names.clone().all(|name| name != manifest.name));
    if let Some(manifest) = missing {
        return Err(format!(
            "the plugin's output lacks the tensor `{}`, which its manifest declares",
            manifest.name
        ));
    }
    let declared_non_sequence_count = declared.tensors.iter().filter(|manifest| !manifest.sequence);
    if non_sequence_count > declared_non_sequence_count.count() {
        return Err("the plugin's output has a tensor twice".to_owned());
    }
    let mut sequences = declared.tensors.iter().filter(|manifest| manifest.sequence);
    sequences.try_for_each(|sequence| check_sequence(sequence, names.clone()))
}

/// Checks that the tensors of a sequence are numbered from 0 without gaps.
fn check_sequence<'n>(sequence: &TensorManifest, names: impl Iterator<Item = &'n str>) -> Result<(), String> {
    let mut positions: Vec<usize> = names
        .filter_map(|name| sequence.position_in_sequence(name))
        .collect();
    positions.sort_unstable();
    match positions
        .iter()
        .enumerate()
        .find(|(expected, position)| expected != *position)
    {
        None => Ok(()),
        Some((expected, &position)) if position > expected => Err(format!(
            "the plugin's output has the tensor `{0}.{position}` of the sequence `{0}`, but not `{0}.{expected}`",
            sequence.name
        )),
        Some((_, position)) => Err(format!(
            "the plugin's output has the tensor `{}.{position}` twice",
            sequence.name
        )),
    }
}
