//! Damaged and crafted files: each fault is refused by name, at its byte, and nothing panics.

use std::fs;
use std::path::Path;

use models::gguf::{Fault, Gguf, GgufError, GgufWriter, Strings, TensorType, TypeFault};
use proptest::prelude::*;
use rstest::rstest;

/// A file written byte by byte: what no writer would make.
struct Raw(Vec<u8>);

impl Raw {
    fn new(tensors: i64, keys: i64) -> Raw {
        Raw(b"GGUF".to_vec()).u32(3).i64(tensors).i64(keys)
    }

    fn bytes(mut self, bytes: &[u8]) -> Raw {
        self.0.extend_from_slice(bytes);
        self
    }

    fn u32(self, value: u32) -> Raw {
        self.bytes(&value.to_le_bytes())
    }

    fn u64(self, value: u64) -> Raw {
        self.bytes(&value.to_le_bytes())
    }

    fn i64(self, value: i64) -> Raw {
        self.bytes(&value.to_le_bytes())
    }

    fn string(self, text: &[u8]) -> Raw {
        self.u64(text.len() as u64).bytes(text)
    }

    fn tensor(self, name: &str, dims: &[i64], kind: u32, offset: u64) -> Raw {
        let named = self.string(name.as_bytes()).u32(dims.len() as u32);
        dims.iter()
            .fold(named, |raw, &size| raw.i64(size))
            .u32(kind)
            .u64(offset)
    }

    /// Pads to 32 bytes, then `length` bytes of data.
    fn data(mut self, length: usize) -> Raw {
        self.0.resize(self.0.len().next_multiple_of(32) + length, 0);
        self
    }

    fn refused(self) -> GgufError {
        let error = Gguf::from_bytes("hostile.gguf", self.0).unwrap_err();
        assert_eq!(error.file(), "hostile.gguf");
        assert!(error.offset().is_some(), "{error}");
        error
    }

    #[track_caller]
    fn refused_saying(self, message: &str) {
        let error = self.refused().to_string();
        assert!(error.contains(message), "{error}");
    }
}

const STRING: u32 = 8;
const ARRAY: u32 = 9;
const F32: u32 = 0;
const Q8_0: u32 = 8;

/// Where the first key's record or, without keys, the first tensor's begins.
const BODY: u64 = 24;

#[rstest]
#[case(b"PK\x03\x04".to_vec(), "it begins with \"PK\\x03\\x04\"")]
#[case(b"GG".to_vec(), "the magic: at least 4 bytes")]
#[case(Raw(b"GGUF".to_vec()).u32(1).0, "byte 4: GGUF version 1 is not supported")]
#[case(Raw(b"GGUF".to_vec()).u32(0).0, "GGUF version 0 is not supported")]
#[case(Raw(b"GGUF".to_vec()).u32(4).0, "GGUF version 4 is not supported")]
#[case(b"GGUF\0\0\0\x03".to_vec(), "byte-swapped (big-endian)")]
fn other_formats_and_versions_are_refused_by_name(#[case] bytes: Vec<u8>, #[case] message: &str) {
    Raw(bytes).refused_saying(message);
}

#[test]
fn version_2_is_read() {
    let mut bytes = Raw::new(0, 0).0;
    bytes[4] = 2;
    assert_eq!(Gguf::from_bytes("old", bytes).unwrap().version(), 2);
}

#[rstest]
#[case(Raw::new(-1, 0), "byte 8: the number of tensors is negative (-1)")]
#[case(Raw::new(0, i64::MIN), "byte 16: the number of keys is negative")]
#[case(Raw::new(0, i64::MAX), "byte 16: number of keys: at least")]
#[case(Raw::new(i64::MAX, 0), "byte 8: number of tensors: at least")]
#[case(
    Raw::new(1, 0),
    "byte 8: number of tensors: at least 24 bytes are needed, but only 8 remain"
)]
fn counts_beyond_the_file_are_refused(#[case] raw: Raw, #[case] message: &str) {
    raw.refused_saying(message);
}

#[rstest]
#[case(Raw::new(0, 1).u64(u64::MAX).bytes(&[0; 40]), "name of key 0: the string: at least")]
#[case(Raw::new(0, 1).string(b"k").u32(STRING).u64(1 << 40), "key \"k\": the string: at least 1099511627776 bytes")]
#[case(Raw::new(0, 1).string(b"k").u32(ARRAY).u32(6).u64(u64::MAX), "key \"k\": the array: at least")]
#[case(Raw::new(0, 1).string(b"k").u32(ARRAY).u32(6).u64(1 << 62), "key \"k\": the array: at least")]
#[case(Raw::new(0, 1).string(b"k").u32(ARRAY).u32(7).u64(1 << 62), "key \"k\": the array: at least")]
#[case(Raw::new(0, 1).string(b"k").u32(ARRAY).u32(STRING).u64(1 << 61), "key \"k\": the array: at least")]
#[case(
    Raw::new(0, 1).string(b"k").u32(ARRAY).u32(STRING).u64(1).u64(u64::MAX),
    "key \"k\": a string of the array: at least"
)]
#[case(Raw::new(0, 1).string(b"k").u32(10).u32(0), "key \"k\": the value: at least 8 bytes are needed, but only 4 remain")]
#[case(Raw::new(1, 0).u64(1 << 63).bytes(&[0; 40]), "name of tensor 0: the string: at least")]
fn lengths_beyond_the_file_are_refused(#[case] raw: Raw, #[case] message: &str) {
    raw.refused_saying(message);
}

#[rstest]
#[case(13)]
#[case(u32::MAX)]
fn value_types_that_do_not_exist_are_refused(#[case] kind: u32) {
    Raw::new(0, 1)
        .string(b"k")
        .u32(kind)
        .u64(0)
        .refused_saying(&format!("key \"k\": value type {kind} does not"));
    Raw::new(0, 1)
        .string(b"k")
        .u32(ARRAY)
        .u32(kind)
        .u64(0)
        .refused_saying("does not exist");
}

#[test]
fn arrays_of_arrays_are_refused() {
    let raw = Raw::new(0, 1).string(b"k").u32(ARRAY).u32(ARRAY).u64(1).u32(0).u64(0);
    let error = raw.refused();
    assert!(matches!(error.fault(), Fault::NestedArray), "{error}");
    assert_eq!(error.offset(), Some(BODY + 8 + 1 + 4));
}

#[test]
fn a_bool_is_0_or_1() {
    Raw::new(0, 1)
        .string(b"k")
        .u32(7)
        .bytes(&[2])
        .refused_saying("byte 37: key \"k\": 2 is not a bool");
    Raw::new(0, 1)
        .string(b"k")
        .u32(ARRAY)
        .u32(7)
        .u64(2)
        .bytes(&[1, 7])
        .refused_saying("byte 50: key \"k\": 7 is");
}

#[test]
fn keys_are_unique() {
    let raw = Raw::new(0, 2)
        .string(b"k")
        .u32(0)
        .bytes(&[1])
        .string(b"k")
        .u32(0)
        .bytes(&[1]);
    raw.refused_saying("byte 38: key \"k\": it appears twice");
}

#[test]
fn strings_are_utf8() {
    Raw::new(0, 1)
        .string(b"\xff")
        .u32(0)
        .bytes(&[0])
        .refused_saying("byte 32: name of key 0: the string is not UTF-8");
    Raw::new(0, 1)
        .string(b"k")
        .u32(STRING)
        .string(b"a\xc3")
        .refused_saying("byte 45: key \"k\": the string is not");
}

#[rstest]
#[case([&b"ok"[..], b"\xff", b"ok"], 1)]
#[case([&b"ok"[..], b"ok", b"ok\xc3"], 2)]
#[case([&b"ok"[..], b"a\xc3", b"\xa9b"], 1)]
#[case([&b"\xa9"[..], b"", b""], 0)]
fn a_string_of_an_array_that_is_not_utf8_is_named(#[case] strings: [&[u8]; 3], #[case] index: usize) {
    let raw = Raw::new(0, 1)
        .string(b"k")
        .u32(ARRAY)
        .u32(STRING)
        .u64(strings.len() as u64);
    let start = raw.0.len() + strings[..index].iter().map(|s| 8 + s.len()).sum::<usize>() + 8;
    let error = strings.iter().fold(raw, |raw, string| raw.string(string)).refused();
    assert!(
        matches!(error.fault(), Fault::NotUtf8 { index: Some(i) } if *i == index),
        "{error}"
    );
    assert_eq!(error.offset(), Some(start as u64));
}

#[rstest]
#[case(0)]
#[case(48)]
fn an_alignment_is_a_power_of_two(#[case] alignment: u32) {
    let raw = Raw::new(0, 1).string(b"general.alignment").u32(4).u32(alignment);
    raw.refused_saying(&format!(
        "byte 49: key \"general.alignment\": an alignment of {alignment} is not a power"
    ));
}

#[test]
fn an_array_is_no_scalar() {
    let raw = Raw::new(0, 1)
        .string(b"general.alignment")
        .u32(ARRAY)
        .u32(4)
        .u64(1)
        .u32(32);
    raw.refused_saying("an array of 1 u32, where an integer that fits u32 is expected");
}

#[test]
fn tensor_names_are_unique_and_short() {
    let twice = Raw::new(2, 0)
        .tensor("a", &[1], F32, 0)
        .tensor("a", &[1], F32, 32)
        .data(64);
    twice.refused_saying("byte 57: tensor \"a\": it appears twice");
    let longest = Raw::new(1, 0).tensor(&"a".repeat(63), &[1], F32, 0).data(4);
    assert!(Gguf::from_bytes("longest", longest.0).is_ok());
    let long = Raw::new(1, 0).tensor(&"a".repeat(64), &[1], F32, 0).data(4);
    long.refused_saying("byte 24: name of tensor 0: the name has 64 bytes");
}

#[rstest]
#[case(&[1; 5], F32, "5 dimensions")]
#[case(&[2, -1], F32, "the size is negative (-1)")]
#[case(&[i64::MIN], F32, "the size is negative")]
#[case(&[1 << 32, 1 << 32], F32, "the product of its sizes overflows")]
#[case(&[i64::MAX, i64::MAX, i64::MAX, i64::MAX], F32, "the product of its sizes overflows")]
#[case(&[1 << 32, 1 << 32, 1, 0], F32, "the product of its sizes overflows")]
#[case(&[1 << 31, 1 << 31], F32, "its length in bytes overflows")]
#[case(&[1 << 31, 1 << 31], Q8_0, "its data: at least")]
#[case(&[33], Q8_0, "rows of 33 values, which is not a multiple of the 32 values of a Q8_0 block")]
fn impossible_sizes_are_refused(#[case] dims: &[i64], #[case] kind: u32, #[case] message: &str) {
    let error = Raw::new(1, 0).tensor("a", dims, kind, 0).data(64).refused().to_string();
    assert!(error.contains(&format!("tensor \"a\": {message}")), "{error}");
}

#[rstest]
#[case(16, "type IQ2_XXS is not served yet")]
#[case(17, "type IQ2_XS is not served yet")]
#[case(18, "type IQ3_XXS is not served yet")]
#[case(19, "type IQ1_S is not served yet")]
#[case(21, "type IQ3_S is not served yet")]
#[case(22, "type IQ2_S is not served yet")]
#[case(29, "type IQ1_M is not served yet")]
#[case(34, "type TQ1_0 is not served yet")]
#[case(35, "type TQ2_0 is not served yet")]
#[case(40, "type NVFP4 is not served yet")]
#[case(5, "type Q4_3 was retired")]
#[case(31, "type Q4_0_4_4 was retired")]
#[case(32, "type Q4_0_4_8 was retired")]
#[case(33, "type Q4_0_8_8 was retired")]
#[case(36, "type IQ4_NL_4_4 was retired")]
#[case(37, "type IQ4_NL_4_8 was retired")]
#[case(38, "type IQ4_NL_8_8 was retired")]
#[case(9, "type Q8_1 is for activations")]
#[case(15, "type Q8_K is for activations")]
#[case(999, "type id 999 is unknown")]
#[case(u32::MAX, "type id 4294967295 is unknown")]
fn tensor_types_that_are_not_served_are_refused_by_name(#[case] kind: u32, #[case] message: &str) {
    let error = Raw::new(1, 0).tensor("a", &[256], kind, 0).data(1024).refused();
    assert!(matches!(error.fault(), Fault::TensorType(_)), "{error}");
    assert!(
        error.to_string().contains(&format!("byte 45: tensor \"a\": {message}")),
        "{error}"
    );
}

#[test]
fn offsets_are_aligned() {
    Raw::new(1, 0)
        .tensor("a", &[1], F32, 16)
        .data(64)
        .refused_saying("offset 16 is not a multiple of the alignment");
}

#[rstest]
#[case(0, 31)]
#[case(32, 32)]
#[case(1 << 40, 64)]
#[case(u64::MAX - 31, 64)]
fn a_tensor_ends_within_the_file(#[case] offset: u64, #[case] length: usize) {
    let error = Raw::new(1, 0).tensor("a", &[8], F32, offset).data(length).refused();
    assert!(
        matches!(error.fault(), Fault::BeyondEnd { .. } | Fault::Overflow(_)),
        "{error}"
    );
    assert_eq!(error.offset(), Some(BODY));
}

#[test]
fn tensors_do_not_share_bytes() {
    let raw = Raw::new(2, 0)
        .tensor("a", &[9], F32, 0)
        .tensor("b", &[1], F32, 32)
        .data(64);
    raw.refused_saying("tensor \"b\": its data overlap those of tensor \"a\"");
}

#[test]
fn an_empty_tensor_has_no_data_wherever_it_stands() {
    let raw = Raw::new(1, 0).tensor("a", &[0, 7], F32, 1 << 40);
    let gguf = Gguf::from_bytes("empty", raw.0).unwrap();
    assert!(gguf.data(gguf.tensor("a").unwrap()).is_empty());
}

#[test]
fn control_characters_of_a_file_do_not_reach_the_terminal() {
    let raw = Raw::new(0, 1).string(b"\x1b[2Jkey").u32(99).u64(0);
    let error = raw.refused().to_string();
    assert!(!error.contains('\x1b') && error.contains(r"\u{1b}[2Jkey"), "{error}");
}

#[test]
fn a_hint_follows_what_can_be_helped() {
    let error = Raw::new(1, 0).tensor("a", &[256], 16, 0).data(1024).refused();
    assert!(matches!(
        error.fault(),
        Fault::TensorType(TypeFault::NotServed("IQ2_XXS"))
    ));
    assert!(
        error
            .to_string()
            .contains("\nhint: get the model in another quantization"),
        "{error}"
    );
}

/// A small file with something of everything; its last byte is data.
fn small() -> Vec<u8> {
    let mut writer = GgufWriter::new();
    writer
        .set("general.architecture", "none")
        .set("general.alignment", 32u32)
        .set("f", 0.5f64)
        .set("b", true);
    writer
        .set("tokens", Strings::from_iter(["a", "", "żółw"]))
        .set("scores", vec![0.5f32; 3]);
    writer.set("flags", vec![true, false]).set("types", vec![1i32, 2, 3]);
    writer
        .tensor("w", &[32, 3], TensorType::from_id(Q8_0).unwrap(), vec![1; 102])
        .unwrap();
    writer.tensor("v", &[8], TensorType::I8, vec![2; 8]).unwrap();
    let mut file = writer.to_bytes();
    file.truncate(file.len() - 24);
    file
}

/// Everything that can be asked of a file; an error says where.
fn use_all(bytes: Vec<u8>) -> Result<(), GgufError> {
    let length = bytes.len() as u64;
    let gguf = match Gguf::from_bytes("damaged", bytes) {
        Ok(gguf) => gguf,
        Err(error) => {
            assert!(error.offset().is_none_or(|offset| offset <= length), "{error}");
            assert!(!error.fault().to_string().is_empty());
            return Err(error);
        }
    };
    for tensor in gguf.tensors() {
        assert_eq!(gguf.data(tensor).len() as u64, tensor.bytes);
        assert_eq!(gguf.tensor(&tensor.name), Some(tensor));
    }
    let metadata = gguf.metadata();
    for (key, _) in metadata.iter() {
        let strings = metadata
            .opt_strings(key)
            .map_or(0, |s| s.map_or(0, |s| s.iter().count()));
        let numbers = metadata.opt_u32s(key).map_or(0, |n| n.map_or(0, |n| n.len()));
        assert!(strings == 0 || numbers == 0);
        let _ = (
            metadata.u32(key),
            metadata.f32(key),
            metadata.bool(key),
            metadata.string(key),
        );
    }
    Ok(())
}

#[test]
fn a_small_file_cut_anywhere_is_refused() {
    let whole = small();
    use_all(whole.clone()).unwrap();
    for length in 0..whole.len() {
        let error = use_all(whole[..length].to_vec()).unwrap_err();
        assert!(matches!(error.fault(), Fault::BeyondEnd { .. }), "{length}: {error}");
    }
}

#[test]
fn a_small_file_with_any_byte_changed_never_panics() {
    let whole = small();
    for at in 0..whole.len() {
        for change in [0x01, 0x80, 0xff] {
            let mut bytes = whole.clone();
            bytes[at] ^= change;
            let _ = use_all(bytes);
        }
    }
}

#[rstest]
#[case("gptoss-q8_0.gguf")]
#[case("gemma3-q8_0.gguf")]
fn a_model_damaged_in_its_header_never_panics(#[case] name: &str) {
    let whole = fs::read(
        Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("../tests/fixtures")
            .join(name),
    )
    .unwrap();
    let gguf = Gguf::from_bytes(name, whole.clone()).unwrap();
    let header = gguf.tensors().iter().map(|tensor| tensor.offset).min().unwrap() as usize;
    // What lies behind the header may be missing: most damage is seen before.
    let steps = header / 150;
    for at in (0..header).step_by(steps) {
        assert!(use_all(whole[..at].to_vec()).is_err());
        let mut bytes = whole[..header].to_vec();
        bytes[at] ^= 0xff;
        assert!(use_all(bytes).is_err());
    }
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..512)) {
        let _ = use_all(bytes);
    }

    #[test]
    fn arbitrary_bytes_after_a_header_never_panic(
        tensors in 0i64..4,
        keys in 0i64..4,
        body in prop::collection::vec(prop_oneof![3 => Just(0u8), 2 => 0u8..16, 1 => any::<u8>()], 0..512),
    ) {
        let _ = use_all(Raw::new(tensors, keys).bytes(&body).0);
    }
}
