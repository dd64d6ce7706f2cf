//! Suggests what to do about a plugin file that does not exist.

use std::path::{Path, PathBuf};

/// Maximum number of directory entries to compare.
const MAX_ENTRIES: usize = 4096;
/// Minimum similarity, from 0 to 1, of a name that is suggested.
const MIN_SIMILARITY: f64 = 0.75;

/// Where a missing file may be instead. Starts with `; `, or is empty.
pub(super) fn hint(file: &Path) -> String {
    if let Some(other) = other_profile(file) {
        return format!("; did you mean {}?", other.display());
    }
    let directory = match file.parent() {
        Some(directory) if !directory.as_os_str().is_empty() => directory,
        _ => Path::new("."),
    };
    let build = built_by_cargo(file);
    let Ok(entries) = std::fs::read_dir(directory) else {
        return format!("; its directory does not exist or cannot be read{build}");
    };
    let wanted = file.file_name().unwrap_or_default().to_string_lossy();
    let mut best: Option<(f64, String)> = None;
    for entry in entries.flatten().take(MAX_ENTRIES) {
        let name = entry.file_name().to_string_lossy().into_owned();
        let similarity = similarity(&wanted, &name);
        if similarity >= MIN_SIMILARITY && best.as_ref().is_none_or(|(most, _)| similarity > *most) {
            best = Some((similarity, name));
        }
    }
    match best {
        Some((_, name)) => format!("; did you mean {name}?"),
        None => build.to_owned(),
    }
}

/// The same library from the other cargo profile, if it exists.
fn other_profile(file: &Path) -> Option<PathBuf> {
    let directory = file.parent()?;
    let other = match directory.file_name()?.to_str()? {
        "release" => "debug",
        "debug" => "release",
        _ => return None,
    };
    let candidate = directory.with_file_name(other).join(file.file_name()?);
    candidate.is_file().then_some(candidate)
}

fn built_by_cargo(file: &Path) -> &'static str {
    let in_profile = |profile| {
        file.parent()
            .and_then(Path::file_name)
            .is_some_and(|name| name == profile)
    };
    if in_profile("release") {
        "; build it with `cargo build --release`"
    } else if in_profile("debug") {
        "; build it with `cargo build`"
    } else {
        ""
    }
}

/// Similarity from 0 to 1. Ignores the differences between `-` and `_`, and the prefix `lib` and suffix `.so`, which cargo adds.
fn similarity(wanted: &str, name: &str) -> f64 {
    // Only libraries are suggested. Cargo's dep-info file would be the most similar of all.
    if name == wanted || !(name.ends_with(".so") || name.contains(".so.")) {
        return 0.0;
    }
    strsim::normalized_damerau_levenshtein(&normalize(wanted), &normalize(name))
}

fn normalize(name: &str) -> String {
    let name = name.replace('-', "_");
    let name = name.strip_suffix(".so").unwrap_or(&name);
    name.strip_prefix("lib").unwrap_or(name).to_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hint_for_a_missing_file_names_a_similar_one() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let release = directory.path().join("target/release");
        let debug = directory.path().join("target/debug");
        for (directory, name) in [
            (&release, "libmy_model.so"),
            (&debug, "libother.so"),
            (&release, "libmy_model.d"),
        ] {
            std::fs::create_dir_all(directory).expect("directory is created");
            std::fs::write(directory.join(name), "").expect("file is written");
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
                "; build it with `cargo build --release`".to_owned(),
            ),
            (
                directory.path().join("nowhere/libabsent.so"),
                "; its directory does not exist or cannot be read".to_owned(),
            ),
        ];
        for (file, expected) in cases {
            assert_eq!(hint(&file), expected, "{}", file.display());
        }
    }
}
