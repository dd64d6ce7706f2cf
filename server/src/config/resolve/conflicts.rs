//! Errors of values that are valid alone, but not together.

use std::collections::BTreeMap;

use crate::config::document::Document;
use crate::config::error::{ConfigError, Origin};
use crate::config::file::ModelTable;
use crate::config::keys::IsolationName;
use crate::config::section::Located;
use crate::resources::Sandbox;

/// Names of models, and routes, must be unique.
pub(super) fn reject_duplicates(
    document: &Document<'_>,
    models: &[ModelTable],
    errors: &mut Vec<ConfigError>,
) {
    let names = models.iter().filter_map(|model| model.keys.name.as_ref());
    let routes = models
        .iter()
        .flat_map(|model| &model.tasks)
        .filter_map(|task| task.route.as_ref());
    let name_hint = |first: &Origin| format!("first used at {first}; give each model its own name");
    let route_hint = |first: &Origin| format!("first used at {first}; give each task its own route");
    reject_repeated(document, "model name", names, name_hint, errors);
    reject_repeated(document, "route", routes, route_hint, errors);
}

/// Limits apply to processes: the threads of one process share its memory, its environment and its files.
pub(super) fn reject_limits_in_threads(
    document: &Document<'_>,
    models: &[ModelTable],
    errors: &mut Vec<ConfigError>,
) {
    for model in models {
        let keys = &model.keys;
        if keys
            .isolation
            .as_ref()
            .is_some_and(|located| located.value == IsolationName::Process)
        {
            continue;
        }
        let of = |name, origin: Option<&Origin>| origin.map(|origin| (name, origin.clone()));
        let env = model.env.as_ref().map(|env| Origin::File(env.header.clone()));
        let written = [
            of(
                "`max_memory`",
                keys.max_memory.as_ref().map(|located| &located.origin),
            ),
            of("`cpus`", keys.cpus.as_ref().map(|located| &located.origin)),
            of(
                "`sandbox`",
                keys.sandbox
                    .as_ref()
                    .filter(|located| located.value != Sandbox::Off)
                    .map(|located| &located.origin),
            ),
            of("[models.env]", env.as_ref()),
        ];
        for (name, origin) in written.into_iter().flatten() {
            let message = format!("{name} requires `isolation = \"process\"`");
            let hint = format!("add `isolation = \"process\"` to the model, or remove {name}");
            errors.push(ConfigError {
                excerpt: document.line_of(&origin),
                ..ConfigError::new(origin, message, Some(hint))
            });
        }
    }
}

/// A budget has an effect only on batches whose memory is predicted.
pub(super) fn reject_unpredictable_budgets(
    document: &Document<'_>,
    models: &[ModelTable],
    errors: &mut Vec<ConfigError>,
) {
    let budgets = models.iter().filter(|model| model.keys.calibration.is_none());
    for budget in budgets.filter_map(|model| model.keys.memory_budget.as_ref()) {
        let hint =
            "add `calibration = \"auto\"` to the model, or the file that `inference-server calibrate` writes";
        errors.push(ConfigError {
            excerpt: document.line_of(&budget.origin),
            ..ConfigError::new(
                budget.origin.clone(),
                "`memory_budget` requires `calibration`".to_owned(),
                Some(hint.to_owned()),
            )
        });
    }
}

fn reject_repeated<'a>(
    document: &Document<'_>,
    what: &str,
    all: impl Iterator<Item = &'a Located<String>>,
    hint: impl Fn(&Origin) -> String,
    errors: &mut Vec<ConfigError>,
) {
    let mut all: Vec<_> = all.collect();
    all.sort_by(|a, b| a.origin.cmp(&b.origin));
    let mut first_of: BTreeMap<&str, &Origin> = BTreeMap::new();
    for located in all {
        match first_of.get(located.value.as_str()) {
            Some(first) => errors.push(ConfigError {
                excerpt: document.line_of(&located.origin),
                ..ConfigError::new(
                    located.origin.clone(),
                    format!("duplicate {what} \"{}\"", located.value),
                    Some(hint(first)),
                )
            }),
            None => {
                first_of.insert(&located.value, &located.origin);
            }
        }
    }
}
