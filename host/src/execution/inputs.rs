//! The step inputs: a copy in host memory, and what must be written to the devices.

use std::collections::BTreeMap;

use models::graph::Input;

use super::plan::InputKey;

/// All step inputs as they lie in the region of inputs.
pub struct Inputs {
    bytes: Vec<u8>,
    places: BTreeMap<InputKey, (u64, u64)>,
}

impl Inputs {
    /// Inputs at these places (bytes from the start, values).
    pub fn new(places: BTreeMap<InputKey, (u64, u64)>) -> Self {
        let end = places
            .values()
            .map(|(offset, values)| offset + 4 * values)
            .max()
            .unwrap_or(0);
        Inputs {
            bytes: vec![0; end as usize],
            places,
        }
    }

    /// Sets the first values of an input. Gives the bytes that a device must be sent, with their offset; nothing where
    /// the graph has no such input or `values` is empty.
    pub fn set(&mut self, input: Input, values: impl ExactSizeIterator<Item = i32>) -> Option<(u64, &[u8])> {
        self.set_from(input, 0, values)
    }

    /// As [`Inputs::set`], from value `first` on.
    pub fn set_from(
        &mut self,
        input: Input,
        first: usize,
        values: impl ExactSizeIterator<Item = i32>,
    ) -> Option<(u64, &[u8])> {
        let &(offset, capacity) = self.places.get(&InputKey::from(input))?;
        let room = (capacity as usize).checked_sub(first)?;
        let count = values.len().min(room);
        if count == 0 {
            return None;
        }
        let start = offset as usize + 4 * first;
        let target = &mut self.bytes[start..start + 4 * count];
        for (word, value) in target.chunks_exact_mut(4).zip(values) {
            word.copy_from_slice(&value.to_le_bytes());
        }
        Some((start as u64, target))
    }
}
