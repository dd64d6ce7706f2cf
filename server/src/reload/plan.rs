//! Plans a reload: a pure function from the current and the desired models to steps.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use super::fingerprint::Fingerprint;
use crate::config::ModelSettings;

/// A model that is serving or has failed to load.
pub(super) struct Current<'a> {
    pub(super) settings: &'a ModelSettings,
    /// The fingerprint of its files; `None` if it is not serving.
    pub(super) fingerprint: Option<&'a Fingerprint>,
    /// Whether a client has unloaded it.
    pub(super) unloaded: bool,
}

/// A model in the new configuration.
pub(super) struct Desired<'a> {
    pub(super) settings: &'a ModelSettings,
    pub(super) fingerprint: &'a Fingerprint,
}

/// The step for one configured model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Load a new generation: the model is new, is not serving, or its plugin, files or settings changed.
    Load(Reason),
    /// Keep the generation and apply new settings to it.
    Reconfigure,
    /// Change nothing.
    Keep,
}

/// Why a new generation is loaded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Reason {
    /// The model is new.
    Added,
    /// It is configured but not serving.
    NotServing,
    /// A client has unloaded it. A reload loads all configured models.
    Unloaded,
    /// Its plugin, settings or workers changed.
    Settings,
    /// These files changed: the plugin, files that the settings name, or files that the model has reported.
    Files(Vec<PathBuf>),
}

/// Maximum number of files to list in the log. Further files are only counted.
const MAX_LISTED_FILES: usize = 5;

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Added => f.write_str("added"),
            Self::NotServing => f.write_str("it was not serving"),
            Self::Unloaded => {
                f.write_str("it was unloaded by a client, and a reload loads all configured models")
            }
            Self::Settings => f.write_str("settings changed"),
            Self::Files(files) => {
                f.write_str("files changed: ")?;
                for (index, file) in files.iter().take(MAX_LISTED_FILES).enumerate() {
                    let separator = if index > 0 { ", " } else { "" };
                    write!(f, "{separator}{}", file.display())?;
                }
                match files.len().saturating_sub(MAX_LISTED_FILES) {
                    0 => Ok(()),
                    more => write!(f, " and {more} more"),
                }
            }
        }
    }
}

/// The steps, one per desired model in the same order, and the names of the models to remove.
pub(super) fn plan(
    current: &BTreeMap<&str, Current<'_>>,
    desired: &[Desired<'_>],
) -> (Vec<Step>, Vec<String>) {
    let steps = desired
        .iter()
        .map(|desired| step(current.get(desired.settings.name.as_str()), desired))
        .collect();
    let removed = current
        .keys()
        .filter(|name| desired.iter().all(|desired| desired.settings.name != **name))
        .map(|name| (*name).to_owned())
        .collect();
    (steps, removed)
}

fn step(current: Option<&Current<'_>>, desired: &Desired<'_>) -> Step {
    let Some(current) = current else {
        return Step::Load(Reason::Added);
    };
    let Some(fingerprint) = current.fingerprint else {
        return Step::Load(if current.unloaded {
            Reason::Unloaded
        } else {
            Reason::NotServing
        });
    };
    if current.settings.needs_reload(desired.settings) {
        Step::Load(Reason::Settings)
    } else if fingerprint != desired.fingerprint {
        Step::Load(Reason::Files(fingerprint.changed_files(desired.fingerprint)))
    } else if current.settings != desired.settings {
        Step::Reconfigure
    } else {
        Step::Keep
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::num::NonZeroUsize;
    use std::path::{Path, PathBuf};
    use std::time::Duration;

    use super::*;
    use crate::config::{Facts, Overrides, Source, resolve};

    fn models(text: &str) -> Vec<ModelSettings> {
        let source = Source {
            file_name: "models.toml",
            text,
            base_dir: Path::new("/etc"),
        };
        let facts = Facts {
            executable_dir: PathBuf::from("/opt"),
            cores: NonZeroUsize::MIN,
            temp_dir: PathBuf::from("/tmp"),
            memory: Some(8 << 30),
        };
        resolve(source, &BTreeMap::new(), &Overrides::none(), &facts)
            .expect("the test's configuration is valid")
            .models
    }

    /// Plans the change from one configuration to another without changed files.
    fn steps(old: &str, new: &str) -> (Vec<Step>, Vec<String>) {
        let (old, new) = (models(old), models(new));
        let files = Fingerprint::default();
        let current = old
            .iter()
            .map(|settings| {
                (
                    settings.name.as_str(),
                    Current {
                        settings,
                        fingerprint: Some(&files),
                        unloaded: false,
                    },
                )
            })
            .collect();
        let desired: Vec<Desired<'_>> = new
            .iter()
            .map(|settings| Desired {
                settings,
                fingerprint: &files,
            })
            .collect();
        plan(&current, &desired)
    }

    const ONE: &str = "[[models]]\nname = 'one'\nplugin = 'echo'\n";

    #[test]
    fn an_unchanged_model_is_kept() {
        assert_eq!(steps(ONE, ONE), (vec![Step::Keep], vec![]));
    }

    #[test]
    fn a_comment_changes_nothing() {
        assert_eq!(
            steps(ONE, &format!("# hello\n\n{ONE}")),
            (vec![Step::Keep], vec![])
        );
    }

    #[test]
    fn a_change_of_batching_does_not_load_the_plugin_again() {
        let other = format!("{ONE}[models.batching]\nmax_batch_size = 3\n");
        assert_eq!(steps(ONE, &other), (vec![Step::Reconfigure], vec![]));
    }

    #[test]
    fn a_change_of_settings_loads_a_new_generation() {
        let other = format!("{ONE}[models.settings]\nlanguage = 'de'\n");
        assert_eq!(steps(ONE, &other), (vec![Step::Load(Reason::Settings)], vec![]));
    }

    #[test]
    fn adding_a_model_keeps_the_others() {
        let both = format!("{ONE}[[models]]\nname = 'two'\nplugin = 'echo'\n");
        assert_eq!(
            steps(ONE, &both),
            (vec![Step::Keep, Step::Load(Reason::Added)], vec![])
        );
    }

    #[test]
    fn a_renamed_model_is_loaded_under_its_new_name_and_removed_under_its_old_one() {
        let renamed = ONE.replace("one", "uno");
        assert_eq!(
            steps(ONE, &renamed),
            (vec![Step::Load(Reason::Added)], vec!["one".to_owned()])
        );
    }

    #[test]
    fn a_model_that_is_not_serving_is_loaded_again() {
        let one = models(ONE);
        let files = Fingerprint::default();
        let current = BTreeMap::from([(
            "one",
            Current {
                settings: &one[0],
                fingerprint: None,
                unloaded: false,
            },
        )]);
        let desired = [Desired {
            settings: &one[0],
            fingerprint: &files,
        }];
        assert_eq!(plan(&current, &desired).0, [Step::Load(Reason::NotServing)]);
    }

    #[test]
    fn a_replaced_file_loads_a_new_generation() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let file = directory.path().join("weights.bin");
        let text = format!("{ONE}[models.settings]\nweights = '{}'\n", file.display());
        let one = models(&text);
        std::fs::write(&file, "old").expect("the directory is writable");
        let before = Fingerprint::of(&one[0]);
        assert_eq!(before, Fingerprint::of(&one[0]));
        std::fs::write(&file, "newer").expect("the directory is writable");
        let after = Fingerprint::of(&one[0]);
        let current = BTreeMap::from([(
            "one",
            Current {
                settings: &one[0],
                fingerprint: Some(&before),
                unloaded: false,
            },
        )]);
        let desired = [Desired {
            settings: &one[0],
            fingerprint: &after,
        }];
        assert_eq!(
            plan(&current, &desired).0,
            [Step::Load(Reason::Files(vec![file]))]
        );
    }

    #[test]
    fn a_reported_file_is_unchanged_until_it_is_written() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let file = directory.path().join("model.py");
        let reported = [file.clone()];
        std::fs::write(&file, "old").expect("the directory is writable");
        let one = models(ONE);
        let loading = |since| Fingerprint::of(&one[0]).with_reported_by_load(&reported, since);
        let now = || Fingerprint::of(&one[0]).with_reported(&reported);
        let loaded = loading(Duration::MAX);
        assert_eq!(loaded, now());
        assert_ne!(loading(Duration::ZERO), now(), "changed during the load");
        std::fs::write(&file, "newer").expect("the directory is writable");
        assert_ne!(loaded, now());
    }
}
