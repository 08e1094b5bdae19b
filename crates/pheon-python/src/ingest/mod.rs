//! From Python objects to Arrow columns: which type a column gets, filling it, and the stream of pairs into a build.

mod column;
mod kind;
mod pairs;

pub(crate) use column::{CODEC_KEY, Refused, column_of_one, plain_column_of_one};
pub(crate) use kind::{plain, type_name};
pub(crate) use pairs::{Codec, PairWriter, PushError, Source, Target, put_pairs};
