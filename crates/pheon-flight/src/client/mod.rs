//! A client of `pheon serve`: docs/flight.md as Rust calls.
//!
//! ```no_run
//! use std::sync::Arc;
//! use arrow_array::{RecordBatch, StringArray};
//! use pheon_flight::client::{Client, ClientOptions, LookupOptions, Put, Scan};
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let client = Client::connect("grpc://host:8815", ClientOptions::default().token("secret")).await?;
//! let words = |column: &str, words: &[&str]| RecordBatch::try_from_iter([
//!     (column, Arc::new(StringArray::from(words.to_vec())) as _),
//! ]);
//!
//! let rows = RecordBatch::try_from_iter([
//!     ("word", Arc::new(StringArray::from(vec!["quick", "lazy"])) as _),
//!     ("synonym", Arc::new(StringArray::from(vec!["fast", "idle"])) as _),
//! ])?;
//! let put = Put::publish("synonyms").key(["word"]).value(["synonym"]).map(true);
//! let mut writer = client.put(&put, rows.schema())?;
//! writer.write(rows).await?;
//! writer.commit().await?; // nothing is visible before
//!
//! let keys = words("word", &["lazy", "brown"])?;
//! let mut lookup = client.lookup(&LookupOptions::dataset("synonyms"), keys.schema()).await?;
//! let values = lookup.get_many(&keys).await?; // aligned with the keys, null where one is missing
//!
//! let mut stream = client.scan(&Scan::dataset("synonyms").prefix("la")).await?;
//! while let Some(batch) = stream.next_batch().await? {
//!     println!("{} rows", batch.num_rows());
//! }
//! # Ok(())
//! # }
//! ```
//!
//! [`blocking`] is the same for callers without a runtime.

mod abort;
mod action;
pub mod blocking;
mod connection;
mod error;
mod live;
mod lookup;
mod options;
mod outgoing;
mod put;
mod scan;
mod sql;

use std::sync::Arc;

use arrow_schema::SchemaRef;

pub use action::{DatasetFacts, StoreFacts};
use connection::Connection;
pub use error::{ClientError, Refusal};
pub use live::{LiveAnswer, LiveOperation};
pub use lookup::{Lookup, LookupOptions};
pub use options::ClientOptions;
pub use put::{Published, Put, PutMode, PutWriter};
pub use scan::{Key, Scan, ScanInfo, ScanStream};
pub use sql::SqlAnswer;

/// A connection to a server. Clones share it; any number of calls may be under way.
#[derive(Clone)]
pub struct Client {
    connection: Arc<Connection>,
}

impl Client {
    /// Connects to `grpc://host:port`, `grpc+tls://host:port` or `grpc+unix:///path`, and logs in.
    ///
    /// # Errors
    /// The URI or an option does not fit, nobody listens there, or the credentials are refused.
    pub async fn connect(uri: &str, options: ClientOptions) -> Result<Self, ClientError> {
        Ok(Self { connection: Connection::open(uri, options).await? })
    }

    /// Where it is connected to.
    #[must_use]
    pub fn uri(&self) -> &str {
        &self.connection.uri
    }

    /// What is known of rows before they are read.
    ///
    /// # Errors
    /// The server refused, or the connection broke.
    pub async fn scan_info(&self, scan: &Scan) -> Result<ScanInfo, ClientError> {
        self.connection.info("ask about rows", &scan.descriptor()?, true).await
    }

    /// Reads rows, all of one version.
    ///
    /// # Errors
    /// The server refused, or the connection broke.
    pub async fn scan(&self, scan: &Scan) -> Result<ScanStream, ClientError> {
        let info = self.scan_info(scan).await?;
        self.connection.stream("read rows", info, true).await
    }

    /// Begins to look keys up, which have these columns: one a key column.
    ///
    /// # Errors
    /// The server refused, or the connection broke.
    pub async fn lookup(&self, options: &LookupOptions, keys: SchemaRef) -> Result<Lookup, ClientError> {
        Lookup::begin(Arc::clone(&self.connection), options, keys).await
    }

    /// Begins to write rows with these columns. Nothing is sent before the first of them; what the server has against it
    /// is told by one of the next calls.
    ///
    /// # Errors
    /// The command cannot be written.
    pub fn put(&self, put: &Put, schema: SchemaRef) -> Result<PutWriter, ClientError> {
        PutWriter::begin(Arc::clone(&self.connection), put, schema)
    }
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client").field("uri", &self.connection.uri).finish_non_exhaustive()
    }
}
