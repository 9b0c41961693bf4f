//! Replies whose answer is held to a form.

use std::vec::IntoIter;

use models::tokenizer::{Special, Tokenizer};

use super::GenerationError;
use crate::{
    reply::{Format, Reader},
    sampling::Sampler,
    structured::Constraint,
};

/// Leads a reply to an answer and through it. What a model thinks is free, but only an answer can follow.
pub struct Guide {
    constraint: Constraint,
    format: Format,
    /// Tokens that come next, whatever the model would say.
    forced: IntoIter<u32>,
}

impl Guide {
    /// For a reply in this format, whose answer is held to `constraint`.
    pub fn new(constraint: Constraint, format: Format) -> Guide {
        Guide {
            constraint,
            format,
            forced: Vec::new().into_iter(),
        }
    }

    /// The next token of the reply that `reader` has read so far; none where it ends. Tokens that end replies do so where
    /// the answer may end, unless they are not to (`ignore_end`).
    pub(super) fn next(
        &mut self,
        reader: &Reader<'_>,
        tokenizer: &Tokenizer,
        sampler: &mut Sampler,
        logits: &mut [f32],
        ignore_end: bool,
    ) -> Result<Option<u32>, GenerationError> {
        if let Some(token) = self.forced.next() {
            return Ok(Some(token));
        }
        if reader.in_answer() {
            let ends = if ignore_end { &[] } else { tokenizer.ends() };
            if !self.constraint.restrict(logits, ends)? {
                return Ok(None);
            }
            let token = sampler.sample(logits)?;
            if tokenizer.is_end(token) {
                return Ok(None);
            }
            self.constraint.accept(token)?;
            return Ok(Some(token));
        }
        if reader.in_thinking() {
            let token = sampler.sample(logits)?;
            if !tokenizer.is_end(token) {
                return Ok(Some(token));
            }
            self.force(self.format.end_of_thinking(), tokenizer);
        } else {
            self.force(self.format.begin_of_answer(), tokenizer);
        }
        Ok(self.forced.next())
    }

    /// Whether the answer is complete and nothing can follow.
    pub(super) fn is_finished(&mut self) -> bool {
        self.constraint.is_finished()
    }

    fn force(&mut self, text: &str, tokenizer: &Tokenizer) {
        self.forced = tokenizer.encode(text, Special::Parse).into_iter();
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use models::{gguf::Gguf, tokenizer::Controls};
    use rstest::rstest;

    use super::*;
    use crate::{sampling::SamplingOptions, stop::StopStrings, structured::Formats};

    fn tokenizer(name: &str) -> Tokenizer {
        let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures");
        crate::model::tokenizer(&Gguf::open(&fixtures.join(name)).unwrap()).unwrap()
    }

    /// The reply to a prompt, its tokens spelled out, of a model that wants to say `wish` and then always its last token.
    /// The answer is to be `ab`.
    fn reply(tokenizer: &Tokenizer, format: Format, prompt: &str, wish: &str, ignore_end: bool) -> String {
        let prompt = tokenizer.encode(prompt, Special::Parse);
        let wishes = tokenizer.encode(wish, Special::Parse);
        let form = Formats::new(tokenizer).unwrap().grammar("start: \"ab\"").unwrap();
        let mut guide = Guide::new(form.constraint(), format);
        let mut reader = Reader::new(tokenizer, format, &prompt, StopStrings::default());
        let options = SamplingOptions {
            temperature: 0.0,
            ..SamplingOptions::default()
        };
        let mut sampler = Sampler::new(options).unwrap();
        let mut said = Vec::new();
        while said.len() < 100 && !guide.is_finished() {
            let mut logits = vec![0.0; tokenizer.vocabulary_size()];
            logits[wishes[said.len().min(wishes.len() - 1)] as usize] = 1.0;
            let next = guide.next(&reader, tokenizer, &mut sampler, &mut logits, ignore_end);
            let Some(token) = next.unwrap() else { break };
            reader.push(token, &mut |_| Ok(())).unwrap();
            said.push(token);
        }
        tokenizer.decode(&said, Controls::Show).unwrap()
    }

    const ANALYSIS: &str = "<|start|>assistant<|channel|>analysis<|message|>";
    const ANSWER: &str = "<|start|>assistant<|channel|>final<|message|>ab";

    #[rstest]
    #[case::the_model_ends_its_thoughts("Hm.<|end|>", "Hm.<|end|>")]
    #[case::it_wants_to_end_the_reply("Hm.<|return|>", "Hm.<|end|>")]
    #[case::it_wants_to_call_a_tool("Hm.<|end|><|start|>assistant to=functions.f<|message|>{}<|call|>", "Hm.<|end|>")]
    #[case::it_begins_something_else("Hm.<|start|>user", "Hm.<|start|>")]
    fn after_its_thoughts_only_an_answer_can_follow(
        #[case] wish: &str,
        #[case] thoughts: &str,
        #[values(false, true)] ignore_end: bool,
    ) {
        let tokenizer = tokenizer("gptoss-q8_0.gguf");
        let format = Format::of(&tokenizer, None);
        let said = reply(&tokenizer, format, ANALYSIS, wish, ignore_end);
        assert_eq!(said, format!("{thoughts}{ANSWER}"));
    }

    #[rstest]
    #[case::the_model_ends_its_thoughts("Hm.</think>", "Hm.</think>ab")]
    #[case::it_wants_to_end_the_reply("Hm.<|im_end|>", "Hm.\n</think>\n\nab")]
    fn thoughts_in_tags_are_closed(#[case] wish: &str, #[case] expected: &str) {
        let tokenizer = tokenizer("qwen2-q8_0.gguf");
        let format = Format::Think {
            open: None,
            close: None,
        };
        assert_eq!(reply(&tokenizer, format, "<think>\n", wish, false), expected);
    }

    #[test]
    fn an_answer_that_has_begun_is_held_to_its_form_at_once() {
        let tokenizer = tokenizer("gptoss-q8_0.gguf");
        let format = Format::of(&tokenizer, None);
        let prompt = ANSWER.strip_suffix("ab").unwrap();
        assert_eq!(reply(&tokenizer, format, prompt, "Hm.", false), "ab");
        assert_eq!(reply(&tokenizer, Format::Plain, "ROMEO:", "<|return|>", false), "ab");
    }
}
