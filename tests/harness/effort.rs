//! Tests with a short form, for every change, and a long form, which is run manually for its figures.

/// Returns `long` if `INFERENCE_TEST_LONG` is set, otherwise `short`.
pub(crate) fn rounds(short: usize, long: usize) -> usize {
    match std::env::var_os("INFERENCE_TEST_LONG") {
        Some(_) => long,
        None => short,
    }
}

/// Returns the seed of random choices: `INFERENCE_TEST_SEED`, or a random one. Prints it, so that a failure can be reproduced.
pub(crate) fn seed() -> u64 {
    let seed = match std::env::var("INFERENCE_TEST_SEED") {
        Ok(text) => text.parse().expect("INFERENCE_TEST_SEED is a number"),
        Err(_) => fastrand::u64(0..1 << 32),
    };
    eprintln!("the seed is {seed}: set INFERENCE_TEST_SEED={seed} to reproduce the choices");
    seed
}
