//! How a product of many columns is divided: columns are packed first, then each thread takes blocks of rows.

use std::{mem::MaybeUninit, ops::Range};

use super::{
    job::{Job, Part},
    kernel::{FEW_COLUMNS, MANY_ROWS, Weights},
    panel::{
        BLOCK_COLUMNS, BLOCK_ROWS, Columns, Panels, ROWS, SPARE, Sums,
        packing::{Packing, RECORD},
    },
    run::{Expert, add_row},
};
use crate::{
    ops::gate_by,
    program::{Context, Workspace},
};

/// Fewer columns of an expert do not pay for unpacking its weights.
const LEAST: usize = 8;
/// Values that a thread should have to pack before another one is asked to help.
const VALUES_A_THREAD: usize = 1 << 14;
/// Tiles of a block.
const EACH: usize = BLOCK_ROWS / ROWS;
/// Tiles of each thread that are taken one by one at the end, so that all end together.
const SINGLES: usize = 4;

/// Sums of a block and what may be written beyond them, twice: of gate and up.
type Scratch = [[MaybeUninit<Sums>; BLOCK_COLUMNS + SPARE]; 2];

impl Job<'_> {
    /// Computes the output of many columns, which were ordered.
    pub fn run_many(&self, panels: &Panels, context: &Context<'_>) {
        self.pack(panels, context);
        let tiles: usize = self.leading_parts().map(|part| self.tiles(part, ROWS)).sum();
        let threads = context.pool.threads();
        // A thread's share is of whole blocks, then of tiles that others can take over one by one.
        let share = tiles.div_ceil(threads);
        let blocks = share.saturating_sub(SINGLES) / EACH;
        let parts = share - blocks * (EACH - 1);
        context.pool.run(threads * parts, &|part| {
            let (thread, part) = (part / parts, part % parts);
            let (first, count) = match part.checked_sub(blocks) {
                None => (part * EACH, EACH),
                Some(single) => (blocks * EACH + single, 1),
            };
            let start = (share * thread + first).min(tiles);
            self.run_blocks(start..tiles.min(start + count), &context.workspace);
        });
    }

    /// Packs the columns in their order.
    fn pack(&self, panels: &Panels, context: &Context<'_>) {
        let columns = self.output.rows();
        let useful = (columns * self.x.dims()[0]).div_ceil(VALUES_A_THREAD);
        let parts = useful.min(2 * context.pool.threads()).min(columns);
        let workspace = &context.workspace;
        context.pool.run(parts, &|part| {
            for place in columns * part / parts..columns * (part + 1) / parts {
                let row = self.x_row(self.column(place, workspace));
                let x = self.x.row(self.x.row_index(row));
                for packing in [Packing::Blocks, Packing::Supers, Packing::Floats, Packing::Halves] {
                    if let Some(packed) = self.packed(packing, place, 1, workspace) {
                        // SAFETY: the column's records, aligned to 64, belong to this part alone, and the kernels were
                        // selected for this machine.
                        unsafe { panels.pack(packing, x, packed.start.cast_mut(), packed.chunk) };
                    }
                }
            }
        });
    }

    /// The columns at `count` places, if they are packed so.
    fn packed(&self, packing: Packing, place: usize, count: usize, workspace: &Workspace) -> Option<Columns> {
        let start = self.layout.packed[packing as usize]?;
        let (columns, records) = (self.output.rows(), packing.records(self.x.dims()[0]));
        let all: *mut u8 = workspace.part(start, (columns * records + SPARE) * RECORD);
        Some(Columns {
            start: all.wrapping_add(place * RECORD),
            chunk: columns * RECORD,
            count,
        })
    }

    /// Computes these tiles of rows for all columns.
    fn run_blocks(&self, tiles: Range<usize>, workspace: &Workspace) {
        let mut scratch: Scratch = [[const { MaybeUninit::uninit() }; BLOCK_COLUMNS + SPARE]; 2];
        self.for_groups(workspace, |expert, places| {
            for (part, rows) in self.rows(ROWS, tiles.clone()) {
                match expert {
                    Expert::Index(expert) if self.ids.is_none() || places.len() >= LEAST => {
                        for first in places.clone().step_by(BLOCK_COLUMNS) {
                            let places = first..places.end.min(first + BLOCK_COLUMNS);
                            self.run_block(part, expert, rows.clone(), places, workspace, &mut scratch);
                        }
                    }
                    _ => {
                        let mut scratch = [[[0.0; MANY_ROWS]; FEW_COLUMNS]; 2];
                        self.run_group(part, expert, rows, places.clone(), workspace, &mut scratch);
                    }
                }
            }
        });
    }

    /// Computes these rows of the columns at these places.
    fn run_block(
        &self,
        part: &Part<'_>,
        expert: usize,
        rows: Range<usize>,
        places: Range<usize>,
        workspace: &Workspace,
        [sums, other]: &mut Scratch,
    ) {
        self.multiply(part, expert, rows.clone(), places.clone(), workspace, sums);
        let gate = self.gate_and_up();
        if let Some((_, _, up)) = gate {
            self.multiply(up, expert, rows.clone(), places.clone(), workspace, other);
        }
        let first = part.first + rows.start;
        for (place, (sums, other)) in places.zip(sums.iter_mut().zip(other)) {
            let column = self.output.row_index(self.column(place, workspace));
            let values = written(sums, rows.len());
            if let Some(bias) = part.bias {
                add_row(self.kernels, values, bias, rows.start, [expert, 0, 0]);
            }
            if let Some((gating, _, up)) = gate {
                let ups = written(other, rows.len());
                if let Some(bias) = up.bias {
                    add_row(self.kernels, ups, bias, rows.start, [expert, 0, 0]);
                }
                gate_by(self.kernels, values, ups, gating);
            }
            if let Some(residual) = self.residual {
                add_row(self.kernels, values, residual, first, column);
            }
            let to = self.output.element_ptr(first, column).cast::<f32>();
            // SAFETY: the output is dense and aligned, has these rows, and no other thread writes them; what is read in
            // place was read above.
            unsafe { to.copy_from_nonoverlapping(values.as_ptr(), values.len()) };
        }
    }

    /// W·x.
    fn multiply(
        &self,
        part: &Part<'_>,
        expert: usize,
        rows: Range<usize>,
        places: Range<usize>,
        workspace: &Workspace,
        sums: &mut [MaybeUninit<Sums>; BLOCK_COLUMNS + SPARE],
    ) {
        let Some(kernel) = part.many else { return };
        let Some(columns) = self.packed(kernel.packing, places.start, places.len(), workspace) else {
            return;
        };
        let weights = Weights {
            start: part.weights.row_ptr([rows.start, expert, 0]),
            stride: part.weights.strides()[1],
            rows: rows.len(),
            values: part.weights.dims()[0],
        };
        // SAFETY: the kernel was selected for this machine; the rows lie in the weights; the columns are packed, with spare
        // records behind them, and there are sums enough.
        unsafe { (kernel.product)(&weights, &columns, sums.as_mut_ptr().cast()) };
    }
}

/// A column's sums with so many rows.
fn written(sums: &mut MaybeUninit<Sums>, rows: usize) -> &mut [f32] {
    debug_assert!(rows <= BLOCK_ROWS);
    // SAFETY: a product wrote as many, and f32 needs no more.
    unsafe { std::slice::from_raw_parts_mut(sums.as_mut_ptr().cast(), rows) }
}
