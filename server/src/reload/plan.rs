//! What a new configuration asks for, as a function of what there is and what is wanted. Touches nothing.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use super::fingerprint::Fingerprint;
use crate::config::ModelSettings;

/// A model that serves (or failed to load) at present.
pub(super) struct Present<'a> {
    pub(super) settings: &'a ModelSettings,
    /// The files that it was loaded from; `None` if it does not serve.
    pub(super) fingerprint: Option<&'a Fingerprint>,
    /// Whether a client has unloaded it.
    pub(super) unloaded: bool,
}

/// A model as the new configuration has it.
pub(super) struct Wanted<'a> {
    pub(super) settings: &'a ModelSettings,
    pub(super) fingerprint: &'a Fingerprint,
}

/// What to do with one configured model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Load a generation: the model is new, failed before, or its plugin, files or settings changed.
    Load(Reason),
    /// Keep the generation and change how it is used.
    Reconfigure,
    /// Nothing changed.
    Keep,
}

/// Why a generation is loaded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Reason {
    /// There is no such model yet.
    Added,
    /// It is configured but does not serve.
    NotServing,
    /// A client has unloaded it. A reload loads all configured models.
    Unloaded,
    /// Its plugin, its settings or its workers were changed.
    Settings,
    /// The plugin, a file that the settings name, or one that the model has reported was rebuilt or replaced:
    /// these files.
    Files(Vec<PathBuf>),
}

/// Files that are named in the log; of the others, only their number is given.
const MAX_FILES: usize = 5;

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Added => f.write_str("added"),
            Self::NotServing => f.write_str("not serving before"),
            Self::Unloaded => f.write_str("a client had unloaded it; a reload loads all configured models"),
            Self::Settings => f.write_str("settings changed"),
            Self::Files(files) => {
                f.write_str("files changed: ")?;
                for (index, file) in files.iter().take(MAX_FILES).enumerate() {
                    let separator = if index > 0 { ", " } else { "" };
                    write!(f, "{separator}{}", file.display())?;
                }
                match files.len().saturating_sub(MAX_FILES) {
                    0 => Ok(()),
                    more => write!(f, " and {more} more"),
                }
            }
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
        return Step::Load(if present.unloaded {
            Reason::Unloaded
        } else {
            Reason::NotServing
        });
    };
    if present.settings.needs_reload(wanted.settings) {
        Step::Load(Reason::Settings)
    } else if fingerprint != wanted.fingerprint {
        Step::Load(Reason::Files(fingerprint.changed_files(wanted.fingerprint)))
    } else if present.settings != wanted.settings {
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
        };
        resolve(source, &BTreeMap::new(), &Overrides::none(), &facts)
            .expect("the test's configuration is right")
            .models
    }

    /// Plans from one configuration to another, with all files unchanged.
    fn steps(old: &str, new: &str) -> (Vec<Step>, Vec<String>) {
        let (old, new) = (models(old), models(new));
        let files = Fingerprint::default();
        let present = old
            .iter()
            .map(|settings| {
                (
                    settings.name.as_str(),
                    Present {
                        settings,
                        fingerprint: Some(&files),
                        unloaded: false,
                    },
                )
            })
            .collect();
        let wanted: Vec<Wanted<'_>> = new
            .iter()
            .map(|settings| Wanted {
                settings,
                fingerprint: &files,
            })
            .collect();
        plan(&present, &wanted)
    }

    const ONE: &str = "[[models]]\nname = 'one'\nplugin = 'echo'\n";

    #[test]
    fn what_did_not_change_is_kept() {
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
    fn other_batching_does_not_load_the_plugin_again() {
        let other = format!("{ONE}[models.batching]\nmax_batch_size = 3\n");
        assert_eq!(steps(ONE, &other), (vec![Step::Reconfigure], vec![]));
    }

    #[test]
    fn other_settings_load_a_new_generation() {
        let other = format!("{ONE}[models.settings]\nlanguage = 'de'\n");
        assert_eq!(steps(ONE, &other), (vec![Step::Load(Reason::Settings)], vec![]));
    }

    #[test]
    fn a_model_is_added_beside_the_others() {
        let both = format!("{ONE}[[models]]\nname = 'two'\nplugin = 'echo'\n");
        assert_eq!(
            steps(ONE, &both),
            (vec![Step::Keep, Step::Load(Reason::Added)], vec![])
        );
    }

    #[test]
    fn a_renamed_model_is_loaded_under_its_new_name_and_removed_under_the_old_one() {
        let renamed = ONE.replace("one", "uno");
        assert_eq!(
            steps(ONE, &renamed),
            (vec![Step::Load(Reason::Added)], vec!["one".to_owned()])
        );
    }

    #[test]
    fn a_model_that_does_not_serve_is_tried_again() {
        let one = models(ONE);
        let files = Fingerprint::default();
        let present = BTreeMap::from([(
            "one",
            Present {
                settings: &one[0],
                fingerprint: None,
                unloaded: false,
            },
        )]);
        let wanted = [Wanted {
            settings: &one[0],
            fingerprint: &files,
        }];
        assert_eq!(plan(&present, &wanted).0, [Step::Load(Reason::NotServing)]);
    }

    #[test]
    fn a_file_that_was_replaced_loads_a_new_generation() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("weights.bin");
        let text = format!("{ONE}[models.settings]\nweights = '{}'\n", file.display());
        let one = models(&text);
        std::fs::write(&file, "old").expect("the folder is ours");
        let before = Fingerprint::of(&one[0]);
        assert_eq!(before, Fingerprint::of(&one[0]));
        std::fs::write(&file, "newer").expect("the folder is ours");
        let after = Fingerprint::of(&one[0]);
        let present = BTreeMap::from([(
            "one",
            Present {
                settings: &one[0],
                fingerprint: Some(&before),
                unloaded: false,
            },
        )]);
        let wanted = [Wanted {
            settings: &one[0],
            fingerprint: &after,
        }];
        assert_eq!(plan(&present, &wanted).0, [Step::Load(Reason::Files(vec![file]))]);
    }

    #[test]
    fn a_file_that_a_model_reports_counts_until_it_is_touched() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("model.py");
        let reported = [file.clone()];
        std::fs::write(&file, "old").expect("the folder is ours");
        let one = models(ONE);
        let loading = |since| Fingerprint::of(&one[0]).with_loaded(&reported, since);
        let now = || Fingerprint::of(&one[0]).with(&reported);
        let loaded = loading(Duration::MAX);
        assert_eq!(loaded, now());
        assert_ne!(loading(Duration::ZERO), now(), "touched while it was loaded");
        std::fs::write(&file, "newer").expect("the folder is ours");
        assert_ne!(loaded, now());
    }
}
