//! What to say about a plugin file that is not there.

use std::path::{Path, PathBuf};

/// At most this many entries of the folder are looked at.
const MOST_ENTRIES: usize = 4096;
/// How alike two names must be, from 0 to 1, for one to be a slip of the other.
const ALIKE: f64 = 0.75;

/// Where a missing file may be instead. Starts with `; `, or is empty.
pub(super) fn for_missing_file(file: &Path) -> String {
    if let Some(other) = other_profile(file) {
        return format!("; did you mean {}?", other.display());
    }
    let folder = match file.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    let build = built_by_cargo(file);
    let Ok(entries) = std::fs::read_dir(folder) else {
        return format!("; its folder does not exist or cannot be read{build}");
    };
    let wanted = file.file_name().unwrap_or_default().to_string_lossy();
    let mut best: Option<(f64, String)> = None;
    for entry in entries.flatten().take(MOST_ENTRIES) {
        let name = entry.file_name().to_string_lossy().into_owned();
        let likeness = likeness(&wanted, &name);
        if likeness >= ALIKE && best.as_ref().is_none_or(|(most, _)| likeness > *most) {
            best = Some((likeness, name));
        }
    }
    match best {
        Some((_, name)) => format!("; did you mean {name}?"),
        None => build.to_owned(),
    }
}

/// The same library from the other profile of cargo, if it was built there.
fn other_profile(file: &Path) -> Option<PathBuf> {
    let folder = file.parent()?;
    let other = match folder.file_name()?.to_str()? {
        "release" => "debug",
        "debug" => "release",
        _ => return None,
    };
    let candidate = folder.with_file_name(other).join(file.file_name()?);
    candidate.is_file().then_some(candidate)
}

fn built_by_cargo(file: &Path) -> &'static str {
    let in_profile = |profile| {
        file.parent()
            .and_then(Path::file_name)
            .is_some_and(|name| name == profile)
    };
    if in_profile("release") {
        "; has it been built? (cargo build --release)"
    } else if in_profile("debug") {
        "; has it been built? (cargo build)"
    } else {
        ""
    }
}

/// From 0 to 1. `-` and `_`, a missing `lib` and a missing `.so` do not count: cargo turns the one into the other.
fn likeness(wanted: &str, name: &str) -> f64 {
    // Only libraries are worth offering, and cargo's dep-info file has the best name of all.
    if name == wanted || !(name.ends_with(".so") || name.contains(".so.")) {
        return 0.0;
    }
    strsim::normalized_damerau_levenshtein(&bare(wanted), &bare(name))
}

fn bare(name: &str) -> String {
    let name = name.replace('-', "_");
    let name = name.strip_suffix(".so").unwrap_or(&name);
    name.strip_prefix("lib").unwrap_or(name).to_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_file_is_answered_with_what_is_there_instead() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let release = folder.path().join("target/release");
        let debug = folder.path().join("target/debug");
        for (folder, name) in [
            (&release, "libmy_model.so"),
            (&debug, "libother.so"),
            (&release, "libmy_model.d"),
        ] {
            std::fs::create_dir_all(folder).expect("folder is created");
            std::fs::write(folder.join(name), "").expect("file is written");
        }
        let cases = [
            (
                release.join("libmy-model.so"),
                "; did you mean libmy_model.so?".to_owned(),
            ),
            (
                release.join("my_model"),
                "; did you mean libmy_model.so?".to_owned(),
            ),
            (
                release.join("libmy_modle.so"),
                "; did you mean libmy_model.so?".to_owned(),
            ),
            (
                release.join("libother.so"),
                format!("; did you mean {}?", debug.join("libother.so").display()),
            ),
            (
                release.join("libabsent.so"),
                "; has it been built? (cargo build --release)".to_owned(),
            ),
            (
                folder.path().join("nowhere/libabsent.so"),
                "; its folder does not exist or cannot be read".to_owned(),
            ),
        ];
        for (file, hint) in cases {
            assert_eq!(for_missing_file(&file), hint, "{}", file.display());
        }
    }
}
