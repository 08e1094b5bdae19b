//! Writing an Arrow IPC file with one record batch whose buffers have planned places (docs/format.md section 3).
//!
//! ```text
//! "ARROW1\0\0" | schema | dictionary batches | batch metadata | body: buffer .. gap .. buffer .. | end | footer
//!                                              reserved, written last
//! ```

use std::path::Path;
use std::sync::Arc;

use arrow_array::ArrayRef;
use arrow_ipc::convert::IpcSchemaEncoder;
use arrow_ipc::writer::DictionaryTracker;
use arrow_ipc::{
    Block as BlockEntry, Buffer as BufferEntry, DictionaryBatchBuilder, FieldNode, FooterBuilder, MessageBuilder,
    MessageHeader, MetadataVersion, RecordBatchBuilder,
};
use arrow_schema::{DataType, SchemaRef};
use flatbuffers::FlatBufferBuilder;
use pheon_os::fs::FileSystem;
use xxhash_rust::xxh3::Xxh3;

use super::block::{Block, Bounds};
use super::sink::{Sink, count_parts};
use super::stream::{ALIGNMENT_BYTES, Planner, Target};
use crate::error::WriteError;
use crate::manifest::{BufferRecord, FileRecord};

const MAGIC: &[u8; 6] = b"ARROW1";
/// What precedes every message's metadata: a marker and the metadata's length.
const PREFIX_BYTES: u64 = 8;
const CONTINUATION: [u8; 4] = [0xFF; 4];

/// A file whose schema is written and whose dictionaries and batch are to come.
pub(crate) struct ArrowFile {
    target: Arc<Target>,
    schema: SchemaRef,
    end: u64,
    dictionaries: Vec<BlockEntry>,
}

/// A batch that is being written.
pub(crate) struct BatchFile {
    file: ArrowFile,
    sinks: Vec<Sink>,
    metadata_offset: u64,
    metadata_bytes: u64,
    rows: u64,
}

/// A file whose bytes are all written but perhaps not on disk.
pub(crate) struct WrittenFile {
    pub(crate) record: FileRecord,
    pub(crate) target: Arc<Target>,
}

impl ArrowFile {
    /// Creates the file with its schema.
    pub(crate) fn create(fs: &dyn FileSystem, path: &Path, schema: SchemaRef) -> Result<Self, WriteError> {
        let target = Arc::new(Target::create(fs, path)?);
        let mut fbb = FlatBufferBuilder::new();
        let mut tracker = DictionaryTracker::new(true);
        let header =
            IpcSchemaEncoder::new().with_dictionary_tracker(&mut tracker).schema_to_fb_offset(&mut fbb, &schema);
        let message = message(fbb, MessageHeader::Schema, header.as_union_value(), 0);
        let mut head = MAGIC.to_vec();
        head.resize(8, 0);
        let length = (PREFIX_BYTES + message.len() as u64).next_multiple_of(ALIGNMENT_BYTES);
        head.extend(framed(&message, length));
        target.write_at(0, &head)?;
        Ok(Self { target, schema, end: head.len() as u64, dictionaries: Vec::new() })
    }

    /// Writes the dictionary that the schema numbers `id`; `values` in shape.
    pub(crate) fn write_dictionary(&mut self, id: i64, values: &ArrayRef) -> Result<(), WriteError> {
        let shape = [values.data_type().clone()];
        let mut bounds = Bounds::new(&shape[0]);
        bounds.add(values);
        let offset = self.end.next_multiple_of(8);
        let (metadata_bytes, mut sinks) = self.plan(offset, &shape, &[bounds], 1 << 20);
        sinks[0].append(values)?;
        let batch = self.finish_batch(sinks, offset, metadata_bytes, values.len() as u64, Some(id))?;
        self.dictionaries.push(batch.entry);
        self.end = batch.end;
        Ok(())
    }

    /// Plans the record batch. All columns together stage at most about `memory_bytes`.
    pub(crate) fn begin(self, shapes: &[DataType], bounds: &[Bounds], memory_bytes: u64) -> BatchFile {
        let metadata_offset = self.end.next_multiple_of(8);
        let (metadata_bytes, sinks) = self.plan(metadata_offset, shapes, bounds, memory_bytes);
        BatchFile { file: self, sinks, metadata_offset, metadata_bytes, rows: 0 }
    }

    /// Reserves the metadata of a batch at `offset`, such that the body begins at a multiple of 64, and plans the body.
    fn plan(&self, offset: u64, shapes: &[DataType], bounds: &[Bounds], memory_bytes: u64) -> (u64, Vec<Sink>) {
        let (nodes, buffers) = shapes.iter().map(count_parts).fold((0, 0), |a, b| (a.0 + b.0, a.1 + b.1));
        // Zeros are left out of the metadata, so ones give its greatest length.
        let nodes = vec![FieldNode::new(1, 1); nodes];
        let entries = vec![BufferEntry::new(1, 1); buffers];
        let longest = batch_message(1, &nodes, &entries, 1, Some(1)).len() as u64;
        let body = (offset + PREFIX_BYTES + longest).next_multiple_of(ALIGNMENT_BYTES);
        let mut planner = Planner::new(self.target.clone(), body, buffers, memory_bytes);
        let sinks = shapes.iter().zip(bounds).map(|(s, b)| Sink::plan(s, b, &mut planner)).collect();
        (body - offset, sinks)
    }

    /// Writes what the sinks still hold, then the metadata.
    fn finish_batch(
        &self,
        sinks: Vec<Sink>,
        offset: u64,
        metadata_bytes: u64,
        rows: u64,
        dictionary: Option<i64>,
    ) -> Result<FinishedBatch, WriteError> {
        let (mut nodes, mut buffers) = (Vec::new(), Vec::new());
        sinks.into_iter().try_for_each(|s| s.finish(&mut nodes, &mut buffers))?;
        let body = offset + metadata_bytes;
        let end = buffers.iter().map(|b| b.offset + b.length).max().unwrap_or(body).max(body);
        let end = end.next_multiple_of(ALIGNMENT_BYTES);
        let entries: Vec<_> = buffers
            .iter()
            // A buffer without bytes may have been planned beyond the last one that has some.
            .map(|b| BufferEntry::new(b.offset.min(end) as i64 - body as i64, b.length as i64))
            .collect();
        for buffer in &mut buffers {
            buffer.offset = buffer.offset.min(end);
        }
        let message = batch_message(rows as i64, &nodes, &entries, (end - body) as i64, dictionary);
        self.target.write_at(offset, &framed(&message, metadata_bytes))?;
        let entry = BlockEntry::new(offset as i64, metadata_bytes as i32, (end - body) as i64);
        Ok(FinishedBatch { entry, body, end, buffers })
    }

    fn footer(&self, batch: BlockEntry) -> Vec<u8> {
        let mut fbb = FlatBufferBuilder::new();
        let dictionaries = fbb.create_vector(&self.dictionaries);
        let batches = fbb.create_vector(&[batch]);
        let mut tracker = DictionaryTracker::new(true);
        let schema =
            IpcSchemaEncoder::new().with_dictionary_tracker(&mut tracker).schema_to_fb_offset(&mut fbb, &self.schema);
        let mut footer = FooterBuilder::new(&mut fbb);
        footer.add_version(MetadataVersion::V5);
        footer.add_schema(schema);
        footer.add_dictionaries(dictionaries);
        footer.add_recordBatches(batches);
        let footer = footer.finish();
        fbb.finish(footer, None);
        fbb.finished_data().to_vec()
    }
}

struct FinishedBatch {
    entry: BlockEntry,
    body: u64,
    end: u64,
    buffers: Vec<BufferRecord>,
}

impl BatchFile {
    /// Appends rows.
    pub(crate) fn append(&mut self, block: &Block) -> Result<(), WriteError> {
        self.rows += block.rows as u64;
        self.sinks.iter_mut().zip(&block.columns).try_for_each(|(sink, column)| sink.append(column))
    }

    /// Appends rows of the only column, which is of fixed width and has no nulls, as they lie in memory.
    pub(crate) fn append_raw(&mut self, rows: usize, bytes: &[u8]) -> Result<(), WriteError> {
        self.rows += rows as u64;
        self.sinks[0].append_raw(rows, bytes)
    }

    /// Rows so far.
    pub(crate) fn rows(&self) -> u64 {
        self.rows
    }

    /// Writes all that is left. The file is complete but perhaps not on disk.
    pub(crate) fn finish(self, fs: &dyn FileSystem) -> Result<WrittenFile, WriteError> {
        let Self { file, sinks, metadata_offset, metadata_bytes, rows } = self;
        let batch = file.finish_batch(sinks, metadata_offset, metadata_bytes, rows, None)?;
        let mut tail = CONTINUATION.to_vec();
        tail.extend([0; 4]);
        let footer = file.footer(batch.entry);
        tail.extend(&footer);
        tail.extend((footer.len() as i32).to_le_bytes());
        tail.extend(MAGIC);
        file.target.write_at(batch.end, &tail)?;
        let record = FileRecord {
            size_bytes: batch.end + tail.len() as u64,
            body_offset: batch.body,
            body_bytes: batch.end - batch.body,
            metadata_xxh3_128: metadata_hash(fs, file.target.path(), batch.body, &tail)?,
            buffers: batch.buffers,
        };
        Ok(WrittenFile { record, target: file.target })
    }
}

/// XXH3-128 of the file's first `head` bytes followed by `tail`. Dictionaries can be large, so the head is read back.
fn metadata_hash(fs: &dyn FileSystem, path: &Path, head: u64, tail: &[u8]) -> Result<u128, WriteError> {
    let failed = |e| WriteError::io("reading back", path, e);
    let file = fs.open_read(path).map_err(failed)?;
    let mut hash = Xxh3::new();
    let mut piece = vec![0; head.min(1 << 20) as usize];
    let mut at = 0;
    while at < head {
        let now = (head - at).min(piece.len() as u64) as usize;
        file.read_at(at, &mut piece[..now]).map_err(failed)?;
        hash.update(&piece[..now]);
        at += now as u64;
    }
    hash.update(tail);
    Ok(hash.digest128())
}

/// A message with its prefix, padded with zeros to `length` bytes.
fn framed(message: &[u8], length: u64) -> Vec<u8> {
    let length = length as usize;
    let mut bytes = Vec::with_capacity(length);
    bytes.extend(CONTINUATION);
    bytes.extend((length as i32 - PREFIX_BYTES as i32).to_le_bytes());
    bytes.extend(message);
    assert!(bytes.len() <= length, "{} bytes of metadata where {length} were reserved", bytes.len());
    bytes.resize(length, 0);
    bytes
}

type Header = flatbuffers::WIPOffset<flatbuffers::UnionWIPOffset>;

fn message(mut fbb: FlatBufferBuilder<'_>, kind: MessageHeader, header: Header, body_bytes: i64) -> Vec<u8> {
    let mut message = MessageBuilder::new(&mut fbb);
    message.add_version(MetadataVersion::V5);
    message.add_header_type(kind);
    message.add_bodyLength(body_bytes);
    message.add_header(header);
    let message = message.finish();
    fbb.finish(message, None);
    fbb.finished_data().to_vec()
}

fn batch_message(
    rows: i64,
    nodes: &[FieldNode],
    buffers: &[BufferEntry],
    body_bytes: i64,
    dictionary: Option<i64>,
) -> Vec<u8> {
    let mut fbb = FlatBufferBuilder::new();
    let buffers = fbb.create_vector(buffers);
    let nodes = fbb.create_vector(nodes);
    let mut batch = RecordBatchBuilder::new(&mut fbb);
    batch.add_length(rows);
    batch.add_nodes(nodes);
    batch.add_buffers(buffers);
    let batch = batch.finish();
    let Some(id) = dictionary else {
        return message(fbb, MessageHeader::RecordBatch, batch.as_union_value(), body_bytes);
    };
    let mut dictionary = DictionaryBatchBuilder::new(&mut fbb);
    dictionary.add_id(id);
    dictionary.add_data(batch);
    let dictionary = dictionary.finish();
    message(fbb, MessageHeader::DictionaryBatch, dictionary.as_union_value(), body_bytes)
}
