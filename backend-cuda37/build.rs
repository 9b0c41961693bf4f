//! Packs the modules of `ptx/`, so that they are part of the library.

use std::{
    env,
    fs::{self, File},
    io,
    path::Path,
};

use flate2::{Compression, write::DeflateEncoder};

fn main() -> io::Result<()> {
    println!("cargo::rerun-if-changed=ptx");
    let folder = Path::new(&env::var("CARGO_MANIFEST_DIR").unwrap_or_default()).join("ptx");
    let output = env::var("OUT_DIR").unwrap_or_default();
    let mut names: Vec<String> = fs::read_dir(&folder)?
        .filter_map(|entry| Some(entry.ok()?.file_name().to_str()?.strip_suffix(".ptx")?.to_owned()))
        .collect();
    names.sort();
    let mut entries = Vec::new();
    for name in names {
        let packed = Path::new(&output).join(&name);
        let mut encoder = DeflateEncoder::new(File::create(&packed)?, Compression::best());
        io::copy(&mut File::open(folder.join(format!("{name}.ptx")))?, &mut encoder)?;
        encoder.finish()?;
        entries.push(format!("({name:?}, include_bytes!({packed:?}))"));
    }
    let list = Path::new(&output).join("modules.rs");
    fs::write(list, format!("[{}]", entries.join(",\n")))
}
