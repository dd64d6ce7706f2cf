//! What a new configuration asks for, as a function of what there is and what is wanted. Touches nothing.

use std::collections::BTreeMap;

use super::fingerprint::Fingerprint;
use crate::config::ModelSettings;

/// A model that serves (or failed to load) at present.
pub(super) struct Present<'a> {
    pub(super) settings: &'a ModelSettings,
    /// The files that it was loaded from; `None` if it does not serve.
    pub(super) fingerprint: Option<&'a Fingerprint>,
}

/// A model as the new configuration has it.
pub(super) struct Wanted<'a> {
    pub(super) settings: &'a ModelSettings,
    pub(super) fingerprint: &'a Fingerprint,
}

/// What to do with one configured model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Load a generation: the model is new, failed before, or its plugin, files or settings changed.
    Load(Reason),
    /// Keep the generation and change how it is used.
    Reconfigure,
    /// Nothing changed.
    Keep,
}

/// Why a generation is loaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reason {
    /// There is no such model yet.
    Added,
    /// It is configured but does not serve.
    NotServing,
    /// Its plugin, its settings or its workers were changed.
    Settings,
    /// The plugin or a file that the settings name was rebuilt or replaced.
    Files,
}

impl Reason {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Added => "added",
            Self::NotServing => "not serving before",
            Self::Settings => "settings changed",
            Self::Files => "files changed",
        }
    }
}

/// The steps, one per wanted model and in the same order, and the names of the models to remove.
pub(super) fn plan(present: &BTreeMap<&str, Present<'_>>, wanted: &[Wanted<'_>]) -> (Vec<Step>, Vec<String>) {
    let steps = wanted
        .iter()
        .map(|wanted| step(present.get(wanted.settings.name.as_str()), wanted))
        .collect();
    let removed = present
        .keys()
        .filter(|name| wanted.iter().all(|wanted| wanted.settings.name != **name))
        .map(|name| (*name).to_owned())
        .collect();
    (steps, removed)
}

fn step(present: Option<&Present<'_>>, wanted: &Wanted<'_>) -> Step {
    let Some(present) = present else {
        return Step::Load(Reason::Added);
    };
    let Some(fingerprint) = present.fingerprint else {
        return Step::Load(Reason::NotServing);
    };
    if present.settings.needs_reload(wanted.settings) {
        Step::Load(Reason::Settings)
    } else if fingerprint != wanted.fingerprint {
        Step::Load(Reason::Files)
    } else if present.settings != wanted.settings {
        Step::Reconfigure
    } else {
        Step::Keep
    }
}
