//! However a text is cut into tokens, it makes the same reply, and none of it is lost.

use proptest::prelude::*;

use super::*;

const MARKS: [&str; 7] = [
    "<|start|>",
    "<|channel|>",
    "<|message|>",
    "<|end|>",
    "<|constrain|>",
    "<|call|>",
    "<|return|>",
];
const WORDS: [&str; 14] = [
    "assistant",
    "user",
    "analysis",
    "commentary",
    "final",
    " to=functions.f",
    " to=",
    "json",
    "{\"a\": \"é\"}",
    "🦀",
    "\n",
    " ",
    "x",
    "To be, or not to be: that is the question.",
];
const TAGS: [&str; 7] = ["<think>", "</think>", "</th", "<", "ink>", "\n", "  "];

/// The tokens of parts, of which only marks may be special; letters stand alone where `cuts` say so.
fn tokens(model: &Model, parts: &[&str], cuts: &[bool]) -> Vec<u32> {
    let mut cuts = cuts.iter().cycle();
    let mut all = Vec::new();
    for part in parts {
        if MARKS.contains(part) {
            all.extend(model.tokens(part));
            continue;
        }
        let mut rest = *part;
        while let Some(first) = rest.chars().next() {
            let at = if *cuts.next().unwrap() {
                first.len_utf8()
            } else {
                rest.len()
            };
            all.extend(model.tokenizer.encode(&rest[..at], Special::Plain));
            rest = &rest[at..];
        }
    }
    all
}

fn words(of: &'static [&'static str], more: &'static [&'static str]) -> impl Strategy<Value = Vec<&'static str>> {
    let word = prop_oneof![prop::sample::select(of), prop::sample::select(more)];
    prop::collection::vec(word, 0..14)
}

fn cuts() -> impl Strategy<Value = Vec<bool>> {
    prop::collection::vec(any::<bool>(), 1..9)
}

fn letters(text: &str) -> String {
    text.split_whitespace().collect()
}

proptest! {
    #[test]
    fn messages(
        parts in words(&MARKS, &WORDS),
        cuts in cuts(),
        prompt in prop::sample::select(vec!["", "<|start|>assistant", "<|start|>assistant<|channel|>analysis<|message|>"]),
        stop in prop::sample::select(vec!["not", "\n", "or not to", "🦀x"]),
    ) {
        let whole = GPT_OSS.read(prompt, &[stop], &tokens(&GPT_OSS, &parts, &[false]));
        prop_assert_eq!(&GPT_OSS.read(prompt, &[stop], &tokens(&GPT_OSS, &parts, &cuts)), &whole);
        prop_assert!(!whole.content.contains(stop));
    }

    #[test]
    fn tagged(
        parts in words(&TAGS, &WORDS),
        cuts in cuts(),
        prompt in prop::sample::select(vec!["", "<think>\n", "<think></think>"]),
        stop in prop::sample::select(vec!["not", "\n", "<th"]),
    ) {
        let whole = SPELLED.read(prompt, &[stop], &SPELLED.tokenizer.encode(&parts.concat(), Special::Plain));
        prop_assert_eq!(&SPELLED.read(prompt, &[stop], &tokens(&SPELLED, &parts, &cuts)), &whole);
        // one token a tag, shown or hidden
        for model in [&QWEN3, &DEEPSEEK] {
            let tokens = model.tokens(&parts.concat());
            prop_assert_eq!(&model.read(prompt, &[stop], &tokens), &whole);
        }
    }

    #[test]
    fn of_a_tagged_reply_only_tags_and_space_are_lost(parts in words(&TAGS, &WORDS)) {
        let text = parts.concat();
        let reply = SPELLED.read("", &[], &SPELLED.tokens(&text));
        let said = letters(&reply.thinking) + &letters(&reply.content);
        let opened = text.trim_start().strip_prefix("<think>");
        let expected = opened.map_or(letters(&text), |rest| letters(&rest.replacen("</think>", "", 1)));
        prop_assert_eq!(said, expected);
    }

    #[test]
    fn of_messages_all_text_is_kept(texts in prop::collection::vec("[xé🦀\n ]{1,6}", 1..5), breaks in prop::collection::vec(0..4_usize, 5)) {
        // headers that are whole, or have no end, or are not there
        let headers = ["<|start|>assistant<|channel|>final<|message|>", "<|channel|>analysis ", "<|start|>", "<|end|>"];
        let input: String = texts.iter().zip(breaks).map(|(text, header)| headers[header].to_owned() + text).collect();
        let reply = GPT_OSS.read("<|start|>assistant", &[], &GPT_OSS.tokens(&input));
        let count = |text: &str| letters(text).chars().count();
        prop_assert_eq!(count(&reply.thinking) + count(&reply.content), count(&texts.concat()), "{:?}", reply);
    }
}
