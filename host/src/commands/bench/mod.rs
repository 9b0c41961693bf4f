//! `host bench`: how fast a model runs, and how much of what the machine can do that is.

mod list;
mod machine;
mod print;
mod profile;
mod samples;
mod work;

use std::{io::Write, process::ExitCode, thread};

use anyhow::bail;
use clap::ValueEnum;
use models::{architecture::Model, graph::Shape};

pub use list::List;
use machine::Machine;
use print::{Described, Row};

use crate::{
    cli::BenchArgs,
    model::{EMBEDDED, LoadedModel},
    placement::ContextWish,
    progress::Waiting,
    setup::{self, Request, Running},
};

/// In which form results are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// A table.
    Md,
    /// A list of objects, with all samples.
    Json,
    /// A line a test.
    Csv,
}

/// What is timed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Test {
    /// Tokens that are evaluated in steps of the batch size.
    pub prompt: u32,
    /// Tokens that are evaluated one by one.
    pub generate: u32,
    /// Tokens that are in the cache before.
    pub depth: u32,
}

/// Runs all tests and prints what they gave.
pub fn run(args: &BenchArgs, out: &mut dyn Write) -> anyhow::Result<ExitCode> {
    let model = LoadedModel::open(args.model())?;
    let described = Described::of(&model, args);
    let tests = tests(args);
    if tests.is_empty() {
        bail!("nothing to measure: --n-prompt, --n-gen and --n-depth together name no test");
    }
    let mut rows = Vec::new();
    for threads in threads(args) {
        rows.extend(with_threads(&model, &described, args, &tests, threads)?);
    }
    print::print(&rows, args.output, args.profile, out)?;
    Ok(ExitCode::SUCCESS)
}

/// Prompts first, then generation, each at all depths, as llama-bench has it.
fn tests(args: &BenchArgs) -> Vec<Test> {
    let prompts = args.n_prompt.0.iter().map(|&prompt| (prompt, 0));
    let generations = args.n_gen.0.iter().map(|&generate| (0, generate));
    let kinds: Vec<_> = prompts.chain(generations).filter(|&kind| kind != (0, 0)).collect();
    let at = |depth: u32| {
        move |(prompt, generate)| Test {
            prompt,
            generate,
            depth,
        }
    };
    args.n_depth
        .0
        .iter()
        .flat_map(|&depth| kinds.clone().into_iter().map(at(depth)))
        .collect()
}

/// The numbers of threads: as many as this process may use, if nothing else was asked for.
fn threads(args: &BenchArgs) -> Vec<u32> {
    let all = || thread::available_parallelism().map_or(1, |n| n.get() as u32);
    args.threads.as_ref().map_or_else(|| vec![all()], |list| list.0.clone())
}

fn with_threads(
    model: &LoadedModel,
    described: &Described,
    args: &BenchArgs,
    tests: &[Test],
    threads: u32,
) -> anyhow::Result<Vec<Row>> {
    let name = args.model().unwrap_or(EMBEDDED);
    let waiting = Waiting::new(format!("loading {name}"));
    let longest = tests.iter().map(|test| test.prompt + test.generate + test.depth).max();
    let request = request(args, threads, longest.unwrap_or(1));
    let mut running = setup::start(model, &request, waiting.meter())?;
    drop(waiting);
    let machine = Machine::measure(&running.engine.plan().devices[0].target, &model.file, threads)?;
    tests
        .iter()
        .map(|test| row(model, described, args, test, threads, &mut running, machine))
        .collect()
}

fn row(
    model: &LoadedModel,
    described: &Described,
    args: &BenchArgs,
    test: &Test,
    threads: u32,
    running: &mut Running,
    machine: Option<Machine>,
) -> anyhow::Result<Row> {
    let waiting = Waiting::new(format!("{} {}", described.model_filename, print::name(test)));
    let samples = samples::take(&mut running.engine, test, args.repetitions, !args.no_warmup)?;
    drop(waiting);
    let operations =
        work::operations(&model.model, &shape(&model.model, running.context, test)) * u64::from(test.generate.max(1));
    Ok(Row::new(
        described, test, threads, running, samples, operations, machine,
    ))
}

/// The shape of the steps that a test takes: all of a prompt at once, or one token.
fn shape(model: &Model, context: u32, test: &Test) -> Shape {
    Shape {
        tokens: test.prompt.max(1),
        context,
        ..Shape::smallest(model.cache())
    }
}

fn request(args: &BenchArgs, threads: u32, context: u32) -> Request {
    let context = ContextWish::Tokens(context);
    Request {
        threads,
        cache_type: args.kv_type,
        ..args.place.request(Some(context), Some(args.batch_size))
    }
}
