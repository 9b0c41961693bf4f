//! Every tensor and every key of every model among the fixtures, left out or changed: a file that can do without loads, any
//! other is refused by an error that names it. Weights are not read.

mod changed;
mod optional;

use std::collections::BTreeSet;

use changed::{Change, Fault, File};
use models::gguf::GgufWriter;
use optional::{HARMLESS, KEYS, OPTIONAL, Optional, UNREAD};

fn of_architecture(name: &str) -> &'static Optional {
    let found = OPTIONAL.iter().find(|optional| optional.architecture == name);
    found.unwrap_or_else(|| panic!("{name} is not listed"))
}

/// The entry of a list that lets a file do without what the fault takes away.
fn excuse(architecture: &str, fault: &Fault) -> Option<&'static str> {
    let optional = of_architecture(architecture);
    let own = fault
        .name
        .strip_prefix(&format!("{architecture}."))
        .unwrap_or(&fault.name);
    let listed = |lists: [&[&'static str]; 2]| lists.concat().into_iter().find(|key| *key == own);
    let unread = listed([&UNREAD, optional.unread]);
    let harmless = HARMLESS
        .iter()
        .find(|(of, what)| *of == architecture && *what == fault.what);
    harmless.map(|(_, what)| *what).or(match fault.change {
        Change::NoTensor => optional.tensors.iter().find(|end| fault.name.ends_with(**end)).copied(),
        Change::OtherShape => None,
        Change::NoKey => listed([&KEYS, optional.keys]).or(unread),
        Change::OtherValue => unread,
    })
}

/// Whether an error names the key or tensor and, of a tensor that is not there, says so. Keys may stand without their
/// architecture.
fn names(error: &str, architecture: &str, fault: &Fault) -> bool {
    let own = fault
        .name
        .strip_prefix(&format!("{architecture}."))
        .unwrap_or(&fault.name);
    // a longer name is another one
    let follows = |rest: &str| rest.starts_with(|c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.'));
    let named = error
        .match_indices(own)
        .any(|(at, _)| !follows(&error[at + own.len()..]));
    named && (fault.change != Change::NoTensor || error.contains("is missing"))
}

#[test]
fn every_fault_of_every_model_is_named_unless_the_model_can_do_without() {
    let (mut faults, mut wrong, mut used) = (0, Vec::new(), BTreeSet::new());
    for path in changed::files() {
        let file = File::open(&path);
        let architecture = file.gguf.metadata().string("general.architecture").unwrap();
        let before = faults;
        file.each_fault(|fault, loaded| {
            faults += 1;
            let excuse = excuse(architecture, &fault);
            match (loaded, excuse) {
                (Ok(()), Some(excuse)) => {
                    used.insert((architecture.to_owned(), excuse));
                }
                (Ok(()), None) => wrong.push(format!("{}: {} loads", path.display(), fault.what)),
                (Err(error), _) if names(&error, architecture, &fault) => {}
                (Err(error), _) => wrong.push(format!("{}: {}: {error}", path.display(), fault.what)),
            }
        });
        println!("{}: {} faults", path.display(), faults - before);
        assert!(faults - before >= file.gguf.tensors().len() + file.gguf.metadata().len());
    }
    assert!(wrong.is_empty(), "{} of {faults}:\n{}", wrong.len(), wrong.join("\n"));
    for optional in &OPTIONAL {
        let listed = [optional.keys, optional.unread, optional.tensors].concat();
        let unused = listed
            .into_iter()
            .find(|entry| !used.contains(&(optional.architecture.to_owned(), *entry)));
        assert_eq!(unused, None, "{} can do without it in no file", optional.architecture);
    }
}

/// What loading says of a fixture with changes.
fn refusal(name: &str, change: impl FnOnce(&mut GgufWriter)) -> String {
    let file = File::open(&changed::fixture(name));
    file.rewritten(|copy| change(copy)).unwrap_err()
}

#[test]
fn an_error_about_a_tensor_says_what_else_would_do_and_what_the_original_model_calls_it() {
    let error = refusal("gptoss-q8_0", |copy| {
        copy.remove_tensor("blk.2.attn_output.weight");
    });
    let expected = "hint: \"blk.2.attn_out.weight\" would do as well; the original model calls it self_attn.o_proj";
    assert!(error.ends_with(expected), "{error}");

    let error = refusal("gptoss-q8_0", |copy| {
        copy.remove_tensor("blk.0.ffn_up_exps.bias");
    });
    assert!(
        error.contains("\"blk.0.ffn_gate_up_exps.bias\" of 512 rows that hold it would do as well"),
        "{error}"
    );
}

#[test]
fn fused_tensors_where_separate_ones_are_needed_are_told() {
    let file = File::open(&changed::fixture("gemma3n-q8_0"));
    let q = file.gguf.tensor("blk.0.attn_q.weight").unwrap();
    let error = refusal("gemma3n-q8_0", |copy| {
        copy.remove_tensor(&q.name);
        copy.tensor("blk.0.attn_qkv.weight", q.shape(), q.kind, file.gguf.data(q).to_vec())
            .unwrap();
    });
    let expected = "the file has \"blk.0.attn_qkv.weight\", where this architecture needs separate tensors";
    assert!(
        error.contains("\"blk.0.attn_q.weight\" is missing") && error.contains(expected),
        "{error}"
    );
}

#[test]
fn an_error_about_a_key_says_what_it_means_and_where_it_stands_instead() {
    let error = refusal("qwen2-q8_0", |copy| {
        copy.remove("qwen2.block_count").set("qwen3.block_count", 4u32);
    });
    let expected = "key \"qwen2.block_count\": missing\nhint: it says how many layers there are; the file has \"qwen3.block_count\"";
    assert!(error.ends_with(expected), "{error}");
}

#[test]
fn an_error_about_a_shape_names_the_sizes_that_the_file_does_not_say() {
    let error = refusal("qwen2-q8_0", |copy| {
        copy.remove("qwen2.attention.head_count_kv");
    });
    assert!(
        error.contains("\"blk.0.attn_k.weight\" is Q8_0 [256, 128], where [256, 256] is expected"),
        "{error}"
    );
    assert!(
        error.contains("hint: the file does not have qwen2.attention.head_count_kv"),
        "{error}"
    );
}

#[test]
fn an_unknown_architecture_or_pattern_is_refused_with_those_that_are_known() {
    let error = refusal("qwen2-q8_0", |copy| {
        copy.set("general.architecture", "nosuch");
    });
    assert!(error.contains("\"nosuch\""), "{error}");
    let unknown = models::architecture::known()
        .into_iter()
        .find(|name| !error.contains(name));
    assert_eq!(unknown, None, "{error}");

    let error = refusal("qwen2-q8_0", |copy| {
        copy.set("tokenizer.ggml.pre", "nosuch");
    });
    let known = ["llama-bpe", "qwen2", "gpt-4o", "deepseek-r1-qwen"];
    assert!(error.contains("`tokenizer.ggml.pre` is `nosuch`"), "{error}");
    assert_eq!(known.into_iter().find(|name| !error.contains(name)), None, "{error}");
}
