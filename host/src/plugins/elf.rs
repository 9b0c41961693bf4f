//! Whether a file is a plugin for this machine, before `dlopen` sees it: a library cut short would end the process
//! inside `dlopen`, and a stranger's library would run its constructors.

use std::{fs::File, io, path::Path};

use backend_api::contract::ROOT_SYMBOL;
use object::{
    Endianness, Object, ObjectSymbol, ReadCache, ReadRef,
    elf::{self, FileHeader64, SHT_NOBITS},
    read::elf::{ElfFile64, FileHeader, ProgramHeader, SectionHeader},
};

/// Why a file is no plugin.
#[derive(Debug, thiserror::Error)]
pub enum ElfError {
    /// It could not be read.
    #[error("the file cannot be read: {0}")]
    Unreadable(#[from] io::Error),
    /// Text, an empty file, anything else.
    #[error("not a shared library: {0}")]
    NotElf(&'static str),
    /// Built for something else than this process.
    #[error("a library for another machine ({0}), expected {arch}", arch = std::env::consts::ARCH)]
    Foreign(String),
    /// An ELF file that says that it is longer than it is, or malformed in another way.
    #[error("the library is cut short or damaged: {what} (the file has {bytes} bytes); hint: copy it again")]
    Damaged {
        /// What is wrong.
        what: String,
        /// Bytes that the file has.
        bytes: u64,
    },
    /// A library that is no plugin.
    #[error("a shared library that is no backend: it exports no root module (backend_api::export_backend! makes one)")]
    NoRootModule,
}

/// ELF's number of this machine.
const MACHINE: u16 = if cfg!(target_arch = "aarch64") {
    elf::EM_AARCH64
} else {
    elf::EM_X86_64
};

/// Makes sure that the file is a whole shared library for this machine that exports a backend's root module.
pub fn check(path: &Path) -> Result<(), ElfError> {
    let file = File::open(path)?;
    let bytes = file.metadata()?.len();
    check_data(&ReadCache::new(file), bytes)
}

fn check_data<'data>(data: impl ReadRef<'data>, bytes: u64) -> Result<(), ElfError> {
    let damaged = |what: String| ElfError::Damaged { what, bytes };
    check_header(data)?;
    check_ranges(data, bytes).map_err(damaged)?;
    let library: ElfFile64<'_, Endianness, _> = ElfFile64::parse(data).map_err(|error| damaged(error.to_string()))?;
    let is_root = |name: Result<&[u8], _>| name == Ok(ROOT_SYMBOL.as_bytes());
    let mut symbols = library.dynamic_symbols();
    match symbols.any(|symbol| symbol.is_definition() && is_root(symbol.name_bytes())) {
        true => Ok(()),
        false => Err(ElfError::NoRootModule),
    }
}

fn check_header<'data>(data: impl ReadRef<'data>) -> Result<(), ElfError> {
    let magic = data
        .read_bytes_at(0, 4)
        .map_err(|()| ElfError::NotElf("the file is too short"))?;
    if magic != elf::ELFMAG {
        return Err(ElfError::NotElf("it is no ELF file"));
    }
    let ident = data.read_bytes_at(4, 2).unwrap_or_default();
    if ident != [elf::ELFCLASS64, elf::ELFDATA2LSB] {
        return Err(ElfError::Foreign("not 64-bit little-endian".into()));
    }
    let header = FileHeader64::<Endianness>::parse(data).map_err(|_| ElfError::NotElf("the file is too short"))?;
    let machine = header.e_machine(Endianness::Little);
    if machine != MACHINE {
        return Err(ElfError::Foreign(format!("ELF machine {machine}")));
    }
    match header.e_type(Endianness::Little) == elf::ET_DYN {
        true => Ok(()),
        false => Err(ElfError::NotElf("it is another kind of ELF file")),
    }
}

/// Makes sure that all segments and sections lie within the file's `bytes`.
fn check_ranges<'data>(data: impl ReadRef<'data>, bytes: u64) -> Result<(), String> {
    let little = Endianness::Little;
    let text = |error: object::Error| error.to_string();
    let header = FileHeader64::<Endianness>::parse(data).map_err(text)?;
    let segments = header.program_headers(little, data).map_err(text)?;
    let sections = header.section_headers(little, data).map_err(text)?;
    let of_segment = segments.iter().map(|segment| segment.file_range(little));
    let of_section = sections.iter().filter(|section| section.sh_type(little) != SHT_NOBITS);
    let of_section = of_section.map(|section| (section.sh_offset(little), section.sh_size(little)));
    let beyond = |(offset, size): &(u64, u64)| offset.checked_add(*size).is_none_or(|end| end > bytes);
    match of_segment.chain(of_section).find(beyond) {
        None => Ok(()),
        Some((offset, size)) => Err(format!("{size} bytes are expected from byte {offset}")),
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, sync::LazyLock};

    use proptest::prelude::*;

    use super::*;

    fn error_of(contents: &[u8]) -> String {
        check_data(contents, contents.len() as u64).unwrap_err().to_string()
    }

    /// A library that every Linux process has: its C library, or whatever else it mapped.
    fn library() -> Vec<u8> {
        let maps = fs::read_to_string("/proc/self/maps").unwrap();
        let path = maps
            .split_whitespace()
            .find(|word| word.starts_with('/') && word.contains(".so."));
        fs::read(path.unwrap()).unwrap()
    }

    #[test]
    fn text_and_empty_files_are_no_libraries() {
        assert_eq!(error_of(b""), "not a shared library: the file is too short");
        assert_eq!(error_of(b"#!/bin/sh\n"), "not a shared library: it is no ELF file");
        assert_eq!(
            error_of(b"\x7fELF"),
            format!(
                "a library for another machine (not 64-bit little-endian), expected {}",
                std::env::consts::ARCH
            )
        );
    }

    #[test]
    fn a_library_cut_anywhere_is_refused() {
        let whole = library();
        for kept in [5, 63, 64, 100, 1000, whole.len() / 2, whole.len() - 1] {
            let error = error_of(&whole[..kept]);
            assert!(
                error.contains("cut short") || error.contains("too short") || error.contains("another"),
                "{kept}: {error}"
            );
        }
    }

    #[test]
    fn a_strangers_library_is_no_backend() {
        assert!(error_of(&library()).starts_with("a shared library that is no backend"));
    }

    #[test]
    fn a_library_for_another_machine_is_refused() {
        let mut other = library();
        other[18..20].copy_from_slice(&elf::EM_S390.to_le_bytes());
        assert_eq!(
            error_of(&other),
            format!(
                "a library for another machine (ELF machine 22), expected {}",
                std::env::consts::ARCH
            )
        );
    }

    #[test]
    fn a_file_that_is_not_there_cannot_be_read() {
        let error = check(Path::new("/nowhere/x.so")).unwrap_err().to_string();
        assert!(error.starts_with("the file cannot be read: No such file"), "{error}");
    }

    proptest! {
        /// Any damage to the headers or tables gives an answer: no panic, no endless loop, no huge allocation.
        #[test]
        fn damage_is_survived(changes in prop::collection::vec((any::<u32>(), any::<u8>(), any::<bool>()), 1..8)) {
            static WHOLE: LazyLock<Vec<u8>> = LazyLock::new(library);
            let mut damaged = WHOLE.clone();
            let length = damaged.len();
            let tables = u64::from_le_bytes(damaged[40..48].try_into().unwrap()) as usize;
            for (place, byte, in_headers) in changes {
                let (start, bytes) = if in_headers { (0, 1024) } else { (tables, length - tables) };
                damaged[start + place as usize % bytes] = byte;
            }
            prop_assert!(check_data(damaged.as_slice(), length as u64).is_err());
        }
    }
}
