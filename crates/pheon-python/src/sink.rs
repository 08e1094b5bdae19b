//! Where rows go: into a store's files, into a part of a build, or to a server.

use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow_array::RecordBatch;
use arrow_schema::SchemaRef;
use pheon::{Part, PartWriter, Resume, Store, Unfinished, Writer};
use pheon_flight::client::blocking;
use pyo3::prelude::*;

use crate::errors::{Error, write_error};
use crate::options::Job;
use crate::remote::{Link, client_error};

/// How often a `progress` callback is told of rows that were sent.
const REPORT_EVERY: Duration = Duration::from_millis(100);

/// What takes rows.
#[derive(Clone)]
pub(crate) enum Destination {
    Local(Store),
    /// A build that takes up what an interrupted one has finished.
    Resumed(Store, Resume),
    Part(Box<Part>),
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
            Self::Resumed(..) | Self::Part(_) => self.open(py, name, job),
            Self::Remote(link) => {
                let put = job.remote(name);
                let writer = link.call(py, |client| client.put(&put, schema.clone()))?;
                let now = Instant::now();
                Ok(Sink::Remote(Sending { writer, rows: 0, began: now, told: now }))
            }
        }
    }
}

impl Destination {
    /// A writer whose columns are those of the first rows, its own or those of its parts.
    pub(crate) fn open(&self, py: Python<'_>, name: &str, job: &Job) -> PyResult<Sink> {
        let writer_of_parts = |store: &Store, resume: Option<Resume>| {
            let writer = job.watch.run(py, || store.writer_of_parts(name, job.options.clone(), resume))?;
            Ok(Sink::Local(Box::new(writer)))
        };
        match self {
            Self::Local(store) => writer_of_parts(store, None),
            Self::Resumed(store, resume) => writer_of_parts(store, Some(resume.clone())),
            Self::Part(part) => {
                let writer = job.watch.run(py, || part.writer(job.part()))?;
                Ok(Sink::Part(Box::new(writer)))
            }
            Self::Remote(_) => Err(no_parts(name)),
        }
    }
}

fn no_parts(name: &str) -> PyErr {
    Error::new_err(format!(
        "{name:?}: parts are written by processes of the store's own host; open the store there, or send all rows through this writer"
    ))
}

/// Takes the rows of one version or of one part. Dropped, it publishes nothing.
pub(crate) enum Sink {
    Local(Box<Writer>),
    Part(Box<PartWriter>),
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
            Self::Part(writer) => job.watch.run(py, || writer.write(batch)),
            Self::Remote(sending) => sending.write(py, job, batch),
        }
    }

    /// Hands out a part.
    pub(crate) fn part(&mut self, py: Python<'_>, job: &Job, dataset: &str, name: Option<&str>) -> PyResult<Part> {
        match self {
            Self::Local(writer) => job.watch.run(py, || writer.part(name)),
            Self::Part(_) => Err(Error::new_err(format!("{dataset:?}: a part has no parts; ask its writer for more"))),
            Self::Remote(_) => Err(no_parts(dataset)),
        }
    }

    /// Fails if a part that was handed out is not finished.
    pub(crate) fn check_parts(&self, py: Python<'_>) -> PyResult<()> {
        match self {
            Self::Local(writer) => py.detach(|| writer.check_parts()).map_err(|e| write_error(py, &e)),
            _ => Ok(()),
        }
    }

    /// The columns so far: those that the part was handed out with, or that finished parts agree on.
    pub(crate) fn schema(&self, py: Python<'_>) -> PyResult<Option<SchemaRef>> {
        match self {
            Self::Local(writer) => py.detach(|| writer.schema()).map_err(|e| write_error(py, &e)),
            Self::Part(writer) => Ok(writer.part().schema().cloned()),
            Self::Remote(_) => Ok(None),
        }
    }

    /// Publishes; the version. Of a part: finishes it; how many rows it has.
    pub(crate) fn commit(self, py: Python<'_>, job: &Job, unfinished: Unfinished) -> PyResult<u64> {
        match self {
            Self::Local(writer) => job.watch.run(py, || writer.commit_with(unfinished)),
            Self::Part(writer) => job.watch.run(py, || writer.finish()),
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
