use super::*;
use crate::{graph::Role, types::Type};

#[test]
fn rows_scales_rows_by_ids_and_takes_row_0_for_ids_out_of_range() {
    let mut b = Bench::new(1, 1);
    let table = b.weight(&[2, 3], &[1., 2., 3., 4., 5., 6.]);
    let ids = b.ids(&[2, 2], &[2, -1, 3, 1]);
    let y = b.blank(&[2, 2, 2]);
    b.run(node(Operation::Rows, &[table, ids], y).with_f32(0, 2.0)).unwrap();
    assert_eq!(b.read(y), [10., 12., 2., 4., 2., 4., 6., 8.]);
}

#[test]
fn rows_of_a_symbolic_table_end_at_the_steps_tokens() {
    let mut b = Bench::new(3, 2);
    let table = b.values(&[1, 3], &[7., 8., 9.]);
    b.tokens(&[(table, 1)]);
    let ids = b.ids(&[2], &[1, 2]);
    let y = b.blank(&[1, 2]);
    b.step(node(Operation::Rows, &[table, ids], y).with_f32(0, 1.0), 2, 2)
        .unwrap();
    assert_eq!(b.read(y), [8., 7.]);
}

#[test]
fn rows_decodes_blocks_and_reads_f32_through_any_stride() {
    let mut b = Bench::new(1, 1);
    let mut bytes = vec![0u8; 68];
    (bytes[34], bytes[35], bytes[36], bytes[67]) = (0, 0x3c, 5, 0xFE);
    let table = b.bytes(Role::Weight, Type::Q8_0, &[32, 2], &bytes);
    let ids = b.ids(&[1], &[1]);
    let y = b.blank(&[32, 1]);
    b.run(node(Operation::Rows, &[table, ids], y).with_f32(0, 1.0)).unwrap();
    assert_eq!((b.read(y)[0], b.read(y)[31]), (5., -2.));

    let whole = b.weight(&[2, 2], &[1., 2., 3., 4.]);
    let transposed = b.view(whole, |t| t.strides.swap(0, 1));
    let y = b.blank(&[2, 1]);
    b.run(node(Operation::Rows, &[transposed, ids], y).with_f32(0, 1.0))
        .unwrap();
    assert_eq!(b.read(y), [2., 4.]);
}

#[test]
fn product_sums_over_the_fastest_dimension_into_a_view() {
    let mut b = Bench::new(2, 1);
    let x = b.values(&[2, 2], &[1., 10., 2., 20.]);
    let w = b.weight(&[2, 3], &[1., 0., 0., 1., 1., 1.]);
    let fused = b.blank(&[5, 2]);
    let y = b.slice(fused, 0, 1, 3);
    b.run(node(Operation::Product, &[x, w], y)).unwrap();
    assert_eq!(b.read(y), [1., 10., 11., 2., 20., 22.]);
}

#[test]
fn product_reads_every_second_row_of_a_fused_weight() {
    let mut b = Bench::new(1, 1);
    let x = b.values(&[1, 1], &[2.]);
    let w = b.weight(&[1, 4], &[1., 2., 3., 4.]);
    let odd = b.view(w, |t| {
        (t.dims[1], t.strides[1], t.offset) = (2, 8, t.offset + 4);
    });
    let y = b.blank(&[2, 1]);
    b.run(node(Operation::Product, &[x, odd], y)).unwrap();
    assert_eq!(b.read(y), [4., 8.]);
}

#[test]
fn expert_product_gives_zeros_for_ids_out_of_range() {
    let mut b = Bench::new(2, 1);
    let x = b.values(&[1, 1, 2], &[1., 3.]);
    let w = b.weight(&[1, 2, 2], &[1., 2., 10., 20.]);
    let ids = b.ids(&[2, 2], &[1, -1, 2, 0]);
    let y = b.blank(&[2, 2, 2]);
    b.run(node(Operation::ExpertProduct, &[x, w, ids], y)).unwrap();
    assert_eq!(b.read(y), [10., 20., 0., 0., 0., 0., 3., 6.]);
}

#[test]
fn expert_product_takes_a_column_for_each_choice_where_x_has_them() {
    let mut b = Bench::new(1, 1);
    let x = b.values(&[1, 2, 1], &[1., 3.]);
    let w = b.weight(&[1, 1, 2], &[5., 7.]);
    let ids = b.ids(&[2, 1], &[1, 0]);
    let y = b.blank(&[1, 2, 1]);
    b.run(node(Operation::ExpertProduct, &[x, w, ids], y)).unwrap();
    assert_eq!(b.read(y), [7., 15.]);
}
