//! Lets the plugin find its other library in its own folder, and nowhere else as long as it is there: an old-style run path
//! goes before `LD_LIBRARY_PATH`.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rustc-link-arg-cdylib=-Wl,--disable-new-dtags,-rpath,$ORIGIN");
}
