//! `host check`: a backend against the meaning of every operation.

use std::{
    collections::BTreeSet,
    io::{IsTerminal, Write, stderr},
    process::ExitCode,
};

use anyhow::{Context, bail};
use backend_api::{
    conformance::{self, CaseReport, Options, Report, Tally, Verdict},
    operations::Operation,
    types::Type,
};
use comfy_table::{Cell, Color, Table, presets};
use indicatif::{ProgressBar, ProgressDrawTarget};
use serde_json::{Value as Json, json};

use crate::{
    cli::CheckArgs,
    environment, log,
    plugins::{self, Prober},
};

/// Failures that are told in full; the rest are counted.
const TOLD: usize = 20;

/// Runs the conformance suite and writes its table to `out`. Fails where a case does.
pub fn run(args: &CheckArgs, out: &mut dyn Write) -> anyhow::Result<ExitCode> {
    let plugin = plugins::examine(args.plugin.clone(), &Prober::new()?);
    let Some(module) = plugin.module.filter(|_| plugin.obstacle().is_none()) else {
        bail!("{}: {}", args.plugin.display(), plugin.obstacle().unwrap_or_default());
    };
    if let Some(wanted) = &args.cpu_features {
        plugins::features::select(&[&plugin], wanted)?;
    }
    let options = Options {
        seed: args.seed,
        operations: operations(&args.operations)?,
        ..Options::default()
    };
    let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
    let progress = &mut |case: &CaseReport| {
        bar.set_message(case.label.clone());
        bar.inc(1);
    };
    let report = conformance::check(module, log::services(), args.device, &options, progress)
        .with_context(|| format!("{}: opening device {}", args.plugin.display(), args.device))?;
    bar.finish_and_clear();
    if args.json {
        serde_json::to_writer_pretty(&mut *out, &json_of(&report))?;
        writeln!(out)?;
    } else {
        print(&report, out)?;
    }
    Ok(if report.passed() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn operations(names: &[String]) -> anyhow::Result<Option<Vec<Operation>>> {
    let find = |name: &String| {
        let known = || Operation::ALL.map(Operation::name).join(", ");
        let found = Operation::ALL.into_iter().find(|o| o.name() == name);
        found.with_context(|| format!("--operations: there is no operation {name:?}; known are {}", known()))
    };
    let chosen: Vec<Operation> = names.iter().map(find).collect::<Result<_, _>>()?;
    Ok((!chosen.is_empty()).then_some(chosen))
}

fn name_of(operation: Option<Operation>) -> &'static str {
    operation.map_or("device", Operation::name)
}

fn json_of(report: &Report) -> Json {
    let row = |((operation, ty), tally): ((Option<Operation>, Option<Type>), Tally)| {
        json!({
            "operation": name_of(operation),
            "type": ty.map(Type::name),
            "passed": tally.passed,
            "refused": tally.refused,
            "failed": tally.failed,
        })
    };
    let failure = |case: &CaseReport| match &case.verdict {
        Verdict::Failed(why) => json!({"case": case.label, "failure": why}),
        _ => Json::Null,
    };
    let total = report.total();
    json!({
        "backend": report.backend,
        "device": report.device,
        "passed": total.passed,
        "refused": total.refused,
        "failed": total.failed,
        "table": report.table().into_iter().map(row).collect::<Vec<_>>(),
        "failures": report.failures().map(failure).collect::<Vec<_>>(),
        "refusals": report.refusals(),
    })
}

fn print(report: &Report, out: &mut dyn Write) -> anyhow::Result<()> {
    writeln!(out, "backend {}, device {}\n", report.backend, report.device)?;
    writeln!(out, "{}", table(report).trim_fmt())?;
    let refusals = report.refusals();
    if !refusals.is_empty() {
        writeln!(out, "\nrefused:")?;
        for (reason, cases) in refusals {
            writeln!(out, "  {cases:>5} × {reason}")?;
        }
    }
    let failures: Vec<&CaseReport> = report.failures().collect();
    if !failures.is_empty() {
        writeln!(out, "\nfailed:")?;
    }
    for case in failures.iter().take(TOLD) {
        if let Verdict::Failed(why) = &case.verdict {
            writeln!(out, "  {}: {why}", case.label)?;
        }
    }
    if failures.len() > TOLD {
        writeln!(out, "  … and {} more (--json lists all)", failures.len() - TOLD)?;
    }
    let total = report.total();
    writeln!(
        out,
        "\n{} passed, {} refused, {} failed",
        total.passed, total.refused, total.failed
    )?;
    Ok(())
}

/// Operations down, types across; each cell counts the cases: those that passed of those that ran.
fn table(report: &Report) -> Table {
    let cells = report.table();
    let types: BTreeSet<Option<Type>> = cells.keys().map(|(_, ty)| *ty).collect();
    let operations: BTreeSet<Option<Operation>> = cells.keys().map(|(operation, _)| *operation).collect();
    let mut table = Table::new();
    table.load_preset(presets::NOTHING);
    let heads = types.iter().map(|ty| ty.map_or("-", Type::name));
    table.set_header(["operation"].into_iter().chain(heads));
    for operation in operations {
        let row = types.iter().map(|ty| cell(cells.get(&(operation, *ty)).copied()));
        table.add_row([Cell::new(name_of(operation))].into_iter().chain(row));
    }
    table
}

fn cell(tally: Option<Tally>) -> Cell {
    let Some(tally) = tally else { return Cell::new("") };
    let (text, color) = match tally {
        Tally { failed, passed, .. } if failed > 0 => (format!("{failed} of {} FAILED", failed + passed), Color::Red),
        Tally { passed: 0, .. } => ("refused".to_owned(), Color::Yellow),
        Tally { passed, refused: 0, .. } => (format!("{passed}"), Color::Green),
        Tally { passed, refused, .. } => (format!("{passed} ({refused} refused)"), Color::Green),
    };
    match environment::colors(std::io::stdout().is_terminal() && stderr().is_terminal()) {
        true => Cell::new(text).fg(color),
        false => Cell::new(text),
    }
}
