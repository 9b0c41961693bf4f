//! The pages and block tables of one cache group.

use std::ops::Range;

use super::step::{PageCopy, Step, TableWord};
use super::{CacheConfig, GroupConfig};

/// Marks a block that has no page.
pub(super) const NONE: i32 = -1;

/// New tokens of one sequence: positions `tokens` are to be stored, those from `stays` on may be taken back.
#[derive(Clone, Debug)]
pub(super) struct Column {
    pub(super) sequence: usize,
    pub(super) tokens: Range<u32>,
    pub(super) stays: u32,
}

#[derive(Clone, Copy, Debug)]
struct Change {
    index: usize,
    before: i32,
    after: i32,
}

/// Pages of one group. A sequence of length n has pages for the blocks `first..⌈n/P⌉` and for no other.
#[derive(Clone, Debug)]
pub(super) struct Group {
    page_tokens: u32,
    window: Option<u32>,
    /// Tokens whose pages a sequence keeps, the newest included: window + T − 1.
    keep: u32,
    blocks: usize,
    /// `[blocks, sequences]`
    table: Vec<i32>,
    /// The first block of each sequence that has not been given back.
    first: Vec<u32>,
    /// How many table words name a page.
    references: Vec<u32>,
    pub(super) free: Vec<i32>,
    changed: Vec<usize>,
    is_changed: Vec<bool>,
    /// What the step under way has done to the table, so that it can be undone.
    journal: Vec<Change>,
}

impl Group {
    pub(super) fn new(config: &CacheConfig, &GroupConfig { window, pages }: &GroupConfig) -> Self {
        let entries = config.blocks() * config.sequences;
        Self {
            page_tokens: config.page_tokens,
            window,
            keep: window.map_or(u32::MAX, |w| w.saturating_add(config.step_tokens - 1)),
            blocks: config.blocks(),
            table: vec![NONE; entries],
            first: vec![0; config.sequences],
            references: vec![0; pages as usize],
            free: (0..pages as i32).rev().collect(),
            changed: Vec::new(),
            is_changed: vec![false; entries],
            journal: Vec::new(),
        }
    }

    pub(super) fn table(&self) -> &[i32] {
        &self.table
    }

    pub(super) fn free_pages(&self) -> u32 {
        self.free.len() as u32
    }

    pub(super) fn pages(&self) -> u32 {
        self.references.len() as u32
    }

    /// Whether evaluation of the sequence can go on at `position`: a token there sees the W − 1 before it. At least one is
    /// asked for, since its page may be the one to write to.
    pub(super) fn can_resume(&self, sequence: usize, position: u32) -> bool {
        let held_from = u64::from(self.first[sequence]) * u64::from(self.page_tokens);
        let reach = self.window.map_or(0, |w| u64::from(w - 1).max(1));
        held_from == 0 || position == 0 || u64::from(position) >= held_from + reach
    }

    /// Takes a page for every new cell. Pages that slide out are given back by all columns before any column takes one, so
    /// that a page that is copied from is not taken in the same step. `None` when the pages do not suffice: then
    /// [`Group::undo`] restores what was.
    pub(super) fn take(&mut self, columns: &[Column]) -> Option<()> {
        self.journal.clear();
        for column in columns {
            self.give_back_slid_out(column);
        }
        columns.iter().try_for_each(|column| self.take_column(column))
    }

    fn give_back_slid_out(&mut self, column: &Column) {
        for block in self.slide(column.sequence, column.stays) {
            self.journaled_set(self.index(column.sequence, block), NONE);
        }
    }

    /// The blocks that slide out of a sequence of `length` tokens. It has them no longer.
    fn slide(&mut self, sequence: usize, length: u32) -> Range<u32> {
        let kept_from = length.saturating_sub(self.keep) / self.page_tokens;
        let first = self.first[sequence];
        self.first[sequence] = first.max(kept_from);
        first..kept_from
    }

    fn take_column(&mut self, column: &Column) -> Option<()> {
        let Range { start, end } = column.tokens;
        if !start.is_multiple_of(self.page_tokens) {
            let index = self.index(column.sequence, start / self.page_tokens);
            if self.references[self.table[index] as usize] > 1 {
                self.take_page(index)?;
            }
        }
        let new_blocks = start.div_ceil(self.page_tokens)..end.div_ceil(self.page_tokens);
        new_blocks
            .into_iter()
            .try_for_each(|block| self.take_page(self.index(column.sequence, block)))
    }

    fn take_page(&mut self, index: usize) -> Option<()> {
        let page = *self.free.last()?;
        self.journaled_set(index, page);
        Some(())
    }

    fn journaled_set(&mut self, index: usize, after: i32) {
        self.journal.push(Change {
            index,
            before: self.table[index],
            after,
        });
        self.set(index, after);
    }

    /// Undoes what the last `take` did, in reverse, so that the free list too is as it was.
    pub(super) fn undo(&mut self) {
        while let Some(Change { index, before, after }) = self.journal.pop() {
            self.set(index, before);
            if after == NONE {
                let sequence = index / self.blocks;
                self.first[sequence] = self.first[sequence].min((index % self.blocks) as u32);
            }
        }
    }

    /// Writes the part of the step that belongs to this group.
    pub(super) fn describe(&mut self, group: usize, columns: &[Column], step: &mut Step) {
        let slots = &mut step.slots[group];
        for Column { sequence, tokens, .. } in columns {
            let row = &self.table[sequence * self.blocks..][..self.blocks];
            let (p, slot) = (self.page_tokens, |page: i32, entry: u32| {
                page * self.page_tokens as i32 + entry as i32
            });
            slots.extend(tokens.clone().map(|t| slot(row[(t / p) as usize], t % p)));
        }
        let copied = self
            .journal
            .iter()
            .filter(|change| change.before != NONE && change.after != NONE);
        step.copies.extend(copied.map(|c| PageCopy {
            group,
            from: c.before as u32,
            to: c.after as u32,
        }));
        for index in self.changed.drain(..) {
            self.is_changed[index] = false;
            let (sequence, block) = (index / self.blocks, index % self.blocks);
            step.words.push(TableWord {
                group,
                sequence,
                block,
                page: self.table[index],
            });
        }
    }

    /// Gives back every page past `length` tokens of a sequence that has `before` tokens.
    pub(super) fn truncate(&mut self, sequence: usize, before: u32, length: u32) {
        let dropped = length.div_ceil(self.page_tokens).max(self.first[sequence])..before.div_ceil(self.page_tokens);
        for block in dropped.chain(self.slide(sequence, length)) {
            self.set(self.index(sequence, block), NONE);
        }
        if length == 0 {
            self.first[sequence] = 0;
        }
    }

    /// Lets the empty sequence `to` share the pages of the first `length` tokens of `from`.
    pub(super) fn share(&mut self, from: usize, to: usize, length: u32) {
        let first = self.first[from];
        self.first[to] = if length == 0 { 0 } else { first };
        for block in first..length.div_ceil(self.page_tokens) {
            self.set(self.index(to, block), self.table[self.index(from, block)]);
        }
    }

    fn index(&self, sequence: usize, block: u32) -> usize {
        sequence * self.blocks + block as usize
    }

    /// The one place where a table word changes. A page comes off the free list with its first reference and goes back
    /// with its last; only the top of the list is ever taken or put back.
    fn set(&mut self, index: usize, page: i32) {
        let before = std::mem::replace(&mut self.table[index], page);
        if before != NONE {
            self.references[before as usize] -= 1;
            if self.references[before as usize] == 0 {
                self.free.push(before);
            }
        }
        if page != NONE {
            if self.references[page as usize] == 0 {
                let top = self.free.pop();
                debug_assert_eq!(top, Some(page), "a page is taken from the top of the free list");
            }
            self.references[page as usize] += 1;
        }
        if !std::mem::replace(&mut self.is_changed[index], true) {
            self.changed.push(index);
        }
    }
}

#[cfg(test)]
impl Group {
    /// Leaves what decides the future: the lists of changed words may differ in order.
    pub(super) fn forget_changes(&mut self) {
        self.changed.clear();
        self.is_changed.fill(false);
        self.journal.clear();
    }

    /// Panics unless every page is either free, once, or counted exactly as often as the table names it, and each
    /// sequence has pages for the blocks from its first to its last and for no other.
    pub(super) fn check(&self, lengths: &[u32]) {
        let mut named = vec![0; self.references.len()];
        self.table
            .iter()
            .filter(|&&page| page != NONE)
            .for_each(|&page| named[page as usize] += 1);
        assert_eq!(named, self.references);
        let mut free = self.free.clone();
        free.sort_unstable();
        let unnamed: Vec<i32> = (0..named.len())
            .filter(|&page| named[page] == 0)
            .map(|page| page as i32)
            .collect();
        assert_eq!(free, unnamed);
        for (sequence, &length) in lengths.iter().enumerate() {
            let held = self.first[sequence]..length.div_ceil(self.page_tokens);
            for block in 0..self.blocks as u32 {
                assert_eq!(self.table[self.index(sequence, block)] != NONE, held.contains(&block));
            }
        }
    }
}
