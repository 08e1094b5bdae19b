//! `PartHandle`: a part of a build that any process may write. `pheon.MapPart` is its face in Python.

use pheon::Part;
use pyo3::prelude::*;

use crate::errors::{read_error, write_error};
use crate::ingest::{Codec, Target};
use crate::options::BuildOptions;
use crate::sink::Destination;
use crate::writer::WriterHandle;

/// Where a part is and how it is built.
#[pyclass(frozen, module = "pheon._native")]
pub(crate) struct PartHandle {
    part: Part,
    columns: (String, String),
    codec: Codec,
}

impl PartHandle {
    pub(crate) fn new(part: Part, columns: (String, String), codec: Codec) -> Self {
        Self { part, columns, codec }
    }
}

#[pymethods]
impl PartHandle {
    /// The part that `state` wrote down.
    #[new]
    fn reopen(py: Python<'_>, text: &str, columns: (String, String), codec: Option<&str>) -> PyResult<Self> {
        let part = Part::from_text(text).map_err(|e| write_error(py, &e))?;
        Ok(Self { part, columns, codec: Codec::parse(codec)? })
    }

    #[getter]
    fn name(&self) -> &str {
        self.part.name()
    }

    /// The arguments that reopen it in another process.
    fn state(&self, py: Python<'_>) -> PyResult<(String, (String, String), Option<&'static str>)> {
        let text = self.part.to_text().map_err(|e| write_error(py, &e))?;
        Ok((text, self.columns.clone(), self.codec.name()))
    }

    /// How many rows it has, if it is finished.
    fn finished_rows(&self, py: Python<'_>) -> PyResult<Option<u64>> {
        py.detach(|| self.part.finished_rows()).map_err(|e| read_error(py, &e))
    }

    /// Begins to write it.
    fn writer(&self, py: Python<'_>, options: BuildOptions) -> PyResult<WriterHandle> {
        let job = options.resolve(vec![self.columns.0.clone()], true)?;
        let target = Target {
            destination: Destination::Part(Box::new(self.part.clone())),
            name: self.part.dataset().to_owned(),
            job,
            columns: self.columns.clone(),
            codec: self.codec,
        };
        WriterHandle::open(py, target)
    }
}
