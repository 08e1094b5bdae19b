//! Where rows go: into a store's files, or to a server.

use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow_array::RecordBatch;
use arrow_schema::SchemaRef;
use pheon::{Store, Writer};
use pheon_flight::client::blocking;
use pyo3::prelude::*;

use crate::options::Job;
use crate::remote::{Link, client_error};

/// How often a `progress` callback is told of rows that were sent.
const REPORT_EVERY: Duration = Duration::from_millis(100);

/// What takes rows.
#[derive(Clone)]
pub(crate) enum Destination {
    Local(Store),
    Remote(Arc<Link>),
}

impl Destination {
    /// A writer of rows with this schema.
    pub(crate) fn writer(&self, py: Python<'_>, name: &str, job: &Job, schema: &SchemaRef) -> PyResult<Sink> {
        match self {
            Self::Local(store) => {
                let writer = job.watch.run(py, || job.writer(store, name, schema))?;
                Ok(Sink::Local(Box::new(writer)))
            }
            Self::Remote(link) => {
                let put = job.remote(name);
                let writer = link.call(py, |client| client.put(&put, schema.clone()))?;
                let now = Instant::now();
                Ok(Sink::Remote(Sending { writer, rows: 0, began: now, told: now }))
            }
        }
    }
}

/// Takes the rows of one version. Dropped, it publishes nothing.
pub(crate) enum Sink {
    Local(Box<Writer>),
    Remote(Sending),
}

/// Rows on their way to a server.
pub(crate) struct Sending {
    writer: blocking::Writer,
    rows: u64,
    began: Instant,
    told: Instant,
}

impl Sink {
    pub(crate) fn write(&mut self, py: Python<'_>, job: &Job, batch: &RecordBatch) -> PyResult<()> {
        match self {
            Self::Local(writer) => job.watch.run(py, || writer.write(batch)),
            Self::Remote(sending) => sending.write(py, job, batch),
        }
    }

    /// Publishes; the version.
    pub(crate) fn commit(self, py: Python<'_>, job: &Job) -> PyResult<u64> {
        match self {
            Self::Local(writer) => job.watch.run(py, || writer.commit()),
            Self::Remote(sending) => {
                sending.tell(py, job)?;
                let writer = sending.writer;
                Ok(py.detach(|| writer.commit()).map_err(|e| client_error(&e))?.version)
            }
        }
    }
}

impl Sending {
    fn write(&mut self, py: Python<'_>, job: &Job, batch: &RecordBatch) -> PyResult<()> {
        py.check_signals()?;
        py.detach(|| self.writer.write(batch.clone())).map_err(|e| client_error(&e))?;
        self.rows += batch.num_rows() as u64;
        if self.told.elapsed() >= REPORT_EVERY {
            self.told = Instant::now();
            self.tell(py, job)?;
        }
        Ok(())
    }

    fn tell(&self, py: Python<'_>, job: &Job) -> PyResult<()> {
        job.watch.sent(py, self.rows, job.options.expected_rows, self.began.elapsed())
    }
}
