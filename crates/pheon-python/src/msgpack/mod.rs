//! MessagePack for values that have no column type: lists, dicts, tuples, and columns of mixed scalars.
//!
//! Python objects are written and read without anything in between. A tuple is extension type [`TUPLE`], whose payload is a
//! MessagePack array; all else is plain MessagePack that any implementation reads. What comes out equals what went in.
//! Live maps have more extension types, and their own writer (the module `live`); the reader is the same.

mod decode;
mod encode;

pub(crate) use decode::{Extensions, Reader, decode, decode_with};
pub(crate) use encode::encode;

/// The extension type of a tuple.
pub(crate) const TUPLE: i8 = 1;
/// Lists, tuples and dicts may be nested so deep; deeper data is refused, on both ways.
pub(crate) const DEPTH_MAX: u32 = 200;
