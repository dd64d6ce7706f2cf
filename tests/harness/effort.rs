//! Some tests have a short form, for every change, and a long one, whose figures somebody reads.

/// `long` where `INFERENCE_TEST_LONG` is set, else `short`.
pub(crate) fn rounds(short: usize, long: usize) -> usize {
    match std::env::var_os("INFERENCE_TEST_LONG") {
        Some(_) => long,
        None => short,
    }
}

/// What random choices start from: `INFERENCE_TEST_SEED`, else anything. It is printed, so that a failure can be had again.
pub(crate) fn seed() -> u64 {
    let seed = match std::env::var("INFERENCE_TEST_SEED") {
        Ok(text) => text.parse().expect("INFERENCE_TEST_SEED is a number"),
        Err(_) => fastrand::u64(0..1 << 32),
    };
    eprintln!("the seed is {seed}; INFERENCE_TEST_SEED={seed} makes the same choices again");
    seed
}
