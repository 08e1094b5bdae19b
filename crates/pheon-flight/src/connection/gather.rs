//! Puts the frames of bulk data together before they are written.
//!
//! gRPC clients take HTTP/2 frames of 16 KiB, and h2 writes and flushes each alone: a system call for each 16 KiB, which is
//! most of the time of a fast stream. Copying frames into a buffer that stays in the processor's cache costs less than those
//! calls. Small writes, answers to single lookups above all, go out at once.

use std::io::{self, IoSlice};
use std::task::{Poll, ready};

/// A write of so many bytes is a frame of bulk data: others are about to follow.
const BULK_BYTES_MIN: usize = 8 << 10;
/// So many bytes are put together, and no more.
const GATHERED_BYTES_MAX: usize = 256 << 10;

/// Frames that wait to be written.
#[derive(Default)]
pub(super) struct Gather {
    bytes: Vec<u8>,
    /// So many of `bytes` are written.
    written: usize,
    /// The last frame that was taken was one of bulk data.
    more_follow: bool,
}

impl Gather {
    pub(super) fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Whether `slices`, `total` bytes, have to go through here: they are bulk data, or other data waits before them.
    pub(super) fn wants(&self, total: usize) -> bool {
        !self.is_empty() || (BULK_BYTES_MIN..=GATHERED_BYTES_MAX).contains(&total)
    }

    /// Takes them, or says with `false` that the buffer has to be drained first.
    pub(super) fn take(&mut self, slices: &[IoSlice<'_>], total: usize) -> bool {
        if total > GATHERED_BYTES_MAX - self.bytes.len() {
            return false;
        }
        if self.bytes.capacity() == 0 {
            self.bytes.reserve_exact(GATHERED_BYTES_MAX);
        }
        slices.iter().for_each(|slice| self.bytes.extend_from_slice(slice));
        self.more_follow = total >= BULK_BYTES_MIN;
        true
    }

    /// Whether a flush may wait until the connection is polled again.
    pub(super) fn may_wait(&self) -> bool {
        self.more_follow && !self.is_empty()
    }

    /// Writes everything out.
    pub(super) fn poll_drain(
        &mut self,
        mut write: impl FnMut(&[u8]) -> Poll<io::Result<usize>>,
    ) -> Poll<io::Result<()>> {
        while self.written < self.bytes.len() {
            match ready!(write(&self.bytes[self.written..]))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                n => self.written += n,
            }
        }
        self.bytes.clear();
        self.written = 0;
        self.more_follow = false;
        Poll::Ready(Ok(()))
    }

    /// Gives the memory back if nothing waits.
    pub(super) fn release(&mut self) {
        if self.is_empty() && self.bytes.capacity() > 0 {
            self.bytes = Vec::new();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn take(gather: &mut Gather, bytes: &[u8]) -> bool {
        gather.take(&[IoSlice::new(&bytes[..1]), IoSlice::new(&bytes[1..])], bytes.len())
    }

    #[test]
    fn bytes_come_out_once_and_in_order() {
        let mut gather = Gather::default();
        let (bulk, tail) = (vec![1; BULK_BYTES_MIN], [2, 3]);
        assert!(!gather.wants(tail.len()), "a small write alone goes out at once");
        assert!(gather.wants(bulk.len()) && take(&mut gather, &bulk) && gather.may_wait());
        assert!(gather.wants(tail.len()), "nothing overtakes what waits");
        assert!(take(&mut gather, &tail) && !gather.may_wait(), "a small frame is the last one");
        let mut out = Vec::new();
        let mut blocked = false;
        // A socket that takes 5,000 bytes now and nothing the next time.
        while gather
            .poll_drain(|bytes| {
                blocked = !blocked;
                if !blocked {
                    return Poll::Pending;
                }
                let taken = bytes.len().min(5_000);
                out.extend_from_slice(&bytes[..taken]);
                Poll::Ready(Ok(taken))
            })
            .is_pending()
        {}
        assert_eq!(out, [bulk.as_slice(), &tail].concat());
        assert!(gather.is_empty());
    }

    #[test]
    fn what_does_not_fit_waits_for_the_drain() {
        let mut gather = Gather::default();
        let half = vec![0; GATHERED_BYTES_MAX / 2 + 1];
        assert!(take(&mut gather, &half) && !take(&mut gather, &half));
        assert!(!Gather::default().wants(GATHERED_BYTES_MAX + 1), "large frames go out as they are");
        assert!(matches!(gather.poll_drain(|_| Poll::Ready(Ok(0))), Poll::Ready(Err(_))));
    }
}
