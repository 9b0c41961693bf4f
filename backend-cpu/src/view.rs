//! A tensor's memory during a run.
//!
//! # The rules that make views sound
//! A program checks, before it makes any view, that the whole of each tensor lies inside its binding, and that f32 and
//! i32 operands (but for weights) are aligned. An operation only reads its inputs; it writes through `row_mut` and
//! `element_mut`, each row from one thread; and an output shares no byte with an input unless the two are the same view,
//! in which case the operation has dropped what it read of a row before it asks for that row to write.

use std::ops::Range;

use backend_api::types::Type;

/// An f32 at any address: norm weights and biases come straight from a file's map.
#[repr(transparent)]
#[derive(Clone, Copy, Debug)]
pub struct PackedF32([u8; 4]);

/// A value that reads as f32: a plain or a packed one.
pub trait Real: Copy + Sync {
    /// The value.
    fn get(self) -> f32;
}

impl Real for f32 {
    #[inline(always)]
    fn get(self) -> f32 {
        self
    }
}

impl Real for PackedF32 {
    #[inline(always)]
    fn get(self) -> f32 {
        f32::from_le_bytes(self.0)
    }
}

/// A tensor of the running step: its address, type, dims (fastest first) and strides in bytes.
#[derive(Clone, Copy, Debug)]
pub struct View {
    start: *mut u8,
    ty: Type,
    dims: [usize; 4],
    strides: [usize; 4],
}

// SAFETY: a view is an address; the module's rules say who uses it how.
unsafe impl Send for View {}
// SAFETY: as above.
unsafe impl Sync for View {}

impl View {
    /// A view of nothing, which takes a place until a run begins.
    pub const EMPTY: View = View {
        start: std::ptr::null_mut(),
        ty: Type::F32,
        dims: [0; 4],
        strides: [0; 4],
    };

    /// A view at `start`.
    ///
    /// # Safety
    /// The module's rules hold as long as the view is used.
    pub unsafe fn new(start: *mut u8, ty: Type, dims: [usize; 4], strides: [usize; 4]) -> View {
        View {
            start,
            ty,
            dims,
            strides,
        }
    }

    /// The type of its elements or blocks.
    pub fn ty(&self) -> Type {
        self.ty
    }

    /// Values in each dimension in this step.
    pub fn dims(&self) -> [usize; 4] {
        self.dims
    }

    /// Bytes from one entry to the next in each dimension.
    pub fn strides(&self) -> [usize; 4] {
        self.strides
    }

    /// Rows: entries of all dimensions above 0.
    pub fn rows(&self) -> usize {
        self.dims[1] * self.dims[2] * self.dims[3]
    }

    /// Values in this step.
    pub fn values(&self) -> usize {
        self.dims[0] * self.rows()
    }

    /// Whether the values of a row lie side by side.
    pub fn is_dense(&self) -> bool {
        self.dims[0] <= self.ty.block_values() || self.strides[0] == self.ty.block_bytes()
    }

    /// Whether both start at the same address: an output that replaces its input.
    pub fn is_same(&self, other: &View) -> bool {
        self.start == other.start
    }

    /// The indices above dimension 0 of row number `row`.
    pub fn row_index(&self, row: usize) -> [usize; 3] {
        let [_, a, b, _] = self.dims;
        [row % a, row / a % b, row / a / b]
    }

    /// The address of row `i`.
    #[inline]
    pub fn row_ptr(&self, i: [usize; 3]) -> *mut u8 {
        self.element_ptr(0, i)
    }

    /// The address of element (of block) `block` of row `i`.
    #[inline]
    pub fn element_ptr(&self, block: usize, i: [usize; 3]) -> *mut u8 {
        assert!(
            i.iter().zip(&self.dims[1..]).all(|(i, d)| i < d),
            "row {i:?} of {:?}",
            self.dims
        );
        let [s0, s1, s2, s3] = self.strides;
        self.start.wrapping_add(block * s0 + i[0] * s1 + i[1] * s2 + i[2] * s3)
    }

    /// Row `i` as it lies in memory, dense.
    #[inline]
    pub fn bytes(&self, i: [usize; 3]) -> &[u8] {
        let bytes = self.dims[0].div_ceil(self.ty.block_values()) * self.ty.block_bytes();
        // SAFETY: the row lies inside the binding, and the module's rules keep it unwritten meanwhile.
        unsafe { std::slice::from_raw_parts(self.row_ptr(i), bytes) }
    }

    /// Row `i` of f32, dense and aligned.
    #[inline]
    pub fn row(&self, i: [usize; 3]) -> &[f32] {
        self.slice(i)
    }

    /// Row `i` of f32, dense, at any address.
    #[inline]
    pub fn packed_row(&self, i: [usize; 3]) -> &[PackedF32] {
        self.slice(i)
    }

    /// Entries `range` of row `i` of f32, dense, at any address.
    #[inline]
    pub fn packed_piece(&self, i: [usize; 3], range: Range<usize>) -> &[PackedF32] {
        assert!(self.ty == Type::F32 && range.start <= range.end && range.end <= self.dims[0]);
        // SAFETY: the entries lie inside the binding, and the module's rules keep them unwritten meanwhile.
        unsafe { std::slice::from_raw_parts(self.element_ptr(range.start, i).cast(), range.len()) }
    }

    /// The elements (or, as u8, the bytes) of `count` rows from row `i` on along dimension 1, and how many lie from one row
    /// to the next.
    pub fn rows_from<N: Plain>(&self, i: [usize; 3], count: usize) -> (&[N], usize) {
        let size = size_of::<N>();
        assert!(size == 1 || size == self.ty.block_bytes() && self.strides[1].is_multiple_of(size));
        let last = [i[0] + count.max(1) - 1, i[1], i[2]];
        assert!(self.row_ptr(last) >= self.row_ptr(i));
        let row = self.dims[0].div_ceil(self.ty.block_values()) * self.ty.block_bytes() / size;
        let step = self.strides[1] / size;
        let values = step * count.saturating_sub(1) + row;
        // SAFETY: from the first row's start to the last one's end; both lie inside the binding, dense and aligned, and
        // the module's rules keep them unwritten meanwhile.
        (
            unsafe { std::slice::from_raw_parts(self.row_ptr(i).cast(), values) },
            step,
        )
    }

    /// Row `i` of values of type `N`, dense.
    #[inline]
    fn slice<N>(&self, i: [usize; 3]) -> &[N] {
        assert_eq!(size_of::<N>(), self.ty.block_bytes());
        // SAFETY: the row has this many values inside the binding and is aligned, and the module's rules keep it
        // unwritten meanwhile.
        unsafe { std::slice::from_raw_parts(self.row_ptr(i).cast(), self.dims[0]) }
    }

    /// Row `i` of f32 or i32, dense and aligned, to write.
    ///
    /// # Safety
    /// No other reference to the row is used while this one lives.
    #[inline]
    #[allow(clippy::mut_from_ref)] // the view is an address, not the owner
    pub unsafe fn row_mut<N: Plain>(&self, i: [usize; 3]) -> &mut [N] {
        assert_eq!(size_of::<N>(), self.ty.block_bytes());
        // SAFETY: the row has this many values inside the binding and is aligned; the caller vouches for the rest.
        unsafe { std::slice::from_raw_parts_mut(self.row_ptr(i).cast(), self.dims[0]) }
    }

    /// Row `i` as it lies in memory, dense, to write.
    ///
    /// # Safety
    /// No other reference to the row is used while this one lives.
    #[inline]
    #[allow(clippy::mut_from_ref)] // the view is an address, not the owner
    pub unsafe fn bytes_mut(&self, i: [usize; 3]) -> &mut [u8] {
        let bytes = self.dims[0].div_ceil(self.ty.block_values()) * self.ty.block_bytes();
        // SAFETY: the row lies inside the binding; the caller vouches for the rest.
        unsafe { std::slice::from_raw_parts_mut(self.row_ptr(i), bytes) }
    }

    /// The f32 at `at` of row `i`, at any stride and address.
    #[inline]
    pub fn f32(&self, at: usize, i: [usize; 3]) -> f32 {
        self.load(at, i)
    }

    /// The i32 at `at` of row `i`, at any stride and address.
    #[inline]
    pub fn i32(&self, at: usize, i: [usize; 3]) -> i32 {
        self.load(at, i)
    }

    /// The value at `at` of row `i`; `N` is as large as the type's element.
    #[inline]
    pub fn load<N: Plain>(&self, at: usize, i: [usize; 3]) -> N {
        assert!(at < self.dims[0] && size_of::<N>() == self.ty.block_bytes());
        // SAFETY: the element lies inside the binding and has the size of `N`, every pattern of which is a value.
        unsafe { self.element_ptr(at, i).cast::<N>().read_unaligned() }
    }
}

/// Numbers for which every pattern of bits is a value.
pub trait Plain: Copy {}
impl Plain for f32 {}
impl Plain for i32 {}
impl Plain for u16 {}
impl Plain for u8 {}
impl<const N: usize> Plain for [u8; N] {}
