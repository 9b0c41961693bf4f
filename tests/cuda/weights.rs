//! Weights of block types on a device: arranged when they are uploaded, and read within what is bound.

use std::thread;

use backend_api::{
    BackendError,
    abi_stable::std_types::RSlice,
    contract::{Binding, BufferId},
    draft::Draft,
    graph::{Node, Role, Step, Symbol, Tensor},
    operations::Operation,
    types::Type,
};

use crate::device::{Opened, opened};

/// Values of a row: 90 blocks of Q4_0, whose 1620 bytes are 1632 on the device.
const K: u32 = 2880;
const FILE: usize = 1620;
const PITCH: usize = 1632;

fn weight(rows: u32) -> Tensor {
    Tensor::contiguous(Type::Q4_0, [K, rows, 1, 1], 0, 0).unwrap()
}

/// Bytes of rows in a file; no two rows are the same.
fn file(rows: u32) -> Vec<u8> {
    let byte = |i: usize| (i.wrapping_mul(0x9E37_79B9) >> 13) as u8;
    (0..rows as usize * FILE).map(byte).collect()
}

/// Codes, scales, zeros.
fn arranged(file: &[u8]) -> Vec<u8> {
    let row = |row: &[u8]| {
        let blocks = row.chunks(18);
        let codes = blocks.clone().flat_map(|block| block[2..].to_vec());
        let mut bytes: Vec<u8> = codes.chain(blocks.flat_map(|block| block[..2].to_vec())).collect();
        bytes.resize(PITCH, 0);
        bytes
    };
    file.chunks(FILE).flat_map(row).collect()
}

fn upload(on: &Opened, to: BufferId, offset: u64, weight: &Tensor, data: &[u8]) -> Result<(), BackendError> {
    let data = RSlice::from_slice(data);
    on.device.upload(on.queue, to, offset, weight, data).into_result()
}

#[track_caller]
fn refused<T>(result: Result<T, BackendError>, message: &str) {
    assert_eq!(result.err().map(|e| e.message.to_string()).as_deref(), Some(message));
}

#[test]
fn rows_are_arranged_while_others_are_uploaded_too() {
    let Some(devices) = opened() else { return };
    let on = &devices[0];
    // more than is arranged at a time, and no multiple of it
    const ROWS: u32 = 6001;
    let (file, weight) = (file(ROWS), weight(ROWS));
    let expected = arranged(&file);
    assert_eq!(on.weight_bytes(&weight), expected.len() as u64);
    let places = [0, 256, 4096].map(|lead: usize| {
        let buffer = on.hold((lead + expected.len() + 1) as u64);
        on.write(buffer, &vec![0xEE; lead + expected.len() + 1]);
        (lead, buffer, on.device.create_queue().into_result().unwrap())
    });
    thread::scope(|scope| {
        for (lead, buffer, queue) in places {
            let file = RSlice::from_slice(&file);
            scope.spawn(move || {
                let uploaded = on.device.upload(queue, buffer, lead as u64, &weight, file);
                uploaded.into_result().unwrap();
                on.device.synchronize(queue).into_result().unwrap();
            });
        }
    });
    for (lead, buffer, queue) in places {
        let found = on.read(buffer, lead + expected.len() + 1);
        assert!(found[..lead].iter().all(|byte| *byte == 0xEE));
        assert!(found[lead..lead + expected.len()] == expected);
        assert_eq!(found[lead + expected.len()], 0xEE);
        on.device.free_queue(queue).into_result().unwrap();
    }
}

#[test]
fn whole_rows_are_uploaded_to_where_they_fit() {
    let Some(devices) = opened() else { return };
    let on = &devices[0];
    let buffer = on.hold(2 * PITCH as u64);
    let (two, three) = (file(2), file(3));
    let cut = "data of 1621 bytes are no whole rows: a row of Q4_0 takes 1620";
    refused(upload(on, buffer, 0, &weight(2), &two[..FILE + 1]), cut);
    let outside = "bytes 0 to 0 + 4896 lie outside a buffer of 3264 bytes";
    refused(upload(on, buffer, 0, &weight(3), &three), outside);
    upload(on, buffer, 0, &weight(2), &two).unwrap();
    assert_eq!(on.read(buffer, 2 * PITCH), arranged(&two));
}

/// y = W·x with the rows of W from byte `offset` of three on.
fn product(offset: u64) -> Draft {
    let mut draft = Draft::new(1, 1);
    let column = |n| {
        Tensor::contiguous(Type::F32, [n, 1, 1, 1], 0, 0)
            .unwrap()
            .symbolic(Symbol::Tokens, 1)
    };
    let x = draft.place(Role::Input, column(K)).unwrap();
    let buffer = draft.buffer(Role::Weight, 3 * FILE as u64);
    let w = draft.tensor(Tensor {
        buffer,
        offset,
        ..weight(2)
    });
    let y = draft.place(Role::Output, column(2)).unwrap();
    draft.nodes.push(Node::new(Operation::Product.id(), &[x, w], y));
    draft
}

#[test]
fn a_run_does_not_read_arranged_rows_outside_of_a_buffer() {
    let Some(devices) = opened() else { return };
    let on = &devices[0];
    let draft = product(FILE as u64);
    let program = on.device.compile(&draft.graph()).into_result().unwrap();
    let bytes = draft.buffers.iter().map(|buffer| buffer.bytes);
    // the file's bytes of the weight are there, and no more
    let bound: Vec<Binding> = bytes
        .map(|bytes| Binding {
            buffer: on.hold(bytes),
            offset: 0,
            bytes,
        })
        .collect();
    let step = Step {
        tokens: 1,
        rows: 1,
        context: 1,
        reserved: 0,
    };
    let run = on
        .device
        .run(on.queue, program, RSlice::from_slice(&bound), bound[0], step);
    refused(
        run.into_result(),
        "bytes 0 to 0 + 4896 lie outside a buffer of 4860 bytes",
    );
}

#[test]
fn a_view_that_begins_within_a_row_is_not_served() {
    let Some(devices) = opened() else { return };
    let compiled = devices[0].device.compile(&product(18).graph()).into_result();
    refused(
        compiled,
        "a view of a weight of Q4_0 with an offset of 18 bytes, where rows take 1620",
    );
}
