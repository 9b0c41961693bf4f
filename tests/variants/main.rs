//! gpt-oss files in every spelling: separate tensors and fused ones, current names and older ones, both names of the
//! architecture, both orders of MXFP4. They say the same, so they give the same logits, bit for bit, from the same memory.

mod respell;

use std::path::PathBuf;

use backend_api::contract::flags;
use host::execution::plan::{Plan, Region, Source};
use models::gguf::{Gguf, GgufWriter};
use respell::WHOLE;
use tempfile::TempDir;
use tests::{Fixture, KERNELS, Logits, Serving, command, extend, kernel_sets, output, settings};

const LAYERS: u32 = 4;

/// Changes a copy of a file.
type Change = fn(&mut GgufWriter, &Gguf);

fn fused_attention(copy: &mut GgufWriter, file: &Gguf) {
    for layer in 0..LAYERS {
        respell::fuse_attention(copy, file, layer, &WHOLE);
    }
}

fn fused_experts(copy: &mut GgufWriter, file: &Gguf) {
    for layer in 0..LAYERS {
        respell::fuse_experts(copy, file, layer, &WHOLE);
    }
}

fn both_fused(copy: &mut GgufWriter, file: &Gguf) {
    fused_attention(copy, file);
    fused_experts(copy, file);
}

fn weights_fused_and_biases_apart(copy: &mut GgufWriter, file: &Gguf) {
    for layer in 0..LAYERS {
        respell::fuse_attention(copy, file, layer, &["weight"]);
        respell::fuse_experts(copy, file, layer, &["weight"]);
    }
}

fn older_names(copy: &mut GgufWriter, file: &Gguf) {
    (0..LAYERS).for_each(|layer| respell::rename(copy, file, layer));
}

fn each_layer_its_own_way(copy: &mut GgufWriter, file: &Gguf) {
    respell::fuse_attention(copy, file, 0, &WHOLE);
    respell::fuse_experts(copy, file, 1, &WHOLE);
    respell::rename(copy, file, 1);
    respell::fuse_attention(copy, file, 2, &["bias"]);
    respell::fuse_experts(copy, file, 2, &["weight"]);
    respell::rename(copy, file, 2);
    respell::fuse_attention(copy, file, 3, &WHOLE);
    respell::fuse_experts(copy, file, 3, &WHOLE);
}

fn as_ollama_has_it(copy: &mut GgufWriter, file: &Gguf) {
    both_fused(copy, file);
    older_names(copy, file);
    respell::call(copy, file, "gptoss", "gptoss");
    respell::forget(copy, "gptoss");
}

const VARIANTS: [(&str, Change); 10] = [
    ("fused attention", fused_attention),
    ("fused experts", fused_experts),
    ("both fused", both_fused),
    ("weights fused, biases apart", weights_fused_and_biases_apart),
    ("older names", older_names),
    ("each layer its own way", each_layer_its_own_way),
    ("gptoss", |copy, file| respell::call(copy, file, "gptoss", "gptoss")),
    ("gptoss with the other's keys", |copy, file| {
        respell::call(copy, file, "gptoss", "gpt-oss")
    }),
    ("gpt-oss with the other's keys", |copy, file| {
        respell::call(copy, file, "gpt-oss", "gptoss")
    }),
    ("as Ollama has it", as_ollama_has_it),
];

struct Variants {
    folder: TempDir,
    original: Gguf,
}

impl Variants {
    fn new() -> Variants {
        Variants {
            folder: tempfile::tempdir().unwrap(),
            original: Gguf::open(Fixture::named("gptoss-q8_0").path().as_ref()).unwrap(),
        }
    }

    fn write(&self, name: &str, change: impl FnOnce(&mut GgufWriter, &Gguf)) -> String {
        let mut copy = GgufWriter::copy_of(&self.original);
        change(&mut copy, &self.original);
        let path: PathBuf = self.folder.path().join(format!("{name}.gguf"));
        copy.write(&path).unwrap();
        path.to_str().unwrap().to_owned()
    }
}

/// The logits of the prompt's first tokens in steps of `batch`, on a device that imports weights or gets copies.
fn logits(path: &str, batch: u32, imports: bool) -> Logits {
    let serving = serving(path, imports);
    let prompt = Fixture::named("gptoss-q8_0").prompt();
    let mut engine = serving.engine(&settings(128, batch));
    Logits(extend(&mut engine, 0, &prompt[..96], batch as usize))
}

fn serving(path: &str, imports: bool) -> Serving {
    let mut serving = Serving::file(path);
    if !imports {
        serving.target.info.flags &= !flags::IMPORTS;
    }
    serving
}

#[test]
fn every_spelling_gives_the_same_logits_to_the_bit() {
    let variants = Variants::new();
    let path = Fixture::named("gptoss-q8_0").path();
    let original = [1, 64].map(|batch| logits(&path, batch, true));
    for (name, change) in VARIANTS {
        let path = variants.write(name, change);
        for (batch, original) in [1, 64].into_iter().zip(&original) {
            assert!(logits(&path, batch, true) == *original, "{name}, steps of {batch}");
        }
        assert!(logits(&path, 64, false) == original[1], "{name}, uploaded");
    }
}

#[test]
fn older_data_give_the_same_logits_to_the_bit() {
    let variants = Variants::new();
    let path = Fixture::named("gptoss-q8_0").path();
    let older = variants.write("older data", |copy, file| {
        respell::reorder(copy, file);
    });
    for (batch, imports) in [(1, true), (64, true), (64, false)] {
        assert!(
            logits(&older, batch, imports) == logits(&path, batch, imports),
            "steps of {batch}"
        );
    }
}

#[test]
fn parts_of_widened_biases_give_the_same_logits_to_the_bit() {
    let variants = Variants::new();
    let apart = variants.write("apart", respell::narrow);
    let apart_file = Gguf::open(apart.as_ref()).unwrap();
    let fused = variants.write("fused", |copy, file| {
        respell::narrow(copy, file);
        both_fused(copy, &apart_file);
    });
    for batch in [1, 64] {
        assert!(
            logits(&fused, batch, true) == logits(&apart, batch, true),
            "steps of {batch}"
        );
    }
}

/// The logits of the prompt by the program, with an instruction set.
fn with_kernels(path: &str, kernels: &str, batch: &str) -> Logits {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("logits.safetensors");
    let ids: Vec<String> = Fixture::named("gptoss-q8_0")
        .prompt()
        .iter()
        .map(u32::to_string)
        .collect();
    let (tokens, out) = (ids.join(" "), file.to_str().unwrap());
    let mut run = command(&[
        "logits",
        path,
        "--tokens",
        &tokens,
        "--output",
        out,
        "--batch-size",
        batch,
    ]);
    output(run.args(["--backend", "cpu", "--no-fallback"]).env(KERNELS, kernels));
    Logits::read(&file)
}

#[test]
fn every_instruction_set_serves_every_spelling() {
    let variants = Variants::new();
    let path = Fixture::named("gptoss-q8_0").path();
    let older = variants.write("older", |copy, file| {
        respell::reorder(copy, file);
        let reordered = Gguf::from_bytes("reordered", copy.to_bytes()).unwrap();
        both_fused(copy, &reordered);
        older_names(copy, file);
    });
    for kernels in kernel_sets() {
        for batch in ["1", "64"] {
            let same = with_kernels(&older, kernels, batch) == with_kernels(&path, kernels, batch);
            assert!(same, "{kernels}, steps of {batch}");
        }
    }
}

/// Bytes of the file's tensors that the plan's devices get copies of, and the region that holds them.
fn uploaded(plan: &Plan) -> (u64, u64) {
    let [device] = plan.devices.as_slice() else {
        panic!("{} devices", plan.devices.len())
    };
    let of = |source| match source {
        Source::Weight(_, weight) | Source::Rewritten(_, weight) => weight.extent().unwrap(),
        Source::Widened(_) | Source::Constant(_) => 0,
    };
    let bytes = device.uploads.iter().map(|upload| of(upload.source)).sum();
    (bytes, device.regions.get(&Region::Weights).copied().unwrap_or(0))
}

#[test]
fn every_spelling_takes_the_same_memory() {
    let variants = Variants::new();
    let path = Fixture::named("gptoss-q8_0").path();
    let of = |path: &str, imports| serving(path, imports).plan(&settings(128, 64));
    let original = [true, false].map(|imports| of(&path, imports));
    let all: u64 = variants.original.tensors().iter().map(|info| info.bytes).sum();
    assert_eq!(uploaded(&original[0]), (0, 0));
    assert_eq!(uploaded(&original[1]).0, all);
    for (name, change) in VARIANTS {
        let path = variants.write(name, change);
        let plans = [true, false].map(|imports| of(&path, imports));
        // nothing is copied where weights are imported; elsewhere each byte once
        assert_eq!(plans[0].devices[0].regions, original[0].devices[0].regions, "{name}");
        assert_eq!(
            plans[0].devices[0].allocated(),
            original[0].devices[0].allocated(),
            "{name}"
        );
        assert_eq!(uploaded(&plans[1]).0, all, "{name}");
        // fused tensors have fewer gaps between them
        assert!(uploaded(&plans[1]).1 <= uploaded(&original[1]).1, "{name}");
    }
}

#[test]
fn older_data_take_the_memory_of_what_is_rewritten_and_no_more() {
    let variants = Variants::new();
    let path = Fixture::named("gptoss-q8_0").path();
    let mut rewritten = Vec::new();
    let older = variants.write("older data", |copy, file| rewritten = respell::reorder(copy, file));
    let [original, plan] = [&path, &older].map(|path| serving(path, true).plan(&settings(128, 64)));
    assert!(rewritten.len() == 12 && rewritten.iter().all(|bytes| bytes.is_multiple_of(64)));
    let bytes: u64 = rewritten.iter().sum();
    assert_eq!(uploaded(&plan), (bytes, bytes));
    let [before, after] = [&original, &plan].map(|plan| plan.devices[0].allocated());
    assert_eq!(after, before + bytes);

    // what is uploaded to a device without the map is as much as ever
    let [original, plan] = [&path, &older].map(|path| serving(path, false).plan(&settings(128, 64)));
    assert_eq!(uploaded(&plan), uploaded(&original));

    let engine = serving(&older, true).engine(&settings(128, 64));
    let counted = engine.counters().unwrap();
    let allocated = counted[0]
        .1
        .iter()
        .find(|counter| counter.name.as_str() == "allocated_bytes");
    assert_eq!(allocated.unwrap().value, after);
}
