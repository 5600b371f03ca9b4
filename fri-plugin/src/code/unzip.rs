//! Unpacking a zip file as AWS Lambda does. Every byte of it may be an attacker's.

use super::error::{CodeError, Refusal};
use super::staging::{Side, Staging};
use super::tree;
use crate::config::CodeLimits;
use std::io::{ErrorKind, Read, Seek, SeekFrom};
use zip::result::ZipError;
use zip::{CompressionMethod, ZipArchive};

const TYPE: u32 = 0o170_000;
const REGULAR: u32 = 0o100_000;
const DIRECTORY: u32 = 0o040_000;
const LINK: u32 = 0o120_000;
const EXECUTABLE: u32 = 0o111;
/// Headers that are always read: zip files within the zip file have headers too.
const HEADERS: usize = 100_000;

/// What one entry of the list says.
struct Listed {
    name: Vec<u8>,
    mode: u32,
    bytes: u64,
}

/// Whether the file has more headers of entries than that, wherever they are. Reading the list takes memory for each before it can be counted.
fn headers(from: &mut (impl Read + Seek), most: usize) -> Result<bool, CodeError> {
    const HEADER: &[u8] = b"PK\x01\x02";
    let failed = |e| CodeError::NotZip(ZipError::Io(e));
    from.seek(SeekFrom::Start(0)).map_err(failed)?;
    let (mut found, mut matched) = (0, 0);
    let mut buffer = vec![0; 64 << 10];
    loop {
        let n = match from.read(&mut buffer) {
            Ok(0) => return Ok(found > most),
            Ok(n) => n,
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(error) => return Err(failed(error)),
        };
        for byte in buffer.get(..n).unwrap_or_default() {
            matched = match HEADER.get(matched) {
                Some(next) if next == byte => matched + 1,
                _ => usize::from(*byte == b'P'),
            };
            if matched == HEADER.len() {
                found += 1;
                matched = 0;
            }
        }
    }
}

/// Unpacks all of it.
pub fn unzip<R: Read + Seek>(mut from: R, limits: &CodeLimits, into: &mut Staging) -> Result<(), CodeError> {
    let bytes = from.seek(SeekFrom::End(0)).map_err(|e| CodeError::NotZip(ZipError::Io(e)))?;
    if bytes > limits.zip_bytes {
        return Err(CodeError::ZipTooLarge { bytes, limit: limits.zip_bytes });
    }
    if headers(&mut from, limits.entries.max(HEADERS))? {
        return Err(CodeError::TooMany { limit: limits.entries });
    }
    let mut zip = ZipArchive::new(from).map_err(CodeError::NotZip)?;
    if zip.has_duplicate_names() {
        return Err(CodeError::Duplicates);
    }
    if zip.len() > limits.entries {
        return Err(CodeError::TooMany { limit: limits.entries });
    }
    // Before anything is unpacked: what the list says of itself.
    let mut list = Vec::with_capacity(zip.len());
    let mut announced = 0u64;
    for index in 0..zip.len() {
        let entry = zip.by_index_data(index).map_err(CodeError::NotZip)?;
        let listed = Listed {
            name: entry.name_raw().to_vec(),
            mode: entry.unix_mode().unwrap_or(REGULAR),
            bytes: entry.size(),
        };
        let refuse = |refusal| Err(CodeError::entry(&listed.name, refusal));
        if entry.encrypted() {
            return refuse(Refusal::Encrypted);
        }
        if !matches!(entry.compression(), CompressionMethod::Stored | CompressionMethod::Deflated) {
            return refuse(Refusal::Compression);
        }
        announced = announced.saturating_add(listed.bytes);
        list.push(listed);
    }
    if announced > limits.unzipped_bytes {
        return Err(CodeError::TooLarge { limit: limits.unzipped_bytes });
    }
    if zip.has_overlapping_entries().map_err(CodeError::NotZip)? {
        return Err(CodeError::Overlap);
    }
    for (index, listed) in list.iter().enumerate() {
        entry(&mut zip, index, listed, into)?;
    }
    Ok(())
}

fn entry<R: Read + Seek>(
    zip: &mut ZipArchive<R>,
    index: usize,
    listed: &Listed,
    into: &mut Staging,
) -> Result<(), CodeError> {
    let path = tree::path(&listed.name)?;
    let refuse = |refusal| Err(CodeError::entry(&listed.name, refusal));
    if listed.name.ends_with(b"/") {
        return if listed.bytes == 0 { into.directory(path) } else { refuse(Refusal::Size) };
    }
    let damaged = |source| CodeError::Damaged { entry: path.clone(), source };
    // Tools that are not of Unix give no type.
    match listed.mode & TYPE {
        REGULAR | 0 => {
            let mut contents = zip.by_index(index).map_err(|e| damaged(e.into()))?;
            // One byte more than announced tells of a lie, and is as much as a lie may cost.
            let limited = (&mut contents).take(listed.bytes.saturating_add(1));
            let bytes = match into.file(path.clone(), listed.mode & EXECUTABLE != 0, limited) {
                Ok((_, bytes)) => bytes,
                Err(Side::Own(error)) => return Err(error),
                Err(Side::Source(error)) => return Err(damaged(error)),
            };
            if bytes == listed.bytes { Ok(()) } else { refuse(Refusal::Size) }
        }
        DIRECTORY => into.directory(path),
        LINK => {
            let contents = zip.by_index(index).map_err(|e| damaged(e.into()))?;
            let mut target = Vec::new();
            contents.take(tree::PATH as u64 + 1).read_to_end(&mut target).map_err(damaged)?;
            into.link(path, &target)
        }
        _ => refuse(Refusal::Special),
    }
}
