//! A published Arrow file: mapped, its metadata checked against the manifest, its buffers found but not yet believed.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow_array::{ArrayRef, RecordBatch};
use arrow_buffer::Buffer;
use arrow_ipc::reader::FileDecoder;
use arrow_ipc::{Block, MetadataVersion};
use arrow_schema::{ArrowError, DataType, SchemaRef};
use pheon_os::fs::FileSystem;
use pheon_os::map::{HUGE_PAGE_BYTES, ReadMap};
use xxhash_rust::xxh3::Xxh3;

use crate::access::Access;
use crate::error::ReadError;
use crate::manifest::FileRecord;
use crate::untrusted;

const MAGIC: &[u8; 6] = b"ARROW1";
/// Bytes after the footer: its length and the magic.
const TRAILER_LEN: usize = 10;

/// An Arrow file of a published segment. Opening costs O(metadata), not O(rows).
#[derive(Debug, Clone)]
pub(crate) struct ArrowFile {
    pub(crate) path: PathBuf,
    pub(crate) schema: SchemaRef,
    pub(crate) rows: u64,
    /// The record batch's buffers in order, each a view of the mapping.
    pub(crate) buffers: Vec<Buffer>,
    pub(crate) map: Arc<ReadMap>,
    /// How it is read: never [`Access::Auto`].
    pub(crate) access: Access,
    whole: Buffer,
    /// Of a file that is read at random: the same bytes once more, for who reads many of them in order.
    in_order: Option<Buffer>,
    batch_block: Block,
    dictionary_blocks: Vec<Block>,
}

/// Lets `bytes::Bytes` own a shared mapping.
struct SharedMap(Arc<ReadMap>);

impl AsRef<[u8]> for SharedMap {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl ArrowFile {
    /// Maps `path` and checks everything but the contents of its buffers.
    pub(crate) fn open(
        fs: &dyn FileSystem,
        path: PathBuf,
        record: &FileRecord,
        access: Access,
    ) -> Result<Self, ReadError> {
        let map = Arc::new(map(fs, &path)?);
        // Before the first byte is read.
        match access {
            Access::Random => map.advise_random(),
            Access::Memory | Access::Auto if map.len() >= HUGE_PAGE_BYTES => {
                // A kernel without large pages refuses, and means what was asked for.
                let _ = map.advise_huge(true);
            }
            Access::Memory | Access::Auto => {}
        }
        let parsed =
            Parsed::parse(&map, record).map_err(|(place, problem)| ReadError::corrupt(&path, place, problem))?;
        let whole = buffer_of(map.clone());
        let buffers =
            record.buffers.iter().map(|b| whole.slice_with_length(b.offset as usize, b.length as usize)).collect();
        Ok(Self {
            path,
            schema: parsed.schema,
            rows: parsed.rows,
            buffers,
            map,
            access,
            whole,
            in_order: None,
            batch_block: parsed.batch_block,
            dictionary_blocks: parsed.dictionary_blocks,
        })
    }

    /// Maps the file once more if it is read at random, for [`ArrowFile::in_order`].
    pub(crate) fn map_in_order(&mut self, fs: &dyn FileSystem) -> Result<(), ReadError> {
        if self.access == Access::Random {
            // Without advice, the kernel reads ahead of who reads in order, and around others.
            self.in_order = Some(buffer_of(Arc::new(map(fs, &self.path)?)));
        }
        Ok(())
    }

    /// The same bytes as `buffer`, which is one of this file, where reading them in order is best.
    pub(crate) fn in_order(&self, buffer: &Buffer) -> Buffer {
        let offset = buffer.as_ptr().addr().wrapping_sub(self.whole.as_ptr().addr());
        match &self.in_order {
            // Of an empty buffer the address may be anywhere.
            Some(file) if offset.checked_add(buffer.len()).is_some_and(|end| end <= file.len()) => {
                file.slice_with_length(offset, buffer.len())
            }
            _ => buffer.clone(),
        }
    }

    /// Fails if the file has another length by now than what was mapped: somebody cut it, and to read the missing part would
    /// end the process. One that is gone was collected, and its mapping is good.
    pub(crate) fn check_length(&self, fs: &dyn FileSystem) -> Result<(), ReadError> {
        match fs.metadata(&self.path) {
            Ok(meta) if meta.len_bytes != self.map.len() as u64 => {
                let problem = format!("expected {} bytes, found {}", self.map.len(), meta.len_bytes);
                Err(self.corrupt("its length", problem))
            }
            _ => Ok(()),
        }
    }

    /// Asks for bytes that are about to be read, which lie in a buffer of this file, if it is read at random.
    pub(crate) fn ask(&self, bytes: &[u8]) {
        if self.access == Access::Random {
            let from = bytes.as_ptr().addr().wrapping_sub(self.map.as_ptr().addr());
            self.map.advise_willneed(from..from.saturating_add(bytes.len()));
        }
    }

    pub(crate) fn corrupt(&self, place: impl Into<String>, problem: impl Into<String>) -> ReadError {
        ReadError::corrupt(&self.path, place, problem)
    }

    /// Decodes and fully validates one column. Costs O(rows).
    pub(crate) fn decode_column(&self, column: usize) -> Result<ArrayRef, ReadError> {
        // Its metadata may be a faulty writer's: only an Arrow writer's lets the decoder go through without a panic.
        untrusted::guard(|| self.try_decode(column))
            .map_err(|e| self.corrupt(format!("column {:?}", self.schema.field(column).name()), e.to_string()))
    }

    fn try_decode(&self, column: usize) -> Result<ArrayRef, ArrowError> {
        let mut decoder = FileDecoder::new(self.schema.clone(), MetadataVersion::V5)
            .with_projection(vec![column])
            .with_require_alignment(true);
        for block in &self.dictionary_blocks {
            decoder.read_dictionary(block, &self.block(block))?;
        }
        let batch: RecordBatch = decoder
            .read_record_batch(&self.batch_block, &self.block(&self.batch_block))?
            .ok_or_else(|| ArrowError::IpcError("the record batch is missing".to_owned()))?;
        Ok(batch.column(0).clone())
    }

    fn block(&self, block: &Block) -> Buffer {
        let length = block.metaDataLength() as usize + block.bodyLength() as usize;
        self.in_order(&self.whole.slice_with_length(block.offset() as usize, length))
    }

    pub(crate) fn metadata(&self) -> &HashMap<String, String> {
        &self.schema.metadata
    }
}

fn map(fs: &dyn FileSystem, path: &Path) -> Result<ReadMap, ReadError> {
    fs.map(path).map_err(|e| match e.kind() {
        std::io::ErrorKind::InvalidData => ReadError::corrupt(path, "its kind", e.to_string()),
        _ => ReadError::io("map", path, e),
    })
}

fn buffer_of(map: Arc<ReadMap>) -> Buffer {
    Buffer::from(bytes::Bytes::from_owner(SharedMap(map)))
}

struct Parsed {
    schema: SchemaRef,
    rows: u64,
    batch_block: Block,
    dictionary_blocks: Vec<Block>,
}

type Problem = (&'static str, String);

impl Parsed {
    fn parse(bytes: &[u8], record: &FileRecord) -> Result<Self, Problem> {
        if bytes.len() as u64 != record.size_bytes {
            return Err(("its length", format!("expected {} bytes, found {}", record.size_bytes, bytes.len())));
        }
        let found =
            metadata_checksum(bytes, record).ok_or(("its length", "its body lies outside the file".to_owned()))?;
        if found != record.metadata_xxh3_128 {
            return Err((
                "its metadata",
                format!("expected XXH3-128 {:032x}, found {found:032x}", record.metadata_xxh3_128),
            ));
        }
        let footer_problem = |problem: &str| ("its footer", problem.to_owned());
        let footer_end = bytes.len().checked_sub(TRAILER_LEN).ok_or_else(|| footer_problem("the file is too short"))?;
        if &bytes[..MAGIC.len()] != MAGIC || &bytes[footer_end + 4..] != MAGIC {
            return Err(footer_problem("it is not an Arrow IPC file"));
        }
        let footer_len = u32::from_le_bytes(bytes[footer_end..footer_end + 4].try_into().expect("four bytes")) as usize;
        let footer_start = footer_end.checked_sub(footer_len).ok_or_else(|| footer_problem("its length is wrong"))?;
        let footer =
            arrow_ipc::root_as_footer(&bytes[footer_start..footer_end]).map_err(|e| ("its footer", e.to_string()))?;
        let schema = footer.schema().ok_or_else(|| footer_problem("it has no schema"))?;
        let schema = untrusted::schema(schema).map_err(|e| ("its schema", e.to_string()))?;
        let batches = footer.recordBatches().ok_or_else(|| footer_problem("it names no record batch"))?;
        if batches.len() != 1 {
            return Err(footer_problem(&format!("expected one record batch, found {}", batches.len())));
        }
        let batch_block = *batches.get(0);
        let dictionary_blocks: Vec<Block> =
            footer.dictionaries().map(|d| d.iter().copied().collect()).unwrap_or_default();
        for block in dictionary_blocks.iter().chain([&batch_block]) {
            check_block(block, bytes.len()).ok_or_else(|| footer_problem("a block lies outside the file"))?;
        }
        for block in &dictionary_blocks {
            check_dictionary(bytes, block)?;
        }
        let rows = check_batch(bytes, &batch_block, &schema, record)?;
        Ok(Self { schema, rows, batch_block, dictionary_blocks })
    }
}

fn check_block(block: &Block, file_len: usize) -> Option<()> {
    let start = u64::try_from(block.offset()).ok()?;
    let meta = u64::try_from(block.metaDataLength()).ok()?;
    let body = u64::try_from(block.bodyLength()).ok()?;
    (meta >= 8 && start.checked_add(meta)?.checked_add(body)? <= file_len as u64).then_some(())
}

/// A buffer that says that it is compressed also says how long it becomes, and the decoder believes that.
fn check_dictionary(bytes: &[u8], block: &Block) -> Result<(), Problem> {
    let wrong = |problem: String| ("a dictionary", problem);
    let start = block.offset() as usize;
    let message = &bytes[start..start + block.metaDataLength() as usize];
    let message = arrow_ipc::root_as_message(&message[8..]).map_err(|e| wrong(e.to_string()))?;
    let dictionary =
        message.header_as_dictionary_batch().ok_or_else(|| wrong("the message is not a dictionary".to_owned()))?;
    if dictionary.data().is_some_and(|batch| batch.compression().is_some()) {
        return Err(wrong("its buffers are compressed".to_owned()));
    }
    Ok(())
}

/// Checks the record batch message against the schema and the manifest; returns its rows.
fn check_batch(bytes: &[u8], block: &Block, schema: &SchemaRef, record: &FileRecord) -> Result<u64, Problem> {
    let wrong = |problem: String| ("its record batch", problem);
    let start = block.offset() as usize;
    let body_start = start + block.metaDataLength() as usize;
    if body_start as u64 != record.body_offset || block.bodyLength() as u64 != record.body_bytes {
        return Err(wrong("its body is not where the manifest says".to_owned()));
    }
    let message = &bytes[start..body_start];
    // A continuation marker and the length stand before the message.
    let message = arrow_ipc::root_as_message(&message[8..]).map_err(|e| wrong(e.to_string()))?;
    let batch =
        message.header_as_record_batch().ok_or_else(|| wrong("the message is not a record batch".to_owned()))?;
    if batch.compression().is_some() {
        return Err(wrong("its buffers are compressed".to_owned()));
    }
    let rows = u64::try_from(batch.length()).map_err(|e| wrong(e.to_string()))?;
    let nodes = batch.nodes().map_or(0, |n| n.len());
    let (mut want_nodes, mut want_buffers) = (0, 0);
    for field in schema.fields() {
        let (n, b) = layout_of(field.data_type());
        want_nodes += n;
        want_buffers += b;
    }
    let buffers = batch.buffers().ok_or_else(|| wrong("it has no buffers".to_owned()))?;
    if nodes != want_nodes || buffers.len() != want_buffers || record.buffers.len() != want_buffers {
        return Err(wrong(format!(
            "expected {want_nodes} nodes and {want_buffers} buffers, found {nodes} and {}, {} in the manifest",
            buffers.len(),
            record.buffers.len()
        )));
    }
    for (i, (here, there)) in buffers.iter().zip(&record.buffers).enumerate() {
        let offset = u64::try_from(here.offset()).ok().and_then(|o| o.checked_add(record.body_offset));
        if offset != Some(there.offset) || u64::try_from(here.length()).ok() != Some(there.length) {
            return Err(wrong(format!("buffer {i} is not where the manifest says")));
        }
        let end = there.offset.checked_add(there.length);
        if end.is_none_or(|end| end > record.body_offset + record.body_bytes) {
            return Err(wrong(format!("buffer {i} lies outside the body")));
        }
        if there.length > 0 && there.offset % 64 != 0 {
            return Err(wrong(format!("buffer {i} is not aligned to 64 bytes")));
        }
    }
    Ok(rows)
}

/// How many field nodes and buffers a column of this type has in a record batch without view types.
pub(crate) fn layout_of(data_type: &DataType) -> (usize, usize) {
    use DataType as D;
    let with = |buffers: usize, children: &mut dyn Iterator<Item = &DataType>| {
        children.fold((1, buffers), |(n, b), child| {
            let (cn, cb) = layout_of(child);
            (n + cn, b + cb)
        })
    };
    match data_type {
        D::Null => (1, 0),
        D::Utf8 | D::LargeUtf8 | D::Binary | D::LargeBinary => (1, 3),
        D::List(f) | D::LargeList(f) | D::Map(f, _) => with(2, &mut std::iter::once(f.data_type())),
        D::FixedSizeList(f, _) => with(1, &mut std::iter::once(f.data_type())),
        D::Struct(fields) => with(1, &mut fields.iter().map(|f| f.data_type())),
        D::Union(fields, mode) => {
            let own = if *mode == arrow_schema::UnionMode::Dense { 2 } else { 1 };
            with(own, &mut fields.iter().map(|(_, f)| f.data_type()))
        }
        D::ListView(f) | D::LargeListView(f) => with(3, &mut std::iter::once(f.data_type())),
        D::RunEndEncoded(ends, values) => with(0, &mut [ends.data_type(), values.data_type()].into_iter()),
        _ => (1, 2),
    }
}

/// XXH3-128 of everything but the record batch's body; `None` if the body lies outside the file.
pub(crate) fn metadata_checksum(bytes: &[u8], record: &FileRecord) -> Option<u128> {
    let body_end = record.body_offset.checked_add(record.body_bytes)?;
    let before = bytes.get(..usize::try_from(record.body_offset).ok()?)?;
    let after = bytes.get(usize::try_from(body_end).ok()?..)?;
    let mut hasher = Xxh3::new();
    hasher.update(before);
    hasher.update(after);
    Some(hasher.digest128())
}

/// The path of a segment's folder.
pub(crate) fn segment_dir(dataset_dir: &Path, id: &str) -> PathBuf {
    dataset_dir.join(format!("seg-{id}"))
}
