//! Selects the inputs and outputs of a task and gives them the names that clients use.

use std::collections::BTreeMap;

use plugin_sdk::LoadError;

use crate::network::TensorSpec;

/// Returns the specs that the settings name, in that order, or all specs if the settings name none. `sort` is "input" or
/// "output".
pub(super) fn select(
    specs: &[TensorSpec],
    wanted: Option<&[String]>,
    sort: &str,
    key: &str,
) -> Result<Vec<TensorSpec>, LoadError> {
    let Some(wanted) = wanted else {
        return Ok(specs.to_vec());
    };
    if wanted.is_empty() {
        return Err(LoadError::setting(
            key,
            format_args!("there are none, expected at least one {sort}"),
        ));
    }
    let find = |(index, name): (usize, &String)| {
        if wanted[..index].contains(name) {
            return Err(LoadError::setting(
                key,
                format_args!("{sort} `{name}` is named twice"),
            ));
        }
        specs
            .iter()
            .find(|spec| spec.name == *name)
            .cloned()
            .ok_or_else(|| {
                let known: Vec<_> = specs.iter().map(|spec| format!("`{}`", spec.name)).collect();
                LoadError::setting(
                    key,
                    format_args!("the model has no {sort} `{name}`, expected {}", known.join(", ")),
                )
            })
    };
    wanted.iter().enumerate().map(find).collect()
}

/// Renames inputs and outputs for clients. `names` maps names in the file to new names.
pub(super) fn rename(
    mut inputs: Vec<TensorSpec>,
    mut outputs: Vec<TensorSpec>,
    names: &BTreeMap<String, String>,
    key: &str,
) -> Result<(Vec<TensorSpec>, Vec<TensorSpec>), LoadError> {
    for (name, new) in names {
        let mut found = false;
        let specs = inputs.iter_mut().chain(&mut outputs);
        // Match the names in the file, so that a renamed spec is not renamed again.
        for spec in specs.filter(|spec| spec.file_name == *name) {
            spec.name.clone_from(new);
            found = true;
        }
        if !found {
            let message = format!("the task has no input or output `{name}`");
            return Err(LoadError::setting(format_args!("{key}.{name}"), message));
        }
    }
    for specs in [&inputs, &outputs] {
        for (index, spec) in specs.iter().enumerate() {
            if specs[..index].iter().any(|other| other.name == spec.name) {
                let message = format!("two tensors of the task are called `{}`", spec.name);
                return Err(LoadError::setting(key, message));
            }
        }
    }
    Ok((inputs, outputs))
}
