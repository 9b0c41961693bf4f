//! Rows are compared with what writes them value by value.

use super::*;

/// A block of a file, of which values are asked one by one.
struct Block<'a>(&'a [u8]);

impl Block<'_> {
    fn bit(&self, byte: usize, bit: usize) -> u8 {
        self.0[byte] >> bit & 1
    }

    fn nibble(&self, byte: usize, high: bool) -> u8 {
        if high { self.0[byte] >> 4 } else { self.0[byte] & 15 }
    }

    /// Value `i` of 256 of the fields of two bits from byte `first` on.
    fn two_bits(&self, first: usize, i: usize) -> u8 {
        self.0[first + i / 128 * 32 + i % 32] >> (i % 128 / 32 * 2) & 3
    }

    fn q3_k(&self, i: usize) -> u8 {
        self.two_bits(32, i) | self.bit(i % 32, i / 32) << 2
    }

    fn q5(&self, head: usize, i: usize) -> u8 {
        self.nibble(head + 4 + i % 16, i >= 16) | self.bit(head + i / 8, i % 8) << 4
    }

    fn q4_k(&self, i: usize) -> u8 {
        self.nibble(16 + i / 64 * 32 + i % 32, i % 64 >= 32)
    }

    /// The scale, or the minimum, of group `i` of Q4_K and Q5_K.
    fn k_scale(&self, i: usize, minimum: bool) -> u8 {
        let at = 4 + usize::from(minimum) * 4;
        match i < 4 {
            true => self.0[at + i] & 63,
            false => self.nibble(12 + i - 4, minimum) | self.0[at + i - 4] >> 6 << 4,
        }
    }

    fn scales_and_minimums(&self) -> Vec<u8> {
        let six = |n: usize| self.k_scale(n / 4 * 2 + n % 2, n % 4 >= 2);
        let packed = (0..16).fold(0, |all, n| all | u128::from(six(n)) << (6 * n));
        [&self.0[..4], &packed.to_le_bytes()[..12]].concat()
    }

    fn q5_k(&self, i: usize) -> u8 {
        self.nibble(48 + i / 64 * 32 + i % 32, i % 64 >= 32) | self.bit(16 + i % 32, i / 32) << 4
    }

    fn q6_k(&self, i: usize) -> u8 {
        let low = self.nibble(i / 128 * 64 + i % 64, i % 128 >= 64);
        low | self.two_bits(128, i) << 4
    }

    fn q3_k_scale(&self, i: usize) -> u8 {
        self.nibble(96 + i % 8, i >= 8) | (self.0[104 + i % 4] >> (i / 4 * 2) & 3) << 4
    }

    fn iq4_xs_scale(&self, i: usize) -> u8 {
        let high = [0, 1].map(|b| self.bit(2 + i / 4, i % 4 * 2 + b) << (4 + b));
        self.nibble(4 + i / 2, i % 2 == 1) | high[0] | high[1]
    }
}

/// Words of a plane, of which bits are set once.
#[derive(Default)]
struct Words {
    words: Vec<u32>,
    taken: Vec<u32>,
}

impl Words {
    fn new(words: usize) -> Words {
        Words {
            words: vec![0; words],
            taken: vec![0; words],
        }
    }

    fn set(&mut self, word: usize, bit: usize, bits: usize, value: u8) {
        let mask = ((1 << bits) - 1) << bit;
        assert_eq!(self.taken[word] & mask, 0, "bits of word {word} are set once");
        self.taken[word] |= mask;
        self.words[word] |= u32::from(value) << bit;
    }

    /// 4F values of `bits` bits in three words from `first` on.
    fn trio(&mut self, first: usize, bits: usize, value: impl Fn(usize) -> u8) {
        let fields = 24 / bits;
        for n in 0..3 * fields {
            self.set(first + n / fields, n % fields * bits, bits, value(n));
        }
        let top = (0..fields).map(|f| u32::from(value(3 * fields + f)) << (bits * f));
        for (w, byte) in top.sum::<u32>().to_le_bytes()[..3].iter().enumerate() {
            self.set(first + w, 24, 8, *byte);
        }
    }

    /// Eight scales in two words from `first` on.
    fn pair(&mut self, first: usize, d: &[u8], scale: impl Fn(usize) -> u8) {
        (0..8).for_each(|i| self.set(first + i / 4, i % 4 * 6, 6, scale(i)));
        (0..2).for_each(|w| self.set(first + w, 24, 8, d[w]));
    }

    fn bytes(&self) -> Vec<u8> {
        assert!(self.taken.iter().all(|&taken| taken == u32::MAX), "every bit is set");
        self.words.iter().flat_map(|word| word.to_le_bytes()).collect()
    }
}

fn exchanged(nibbles: &[u8]) -> Vec<u8> {
    let nibble = |n: u8| n & 3 | (n >> 2 & 1) << 3 | (n >> 3 & 1) << 2;
    nibbles.iter().map(|b| nibble(b & 15) | nibble(b >> 4) << 4).collect()
}

fn turned(bytes: &[u8]) -> Vec<u8> {
    bytes.iter().map(|b| (i16::from(*b as i8) + 128) as u8).collect()
}

fn f32_of(half: &[u8]) -> f32 {
    half::f16::from_le_bytes([half[0], half[1]]).to_f32()
}

/// Codes and meta of a block of a file.
fn expected(ty: Type, bytes: &[u8]) -> (Vec<u8>, Vec<u8>) {
    let b = Block(bytes);
    let mut codes = Words::new(sizes(ty).unwrap().0 / 4);
    let mut meta = Words::new(sizes(ty).unwrap().1 / 4);
    match ty {
        Type::Q4_0 => (bytes[2..].to_vec(), bytes[..2].to_vec()),
        Type::Q4_1 => (bytes[4..].to_vec(), bytes[..4].to_vec()),
        Type::MXFP4 => (bytes[1..].to_vec(), vec![bytes[0] + 1]),
        Type::Q4_K => {
            for g in 0..8 {
                for i in 0..16 {
                    codes.set(4 * g + i / 4, i % 4 * 8, 4, b.q4_k(32 * g + i));
                    codes.set(4 * g + i / 4, i % 4 * 8 + 4, 4, b.q4_k(32 * g + 16 + i));
                }
            }
            (codes.bytes(), b.scales_and_minimums())
        }
        Type::Q8_0 => (turned(&bytes[2..]), bytes[..2].to_vec()),
        Type::IQ4_NL => (exchanged(&bytes[2..]), bytes[..2].to_vec()),
        Type::IQ4_XS => {
            meta.pair(0, &bytes[..2], |i| b.iq4_xs_scale(i));
            (exchanged(&bytes[8..]), meta.bytes())
        }
        Type::Q2_K => {
            for p in 0..4 {
                codes.trio(4 * p, 2, |n| b.two_bits(16, 64 * p + n));
                (0..12).for_each(|f| codes.set(4 * p + 3, 2 * f, 2, b.two_bits(16, 64 * p + 48 + f)));
                (0..4).for_each(|f| codes.set(4 * p + 3, 24 + 2 * f, 2, b.two_bits(16, 64 * p + 60 + f)));
            }
            (codes.bytes(), [&bytes[..16], &bytes[80..]].concat())
        }
        Type::Q5_0 | Type::Q5_1 => {
            let head = if ty == Type::Q5_0 { 2 } else { 4 };
            for i in 0..16 {
                let (first, second) = (b.q5(head, i), b.q5(head, 16 + i));
                codes.set(0, 8 * (i % 4) + 7 - i / 4, 1, first & 1);
                codes.set(0, 8 * (i % 4) + i / 4, 1, second >> 4);
                codes.set(1 + i / 4, i % 4 * 8, 4, first >> 1);
                codes.set(1 + i / 4, i % 4 * 8 + 4, 4, second & 15);
            }
            (codes.bytes(), bytes[..head].to_vec())
        }
        Type::Q3_K => {
            (0..8).for_each(|t| codes.trio(3 * t, 3, |n| b.q3_k(32 * t + n)));
            let bit = |i: usize| u128::from(b.q3_k_scale(i)) << (6 * i);
            let scales = (0..16).fold(0, |all, i| all | bit(i));
            (
                codes.bytes(),
                [
                    &scales.to_le_bytes()[..12],
                    &(f32_of(&bytes[108..]) * 2f32.powi(23)).to_le_bytes(),
                ]
                .concat(),
            )
        }
        Type::Q5_K => {
            for p in 0..4 {
                for i in 0..32 {
                    let (first, second) = (b.q5_k(64 * p + i), b.q5_k(64 * p + 32 + i));
                    codes.set(10 * p, 8 * (i % 4) + 7 - i / 4, 1, first & 1);
                    codes.set(10 * p + 1, 8 * (i % 4) + i / 4, 1, second >> 4);
                    codes.set(10 * p + 2 + i / 4, i % 4 * 8, 4, first >> 1);
                    codes.set(10 * p + 2 + i / 4, i % 4 * 8 + 4, 4, second & 15);
                }
            }
            (codes.bytes(), b.scales_and_minimums())
        }
        Type::Q6_K => {
            (0..16).for_each(|t| codes.trio(3 * t, 6, |n| b.q6_k(16 * t + n)));
            (
                codes.bytes(),
                [&turned(&bytes[192..208])[..], &f32_of(&bytes[208..]).to_le_bytes()].concat(),
            )
        }
        Type::F32 | Type::F16 | Type::BF16 | Type::I32 => unreachable!("{ty} has no blocks"),
    }
}

/// Rows of a file without a pattern; blocks of MXFP4 have no scale above 2^126.
fn noise(ty: Type, bytes: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64 ^ bytes as u64;
    let mut next = || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as u8
    };
    let mut noise: Vec<u8> = (0..bytes).map(|_| next()).collect();
    if ty == Type::MXFP4 {
        noise.chunks_mut(ty.block_bytes()).for_each(|block| block[0] %= 254);
    }
    noise
}

fn block_types() -> impl Iterator<Item = Type> {
    Type::ALL.into_iter().filter(|ty| ty.is_quantized())
}

fn rows(ty: Type, values: u32) -> Rows {
    Rows::new(ty, values).unwrap().unwrap()
}

#[test]
fn a_row_is_a_plane_of_codes_and_a_plane_of_meta_and_zeros() {
    for ty in block_types() {
        for blocks in [1, 2, 3, 7, 8, 45] {
            let rows = rows(ty, blocks * ty.block_values() as u32);
            let file = noise(ty, 5 * rows.file());
            let mut device = vec![0xaa; 5 * rows.pitch()];
            rows.arrange(&file, &mut device).unwrap();
            for (row, found) in file.chunks(rows.file()).zip(device.chunks(rows.pitch())) {
                let blocks = row.chunks(ty.block_bytes()).map(|block| expected(ty, block));
                let (codes, meta): (Vec<_>, Vec<_>) = blocks.unzip();
                let mut planes = [codes.concat(), meta.concat()].concat();
                planes.resize(rows.pitch(), 0);
                assert_eq!(found, planes, "{ty}");
            }
        }
    }
}

#[test]
fn no_two_rows_of_a_file_are_one_on_the_device() {
    for ty in block_types() {
        let rows = rows(ty, ty.block_values() as u32);
        let (file, mut device) = (noise(ty, rows.file()), vec![0; rows.pitch()]);
        rows.arrange(&file, &mut device).unwrap();
        for bit in 0..8 * file.len() {
            let (mut other, mut there) = (file.clone(), vec![0; rows.pitch()]);
            other[bit / 8] ^= 1 << (bit % 8);
            rows.arrange(&other, &mut there).unwrap();
            assert_ne!(device, there, "{ty}: bit {bit}");
        }
    }
}

#[test]
fn rows_begin_at_multiples_of_16() {
    let pitch = |ty, values| rows(ty, values).pitch();
    assert_eq!(pitch(Type::MXFP4, 2880), 1536); // 90 blocks of 17 bytes and 6 of zeros
    assert_eq!(pitch(Type::Q4_0, 32), 32);
    assert_eq!(pitch(Type::Q8_0, 4096), 4352);
    assert_eq!(pitch(Type::Q3_K, 512), 224);
    assert_eq!(pitch(Type::Q6_K, 4096), 3392);
    for ty in block_types() {
        for blocks in 1..40 {
            let rows = rows(ty, blocks * ty.block_values() as u32);
            let (codes, meta) = sizes(ty).unwrap();
            assert!(rows.pitch() - blocks as usize * (codes + meta) < 16, "{ty}");
            assert!(rows.pitch().is_multiple_of(16) && rows.pitch() >= rows.file(), "{ty}");
        }
    }
}

#[test]
fn what_is_no_whole_row_is_refused() {
    let refused = |result: Result<()>, message: &str| assert_eq!(result.unwrap_err().message.as_str(), message);
    let rows = rows(Type::Q4_0, 64);
    let short = "data of 35 bytes are no whole rows: a row of Q4_0 takes 36";
    refused(rows.arrange(&[0; 35], &mut [0; 48]), short);
    let other = "72 bytes of rows of Q4_0 take 96 bytes, not 48";
    refused(rows.arrange(&[0; 72], &mut [0; 48]), other);
    let half = "128 values are no row of Q6_K: blocks have 256, and a row less than 4 GiB";
    refused(Rows::new(Type::Q6_K, 128).map(drop), half);
    let long = "4294967264 values are no row of Q8_0: blocks have 32, and a row less than 4 GiB";
    refused(Rows::new(Type::Q8_0, u32::MAX - 31).map(drop), long);
    assert_eq!(Rows::new(Type::BF16, 3).unwrap(), None);
    assert_eq!(rows.on_device(u64::MAX / 36 * 36), None);
    // no values, no rows
    let none = Rows::new(Type::Q4_K, 0).unwrap().unwrap();
    assert_eq!((none.on_device(0), none.on_device(1)), (Some(0), None));
    assert!(none.arrange(&[], &mut []).is_ok());
}

#[test]
fn blocks_have_the_sizes_that_the_kernels_read() {
    let of_block = |ty: Type| {
        let (codes, meta) = sizes(ty).unwrap();
        let block = format!("Block_{}", crate::ops::spelled(ty));
        [
            (format!("{block}::UNIT_BYTES * {block}::PARTS"), codes as u64),
            (format!("{block}::META"), meta as u64),
            (format!("{block}::VALUES"), ty.block_values() as u64),
        ]
    };
    crate::ops::mirror::assert_same(&["blocks.cuh"], &block_types().flat_map(of_block).collect::<Vec<_>>());
}

/// What the kernels make of a nibble of MXFP4.
fn mxfp4(nibble: u8, scale: u8) -> f64 {
    let magnitude = [0, 1, 2, 3, 4, 6, 8, 12][usize::from(nibble & 7)];
    let scale = match scale {
        255 => f64::INFINITY,
        e => 2f64.powi(i32::from(e) - 129),
    };
    f64::from(if nibble & 8 == 0 { magnitude } else { -magnitude }) * scale
}

#[test]
fn values_of_mxfp4_are_what_they_were_in_blocks_without_an_infinite_one() {
    let rows = rows(Type::MXFP4, 32);
    for e in 0..=255 {
        for largest in 0..8 {
            let nibbles: Vec<u8> = (0..32).map(|i| (i % (largest + 1)) | (i & 8)).collect();
            let codes = nibbles[..16]
                .iter()
                .zip(&nibbles[16..])
                .map(|(low, high)| low | high << 4);
            let file: Vec<u8> = std::iter::once(e).chain(codes).collect();
            let (mut device, mut values) = ([0; 32], [0.0; 32]);
            rows.arrange(&file, &mut device).unwrap();
            backend_api::decode::decode_row(Type::MXFP4, &file, &mut values).unwrap();
            let infinite = values.iter().any(|v| v.is_infinite());
            assert!(device[16] != 255 || infinite, "e = {e}, {values:?}");
            for (i, value) in values.iter().enumerate().filter(|_| !infinite) {
                let nibble = device[i % 16] >> (i / 16 * 4) & 15;
                assert_eq!(mxfp4(nibble, device[16]), f64::from(*value), "e = {e}, value {i}");
            }
        }
    }
}
