//! Models split into several files: `NAME-%05d-of-%05d.gguf`, counted from 1 in names and from 0 in keys.

use std::path::{Path, PathBuf};

use super::error::{Fault, GgufError};
use super::metadata::Metadata;

pub(super) const COUNT: &str = "split.count";
pub(super) const NUMBER: &str = "split.no";
pub(super) const TENSORS: &str = "split.tensors.count";

/// What the keys of one part say.
pub(super) struct Split {
    /// How many parts there are, at least 2.
    pub count: u32,
    number: u32,
    tensors: Option<u64>,
}

impl Split {
    /// What `metadata` says; `None` for a model in one file.
    pub fn of(metadata: &Metadata) -> Result<Option<Split>, GgufError> {
        let count = metadata.opt_u32(COUNT)?.unwrap_or(1);
        if count < 2 {
            return Ok(None);
        }
        Ok(Some(Split {
            count,
            number: metadata.u32(NUMBER)?,
            tensors: metadata.opt_u64(TENSORS)?,
        }))
    }

    /// An error unless this is the first part; `path` is where it stands, if it is a file.
    pub fn check_first(&self, metadata: &Metadata, path: Option<&Path>) -> Result<(), GgufError> {
        if self.number == 0 {
            return Ok(());
        }
        let first = path.and_then(|path| part_path(path, self.number, 0, self.count));
        let first = first.map(|first| first.display().to_string());
        Err(metadata.error(
            NUMBER,
            Fault::OtherPart {
                no: self.number,
                count: self.count,
                first,
            },
        ))
    }

    /// The path of part `number`, beside the first.
    pub fn path(&self, first: &Path, number: u32, metadata: &Metadata) -> Result<PathBuf, GgufError> {
        part_path(first, 0, number, self.count).ok_or_else(|| {
            let expected = suffix(0, self.count);
            let message = format!(
                "the first of {} parts, but its name does not end in {expected}",
                self.count
            );
            metadata.error(COUNT, Fault::Split(message))
        })
    }

    /// An error unless `metadata` is that of part `number` of the same model.
    pub fn check_part(&self, metadata: &Metadata, number: u32) -> Result<(), GgufError> {
        let (count, found) = (metadata.u32(COUNT)?, metadata.u32(NUMBER)?);
        if count != self.count {
            let message = format!("{count} parts, where the first part counts {}", self.count);
            return Err(metadata.error(COUNT, Fault::Split(message)));
        }
        if found != number {
            let message = format!(
                "it holds part {}, where its name says part {}",
                u64::from(found) + 1,
                number + 1
            );
            return Err(metadata.error(NUMBER, Fault::Split(message)));
        }
        Ok(())
    }

    /// An error unless all parts together have as many tensors as the first says.
    pub fn check_tensors(&self, metadata: &Metadata, found: usize) -> Result<(), GgufError> {
        match self.tensors {
            Some(expected) if expected != found as u64 => {
                let message = format!("{expected} tensors are expected in all parts, {found} are there");
                Err(metadata.error(TENSORS, Fault::Split(message)))
            }
            Some(_) => Ok(()),
            None => Err(metadata.error(TENSORS, Fault::Missing)),
        }
    }
}

fn suffix(number: u32, count: u32) -> String {
    format!("-{:05}-of-{count:05}.gguf", u64::from(number) + 1)
}

/// The path of part `to`, where `path` is that of part `from`; `None` if that isn't named like one.
fn part_path(path: &Path, from: u32, to: u32, count: u32) -> Option<PathBuf> {
    let name = path.file_name()?.to_str()?;
    let stem = name.strip_suffix(&suffix(from, count))?;
    Some(path.with_file_name(format!("{stem}{}", suffix(to, count))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_stand_beside_each_other() {
        let first = Path::new("/models/a-00001-of-00012.gguf");
        assert_eq!(
            part_path(first, 0, 11, 12),
            Some("/models/a-00012-of-00012.gguf".into())
        );
        assert_eq!(part_path(first, 0, 1, 13), None);
        assert_eq!(part_path(Path::new("a.gguf"), 0, 1, 2), None);
    }
}
