//! How long it takes to place the largest shape: under 100 ms.

use std::process::Command;

use backend_api::{contract::flags, types::Type};
use host::{
    execution::engine::Settings,
    placement::{ContextWish, Ground, Wishes, place},
};
use tests::Serving;

fn main() {
    divan::main();
}

/// gpt-oss in its 120B shape, of which the header alone is written.
fn shape() -> Serving {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("120b.gguf");
    let made = Command::new(env!("CARGO_BIN_EXE_make-model"))
        .args(["gptoss-120b", "--quant", "mxfp4", "--sparse"])
        .arg(&path)
        .output();
    assert!(made.is_ok_and(|made| made.status.success()));
    Serving::file(path.to_str().expect("a path in UTF-8"))
}

/// On two, four and eight cards of 11441 MiB: experts on the host, and all layers on cards.
#[divan::bench(args = [2, 4, 8], sample_count = 20)]
fn a_120b_model(bencher: divan::Bencher<'_, '_>, cards: usize) {
    let serving = shape();
    let mut card = serving.target.clone();
    (card.info.total, card.info.free) = (11_313 << 20, 11_313 << 20);
    card.info.flags &= !flags::IMPORTS;
    let ground = Ground {
        devices: (0..cards as u32)
            .map(|number| {
                let mut device = card.clone();
                device.logical = Some(number);
                device
            })
            .collect(),
        host: Some(serving.target.clone()),
    };
    let wishes = Wishes {
        context: Some(ContextWish::Tokens(16384)),
        ..Wishes::default()
    };
    let usual = Settings {
        context: 0,
        batch: 0,
        ahead: 0,
        rows: 1,
        sequences: 1,
        page_tokens: 64,
        cache_types: [Type::F16; 2],
        threads: 1,
    };
    let model = &serving.model;
    bencher.bench_local(|| place(&model.file, &model.model, &ground, &wishes, &usual).expect("a place"));
}
