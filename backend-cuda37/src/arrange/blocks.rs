//! A block of each type: its bytes in the file to its codes and its meta on the device.
//!
//! Words are little endian, and a type's codes lie in the order of the kernels' words. Eight values, a byte each, are
//! worked on at a time. The formats of files are GGUF's: see `backend_api::decode`.

use half::f16;

/// Meta first and codes after it, in the file as on the device: Q4_0, Q4_1.
pub fn as_in_the_file<const B: usize, const C: usize, const M: usize>(
    block: &[u8; B],
    codes: &mut [u8; C],
    meta: &mut [u8; M],
) {
    split(block, codes, meta, |code| code);
}

/// Codes as in the file, and e + 1: scales are 2^(e − 126) for the kernels, for 2^(e − 128) may be a denormal. Where that
/// would be too large for a byte (values up to 2^126 and more), codes are doubled instead. Where they have no double, some value of
/// the block is infinite, and the scale is so too.
pub fn mxfp4(block: &[u8; 17], codes: &mut [u8; 16], meta: &mut [u8; 1]) {
    split(block, codes, meta, |code| code);
    let [e] = meta;
    while *e == 255 || *e == 254 {
        let Some(doubled) = doubled(*codes) else {
            *e = 254;
            break;
        };
        (*codes, *e) = (doubled, *e - 1);
    }
    *e += 1;
}

/// Twice the values of nibbles of MXFP4, where all of them have twice.
fn doubled(nibbles: [u8; 16]) -> Option<[u8; 16]> {
    let twice = |code: u8| match code & 7 {
        0 => Some(code),
        1 => Some(code + 1),
        2..=5 => Some(code + 2),
        _ => None,
    };
    let mut to = [0; 16];
    for (to, from) in to.iter_mut().zip(nibbles) {
        *to = twice(from & 15)? | twice(from >> 4)? << 4;
    }
    Some(to)
}

/// Codes with the sign turned, so that they count from 0; d.
pub fn q8_0(block: &[u8; 34], codes: &mut [u8; 32], meta: &mut [u8; 2]) {
    split(block, codes, meta, |code| code ^ 0x80);
}

/// Nibbles with bits 2 and 3 exchanged; d.
pub fn iq4_nl(block: &[u8; 18], codes: &mut [u8; 16], meta: &mut [u8; 2]) {
    split(block, codes, meta, exchanged);
}

/// As IQ4_NL; the eight 6-bit scales and d as a pair of words.
pub fn iq4_xs(block: &[u8; 136], codes: &mut [u8; 128], meta: &mut [u8; 8]) {
    copy(codes, &block[8..], exchanged);
    let (high, low) = (bytes::<2>(block, 2), bytes::<4>(block, 4));
    let (high, low) = (u16::from_le_bytes(high), u32::from_le_bytes(low));
    let scale = |g: usize| u64::from(low >> (4 * g) & 15) | u64::from(high >> (2 * g) & 3) << 4;
    let scales = (0..8).fold(0, |all, g| all | scale(g) << (6 * g));
    *meta = pair(scales, bytes(block, 0));
}

/// Four units of 64 values: 48 values as a trio, and a word of 16; scales and minimums as in the file, d, dmin.
pub fn q2_k(block: &[u8; 84], codes: &mut [u8; 64], meta: &mut [u8; 20]) {
    meta[..16].copy_from_slice(&block[..16]);
    meta[16..].copy_from_slice(&block[80..]);
    for (p, unit) in codes.as_chunks_mut::<16>().0.iter_mut().enumerate() {
        let at = |i: usize| word(block, 16 + p / 2 * 32 + i % 4 * 8) >> (2 * (p % 2 * 2 + i / 4));
        let stream = stream::<2, 8>(|i| at(i) & each(0x03));
        unit[..12].copy_from_slice(&trio(stream));
        unit[12..].copy_from_slice(&((stream >> 96) as u32).to_le_bytes());
    }
}

/// A word of fifth bits (of values 0 to 15 the lowest, of values 16 to 31 the highest bits), then a byte for values b and
/// 16 + b with four bits of each; d, and m of Q5_1.
pub fn q5<const B: usize, const M: usize>(block: &[u8; B], codes: &mut [u8; 20], meta: &mut [u8; M]) {
    meta.copy_from_slice(&block[..M]);
    let high = u32::from_le_bytes(bytes(block, M));
    let (bits, nibbles) = codes.split_at_mut(4);
    let mut fifth = 0;
    for (i, to) in nibbles.as_chunks_mut::<8>().0.iter_mut().enumerate() {
        let (nibbles, bit) = (word(block, M + 4 + 8 * i), |half: usize| {
            spread((high >> (16 * half + 8 * i)) as u8)
        });
        let upper = nibbles >> 1 & each(0x07) | bit(0) << 3;
        *to = (nibbles & each(0xf0) | upper).to_le_bytes();
        fifth |= firsts(nibbles & each(0x01), 7 - 2 * i) | lasts(bit(1), 2 * i);
    }
    bits.copy_from_slice(&fifth.to_le_bytes());
}

/// A trio for each 32 values, of codes with the bit of the mask on top; the sixteen 6-bit scales in three words, d · 2^23
/// as an f32, for the kernels have scales divided by that.
pub fn q3_k(block: &[u8; 110], codes: &mut [u8; 96], meta: &mut [u8; 16]) {
    for (g, group) in codes.as_chunks_mut().0.iter_mut().enumerate() {
        let low = |i: usize| word(block, 32 + g / 4 * 32 + 8 * i) >> (2 * (g % 4)) & each(0x03);
        let high = |i: usize| word(block, 8 * i) >> g & each(0x01);
        *group = trio(stream::<3, 4>(|i| low(i) | high(i) << 2));
    }
    let (low, high) = (word(block, 96), u32::from_le_bytes(bytes(block, 104)));
    let scales = stream::<6, 2>(|h| {
        // bits 4h to 4h + 3 of a byte of `high` belong to scales 8h + i and 8h + 4 + i
        let high = u64::from(high >> (4 * h));
        let high = high & 0x0303_0303 | (high >> 2 & 0x0303_0303) << 32;
        low >> (4 * h) & each(0x0f) | high << 4
    });
    meta[..12].copy_from_slice(&scales.to_le_bytes()[..12]);
    meta[12..].copy_from_slice(&(f32_of(bytes(block, 108)) * 8_388_608.0).to_le_bytes());
}

/// Sixteen bytes for each group of 32 values: value b low and value 16 + b high; d, dmin, scales and minimums.
pub fn q4_k(block: &[u8; 144], codes: &mut [u8; 128], meta: &mut [u8; 16]) {
    *meta = scales_and_minimums(block);
    for (from, to) in block[16..]
        .as_chunks::<32>()
        .0
        .iter()
        .zip(codes.as_chunks_mut::<32>().0)
    {
        for i in [0, 8] {
            let (first, second) = (word(from, i), word(from, 16 + i));
            let low = first & each(0x0f) | (second & each(0x0f)) << 4;
            let high = first >> 4 & each(0x0f) | second & each(0xf0);
            to[i..i + 8].copy_from_slice(&low.to_le_bytes());
            to[16 + i..24 + i].copy_from_slice(&high.to_le_bytes());
        }
    }
}

/// Of Q4_K and Q5_K: d, dmin; then for each unit the scales and the minimums of its two groups, six bits each.
fn scales_and_minimums(block: &[u8]) -> [u8; 16] {
    let three: [u32; 3] = std::array::from_fn(|i| u32::from_le_bytes(bytes(block, 4 + 4 * i)));
    let four = |byte: u8| u32::from_le_bytes([byte; 4]);
    // of groups 0 to 3, and of groups 4 to 7
    let early = |i: usize| three[i] & four(0x3f);
    let late = |i: usize| three[2] >> (4 * i) & four(0x0f) | (three[i] >> 6 & four(0x03)) << 4;
    let packed = stream::<6, 2>(|h| {
        let [scales, minimums] = [0, 1].map(|i| u64::from(if h == 0 { early(i) } else { late(i) }));
        let of_unit = |n: u64| n & 0xffff | (n >> 16) << 32;
        of_unit(scales) | of_unit(minimums) << 16
    });
    let mut meta = [0; 16];
    meta[..4].copy_from_slice(&block[..4]);
    meta[4..].copy_from_slice(&packed.to_le_bytes()[..12]);
    meta
}

/// Four units of 64 values: two words of fifth bits (of values 0 to 31 the lowest, of values 32 to 63 the highest bits), then
/// a byte for values b and 32 + b with four bits of each; d, dmin, scales and minimums as of Q4_K.
pub fn q5_k(block: &[u8; 176], codes: &mut [u8; 160], meta: &mut [u8; 16]) {
    *meta = scales_and_minimums(block);
    for (p, unit) in codes.as_chunks_mut::<40>().0.iter_mut().enumerate() {
        let (mut lowest, mut highest) = (0, 0);
        let (words, nibbles) = unit.split_at_mut(8);
        for (i, to) in nibbles.as_chunks_mut::<8>().0.iter_mut().enumerate() {
            let (low, high) = (word(block, 48 + 32 * p + 8 * i), word(block, 16 + 8 * i) >> (2 * p));
            let upper = low >> 1 & each(0x07) | (high & each(0x01)) << 3;
            *to = (low & each(0xf0) | upper).to_le_bytes();
            lowest |= firsts(low & each(0x01), 7 - 2 * i);
            highest |= lasts(high >> 1 & each(0x01), 2 * i);
        }
        words[..4].copy_from_slice(&lowest.to_le_bytes());
        words[4..].copy_from_slice(&highest.to_le_bytes());
    }
}

/// A trio for each 16 values; scales with the sign turned, d as an f32.
pub fn q6_k(block: &[u8; 210], codes: &mut [u8; 192], meta: &mut [u8; 20]) {
    for (t, to) in codes.as_chunks_mut().0.iter_mut().enumerate() {
        // values 32k to 32k + 31 of a half of 128
        let (half, k, l) = (t / 8, t % 8 / 2, t % 2 * 16);
        let low = |i: usize| word(block, 64 * half + k % 2 * 32 + l + 8 * i) >> (k / 2 * 4) & each(0x0f);
        let high = |i: usize| word(block, 128 + 32 * half + l + 8 * i) >> (2 * k) & each(0x03);
        *to = trio(stream::<6, 2>(|i| low(i) | high(i) << 4));
    }
    copy(&mut meta[..16], &block[192..208], |scale| scale ^ 0x80);
    meta[16..].copy_from_slice(&f32_of(bytes(block, 208)).to_le_bytes());
}

fn split(block: &[u8], codes: &mut [u8], meta: &mut [u8], code: impl Fn(u8) -> u8) {
    let (head, rest) = block.split_at(meta.len());
    meta.copy_from_slice(head);
    copy(codes, rest, code);
}

fn copy(to: &mut [u8], from: &[u8], byte: impl Fn(u8) -> u8) {
    to.iter_mut().zip(from).for_each(|(to, from)| *to = byte(*from));
}

fn exchanged(nibbles: u8) -> u8 {
    nibbles & 0x33 | (nibbles & 0x44) << 1 | (nibbles & 0x88) >> 1
}

/// `byte` in each byte of a word.
const fn each(byte: u8) -> u64 {
    u64::from_le_bytes([byte; 8])
}

fn bytes<const N: usize>(block: &[u8], at: usize) -> [u8; N] {
    let mut found = [0; N];
    found.copy_from_slice(&block[at..at + N]);
    found
}

fn word(block: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes(block, at))
}

fn f32_of(half: [u8; 2]) -> f32 {
    f16::from_le_bytes(half).to_f32()
}

/// The bits of a byte as bytes.
fn spread(bits: u8) -> u64 {
    let each_bit = (u64::from(bits) * each(0x01)) & 0x8040_2010_0804_0201;
    (each_bit + each(0x7f)) >> 7 & each(0x01)
}

/// Bits, a byte each, of the first four values at `bit` of the bytes of a word, and of the other four one below.
fn firsts(bits: u64, bit: usize) -> u32 {
    (bits as u32) << bit | ((bits >> 32) as u32) << (bit - 1)
}

/// As [`firsts`], of the other four one above.
fn lasts(bits: u64, bit: usize) -> u32 {
    (bits as u32) << bit | ((bits >> 32) as u32) << (bit + 1)
}

/// Eight codes of `BITS` bits, a byte each, side by side.
fn packed<const BITS: u32>(codes: u64) -> u64 {
    let twos = joined(codes, BITS, 8, 0x0001_0001_0001_0001);
    let fours = joined(twos, 2 * BITS, 16, 0x0000_0001_0000_0001);
    joined(fours, 4 * BITS, 32, 1)
}

/// Numbers of `bits` bits, one in every `lane` bits, two side by side in every two lanes; `pairs` has a bit for each two.
fn joined(numbers: u64, bits: u32, lane: u32, pairs: u64) -> u64 {
    let first = ((1 << bits) - 1) * pairs;
    numbers & first | numbers >> (lane - bits) & first << bits
}

/// `N` times eight codes of `BITS` bits side by side.
fn stream<const BITS: u32, const N: usize>(codes: impl Fn(usize) -> u64) -> u128 {
    let place = |i: usize| u128::from(packed::<BITS>(codes(i))) << (8 * BITS * i as u32);
    (0..N).fold(0, |all, i| all | place(i))
}

/// Three words of 24 bits of the stream each, whose top bytes are 24 more.
fn trio(stream: u128) -> [u8; 12] {
    let mut trio = [0; 12];
    for (w, to) in trio.as_chunks_mut().0.iter_mut().enumerate() {
        let fields = (stream >> (24 * w)) as u32 & 0x00ff_ffff;
        let top = (stream >> (72 + 8 * w)) as u32 & 0xff;
        *to = (fields | top << 24).to_le_bytes();
    }
    trio
}

/// Two words of four 6-bit scales each, with the low byte of d on top of the first and the high byte on top of the second.
fn pair(scales: u64, d: [u8; 2]) -> [u8; 8] {
    let [a, b, c, e, f, g, ..] = scales.to_le_bytes();
    [a, b, c, d[0], e, f, g, d[1]]
}
