//! Lints: warnings about settings that are valid but have no effect, or an effect that was probably not intended.

use std::collections::BTreeMap;
use std::time::Duration;

use super::error::{ConfigWarning, Origin};
use super::keys::{IsolationName, PolicyName, WrittenBatching, WrittenModel, WrittenServer};
use super::section::Section;
use super::settings::{BatchingLayers, ModelSettings};
use super::units;

/// Lints of delays and queues. Variables for single tasks, and defaults that plugins declare, are not taken into account.
pub(super) fn batching(shared: &BatchingLayers, models: &[ModelSettings]) -> Vec<ConfigWarning> {
    let mut scopes = vec![merged(shared, &WrittenBatching::empty())];
    for model in models {
        scopes.push(merged(&model.batching, &WrittenBatching::empty()));
        scopes.extend(
            model
                .tasks
                .values()
                .map(|task| merged(&model.batching, &task.batching)),
        );
    }
    let mut found = BTreeMap::new();
    unused_delays(&scopes, &mut found);
    for scope in &scopes {
        short_queue(scope, &mut found);
    }
    found
        .into_iter()
        .map(|(origin, (message, hint))| ConfigWarning {
            origin,
            message,
            hint: Some(hint),
        })
        .collect()
}

/// Lints of limits of the server.
pub(super) fn server(server: &WrittenServer) -> Option<ConfigWarning> {
    let (budget, body) = (
        server.max_inflight_bytes.as_ref()?,
        server.max_body_size.as_ref()?,
    );
    (budget.value < body.value).then(|| ConfigWarning {
        origin: budget.origin.clone(),
        message: format!(
            "`max_inflight_bytes` is less than `max_body_size`: bodies of more than {} are always rejected",
            units::show_size(budget.value as u64)
        ),
        hint: Some(format!(
            "set it to {} or more",
            units::show_size(body.value as u64)
        )),
    })
}

/// The address of a port that is not opened.
pub(super) fn management(server: &WrittenServer) -> Option<ConfigWarning> {
    let host = server.management_host.as_ref()?;
    server.management_port.is_none().then(|| ConfigWarning {
        origin: host.origin.clone(),
        message: "`management_host` has no effect without `management_port`".to_owned(),
        hint: Some("set `management_port`, or remove `management_host`".to_owned()),
    })
}

/// Keys for worker processes of a model with `isolation = "thread"`. If a model does not set `isolation`, its plugin decides,
/// and `ModelSettings::warnings_in_thread` has these warnings once the plugin is loaded.
pub(super) fn isolation(model: &WrittenModel) -> Vec<ConfigWarning> {
    let isolation = model.isolation.as_ref().map(|located| located.value);
    if isolation != Some(IsolationName::Thread) {
        return Vec::new();
    }
    let written = process_keys(model).into_iter();
    written
        .map(|(key, origin)| process_key_without_process(key, origin.clone()))
        .collect()
}

/// The timeout of a calibration that never runs.
pub(super) fn calibration(model: &WrittenModel) -> Option<ConfigWarning> {
    let timeout = model.calibration_timeout.as_ref()?;
    let is_auto = model
        .calibration
        .as_ref()
        .is_some_and(|calibration| calibration.value == "auto");
    (!is_auto).then(|| ConfigWarning {
        origin: timeout.origin.clone(),
        message: "`calibration_timeout` has no effect without `calibration = \"auto\"`".to_owned(),
        hint: Some("set `calibration = \"auto\"`, or remove `calibration_timeout`".to_owned()),
    })
}

/// The keys of a model that have an effect only on worker processes, and where each is written.
pub(super) fn process_keys(model: &WrittenModel) -> Vec<(&'static str, &Origin)> {
    let written = [
        ("on_crash", model.on_crash.as_ref().map(|located| &located.origin)),
        (
            "predict_timeout",
            model.predict_timeout.as_ref().map(|located| &located.origin),
        ),
        (
            "restart_delay",
            model.restart_delay.as_ref().map(|located| &located.origin),
        ),
        (
            "max_restart_delay",
            model.max_restart_delay.as_ref().map(|located| &located.origin),
        ),
    ];
    let written = written.into_iter();
    written.filter_map(|(key, origin)| Some((key, origin?))).collect()
}

/// A key that has no effect because the model runs in a thread.
pub(super) fn process_key_without_process(key: &str, origin: Origin) -> ConfigWarning {
    ConfigWarning {
        origin,
        message: format!("`{key}` has no effect without `isolation = \"process\"`"),
        hint: Some(format!("set `isolation = \"process\"`, or remove `{key}`")),
    }
}

type Found = BTreeMap<Origin, (String, String)>;

fn merged(layers: &BatchingLayers, task: &WrittenBatching) -> WrittenBatching {
    layers
        .flags
        .clone()
        .or(&layers.environment)
        .or(task)
        .or(&layers.file)
        .or(&layers.built_in)
}

/// A delay has an effect only under policies that wait, and should not be zero there.
fn unused_delays(scopes: &[WrittenBatching], found: &mut Found) {
    let mut written: BTreeMap<&Origin, (Duration, bool)> = BTreeMap::new();
    for scope in scopes {
        let (Some(delay), Some(policy)) = (&scope.max_delay, &scope.policy) else {
            continue;
        };
        if delay.origin != Origin::BuiltIn {
            let entry = written.entry(&delay.origin).or_insert((delay.value, false));
            entry.1 |= matches!(policy.value, PolicyName::Adaptive | PolicyName::Fixed);
        }
    }
    for (origin, (delay, used)) in written {
        if !used {
            let message =
                "`max_delay` has no effect: only the policies \"adaptive\" and \"fixed\" wait for more items"
                    .to_owned();
            found.insert(
                origin.clone(),
                (
                    message,
                    "add `policy = \"adaptive\"`, or remove `max_delay`".to_owned(),
                ),
            );
        } else if delay.is_zero() {
            let message = "`max_delay` is zero: batches never wait for more items".to_owned();
            found.insert(
                origin.clone(),
                (
                    message,
                    "use `policy = \"greedy\"`, or a delay such as \"5ms\"".to_owned(),
                ),
            );
        }
    }
}

/// If the queue is shorter than a batch, no batch is ever full.
fn short_queue(scope: &WrittenBatching, found: &mut Found) {
    let (Some(queue), Some(batch), Some(policy)) =
        (&scope.max_queue_size, &scope.max_batch_size, &scope.policy)
    else {
        return;
    };
    let written = [&queue.origin, &batch.origin]
        .into_iter()
        .find(|origin| **origin != Origin::BuiltIn);
    let Some(origin) = written else {
        return;
    };
    if policy.value != PolicyName::Off && queue.value < batch.value {
        let message = format!(
            "`max_queue_size` ({}) is less than `max_batch_size` ({}): no batch can be full",
            queue.value, batch.value
        );
        let hint = format!("raise `max_queue_size` to at least {}", batch.value);
        found.entry(origin.clone()).or_insert((message, hint));
    }
}
