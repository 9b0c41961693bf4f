//! Lists the modules of `ptx/`, so that they are part of the library.

use std::{env, fs, io, path::Path};

fn main() -> io::Result<()> {
    println!("cargo::rerun-if-changed=ptx");
    let folder = Path::new(&env::var("CARGO_MANIFEST_DIR").unwrap_or_default()).join("ptx");
    let mut names: Vec<String> = fs::read_dir(&folder)?
        .filter_map(|entry| Some(entry.ok()?.file_name().to_str()?.strip_suffix(".ptx")?.to_owned()))
        .collect();
    names.sort();
    let entries: Vec<String> = names
        .iter()
        .map(|name| format!("({name:?}, include_str!({:?}))", folder.join(format!("{name}.ptx"))))
        .collect();
    let output = Path::new(&env::var("OUT_DIR").unwrap_or_default()).join("modules.rs");
    fs::write(output, format!("[{}]", entries.join(",\n")))
}
