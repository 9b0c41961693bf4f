//! How a product is divided: columns are quantized first, then each thread takes tiles of rows.

use std::ops::Range;

use super::{
    job::{Job, Part},
    kernel::{TILE_COLUMNS, TILE_ROWS, Tile, Weights},
    select::Way,
};
use crate::program::{Context, Workspace};

/// Values that a thread should have to quantize before another one is asked to help.
const VALUES_A_THREAD: usize = 1 << 14;
/// Multiplications that make it worth to give a part of the rows to another thread.
const PRODUCTS_A_PART: usize = 1 << 17;
/// Parts for each thread, so that a slow one does not hold up the others.
const PARTS_A_THREAD: usize = 4;

/// Columns that go through the kernels together.
struct Columns {
    count: usize,
    plain: [*const u8; TILE_COLUMNS],
    quantized: [*const u8; TILE_COLUMNS],
    /// Where their results go among the output's rows.
    places: [[usize; 3]; TILE_COLUMNS],
}

/// Whose weights a group of columns takes.
#[derive(Clone, Copy)]
enum Expert {
    Index(usize),
    /// An id out of range: the product is zeros, and the bias, as in `rows`, the first one.
    None,
}

impl Job<'_> {
    /// Computes the output.
    pub fn run(&self, context: &Context<'_>) {
        if self.x.dims()[0] > 0 {
            self.quantize(context);
        }
        self.order(&context.workspace);
        let tiles: usize = self.leading_parts().map(Part::tiles).sum();
        let values: usize = self.parts().map(|p| p.rows() * self.x.dims()[0]).sum();
        let useful = (values * self.output.rows()).div_ceil(PRODUCTS_A_PART);
        let parts = useful.min(PARTS_A_THREAD * context.pool.threads()).min(tiles).max(1);
        context.pool.run(parts, &|part| {
            self.run_tiles(tiles * part / parts..tiles * (part + 1) / parts, &context.workspace);
        });
    }

    /// Quantizes x where a kernel asks for it.
    fn quantize(&self, context: &Context<'_>) {
        let (columns, column) = (self.x.rows(), self.layout.column);
        if column == 0 {
            return;
        }
        let useful = self.x.values().div_ceil(VALUES_A_THREAD);
        let parts = useful.min(context.pool.threads()).min(columns);
        context.pool.run(parts, &|part| {
            for i in columns * part / parts..columns * (part + 1) / parts {
                let to = context.workspace.part::<u8>(column * i, column);
                // SAFETY: the column's bytes, a multiple of 64 from an aligned start, belong to this part alone, and
                // the kernels were selected for this machine.
                unsafe { self.selected.quantize(self.x.row(self.x.row_index(i)), to) };
            }
        });
    }

    /// Orders the columns by expert.
    fn order(&self, workspace: &Workspace) {
        let Some(ids) = self.ids else { return };
        // SAFETY: this thread alone uses the workspace now.
        let (order, starts) = unsafe { (&mut *self.order_in(workspace), &mut *self.starts_in(workspace)) };
        let none = starts.len() - 2;
        let k = ids.dims()[0];
        let expert = |column: usize| {
            let id = ids.i32(column % k, [column / k, 0, 0]);
            usize::try_from(id).map_or(none, |id| id.min(none))
        };
        starts.fill(0);
        (0..order.len()).for_each(|column| starts[expert(column) + 1] += 1);
        for i in 1..starts.len() {
            starts[i] += starts[i - 1];
        }
        for column in (0..order.len()).rev() {
            // Ends become starts as they are filled from behind.
            let end = &mut starts[expert(column) + 1];
            *end -= 1;
            order[*end as usize] = column as u32;
        }
        starts.copy_within(1.., 0);
        starts[none + 1] = order.len() as u32;
    }

    fn order_in(&self, workspace: &Workspace) -> *mut [u32] {
        let columns = self.output.rows();
        std::ptr::slice_from_raw_parts_mut(workspace.part(self.layout.order, columns), columns)
    }

    fn starts_in(&self, workspace: &Workspace) -> *mut [u32] {
        let count = self.parts().next().map_or(0, |p| p.weights.dims()[2]) + 2;
        std::ptr::slice_from_raw_parts_mut(workspace.part(self.layout.starts, count), count)
    }

    /// Computes these tiles of rows for all columns.
    fn run_tiles(&self, tiles: Range<usize>, workspace: &Workspace) {
        if self.ids.is_none() {
            return self.run_group(Expert::Index(0), self.output.rows(), |i| i, tiles, workspace);
        }
        // SAFETY: they were written before the threads began, and only read since.
        let (order, starts) = unsafe { (&*self.order_in(workspace), &*self.starts_in(workspace)) };
        for (expert, bounds) in starts.windows(2).enumerate() {
            let group = &order[bounds[0] as usize..bounds[1] as usize];
            let index = if expert + 2 == starts.len() {
                Expert::None
            } else {
                Expert::Index(expert)
            };
            self.run_group(index, group.len(), |i| group[i] as usize, tiles.clone(), workspace);
        }
    }

    /// Computes these tiles of rows for `count` columns that share weights.
    fn run_group(
        &self,
        expert: Expert,
        count: usize,
        column: impl Fn(usize) -> usize,
        tiles: Range<usize>,
        workspace: &Workspace,
    ) {
        let mut scratch = [[[0.0; TILE_ROWS]; TILE_COLUMNS]; 2];
        for first in (0..count).step_by(TILE_COLUMNS) {
            let last = count.min(first + TILE_COLUMNS);
            let columns = self.columns((first..last).map(&column), workspace);
            let mut before = 0;
            for part in self.leading_parts() {
                let own = tiles.start.max(before)..tiles.end.min(before + part.tiles());
                for tile in own {
                    let start = (tile - before) * TILE_ROWS;
                    let rows = start..part.rows().min(start + TILE_ROWS);
                    self.run_tile(part, expert, rows, &columns, &mut scratch);
                }
                before += part.tiles();
            }
        }
    }

    fn columns(&self, numbers: impl Iterator<Item = usize>, workspace: &Workspace) -> Columns {
        let mut columns = Columns {
            count: 0,
            plain: [std::ptr::null(); TILE_COLUMNS],
            quantized: [std::ptr::null(); TILE_COLUMNS],
            places: [[0; 3]; TILE_COLUMNS],
        };
        // Experts may share one row of x a token.
        let shared = self.output.rows() / self.x.rows();
        for number in numbers {
            let (i, row) = (columns.count, number / shared);
            columns.plain[i] = self.x.row_ptr(self.x.row_index(row));
            if self.layout.column > 0 {
                columns.quantized[i] = workspace.part(self.layout.column * row, self.layout.column);
            }
            columns.places[i] = self.output.row_index(number);
            columns.count += 1;
        }
        columns
    }

    fn run_tile(
        &self,
        part: &Part<'_>,
        expert: Expert,
        rows: Range<usize>,
        columns: &Columns,
        [tile, other]: &mut [Tile; 2],
    ) {
        multiply(part, expert, rows.clone(), columns, tile);
        if let Some((gating, _, up)) = self.gate_and_up() {
            multiply(up, expert, rows.clone(), columns, other);
            for (gates, ups) in tile[..columns.count].iter_mut().zip(other) {
                gating.apply(&mut gates[..rows.len()], ups);
            }
        }
        let first = part.first + rows.start;
        for (values, place) in tile.iter_mut().zip(columns.places).take(columns.count) {
            let values = &mut values[..rows.len()];
            if let Some(residual) = self.residual {
                for (i, value) in values.iter_mut().enumerate() {
                    *value += residual.f32(first + i, place);
                }
            }
            let to = self.output.element_ptr(first, place).cast::<f32>();
            // SAFETY: the output is dense and aligned, has these rows, and no other thread writes them; what is read in
            // place was read above.
            unsafe { to.copy_from_nonoverlapping(values.as_ptr(), values.len()) };
        }
    }
}

/// W·x + b of a tile.
fn multiply(part: &Part<'_>, expert: Expert, rows: Range<usize>, columns: &Columns, tile: &mut Tile) {
    let index = match expert {
        Expert::Index(index) => {
            let weights = Weights {
                start: part.weights.row_ptr([rows.start, index, 0]),
                stride: part.weights.strides()[1],
                rows: rows.len(),
                values: part.weights.dims()[0],
            };
            let pointers = match part.way {
                Way::Exact => &columns.plain,
                Way::Integer => &columns.quantized,
            };
            // SAFETY: the kernel was selected for this machine; the rows lie in the weights, and the columns, f32 or
            // quantized as the kernel takes them, have K values.
            unsafe { (part.kernel)(&weights, &pointers[..columns.count], tile) };
            index
        }
        Expert::None => {
            *tile = [[0.0; TILE_ROWS]; TILE_COLUMNS];
            0
        }
    };
    let Some(bias) = part.bias else { return };
    for (i, row) in rows.enumerate() {
        let bias = bias.f32(row, [index, 0, 0]);
        tile[..columns.count].iter_mut().for_each(|values| values[i] += bias);
    }
}
