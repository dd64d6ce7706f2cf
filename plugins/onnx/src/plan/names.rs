//! Selects the inputs and outputs of a task and gives them the names that clients use.

use std::collections::BTreeMap;

use plugin_sdk::LoadError;

use crate::network::Port;

/// Returns the ports that the settings name, in that order, or all ports if the settings name none. `sort` is "input" or
/// "output".
pub(super) fn select(
    ports: &[Port],
    wanted: Option<&[String]>,
    sort: &str,
    key: &str,
) -> Result<Vec<Port>, LoadError> {
    let Some(wanted) = wanted else {
        return Ok(ports.to_vec());
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
        ports
            .iter()
            .find(|port| port.name == *name)
            .cloned()
            .ok_or_else(|| {
                let known: Vec<_> = ports.iter().map(|port| format!("`{}`", port.name)).collect();
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
    mut inputs: Vec<Port>,
    mut outputs: Vec<Port>,
    names: &BTreeMap<String, String>,
    key: &str,
) -> Result<(Vec<Port>, Vec<Port>), LoadError> {
    for (name, new) in names {
        let mut found = false;
        let ports = inputs.iter_mut().chain(&mut outputs);
        // Match the names in the file, so that a renamed port is not renamed again.
        for port in ports.filter(|port| port.file_name == *name) {
            port.name.clone_from(new);
            found = true;
        }
        if !found {
            let message = format!("the task has no input or output `{name}`");
            return Err(LoadError::setting(format_args!("{key}.{name}"), message));
        }
    }
    for ports in [&inputs, &outputs] {
        for (index, port) in ports.iter().enumerate() {
            if ports[..index].iter().any(|other| other.name == port.name) {
                let message = format!("two tensors of the task are called `{}`", port.name);
                return Err(LoadError::setting(key, message));
            }
        }
    }
    Ok((inputs, outputs))
}
