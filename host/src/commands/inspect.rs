//! `host inspect`: what a model file says of itself.

use std::{
    collections::BTreeMap,
    io::{self, Write},
    process::ExitCode,
};

use comfy_table::{CellAlignment, Table, presets};
use models::{
    architecture,
    gguf::{Array, Gguf, TensorInfo, Value},
};
use serde_json::{Map, Value as Json, json};

use crate::{cli::InspectArgs, model};

/// Arrays in metadata are shown up to this length; longer ones by their type and length.
const SHOWN: usize = 16;

/// Writes the summary to `out`: readable, or JSON.
pub fn run(args: &InspectArgs, out: &mut dyn Write) -> anyhow::Result<ExitCode> {
    let file = model::open_file(args.model.as_deref())?;
    if args.json {
        serde_json::to_writer_pretty(&mut *out, &report(&file, args.tensors))?;
        writeln!(out)?;
    } else {
        print(&file, args.tensors, out)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Tensors and bytes of each type.
fn by_type(file: &Gguf) -> BTreeMap<&'static str, (usize, u64)> {
    let mut types = BTreeMap::new();
    for tensor in file.tensors() {
        let (count, bytes) = types.entry(tensor.kind.name()).or_insert((0, 0));
        *count += 1;
        *bytes += tensor.bytes;
    }
    types
}

fn architecture_of(file: &Gguf) -> Option<&str> {
    file.metadata().opt_string("general.architecture").ok().flatten()
}

fn report(file: &Gguf, tensors: bool) -> Json {
    let types = by_type(file)
        .into_iter()
        .map(|(name, (count, bytes))| (name.to_owned(), json!({"tensors": count, "bytes": bytes})));
    let metadata: Map<String, Json> = file
        .metadata()
        .iter()
        .map(|(key, value)| (key.to_owned(), json_of(value)))
        .collect();
    let mut report = json!({
        "file": file.name(),
        "version": file.version(),
        "architecture": architecture_of(file),
        "served": architecture_of(file).is_some_and(|name| architecture::known().contains(&name)),
        "parameters": parameters(file),
        "bytes": file.tensors().iter().map(|t| t.bytes).sum::<u64>(),
        "types": types.collect::<Map<_, _>>(),
        "metadata": metadata,
    });
    if tensors {
        report["tensors"] = file.tensors().iter().map(tensor_json).collect();
    }
    report
}

fn parameters(file: &Gguf) -> u64 {
    file.tensors().iter().map(TensorInfo::values).sum()
}

fn tensor_json(tensor: &TensorInfo) -> Json {
    json!({
        "name": tensor.name,
        "type": tensor.kind.name(),
        "shape": tensor.shape(),
        "bytes": tensor.bytes,
        "file": tensor.file,
        "offset": tensor.offset,
    })
}

fn json_of(value: &Value) -> Json {
    match value {
        Value::U8(n) => json!(n),
        Value::I8(n) => json!(n),
        Value::U16(n) => json!(n),
        Value::I16(n) => json!(n),
        Value::U32(n) => json!(n),
        Value::I32(n) => json!(n),
        Value::U64(n) => json!(n),
        Value::I64(n) => json!(n),
        Value::F32(n) => json!(shortest(*n)),
        Value::F64(n) => json!(n),
        Value::Bool(truth) => json!(truth),
        Value::String(text) => json!(text),
        Value::Array(array) => json_of_array(array),
    }
}

fn json_of_array(array: &Array) -> Json {
    let (name, all) = match array {
        Array::U8(v) => ("u8", short(v)),
        Array::I8(v) => ("i8", short(v)),
        Array::U16(v) => ("u16", short(v)),
        Array::I16(v) => ("i16", short(v)),
        Array::U32(v) => ("u32", short(v)),
        Array::I32(v) => ("i32", short(v)),
        Array::U64(v) => ("u64", short(v)),
        Array::I64(v) => ("i64", short(v)),
        Array::F32(v) => (
            "f32",
            (v.len() <= SHOWN).then(|| v.iter().map(|n| json!(shortest(*n))).collect()),
        ),
        Array::F64(v) => ("f64", short(v)),
        Array::Bool(v) => ("bool", short(v)),
        Array::String(v) => (
            "string",
            (v.len() <= SHOWN).then(|| json!(v.iter().collect::<Vec<_>>())),
        ),
    };
    all.unwrap_or_else(|| json!({"array": name, "length": array.len()}))
}

/// The f64 with the fewest digits that is this f32: 1e-6 and not 9.999999974752427e-7.
fn shortest(number: f32) -> f64 {
    number.to_string().parse().unwrap_or(number.into())
}

fn short<T: serde::Serialize>(values: &[T]) -> Option<Json> {
    (values.len() <= SHOWN).then(|| json!(values))
}

/// Writes what a model is, without its metadata.
pub fn summary(file: &Gguf, out: &mut dyn Write) -> io::Result<()> {
    let architecture = architecture_of(file).unwrap_or("(none)");
    let served = if architecture::known().contains(&architecture) {
        ""
    } else {
        " (not served)"
    };
    writeln!(out, "{}", file.name())?;
    writeln!(
        out,
        "GGUF version {}, architecture {architecture}{served}",
        file.version()
    )?;
    writeln!(
        out,
        "{} parameters in {} tensors",
        parameters(file),
        file.tensors().len()
    )?;

    let mut types = plain_table(&["type", "tensors", "bytes"]);
    for (name, (count, bytes)) in by_type(file) {
        types.add_row([name.to_owned(), count.to_string(), bytes.to_string()]);
    }
    right_align(&mut types, &[1, 2]);
    writeln!(out, "\n{}", types.trim_fmt())
}

fn print(file: &Gguf, tensors: bool, out: &mut dyn Write) -> io::Result<()> {
    summary(file, out)?;
    let mut metadata = plain_table(&["key", "value"]);
    for (key, value) in file.metadata().iter() {
        metadata.add_row([key.to_owned(), line_of(value)]);
    }
    writeln!(out, "\n{}", metadata.trim_fmt())?;

    if tensors {
        let mut table = plain_table(&["tensor", "type", "shape", "bytes"]);
        for tensor in file.tensors() {
            let shape = tensor
                .shape()
                .iter()
                .map(u64::to_string)
                .collect::<Vec<_>>()
                .join(" × ");
            table.add_row([
                tensor.name.clone(),
                tensor.kind.name().to_owned(),
                shape,
                tensor.bytes.to_string(),
            ]);
        }
        right_align(&mut table, &[3]);
        writeln!(out, "\n{}", table.trim_fmt())?;
    }
    Ok(())
}

fn plain_table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING).set_header(header);
    table
}

fn right_align(table: &mut Table, columns: &[usize]) {
    for &column in columns {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
}

/// A value on one line, cut where it is long.
fn line_of(value: &Value) -> String {
    const LONGEST: usize = 80;
    let text = match value {
        Value::Array(_) => match json_of(value) {
            Json::Object(array) => format!("{} × {}", array["length"], array["array"].as_str().unwrap_or("?")),
            list => list.to_string(),
        },
        Value::String(text) => visible(text),
        other => json_of(other).to_string(),
    };
    match text.char_indices().nth(LONGEST) {
        Some((cut, _)) => format!("{}…", &text[..cut]),
        None => text,
    }
}

/// A text on one line: control characters are escaped.
fn visible(text: &str) -> String {
    text.chars().fold(String::with_capacity(text.len()), |mut line, c| {
        match c.is_control() {
            true => line.extend(c.escape_default()),
            false => line.push(c),
        }
        line
    })
}
