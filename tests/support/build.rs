//! Building the programs and plugins that tests run, with the profile of the test that runs.

use std::{
    collections::HashMap,
    fs::{self, File},
    path::{Path, PathBuf},
    process::Command,
    sync::{Mutex, OnceLock, PoisonError},
};

use tempfile::TempDir;

/// The folder of the running test's profile, such as `target/debug`.
fn profile_dir() -> PathBuf {
    let test = std::env::current_exe().expect("the test's own path");
    let dir = test.parent().and_then(Path::parent);
    dir.expect("tests run from target/PROFILE/deps").to_owned()
}

/// Runs `cargo build` with `arguments` into `target_dir`, with the running test's profile.
fn cargo_build(arguments: &[&str], target_dir: &Path) {
    let profile = match profile_dir().file_name().and_then(|name| name.to_str()) {
        Some("debug") | None => "dev".to_owned(),
        Some(name) => name.to_owned(),
    };
    let status = Command::new(std::env::var_os("CARGO").unwrap_or("cargo".into()))
        .args(["build", "--quiet", "--locked", "--profile", &profile, "--target-dir"])
        .arg(target_dir)
        .args(arguments)
        .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
        .status()
        .expect("cargo runs");
    assert!(status.success(), "cargo build {arguments:?} failed");
}

/// The binary `host`, built once a process together with Graft's own backends, which then lie beside it.
pub fn host() -> PathBuf {
    static HOST: OnceLock<PathBuf> = OnceLock::new();
    let build = || {
        let profile = profile_dir();
        let target = profile.parent().expect("a target folder");
        let packages = ["host", "backend-cpu", "backend-cuda37"];
        cargo_build(&packages.map(|package| ["--package", package]).concat(), target);
        profile.join("host")
    };
    HOST.get_or_init(build).clone()
}

/// A folder of its own with `host` in it and nothing else. It is a link: a copy could not be run while another thread, just
/// starting a process, still holds it open for writing.
pub fn installed() -> TempDir {
    let host = host();
    let folder = host.parent().map(tempfile::tempdir_in).expect("a target folder");
    let folder = folder.expect("a folder");
    fs::hard_link(&host, folder.path().join("host")).expect("a link within one file system");
    folder
}

/// The shared library of the package in `package_dir` (below the repository's root, not a member of its workspace) with
/// these features, built once a process. Each set of features has a file of its own.
pub fn build(package_dir: &str, features: &[&str]) -> PathBuf {
    static BUILT: Mutex<Option<HashMap<String, PathBuf>>> = Mutex::new(None);
    let mut built = BUILT.lock().unwrap_or_else(PoisonError::into_inner);
    let key = format!("{package_dir} {}", features.join(","));
    let library = built.get_or_insert_default().entry(key);
    library.or_insert_with(|| build_library(package_dir, features)).clone()
}

fn build_library(package_dir: &str, features: &[&str]) -> PathBuf {
    let profile = profile_dir();
    let target = profile.with_file_name("test-plugins");
    fs::create_dir_all(&target).expect("a folder for plugins");
    // Sets of features share cargo's output file: no other process may build between building and keeping it.
    let lock = File::create(target.join("lock")).expect("a lock file");
    lock.lock().expect("a lock");

    let manifest = format!("{package_dir}/Cargo.toml");
    cargo_build(
        &["--manifest-path", &manifest, "--features", &features.join(",")],
        &target,
    );
    let package = Path::new(package_dir)
        .file_name()
        .expect("a folder's name")
        .to_string_lossy();
    let profile = profile.file_name().expect("a profile's name");
    let output = target
        .join(profile)
        .join(format!("lib{}.so", package.replace('-', "_")));
    let name = [&[package.as_ref()], features].concat().join("-");
    keep(&output, &target.join("kept").join(profile).join(name + ".so"))
}

/// Copies a library to `kept`. Never writes into a file that a running test may have mapped.
fn keep(library: &Path, kept: &Path) -> PathBuf {
    let contents = fs::read(library).expect("the library that cargo built");
    if fs::read(kept).ok().as_ref() != Some(&contents) {
        fs::create_dir_all(kept.parent().expect("a folder")).expect("a folder for kept plugins");
        let new = kept.with_extension("new");
        fs::write(&new, contents).expect("a copy of the library");
        fs::rename(&new, kept).expect("the copy in its place");
    }
    kept.to_owned()
}
