//! Arrow IPC files and streams, mapped: a batch of any size is decoded without copying it and handed out in slices.
//!
//! A stream is a sequence of messages; a file is the same with a footer that says where they lie. Both become a list of
//! blocks here. Every message's buffers are checked against its body before it is decoded.

use std::path::{Path, PathBuf};

use arrow_array::RecordBatch;
use arrow_buffer::Buffer;
use arrow_ipc::reader::{FileDecoder, read_footer_length};
use arrow_ipc::{Block, CompressionType, Footer, Message, MetadataVersion, root_as_footer, root_as_message};
use arrow_schema::{ArrowError, SchemaRef};

use super::{Batches, Format, Source, input};
use crate::error::WriteError;
use crate::untrusted;

const FILE_MAGIC: &[u8] = b"ARROW1";
const FEATHER_1_MAGIC: &[u8] = b"FEA1";
/// Since format 0.15 a message begins with this, then comes its length.
const CONTINUATION: [u8; 4] = [0xFF; 4];
/// Footer length (4 bytes) and magic (6 bytes) at the end of a file.
const TRAILER_BYTES: usize = 10;
/// How many bytes one byte of a compressed buffer becomes at most: of LZ4 a byte that makes a match longer by 255, of Zstandard
/// a block of 4 bytes that stands for 128 KiB of one byte.
const LZ4_EXPANDS_MAX: u64 = 255;
const ZSTD_EXPANDS_MAX: u64 = (128 << 10) / 4;
/// In front of a compressed buffer: its length once decompressed, or -1 if it is stored as it is.
const COMPRESSED_PREFIX_BYTES: usize = 8;

pub(super) fn look(path: &Path) -> Result<Source, WriteError> {
    let layout = Layout::find(path, &map(path)?)?;
    Ok(Source {
        path: path.into(),
        format: Format::Arrow,
        schema: layout.schema,
        rows_estimate: Some(layout.rows),
        batch_rows: usize::MAX,
    })
}

pub(super) fn open(source: &Source, target: &SchemaRef) -> Result<Batches, WriteError> {
    let path = source.path.clone();
    let data = map(&path)?;
    let layout = Layout::find(&path, &data)?;
    let wanted = layout.schema.fields().iter().enumerate();
    let wanted = wanted.filter(|(_, f)| target.index_of(f.name()).is_ok()).map(|(i, _)| i).collect();
    let decoder = FileDecoder::new(layout.schema, layout.version).with_projection(wanted);
    let blocks = layout.blocks.into_iter();
    Ok(Box::new(Slices { path, data, decoder, blocks, batch_rows: source.batch_rows, rows_read: 0, pending: None }))
}

fn map(path: &Path) -> Result<Buffer, WriteError> {
    let map = pheon_os::fs::real().map(path).map_err(|e| input(path, e.to_string()))?;
    Ok(Buffer::from(bytes::Bytes::from_owner(map)))
}

/// Where the messages lie.
struct Layout {
    schema: SchemaRef,
    version: MetadataVersion,
    /// Dictionaries and record batches in the order in which they are to be decoded.
    blocks: Vec<Block>,
    rows: u64,
}

impl Layout {
    fn find(path: &Path, data: &Buffer) -> Result<Self, WriteError> {
        if data.starts_with(FILE_MAGIC) {
            guard(path, "the footer", || Self::of_file(data))
        } else if data.is_empty() {
            Err(input(path, "the file is empty; expected an Arrow file or stream"))
        } else if data.starts_with(FEATHER_1_MAGIC) {
            Err(input(path, "it is Feather version 1; write it again as version 2 (Arrow IPC)"))
        } else if data.starts_with(&CONTINUATION) {
            guard(path, "a message", || Self::of_stream(data))
        } else {
            let head = data[..data.len().min(8)].escape_ascii();
            Err(input(
                path,
                format!("expected an Arrow file (ARROW1) or stream, found a file that begins with \"{head}\""),
            ))
        }
    }

    fn of_file(data: &Buffer) -> Result<Self, ArrowError> {
        let footer = footer(data)?;
        let schema = footer.schema().ok_or_else(|| invalid("it holds no schema"))?;
        let dictionaries = footer.dictionaries();
        let batches = footer.recordBatches();
        let blocks = dictionaries.iter().flatten().chain(batches.iter().flatten()).copied().collect();
        Self::new(data, stored_schema(schema)?, footer.version(), blocks)
    }

    fn of_stream(data: &Buffer) -> Result<Self, ArrowError> {
        let mut start = None;
        let mut blocks = Vec::new();
        let mut at = 0;
        while at < data.len() {
            let cut = || invalid(format!("the stream is cut short in the message at byte {at}"));
            let prefix = if data[at..].starts_with(&CONTINUATION) { 8 } else { 4 };
            let length = data.get(at + prefix - 4..at + prefix).ok_or_else(cut)?;
            let length = u32::from_le_bytes(length.try_into().expect("four bytes")) as usize;
            if length == 0 {
                break;
            }
            let metadata = data.get(at + prefix..at + prefix + length).ok_or_else(cut)?;
            let message = root_as_message(metadata).map_err(|e| invalid(format!("the message at byte {at}: {e}")))?;
            match message.header_as_schema() {
                Some(schema) if start.is_none() => start = Some((stored_schema(schema)?, message.version())),
                Some(_) => return Err(invalid(format!("a second schema at byte {at}"))),
                None => blocks.push(Block::new(at as i64, (prefix + length) as i32, message.bodyLength())),
            }
            let body = usize::try_from(message.bodyLength()).map_err(|_| cut())?;
            at = at.checked_add(prefix + length + body).filter(|end| *end <= data.len()).ok_or_else(cut)?;
        }
        let (schema, version) = start.ok_or_else(|| invalid("it holds no schema"))?;
        Self::new(data, schema, version, blocks)
    }

    fn new(data: &Buffer, schema: SchemaRef, version: MetadataVersion, blocks: Vec<Block>) -> Result<Self, ArrowError> {
        let mut rows = 0u64;
        for block in &blocks {
            if let Some(batch) = message(&block_bytes(data, block)?, block)?.header_as_record_batch() {
                rows += u64::try_from(batch.length()).map_err(|_| invalid("a batch of negative length"))?;
            }
        }
        Ok(Self { schema, version, blocks, rows })
    }
}

fn invalid(problem: impl Into<String>) -> ArrowError {
    ArrowError::ParseError(problem.into())
}

fn footer(data: &Buffer) -> Result<Footer<'_>, ArrowError> {
    let trailer = data.len().checked_sub(TRAILER_BYTES).ok_or_else(|| invalid("the file is too short"))?;
    let tail = data[trailer..].try_into().expect("as long as the trailer");
    let length = read_footer_length(tail).map_err(|_| invalid("the file does not end in ARROW1; it is cut short"))?;
    let start =
        trailer.checked_sub(length).ok_or_else(|| invalid(format!("a footer of {length} bytes exceeds the file")))?;
    root_as_footer(&data[start..trailer]).map_err(|e| invalid(e.to_string()))
}

fn stored_schema(schema: arrow_ipc::Schema<'_>) -> Result<SchemaRef, ArrowError> {
    if !schema.endianness().equals_to_target_endianness() {
        return Err(invalid("it was written on a big-endian machine; write it again on a little-endian one"));
    }
    untrusted::schema(schema)
}

/// The bytes of a message with its body.
fn block_bytes(data: &Buffer, block: &Block) -> Result<Buffer, ArrowError> {
    let range = || {
        let start = usize::try_from(block.offset()).ok()?;
        let metadata = usize::try_from(block.metaDataLength()).ok()?;
        let length = metadata.checked_add(usize::try_from(block.bodyLength()).ok()?)?;
        (start.checked_add(length)? <= data.len()).then_some((start, length))
    };
    let (start, length) = range().ok_or_else(|| invalid("a message lies outside the file"))?;
    Ok(data.slice_with_length(start, length))
}

fn message<'a>(bytes: &'a Buffer, block: &Block) -> Result<Message<'a>, ArrowError> {
    let prefix = if bytes.starts_with(&CONTINUATION) { 8 } else { 4 };
    let metadata =
        bytes.get(prefix..block.metaDataLength() as usize).ok_or_else(|| invalid("a message is too short"))?;
    root_as_message(metadata).map_err(|e| invalid(e.to_string()))
}

/// Checks that a message's buffers lie in its body and that decompressed ones can fit in memory: the decoder relies on
/// it.
fn check_buffers(bytes: &Buffer, block: &Block, message: &Message<'_>) -> Result<(), ArrowError> {
    let body = &bytes[block.metaDataLength() as usize..];
    let batch = message.header_as_record_batch().or(message.header_as_dictionary_batch().and_then(|d| d.data()));
    let Some(batch) = batch else { return Ok(()) };
    let expands_max = batch.compression().map_or(1, |compression| match compression.codec() {
        CompressionType::LZ4_FRAME => LZ4_EXPANDS_MAX,
        _ => ZSTD_EXPANDS_MAX,
    });
    for buffer in batch.buffers().iter().flatten() {
        let range = || {
            let start = usize::try_from(buffer.offset()).ok()?;
            body.get(start..start.checked_add(usize::try_from(buffer.length()).ok()?)?)
        };
        let content = range().ok_or_else(|| invalid("a buffer lies outside its message"))?;
        if batch.compression().is_none() || content.is_empty() {
            continue;
        }
        let prefix =
            content.get(..COMPRESSED_PREFIX_BYTES).ok_or_else(|| invalid("a compressed buffer is too short"))?;
        let length = i64::from_le_bytes(prefix.try_into().expect("eight bytes"));
        let bytes_max = (content.len() as u64).saturating_mul(expands_max).min(pheon_os::process::total_memory_bytes());
        // -1: it is not compressed after all.
        if length != -1 && u64::try_from(length).is_ok_and(|bytes| bytes > bytes_max) || length < -1 {
            let packed = content.len();
            return Err(invalid(format!("a compressed buffer of {packed} bytes claims to hold {length}")));
        }
    }
    Ok(())
}

struct Slices {
    path: PathBuf,
    data: Buffer,
    decoder: FileDecoder,
    blocks: std::vec::IntoIter<Block>,
    batch_rows: usize,
    rows_read: u64,
    pending: Option<RecordBatch>,
}

impl Slices {
    fn decode(&mut self) -> Result<Option<RecordBatch>, ArrowError> {
        for block in self.blocks.by_ref() {
            let bytes = block_bytes(&self.data, &block)?;
            let message = message(&bytes, &block)?;
            check_buffers(&bytes, &block, &message)?;
            if message.header_as_dictionary_batch().is_some() {
                self.decoder.read_dictionary(&block, &bytes)?;
            } else if let Some(batch) = self.decoder.read_record_batch(&block, &bytes)? {
                return Ok(Some(batch));
            }
        }
        Ok(None)
    }
}

impl Iterator for Slices {
    type Item = Result<RecordBatch, WriteError>;

    fn next(&mut self) -> Option<Self::Item> {
        let batch = match self.pending.take() {
            Some(batch) => batch,
            None => {
                let (path, place) = (self.path.clone(), format!("the batch after row {}", self.rows_read));
                match guard(&path, &place, || self.decode()) {
                    Ok(batch) => batch?,
                    Err(e) => return Some(Err(e)),
                }
            }
        };
        if batch.num_rows() <= self.batch_rows {
            self.rows_read += batch.num_rows() as u64;
            return Some(Ok(batch));
        }
        self.pending = Some(batch.slice(self.batch_rows, batch.num_rows() - self.batch_rows));
        self.rows_read += self.batch_rows as u64;
        Some(Ok(batch.slice(0, self.batch_rows)))
    }
}

/// Runs a decoder on bytes that nobody vouches for. arrow-ipc and parquet check most of them, but an inconsistent file
/// can still trip an assertion there; to the caller that is a damaged file like any other.
pub(super) fn guard<T>(
    path: &Path,
    place: &str,
    decode: impl FnOnce() -> Result<T, ArrowError>,
) -> Result<T, WriteError> {
    untrusted::guard(decode).map_err(|e| input(path, format!("it is damaged at {place}: {e}")))
}
