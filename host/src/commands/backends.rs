//! `host backends`: the backends that were found, how well each can serve, and which one is taken.

use std::{io::Write, path::PathBuf, process::ExitCode};

use backend_api::contract::{DeviceInfo, DeviceKind};
use comfy_table::{ContentArrangement, Table, presets};
use indicatif::HumanBytes;

use crate::plugins::{Plugin, Prober, Search, choose, discover, features, listing, listing::Listing, probe};

/// What `host backends` is asked.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// `--plugins DIR`.
    pub plugins: Option<PathBuf>,
    /// `--json`.
    pub json: bool,
    /// Whether the output is a terminal: the table then has borders and is fitted to its width.
    pub terminal: bool,
}

/// Writes the list to `out`. Succeeds if a backend can serve.
pub fn run(options: Options, out: &mut dyn Write) -> anyhow::Result<ExitCode> {
    let plugins = discover(&Search::new(options.plugins), &Prober::new()?)?;
    let choice = choose(&plugins, None, false);
    let chosen = choice.as_ref().ok().and_then(|attempts| attempts.first().copied());
    let is_chosen = |plugin: &Plugin| chosen.is_some_and(|chosen| std::ptr::eq(chosen, plugin));
    match options.json {
        true => {
            let list: Vec<_> = plugins
                .iter()
                .map(|plugin| Listing::new(plugin, is_chosen(plugin)))
                .collect();
            serde_json::to_writer_pretty(&mut *out, &list)?;
            writeln!(out)?;
        }
        false if plugins.is_empty() => {}
        false => writeln!(out, "{}", table(&plugins, is_chosen, options.terminal))?,
    }
    match choice {
        Ok(_) => Ok(ExitCode::SUCCESS),
        Err(error) if plugins.is_empty() => Err(error.into()),
        Err(_) => Ok(ExitCode::FAILURE),
    }
}

/// The hidden `host probe-plugin PATH`, which [`Prober`] runs.
pub fn probe_plugin(path: PathBuf, out: &mut dyn Write) -> anyhow::Result<ExitCode> {
    probe::answer(&path, out)?;
    Ok(ExitCode::SUCCESS)
}

fn table(plugins: &[Plugin], is_chosen: impl Fn(&Plugin) -> bool, terminal: bool) -> Table {
    let mut table = Table::new();
    match terminal {
        true => table
            .load_preset(presets::UTF8_FULL_CONDENSED)
            .set_content_arrangement(ContentArrangement::Dynamic),
        false => table
            .load_preset(presets::NOTHING)
            .set_content_arrangement(ContentArrangement::Disabled),
    };
    table.set_header([
        "", "backend", "version", "score", "reason", "features", "devices", "file",
    ]);
    for plugin in plugins {
        let absent = || "-".to_owned();
        table.add_row([
            if is_chosen(plugin) { "*".into() } else { String::new() },
            plugin.name.clone().unwrap_or_else(absent),
            plugin.version.clone().unwrap_or_else(absent),
            plugin.score.map_or_else(absent, |score| score.to_string()),
            reason(plugin),
            features::sets(plugin).join(" "),
            plugin.devices.iter().map(device).collect::<Vec<_>>().join("\n"),
            plugin.path.display().to_string(),
        ]);
    }
    table
}

fn reason(plugin: &Plugin) -> String {
    match &plugin.error {
        Some(error) => format!("error: {error}"),
        None => plugin.reason.clone().unwrap_or_default(),
    }
}

fn device(device: &DeviceInfo) -> String {
    let kind = listing::kind_name(DeviceKind::from_id(device.kind));
    let (free, total) = (HumanBytes(device.free), HumanBytes(device.total));
    format!("{}: {} ({kind}, {free} of {total} free)", device.id, device.name)
}
