//! `pheon.Column`: one Arrow array for whoever speaks the Arrow PyCapsule protocol, NumPy, or plain Python.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use arrow_array::cast::AsArray;
use arrow_array::types::{
    DurationMicrosecondType, DurationMillisecondType, DurationNanosecondType, DurationSecondType, Float32Type,
    Float64Type, TimestampMicrosecondType, TimestampMillisecondType, TimestampNanosecondType, TimestampSecondType,
};
use arrow_array::{Array, ArrayRef, ArrowPrimitiveType, PrimitiveArray, UInt64Array, make_array};
use arrow_buffer::{Buffer, NullBuffer};
use arrow_data::ArrayData;
use arrow_schema::{DataType, Field, FieldRef, TimeUnit};
use pyo3::buffer::PyBuffer;
use pyo3::exceptions::{PyAttributeError, PyIndexError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyCapsule, PyDict, PySlice, PyTuple};
use pyo3_arrow::ffi::{to_array_pycapsules, to_schema_pycapsule};

use crate::decode::{ValueCodec, column_objects};
use crate::errors::arrow_error;

/// A column of a table, or the answer of a batch lookup. Shares the mapping where it is part of one.
///
/// It exports ``__arrow_c_array__`` and, for fixed-width columns without nulls, ``__array_interface__`` (both without a copy).
#[pyclass(frozen, module = "pheon", name = "Column")]
pub(crate) struct PyColumn {
    field: FieldRef,
    array: ArrayRef,
    codec: ValueCodec,
}

impl PyColumn {
    pub(crate) fn parts(&self) -> (&FieldRef, &ArrayRef, ValueCodec) {
        (&self.field, &self.array, self.codec)
    }

    pub(crate) fn new(field: FieldRef, array: ArrayRef, codec: ValueCodec) -> Self {
        Self { field, array, codec }
    }
}

#[pymethods]
impl PyColumn {
    /// The column's name.
    #[getter]
    fn name(&self) -> &str {
        self.field.name()
    }

    /// The Arrow type, printed.
    #[getter]
    fn type_name(&self) -> String {
        self.array.data_type().to_string()
    }

    /// How many values are null.
    #[getter]
    fn null_count(&self) -> usize {
        self.array.logical_null_count()
    }

    /// Whether the values are stored by a codec (msgpack, pickle); Arrow consumers see the encoded bytes.
    #[getter]
    fn encoded(&self) -> bool {
        self.codec != ValueCodec::Plain
    }

    fn __len__(&self) -> usize {
        self.array.len()
    }

    fn __iter__(slf: &Bound<'_, Self>) -> PyResult<ColumnIter> {
        Ok(ColumnIter { column: slf.clone().unbind(), next: AtomicUsize::new(0) })
    }

    fn __getitem__<'py>(&self, py: Python<'py>, index: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        let len = self.array.len();
        if let Ok(slice) = index.cast::<PySlice>() {
            let (start, len) = contiguous(slice, len)?;
            let part = Self { field: self.field.clone(), array: self.array.slice(start, len), codec: self.codec };
            return Ok(Bound::new(py, part)?.into_any());
        }
        let at = position(index, len)?;
        let mut one = column_objects(py, &self.array.slice(at, 1), self.codec)?;
        Ok(one.pop().unwrap_or_else(|| py.None().into_bound(py)))
    }

    /// All values as Python objects.
    fn to_pylist<'py>(&self, py: Python<'py>) -> PyResult<Vec<Bound<'py, PyAny>>> {
        column_objects(py, &self.array, self.codec)
    }

    /// The column with NaN or NaT instead of nulls, where its type has one; else the column itself.
    fn without_nulls(&self) -> Self {
        let array = match self.array.data_type() {
            DataType::Float32 => fill::<Float32Type>(&self.array, f32::NAN),
            DataType::Float64 => fill::<Float64Type>(&self.array, f64::NAN),
            DataType::Timestamp(TimeUnit::Second, _) => fill::<TimestampSecondType>(&self.array, NAT),
            DataType::Timestamp(TimeUnit::Millisecond, _) => fill::<TimestampMillisecondType>(&self.array, NAT),
            DataType::Timestamp(TimeUnit::Microsecond, _) => fill::<TimestampMicrosecondType>(&self.array, NAT),
            DataType::Timestamp(TimeUnit::Nanosecond, _) => fill::<TimestampNanosecondType>(&self.array, NAT),
            DataType::Duration(TimeUnit::Second) => fill::<DurationSecondType>(&self.array, NAT),
            DataType::Duration(TimeUnit::Millisecond) => fill::<DurationMillisecondType>(&self.array, NAT),
            DataType::Duration(TimeUnit::Microsecond) => fill::<DurationMicrosecondType>(&self.array, NAT),
            DataType::Duration(TimeUnit::Nanosecond) => fill::<DurationNanosecondType>(&self.array, NAT),
            _ => self.array.clone(),
        };
        Self { field: self.field.clone(), array, codec: self.codec }
    }

    #[pyo3(signature = (requested_schema=None))]
    fn __arrow_c_array__<'py>(
        &self,
        py: Python<'py>,
        requested_schema: Option<Bound<'py, PyCapsule>>,
    ) -> PyResult<Bound<'py, PyTuple>> {
        Ok(to_array_pycapsules(py, self.field.clone(), &self.array, requested_schema)?)
    }

    fn __arrow_c_schema__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyCapsule>> {
        Ok(to_schema_pycapsule(py, self.field.as_ref())?)
    }

    /// NumPy's view of a fixed-width column without nulls; any other column has no such attribute.
    #[getter]
    fn __array_interface__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let typestr = numpy_type(self.array.data_type()).filter(|_| self.array.null_count() == 0).ok_or_else(|| {
            PyAttributeError::new_err("this column is not fixed-width without nulls, so NumPy cannot view it")
        })?;
        let data = self.array.to_data();
        let width = data.data_type().primitive_width().unwrap_or(1);
        let address = data.buffers()[0].as_ptr() as usize + data.offset() * width;
        let interface = PyDict::new(py);
        interface.set_item("version", 3)?;
        interface.set_item("shape", (self.array.len(),))?;
        interface.set_item("typestr", typestr)?;
        // Read-only: the memory is a mapping of the store's file.
        interface.set_item("data", (address, true))?;
        Ok(interface)
    }

    fn __repr__(&self) -> String {
        format!("<pheon.Column {:?}: {}, {} values>", self.field.name(), self.array.data_type(), self.array.len())
    }
}

/// NumPy's "not a time".
const NAT: i64 = i64::MIN;

fn fill<T: ArrowPrimitiveType>(array: &ArrayRef, with: T::Native) -> ArrayRef {
    if array.null_count() == 0 {
        return array.clone();
    }
    let values = array.as_primitive::<T>();
    let filled = values.iter().map(|v| v.unwrap_or(with));
    Arc::new(PrimitiveArray::<T>::from_iter_values(filled).with_data_type(array.data_type().clone()))
}

/// Goes through a column in steps that decode many values at once.
#[pyclass(frozen, module = "pheon._native")]
pub(crate) struct ColumnIter {
    column: Py<PyColumn>,
    next: AtomicUsize,
}

#[pymethods]
impl ColumnIter {
    fn __iter__(slf: PyRef<'_, Self>) -> PyRef<'_, Self> {
        slf
    }

    fn __next__<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyAny>>> {
        let column = self.column.get();
        let at = self.next.fetch_add(1, Ordering::Relaxed);
        if at >= column.array.len() {
            self.next.store(column.array.len(), Ordering::Relaxed);
            return Ok(None);
        }
        Ok(column_objects(py, &column.array.slice(at, 1), column.codec)?.pop())
    }
}

/// Numbers from a buffer of 64-bit integers: `i8`, `u8`, or `M8[unit]` and `m8[unit]`, where NaT becomes null.
#[pyfunction]
pub(crate) fn column_of_buffer(py: Python<'_>, buffer: &Bound<'_, PyAny>, kind: &str) -> PyResult<PyColumn> {
    let array: ArrayRef = if kind == "u8" {
        Arc::new(UInt64Array::from(PyBuffer::<u64>::get(buffer)?.to_vec(py)?))
    } else {
        let ticks = PyBuffer::<i64>::get(buffer)?.to_vec(py)?;
        let data_type = match kind {
            "i8" => DataType::Int64,
            "M8[s]" => DataType::Timestamp(TimeUnit::Second, None),
            "M8[ms]" => DataType::Timestamp(TimeUnit::Millisecond, None),
            "M8[us]" => DataType::Timestamp(TimeUnit::Microsecond, None),
            "M8[ns]" => DataType::Timestamp(TimeUnit::Nanosecond, None),
            "m8[s]" => DataType::Duration(TimeUnit::Second),
            "m8[ms]" => DataType::Duration(TimeUnit::Millisecond),
            "m8[us]" => DataType::Duration(TimeUnit::Microsecond),
            "m8[ns]" => DataType::Duration(TimeUnit::Nanosecond),
            other => return Err(PyValueError::new_err(format!("{other:?} names no type of 64-bit numbers"))),
        };
        let valid: Option<NullBuffer> =
            (kind != "i8" && ticks.contains(&NAT)).then(|| ticks.iter().map(|t| *t != NAT).collect());
        let data =
            ArrayData::builder(data_type).len(ticks.len()).nulls(valid).add_buffer(Buffer::from_vec(ticks)).build();
        make_array(data.map_err(|e| arrow_error("read a buffer", &e))?)
    };
    let field = Arc::new(Field::new("key", array.data_type().clone(), true));
    Ok(PyColumn::new(field, array, ValueCodec::Plain))
}

/// NumPy's name of a type with the same layout.
fn numpy_type(data_type: &DataType) -> Option<String> {
    use DataType as D;
    let unit = |unit: &TimeUnit| match unit {
        TimeUnit::Second => "s",
        TimeUnit::Millisecond => "ms",
        TimeUnit::Microsecond => "us",
        TimeUnit::Nanosecond => "ns",
    };
    Some(match data_type {
        D::Int8 => "|i1".to_owned(),
        D::Int16 => "<i2".to_owned(),
        D::Int32 => "<i4".to_owned(),
        D::Int64 => "<i8".to_owned(),
        D::UInt8 => "|u1".to_owned(),
        D::UInt16 => "<u2".to_owned(),
        D::UInt32 => "<u4".to_owned(),
        D::UInt64 => "<u8".to_owned(),
        D::Float16 => "<f2".to_owned(),
        D::Float32 => "<f4".to_owned(),
        D::Float64 => "<f8".to_owned(),
        D::Timestamp(u, _) => format!("<M8[{}]", unit(u)),
        D::Duration(u) => format!("<m8[{}]", unit(u)),
        D::Date64 => "<M8[ms]".to_owned(),
        _ => return None,
    })
}

/// Start and length of a slice with step 1.
pub(crate) fn contiguous(slice: &Bound<'_, PySlice>, len: usize) -> PyResult<(usize, usize)> {
    let found = slice.indices(isize::try_from(len).unwrap_or(isize::MAX))?;
    if found.step != 1 {
        return Err(pyo3::exceptions::PyValueError::new_err(format!(
            "a slice's step is {}; only 1 shares the mapping, convert the data first",
            found.step
        )));
    }
    let start = usize::try_from(found.start).unwrap_or(0);
    Ok((start, usize::try_from(found.stop).unwrap_or(0).saturating_sub(start)))
}

/// A row number; negative ones count from the end.
pub(crate) fn position(index: &Bound<'_, PyAny>, len: usize) -> PyResult<usize> {
    let at: i64 = index.extract()?;
    let from_start = if at < 0 { at + i64::try_from(len).unwrap_or(i64::MAX) } else { at };
    usize::try_from(from_start)
        .ok()
        .filter(|&i| i < len)
        .ok_or_else(|| PyIndexError::new_err(format!("row {at} of {len}")))
}
