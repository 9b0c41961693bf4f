//! How a product is divided: columns are quantized first, then each thread takes tiles of rows.

use std::ops::Range;

use super::{
    job::{Job, Part},
    kernel::{FEW_COLUMNS, Kernel, MANY_ROWS, TILE_COLUMNS, TILE_ROWS, Takes, Weights},
};
use crate::{
    kernel_set::Kernels,
    lanes::kernel,
    ops::gate_by,
    program::{Context, Workspace},
    view::{PackedF32, Real, View},
};

/// Values that a thread should have to quantize before another one is asked to help.
const VALUES_A_THREAD: usize = 1 << 14;
/// Bytes of weights, once for each column, that are worth a claim: as many as take a few microseconds.
const BYTES_A_CLAIM: usize = 1 << 17;

/// Columns that go through the kernels together.
struct Columns<const N: usize> {
    count: usize,
    /// As f32.
    plain: [*const u8; N],
    /// Quantized, by [`Takes::QUANTIZED`].
    quantized: [[*const u8; N]; Takes::QUANTIZED.len()],
    /// Where their results go among the output's rows.
    places: [[usize; 3]; N],
}

/// Whose weights a group of columns takes.
#[derive(Clone, Copy)]
pub(super) enum Expert {
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
        if let Some(panels) = self.panels {
            return self.run_many(&panels, context);
        }
        let tiles: usize = self.leading_parts().map(|part| self.tiles(part, TILE_ROWS)).sum();
        let mut groups = 0;
        self.for_groups(&context.workspace, |_, _| groups += 1);
        let all = tiles * groups;
        let bytes: usize = self.parts().map(|p| p.rows() * p.weights.strides()[1]).sum();
        let least = (BYTES_A_CLAIM * all).div_ceil((bytes * self.output.rows()).max(1));
        // an expert has no more columns than there are tokens
        let tokens = self.output.rows() / self.ids.map_or(1, |ids| ids.dims()[0].max(1));
        context.pool.run_ranges(all, least, &|own| match tokens {
            ..=FEW_COLUMNS => self.run_tiles::<MANY_ROWS, FEW_COLUMNS>(tiles, own, &context.workspace),
            _ => self.run_tiles::<TILE_ROWS, TILE_COLUMNS>(tiles, own, &context.workspace),
        });
    }

    /// Computes these of all groups' tiles of [`TILE_ROWS`] rows, of which each group has `each`, up to `R` rows and `N`
    /// columns at a time. One expert's come after another's, so that a thread reads what lies side by side.
    fn run_tiles<const R: usize, const N: usize>(&self, each: usize, tiles: Range<usize>, workspace: &Workspace) {
        let mut scratch = [[[0.0; R]; N]; 2];
        let mut before = 0;
        self.for_groups(workspace, |expert, places| {
            let own = |tile: usize| tile.saturating_sub(before).min(each);
            for (part, rows) in self.rows(TILE_ROWS, own(tiles.start)..own(tiles.end)) {
                self.run_group(part, expert, rows, places.clone(), workspace, &mut scratch);
            }
            before += each;
        });
    }

    /// The rows of tiles of `each` rows, by part.
    pub fn rows(&self, each: usize, tiles: Range<usize>) -> impl Iterator<Item = (&Part<'_>, Range<usize>)> {
        let mut before = 0;
        self.leading_parts().filter_map(move |part| {
            let first = before;
            before += self.tiles(part, each);
            let own = tiles.start.max(first)..tiles.end.min(before);
            let rows = |tile: usize| part.rows().min((tile - first) * each);
            (!own.is_empty()).then(|| (part, rows(own.start)..rows(own.end)))
        })
    }

    /// Calls `work` with the places of the columns that share weights: an expert's in the order by expert, or all.
    pub fn for_groups(&self, workspace: &Workspace, mut work: impl FnMut(Expert, Range<usize>)) {
        if self.ids.is_none() {
            return work(Expert::Index(0), 0..self.output.rows());
        }
        // SAFETY: they were written before the threads began, and only read since.
        let starts = unsafe { &*self.starts_in(workspace) };
        for (expert, bounds) in starts.windows(2).enumerate() {
            let places = bounds[0] as usize..bounds[1] as usize;
            let expert = if expert + 2 == starts.len() {
                Expert::None
            } else {
                Expert::Index(expert)
            };
            if !places.is_empty() {
                work(expert, places);
            }
        }
    }

    /// The column at a place.
    pub fn column(&self, place: usize, workspace: &Workspace) -> usize {
        if self.ids.is_none() {
            return place;
        }
        // SAFETY: as above.
        unsafe { (&(*self.order_in(workspace)))[place] as usize }
    }

    /// The values of x that a column of the output takes: experts may share one row of x a token.
    pub fn x_row(&self, column: usize) -> usize {
        column / (self.output.rows() / self.x.rows())
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

    /// Computes these rows of the columns at these places, which share weights.
    pub fn run_group<const R: usize, const N: usize>(
        &self,
        part: &Part<'_>,
        expert: Expert,
        rows: Range<usize>,
        places: Range<usize>,
        workspace: &Workspace,
        scratch: &mut [[[f32; R]; N]; 2],
    ) {
        for first in places.clone().step_by(N) {
            let columns = self.columns::<N>(first..places.end.min(first + N), workspace);
            for start in rows.clone().step_by(R) {
                self.run_tile(part, expert, start..rows.end.min(start + R), &columns, scratch);
            }
        }
    }

    fn columns<const N: usize>(&self, places: Range<usize>, workspace: &Workspace) -> Columns<N> {
        let mut columns = Columns {
            count: 0,
            plain: [std::ptr::null(); N],
            quantized: [[std::ptr::null(); N]; Takes::QUANTIZED.len()],
            places: [[0; 3]; N],
        };
        for place in places {
            let number = self.column(place, workspace);
            let (i, row) = (columns.count, self.x_row(number));
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
        self.multiply_few(part, expert, rows.clone(), columns, tile);
        if let Some((gating, _, up)) = self.gate_and_up() {
            self.multiply_few(up, expert, rows.clone(), columns, other);
            let [gates, ups] = [&mut *tile, other].map(|tile| tile[..columns.count].as_flattened_mut());
            gate_by(self.kernels, gates, ups, gating);
        }
        let first = part.first + rows.start;
        for (values, place) in tile.iter_mut().zip(columns.places).take(columns.count) {
            let values = &mut values[..rows.len()];
            if let Some(residual) = self.residual {
                add_row(self.kernels, values, residual, first, place);
            }
            let to = self.output.element_ptr(first, place).cast::<f32>();
            // SAFETY: the output is dense and aligned, has these rows, and no other thread writes them; what is read in
            // place was read above.
            unsafe { to.copy_from_nonoverlapping(values.as_ptr(), values.len()) };
        }
    }

    /// W·x + b of a tile.
    fn multiply_few<const R: usize, const N: usize>(
        &self,
        part: &Part<'_>,
        expert: Expert,
        rows: Range<usize>,
        columns: &Columns<N>,
        tile: &mut [[f32; R]; N],
    ) {
        let index = match expert {
            Expert::Index(index) => {
                call(&part.kernel, part, index, rows.clone(), columns, tile);
                index
            }
            Expert::None => {
                tile[..columns.count].fill([0.0; R]);
                0
            }
        };
        let Some(bias) = part.bias else { return };
        for values in &mut tile[..columns.count] {
            add_row(self.kernels, &mut values[..rows.len()], bias, rows.start, [index, 0, 0]);
        }
    }
}

kernel! {
    fn add(y: &mut [f32], x: &[PackedF32]) {
        y.iter_mut().zip(x).for_each(|(y, x)| *y += x.get());
    }
}

/// y += x, from entry `first` of a row of `x` on.
pub(super) fn add_row(kernels: Kernels, y: &mut [f32], x: &View, first: usize, row: [usize; 3]) {
    if x.is_dense() {
        add(kernels, y, x.packed_piece(row, first..first + y.len()));
    } else {
        (first..).zip(y).for_each(|(i, y)| *y += x.f32(i, row));
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
