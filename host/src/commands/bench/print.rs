//! Results as a table, as JSON and as CSV. Fields that llama-bench has too bear its names.

use std::io::Write;

use comfy_table::{CellAlignment, Table, presets};
use serde::Serialize;

use super::{Format, Test, machine::Machine, profile::Spent, samples::Samples};
use crate::{
    cli::BenchArgs,
    model::{EMBEDDED, LoadedModel},
    setup::Running,
};

/// What all rows say of the model and the settings.
#[derive(Clone, Debug, Serialize)]
pub struct Described {
    /// Graft's version.
    build_version: &'static str,
    /// The file, as it was named.
    pub model_filename: String,
    /// Its architecture.
    model_type: String,
    /// Bytes of all tensors.
    model_size: u64,
    /// Values of all tensors.
    model_n_params: u64,
    /// Tokens of a step.
    n_batch: u32,
    /// The types of keys and values in the cache.
    type_k: String,
    type_v: String,
}

impl Described {
    /// What a model and the arguments say.
    pub fn of(model: &LoadedModel, args: &BenchArgs) -> Described {
        let tensors = || model.file.tensors().iter();
        let cache = args.kv_type.name().to_lowercase();
        Described {
            build_version: env!("CARGO_PKG_VERSION"),
            model_filename: args.model().unwrap_or(EMBEDDED).to_owned(),
            model_type: model.model.architecture().to_owned(),
            model_size: tensors().map(|tensor| model.file.data(tensor).len() as u64).sum(),
            model_n_params: tensors().map(|tensor| tensor.values()).sum(),
            n_batch: args.batch_size,
            type_k: cache.clone(),
            type_v: cache,
        }
    }
}

/// What one test gave.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    #[serde(flatten)]
    described: Described,
    backends: String,
    devices: String,
    n_threads: u32,
    n_prompt: u32,
    n_gen: u32,
    n_depth: u32,
    avg_ns: u64,
    stddev_ns: u64,
    /// Tokens a second.
    avg_ts: f64,
    stddev_ts: f64,
    /// Bytes a second that the machine reads at best, those of the test, and their share of it; none where unknown.
    read_bandwidth: Option<f64>,
    bytes_per_s: Option<f64>,
    read_bandwidth_share: Option<f64>,
    /// Operations a second of products that the machine does at best, those of the test, and their share of it.
    arithmetic_peak: Option<f64>,
    operations_per_s: f64,
    arithmetic_peak_share: Option<f64>,
    samples_ns: Vec<u64>,
    samples_ts: Vec<f64>,
    /// Where the time went.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    profile: Vec<Spent>,
}

impl Row {
    /// The figures of a test's samples, in which the products made so many `operations` a run.
    pub fn new(
        described: &Described,
        test: &Test,
        threads: u32,
        running: &Running,
        samples: Samples,
        operations: u64,
        machine: Option<Machine>,
    ) -> Row {
        let tokens = f64::from(test.prompt + test.generate);
        let rates: Vec<f64> = samples.ns.iter().map(|&ns| tokens * 1e9 / ns as f64).collect();
        let times: Vec<f64> = samples.ns.iter().map(|&ns| ns as f64).collect();
        let (avg_ns, stddev_ns) = mean_and_deviation(&times);
        let (avg_ts, stddev_ts) = mean_and_deviation(&rates);
        let a_second = |amount: u64| amount as f64 * 1e9 / avg_ns;
        let bytes_per_s = (samples.bytes > 0).then(|| a_second(samples.bytes));
        Row {
            described: described.clone(),
            backends: running.backend.clone(),
            devices: running.devices.join(", "),
            n_threads: threads,
            n_prompt: test.prompt,
            n_gen: test.generate,
            n_depth: test.depth,
            avg_ns: avg_ns as u64,
            stddev_ns: stddev_ns as u64,
            avg_ts,
            stddev_ts,
            read_bandwidth: machine.map(|m| m.read_bandwidth),
            bytes_per_s,
            read_bandwidth_share: machine.zip(bytes_per_s).map(|(m, bytes)| bytes / m.read_bandwidth),
            arithmetic_peak: machine.map(|m| m.arithmetic_peak),
            operations_per_s: a_second(operations),
            arithmetic_peak_share: machine.map(|m| a_second(operations) / m.arithmetic_peak),
            samples_ts: rates,
            samples_ns: samples.ns,
            profile: samples.profile,
        }
    }

    fn test(&self) -> Test {
        Test {
            prompt: self.n_prompt,
            generate: self.n_gen,
            depth: self.n_depth,
        }
    }
}

/// The mean, and the standard deviation of a sample; 0 for one value.
fn mean_and_deviation(values: &[f64]) -> (f64, f64) {
    let count = values.len() as f64;
    let mean = values.iter().sum::<f64>() / count;
    let squares: f64 = values.iter().map(|v| (v - mean).powi(2)).sum();
    (mean, (squares / (count - 1.0).max(1.0)).sqrt())
}

/// A test's name, such as `pp512` or `tg128 @ d4096`.
pub fn name(test: &Test) -> String {
    let kind = match test.generate {
        0 => format!("pp{}", test.prompt),
        generate => format!("tg{generate}"),
    };
    match test.depth {
        0 => kind,
        depth => format!("{kind} @ d{depth}"),
    }
}

/// Prints all rows.
pub fn print(rows: &[Row], format: Format, profile: bool, out: &mut dyn Write) -> anyhow::Result<()> {
    match format {
        Format::Md => markdown(rows, profile, out)?,
        Format::Json => {
            let plain = |row: &Row| Row {
                profile: if profile { row.profile.clone() } else { Vec::new() },
                ..row.clone()
            };
            serde_json::to_writer_pretty(&mut *out, &rows.iter().map(plain).collect::<Vec<_>>())?;
            writeln!(out)?;
        }
        Format::Csv => csv(rows, out)?,
    }
    Ok(())
}

fn table(header: &[&str], texts: usize) -> Table {
    let mut table = Table::new();
    table.load_preset(presets::ASCII_MARKDOWN).set_header(header);
    for (_, column) in table.column_iter_mut().enumerate().skip(texts) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}

fn markdown(rows: &[Row], profile: bool, out: &mut dyn Write) -> std::io::Result<()> {
    let header = [
        "model",
        "backend",
        "test",
        "size",
        "params",
        "threads",
        "t/s",
        "GB/s",
        "of bandwidth",
        "TOPS",
        "of peak",
    ];
    let mut all = table(&header, 3);
    for row in rows {
        let unknown = || "-".to_owned();
        let share = |share: Option<f64>| share.map_or_else(unknown, |share| format!("{:.0} %", 100.0 * share));
        all.add_row([
            row.described.model_type.clone(),
            row.backends.clone(),
            name(&row.test()),
            format!("{:.2} GB", row.described.model_size as f64 / 1e9),
            format!("{:.2} B", row.described.model_n_params as f64 / 1e9),
            row.n_threads.to_string(),
            format!("{:.2} ± {:.2}", row.avg_ts, row.stddev_ts),
            row.bytes_per_s
                .map_or_else(unknown, |bytes| format!("{:.1}", bytes / 1e9)),
            share(row.read_bandwidth_share),
            format!("{:.3}", row.operations_per_s / 1e12),
            share(row.arithmetic_peak_share),
        ]);
    }
    writeln!(out, "{all}")?;
    let mut machines: Vec<_> = rows
        .iter()
        .filter_map(|r| Some((r.n_threads, r.read_bandwidth?, r.arithmetic_peak?)))
        .collect();
    machines.dedup_by_key(|machine| machine.0);
    for (threads, bandwidth, peak) in machines {
        writeln!(
            out,
            "\nThis machine, threads {threads}: reads {:.1} GB/s, computes {:.3} TOPS.",
            bandwidth / 1e9,
            peak / 1e12
        )?;
    }
    if profile {
        rows.iter().try_for_each(|row| markdown_profile(row, out))?;
    }
    Ok(())
}

fn markdown_profile(row: &Row, out: &mut dyn Write) -> std::io::Result<()> {
    let mut all = table(&["operation", "ms", "share", "MB", "GB/s"], 1);
    for spent in &row.profile {
        all.add_row([
            spent.operation.clone(),
            format!("{:.2}", spent.ns as f64 / 1e6),
            format!("{:.1} %", 100.0 * spent.share),
            format!("{:.1}", spent.bytes as f64 / 1e6),
            format!("{:.1}", spent.bytes_per_s / 1e9),
        ]);
    }
    writeln!(out, "\n{}, runs: {}\n\n{all}", name(&row.test()), row.samples_ns.len())
}

/// A line a row, fields in the order of the JSON; lists are left out.
fn csv(rows: &[Row], out: &mut dyn Write) -> anyhow::Result<()> {
    for (i, row) in rows.iter().enumerate() {
        let value = serde_json::to_value(row)?;
        let fields = || {
            value
                .as_object()
                .into_iter()
                .flatten()
                .filter(|(_, value)| !value.is_array())
        };
        if i == 0 {
            let names: Vec<_> = fields().map(|(name, _)| name.as_str()).collect();
            writeln!(out, "{}", names.join(","))?;
        }
        let values: Vec<_> = fields().map(|(_, value)| quoted(value)).collect();
        writeln!(out, "{}", values.join(","))?;
    }
    Ok(())
}

/// A field as RFC 4180 has it.
fn quoted(value: &serde_json::Value) -> String {
    match value {
        serde_json::Value::Null => String::new(),
        serde_json::Value::String(text) => format!("\"{}\"", text.replace('"', "\"\"")),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_deviation_is_that_of_a_sample() {
        assert_eq!(mean_and_deviation(&[1.0, 3.0]), (2.0, 2.0f64.sqrt()));
        assert_eq!(mean_and_deviation(&[5.0]), (5.0, 0.0));
    }

    #[test]
    fn tests_are_named_as_in_llama_bench() {
        let test = |prompt, generate, depth| {
            name(&Test {
                prompt,
                generate,
                depth,
            })
        };
        assert_eq!(test(512, 0, 0), "pp512");
        assert_eq!(test(0, 128, 4096), "tg128 @ d4096");
    }

    #[test]
    fn text_is_quoted() {
        assert_eq!(quoted(&"a \"b\", c".into()), "\"a \"\"b\"\", c\"");
        assert_eq!(quoted(&serde_json::Value::Null), "");
    }
}
