//! What the machine can do at most, measured in the same run as the model.

use std::{fs, path::PathBuf, process};

use backend_api::{measure::Measure, types::Type};
use models::gguf::{Gguf, GgufWriter};
use serde::Serialize;

use crate::execution::device::Target;

/// Bytes that are read to measure reading: more than caches hold.
const READ: usize = 512 << 20;

/// What a device can do at most.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Machine {
    /// Bytes a second that it reads from mapped files.
    pub read_bandwidth: f64,
    /// Operations a second in the arithmetic of quantized products.
    pub arithmetic_peak: f64,
}

impl Machine {
    /// Measures the device with so many threads; nothing where its backend cannot tell.
    pub fn measure(target: &Target, model: &Gguf, threads: u32) -> anyhow::Result<Option<Machine>> {
        let Some(measure) = Measure::find(target.module) else {
            return Ok(None);
        };
        let device = target.info.id;
        let mapped = model.files()[0].bytes();
        let read_bandwidth = if mapped.len() >= READ {
            measure.read_bandwidth(device, threads, &mapped[..READ])?
        } else {
            let spare = Spare::new()?;
            measure.read_bandwidth(device, threads, spare.file.files()[0].bytes())?
        };
        Ok(Some(Machine {
            read_bandwidth,
            arithmetic_peak: measure.arithmetic_peak(device, threads)?,
        }))
    }
}

/// A mapped file of zeros, for models that are too small to measure with.
struct Spare {
    path: PathBuf,
    file: Gguf,
}

impl Spare {
    fn new() -> anyhow::Result<Spare> {
        let path = std::env::temp_dir().join(format!("graft-bench-{}.gguf", process::id()));
        let mut writer = GgufWriter::new();
        writer.set("general.architecture", "none");
        writer.zeros("zeros", &[READ as u64 / 4], Type::F32)?;
        let written = writer.write(&path);
        let file = written
            .map_err(anyhow::Error::from)
            .and_then(|()| Ok(Gguf::open(&path)?));
        match file {
            Ok(file) => Ok(Spare { path, file }),
            Err(error) => {
                fs::remove_file(&path).ok();
                Err(error.context(format!("a file to measure reading with: {}", path.display())))
            }
        }
    }
}

impl Drop for Spare {
    fn drop(&mut self) {
        fs::remove_file(&self.path).ok();
    }
}
