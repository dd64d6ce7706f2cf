//! Turns `proto/inference.proto` into Rust, with compilers that are crates: nothing has to be installed.

use std::error::Error;
use std::path::PathBuf;

use prost::Message as _;

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=proto");
    let out = PathBuf::from(std::env::var_os("OUT_DIR").ok_or("cargo sets OUT_DIR")?);
    let descriptors = protox::compile(["proto/inference.proto"], ["proto"])?;
    std::fs::write(out.join("inference.bin"), descriptors.encode_to_vec())?;
    tonic_prost_build::configure()
        .build_client(false)
        // Tensors stay slices of the message.
        .bytes(".inference")
        .compile_fds(descriptors)?;
    Ok(())
}
