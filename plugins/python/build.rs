//! Makes the plugin find its second library in its own directory first: DT_RPATH, unlike DT_RUNPATH, takes precedence over
//! `LD_LIBRARY_PATH`.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rustc-link-arg-cdylib=-Wl,--disable-new-dtags,-rpath,$ORIGIN");
}
