//! `host plan`: what a model takes of each device, and what goes where.

use std::{
    io::{self, Write},
    process::ExitCode,
};

use backend_api::contract::DeviceKind;
use comfy_table::{CellAlignment, Table, presets};
use indicatif::HumanBytes;
use serde::Serialize;

use crate::{
    cli::{Draft, PlanArgs},
    execution::{device::Target, plan::Purposes},
    model::{LoadedModel, open_file},
    placement::{Placement, room},
    plugins::listing::kind_name,
    setup::{Request, Setup},
};

/// A plan as `--json` gives it; sizes in bytes.
#[derive(Debug, Serialize)]
struct Report {
    ctx_size: u32,
    batch_size: u32,
    /// The output projection counts as one.
    layers_total: usize,
    layers_on_devices: usize,
    /// Programs that a step runs one after another.
    splits: usize,
    devices: Vec<Device>,
}

/// A device, or the host.
#[derive(Debug, Serialize)]
struct Device {
    name: String,
    kind: &'static str,
    total: u64,
    #[serde(flatten)]
    purposes: Purposes,
    context: u64,
    planned: u64,
    layers: usize,
}

/// Plans and prints.
pub fn run(args: &PlanArgs, out: &mut dyn Write) -> anyhow::Result<ExitCode> {
    // the header is enough: weights are not brought into memory
    let model = LoadedModel::of(open_file(args.model.as_deref())?)?;
    let request = Request {
        ahead: Draft::ahead(args.draft),
        ..args.engine.request(1)
    };
    let placement = Setup::new(&model, &request)?.plan()?;
    if args.json {
        serde_json::to_writer_pretty(&mut *out, &report(&placement))?;
        writeln!(out)?;
    } else {
        print(&placement, request.wishes.reserve, out)?;
    }
    Ok(ExitCode::SUCCESS)
}

fn report(placement: &Placement) -> Report {
    Report {
        ctx_size: placement.settings.context,
        batch_size: placement.settings.batch,
        layers_total: placement.layers_total(),
        layers_on_devices: placement.layers_on_devices(),
        splits: placement.plan.segments.len(),
        devices: (0..placement.targets.len())
            .filter(|&target| is_shown(placement, target))
            .map(|target| device(placement, target))
            .collect(),
    }
}

/// The devices that were named, and what else has a share.
fn is_shown(placement: &Placement, target: usize) -> bool {
    placement.purposes_on(target).is_some() || Some(target) != placement.host && target < placement.devices
}

fn device(placement: &Placement, target: usize) -> Device {
    let of = &placement.targets[target];
    let purposes = placement.purposes_on(target);
    Device {
        name: of.label(),
        kind: kind_name(DeviceKind::from_id(of.info.kind)),
        total: of.info.total,
        // a device without a share is not opened
        context: purposes.map_or(0, |_| of.context()),
        planned: purposes.unwrap_or_default().total(),
        purposes: purposes.unwrap_or_default(),
        layers: placement.layers_on(target),
    }
}

fn print(placement: &Placement, reserve: u64, out: &mut dyn Write) -> io::Result<()> {
    let settings = &placement.settings;
    writeln!(
        out,
        "context {}, batch {}, {}\n{} of {} layers on devices, {}",
        settings.context,
        settings.batch,
        crate::stats::counted(settings.sequences as usize, "sequence"),
        placement.layers_on_devices(),
        placement.layers_total(),
        crate::stats::counted(placement.plan.segments.len(), "graph split"),
    )?;
    writeln!(out, "\n{}", table(placement, reserve).trim_fmt())?;
    for refusal in &placement.plan.refusals {
        let elsewhere = &placement.plan.targets[refusal.target];
        writeln!(
            out,
            "\n{} operations {} run on {elsewhere}: {}",
            refusal.nodes, refusal.operation, refusal.reason
        )?;
    }
    if let Some((layers, host)) = placement.layout.experts {
        writeln!(
            out,
            "\nexperts of {} on {}",
            crate::stats::counted(layers, "layer"),
            placement.targets[host].label()
        )?;
    }
    let staging = placement.plan.staging();
    if staging > 0 {
        writeln!(
            out,
            "\n{} of host memory carry what devices leave to each other",
            HumanBytes(staging)
        )?;
    }
    if placement.targets.iter().any(|target| target.context() > 0) {
        writeln!(
            out,
            "\nThe context, which a driver keeps for itself, is assumed; all else is what is allocated, byte for byte."
        )?;
    }
    if !placement.alternatives.is_empty() {
        writeln!(out, "\nConsidered, too:")?;
    }
    for alternative in &placement.alternatives {
        writeln!(out, "  {}: {}", alternative.what, alternative.why)?;
    }
    Ok(())
}

fn table(placement: &Placement, reserve: u64) -> Table {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING).set_header([
        "device",
        "weights",
        "cache",
        "compute",
        "workspace",
        "context",
        "free",
        "layers",
    ]);
    for target in (0..placement.targets.len()).filter(|&target| is_shown(placement, target)) {
        table.add_row(row(placement, target, reserve));
    }
    for column in 1..7 {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table
}

fn row(placement: &Placement, target: usize, reserve: u64) -> [String; 8] {
    let of: &Target = &placement.targets[target];
    let size = |bytes: u64| HumanBytes(bytes).to_string();
    let Some(purposes) = placement.purposes_on(target) else {
        let unused = || "-".to_owned();
        return [
            of.label(),
            unused(),
            unused(),
            unused(),
            unused(),
            unused(),
            size(of.info.free),
            "not used".into(),
        ];
    };
    let kept = if target < placement.devices { reserve } else { 0 };
    let free = room(of, kept).saturating_sub(purposes.total()) + kept;
    let mapped = placement
        .plan
        .devices
        .iter()
        .any(|d| d.index == target && !d.files.is_empty());
    [
        of.label(),
        if mapped {
            "mapped".into()
        } else {
            size(purposes.weights)
        },
        size(purposes.cache),
        size(purposes.compute),
        size(purposes.workspace),
        size(of.context()),
        size(free),
        placement.layers_of(target),
    ]
}
