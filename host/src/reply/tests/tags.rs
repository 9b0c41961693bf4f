//! Thinking between tags.

use rstest::rstest;

use super::*;

const OPENED: &str = "<|im_start|>assistant\n<think>\n";
const CLOSED: &str = "<|im_start|>assistant\n<think>\n\n</think>\n\n";
const FRESH: &str = "<|im_start|>assistant\n";

/// The same reply, whatever tokens the tags are.
fn check_all(prompt: &str, input: &str, expected: &str) {
    for model in [&QWEN3, &DEEPSEEK, &SPELLED] {
        model.check(prompt, input, expected);
    }
}

#[rstest]
#[case::thinking_then_answer("<think>\nHm.\n</think>\n\nTo be.", "[Hm.]To be.")]
#[case::space_before_the_tag(" \n<think>Hm.</think>To be.", "[Hm.]To be.")]
#[case::an_answer_alone("To be.", "To be.")]
#[case::space_that_is_no_tags(" \n To be.\n", " \n To be.\n")]
#[case::empty_thinking("<think>\n\n</think>\n\nTo be.", "To be.")]
#[case::lines_inside("<think>\n a\n\n b \n</think>\nc\n\nd\n", "[a\n\n b]c\n\nd\n")]
#[case::nothing("", "")]
fn thinking_stands_before_the_answer(#[case] input: &str, #[case] expected: &str) {
    check_all(FRESH, input, expected);
}

#[rstest]
#[case::goes_on("Hm.\n</think>\n\nTo be.", "[Hm.]To be.")]
#[case::at_once("</think>To be.", "To be.")]
#[case::opened_twice("<think>\nHm.</think>To be.", "[<think>\nHm.]To be.")]
fn a_prompt_may_have_opened_the_thinking(#[case] input: &str, #[case] expected: &str) {
    check_all(OPENED, input, expected);
}

#[rstest]
#[case::as_wanted("\nTo be.", "To be.")]
#[case::thinks_all_the_same("<think>Hm.</think>To be.", "[Hm.]To be.")]
fn a_prompt_may_have_closed_the_thinking(#[case] input: &str, #[case] expected: &str) {
    check_all(CLOSED, input, expected);
}

#[rstest]
#[case::never_closed("<think>Hm. To be.\n", "[Hm. To be.\n]")]
#[case::cut_in_the_closing_tag("<think>Hm.\n</thi", "[Hm.\n</thi]")]
#[case::cut_in_the_opening_tag("\n<thi", "\n<thi")]
#[case::no_tag_after_all("<thinking>Hm.</thinking>", "<thinking>Hm.</thinking>")]
#[case::only_a_closing_tag("Hm.</think>To be.", "Hm.</think>To be.")]
#[case::nested("<think>a<think>b</think>c</think>d", "[a<think>b]c</think>d")]
#[case::tags_in_the_answer("<think>a</think>write <think> and </think>", "[a]write <think> and </think>")]
#[case::nearly_a_tag(
    "<think>a < b </ </thin > </thinker> c</think>d",
    "[a < b </ </thin > </thinker> c]d"
)]
fn a_broken_reply_keeps_its_text(#[case] input: &str, #[case] expected: &str) {
    check_all(FRESH, input, expected);
}

#[test]
fn tags_far_from_the_prompts_end_open_nothing() {
    check_all(
        "What is <think>?<|im_end|>\n<|im_start|>assistant\n",
        "A tag.",
        "A tag.",
    );
}

#[test]
fn pieces_come_as_soon_as_no_tag_can_begin_in_them() {
    // one token a tag, and one a letter or word
    let stream = QWEN3.stream(FRESH, "<think>\nO\n\nme</think>\n\nO me");
    assert_eq!(stream, ["[O]", "[\n\nme]", "O", " me"]);
    // " <" may begin one
    assert_eq!(SPELLED.stream(FRESH, "<think>O <me"), ["[O]", "[ <me]"]);
}

#[test]
fn a_character_that_a_tag_cuts_is_replaced() {
    let crab = QWEN3.tokens("🦀");
    let tokens = [
        QWEN3.tokens("<think>"),
        crab[..crab.len() - 1].to_vec(),
        QWEN3.tokens("</think>ok"),
    ]
    .concat();
    assert_eq!(written(&DEEPSEEK.read("", &[], &tokens)), "[\u{fffd}]ok");
}

#[test]
fn the_reader_knows_when_it_is_in_the_answer() {
    let in_answer = |prompt, input| {
        let mut reader = QWEN3.reader(prompt, &[]);
        for token in QWEN3.tokens(input) {
            reader.push(token, &mut |_| Ok(())).unwrap();
        }
        reader.in_answer()
    };
    assert!(!in_answer(FRESH, "") && !in_answer(FRESH, "<think>a") && !in_answer(OPENED, "a"));
    assert!(in_answer(FRESH, "<think>a</think>") && in_answer(CLOSED, "") && in_answer(FRESH, "a"));
    assert!(PLAIN.reader(FRESH, &[]).in_answer());
}

#[test]
fn a_prompt_can_be_made_to_end_without_thinking() {
    let ended = |prompt: &str| prompt.to_owned() + QWEN3.format.without_thinking(prompt);
    assert_eq!(ended(FRESH), CLOSED);
    assert_eq!(ended(OPENED).matches("think>").count(), 2);
    assert!(ended(OPENED).ends_with("</think>\n\n"));
    assert_eq!(ended(CLOSED), CLOSED);
    assert_eq!(PLAIN.format.without_thinking(FRESH), "");
}
