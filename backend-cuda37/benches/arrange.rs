//! Bytes of a file a second that one thread arranges, by type: `cargo bench -p backend-cuda37`. `Q4_0`, say, is 8 MiB of rows of
//! 4096 values; all bytes are 0x3c. `copy` is a plain copy of as many.

use backend_api::types::Type;
use backend_cuda37::arrange::Rows;
use divan::{Bencher, counter::BytesCount};

const VALUES: u32 = 4096;
const BYTES: usize = 8 << 20;

fn types() -> impl Iterator<Item = Type> {
    Type::ALL.into_iter().filter(|ty| ty.is_quantized())
}

#[divan::bench(args = types())]
fn arrange(bencher: Bencher<'_, '_>, ty: Type) {
    let rows = Rows::new(ty, VALUES).expect("whole blocks").expect("a block type");
    let count = BYTES / rows.file();
    let file = vec![0x3c; count * rows.file()];
    let mut device = vec![0; count * rows.pitch()];
    let bencher = bencher.counter(BytesCount::new(file.len()));
    bencher.bench_local(|| rows.arrange(&file, &mut device).expect("whole rows"));
}

#[divan::bench]
fn copy(bencher: Bencher<'_, '_>) {
    let (file, mut device) = (vec![0x3c; BYTES], vec![0u8; BYTES]);
    let bencher = bencher.counter(BytesCount::new(BYTES));
    bencher.bench_local(|| device.copy_from_slice(divan::black_box(&file)));
}

fn main() {
    divan::main();
}
