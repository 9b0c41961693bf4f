//! Compiles the kernels and the emulation with g++.

use std::{env, ffi::OsStr, fs, path::Path, path::PathBuf, process::Command};

fn main() {
    let kernels = Path::new("../kernels");
    println!("cargo::rerun-if-changed={}", kernels.display());
    for extension in ["cc", "h"] {
        for file in with_extension(Path::new("."), extension) {
            println!("cargo::rerun-if-changed={}", file.display());
        }
    }
    if let Err(error) = Command::new("g++").arg("--version").output() {
        let hint = "install it, as by `apt-get install g++`";
        println!(
            "cargo::error=the emulation of CUDA kernels is compiled by g++, which does not start ({error}): {hint}"
        );
        return;
    }
    let mut engine = compiler();
    engine.file("cuda_emu.cc").compile("engine");
    let mut entries = compiler();
    entries.files(with_extension(kernels, "cu"));
    // each kernel enters itself into a table, and nothing else names it
    entries.link_lib_modifier("+whole-archive").compile("kernels");
    println!("cargo::rustc-link-lib=stdc++");
}

/// g++ as `cuda_emu.h` asks for it.
fn compiler() -> cc::Build {
    let mut build = cc::Build::new();
    build
        .cpp(true)
        .compiler("g++")
        .std("c++17")
        .opt_level(2)
        .warnings(false);
    build.flags(["-ffp-contract=off", "-fsanitize=bounds", "-x", "c++"]);
    if env::var("TARGET") == env::var("HOST") {
        build.flag("-march=native");
    }
    build.cpp_link_stdlib(None);
    build
}

fn with_extension(folder: &Path, extension: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut found: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
    found.retain(|path| path.extension() == Some(OsStr::new(extension)));
    found.sort();
    found
}
