//! Makes GGUF files in the shapes of well-known models, with random weights: for benchmarks, and for plans, which need the
//! header alone.

mod fill;
mod mix;
mod shapes;
mod vocabulary;

use std::{
    fs::File,
    io,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::atomic::{AtomicUsize, Ordering},
    thread,
};

use anyhow::Context;
use backend_api::types::Type;
use clap::Parser;
use mix::{Mix, Place};
use models::gguf::{Gguf, GgufWriter, TensorType};
use shapes::{Shape, Tensor};

/// Bytes that a thread makes at once, about.
const PIECE: usize = 1 << 20;

/// Write a GGUF file with random weights in the shape of a well-known model
#[derive(Debug, Parser)]
#[command(name = "make-model", max_term_width = 100)]
struct Args {
    /// The model's shape, such as qwen2-1.5b
    shape: Shape,
    /// Types of the tensors: q4_k_m, mxfp4 (gpt-oss's own), or one type for all matrices
    #[arg(long, value_name = "MIX", default_value = "q4_k_m")]
    quant: Mix,
    /// Write the header alone, over a file with holes
    #[arg(long)]
    sparse: bool,
    /// Another number of layers than the model has
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=1000))]
    layers: Option<u64>,
    /// Seed of the random numbers
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// The file to write
    out: PathBuf,
}

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let shape = args.layers.map_or(args.shape, |layers| args.shape.with_layers(layers));
    let writing = || format!("{}", args.out.display());
    header(&shape, args.quant)?.write(&args.out).with_context(writing)?;
    if !args.sparse {
        fill_file(&args.out, args.seed).with_context(writing)?;
    }
    let length = args.out.metadata().with_context(writing)?.len();
    eprintln!("{}: {}, {length} bytes", args.out.display(), shape.name);
    Ok(())
}

/// All keys, and all tensors without their data.
fn header(shape: &Shape, mix: Mix) -> anyhow::Result<GgufWriter<'static>> {
    let mut writer = GgufWriter::new();
    shape.set_metadata(&mut writer);
    for Tensor { name, dims, layer } in shape.tensors() {
        let place = Place {
            name: &name,
            dims: &dims,
            layer,
            layers: shape.layers(),
            tied: shape.tied(),
        };
        writer.zeros(&name, &dims, mix.of(&place))?;
    }
    Ok(writer)
}

/// A stretch of a tensor's blocks in the file.
struct Stretch {
    ty: Type,
    deviation: f32,
    offset: u64,
    bytes: usize,
}

/// Fills all tensors with random weights, on all cores.
fn fill_file(path: &Path, seed: u64) -> anyhow::Result<()> {
    let stretches = stretches(&Gguf::open(path)?);
    let file = File::options().write(true).open(path)?;
    let next = AtomicUsize::new(0);
    let work = || -> io::Result<()> {
        let mut blocks = Vec::new();
        loop {
            let index = next.fetch_add(1, Ordering::Relaxed);
            let Some(stretch) = stretches.get(index) else {
                return Ok(());
            };
            blocks.resize(stretch.bytes, 0);
            fill::fill(
                stretch.ty,
                stretch.deviation,
                seed.wrapping_add(index as u64),
                &mut blocks,
            );
            file.write_all_at(&blocks, stretch.offset)?;
        }
    };
    let threads = thread::available_parallelism()?.get();
    thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        let results = workers
            .into_iter()
            .map(|w| w.join().map_err(|_| io::Error::other("a thread panicked"))?);
        results.collect::<io::Result<()>>()
    })?;
    Ok(())
}

/// All data of the file in pieces. Weights deviate by 1/√K, which keeps the size of what they multiply; vectors are near 1
/// where they scale and near 0 where they are added.
fn stretches(file: &Gguf) -> Vec<Stretch> {
    let start = file.files()[0].bytes().as_ptr() as usize;
    let mut all = Vec::new();
    for tensor in file.tensors() {
        let TensorType::Known(ty) = tensor.kind else { continue };
        let data = file.data(tensor);
        let matrix = tensor.shape().len() > 1 && !tensor.name.ends_with(".bias");
        let deviation = match matrix {
            true => 1.0 / (tensor.dims[0] as f32).sqrt(),
            false if tensor.name.ends_with(".bias") => 0.02,
            false => 1.0,
        };
        let step = PIECE / ty.block_bytes() * ty.block_bytes();
        for (i, piece) in data.chunks(step).enumerate() {
            all.push(Stretch {
                ty,
                deviation,
                offset: (data.as_ptr() as usize - start + i * step) as u64,
                bytes: piece.len(),
            });
        }
    }
    all
}
