//! Facts about a version, as a dict.

use pheon::Info;
use pyo3::prelude::*;
use pyo3::types::PyDict;

/// Every field of [`Info`]; the schema as column names with their types printed.
pub(crate) fn info_dict<'py>(py: Python<'py>, info: &Info) -> PyResult<Bound<'py, PyDict>> {
    let columns = PyDict::new(py);
    for field in info.schema.fields() {
        columns.set_item(field.name(), field.data_type().to_string())?;
    }
    let facts = PyDict::new(py);
    facts.set_item("name", &info.name)?;
    facts.set_item("version", info.version)?;
    facts.set_item("path", info.path.display().to_string())?;
    facts.set_item("created_unix_ms", info.created_unix_ms)?;
    facts.set_item("origin", &info.origin)?;
    facts.set_item("rows", info.rows)?;
    facts.set_item("key", &info.key)?;
    facts.set_item("unique", info.unique)?;
    facts.set_item("columns", columns)?;
    facts.set_item("segments", info.segments)?;
    facts.set_item("hidden_rows", info.hidden_rows)?;
    facts.set_item("data_bytes", info.data_bytes)?;
    facts.set_item("index_bytes", info.index_bytes)?;
    facts.set_item("index_keys", info.index_keys)?;
    facts.set_item("access", info.access.to_string())?;
    Ok(facts)
}
