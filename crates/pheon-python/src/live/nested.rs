//! The lists and dicts inside a map: `pheon._live_nested`.

use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::PyType;

/// What of `pheon._live_nested` is used here.
struct Module {
    nest: Py<PyAny>,
    dict: Py<PyType>,
    list: Py<PyType>,
}

impl Module {
    fn get(py: Python<'_>) -> PyResult<&'static Self> {
        static MODULE: PyOnceLock<Module> = PyOnceLock::new();
        MODULE.get_or_try_init(py, || {
            let module = py.import("pheon._live_nested")?;
            let class = |name| PyResult::Ok(module.getattr(name)?.cast_into::<PyType>()?.unbind());
            Ok(Self { nest: module.getattr("nest")?.unbind(), dict: class("LiveDict")?, list: class("LiveList")? })
        })
    }
}

/// A list or dict, which a transaction wrote to this key of a map, as one whose changes go to the map.
pub(super) fn nest<'py>(
    map: &Bound<'py, PyAny>,
    key: &Bound<'py, PyAny>,
    plain: Bound<'py, PyAny>,
    written: u64,
) -> PyResult<Bound<'py, PyAny>> {
    let py = map.py();
    Module::get(py)?.nest.bind(py).call1((map, key, plain, written))
}

/// Whether an object is what [`nest`] makes.
#[inline]
pub(super) fn is_nested(object: &Bound<'_, PyAny>) -> PyResult<bool> {
    let (module, class) = (Module::get(object.py())?, object.get_type());
    Ok(class.is(&module.dict) || class.is(&module.list))
}

/// What a nested container holds now, plain.
pub(super) fn plain_of<'py>(nested: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
    nested.call_method0(pyo3::intern!(nested.py(), "plain"))
}

/// Whether a nested container is all of the value of this key of the map, as after ``d[key] += [1]``.
pub(super) fn stands_at(nested: &Bound<'_, PyAny>, map: &Bound<'_, PyAny>, key: &Bound<'_, PyAny>) -> PyResult<bool> {
    nested.call_method1(pyo3::intern!(nested.py(), "stands_at"), (map, key))?.extract()
}
