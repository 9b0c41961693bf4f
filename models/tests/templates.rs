//! Chat templates against the reference's renderings.

use std::path::{Path, PathBuf};

use models::gguf::Gguf;
use models::template::{ChatTemplate, DateTime, Prompt, TemplateError};
use rstest::rstest;
use serde_json::{Value, json};

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../tests/fixtures")
        .join(name)
}

fn read_json(name: &str) -> Value {
    serde_json::from_slice(&std::fs::read(fixture(name)).unwrap()).unwrap()
}

fn date(text: &str) -> DateTime {
    format!("{text}T12:00:00").parse().unwrap()
}

fn prompt(case: &Value) -> Prompt<'_> {
    Prompt {
        messages: case["messages"].as_array().unwrap(),
        tools: Some(&case["tools"]).filter(|tools| !tools.is_null()),
        bos_token: case["bos_token"].as_str(),
        eos_token: case["eos_token"].as_str(),
        add_generation_prompt: case["add_generation_prompt"].as_bool().unwrap(),
        extra: None,
        now: case["date"].as_str().map(date),
    }
}

#[rstest]
#[case("Qwen-Qwen2.5-7B-Instruct")]
#[case("Qwen-Qwen3-0.6B")]
#[case("deepseek-ai-DeepSeek-R1-Distill-Qwen-32B")]
#[case("google-gemma-2-2b-it")]
#[case("meta-llama-Llama-3.1-8B-Instruct")]
#[case("microsoft-Phi-3.5-mini-instruct")]
#[case("mistralai-Mistral-Nemo-Instruct-2407")]
#[case("openai-gpt-oss-120b")]
fn real_templates_render_as_recorded(#[case] name: &str) {
    let source = std::fs::read_to_string(fixture(&format!("templates/{name}.jinja"))).unwrap();
    let template = ChatTemplate::new(name, &source).unwrap();
    let cases = read_json(&format!("templates/{name}.json"));
    assert_eq!(cases.as_array().unwrap().len(), 20);
    for case in cases.as_array().unwrap() {
        match (template.render(&prompt(case)), case["rendered"].as_str()) {
            (Ok(text), Some(rendered)) => assert_eq!(text, rendered, "{}", case["name"]),
            (Err(TemplateError::Raised { message, line, .. }), None) => {
                assert_eq!(message, case["error"].as_str().unwrap());
                assert!(
                    source.lines().nth(line - 1).unwrap().contains("raise_exception"),
                    "line {line}"
                );
            }
            (result, _) => panic!("{}: {result:?}, but {case}", case["name"]),
        }
    }
}

#[rstest]
#[case("qwen2-q8_0", None)]
#[case("gemma3-q8_0", Some("<s>"))]
#[case("gemma3n-q8_0", Some("<s>"))]
#[case("gptoss-q8_0", Some("<|startoftext|>"))]
fn a_files_own_template_is_used(#[case] name: &str, #[case] bos_token: Option<&str>) {
    let template = ChatTemplate::from_gguf(&Gguf::open(&fixture(&format!("{name}.gguf"))).unwrap())
        .unwrap()
        .unwrap();
    let chat = &read_json(&format!("{name}.json"))["chat"];
    let messages = chat["messages"].as_array().unwrap();
    let prompt = Prompt {
        messages,
        bos_token,
        add_generation_prompt: true,
        ..Prompt::default()
    };
    assert_eq!(template.render(&prompt).unwrap(), chat["rendered"].as_str().unwrap());
}

#[test]
fn a_file_without_a_template_has_none() {
    let gguf = Gguf::open(&fixture("vocab/gpt-2.gguf")).unwrap();
    assert!(ChatTemplate::from_gguf(&gguf).unwrap().is_none());
}

fn render(source: &str, extra: Value) -> String {
    let template = ChatTemplate::new("test", source).unwrap();
    template
        .render(&Prompt {
            extra: extra.as_object(),
            ..Prompt::default()
        })
        .unwrap()
}

#[rstest]
#[case("{{ a.strip().upper().split(' ')[0] }}", "X")]
#[case(
    "{{ d.items() | list | length }}{{ d.get('n', 'q') }}{{ d.get('z') is none }}",
    "11True"
)]
#[case("{{ d }} {{ [1, true, none, 'a\\'b'] }}", r#"{'n': 1} [1, True, None, "a'b"]"#)]
#[case(
    "{{ (d | string) + (3 | string) + ('x' | string) }}{{ [d] }}",
    "{'n': 1}3x[{'n': 1}]"
)]
#[case("{{ true }} {{ none }} {{ missing }}|{{ 1.0 }} {{ 7 // 2 }}", "True None |1.0 3")]
#[case(
    "{% for i in range(9) %}{% if i == 1 %}{% continue %}{% endif %}{% if i == 3 %}{% break %}{% endif %}{{ i }}{% endfor %}",
    "02"
)]
#[case(
    "{% set ns = namespace(n=0) %}{% for i in [1, 2] %}{% set ns.n = ns.n + i %}{% endfor %}{{ ns.n }}",
    "3"
)]
#[case(
    "{{ a is iterable }} {{ a is sequence }} {{ d is sequence }} {{ d is mapping }} {{ 3 is iterable }}",
    "True True True True False"
)]
#[case(
    "  {% if true %}\n  x\n  {%- generation -%}\n y {% endgeneration %}\n{% endif %}\n",
    "  xy "
)]
#[case("{{ '<&>' }}{{ ['<', 'é'] | tojson }}", r#"<&>["<", "é"]"#)]
#[case(
    "{{ a[::-1] }}{{ a[1:] | trim }}{{ 'abc'.startswith('ab') }}{{ 'x' in d }}",
    " y x x yTrueFalse"
)]
#[case("{{ 'x' in missing }}{{ missing | default('d') }}{{ messages | length }}", "Falsed0")]
#[case(
    "{{ 'a b  c '.rsplit() }}{{ 'a,b,c'.rsplit(',', 1) }}{{ ''.rsplit() }}",
    "['a', 'b', 'c']['a,b', 'c'][]"
)]
#[case(
    "{{ 'a</t>b</t>c'.partition('</t>') }}{{ 'ab'.rpartition('x') }}",
    "['a', '</t>', 'b</t>c']['', '', 'ab']"
)]
#[case(
    "{{ 'abc'.removeprefix('a').removesuffix('c') }}{{ '-7'.zfill(4) }}{{ 'éab'.index('b') }}",
    "b-0072"
)]
fn templates_mean_what_they_mean_in_python(#[case] source: &str, #[case] expected: &str) {
    assert_eq!(render(source, json!({"a": " x y ", "d": {"n": 1}})), expected);
}

#[test]
fn extra_variables_go_first() {
    assert_eq!(
        render(
            "{{ add_generation_prompt }}{{ tools }}{{ effort }}",
            json!({"tools": 3, "effort": "low"})
        ),
        "False3low"
    );
}

#[rstest]
#[case("Qwen-Qwen3-0.6B", "enable_thinking", "reasoning_effort")]
#[case("deepseek-ai-DeepSeek-R1-Distill-Qwen-32B", "enable_thinking", "reasoning_content")]
#[case("openai-gpt-oss-120b", "reasoning_effort", "message")]
#[case("Qwen-Qwen2.5-7B-Instruct", "tools", "enable_thinking")]
fn a_template_tells_what_it_reads(#[case] name: &str, #[case] read: &str, #[case] not_read: &str) {
    let source = std::fs::read_to_string(fixture(&format!("templates/{name}.jinja"))).unwrap();
    let template = ChatTemplate::new(name, &source).unwrap();
    assert!(template.reads(read) && !template.reads(not_read));
    assert!(template.mentions(read) && !template.mentions("<never said>"));
}

#[test]
fn now_can_be_given() {
    let template = ChatTemplate::new("test", "{{ strftime_now('%Y-%m-%d %d %b %Y %B %-d %A %H:%M') }}").unwrap();
    let given = template
        .render(&Prompt {
            now: Some(date("2024-02-03")),
            ..Prompt::default()
        })
        .unwrap();
    assert_eq!(given, "2024-02-03 03 Feb 2024 February 3 Saturday 12:00");
    assert_ne!(template.render(&Prompt::default()).unwrap(), given);
}

#[test]
fn errors_name_the_template_and_the_line() {
    let broken = ChatTemplate::new("x.gguf: `tokenizer.chat_template`", "a\n{% if %}")
        .unwrap_err()
        .to_string();
    assert!(
        broken.starts_with("x.gguf: `tokenizer.chat_template`: line 2: syntax error"),
        "{broken}"
    );
    let template = ChatTemplate::new("t", "a\n\n{{ missing.field }}").unwrap();
    let error = template.render(&Prompt::default()).unwrap_err().to_string();
    assert!(error.starts_with("t: line 3: undefined value"), "{error}");
}

#[test]
fn a_template_without_end_is_stopped() {
    let source = "{% for a in range(9999) %}{% for b in range(9999) %}{% for c in range(9999) %}{% endfor %}{% endfor %}{% endfor %}";
    let error = ChatTemplate::new("t", source)
        .unwrap()
        .render(&Prompt::default())
        .unwrap_err();
    assert!(error.to_string().contains("fuel"), "{error}");
}
