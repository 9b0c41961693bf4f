//! A cache beside simulated pools and beside the flat token lists that it stands for.

mod behaviour;
mod random;

use std::collections::{HashMap, HashSet};

use super::group::NONE;
use super::*;

/// A cache, the cells that a device would hold, the tables as a device would hold them, and what the cells should say.
struct World {
    cache: Cache,
    step: Step,
    cells: HashMap<(usize, usize), u32>,
    tables: Vec<Vec<i32>>,
    flat: Vec<Vec<u32>>,
    /// How many of the tokens of each sequence in the next steps are ahead.
    ahead: u32,
}

impl World {
    /// Free lists start in an order that `seed` shuffles.
    fn new(config: CacheConfig, seed: u64) -> Self {
        let mut cache = Cache::new(config).unwrap();
        let mut random = Random(seed);
        for group in &mut cache.groups {
            for i in (1..group.free.len()).rev() {
                group.free.swap(i, random.below(i as u64 + 1) as usize);
            }
        }
        let tables = cache.groups.iter().map(|group| group.table().to_vec()).collect();
        let flat = vec![Vec::new(); cache.config.sequences];
        Self {
            cache,
            step: Step::default(),
            cells: HashMap::new(),
            tables,
            flat,
            ahead: 0,
        }
    }

    /// A step that stores `values`; returns for each column the values that it sees in group 0.
    fn store(&mut self, columns: &[(usize, &[u32])]) -> Vec<Vec<u32>> {
        self.try_store(columns).unwrap();
        let windows: Vec<_> = self.cache.config.groups.iter().map(|group| group.window).collect();
        for group in (1..windows.len()).rev() {
            self.seen(group, windows[group]);
        }
        self.seen(0, windows[0])
    }

    fn try_store(&mut self, columns: &[(usize, &[u32])]) -> Result<(), CacheError> {
        let counts: Vec<_> = columns
            .iter()
            .map(|(sequence, values)| (*sequence, values.len() as u32))
            .collect();
        self.cache.begin_ahead(&counts, self.ahead, &mut self.step)?;
        for (sequence, values) in columns {
            self.flat[*sequence].extend_from_slice(values);
        }
        self.copy_pages();
        let mut written = HashSet::new();
        for word in &self.step.words {
            assert!(
                written.insert((word.group, word.sequence, word.block)),
                "a word is written once"
            );
            self.tables[word.group][word.sequence * self.cache.config.blocks() + word.block] = word.page;
        }
        let values: Vec<u32> = columns.iter().flat_map(|(_, values)| values.iter().copied()).collect();
        for (group, slots) in self.step.slots.iter().enumerate() {
            assert_eq!(slots.len(), values.len());
            for (&slot, &value) in slots.iter().zip(&values) {
                self.cells.insert((group, slot as usize), value);
            }
        }
        self.check();
        Ok(())
    }

    /// The copies of a step, in the order least expected of a device.
    fn copy_pages(&mut self) {
        let p = self.cache.config.page_tokens as usize;
        let read = |to| self.step.copies.iter().any(|copy| (copy.group, copy.from) == to);
        assert!(!self.step.copies.iter().any(|copy| read((copy.group, copy.to))));
        for copy in self.step.copies.iter().rev() {
            for entry in 0..p {
                let cell = self.cells.remove(&(copy.group, copy.from as usize * p + entry));
                self.cells.remove(&(copy.group, copy.to as usize * p + entry));
                if let Some(value) = cell {
                    self.cells.insert((copy.group, copy.from as usize * p + entry), value);
                    self.cells.insert((copy.group, copy.to as usize * p + entry), value);
                }
            }
        }
    }

    /// What each column of the step sees through the device's table, after comparing it with the flat lists.
    fn seen(&self, group: usize, window: Option<u32>) -> Vec<Vec<u32>> {
        let p = self.cache.config.page_tokens as usize;
        let mut all = Vec::new();
        for sequence in 0..self.flat.len() {
            for t in self.step.starts[sequence] as usize..self.step.starts[sequence + 1] as usize {
                let position = self.step.positions[t] as usize;
                let low = window.map_or(0, |w| (position + 1).saturating_sub(w as usize));
                let row = &self.tables[group][sequence * self.cache.config.blocks()..];
                let cell = |i: usize| self.cells[&(group, usize::try_from(row[i / p]).unwrap() * p + i % p)];
                let seen: Vec<u32> = (low..=position).map(cell).collect();
                assert_eq!(seen, self.flat[sequence][low..=position]);
                all.push(seen);
            }
        }
        assert_eq!(all.len(), self.step.positions.len());
        all
    }

    fn truncate(&mut self, sequence: usize, length: u32) -> Result<(), CacheError> {
        self.cache.truncate(sequence, length)?;
        self.flat[sequence].truncate(length as usize);
        self.check();
        Ok(())
    }

    fn fork(&mut self, from: usize, to: usize, length: u32) -> Result<(), CacheError> {
        self.cache.fork(from, to, length)?;
        self.flat[to] = self.flat[from][..length as usize].to_vec();
        self.check();
        Ok(())
    }

    fn check(&self) {
        for (sequence, tokens) in self.flat.iter().enumerate() {
            assert_eq!(self.cache.length(sequence), tokens.len() as u32);
        }
        for group in &self.cache.groups {
            group.check(&self.cache.lengths);
        }
    }

    /// Whether every cell that a token at `position` sees before itself, and the last of all, has a page.
    fn can_resume(&self, sequence: usize, position: u32) -> bool {
        self.cache
            .groups
            .iter()
            .zip(&self.cache.config.groups)
            .all(|(group, config)| {
                let low = config.window.map_or(0, |w| position.saturating_sub((w - 1).max(1)));
                let row = &group.table()[sequence * self.cache.config.blocks()..];
                (low..position).all(|i| row[(i / self.cache.config.page_tokens) as usize] != NONE)
            })
    }

    /// Everything that a refused step must leave alone.
    fn state(&self) -> String {
        let mut cache = self.cache.clone();
        cache.columns.clear();
        cache.groups.iter_mut().for_each(Group::forget_changes);
        format!("{cache:?}")
    }
}

/// SplitMix64: Steele, Lea and Flood, "Fast splittable pseudorandom number generators", 2014.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }
}
