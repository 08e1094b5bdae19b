//! One Arrow array from arrow-rs to polars-arrow, without a copy of its buffers: both speak Arrow's C data interface,
//! <https://arrow.apache.org/docs/format/CDataInterface.html>.
#![allow(unsafe_code)] // the structures of the C interface are moved from one library's type to the other's

use std::mem::transmute;

use arrow_array::ffi::{FFI_ArrowArray, FFI_ArrowSchema};
use arrow_data::ArrayData;
use arrow_schema::Field;
use polars_arrow::array::Array;
use polars_arrow::datatypes::{ArrowDataType, Field as PolarsField};
use polars_arrow::ffi;

/// A field in polars' words; what polars does not know is told by its error.
pub(super) fn field(field: &Field) -> Result<PolarsField, String> {
    let exported = FFI_ArrowSchema::try_from(field).map_err(|e| e.to_string())?;
    // SAFETY: both types are `repr(C)` and are the interface's `struct ArrowSchema`; `transmute` checks that they are of one
    // size. The exported structure is moved, so that its release callback runs once, when `schema` is dropped.
    let schema: ffi::ArrowSchema = unsafe { transmute(exported) };
    // SAFETY: arrow-rs filled it as the interface wants it, and it lives across the call, which keeps nothing of it.
    unsafe { ffi::import_field_from_c(&schema) }.map_err(|e| e.to_string())
}

/// The array that `data` is, of the type that [`field`] gave for the type of `data`. Shares its buffers and keeps them alive.
pub(super) fn array(data: &ArrayData, data_type: ArrowDataType) -> Result<Box<dyn Array>, String> {
    let exported = FFI_ArrowArray::new(data);
    // SAFETY: as in `field`, for `struct ArrowArray`. Its release callback runs when polars drops the last user of a buffer.
    let array: ffi::ArrowArray = unsafe { transmute(exported) };
    // SAFETY: `data` is a validated array, arrow-rs exported it as the interface wants it, and `data_type` is its type.
    unsafe { ffi::import_array_from_c(array, data_type) }.map_err(|e| e.to_string())
}
