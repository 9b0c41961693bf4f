//! Reading whole files: the fixtures, what the writer makes, split models.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use backend_api::types::Type;
use models::gguf::{Fault, Gguf, GgufWriter, Strings, TensorType, Value, WriteError};
use rstest::rstest;

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../tests/fixtures")
        .join(name)
}

#[rstest]
#[case("gemma3-q8_0.gguf", "gemma3", 2048)]
#[case("gemma3n-q8_0.gguf", "gemma3n", 2048)]
#[case("gptoss-q8_0.gguf", "gpt-oss", 2048)]
#[case("qwen2-q8_0.gguf", "qwen2", 2048)]
#[case("qwen2-f32.gguf", "qwen2", 2048)]
fn a_model_has_its_architecture_vocabulary_and_weights(
    #[case] name: &str,
    #[case] architecture: &str,
    #[case] vocabulary: usize,
) {
    let gguf = Gguf::open(&fixture(name)).unwrap();
    let metadata = gguf.metadata();
    assert_eq!(metadata.string("general.architecture").unwrap(), architecture);
    let tokens = metadata.strings("tokenizer.ggml.tokens").unwrap();
    assert_eq!(tokens.len(), vocabulary);
    assert_eq!(metadata.i32s("tokenizer.ggml.token_type").unwrap().len(), vocabulary);
    let embedding = gguf.tensor("token_embd.weight").unwrap();
    let width = u64::from(metadata.u32(&format!("{architecture}.embedding_length")).unwrap());
    assert_eq!(embedding.shape(), [width, vocabulary as u64]);
    assert_eq!((gguf.version(), gguf.alignment(), gguf.files().len()), (3, 32, 1));
    for tensor in gguf.tensors() {
        assert_eq!(gguf.data(tensor).len() as u64, tensor.kind.bytes(tensor.dims).unwrap());
        assert_eq!(tensor.offset % 32, 0);
    }
}

#[rstest]
#[case("gpt-2", 50257)]
#[case("llama-bpe", 128256)]
#[case("llama-spm", 32000)]
#[case("qwen2", 151936)]
fn a_vocabulary_is_a_file_without_tensors(#[case] name: &str, #[case] tokens: usize) {
    let gguf = Gguf::open(&fixture(&format!("vocab/{name}.gguf"))).unwrap();
    assert_eq!(gguf.metadata().strings("tokenizer.ggml.tokens").unwrap().len(), tokens);
    assert_eq!(gguf.tensors(), []);
}

#[test]
fn the_last_tensor_ends_where_the_file_does() {
    let gguf = Gguf::open(&fixture("qwen2-q8_0.gguf")).unwrap();
    let end = gguf
        .tensors()
        .iter()
        .map(|tensor| tensor.offset + tensor.bytes)
        .max()
        .unwrap();
    assert_eq!(end.next_multiple_of(32), gguf.files()[0].bytes().len() as u64);
}

#[rstest]
#[case("gptoss-q8_0.gguf")]
#[case("vocab/llama-spm.gguf")]
fn a_copy_holds_what_the_original_holds(#[case] name: &str) {
    let original = Gguf::open(&fixture(name)).unwrap();
    let copy = Gguf::from_bytes("copy", GgufWriter::copy_of(&original).to_bytes()).unwrap();
    assert!(original.metadata().iter().eq(copy.metadata().iter()));
    assert_eq!(original.tensors().len(), copy.tensors().len());
    for (a, b) in original.tensors().iter().zip(copy.tensors()) {
        assert_eq!((&a.name, a.dims, a.rank, a.kind), (&b.name, b.dims, b.rank, b.kind));
        assert_eq!(original.data(a), copy.data(b));
    }
}

#[test]
fn every_value_type_comes_back() {
    let values: Vec<Value> = vec![
        8u8.into(),
        (-8i8).into(),
        16u16.into(),
        (-16i16).into(),
        32u32.into(),
        (-32i32).into(),
        1.5f32.into(),
        true.into(),
        "żółw".into(),
        u64::MAX.into(),
        i64::MIN.into(),
        2.5f64.into(),
        vec![1u8, 2].into(),
        vec![-1i8].into(),
        vec![1u16].into(),
        vec![-1i16].into(),
        Vec::<u32>::new().into(),
        vec![-1i32].into(),
        vec![0.5f32, -0.0].into(),
        vec![true, false].into(),
        Strings::from_iter(["", "a", "żółw"]).into(),
        vec![u64::MAX].into(),
        vec![i64::MIN].into(),
        vec![0.25f64].into(),
    ];
    let mut writer = GgufWriter::new();
    for (index, value) in values.iter().enumerate() {
        writer.set(&format!("key.{index}"), value.clone());
    }
    let gguf = Gguf::from_bytes("values", writer.to_bytes()).unwrap();
    assert!(gguf.metadata().iter().map(|(_, value)| value).eq(&values));
}

#[test]
fn every_tensor_type_comes_back() {
    let files_only = [
        TensorType::Mxfp4Old,
        TensorType::I8,
        TensorType::I16,
        TensorType::I64,
        TensorType::F64,
    ];
    let types: Vec<TensorType> = Type::ALL.into_iter().map(TensorType::Known).chain(files_only).collect();
    let mut writer = GgufWriter::new();
    for (index, &kind) in types.iter().enumerate() {
        let bytes = kind.bytes([256, 3, 1, 1]).unwrap() as usize;
        writer
            .tensor(&format!("t{index}"), &[256, 3], kind, vec![index as u8; bytes])
            .unwrap();
    }
    let gguf = Gguf::from_bytes("types", writer.to_bytes()).unwrap();
    for (index, (&kind, tensor)) in types.iter().zip(gguf.tensors()).enumerate() {
        assert_eq!((tensor.kind, tensor.shape()), (kind, &[256, 3][..]));
        assert!(gguf.data(tensor).iter().all(|&byte| byte == index as u8));
    }
}

#[test]
fn the_writer_keeps_the_alignment_asked_for() {
    let mut writer = GgufWriter::new();
    writer.set("general.alignment", 256u32);
    writer.tensor("a", &[3], TensorType::I8, vec![1, 2, 3]).unwrap();
    writer.tensor("b", &[1], TensorType::I8, vec![4]).unwrap();
    let gguf = Gguf::from_bytes("aligned", writer.to_bytes()).unwrap();
    assert_eq!(gguf.alignment(), 256);
    assert!(gguf.tensors().iter().all(|tensor| tensor.offset % 256 == 0));
    assert_eq!(gguf.data(gguf.tensor("b").unwrap()), [4]);

    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("aligned.gguf");
    writer.write(&path).unwrap();
    assert_eq!(fs::read(&path).unwrap(), writer.to_bytes());
}

#[test]
fn the_writer_refuses_data_of_another_length() {
    let mut writer = GgufWriter::new();
    let error = writer.tensor("a", &[32], Type::Q8_0, vec![0; 33]).unwrap_err();
    assert!(
        matches!(
            error,
            WriteError::Length {
                expected: Some(34),
                found: 33,
                ..
            }
        ),
        "{error}"
    );
    assert!(writer.tensor("a", &[31], Type::Q8_0, vec![0; 34]).is_err());
    assert!(writer.tensor("a", &[1; 5], TensorType::I8, vec![0]).is_err());
    assert!(writer.tensor(&"a".repeat(64), &[1], TensorType::I8, vec![0]).is_err());
}

#[test]
fn getters_convert_what_fits_and_refuse_the_rest() {
    let mut writer = GgufWriter::new();
    writer
        .set("small", 7u8)
        .set("negative", -1i64)
        .set("huge", u64::MAX)
        .set("double", 0.5f64);
    writer
        .set("heads", vec![4i64, 8])
        .set("signed", vec![-4i16])
        .set("name", "x")
        .set("yes", true);
    writer.set("flags", vec![true, false]).set("scores", vec![1.5f32]);
    let gguf = Gguf::from_bytes("m.gguf", writer.to_bytes()).unwrap();
    let metadata = gguf.metadata();
    assert_eq!(metadata.u32("small").unwrap(), 7);
    assert_eq!(metadata.i32("negative").unwrap(), -1);
    assert_eq!(metadata.u64("huge").unwrap(), u64::MAX);
    assert_eq!(metadata.f32("double").unwrap(), 0.5);
    assert_eq!(*metadata.u32s("heads").unwrap(), [4, 8]);
    assert_eq!(*metadata.i32s("signed").unwrap(), [-4]);
    assert_eq!(metadata.bools("flags").unwrap(), [true, false]);
    assert_eq!(metadata.f32s("scores").unwrap(), [1.5]);
    assert!(metadata.bool("yes").unwrap());
    assert_eq!(metadata.opt_string("absent").unwrap(), None);

    let message = |error: models::gguf::GgufError| error.to_string();
    assert_eq!(
        message(metadata.u32("absent").unwrap_err()),
        r#"m.gguf: key "absent": missing"#
    );
    let negative = message(metadata.u32("negative").unwrap_err());
    assert!(negative.starts_with("m.gguf: byte "), "{negative}");
    assert!(
        negative.ends_with(r#"key "negative": i64 -1, where an integer that fits u32 is expected"#),
        "{negative}"
    );
    let array = message(metadata.opt_u32("heads").unwrap_err());
    assert!(array.contains("an array of 2 i64, where an integer"), "{array}");
    assert!(metadata.u32s("signed").is_err());
    assert!(metadata.u32("huge").is_err());
    assert!(metadata.f32("small").is_err());
    assert!(metadata.string("yes").is_err());
    assert!(metadata.strings("name").is_err());
}

/// The names of the parts of a fixture, split after its first tensors.
fn split(folder: &Path, parts: u16) -> Vec<PathBuf> {
    let gguf = Gguf::open(&fixture("qwen2-q8_0.gguf")).unwrap();
    let whole = GgufWriter::copy_of(&gguf);
    let share = gguf.tensors().len().div_ceil(parts.into());
    let mut paths = Vec::new();
    for number in 0..parts {
        let mut part = if number == 0 { whole.clone() } else { GgufWriter::new() };
        for tensor in gguf.tensors() {
            part.remove_tensor(&tensor.name);
        }
        for tensor in gguf.tensors().chunks(share).nth(number.into()).unwrap() {
            part.tensor(&tensor.name, tensor.shape(), tensor.kind, gguf.data(tensor))
                .unwrap();
        }
        part.set("split.no", number).set("split.count", parts);
        part.set("split.tensors.count", gguf.tensors().len() as i32);
        let path = folder.join(format!("q-{:05}-of-{parts:05}.gguf", number + 1));
        part.write(&path).unwrap();
        paths.push(path);
    }
    paths
}

#[test]
fn a_split_model_is_the_same_model() {
    let folder = tempfile::tempdir().unwrap();
    let paths = split(folder.path(), 3);
    let whole = Gguf::open(&fixture("qwen2-q8_0.gguf")).unwrap();
    let parts = Gguf::open(&paths[0]).unwrap();
    assert_eq!(parts.files().len(), 3);
    assert_eq!(parts.tensors().len(), whole.tensors().len());
    for tensor in whole.tensors() {
        assert_eq!(
            parts.data(parts.tensor(&tensor.name).unwrap()),
            whole.data(tensor),
            "{}",
            tensor.name
        );
    }
}

#[test]
fn another_part_than_the_first_is_refused_with_the_first_as_a_hint() {
    let folder = tempfile::tempdir().unwrap();
    let paths = split(folder.path(), 3);
    let error = Gguf::open(&paths[1]).unwrap_err();
    assert!(
        matches!(error.fault(), Fault::OtherPart { no: 1, count: 3, .. }),
        "{error}"
    );
    assert_eq!(error.hint().unwrap(), format!("open {}", paths[0].display()));
}

#[test]
fn a_missing_part_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let paths = split(folder.path(), 3);
    fs::remove_file(&paths[2]).unwrap();
    let error = Gguf::open(&paths[0]).unwrap_err();
    assert_eq!(error.file(), paths[2].to_str().unwrap());
    assert!(matches!(error.fault(), Fault::Io(_)), "{error}");
}

#[test]
fn a_part_in_anothers_place_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let paths = split(folder.path(), 3);
    fs::copy(&paths[1], &paths[2]).unwrap();
    let error = Gguf::open(&paths[0]).unwrap_err();
    assert!(
        error
            .to_string()
            .contains("it holds part 2, where its name says part 3"),
        "{error}"
    );
}

#[test]
fn a_part_that_repeats_a_tensor_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let paths = split(folder.path(), 2);
    let first = Gguf::open(&paths[0]).unwrap();
    let name = first.tensors()[0].name.clone();
    let mut second = GgufWriter::new();
    second.set("split.no", 1u16).set("split.count", 2u16);
    second.tensor(&name, &[1], TensorType::I8, vec![0]).unwrap();
    second.write(&paths[1]).unwrap();
    let error = Gguf::open(&paths[0]).unwrap_err();
    assert!(matches!(error.fault(), Fault::Duplicate), "{error}");
    assert_eq!(error.file(), paths[1].to_str().unwrap());
}

#[rstest]
#[case("split.tensors.count", Some(Value::I32(1)), "1 tensors are expected in all parts")]
#[case("split.tensors.count", None, "missing")]
#[case("split.no", None, "missing")]
#[case("split.count", Some(Value::U16(3)), "its name does not end in -00001-of-00003.gguf")]
#[case("split.count", Some(Value::I32(-2)), "an integer that fits u32")]
fn keys_that_miscount_parts_are_refused(#[case] key: &str, #[case] value: Option<Value>, #[case] message: &str) {
    let folder = tempfile::tempdir().unwrap();
    let paths = split(folder.path(), 2);
    let whole = Gguf::open(&fixture("qwen2-q8_0.gguf")).unwrap();
    let mut first = GgufWriter::new();
    first
        .set("split.no", 0u16)
        .set("split.count", 2u16)
        .set("split.tensors.count", whole.tensors().len() as i32);
    match value {
        Some(value) => first.set(key, value),
        None => first.remove(key),
    };
    first.write(&paths[0]).unwrap();
    let error = Gguf::open(&paths[0]).unwrap_err();
    assert!(error.to_string().contains(message), "{error}");
}

#[test]
fn a_part_in_memory_is_refused() {
    let mut writer = GgufWriter::new();
    writer
        .set("split.no", 0u16)
        .set("split.count", 2u16)
        .set("split.tensors.count", 0i32);
    let error = Gguf::from_bytes("part", writer.to_bytes()).unwrap_err();
    assert!(error.to_string().contains("the first of 2 parts"), "{error}");
}

#[test]
fn a_pipe_is_refused_without_waiting_for_its_writer() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("pipe.gguf");
    assert!(Command::new("mkfifo").arg(&path).status().unwrap().success());
    assert!(matches!(Gguf::open(&path).unwrap_err().fault(), Fault::NotAFile));
}

#[test]
fn folders_empty_files_and_absent_files_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    assert!(matches!(
        Gguf::open(folder.path()).unwrap_err().fault(),
        Fault::NotAFile
    ));
    let empty = folder.path().join("empty.gguf");
    fs::write(&empty, []).unwrap();
    assert!(
        Gguf::open(&empty)
            .unwrap_err()
            .to_string()
            .contains("the file is empty")
    );
    assert!(matches!(
        Gguf::open(&folder.path().join("absent.gguf")).unwrap_err().fault(),
        Fault::Io(_)
    ));
}
