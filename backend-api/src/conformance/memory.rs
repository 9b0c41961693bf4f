//! The memory of one buffer of a case, by the way that it reaches the device.

use abi_stable::std_types::RSlice;

use super::{
    case::Case,
    image::{Garbage, litter},
    session::{Guarded, Held, Session, failed},
};
use crate::{
    contract::{Binding, flags},
    graph::Tensor,
};

/// How weights reach the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Path {
    Upload,
    Import,
}

impl Path {
    /// The ways that a case is run.
    pub fn of(session: &Session, case: &Case) -> Vec<Path> {
        let imports = session.info.flags & flags::IMPORTS != 0;
        if imports && (0..case.draft.buffers.len()).any(|i| case.is_weight(i)) {
            vec![Path::Upload, Path::Import]
        } else {
            vec![Path::Upload]
        }
    }

    /// Says of a failure that it is this way's.
    pub fn explain(self, message: String) -> String {
        match self {
            Path::Upload => message,
            Path::Import => format!("with imported weights: {message}"),
        }
    }
}

/// A buffer of a case.
pub(super) enum Memory<'a> {
    /// The host writes it before each run.
    Written(Guarded<'a>),
    /// A weight in the device's own memory.
    Uploaded(Guarded<'a>),
    /// A weight in the host's memory.
    Imported(Imported<'a>),
}

impl<'a> Memory<'a> {
    /// Memory for `image`; a weight holds it from now on.
    pub fn new(session: &'a Session, path: Path, weight: Option<&Tensor>, image: &[u8]) -> Result<Memory<'a>, String> {
        let Some(weight) = weight else {
            let memory = Guarded::new(session, image.len(), session.rules.alignment)?;
            return Ok(Memory::Written(memory));
        };
        if path == Path::Import {
            return Imported::new(session, weight, image).map(Memory::Imported);
        }
        let layout = session.module.weight()(&session.info, weight).into_result();
        let layout = layout.map_err(failed("weight"))?;
        if !layout.alignment.is_power_of_two() {
            return Err(format!(
                "a weight's alignment is a power of two, not {}",
                layout.alignment
            ));
        }
        // The binding covers the graph's buffer, which has the file's bytes, whatever the device makes of them.
        let bytes = (layout.bytes as usize).max(image.len());
        let mut memory = Guarded::new(session, bytes, layout.alignment)?;
        memory.upload(weight, image)?;
        Ok(Memory::Uploaded(memory))
    }

    pub fn binding(&self) -> Binding {
        match self {
            Memory::Written(memory) | Memory::Uploaded(memory) => memory.binding(),
            Memory::Imported(memory) => memory.binding(),
        }
    }

    /// Writes what the host writes before a run.
    pub fn write(&mut self, image: &[u8]) -> Result<(), String> {
        match self {
            Memory::Written(memory) => memory.write(image),
            Memory::Uploaded(_) | Memory::Imported(_) => Ok(()),
        }
    }

    /// What it holds after a run; weights are looked at in the end.
    pub fn read(&self, before: &[u8]) -> Result<Vec<u8>, String> {
        match self {
            Memory::Written(memory) => memory.read(),
            Memory::Uploaded(_) | Memory::Imported(_) => Ok(before.to_vec()),
        }
    }

    /// An error where a weight was changed.
    pub fn finish(&self) -> Result<(), String> {
        match self {
            Memory::Written(_) => Ok(()),
            Memory::Uploaded(memory) => memory.intact("running a program"),
            Memory::Imported(memory) => memory.intact(),
        }
    }
}

/// A weight in the host's memory. Block types lie at an odd address, elements at a multiple of their size: files
/// promise no more.
pub(super) struct Imported<'a> {
    held: Held<'a>,
    memory: Vec<u8>,
    copy: Vec<u8>,
    lead: usize,
    bytes: usize,
}

impl<'a> Imported<'a> {
    fn new(session: &'a Session, weight: &Tensor, image: &[u8]) -> Result<Imported<'a>, String> {
        let mut memory = vec![0; image.len() + 192];
        litter(Garbage::NotNumbers, 0x1397, &mut memory);
        let block = weight.kind().is_some_and(|ty| ty.is_quantized());
        let lead = memory.as_ptr().align_offset(64) + if block { 17 } else { 4 };
        memory[lead..lead + image.len()].copy_from_slice(image);
        let imported = session.device.import(RSlice::from_slice(&memory)).into_result();
        let id = imported.map_err(failed("import by a device that says it imports"))?;
        Ok(Imported {
            held: session.held(id),
            copy: memory.clone(),
            memory,
            lead,
            bytes: image.len(),
        })
    }

    fn binding(&self) -> Binding {
        Binding {
            buffer: self.held.id,
            offset: self.lead as u64,
            bytes: self.bytes as u64,
        }
    }

    fn intact(&self) -> Result<(), String> {
        match self.memory == self.copy {
            true => Ok(()),
            false => Err("running a program changed an imported weight".into()),
        }
    }
}
