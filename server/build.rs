//! Compiles `proto/inference.proto` to Rust, with compilers from crates, so that nothing has to be installed.

#[cfg(feature = "grpc")]
fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=proto");
    compile()
}

#[cfg(not(feature = "grpc"))]
fn main() {
    println!("cargo:rerun-if-changed=build.rs");
}

#[cfg(feature = "grpc")]
fn compile() -> Result<(), Box<dyn std::error::Error>> {
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
