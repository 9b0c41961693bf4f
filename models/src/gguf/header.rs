//! One file's header: its metadata, and its tensors' records turned into places in the file.

use std::collections::HashSet;
use std::sync::Arc;

use super::error::{Fault, GgufError};
use super::metadata::Metadata;
use super::reader::Reader;
use super::tensor::{TensorInfo, TensorType};

const DEFAULT_ALIGNMENT: u64 = 32;
/// An empty name, no dimensions, type, offset.
const SMALLEST_TENSOR: u64 = 8 + 4 + 4 + 8;
/// An empty name, type, one byte.
const SMALLEST_KEY: u64 = 8 + 4 + 1;
const LONGEST_NAME: u64 = 63;

/// What the header of one file says.
pub(super) struct Header {
    pub version: u32,
    pub alignment: u64,
    pub metadata: Metadata,
    pub tensors: Vec<TensorInfo>,
}

/// A tensor's record; `info.offset` still counts from the start of the data.
struct Record {
    info: TensorInfo,
    /// Where the record stands in the file.
    at: u64,
}

/// Parses the header of `bytes`, the file numbered `file` of a model.
pub(super) fn parse(name: &Arc<str>, bytes: &[u8], file: usize) -> Result<Header, GgufError> {
    let mut reader = Reader::new(name, bytes);
    let version = read_version(&mut reader)?;
    let tensors = reader.count("number of tensors", SMALLEST_TENSOR)?;
    let keys = reader.count("number of keys", SMALLEST_KEY)?;
    let metadata = Metadata::read(name, &mut reader, keys)?;
    let alignment = alignment(&metadata)?;
    let records = read_records(&mut reader, tensors, file)?;
    let tensors = place(&reader, records, alignment, bytes.len() as u64)?;
    Ok(Header {
        version,
        alignment,
        metadata,
        tensors,
    })
}

fn read_version(reader: &mut Reader) -> Result<u32, GgufError> {
    let magic = reader.take("the magic", 4)?;
    if magic != b"GGUF" {
        return Err(reader.error(0, Fault::Magic([magic[0], magic[1], magic[2], magic[3]])));
    }
    let version: u32 = reader.number()?;
    match version {
        2 | 3 => Ok(version),
        _ if version != 0 && version & 0xffff == 0 => Err(reader.error(4, Fault::ByteSwapped(version))),
        _ => Err(reader.error(4, Fault::Version(version))),
    }
}

fn alignment(metadata: &Metadata) -> Result<u64, GgufError> {
    const KEY: &str = "general.alignment";
    let alignment = metadata.opt_u32(KEY)?.map_or(DEFAULT_ALIGNMENT, u64::from);
    if alignment.is_power_of_two() {
        Ok(alignment)
    } else {
        Err(metadata.error(KEY, Fault::Alignment(alignment)))
    }
}

fn read_records(reader: &mut Reader, count: u64, file: usize) -> Result<Vec<Record>, GgufError> {
    let mut names = HashSet::new();
    let mut records = Vec::new();
    for index in 0..count {
        let at = reader.offset();
        let name = read_name(reader).map_err(|e| e.within(|| format!("name of tensor {index}")))?;
        if !names.insert(name.clone()) {
            return Err(reader.error(at, Fault::Duplicate).tensor(&name));
        }
        let info = read_record(reader, file).map_err(|e| e.tensor(&name))?;
        records.push(Record {
            info: TensorInfo { name, ..info },
            at,
        });
    }
    Ok(records)
}

fn read_name(reader: &mut Reader) -> Result<String, GgufError> {
    let at = reader.offset();
    let name = reader.string()?;
    if name.len() as u64 > LONGEST_NAME {
        return Err(reader.error(at, Fault::LongName(name.len() as u64)));
    }
    Ok(name)
}

/// What follows the name.
fn read_record(reader: &mut Reader, file: usize) -> Result<TensorInfo, GgufError> {
    let rank_at = reader.offset();
    let rank: u32 = reader.number()?;
    if rank > 4 {
        return Err(reader.error(rank_at, Fault::Rank(rank)));
    }
    let dims_at = reader.offset();
    let dims = read_dims(reader, rank)?;
    let kind_at = reader.offset();
    let kind = TensorType::from_id(reader.number()?).map_err(|fault| reader.error(kind_at, fault.into()))?;
    let bytes = size(dims, kind).map_err(|fault| reader.error(dims_at, fault))?;
    let offset = reader.number()?;
    Ok(TensorInfo {
        name: String::new(),
        dims,
        rank,
        kind,
        file,
        offset,
        bytes,
    })
}

fn read_dims(reader: &mut Reader, rank: u32) -> Result<[u64; 4], GgufError> {
    let mut dims = [1; 4];
    for size in &mut dims[..rank as usize] {
        let at = reader.offset();
        let value: i64 = reader.number()?;
        let fault = |_| reader.error(at, Fault::Negative { what: "size", value });
        *size = u64::try_from(value).map_err(fault)?;
    }
    Ok(dims)
}

/// Bytes of the data, where the number of values and of bytes fit i64.
fn size(dims: [u64; 4], kind: TensorType) -> Result<u64, Fault> {
    let block = kind.block_values() as u64;
    if !dims[0].is_multiple_of(block) {
        return Err(Fault::PartialBlock {
            values: dims[0],
            block,
            kind: kind.name(),
        });
    }
    let fits = |number: &u64| i64::try_from(*number).is_ok();
    let values = dims
        .iter()
        .try_fold(1u64, |product, &size| product.checked_mul(size))
        .filter(fits);
    values.ok_or(Fault::Overflow("the product of its sizes"))?;
    kind.bytes(dims)
        .filter(fits)
        .ok_or(Fault::Overflow("its length in bytes"))
}

/// Turns offsets into places in the file, of `length` bytes; the reader stands behind the last record.
fn place(reader: &Reader, mut records: Vec<Record>, alignment: u64, length: u64) -> Result<Vec<TensorInfo>, GgufError> {
    // A file's length is at most i64::MAX and the alignment at most 2^31, so this fits.
    let start = reader.offset().next_multiple_of(alignment);
    for Record { info, at } in &mut records {
        let offset = place_one(info, start, alignment, length);
        info.offset = offset.map_err(|fault| reader.error(*at, fault).tensor(&info.name))?;
    }
    check_overlaps(reader, &records)?;
    Ok(records.into_iter().map(|record| record.info).collect())
}

fn place_one(info: &TensorInfo, start: u64, alignment: u64, length: u64) -> Result<u64, Fault> {
    if !info.offset.is_multiple_of(alignment) {
        return Err(Fault::Misaligned {
            offset: info.offset,
            alignment,
        });
    }
    let offset = start.checked_add(info.offset).ok_or(Fault::Overflow("its offset"))?;
    let end = offset
        .checked_add(info.bytes)
        .ok_or(Fault::Overflow("the end of its data"))?;
    if end > length && info.bytes > 0 {
        let left = length.saturating_sub(offset);
        return Err(Fault::BeyondEnd {
            what: "its data",
            needs: info.bytes,
            left,
        });
    }
    Ok(offset)
}

/// Writers lay tensors one after another; two that share bytes mean a damaged or a crafted file.
fn check_overlaps(reader: &Reader, records: &[Record]) -> Result<(), GgufError> {
    let mut order: Vec<&Record> = records.iter().filter(|record| record.info.bytes > 0).collect();
    order.sort_by_key(|record| record.info.offset);
    for (first, second) in order.iter().zip(order.iter().skip(1)) {
        if first.info.offset + first.info.bytes > second.info.offset {
            let fault = Fault::Overlap {
                other: first.info.name.clone(),
            };
            return Err(reader.error(second.at, fault).tensor(&second.info.name));
        }
    }
    Ok(())
}
