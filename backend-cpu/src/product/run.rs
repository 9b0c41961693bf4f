//! How a product is divided: columns are quantized first, then each thread takes tiles of rows.

use std::ops::Range;

use super::{
    job::{Job, Part},
    kernel::{FEW_COLUMNS, Kernel, MANY_ROWS, PANEL_COLUMNS, PANEL_ROWS, TILE_COLUMNS, TILE_ROWS, Takes, Weights},
};
use crate::{
    ops::gate_by,
    program::{Context, Workspace},
};

/// Values that a thread should have to quantize before another one is asked to help.
const VALUES_A_THREAD: usize = 1 << 14;
/// Multiplications that make it worth to give a part of the rows to another thread.
const PRODUCTS_A_PART: usize = 1 << 17;
/// Parts for each thread at most, so that all end together.
const PARTS_A_THREAD: usize = 16;

/// Fewer columns of an expert do not pay for a panel.
const LEAST_IN_PANEL: usize = 8;

/// Columns that go through the kernels together.
struct Columns<const N: usize> {
    count: usize,
    /// Whether they go through panels.
    panel: bool,
    /// As f32.
    plain: [*const u8; N],
    /// Quantized, by [`Takes::QUANTIZED`].
    quantized: [[*const u8; N]; Takes::QUANTIZED.len()],
    /// Where their results go among the output's rows.
    places: [[usize; 3]; N],
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
        let tiles: usize = self.leading_parts().map(|part| self.tiles(part)).sum();
        let values: usize = self.parts().map(|p| p.rows() * self.x.dims()[0]).sum();
        let useful = (values * self.output.rows()).div_ceil(PRODUCTS_A_PART);
        let parts = useful.min(PARTS_A_THREAD * context.pool.threads()).min(tiles).max(1);
        context.pool.run(parts, &|part| {
            self.run_tiles(tiles * part / parts..tiles * (part + 1) / parts, &context.workspace);
        });
    }

    /// Quantizes x where a kernel asks for it.
    fn quantize(&self, context: &Context<'_>) {
        let (columns, quantized) = (self.x.rows(), self.layout.quantized);
        if quantized.iter().all(|(bytes, _)| *bytes == 0) {
            return;
        }
        let useful = self.x.values().div_ceil(VALUES_A_THREAD);
        let parts = useful.min(context.pool.threads()).min(columns);
        context.pool.run(parts, &|part| {
            for i in columns * part / parts..columns * (part + 1) / parts {
                let x = self.x.row(self.x.row_index(i));
                for (kind, &(bytes, start)) in quantized.iter().enumerate().filter(|(_, (bytes, _))| *bytes > 0) {
                    let to = context.workspace.part::<u8>(start + bytes * i, bytes);
                    // SAFETY: the column's bytes, a multiple of 64 from an aligned start, belong to this part alone, and
                    // the kernels were selected for this machine.
                    unsafe { self.selected.quantize(kind, x, to) };
                }
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
        if self.panels {
            self.run_groups::<PANEL_ROWS, PANEL_COLUMNS>(tiles, workspace);
        } else if self.output.rows() <= FEW_COLUMNS {
            self.run_groups::<MANY_ROWS, FEW_COLUMNS>(tiles, workspace);
        } else {
            self.run_groups::<TILE_ROWS, TILE_COLUMNS>(tiles, workspace);
        }
    }

    /// The same in tiles of up to `R` rows and `N` columns.
    fn run_groups<const R: usize, const N: usize>(&self, tiles: Range<usize>, workspace: &Workspace) {
        let mut scratch = [[[0.0; R]; N]; 2];
        if self.ids.is_none() {
            let all = self.output.rows();
            return self.run_group::<R, N>(Expert::Index(0), all, |i| i, tiles, workspace, &mut scratch);
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
            let column = |i: usize| group[i] as usize;
            self.run_group::<R, N>(index, group.len(), column, tiles.clone(), workspace, &mut scratch);
        }
    }

    /// Computes these tiles of rows for `count` columns that share weights.
    fn run_group<const R: usize, const N: usize>(
        &self,
        expert: Expert,
        count: usize,
        column: impl Fn(usize) -> usize,
        tiles: Range<usize>,
        workspace: &Workspace,
        scratch: &mut [[[f32; R]; N]; 2],
    ) {
        for first in (0..count).step_by(N) {
            let last = count.min(first + N);
            let mut columns = self.columns::<N>((first..last).map(&column), workspace);
            columns.panel = self.panels && (self.ids.is_none() || columns.count >= LEAST_IN_PANEL);
            let mut before = 0;
            for part in self.leading_parts() {
                let own = tiles.start.max(before)..tiles.end.min(before + self.tiles(part));
                if !own.is_empty() {
                    let rows = |tile: usize| part.rows().min((tile - before) * self.tile_rows());
                    for start in (rows(own.start)..rows(own.end)).step_by(R) {
                        let rows = start..rows(own.end).min(start + R);
                        self.run_tile(part, expert, rows, &columns, scratch);
                    }
                }
                before += self.tiles(part);
            }
        }
    }

    fn columns<const N: usize>(&self, numbers: impl Iterator<Item = usize>, workspace: &Workspace) -> Columns<N> {
        let mut columns = Columns {
            count: 0,
            panel: false,
            plain: [std::ptr::null(); N],
            quantized: [[std::ptr::null(); N]; Takes::QUANTIZED.len()],
            places: [[0; 3]; N],
        };
        // Experts may share one row of x a token.
        let shared = self.output.rows() / self.x.rows();
        for number in numbers {
            let (i, row) = (columns.count, number / shared);
            columns.plain[i] = self.x.row_ptr(self.x.row_index(row));
            for (pointers, &(bytes, start)) in columns.quantized.iter_mut().zip(&self.layout.quantized) {
                if bytes > 0 {
                    pointers[i] = workspace.part(start + bytes * row, bytes);
                }
            }
            columns.places[i] = self.output.row_index(number);
            columns.count += 1;
        }
        columns
    }

    fn run_tile<const R: usize, const N: usize>(
        &self,
        part: &Part<'_>,
        expert: Expert,
        rows: Range<usize>,
        columns: &Columns<N>,
        [tile, other]: &mut [[[f32; R]; N]; 2],
    ) {
        multiply(part, expert, rows.clone(), columns, tile);
        if let Some((gating, _, up)) = self.gate_and_up() {
            multiply(up, expert, rows.clone(), columns, other);
            let [gates, ups] = [&mut *tile, other].map(|tile| tile[..columns.count].as_flattened_mut());
            gate_by(self.kernels, gates, ups, gating);
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
fn multiply<const R: usize, const N: usize>(
    part: &Part<'_>,
    expert: Expert,
    rows: Range<usize>,
    columns: &Columns<N>,
    tile: &mut [[f32; R]; N],
) {
    let index = match expert {
        Expert::Index(index) => {
            let kernel = part.panel.filter(|_| columns.panel).unwrap_or(part.kernel);
            call(&kernel, part, index, rows.clone(), columns, tile);
            index
        }
        Expert::None => {
            tile[..columns.count].fill([0.0; R]);
            0
        }
    };
    let Some(bias) = part.bias else { return };
    for (i, row) in rows.enumerate() {
        let bias = bias.f32(row, [index, 0, 0]);
        tile[..columns.count].iter_mut().for_each(|values| values[i] += bias);
    }
}

/// W·x of a tile, as many rows at a time as the kernel takes.
fn call<const R: usize, const N: usize>(
    kernel: &Kernel,
    part: &Part<'_>,
    index: usize,
    rows: Range<usize>,
    columns: &Columns<N>,
    tile: &mut [[f32; R]; N],
) {
    let pointers = match kernel.takes {
        Takes::Plain => &columns.plain,
        quantized => &columns.quantized[quantized as usize],
    };
    debug_assert!(pointers[..columns.count].iter().all(|column| !column.is_null()));
    let tile = tile[..columns.count].as_flattened_mut();
    for first in rows.clone().step_by(kernel.rows) {
        let weights = Weights {
            start: part.weights.row_ptr([first, index, 0]),
            stride: part.weights.strides()[1],
            rows: kernel.rows.min(rows.end - first),
            values: part.weights.dims()[0],
        };
        let tile = &mut tile[first - rows.start..];
        // SAFETY: the kernel was selected for this machine; the rows lie in the weights, and the columns, f32 or quantized
        // as the kernel takes them, have K values.
        unsafe { (kernel.product)(&weights, &pointers[..columns.count], tile, R) };
    }
}
