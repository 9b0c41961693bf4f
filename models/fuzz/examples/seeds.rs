//! Writes the small files that fuzzing starts from: `cargo run --example seeds -- seeds`.

use std::error::Error;
use std::path::PathBuf;

use models::gguf::{GgufWriter, Strings, TensorType};

const TENSOR_TYPES: [u32; 22] = [
    0, 1, 2, 3, 4, 6, 7, 8, 10, 11, 12, 13, 14, 20, 23, 24, 25, 26, 27, 28, 30, 39,
];

fn main() -> Result<(), Box<dyn Error>> {
    let folder: PathBuf = std::env::args_os().nth(1).ok_or("usage: seeds FOLDER")?.into();
    std::fs::create_dir_all(&folder)?;
    GgufWriter::new().write(&folder.join("empty.gguf"))?;
    scalars().write(&folder.join("scalars.gguf"))?;
    arrays().write(&folder.join("arrays.gguf"))?;
    tensors()?.write(&folder.join("tensors.gguf"))?;
    let mut part = scalars();
    part.set("split.no", 0u16)
        .set("split.count", 2u16)
        .set("split.tensors.count", 2i32);
    part.write(&folder.join("part.gguf"))?;
    Ok(())
}

fn scalars() -> GgufWriter<'static> {
    let mut writer = GgufWriter::new();
    writer.set("general.architecture", "x").set("general.alignment", 32u32);
    writer
        .set("u8", 1u8)
        .set("i8", -1i8)
        .set("u16", 1u16)
        .set("i16", -1i16)
        .set("u32", 1u32)
        .set("i32", -1i32);
    writer
        .set("f32", 0.5f32)
        .set("bool", true)
        .set("u64", 1u64)
        .set("i64", -1i64)
        .set("f64", 0.5f64);
    writer
}

fn arrays() -> GgufWriter<'static> {
    let mut writer = GgufWriter::new();
    writer
        .set("u8", vec![1u8])
        .set("i8", vec![-1i8])
        .set("u16", vec![1u16])
        .set("i16", vec![-1i16]);
    writer
        .set("u32", vec![1u32])
        .set("i32", vec![-1i32])
        .set("f32", vec![0.5f32])
        .set("bool", vec![true, false]);
    writer
        .set("u64", vec![1u64])
        .set("i64", vec![-1i64])
        .set("f64", vec![0.5f64]);
    writer.set("strings", Strings::from_iter(["a", "", "é"]));
    writer
}

/// One tensor of every type, of one block; their data are kept short by that.
fn tensors() -> Result<GgufWriter<'static>, Box<dyn Error>> {
    let mut writer = GgufWriter::new();
    writer.set("general.alignment", 8u32);
    for id in TENSOR_TYPES {
        let kind = TensorType::from_id(id)?;
        let values = kind.block_values() as u64;
        writer.tensor(
            &format!("t{id}"),
            &[values, 1],
            kind,
            vec![id as u8; kind.block_bytes()],
        )?;
    }
    Ok(writer)
}
