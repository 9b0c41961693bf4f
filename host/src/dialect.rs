//! How a model is spoken to: what its chat template reads of what can be said, and how it writes its replies.

use std::str::FromStr;

use models::{
    template::{ChatTemplate, Prompt, TemplateError},
    tokenizer::Tokenizer,
};
use serde_json::{Map, Value as Json};

use crate::reply::Format;

/// Whether a model thinks before it answers, and how much.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Think {
    /// It does.
    On,
    /// It does not: the prompt ends where its answer begins.
    Off,
    /// A little.
    Low,
    /// As much as it is used to.
    Medium,
    /// A lot.
    High,
}

impl Think {
    /// The values by their names.
    pub const NAMES: [(&'static str, Think); 5] = [
        ("on", Think::On),
        ("off", Think::Off),
        ("low", Think::Low),
        ("medium", Think::Medium),
        ("high", Think::High),
    ];

    /// The name: `on`, `low`.
    pub fn name(self) -> &'static str {
        Self::NAMES[self as usize].0
    }

    /// How much effort is asked for; what a model is used to where it is only asked to think.
    fn effort(self) -> Option<&'static str> {
        match self {
            Think::Off => None,
            Think::On => Some(Think::Medium.name()),
            Think::Low | Think::Medium | Think::High => Some(self.name()),
        }
    }
}

impl FromStr for Think {
    type Err = String;

    fn from_str(text: &str) -> Result<Think, String> {
        // as other programs have it
        let text = match text {
            "true" => "on",
            "false" => "off",
            text => text,
        };
        let known = Self::NAMES.iter().find(|(name, _)| *name == text);
        known
            .map(|(_, think)| *think)
            .ok_or_else(|| "expected on, off, low, medium or high".to_owned())
    }
}

/// Why a model cannot think as it is asked to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ThinkError {
    /// It cannot think at all.
    #[error("{}\nhint: leave --think out", self.reason())]
    Never,
    /// It thinks or does not.
    #[error("{}\nhint: --think on or --think off", self.reason())]
    NoLevels(&'static str),
}

impl ThinkError {
    /// What is wrong, without the hint, which names options of the command line. The model's name goes before it.
    pub fn reason(self) -> String {
        match self {
            ThinkError::Never => "does not support thinking".to_owned(),
            ThinkError::NoLevels(level) => format!("supports no levels of thinking, {level:?} is one"),
        }
    }
}

/// What a model's chat template reads, and how the model replies. It is all that the host knows of a model's manners.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dialect {
    /// How replies are written.
    pub format: Format,
    /// Whether the model can think, and has a template to say so with.
    thinks: bool,
    /// Whether the template reads `reasoning_effort`.
    levels: bool,
    /// The key under which the template reads what was thought in earlier turns, if it does.
    thinking: Option<&'static str>,
}

impl Dialect {
    /// The dialect of a model with this chat template.
    pub fn of(tokenizer: &Tokenizer, template: Option<&ChatTemplate>) -> Dialect {
        let reads = |variable| template.is_some_and(|template| template.reads(variable));
        let mentions = |text| template.is_some_and(|template| template.mentions(text));
        let thinking = if mentions("reasoning_content") {
            Some("reasoning_content")
        } else if [".thinking", "'thinking'", "\"thinking\""].into_iter().any(mentions) {
            Some("thinking")
        } else {
            None
        };
        let format = Format::of(tokenizer, template);
        Dialect {
            format,
            thinks: template.is_some() && format.thinks(),
            levels: reads("reasoning_effort"),
            thinking,
        }
    }

    /// Whether the model can think so. It may always be asked not to think.
    pub fn check(&self, think: Option<Think>) -> Result<(), ThinkError> {
        match think {
            None | Some(Think::Off) => Ok(()),
            Some(_) if !self.thinks => Err(ThinkError::Never),
            Some(level) if level != Think::On && !self.levels => Err(ThinkError::NoLevels(level.name())),
            Some(_) => Ok(()),
        }
    }

    /// The text of a prompt. Messages are those of [`Reply::to_message`](crate::reply::Reply::to_message) and their like;
    /// each template gets them under the names that it reads. A model that can think does, unless it is told not to.
    ///
    /// Fails as the template does.
    pub fn render(
        &self,
        template: &ChatTemplate,
        prompt: &Prompt<'_>,
        think: Option<Think>,
    ) -> Result<String, TemplateError> {
        let messages: Vec<Json> = prompt.messages.iter().map(|message| self.message(message)).collect();
        let mut variables = self.variables(think);
        variables.extend(prompt.extra.into_iter().flatten().map(|(k, v)| (k.clone(), v.clone())));
        let mut text = template.render(&Prompt {
            messages: &messages,
            extra: Some(&variables),
            ..prompt.clone()
        })?;
        if think == Some(Think::Off) && prompt.add_generation_prompt {
            text.push_str(self.format.without_thinking(&text));
        }
        Ok(text)
    }

    /// What templates call thinking. All names are given to all: a template ignores what it does not read.
    fn variables(&self, think: Option<Think>) -> Map<String, Json> {
        let mut variables = Map::new();
        if !self.thinks {
            return variables;
        }
        for name in ["enable_thinking", "thinking"] {
            variables.insert(name.into(), (think != Some(Think::Off)).into());
        }
        if let Some(effort) = think.and_then(Think::effort) {
            variables.insert("reasoning_effort".into(), effort.into());
        }
        variables
    }

    /// A message as the template reads it.
    fn message(&self, message: &Json) -> Json {
        let mut message = message.clone();
        let Some(object) = message.as_object_mut() else {
            return message;
        };
        let thought = object.remove("thinking").filter(|thought| thought.is_string());
        if let (Some(thought), Some(key)) = (thought, self.thinking) {
            if matches!(self.format, Format::Harmony(_)) && object.contains_key("tool_calls") {
                return with_one_text(message, &thought);
            }
            object.insert(key.into(), thought);
        }
        message
    }
}

/// A message with calls whose preamble stands with the thoughts: templates of gpt-oss refuse both beside calls.
fn with_one_text(mut message: Json, thought: &Json) -> Json {
    let texts = [thought, &message["content"]].map(|text| text.as_str().unwrap_or_default());
    let text = texts.join("\n\n");
    message["thinking"] = text.trim_end().into();
    message["content"] = "".into();
    message
}

#[cfg(test)]
mod tests {
    use models::template::DateTime;
    use rstest::rstest;
    use serde_json::json;

    use super::*;
    use crate::reply::{
        Reply, ToolCall,
        tests::{template, tokenizer},
    };

    const GPT_OSS: &str = "openai-gpt-oss-120b";
    const QWEN3: &str = "Qwen-Qwen3-0.6B";
    const DEEPSEEK: &str = "deepseek-ai-DeepSeek-R1-Distill-Qwen-32B";
    const QWEN2: &str = "Qwen-Qwen2.5-7B-Instruct";

    fn dialect(template_name: &str) -> (Dialect, ChatTemplate) {
        let file = if template_name == GPT_OSS {
            "gptoss-q8_0.gguf"
        } else {
            "qwen2-q8_0.gguf"
        };
        let template = template(template_name);
        (Dialect::of(&tokenizer(file, &[]), Some(&template)), template)
    }

    fn render(template_name: &str, messages: &[Json], tools: Option<&Json>, think: Option<Think>) -> String {
        let (dialect, template) = dialect(template_name);
        let prompt = Prompt {
            messages,
            tools,
            bos_token: Some("<bos>"),
            add_generation_prompt: true,
            now: Some(DateTime::constant(2024, 2, 3, 0, 0, 0, 0)),
            ..Prompt::default()
        };
        dialect.render(&template, &prompt, think).unwrap()
    }

    /// What a prompt that asks "2+2?" ends with, after the question.
    fn end(template_name: &str, think: Option<Think>) -> String {
        let text = render(
            template_name,
            &[json!({"role": "user", "content": "2+2?"})],
            None,
            think,
        );
        text.split_once("2+2?").unwrap().1.to_owned()
    }

    #[rstest]
    #[case(None, "<|im_end|>\n<|im_start|>assistant\n")]
    #[case(Some(Think::On), "<|im_end|>\n<|im_start|>assistant\n")]
    #[case(Some(Think::Off), "<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n")]
    fn qwen3_thinks_unless_told_not_to(#[case] think: Option<Think>, #[case] expected: &str) {
        assert_eq!(end(QWEN3, think), expected);
    }

    #[rstest]
    #[case(None, "<｜Assistant｜><think>\n")]
    #[case(Some(Think::On), "<｜Assistant｜><think>\n")]
    #[case(Some(Think::Off), "<｜Assistant｜><think>\n</think>")]
    fn deepseek_thinks_unless_told_not_to(#[case] think: Option<Think>, #[case] expected: &str) {
        assert_eq!(end(DEEPSEEK, think), expected);
    }

    #[rstest]
    #[case(None, "medium", "")]
    #[case(Some(Think::On), "medium", "")]
    #[case(Some(Think::Low), "low", "")]
    #[case(Some(Think::Medium), "medium", "")]
    #[case(Some(Think::High), "high", "")]
    #[case(Some(Think::Off), "medium", "<|channel|>final<|message|>")]
    fn gpt_oss_thinks_as_much_as_it_is_told_to(
        #[case] think: Option<Think>,
        #[case] effort: &str,
        #[case] after: &str,
    ) {
        let text = render(GPT_OSS, &[json!({"role": "user", "content": "2+2?"})], None, think);
        assert!(text.contains(&format!("Reasoning: {effort}\n")), "{text}");
        assert_eq!(end(GPT_OSS, think), format!("<|end|><|start|>assistant{after}"));
    }

    #[test]
    fn a_template_that_always_thinks_is_closed_and_a_model_that_never_does_is_left_alone() {
        let template = ChatTemplate::new("r1", "{{ messages[0].content }}<think>\n").unwrap();
        let dialect = Dialect::of(&tokenizer("qwen2-q8_0.gguf", &[]), Some(&template));
        let messages = [json!({"content": "2+2?"})];
        let prompt = Prompt {
            messages: &messages,
            add_generation_prompt: true,
            ..Prompt::default()
        };
        let text = dialect.render(&template, &prompt, Some(Think::Off)).unwrap();
        assert_eq!(text, "2+2?<think>\n\n</think>\n\n");
        assert_eq!(end(QWEN2, Some(Think::Off)), end(QWEN2, None));
    }

    #[rstest]
    #[case(QWEN2, Some(Think::On), Err(ThinkError::Never))]
    #[case(QWEN2, Some(Think::High), Err(ThinkError::Never))]
    #[case(QWEN2, Some(Think::Off), Ok(()))]
    #[case(QWEN2, None, Ok(()))]
    #[case(QWEN3, Some(Think::On), Ok(()))]
    #[case(QWEN3, Some(Think::Low), Err(ThinkError::NoLevels("low")))]
    #[case(DEEPSEEK, Some(Think::Off), Ok(()))]
    #[case(GPT_OSS, Some(Think::High), Ok(()))]
    #[case(GPT_OSS, Some(Think::On), Ok(()))]
    fn a_model_is_asked_for_what_it_can(
        #[case] name: &str,
        #[case] think: Option<Think>,
        #[case] expected: Result<(), ThinkError>,
    ) {
        assert_eq!(dialect(name).0.check(think), expected);
    }

    #[test]
    fn without_a_template_no_thinking_can_be_asked_for() {
        let dialect = Dialect::of(&tokenizer("gptoss-q8_0.gguf", &[]), None);
        assert!(matches!(dialect.format, Format::Harmony(_)));
        assert_eq!(dialect.check(Some(Think::On)), Err(ThinkError::Never));
        assert_eq!(dialect.check(Some(Think::Off)), Ok(()));
    }

    #[test]
    fn values_have_names() {
        for (name, think) in Think::NAMES {
            assert_eq!((name.parse(), think.name()), (Ok(think), name));
        }
        assert_eq!(("true".parse(), "false".parse()), (Ok(Think::On), Ok(Think::Off)));
        assert!("On".parse::<Think>().is_err());
    }

    /// A question, a reply with thoughts and perhaps a call, and what came after it.
    fn turns(calls: bool) -> Vec<Json> {
        let mut reply = Reply {
            thinking: "Sum.".into(),
            content: "Four.".into(),
            ..Reply::default()
        };
        let mut after = json!({"role": "user", "content": "3+3?"});
        if calls {
            reply.calls.push(ToolCall {
                name: "add".into(),
                arguments: "{\"a\": 2}".into(),
            });
            after = json!({"role": "tool", "content": "4"});
        }
        vec![json!({"role": "user", "content": "2+2?"}), reply.to_message(), after]
    }

    #[test]
    fn thoughts_of_earlier_turns_are_left_to_the_template() {
        for name in [GPT_OSS, QWEN3, DEEPSEEK, QWEN2] {
            let text = render(name, &turns(false), None, None);
            assert!(text.contains("Four.") && text.contains("3+3?"), "{text}");
            assert!(!text.contains("Sum."), "{name} drops them: {text}");
        }
    }

    #[test]
    fn thoughts_that_led_to_a_call_go_back_where_the_template_wants_them() {
        let text = render(GPT_OSS, &turns(true), None, None);
        let thoughts = "<|start|>assistant<|channel|>analysis<|message|>Sum.\n\nFour.<|end|>";
        let call = "<|start|>assistant to=functions.add<|channel|>commentary json<|message|>{\"a\": 2}<|call|>";
        assert!(text.contains(&(thoughts.to_owned() + call)), "{text}");

        let text = render(QWEN3, &turns(true), None, None);
        let call = "<tool_call>\n{\"name\": \"add\", \"arguments\": {\"a\": 2}}\n</tool_call>";
        assert!(
            text.contains(&format!("<think>\nSum.\n</think>\n\nFour.\n{call}")),
            "{text}"
        );

        for name in [DEEPSEEK, QWEN2] {
            let text = render(name, &turns(true), None, None);
            assert!(text.contains("add") && !text.contains("Sum."), "{name}: {text}");
        }
    }

    #[test]
    fn tools_are_described_to_the_model() {
        let parameters = json!({"type": "object", "properties": {"a": {"type": "number"}}, "required": ["a"]});
        let function = json!({"name": "add", "description": "Adds.", "parameters": parameters});
        let tools = json!([{"type": "function", "function": function}]);
        for name in [GPT_OSS, QWEN3, QWEN2] {
            let text = render(name, &turns(false), Some(&tools), None);
            assert!(text.contains("# Tools") && text.contains("Adds."), "{name}: {text}");
        }
    }

    #[test]
    fn what_is_said_of_variables_elsewhere_goes_first() {
        let (dialect, template) = dialect(QWEN3);
        let messages = [json!({"role": "user", "content": "2+2?"})];
        let extra = json!({"enable_thinking": false});
        let prompt = Prompt {
            messages: &messages,
            add_generation_prompt: true,
            extra: extra.as_object(),
            ..Prompt::default()
        };
        let text = dialect.render(&template, &prompt, None).unwrap();
        assert!(text.ends_with("</think>\n\n"), "{text}");
    }
}
