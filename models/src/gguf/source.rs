//! Where a file's bytes come from: a map, the binary itself, or memory.

use std::fs::{File, OpenOptions};
use std::io;
use std::ops::Range;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;

use memmap2::{Advice, Mmap, UncheckedAdvice};

use super::error::{Fault, GgufError};
use super::guard::Watch;

/// Bytes that are mapped at a time, so that nobody waits long for changes of the address space.
const PIECE: usize = 512 << 10;
/// Multiples of this are multiples of a page everywhere.
const PAGE: u64 = 1 << 16;

/// One file of a model, with all its bytes.
#[derive(Debug)]
pub struct GgufFile {
    name: Arc<str>,
    source: Source,
}

#[derive(Debug)]
enum Source {
    Mapped(Mapped),
    Static(&'static [u8]),
    Owned(Vec<u8>),
}

/// The watch stands first, so that it is dropped before the map.
#[derive(Debug)]
struct Mapped {
    _watch: Watch,
    map: Mmap,
    file: File,
}

impl GgufFile {
    /// The path, or the name that the bytes were given.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The whole file.
    pub fn bytes(&self) -> &[u8] {
        match &self.source {
            Source::Mapped(mapped) => &mapped.map,
            Source::Static(bytes) => bytes,
            Source::Owned(bytes) => bytes,
        }
    }

    /// Whether the bytes are a map of a file, whose pages the system may drop and read again.
    pub fn is_mapped(&self) -> bool {
        matches!(self.source, Source::Mapped(_))
    }

    /// Brings a map's pages into memory and into the page tables, which is several times faster than meeting each on its
    /// own. Returns when that is done, or at once where the system cannot.
    pub(super) fn prefetch(&self) {
        let Source::Mapped(Mapped { map, .. }) = &self.source else {
            return;
        };
        let mut pieces = (0..map.len()).step_by(PIECE);
        let populate = |start| map.advise_range(Advice::PopulateRead, start, PIECE.min(map.len() - start));
        if pieces.try_for_each(populate).is_err() {
            // an older system: it may at least read ahead
            map.advise(Advice::WillNeed).ok();
        }
    }

    /// Keeps a map's pages in memory while it lasts.
    pub(super) fn lock(&self) -> io::Result<()> {
        match &self.source {
            Source::Mapped(Mapped { map, .. }) => map.lock(),
            Source::Static(_) | Source::Owned(_) => Ok(()),
        }
    }

    /// Gives the pages back that lie within these bytes, where they are a map of a file.
    pub(super) fn release(&self, bytes: Range<u64>) {
        let Source::Mapped(Mapped { map, .. }) = &self.source else {
            return;
        };
        let (start, end) = (bytes.start.next_multiple_of(PAGE), bytes.end / PAGE * PAGE);
        if start < end {
            // SAFETY: the map is of a file and only read: a page that is dropped is read from the file again.
            let released = unsafe {
                map.unchecked_advise_range(UncheckedAdvice::DontNeed, start as usize, (end - start) as usize)
            };
            // where the system refuses, the pages stay
            released.ok();
        }
    }

    pub(super) fn shared_name(&self) -> &Arc<str> {
        &self.name
    }

    pub(super) fn from_static(name: &str, bytes: &'static [u8]) -> GgufFile {
        GgufFile {
            name: name.into(),
            source: Source::Static(bytes),
        }
    }

    pub(super) fn from_bytes(name: &str, bytes: Vec<u8>) -> GgufFile {
        GgufFile {
            name: name.into(),
            source: Source::Owned(bytes),
        }
    }

    pub(super) fn map(path: &Path) -> Result<GgufFile, GgufError> {
        let name: Arc<str> = path.display().to_string().into();
        let mapped = Mapped::open(path, &name).map_err(|fault| GgufError::new(&name, fault))?;
        let file = GgufFile {
            name,
            source: Source::Mapped(mapped),
        };
        file.check_length()?;
        Ok(file)
    }

    /// An error if the file's length is no longer that of its map.
    pub(super) fn check_length(&self) -> Result<(), GgufError> {
        let Source::Mapped(Mapped { map, file, .. }) = &self.source else {
            return Ok(());
        };
        let before = map.len() as u64;
        match file.metadata() {
            Ok(now) if now.len() == before => Ok(()),
            Ok(now) => Err(GgufError::new(
                &self.name,
                Fault::LengthChanged {
                    before,
                    after: now.len(),
                },
            )),
            Err(error) => Err(GgufError::new(&self.name, error.into())),
        }
    }
}

impl Mapped {
    fn open(path: &Path, name: &str) -> Result<Mapped, Fault> {
        // O_NONBLOCK: opening a pipe would wait for its writer before it can be refused.
        let file = OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_NONBLOCK)
            .open(path)?;
        let metadata = file.metadata()?;
        if !metadata.is_file() {
            return Err(Fault::NotAFile);
        }
        if metadata.len() == 0 {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the file is empty").into());
        }
        // SAFETY: another process may write to the file while it is mapped. Nothing here depends on the bytes staying
        // as they are: the header is copied before it is checked, tensor data are only ever read as plain numbers,
        // and a page that is cut away ends in the SIGBUS handler.
        let map = unsafe { Mmap::map(&file)? };
        Ok(Mapped {
            _watch: Watch::new(&map, name),
            map,
            file,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Kilobytes of the map at `address` that are in memory.
    fn resident(address: usize) -> u64 {
        let maps = std::fs::read_to_string("/proc/self/smaps").unwrap();
        let mut lines = maps
            .lines()
            .skip_while(|line| !line.starts_with(&format!("{address:x}-")));
        let rss = lines.find_map(|line| line.strip_prefix("Rss:")).unwrap();
        rss.trim().trim_end_matches(" kB").parse().unwrap()
    }

    #[test]
    fn pages_that_are_given_back_leave_memory_and_are_read_again() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), vec![7; 8 << 20]).unwrap();
        let mapped = GgufFile::map(file.path()).unwrap();
        let sum = || mapped.bytes().iter().map(|&byte| u64::from(byte)).sum::<u64>();
        let address = mapped.bytes().as_ptr() as usize;
        assert_eq!(sum(), 7 << 23);
        assert_eq!(resident(address), 8 << 10);
        mapped.release(1..8 << 20);
        // the page that the range has but a part of is kept; where it was a part of a larger one, it may be read anew
        assert!(resident(address) <= PAGE >> 10);
        assert_eq!(sum(), 7 << 23);
    }

    #[test]
    fn a_file_that_grows_or_shrinks_while_it_is_read_is_refused() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), [0; 100]).unwrap();
        let mapped = GgufFile::map(file.path()).unwrap();
        mapped.check_length().unwrap();
        for length in [101, 99] {
            file.as_file().set_len(length).unwrap();
            let error = mapped.check_length().unwrap_err();
            assert!(
                matches!(error.fault(), Fault::LengthChanged { before: 100, after } if *after == length),
                "{error}"
            );
        }
    }
}
