//! Records where the build comes from, and compiles `proto/inference.proto` to Rust with compilers from crates, so that nothing
//! has to be installed.

use std::error::Error;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, UNIX_EPOCH};

/// The files that are compiled into the server, next to the crates of `Cargo.lock`.
const SOURCES: [&str; 7] = [
    "build.rs",
    "Cargo.toml",
    "proto",
    "src",
    "../plugin-sdk/abi",
    "../Cargo.toml",
    "../Cargo.lock",
];

fn main() -> Result<(), Box<dyn Error>> {
    for path in SOURCES.into_iter().filter(|path| Path::new(path).exists()) {
        println!("cargo:rerun-if-changed={path}");
    }
    record_origin()?;
    #[cfg(feature = "grpc")]
    compile_protocol()?;
    Ok(())
}

/// Where the sources come from. Texts are empty if they are unknown.
#[derive(Default)]
struct Origin {
    /// The commit, with `-dirty` if the sources differ from it.
    commit: String,
    /// When it was made, in seconds since the Unix epoch.
    seconds: Option<u64>,
}

/// Passes the commit, the date and the target to `src/build_info.rs`. The date is that of `SOURCE_DATE_EPOCH`, or else that of
/// the commit: with that of the clock, two builds of the same sources would differ.
fn record_origin() -> Result<(), Box<dyn Error>> {
    const EPOCH: &str = "SOURCE_DATE_EPOCH";
    println!("cargo:rerun-if-env-changed={EPOCH}");
    let Origin { commit, seconds } = package().or_else(checkout).unwrap_or_default();
    let seconds = match std::env::var(EPOCH) {
        Ok(text) => {
            let number = text.parse();
            Some(number.map_err(|_| {
                format!("invalid value {text:?} for {EPOCH}: expected seconds since the Unix epoch")
            })?)
        }
        Err(_) => seconds,
    };
    println!("cargo:rustc-env=BUILD_COMMIT={commit}");
    println!(
        "cargo:rustc-env=BUILD_DATE={}",
        seconds.map_or_else(String::new, date)
    );
    println!("cargo:rustc-env=BUILD_TARGET={}", std::env::var("TARGET")?);
    Ok(())
}

/// The origin of a crate that was downloaded: `cargo package` adds a file with the commit.
fn package() -> Option<Origin> {
    let text = std::fs::read_to_string(".cargo_vcs_info.json").ok()?;
    let info: serde_json::Value = serde_json::from_str(&text).ok()?;
    let commit = info["git"]["sha1"].as_str()?;
    Some(Origin {
        commit: with_state(commit, info["git"]["dirty"] == true),
        seconds: None,
    })
}

/// The origin of a checkout. `None` without Git, or in a repository that does not track this file.
fn checkout() -> Option<Origin> {
    git(&["ls-files", "--error-unmatch", "build.rs"])?;
    let commit = git(&["rev-parse", "HEAD"])?;
    let seconds = git(&["show", "--no-patch", "--format=%ct", "HEAD"])?;
    let changed = [
        &["status", "--porcelain", "--untracked-files=no", "--"][..],
        &SOURCES,
    ]
    .concat();
    let is_dirty = !git(&changed)?.is_empty();
    // Only files that exist: a missing one would run this script in every build.
    let log = git(&["rev-parse", "--git-path", "logs/HEAD"]).filter(|path| Path::new(path).exists());
    let branch = git(&["rev-parse", "--symbolic-full-name", "HEAD"])?;
    let heads = match log {
        Some(log) => vec![log],
        None => ["HEAD", "packed-refs", branch.as_str()]
            .into_iter()
            .filter_map(|name| git(&["rev-parse", "--git-path", name]))
            .filter(|path| Path::new(path).exists())
            .collect(),
    };
    for path in heads {
        println!("cargo:rerun-if-changed={path}");
    }
    Some(Origin {
        commit: with_state(&commit, is_dirty),
        seconds: seconds.parse().ok(),
    })
}

/// The output of a command of Git; `None` if it fails.
fn git(arguments: &[&str]) -> Option<String> {
    // Does not write the index, which another process may be using.
    let command = Command::new("git")
        .env("GIT_OPTIONAL_LOCKS", "0")
        .args(arguments)
        .output()
        .ok()?;
    let output = String::from_utf8(command.stdout).ok()?;
    command.status.success().then(|| output.trim().to_owned())
}

fn with_state(commit: &str, is_dirty: bool) -> String {
    format!("{commit}{}", if is_dirty { "-dirty" } else { "" })
}

/// A day such as 2026-01-31, in UTC.
fn date(seconds: u64) -> String {
    let time = humantime::format_rfc3339_seconds(UNIX_EPOCH + Duration::from_secs(seconds)).to_string();
    time.chars().take_while(|c| *c != 'T').collect()
}

#[cfg(feature = "grpc")]
fn compile_protocol() -> Result<(), Box<dyn Error>> {
    use prost::Message as _;

    /// The type `bytes` in descriptors.
    const TYPE_BYTES: i32 = 12;

    let out = std::path::PathBuf::from(std::env::var_os("OUT_DIR").ok_or("cargo sets OUT_DIR")?);
    let mut descriptors = protox::compile(["proto/inference.proto"], ["proto"])?;
    std::fs::write(out.join("inference.bin"), descriptors.encode_to_vec())?;
    // The contents of tensors become `bytes`, which have the same encoding as a message, so that they are decoded only
    // after their number of elements was checked.
    let messages = descriptors
        .file
        .iter_mut()
        .flat_map(|file| &mut file.message_type);
    let tensors = messages
        .filter(|message| message.name() == "ModelInferRequest")
        .flat_map(|message| &mut message.nested_type)
        .filter(|message| message.name() == "InferInputTensor");
    for field in tensors.flat_map(|message| &mut message.field) {
        if field.name() == "contents" {
            field.r#type = Some(TYPE_BYTES);
            field.type_name = None;
        }
    }
    tonic_prost_build::configure()
        .build_client(false)
        // `Bytes` fields remain slices of the message.
        .bytes(".inference")
        .codec_path("crate::grpc::message_codec::BoundedCodec")
        .compile_fds(descriptors)?;
    Ok(())
}
