//! Arrow IPC files and streams, mapped: a batch of any size is decoded without copying it and handed out in slices.

use std::io::Cursor;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow_array::RecordBatch;
use arrow_buffer::Buffer;
use arrow_ipc::reader::{FileDecoder, StreamDecoder, StreamReader, read_footer_length};
use arrow_ipc::{Block, Footer, convert::fb_to_schema, root_as_footer, root_as_message};
use arrow_schema::{ArrowError, SchemaRef};

use super::{Batches, Format, Source, input};
use crate::error::WriteError;

const FILE_MAGIC: &[u8] = b"ARROW1";
const FEATHER_1_MAGIC: &[u8] = b"FEA1";
/// Footer length (4 bytes) and magic (6 bytes) at the end of a file.
const TRAILER_BYTES: usize = 10;

pub(super) fn look(path: &Path) -> Result<Source, WriteError> {
    let data = map(path)?;
    let (schema, rows_estimate) = if data.starts_with(FILE_MAGIC) {
        guard(path, "the footer", || {
            let footer = footer(&data)?;
            let blocks: Vec<Block> = footer.recordBatches().iter().flatten().copied().collect();
            let rows = blocks.iter().map(|block| block_rows(&data, block)).sum();
            Ok((file_schema(&footer)?, rows))
        })?
    } else {
        let schema =
            guard(path, "its start", || Ok(StreamReader::try_new(Cursor::new(data.as_slice()), None)?.schema()));
        (schema.map_err(|e| not_arrow(path, &data, e))?, None)
    };
    Ok(Source { path: path.into(), format: Format::Arrow, schema, rows_estimate, batch_rows: usize::MAX })
}

pub(super) fn open(source: &Source, target: &SchemaRef) -> Result<Batches, WriteError> {
    let path = source.path.clone();
    let data = map(&path)?;
    let decoder = if data.starts_with(FILE_MAGIC) {
        let wanted = source.schema.fields().iter().enumerate();
        let wanted = wanted.filter(|(_, f)| target.index_of(f.name()).is_ok()).map(|(i, _)| i).collect();
        guard(&path, "the footer", || Decoder::file(data, wanted))?
    } else {
        Decoder::Stream { rest: data, decoder: Box::default() }
    };
    Ok(Box::new(Slices { path, decoder, batch_rows: source.batch_rows, rows_read: 0, pending: None }))
}

fn map(path: &Path) -> Result<Buffer, WriteError> {
    let map = pheon_os::fs::real().map(path).map_err(|e| input(path, e.to_string()))?;
    Ok(Buffer::from(bytes::Bytes::from_owner(map)))
}

fn not_arrow(path: &Path, data: &[u8], error: WriteError) -> WriteError {
    if data.is_empty() {
        input(path, "the file is empty; expected an Arrow file or stream")
    } else if data.starts_with(FEATHER_1_MAGIC) {
        input(path, "it is Feather version 1; write it again as version 2 (Arrow IPC)")
    } else if data.starts_with(&[0xFF; 4]) {
        error
    } else {
        let head = &data[..data.len().min(8)];
        input(
            path,
            format!(
                "expected an Arrow file (ARROW1) or stream, found a file that begins with \"{}\"",
                head.escape_ascii()
            ),
        )
    }
}

fn footer(data: &Buffer) -> Result<Footer<'_>, ArrowError> {
    let invalid = |problem: String| ArrowError::ParseError(problem);
    let trailer = data.len().checked_sub(TRAILER_BYTES).ok_or_else(|| invalid("the file is too short".into()))?;
    let tail = data[trailer..].try_into().expect("as long as the trailer");
    let length =
        read_footer_length(tail).map_err(|_| invalid("the file does not end in ARROW1; it is cut short".into()))?;
    let start =
        trailer.checked_sub(length).ok_or_else(|| invalid(format!("a footer of {length} bytes exceeds the file")))?;
    root_as_footer(&data[start..trailer]).map_err(|e| invalid(e.to_string()))
}

fn file_schema(footer: &Footer<'_>) -> Result<SchemaRef, ArrowError> {
    let schema = footer.schema().ok_or_else(|| ArrowError::ParseError("it holds no schema".into()))?;
    if !schema.endianness().equals_to_target_endianness() {
        return Err(ArrowError::ParseError(
            "it was written on a big-endian machine; write it again on a little-endian one".into(),
        ));
    }
    Ok(Arc::new(fb_to_schema(schema)))
}

/// The bytes of a message with its body; `None` if they lie outside the file.
fn block_bytes(data: &Buffer, block: &Block) -> Option<Buffer> {
    let start = usize::try_from(block.offset()).ok()?;
    let metadata = usize::try_from(block.metaDataLength()).ok()?;
    let length = metadata.checked_add(usize::try_from(block.bodyLength()).ok()?)?;
    (start.checked_add(length)? <= data.len()).then(|| data.slice_with_length(start, length))
}

fn block_rows(data: &Buffer, block: &Block) -> Option<u64> {
    let bytes = block_bytes(data, block)?;
    // Since format 0.15 a message begins with a continuation marker of 4 bytes; then comes its length.
    let prefix = if bytes.starts_with(&[0xFF; 4]) { 8 } else { 4 };
    let message = root_as_message(bytes.get(prefix..)?).ok()?;
    u64::try_from(message.header_as_record_batch()?.length()).ok()
}

enum Decoder {
    File { data: Buffer, decoder: Box<FileDecoder>, blocks: std::vec::IntoIter<Block> },
    Stream { rest: Buffer, decoder: Box<StreamDecoder> },
}

impl Decoder {
    fn file(data: Buffer, wanted: Vec<usize>) -> Result<Self, ArrowError> {
        let footer = footer(&data)?;
        let mut decoder = FileDecoder::new(file_schema(&footer)?, footer.version()).with_projection(wanted);
        for block in footer.dictionaries().iter().flatten() {
            decoder.read_dictionary(block, &block_bytes(&data, block).ok_or_else(outside)?)?;
        }
        let blocks: Vec<Block> = footer.recordBatches().iter().flatten().copied().collect();
        Ok(Self::File { data, decoder: Box::new(decoder), blocks: blocks.into_iter() })
    }

    fn next(&mut self) -> Result<Option<RecordBatch>, ArrowError> {
        match self {
            Self::File { data, decoder, blocks } => match blocks.next() {
                Some(block) => decoder.read_record_batch(&block, &block_bytes(data, &block).ok_or_else(outside)?),
                None => Ok(None),
            },
            Self::Stream { rest, decoder } => match decoder.decode(rest)? {
                None => decoder.finish().map(|()| None),
                batch => Ok(batch),
            },
        }
    }
}

fn outside() -> ArrowError {
    ArrowError::ParseError("the footer points outside the file".into())
}

struct Slices {
    path: PathBuf,
    decoder: Decoder,
    batch_rows: usize,
    rows_read: u64,
    pending: Option<RecordBatch>,
}

impl Iterator for Slices {
    type Item = Result<RecordBatch, WriteError>;

    fn next(&mut self) -> Option<Self::Item> {
        let batch = match self.pending.take() {
            Some(batch) => batch,
            None => {
                let place = format!("the batch after row {}", self.rows_read);
                match guard(&self.path, &place, || self.decoder.next()) {
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

/// Runs a decoder on bytes that nobody vouches for. arrow-ipc and parquet check most of them, but an inconsistent file can still trip an
/// assertion there; to the caller that is a damaged file like any other.
pub(super) fn guard<T>(
    path: &Path,
    place: &str,
    decode: impl FnOnce() -> Result<T, ArrowError>,
) -> Result<T, WriteError> {
    match catch_unwind(AssertUnwindSafe(decode)) {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(e)) => Err(input(path, format!("it is damaged at {place}: {e}"))),
        Err(panic) => {
            let text = panic.downcast_ref::<String>().map(String::as_str).or(panic.downcast_ref::<&str>().copied());
            Err(input(path, format!("it is damaged at {place}: {}", text.unwrap_or("its parts contradict each other"))))
        }
    }
}
