//! Where this build of the server comes from. `build.rs` records the commit, the date and the target.

use abi_stable::library::RootModule as _;
use plugin_abi::PluginModule_Ref;

/// The version of the server.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The commit that the server was built from, with `-dirty` if its sources were changed. `None` if it is unknown, because the
/// sources were not in a Git repository.
pub const COMMIT: Option<&str> = known(env!("BUILD_COMMIT"));

/// The day of the commit, or that of `SOURCE_DATE_EPOCH`, such as `2026-01-31`: builds of the same sources are equal.
pub const DATE: Option<&str> = known(env!("BUILD_DATE"));

/// The target triple, such as `x86_64-unknown-linux-gnu`.
pub const TARGET: &str = env!("BUILD_TARGET");

/// The text for a fact that is unknown.
pub const UNKNOWN: &str = "unknown";

/// The optional features of the server, and whether this build has them.
const FEATURES: [(&str, bool); 9] = [
    ("grpc", cfg!(feature = "grpc")),
    ("docs", cfg!(feature = "docs")),
    ("batch", cfg!(feature = "batch")),
    ("bench", cfg!(feature = "bench")),
    ("calibrate", cfg!(feature = "calibrate")),
    ("jobs", cfg!(feature = "jobs")),
    ("sandbox", cfg!(feature = "sandbox")),
    ("status", cfg!(feature = "status")),
    ("traces", cfg!(feature = "traces")),
];

const fn known(text: &'static str) -> Option<&'static str> {
    if text.is_empty() { None } else { Some(text) }
}

/// The version of the plugin ABI. Plugins that were built for an earlier version with the same major version load.
pub fn abi_version() -> &'static str {
    PluginModule_Ref::VERSION_STRINGS.version.as_str()
}

/// The optional features of this build.
pub fn features() -> impl Iterator<Item = &'static str> {
    FEATURES.into_iter().filter_map(|(name, has)| has.then_some(name))
}

/// All facts, for `--version`: the version, then a line per fact.
pub fn describe() -> String {
    let features: Vec<&str> = features().collect();
    let features = match features[..] {
        [] => "none".to_owned(),
        _ => features.join(", "),
    };
    format!(
        "{VERSION}\ncommit:     {}\nbuilt:      {}\nplugin ABI: {}\ntarget:     {TARGET}\nfeatures:   {features}",
        COMMIT.unwrap_or(UNKNOWN),
        DATE.unwrap_or(UNKNOWN),
        abi_version(),
    )
}

/// The facts in one line, for the log.
pub fn summary() -> String {
    format!(
        "{VERSION}, commit {} of {}, plugin ABI {}, {TARGET}",
        COMMIT.unwrap_or(UNKNOWN),
        DATE.unwrap_or(UNKNOWN),
        abi_version(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_build_in_a_checkout_knows_its_commit_and_its_date() {
        let tracked = std::process::Command::new("git")
            .args(["ls-files", "--error-unmatch", "build.rs"])
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .output();
        if !tracked.is_ok_and(|output| output.status.success()) {
            // The sources are in an archive.
            return;
        }
        let commit = COMMIT.expect("the commit is known");
        let hash = commit.strip_suffix("-dirty").unwrap_or(commit);
        assert!(
            hash.len() >= 40 && hash.chars().all(|c| c.is_ascii_hexdigit()),
            "{commit}"
        );
        let date = DATE.expect("the date is known");
        let parts: Vec<usize> = date.split('-').map(str::len).collect();
        assert_eq!(parts, [4, 2, 2], "{date}");
    }

    #[test]
    fn the_description_has_a_line_per_fact() {
        let text = describe();
        let names: Vec<&str> = text
            .lines()
            .skip(1)
            .filter_map(|line| line.split_once(':'))
            .map(|(name, _)| name)
            .collect();
        assert_eq!(names, ["commit", "built", "plugin ABI", "target", "features"]);
        assert!(text.starts_with(VERSION), "{text}");
    }
}
