//! After warm-up a generated token allocates nothing on the heap.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use host::cache::{Cache, CacheConfig, Step};
use host::reply::{Format, Reader};
use host::sampling::{Sampler, SamplingOptions};
use host::stop::StopStrings;
use models::gguf::Gguf;
use models::template::ChatTemplate;
use models::tokenizer::{Special, Tokenizer};

thread_local! {
    static ALLOCATIONS: Cell<usize> = const { Cell::new(0) };
}

struct Counting;

// SAFETY: every call goes to the system's allocator unchanged; the counter is a thread-local without a destructor and
// allocates nothing itself.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
        // SAFETY: the caller keeps the contract of `GlobalAlloc::alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the pointer comes from `alloc` above, which is the system's.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn allocations(work: impl FnOnce()) -> usize {
    let before = ALLOCATIONS.get();
    work();
    ALLOCATIONS.get() - before
}

#[test]
fn the_counter_counts() {
    assert_eq!(allocations(|| drop(std::hint::black_box(Box::new(1)))), 1);
}

#[test]
fn a_decoding_step_of_the_cache_allocates_nothing() {
    let config = CacheConfig::full(16, 4, 4096, 64, &[None, Some(100)]);
    let (mut cache, mut step) = (Cache::new(config).unwrap(), Step::default());
    for sequence in 0..4 {
        for _ in 0..10 {
            cache.begin(&[(sequence, 64)], &mut step).unwrap();
        }
    }
    let columns = [(0, 1), (1, 1), (2, 1), (3, 1)];
    let mut decode = |steps| (0..steps).for_each(|_| cache.begin(&columns, &mut step).unwrap());
    decode(32);
    assert_eq!(allocations(|| decode(2000)), 0);
}

#[test]
fn sampling_allocates_nothing() {
    for (top_k, typical_p, temperature) in [(40, 1.0, 0.8), (0, 0.9, 0.8), (0, 1.0, 0.0)] {
        let options = SamplingOptions {
            top_k,
            typical_p,
            temperature,
            repeat_penalty: 1.1,
            seed: Some(1),
            ..Default::default()
        };
        let mut sampler = Sampler::new(options).unwrap();
        let mut logits = vec![0.0; 5000];
        let mut generate = |tokens: usize| {
            for token in 0..tokens {
                logits
                    .iter_mut()
                    .enumerate()
                    .for_each(|(i, logit)| *logit = ((i * 7 + token) as f32).sin());
                let chosen = sampler.sample(&mut logits).unwrap();
                sampler.accept(chosen);
            }
        };
        generate(4);
        assert_eq!(
            allocations(|| generate(300)),
            0,
            "top_k {top_k}, temperature {temperature}"
        );
    }
}

#[test]
fn looking_for_stop_strings_allocates_nothing() {
    let mut stops = StopStrings::new(["<end>", "\n\n"]);
    let mut print = |pieces| {
        (0..pieces)
            .map(|_| stops.push("some <en text\n").text.len())
            .sum::<usize>()
    };
    print(4);
    assert_eq!(allocations(|| assert_eq!(print(1000), 14_000)), 0);
}

/// The tokenizer of a fixture, and the format of replies with this template.
fn replies(file: &str, template: &str) -> (Tokenizer, Format) {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures");
    let tokenizer = Tokenizer::from_gguf(&Gguf::open(&path.join(file)).unwrap(), None).unwrap();
    let template = ChatTemplate::new("test", template).unwrap();
    let format = Format::of(&tokenizer, Some(&template));
    (tokenizer, format)
}

#[test]
fn reading_a_reply_allocates_nothing() {
    let thinking = "<|channel|>analysis<|message|>";
    let answer = "<|end|><|start|>assistant<|channel|>final<|message|>";
    for (file, template, thinking, answer) in [
        ("gptoss-q8_0.gguf", "", thinking, answer),
        ("qwen2-q8_0.gguf", "<think>", "<think>", "</think>"),
        ("qwen2-q8_0.gguf", "", "", ""),
    ] {
        let (tokenizer, format) = replies(file, template);
        let mut reader = Reader::new(&tokenizer, format, &[], StopStrings::new(["<end>", "\n\n\n"]));
        let mut bytes = 0;
        let mut read = |text: &str, times: usize| {
            let tokens = tokenizer.encode(text, Special::Parse);
            let mut sink = |piece: host::reply::Piece<'_>| {
                bytes += piece.text.len();
                Ok(())
            };
            let mut push = || {
                tokens
                    .iter()
                    .for_each(|&token| assert!(!reader.push(token, &mut sink).unwrap()))
            };
            allocations(|| (0..times).for_each(|_| push()))
        };
        let words = "ROMEO: soft <en 🦀\n\n </thin ";
        for begin in [thinking, answer] {
            read(begin, 1);
            read(words, 4);
            assert_eq!(read(words, 500), 0, "{file} {template:?} {begin:?}");
        }
        assert!(bytes > 500 * words.len(), "{bytes}");
    }
}
