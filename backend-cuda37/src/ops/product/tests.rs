//! What is said of the kernels here.

use super::{super::mirror, *};

/// The types and widths that products of few columns have kernels for.
fn few() -> impl Iterator<Item = (Type, u32)> {
    let types = Type::ALL.into_iter().filter(|ty| *ty != Type::I32);
    types.flat_map(|ty| [1, FEW_AT_ONCE].map(|width| (ty, width)))
}

#[test]
fn grids_are_made_of_the_tiles_that_the_kernels_have() {
    let rows = |(ty, width)| {
        let spelled = super::super::spelled(ty);
        (
            format!("FewColumns<Block_{spelled}, {width}>::ROWS"),
            rows_of_group(ty, width).into(),
        )
    };
    let sizes = [
        ("FewColumns<Block_f32, 1>::LANES", FEW_LANES.into()),
        ("MANY_ROWS", MANY_ROWS.into()),
        ("MANY_COLUMNS", MANY_COLUMNS.into()),
        ("MANY_THREADS", MANY_THREADS.into()),
        ("sizeof(ExpertTile)", TILE_BYTES),
        ("sizeof(ProductArgs)", size_of::<ProductArgs>() as u64),
    ];
    let sizes = sizes.map(|(name, n)| (name.to_owned(), n));
    let all: Vec<(String, u64)> = few().map(rows).chain(sizes).collect();
    mirror::assert_same(&["product_few.cuh", "product_many.cuh"], &all);
}
