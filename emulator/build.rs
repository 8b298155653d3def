//! Gives the shared library the SONAME of the real driver.
//!
//! The file is called `libcuemu.so`, so that it never shadows a real driver on a search path; but once a test has
//! loaded it, glibc answers a later `dlopen("libcuda.so")` with it, because it matches libraries by SONAME first.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rustc-cdylib-link-arg=-Wl,-soname,libcuda.so");
}
