//! The command line: names, defaults and help. What each command does is in [`crate::commands`].

use std::{fmt::Display, path::PathBuf, str::FromStr};

use backend_api::types::Type;
use clap::{Args, Parser, Subcommand, ValueEnum, ValueHint, builder::styling};
use clap_complete::Shell;

use crate::{
    commands::bench::{Format, List},
    dialect::Think,
    generation::MOST_AHEAD,
    loading,
    model::{LoadedModel, ModelError},
    placement::{ContextWish, DeviceList, Wishes, size},
    sampling::{Sampler, SamplingError, SamplingOptions},
    setup::{DEFAULT_BATCH, Request},
};

const STYLES: styling::Styles = styling::Styles::styled()
    .header(styling::AnsiColor::Green.on_default().bold())
    .usage(styling::AnsiColor::Green.on_default().bold())
    .literal(styling::AnsiColor::Cyan.on_default().bold())
    .placeholder(styling::AnsiColor::Cyan.on_default());

const RUN_EXAMPLES: &str = "\
Examples:
  host run embedded \"ROMEO: But soft,\" --raw --predict 40
  host run model.gguf \"Why is the sky blue?\"
  host run model.gguf                              # a conversation, on a terminal
  host run model.gguf --file question.txt --temperature 0 --json
  host run model.gguf \"A city and its rivers\" --json-schema city.json
  cat report.txt | host run model.gguf \"Summarize this.\"";

const PLAN_EXAMPLES: &str = "\
A plan needs the header of the file alone, and no device. COUNTxSIZE stands for so many cards, of whose memory 128 MiB are \
assumed to be their driver's. What is planned is what is allocated, byte for byte.

Examples:
  host plan model.gguf
  host plan model.gguf --devices 2x11441MiB --ctx-size 16384
  host plan model.gguf --devices 1x11441MiB --ctx-size max --json
  host plan model.gguf --devices 1x8GiB,1x4GiB --gpu-layers 20";

/// Runs language models from GGUF files on the best backend that this machine has.
#[derive(Debug, Parser)]
#[command(name = "host", version, styles = STYLES, max_term_width = 100, arg_required_else_help = true)]
#[command(after_help = crate::environment::help())]
pub struct Cli {
    /// What is logged: error, warn, info, debug or trace [default: warn]
    #[arg(long, global = true, value_name = "LEVEL")]
    pub log: Option<String>,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Talk with a model, or answer one prompt
    #[command(after_help = RUN_EXAMPLES)]
    Run(Box<RunArgs>),
    /// Show what a model takes of each device, and what goes where, without loading it
    #[command(after_help = PLAN_EXAMPLES)]
    Plan(Box<PlanArgs>),
    /// Measure how fast a model runs
    Bench(BenchArgs),
    /// Write the logits of given tokens to a safetensors file
    Logits(LogitsArgs),
    /// Show the tokens of a text
    Tokenize(TokenizeArgs),
    /// Show what a model file says of itself
    Inspect(InspectArgs),
    /// List the backends: how well each can serve, or why not
    Backends(BackendsArgs),
    /// Test a backend against the meaning of every operation
    Check(CheckArgs),
    /// Print a completion script for a shell
    #[command(after_help = "Example:\n  host completions bash > ~/.local/share/bash-completion/completions/host")]
    Completions {
        /// The shell
        shell: Shell,
    },
    /// Load one plugin, ask it for its score and print the answer.
    #[command(hide = true)]
    ProbePlugin {
        /// The plugin.
        path: PathBuf,
    },
}

/// Where a model is run.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Devices")]
pub struct DeviceArgs {
    /// Backend to run on; the others are tried when it fails
    #[arg(long, value_name = "NAME", default_value = "auto")]
    pub backend: String,
    /// Devices: auto, [BACKEND:]INDEX as `host backends` lists them, or parts of one, [BACKEND:]COUNTxSIZE; with commas
    #[arg(long, value_name = "LIST")]
    pub devices: Option<DeviceList>,
    /// Layers on devices with memory of their own, the last ones; the output projection counts as one [default: all that fit]
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    pub gpu_layers: Option<u32>,
    /// How layers are divided among the devices, such as 3,1 [default: evenly, by the room that they have]
    #[arg(long, value_name = "LIST", value_delimiter = ',', allow_negative_numbers = true)]
    pub split: Vec<u32>,
    /// Keep the experts of the first N layers in host memory
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    pub cpu_experts: Option<u32>,
    /// Memory of each device that is left free, such as 500MiB
    #[arg(long, value_name = "SIZE", value_parser = size::parse, allow_negative_numbers = true)]
    pub reserve: Option<u64>,
    /// Use all devices, also where fewer would do
    #[arg(long)]
    pub spread: bool,
    /// Folder with backends, searched first
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub plugins: Option<PathBuf>,
    /// Fail rather than run anything on another backend
    #[arg(long)]
    pub no_fallback: bool,
    /// Instruction set of the CPU's kernels, to hold them to less than the best; `host backends` lists what is there
    #[arg(long, value_name = "SET")]
    pub cpu_features: Option<String>,
}

/// How a model is run.
#[derive(Clone, Debug, Args)]
pub struct EngineArgs {
    #[command(flatten)]
    #[allow(missing_docs)]
    pub place: DeviceArgs,
    /// Threads on the CPU [default: as many as this process may use]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1024), help_heading = "Devices", allow_negative_numbers = true)]
    pub threads: Option<u32>,
    /// Tokens of context, or max: all that there is room for [default: 4096, or what the model was trained for if that is less]
    #[arg(long, value_name = "N", value_parser = context, help_heading = "Memory", allow_negative_numbers = true)]
    pub ctx_size: Option<ContextWish>,
    /// Tokens evaluated in one step, or auto: what suits the model, or less where that saves a device
    #[arg(long, value_name = "N", default_value = "auto", value_parser = batch, help_heading = "Memory", allow_negative_numbers = true)]
    pub batch_size: Batch,
    /// Sequences that are kept side by side, each with a context of its own
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=4096), help_heading = "Memory", allow_negative_numbers = true)]
    pub parallel: u32,
    /// Type of keys and values in the cache: f32, f16, q8_0 or q4_0
    #[arg(long, value_name = "TYPE", default_value = "f16", value_parser = cache_type, help_heading = "Memory")]
    pub kv_type: Type,
    /// Keep the model's file in memory, whatever else needs memory
    #[arg(long, help_heading = "Memory")]
    pub lock: bool,
}

/// Positions are exact as f32 up to here.
const LONGEST_CONTEXT: u32 = 1 << 24;
/// The most tokens of a step.
const LARGEST_BATCH: u32 = 65536;

fn number(text: &str, most: u32, word: &str) -> Result<u32, String> {
    let number = text.parse().ok().filter(|number| (1..=most).contains(number));
    number.ok_or_else(|| format!("expected {word} or a number from 1 to {most}"))
}

fn context(text: &str) -> Result<ContextWish, String> {
    match text {
        "max" => Ok(ContextWish::Max),
        text => number(text, LONGEST_CONTEXT, "max").map(ContextWish::Tokens),
    }
}

/// Tokens of a step, or none: the model and its devices say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Batch(pub Option<u32>);

fn batch(text: &str) -> Result<Batch, String> {
    match text {
        "auto" => Ok(Batch(None)),
        text => Ok(Batch(Some(number(text, LARGEST_BATCH, "auto")?))),
    }
}

fn cache_type(text: &str) -> Result<Type, String> {
    let known = Type::CACHE.into_iter().find(|ty| ty.name().eq_ignore_ascii_case(text));
    known.ok_or_else(|| "expected f32, f16, q8_0 or q4_0".into())
}

impl DeviceArgs {
    /// A request for one sequence of `context` tokens in steps of `batch`.
    pub fn request(&self, context: Option<ContextWish>, batch: Option<u32>) -> Request {
        Request {
            plugins: self.plugins.clone(),
            backend: (self.backend != "auto").then(|| self.backend.clone()),
            fallback: !self.no_fallback,
            features: self.cpu_features.clone(),
            devices: self.devices.clone().unwrap_or_default(),
            threads: 0,
            wishes: Wishes {
                context,
                batch,
                layers: self.gpu_layers,
                split: self.split.clone(),
                experts: self.cpu_experts,
                reserve: self.reserve.unwrap_or(0),
                spread: self.spread,
            },
            sequences: 1,
            rows: 1,
            ahead: 0,
            cache_type: Type::F16,
        }
    }
}

impl EngineArgs {
    /// Opens the model that is to be run.
    pub fn open(&self, model: Option<&str>) -> Result<LoadedModel, ModelError> {
        let model = LoadedModel::open(model)?;
        if self.lock {
            loading::lock(&model.file);
        }
        Ok(model)
    }

    /// The request, for steps with up to `rows` wanted columns.
    pub fn request(&self, rows: u32) -> Request {
        Request {
            threads: self.threads.unwrap_or(0),
            sequences: self.parallel,
            rows,
            cache_type: self.kv_type,
            ..self.place.request(self.ctx_size, self.batch_size.0)
        }
    }
}

/// Reads the value of a sampling option, which `set` puts in its place, and lets the sampler judge it.
fn checked<T>(set: fn(&mut SamplingOptions, T)) -> impl Fn(&str) -> Result<T, String> + Clone + Send + Sync + 'static
where
    T: FromStr<Err: Display> + Copy + 'static,
{
    move |text| {
        let value = text.parse().map_err(|error: T::Err| error.to_string())?;
        let mut options = SamplingOptions {
            seed: Some(0),
            ..SamplingOptions::default()
        };
        set(&mut options, value);
        match Sampler::new(options) {
            Ok(_) => Ok(value),
            Err(SamplingError::Option { expected, .. }) => Err(format!("expected {expected}")),
            Err(error) => Err(error.to_string()),
        }
    }
}

/// A seed, or none: a new one each time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seed(pub Option<u64>);

fn seed(text: &str) -> Result<Seed, String> {
    match text {
        "-1" => Ok(Seed(None)),
        text => text
            .parse()
            .map(|seed| Seed(Some(seed)))
            .map_err(|_| "expected a whole number, or -1 for a new seed".into()),
    }
}

/// The threads of `host bench`.
fn thread_counts(text: &str) -> Result<List, String> {
    let list: List = text.parse()?;
    match list.0.iter().find(|&&threads| !(1..=1024).contains(&threads)) {
        Some(threads) => Err(format!("{threads} threads; expected 1 to 1024")),
        None => Ok(list),
    }
}

/// How the next token is chosen.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Sampling")]
pub struct SamplingArgs {
    /// Randomness; 0 always takes the likeliest token
    #[arg(long, value_name = "X", default_value_t = 0.8, allow_negative_numbers = true, value_parser = checked(|o, v| o.temperature = v))]
    pub temperature: f32,
    /// Consider the N likeliest tokens only; 0 for all
    #[arg(long, value_name = "N", default_value_t = 40, allow_negative_numbers = true, value_parser = checked(|o, v| o.top_k = v))]
    pub top_k: i32,
    /// Consider the likeliest tokens that together reach this probability
    #[arg(long, value_name = "P", default_value_t = 0.9, allow_negative_numbers = true, value_parser = checked(|o, v| o.top_p = v))]
    pub top_p: f32,
    /// Consider tokens at least P times as probable as the likeliest
    #[arg(long, value_name = "P", default_value_t = 0.0, allow_negative_numbers = true, value_parser = checked(|o, v| o.min_p = v))]
    pub min_p: f32,
    /// Consider tokens of typical surprise that together reach this probability; 1 for all
    #[arg(long, value_name = "P", default_value_t = 1.0, allow_negative_numbers = true, value_parser = checked(|o, v| o.typical_p = v))]
    pub typical: f32,
    /// Penalty on recent tokens; 1 for none
    #[arg(long, value_name = "X", default_value_t = 1.0, allow_negative_numbers = true, value_parser = checked(|o, v| o.repeat_penalty = v))]
    pub repeat_penalty: f32,
    /// How many recent tokens are penalized; -1 for all
    #[arg(long, value_name = "N", default_value_t = 64, allow_negative_numbers = true, value_parser = checked(|o, v| o.repeat_last_n = v))]
    pub repeat_last_n: i32,
    /// Subtracted from the logit of each recent token
    #[arg(long, value_name = "X", default_value_t = 0.0, allow_negative_numbers = true, value_parser = checked(|o, v| o.presence_penalty = v))]
    pub presence_penalty: f32,
    /// Subtracted for each time that a recent token occurred
    #[arg(long, value_name = "X", default_value_t = 0.0, allow_negative_numbers = true, value_parser = checked(|o, v| o.frequency_penalty = v))]
    pub frequency_penalty: f32,
    /// Seed of the random numbers [default: a new one each time]
    #[arg(long, value_name = "N", allow_negative_numbers = true, value_parser = seed)]
    pub seed: Option<Seed>,
}

impl From<&SamplingArgs> for SamplingOptions {
    fn from(args: &SamplingArgs) -> Self {
        SamplingOptions {
            temperature: args.temperature,
            top_k: args.top_k,
            top_p: args.top_p,
            min_p: args.min_p,
            typical_p: args.typical,
            repeat_penalty: args.repeat_penalty,
            repeat_last_n: args.repeat_last_n,
            presence_penalty: args.presence_penalty,
            frequency_penalty: args.frequency_penalty,
            seed: args.seed.and_then(|seed| seed.0),
        }
    }
}

/// Forms of answers that have a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
#[allow(missing_docs)] // the help would become long
pub enum Form {
    Json,
}

/// Ways to guess tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
#[allow(missing_docs)] // the help would become long
pub enum Draft {
    Ngram,
}

impl Draft {
    /// The most tokens of a step that are guesses.
    pub fn ahead(draft: Option<Draft>) -> u32 {
        draft.map_or(0, |_| MOST_AHEAD as u32)
    }
}

/// `host run`.
#[derive(Clone, Debug, Args)]
pub struct RunArgs {
    /// GGUF file, or `embedded` for the small model in the program [default: embedded]
    #[arg(value_hint = ValueHint::FilePath)]
    pub model: Option<String>,
    /// The prompt; what is piped in comes before it. Without one, on a terminal, a conversation begins
    pub prompt: Vec<String>,
    /// Read the prompt from a file
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath, conflicts_with = "prompt")]
    pub file: Option<PathBuf>,
    /// Continue the prompt as it is, without the model's chat template
    #[arg(long, conflicts_with = "system")]
    pub raw: bool,
    /// System message
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    pub system: Option<String>,
    /// Whether the model thinks before it answers: on or off; or how much: low, medium, high [default: on, if it can]
    #[arg(long, value_name = "HOW", num_args = 0..=1, default_missing_value = "on", conflicts_with = "raw")]
    pub think: Option<Think>,
    /// Do not show what the model thinks; it is shown on standard error if standard output is no terminal
    #[arg(long, alias = "hidethinking")]
    pub hide_thinking: bool,
    /// Answer in a form; json: any JSON object
    #[arg(
        long,
        value_name = "FORM",
        value_enum,
        hide_possible_values = true,
        help_heading = "Form of the answer"
    )]
    pub format: Option<Form>,
    /// Answer with JSON as this JSON schema describes it
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath, conflicts_with = "format", help_heading = "Form of the answer")]
    pub json_schema: Option<PathBuf>,
    /// Answer with what this grammar accepts, written in llguidance's Lark
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath, conflicts_with_all = ["format", "json_schema"], help_heading = "Form of the answer")]
    pub grammar: Option<PathBuf>,
    /// Tokens to answer with at most; -1 for no limit but ten contexts
    #[arg(long, value_name = "N", default_value_t = -1, allow_negative_numbers = true, value_parser = clap::value_parser!(i64).range(-1..))]
    pub predict: i64,
    /// Go on after a token that ends the answer
    #[arg(long)]
    pub ignore_eos: bool,
    /// End the answer before this text; may be given several times
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    pub stop: Vec<String>,
    /// Tokens at the start that stay when the context is full and its older half is dropped
    #[arg(long, value_name = "N", default_value_t = 4, allow_negative_numbers = true)]
    pub keep: u32,
    /// End the answer when the context is full
    #[arg(long)]
    pub no_shift: bool,
    /// Print figures of the run to standard error; in a conversation, after each answer
    #[arg(long, alias = "verbose")]
    pub stats: bool,
    /// Break the lines of a conversation where the terminal does, not between words
    #[arg(long)]
    pub nowordwrap: bool,
    /// Print the answer, thoughts, tokens and figures as JSON, when it is complete
    #[arg(long)]
    pub json: bool,
    /// Guess tokens that come next and evaluate them together, which is faster where text repeats itself; the answer stays
    /// the same. ngram: from what followed the last words before
    #[arg(long, value_name = "HOW", value_enum, help_heading = "Speed")]
    pub draft: Option<Draft>,
    /// Tokens to guess at most, up to 7; fewer are guessed where guesses turn out wrong
    #[arg(long, value_name = "N", default_value_t = MOST_AHEAD as u32, value_parser = clap::value_parser!(u32).range(1..=MOST_AHEAD as i64), requires = "draft", help_heading = "Speed", allow_negative_numbers = true)]
    pub draft_max: u32,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub sampling: SamplingArgs,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub engine: EngineArgs,
}

/// `host plan`.
#[derive(Clone, Debug, Args)]
pub struct PlanArgs {
    /// GGUF file, of which the header is enough, or `embedded` [default: embedded]
    #[arg(value_hint = ValueHint::FilePath)]
    pub model: Option<String>,
    /// Print JSON; sizes in bytes
    #[arg(long)]
    pub json: bool,
    /// Plan for `host run --draft`, whose guesses take some memory
    #[arg(long, value_name = "HOW", value_enum)]
    pub draft: Option<Draft>,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub engine: EngineArgs,
}

/// `host bench`.
#[derive(Clone, Debug, Args)]
#[command(
    after_help = "Lists are numbers and ranges with commas: 512, 128,512, 1-4, 0-2048+512, 1-8*2\n\nExamples:\n  host bench model.gguf\n  host bench model.gguf -p 128,512 -n 0 --threads 1-2\n  host bench model.gguf -p 0 -n 64 -d 0-4096+2048 --profile"
)]
pub struct BenchArgs {
    /// GGUF file, or `embedded` [default: embedded]
    #[arg(value_hint = ValueHint::FilePath)]
    pub model: Option<String>,
    /// The same as MODEL, as llama-bench has it
    #[arg(
        short = 'm',
        long = "model",
        value_name = "MODEL",
        conflicts_with = "model",
        hide = true
    )]
    pub model_option: Option<String>,
    /// Tokens of the prompt; 0 for none
    #[arg(short = 'p', long, value_name = "LIST", default_value = "512")]
    pub n_prompt: List,
    /// Tokens to generate; 0 for none
    #[arg(short, long, value_name = "LIST", default_value = "128")]
    pub n_gen: List,
    /// Tokens in the cache before
    #[arg(short = 'd', long, value_name = "LIST", default_value = "0")]
    pub n_depth: List,
    /// How often each test runs
    #[arg(short, long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=10_000), allow_negative_numbers = true)]
    pub repetitions: u32,
    /// Do not run each test shortly before it is timed
    #[arg(long)]
    pub no_warmup: bool,
    /// Form of the results
    #[arg(short, long, value_enum, default_value_t = Format::Md)]
    pub output: Format,
    /// Show where the time goes: by operation, where the backend counts it
    #[arg(long)]
    pub profile: bool,
    /// Threads on the CPU [default: as many as this process may use]
    #[arg(short, long, value_name = "LIST", value_parser = thread_counts)]
    pub threads: Option<List>,
    /// Tokens evaluated in one step
    #[arg(short, long, value_name = "N", default_value_t = DEFAULT_BATCH, value_parser = clap::value_parser!(u32).range(1..=65536), allow_negative_numbers = true)]
    pub batch_size: u32,
    /// Type of keys and values in the cache: f32, f16, q8_0 or q4_0
    #[arg(long, value_name = "TYPE", default_value = "f16", value_parser = cache_type)]
    pub kv_type: Type,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub place: DeviceArgs,
}

impl BenchArgs {
    /// The model, however it was given.
    pub fn model(&self) -> Option<&str> {
        self.model.as_deref().or(self.model_option.as_deref())
    }
}

/// `host logits`.
#[derive(Clone, Debug, Args)]
#[command(after_help = "Example:\n  host logits model.gguf --tokens \"739 25 774\" --output logits.safetensors")]
pub struct LogitsArgs {
    /// GGUF file, or `embedded`
    #[arg(value_hint = ValueHint::FilePath)]
    pub model: String,
    /// Token ids, separated by spaces or commas
    #[arg(long, value_name = "IDS", allow_hyphen_values = true)]
    pub tokens: String,
    /// Safetensors file to write: tensor `logits`, f32, a row a token
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub output: PathBuf,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub engine: EngineArgs,
}

/// `host tokenize`.
#[derive(Clone, Debug, Args)]
#[command(
    after_help = "Examples:\n  host tokenize model.gguf \"Hello\"\n  host tokenize vocab.gguf --json - < text.txt"
)]
pub struct TokenizeArgs {
    /// GGUF file, with or without weights, or `embedded`
    #[arg(value_hint = ValueHint::FilePath)]
    pub model: String,
    /// The text; `-` reads standard input. Special tokens are recognised
    #[arg(allow_hyphen_values = true)]
    pub text: String,
    /// Put the token that begins a text first
    #[arg(long)]
    pub bos: bool,
    /// Print {"tokens": […], "pieces": […]}
    ///
    /// A piece that is not UTF-8 is escaped: bytes that belong to no character become \xNN, and backslashes in it are doubled.
    #[arg(long)]
    pub json: bool,
}

/// `host inspect`.
#[derive(Clone, Debug, Args)]
#[command(after_help = "Examples:\n  host inspect model.gguf\n  host inspect model.gguf --tensors --json")]
pub struct InspectArgs {
    /// GGUF file, or `embedded` [default: embedded]
    #[arg(value_hint = ValueHint::FilePath)]
    pub model: Option<String>,
    /// List all tensors
    #[arg(long)]
    pub tensors: bool,
    /// Print JSON; sizes in bytes
    #[arg(long)]
    pub json: bool,
}

/// `host backends`.
#[derive(Clone, Debug, Args)]
#[command(after_help = "Examples:\n  host backends\n  host backends --plugins target/release --json")]
pub struct BackendsArgs {
    /// Folder with backends, searched first
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub plugins: Option<PathBuf>,
    /// Print JSON; sizes in bytes
    #[arg(long)]
    pub json: bool,
}

/// `host check`.
#[derive(Clone, Debug, Args)]
#[command(
    after_help = "Examples:\n  host check plugins/mine.so\n  host check plugins/mine.so --operations product,attention --json"
)]
pub struct CheckArgs {
    /// The backend's shared library
    #[arg(value_hint = ValueHint::FilePath)]
    pub plugin: PathBuf,
    /// Device to test
    #[arg(long, value_name = "INDEX", default_value_t = 0, allow_negative_numbers = true)]
    pub device: u32,
    /// Instruction set of the CPU's kernels, to hold them to less than the best; `host backends` lists what is there
    #[arg(long, value_name = "SET")]
    pub cpu_features: Option<String>,
    /// Test these operations only, separated by commas
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    pub operations: Vec<String>,
    /// Seed of the random inputs
    #[arg(long, value_name = "N", default_value_t = 1, allow_negative_numbers = true)]
    pub seed: u64,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}
