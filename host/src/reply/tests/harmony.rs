//! Replies of gpt-oss.

use rstest::rstest;

use super::*;

/// What the model's own template ends with.
const PROMPT: &str = "<|start|>user<|message|>Hm?<|end|><|start|>assistant";

#[rstest]
#[case::thinking_then_answer(
    "<|channel|>analysis<|message|>Hm.<|end|><|start|>assistant<|channel|>final<|message|>To be.<|return|>",
    "[Hm.]To be."
)]
#[case::an_answer_alone("<|channel|>final<|message|>To be.", "To be.")]
#[case::a_preamble_is_for_the_user("<|channel|>commentary<|message|>I shall look.<|end|>", "I shall look.")]
#[case::two_thoughts(
    "<|channel|>analysis<|message|>a<|end|><|start|>assistant<|channel|>analysis<|message|>b<|end|>",
    "[a\n\nb]"
)]
#[case::a_preamble_and_an_answer(
    "<|channel|>commentary<|message|>a<|end|><|start|>assistant<|channel|>final<|message|>b",
    "a\n\nb"
)]
#[case::text_that_spells_a_tag("<|channel|>final<|message|><think>a</think>\n", "<think>a</think>\n")]
#[case::a_json_answer("<|channel|>final <|constrain|>json<|message|>{\"a\": 1}<|return|>", "{\"a\": 1}")]
#[case::nothing("", "")]
fn messages_are_told_apart_by_their_channels(#[case] input: &str, #[case] expected: &str) {
    GPT_OSS.check(PROMPT, input, expected);
}

#[rstest]
#[case::recipient_in_the_channel(
    "<|channel|>commentary to=functions.weather <|constrain|>json<|message|>{\"a\": 1}<|call|>"
)]
#[case::type_as_a_word("<|channel|>commentary to=functions.weather json<|message|>{\"a\": 1}<|call|>")]
#[case::recipient_in_the_role(" to=functions.weather<|channel|>commentary json<|message|>{\"a\": 1}<|call|>")]
#[case::without_a_channel(" to=functions.weather<|message|>{\"a\": 1}<|call|>")]
#[case::among_thoughts("<|channel|>analysis to=functions.weather<|message|>{\"a\": 1}<|call|>")]
#[case::run_together("<|channel|>commentaryto=functions.weather<|constrain|>json<|message|>{\"a\": 1}")]
#[case::no_message_token("<|channel|>commentary to=functions.weather <|constrain|>json{\"a\": 1}<|call|>")]
fn a_message_to_a_recipient_is_a_call(#[case] input: &str) {
    GPT_OSS.check(PROMPT, input, "{weather {\"a\": 1}}");
}

#[test]
fn several_calls_stay_in_order_beside_thoughts_and_preamble() {
    let input = "<|channel|>analysis<|message|>Hm.<|end|>\
        <|start|>assistant<|channel|>commentary<|message|>I shall look.<|end|>\
        <|start|>assistant<|channel|>commentary to=functions.f<|message|>{}<|call|>\
        <|start|>assistant to=browser.search<|channel|>analysis<|message|>{\"a\":";
    GPT_OSS.check(PROMPT, input, "[Hm.]I shall look.{f {}}{browser.search {\"a\":}");
}

#[rstest]
#[case::the_template_opened_the_answer("<|start|>assistant<|channel|>final<|message|>", "To be.", "To be.")]
#[case::the_template_opened_the_thoughts("<|start|>assistant<|channel|>analysis<|message|>", "Hm.", "[Hm.]")]
#[case::a_word_of_the_answer_is_the_prompts("<|start|>assistant<|channel|>final<|message|>To", " be.", " be.")]
#[case::no_message_at_all("To", " be.", " be.")]
#[case::no_prompt("", "<|start|>assistant<|channel|>analysis<|message|>Hm.", "[Hm.]")]
#[case::a_call_that_the_prompt_began("<|start|>assistant to=functions.f<|message|>{", "}", "}")]
fn the_reply_goes_on_where_the_prompt_ends(#[case] prompt: &str, #[case] input: &str, #[case] expected: &str) {
    GPT_OSS.check(prompt, input, expected);
}

#[rstest]
#[case::no_channel("<|message|>To be.", "To be.")]
#[case::no_header(" To be.", "To be.")]
#[case::no_header_nor_space("To be.", "To be.")]
#[case::no_header_and_lines("To be.\nOr not.<|end|>", "To be.\nOr not.")]
#[case::unknown_channel("<|channel|>musing<|message|>To be.", "To be.")]
#[case::no_message_token("<|channel|>final To be.", "To be.")]
#[case::no_message_token_in_thoughts("<|channel|>analysis\nHm.\nYes.<|end|>", "[\nHm.\nYes.]")]
#[case::no_start("<|channel|>analysis<|message|>Hm.<|channel|>final<|message|>To be.", "[Hm.]To be.")]
#[case::no_start_after_an_end(
    "<|channel|>analysis<|message|>Hm.<|end|><|channel|>final<|message|>To be.",
    "[Hm.]To be."
)]
#[case::text_after_an_end("<|channel|>final<|message|>To be.<|end|>Or not.", "To be.\n\nOr not.")]
#[case::a_line_after_an_end(
    "<|channel|>final<|message|>To be.<|end|>\n<|start|>assistant<|channel|>final<|message|>Or",
    "To be.\n\nOr"
)]
#[case::text_before_a_header("Hark!<|channel|>final<|message|>To be.", "Hark!\n\nTo be.")]
#[case::channels_over_channels("<|channel|>analysis<|channel|>final<|message|>To be.", "To be.")]
#[case::a_second_message_token("<|channel|>final<|message|>To <|message|>be.", "To be.")]
#[case::a_type_in_the_text("<|channel|>final<|message|>To <|constrain|>be.", "To be.")]
#[case::ends_over_ends("<|end|><|return|><|end|>To be.<|call|>", "To be.")]
#[case::cut_in_the_role("<|channel|>final<|message|>To be.<|end|><|start|>assis", "To be.\n\nassis")]
#[case::cut_after_the_channel("<|channel|>analysis", "")]
#[case::cut_in_the_channel("<|channel|>commentary to=functions.f", "")]
#[case::somebody_elses_message(
    "<|end|><|start|>functions.f to=assistant<|channel|>commentary<|message|>12<|end|>",
    "12"
)]
#[case::the_users_message("<|end|><|start|>user<|message|>Why?<|end|>", "Why?")]
fn a_broken_reply_keeps_its_text(#[case] input: &str, #[case] expected: &str) {
    GPT_OSS.check(PROMPT, input, expected);
}

#[test]
fn what_is_too_long_for_a_header_comes_before_its_end() {
    let words = "so ".repeat(400);
    let stream = GPT_OSS.stream(PROMPT, &words);
    assert!(stream.len() > 100, "{}", stream.len());
    assert_eq!(stream.concat(), words);
}

#[test]
fn pieces_come_with_their_tokens() {
    let input = "<|channel|>analysis<|message|>O me<|end|><|start|>assistant<|channel|>final<|message|>O me";
    assert_eq!(GPT_OSS.stream(PROMPT, input), ["[O]", "[ me]", "O", " me"]);
}

#[test]
fn a_character_that_a_message_cuts_is_replaced() {
    let crab = GPT_OSS.tokens("🦀");
    let begun = GPT_OSS.tokens("<|channel|>analysis<|message|>");
    let tokens = [begun, crab[..crab.len() - 1].to_vec(), GPT_OSS.tokens("<|end|>ok")].concat();
    assert_eq!(written(&GPT_OSS.read(PROMPT, &[], &tokens)), "[\u{fffd}]ok");
    let cut = [GPT_OSS.tokens("<|channel|>final<|message|>a"), crab[..1].to_vec()].concat();
    assert_eq!(written(&GPT_OSS.read(PROMPT, &[], &cut)), "a\u{fffd}");
}

#[test]
fn the_reader_knows_when_it_is_in_the_answer() {
    let in_answer = |input| {
        let mut reader = GPT_OSS.reader(PROMPT, &[]);
        for token in GPT_OSS.tokens(input) {
            reader.push(token, &mut |_| Ok(())).unwrap();
        }
        reader.in_answer()
    };
    assert!(in_answer("<|channel|>final<|message|>") && in_answer("<|channel|>final<|message|>a"));
    let elsewhere = [
        "",
        "<|channel|>final",
        "<|channel|>analysis<|message|>",
        "<|channel|>final<|message|>a<|end|>",
    ];
    assert_eq!(elsewhere.map(in_answer), [false; 4]);
}

#[test]
fn a_prompt_can_be_made_to_end_without_thinking() {
    let ended = |prompt: &str| prompt.to_owned() + GPT_OSS.format.without_thinking(prompt);
    assert_eq!(ended(PROMPT), format!("{PROMPT}<|channel|>final<|message|>"));
    assert_eq!(ended(&ended(PROMPT)), ended(PROMPT));
    GPT_OSS.check(&ended(PROMPT), "To be.", "To be.");
}
