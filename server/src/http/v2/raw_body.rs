//! Reads a body without JSON, which is the data of the task's only input.

use bytes::{BufMut as _, Bytes, BytesMut};
use plugin_abi::manifest::TaskManifest;

use super::infer_request::{InferRequest, RequestedOutputs};
use super::infer_request_error::InferRequestError;
use crate::api::request_parameters::Parameters;
use crate::api::tensors::{self, InputTensor, MediaTypes, TensorSpec};

/// Reads a body that is the data of the only input.
pub(super) fn read_raw_body(body: &Bytes, task: &TaskManifest) -> Result<InferRequest, InferRequestError> {
    let specs = tensors::inputs(task);
    let [spec] = specs.as_slice() else {
        return Err(InferRequestError::RawInputs(specs.len()));
    };
    if spec.sequence {
        return Err(InferRequestError::RawSequence(spec.name.to_owned()));
    }
    let (shape, data) = match spec.dtype.size() {
        Some(size) => (raw_shape(spec, body.len(), size)?, body.clone()),
        None => {
            let length = u32::try_from(body.len()).map_err(|_| raw_mismatch(spec, body.len()))?;
            let mut element = BytesMut::with_capacity(4 + body.len());
            element.put_u32_le(length);
            element.put_slice(body);
            (vec![1; spec.shape().len()], element.freeze())
        }
    };
    Ok(InferRequest {
        id: None,
        inputs: vec![InputTensor {
            name: spec.name.to_owned(),
            dtype: spec.dtype,
            shape,
            data,
            media_types: MediaTypes::default(),
        }],
        parameters: Parameters::default(),
        requested: RequestedOutputs::All { binary: true },
    })
}

/// Determines the shape from the number of bytes. If the shape of an item has a dimension of any size, there is one
/// item; otherwise the number of items follows from the number of bytes.
fn raw_shape(spec: &TensorSpec<'_>, bytes: usize, size: usize) -> Result<Vec<u64>, InferRequestError> {
    let open = spec.item_shape.iter().filter(|&&dim| dim < 0).count();
    let mut shape = spec.shape();
    match open {
        _ if spec.unranked => return Err(raw_mismatch(spec, bytes)),
        1 if spec.batched => shape[0] = 1,
        0 | 1 => {}
        _ => return Err(raw_mismatch(spec, bytes)),
    }
    let known = shape
        .iter()
        .filter_map(|&dim| u64::try_from(dim).ok())
        .try_fold(size as u64, u64::checked_mul)
        .filter(|&known| known > 0 && (bytes as u64).is_multiple_of(known))
        .ok_or_else(|| raw_mismatch(spec, bytes))?;
    let open = bytes as u64 / known;
    if open != 1 && shape.iter().all(|&dim| dim >= 0) {
        return Err(raw_mismatch(spec, bytes));
    }
    Ok(shape
        .iter()
        .map(|&dim| u64::try_from(dim).unwrap_or(open))
        .collect())
}

fn raw_mismatch(spec: &TensorSpec<'_>, bytes: usize) -> InferRequestError {
    InferRequestError::RawShape {
        name: spec.name.to_owned(),
        bytes,
        dtype: spec.dtype,
        shape: spec.shape(),
    }
}
