//! Chunks of rows in final order go through worker threads and come out in the same order.

use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};

use arrow_schema::ArrowError;

use super::block::Block;
use super::cells::{Cells, FromColumn};
use super::gather::gather;
use super::sort::Place;
use crate::error::WriteError;
use crate::key::KeyType;

/// Rows of a chunk at most.
pub(crate) const CHUNK_ROWS_MAX: usize = 1 << 16;
/// Bytes of a chunk, roughly.
pub(crate) const CHUNK_BYTES: u64 = 8 << 20;

/// Chunks on their way for each thread: with fewer, all threads but one often wait for the oldest.
const IN_FLIGHT_A_THREAD: usize = 3;

/// Rows that follow each other in the final order.
pub(crate) struct Chunk {
    pub(crate) blocks: Arc<[Arc<Block>]>,
    pub(crate) rows: Rows,
    /// Which rows of the chunk begin a new key, ascending; `None`: every one.
    pub(crate) heads: Option<Vec<u32>>,
}

/// Which rows of a chunk's blocks.
pub(crate) enum Rows {
    /// The only block as it is.
    Whole,
    /// These, in this order.
    At(Vec<Place>),
}

/// A chunk put together.
pub(crate) struct Ready {
    pub(crate) block: Block,
    /// Hashes of the keys, where asked for: of every head if `heads` is given, else of every row.
    pub(crate) hashes: Vec<u64>,
    pub(crate) heads: Option<Vec<u32>>,
}

/// What to hash while the keys are hot.
#[derive(Clone, Copy)]
pub(crate) struct Hashing {
    pub(crate) column: usize,
    pub(crate) key_type: KeyType,
    pub(crate) seed: u64,
}

/// Gathers a chunk's rows, the first `columns` columns of them, and hashes its keys.
pub(crate) fn prepare(chunk: Chunk, columns: usize, hashing: Option<Hashing>) -> Result<Ready, WriteError> {
    let block = match chunk.rows {
        Rows::Whole => {
            let whole = &chunk.blocks[0];
            Block { rows: whole.rows, columns: whole.columns[..columns].to_vec() }
        }
        Rows::At(places) => gather(&chunk.blocks, &places, columns).map_err(|e| gathering(&e))?,
    };
    let hashes = hashing.map_or_else(Vec::new, |h| hashes(&block, h, chunk.heads.as_deref()));
    Ok(Ready { block, hashes, heads: chunk.heads })
}

fn gathering(e: &ArrowError) -> WriteError {
    WriteError::Limit { problem: format!("putting rows in order: {e}") }
}

fn hashes(block: &Block, hashing: Hashing, heads: Option<&[u32]>) -> Vec<u64> {
    super::cells::with_cells!(hashing.key_type, C => {
        let cells = C::from_column(&block.columns[hashing.column], hashing.key_type);
        match heads {
            Some(heads) => heads.iter().map(|&row| cells.key(row as usize).hash(hashing.seed)).collect(),
            None => (0..block.rows).map(|row| cells.key(row).hash(hashing.seed)).collect(),
        }
    })
}

/// How a producer hands chunks on.
pub(crate) type Send<'a> = dyn FnMut(Chunk) -> Result<(), WriteError> + 'a;

/// Runs `produce`; every chunk that it sends goes through `work` on one of `threads` threads, and then, in the order in
/// which it was sent, to `consume` on this thread. The first error ends everything. One thread does all in turn.
pub(crate) fn run<R: std::marker::Send>(
    threads: usize,
    produce: impl FnOnce(&mut Send<'_>) -> Result<(), WriteError> + std::marker::Send,
    work: impl Fn(Chunk) -> Result<R, WriteError> + Sync,
    mut consume: impl FnMut(R) -> Result<(), WriteError>,
) -> Result<(), WriteError> {
    if threads <= 1 {
        return produce(&mut |chunk| consume(work(chunk)?));
    }
    // Chunks in flight are bounded by the length of this queue.
    let (order, ordered) = sync_channel::<Receiver<Result<R, WriteError>>>(IN_FLIGHT_A_THREAD * threads);
    let (give, take) = sync_channel::<(Chunk, SyncSender<Result<R, WriteError>>)>(IN_FLIGHT_A_THREAD * threads);
    // Owned by the workers alone: if all of them panic, the queue closes and the producer stops.
    let take = Arc::new(Mutex::new(take));
    std::thread::scope(|scope| {
        let producer = scope.spawn(move || {
            produce(&mut |chunk| {
                let (answer, result) = sync_channel(1);
                // A closed queue means that the consumer or a worker has failed; its error counts, not this one.
                order.send(result).map_err(|_| WriteError::Cancelled)?;
                give.send((chunk, answer)).map_err(|_| WriteError::Cancelled)
            })
        });
        let work = &work;
        let workers: Vec<_> = std::iter::repeat_n(take, threads)
            .map(|take| {
                scope.spawn(move || {
                    loop {
                        let next = take.lock().unwrap_or_else(PoisonError::into_inner).recv();
                        let Ok((chunk, answer)) = next else { return };
                        // Nobody waits for the answer once the consumer has failed.
                        let _ = answer.send(work(chunk));
                    }
                })
            })
            .collect();
        let mut outcome = Ok(());
        for result in &ordered {
            // A worker that panicked drops its end; joining it below carries the panic on.
            let Ok(ready) = result.recv() else { break };
            outcome = ready.and_then(&mut consume);
            if outcome.is_err() {
                break;
            }
        }
        // The producer may wait for room in the queue: let it see that nobody reads any more.
        drop(ordered);
        let produced = producer.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        for worker in workers {
            worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        }
        outcome.and(produced)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow_array::{ArrayRef, Int64Array};

    fn chunk(value: i64) -> Chunk {
        let column: ArrayRef = Arc::new(Int64Array::from(vec![value]));
        let block = Arc::new(Block { rows: 1, columns: vec![column] });
        Chunk { blocks: Arc::from([block]), rows: Rows::Whole, heads: None }
    }

    fn value(chunk: &Chunk) -> i64 {
        use arrow_array::cast::AsArray;
        chunk.blocks[0].columns[0].as_primitive::<arrow_array::types::Int64Type>().value(0)
    }

    #[test]
    fn chunks_keep_their_order() {
        for threads in [1, 2, 5] {
            let mut got = Vec::new();
            let produce = |send: &mut Send<'_>| (0..300).try_for_each(|i| send(chunk(i)));
            let work = |c: Chunk| {
                std::thread::sleep(std::time::Duration::from_micros((value(&c) * 7919 % 50) as u64));
                Ok(value(&c))
            };
            run(threads, produce, work, |v| {
                got.push(v);
                Ok(())
            })
            .unwrap();
            assert_eq!(got, (0..300).collect::<Vec<_>>());
        }
    }

    #[test]
    fn the_first_error_ends_everything() {
        let limit = |at: i64| Err(WriteError::Limit { problem: at.to_string() });
        let problem = |r: Result<(), WriteError>| r.unwrap_err().to_string();
        for threads in [1, 3] {
            let endless = |send: &mut Send<'_>| (0..).try_for_each(|i| send(chunk(i)));
            let ended = run(threads, endless, |c| Ok(value(&c)), |v| if v == 40 { limit(v) } else { Ok(()) });
            assert_eq!(problem(ended), "40");
            let work = |c: Chunk| if value(&c) == 41 { limit(41).map(|()| 0) } else { Ok(0) };
            assert_eq!(problem(run(threads, endless, work, |_| Ok(()))), "41");
            let failing = |send: &mut Send<'_>| {
                send(chunk(0))?;
                limit(42)
            };
            assert_eq!(problem(run(threads, failing, |_| Ok(()), |()| Ok(()))), "42");
        }
    }

    #[test]
    fn a_panic_is_carried_on() {
        let endless = |send: &mut Send<'_>| (0..).try_for_each(|i| send(chunk(i)));
        for first_bad in [5, 0] {
            let work = |c: Chunk| if value(&c) >= first_bad { panic!("worker") } else { Ok(()) };
            let ended = std::panic::catch_unwind(|| run(2, endless, work, |()| Ok(())));
            assert_eq!(*ended.unwrap_err().downcast::<&str>().unwrap(), "worker");
        }
    }
}
