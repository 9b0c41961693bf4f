//! What a step of the model needs to know about the cache.

/// A word of a block table that changed since the step before: `table[block, sequence]` of `group` is now `page`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TableWord {
    /// The cache group.
    pub group: usize,
    /// The sequence, the slow dimension of the table.
    pub sequence: usize,
    /// The block of the sequence, the fast dimension of the table.
    pub block: usize,
    /// The page that now holds the block, or −1.
    pub page: i32,
}

/// A page whose contents are to be copied in every pool of the group before the step runs.
///
/// No page is both read and written by the copies of one step, so they may be done in any order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PageCopy {
    /// The cache group.
    pub group: usize,
    /// The page to read.
    pub from: u32,
    /// The page to write.
    pub to: u32,
}

/// The step inputs that the cache decides. Its buffers are used again from step to step, so that a step allocates
/// nothing once they have grown to the largest step.
#[derive(Clone, Debug, Default)]
pub struct Step {
    /// For each group the cell of each column, `[T]`: page · page_tokens + entry.
    pub slots: Vec<Vec<i32>>,
    /// The position of each column in its sequence, `[T]`.
    pub positions: Vec<i32>,
    /// The first column of each sequence, and at the end the number of columns: `[S + 1]`.
    pub starts: Vec<i32>,
    /// The table words to write before the step runs, each at most once.
    pub words: Vec<TableWord>,
    /// The pages to copy before the step runs.
    pub copies: Vec<PageCopy>,
}

impl Step {
    pub(super) fn clear(&mut self, groups: usize) {
        self.slots.resize_with(groups, Vec::new);
        self.slots.iter_mut().for_each(Vec::clear);
        self.positions.clear();
        self.starts.clear();
        self.words.clear();
        self.copies.clear();
    }
}
