//! Puts the frames of bulk data together before they are written.
//!
//! gRPC clients take HTTP/2 frames of 16 KiB, and h2 writes and flushes each alone: a system call for each 16 KiB, which is
//! most of the time of a fast stream. Here many frames become one vectored write. Slices of pieces that are [`Lent`] are kept
//! as they are; other bytes are copied. Small writes, answers to single lookups above all, go out at once.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::task::{Poll, ready};

use bytes::{Buf, Bytes, BytesMut};

use super::lent::Lent;

/// A write of so many bytes is a frame of bulk data: others are about to follow.
const BULK_BYTES_MIN: usize = 8 << 10;
/// So many bytes are put together, and no more.
const GATHERED_BYTES_MAX: usize = 512 << 10;
/// So many slices go into one write.
const SLICES_MAX: usize = 64;
/// Shorter slices are copied: they would cost more to keep.
const KEPT_BYTES_MIN: usize = 4 << 10;

/// Frames that wait to be written.
#[derive(Default)]
pub(super) struct Gather {
    /// In order; the last ones may still be in `copied`.
    parts: VecDeque<Bytes>,
    copied: BytesMut,
    /// Bytes of both.
    len: usize,
    /// The last frame that was taken was one of bulk data.
    more_follow: bool,
}

impl Gather {
    pub(super) fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Whether `count` slices, `total` bytes, have to go through here: they are bulk data, or other data waits before them.
    pub(super) fn wants(&self, total: usize, count: usize) -> bool {
        !self.is_empty() || ((BULK_BYTES_MIN..=GATHERED_BYTES_MAX).contains(&total) && 2 * count <= SLICES_MAX)
    }

    /// Takes them, or says with `false` that what waits has to be drained first.
    pub(super) fn take(&mut self, slices: &[IoSlice<'_>], total: usize, lent: &Lent) -> bool {
        if total > GATHERED_BYTES_MAX - self.len || self.parts.len() + 2 * slices.len() > SLICES_MAX {
            return false;
        }
        for slice in slices {
            match if slice.len() >= KEPT_BYTES_MIN { lent.find(slice) } else { None } {
                Some(kept) => {
                    self.close_copied();
                    self.parts.push_back(kept);
                }
                None => self.copied.extend_from_slice(slice),
            }
        }
        self.len += total;
        self.more_follow = total >= BULK_BYTES_MIN;
        true
    }

    fn close_copied(&mut self) {
        if !self.copied.is_empty() {
            self.parts.push_back(self.copied.split().freeze());
        }
    }

    /// Whether a flush may wait until the connection is polled again.
    pub(super) fn may_wait(&self) -> bool {
        self.more_follow && !self.is_empty()
    }

    /// Writes everything out.
    pub(super) fn poll_drain(
        &mut self,
        mut write: impl FnMut(&[IoSlice<'_>]) -> Poll<io::Result<usize>>,
    ) -> Poll<io::Result<()>> {
        self.close_copied();
        while self.len > 0 {
            let mut slices = [IoSlice::new(&[]); SLICES_MAX];
            let count = self.parts.len().min(SLICES_MAX);
            for (slice, part) in slices.iter_mut().zip(&self.parts) {
                *slice = IoSlice::new(part);
            }
            let mut written = match ready!(write(&slices[..count]))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                n => n,
            };
            self.len -= written;
            while let Some(part) = self.parts.front_mut().filter(|_| written > 0) {
                let taken = written.min(part.len());
                part.advance(taken);
                written -= taken;
                if part.is_empty() {
                    self.parts.pop_front();
                }
            }
        }
        self.more_follow = false;
        Poll::Ready(Ok(()))
    }

    /// Gives the memory back if nothing waits.
    pub(super) fn release(&mut self) {
        if self.is_empty() && (self.copied.capacity() > 0 || self.parts.capacity() > 0) {
            *self = Self::default();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn take(gather: &mut Gather, bytes: &[u8], lent: &Lent) -> bool {
        gather.take(&[IoSlice::new(&bytes[..1]), IoSlice::new(&bytes[1..])], bytes.len(), lent)
    }

    /// Drains it through a socket that takes 5,000 bytes now and nothing the next time.
    fn drained(gather: &mut Gather) -> Vec<u8> {
        let (mut out, mut blocked) = (Vec::new(), false);
        let mut write = |slices: &[IoSlice<'_>]| {
            blocked = !blocked;
            if !blocked {
                return Poll::Pending;
            }
            let bytes: Vec<u8> = slices.iter().flat_map(|slice| slice.iter().copied()).take(5_000).collect();
            out.extend_from_slice(&bytes);
            Poll::Ready(Ok(bytes.len()))
        };
        while gather.poll_drain(&mut write).is_pending() {}
        out
    }

    #[test]
    fn bytes_come_out_once_and_in_order() {
        let (mut gather, lent) = (Gather::default(), Lent::default());
        let (bulk, tail) = (vec![1; BULK_BYTES_MIN], [2, 3]);
        assert!(!gather.wants(tail.len(), 1), "a small write alone goes out at once");
        assert!(gather.wants(bulk.len(), 2) && take(&mut gather, &bulk, &lent) && gather.may_wait());
        assert!(gather.wants(tail.len(), 1), "nothing overtakes what waits");
        assert!(take(&mut gather, &tail, &lent) && !gather.may_wait(), "a small frame is the last one");
        assert_eq!(drained(&mut gather), [bulk.as_slice(), &tail].concat());
        assert!(gather.is_empty());
    }

    #[test]
    fn what_is_lent_is_not_copied() {
        let (mut gather, lent) = (Gather::default(), Lent::default());
        let piece: Bytes = (0..40_000_u32).map(|i| i as u8).collect::<Vec<_>>().into();
        lent.lend(1, piece.clone());
        let mut expected = Vec::new();
        for frame in piece.chunks(BULK_BYTES_MIN + 1) {
            expected.extend_from_slice(b"head");
            expected.extend_from_slice(frame);
            assert!(gather.take(&[IoSlice::new(b"head"), IoSlice::new(frame)], 4 + frame.len(), &lent));
        }
        assert_eq!(gather.parts.len(), 10, "a head and a slice of the piece for each frame");
        assert_eq!(gather.parts[1].as_ptr(), piece.as_ptr());
        drop(piece);
        assert_eq!(drained(&mut gather), expected);
    }

    #[test]
    fn what_does_not_fit_waits_for_the_drain() {
        let (mut gather, lent) = (Gather::default(), Lent::default());
        let half = vec![0; GATHERED_BYTES_MAX / 2 + 1];
        assert!(take(&mut gather, &half, &lent) && !take(&mut gather, &half, &lent));
        assert!(!Gather::default().wants(GATHERED_BYTES_MAX + 1, 2), "large frames go out as they are");
        assert!(matches!(gather.poll_drain(|_| Poll::Ready(Ok(0))), Poll::Ready(Err(_))));
        assert!(!Gather::default().wants(BULK_BYTES_MIN, SLICES_MAX), "so do many slices");
    }

    #[test]
    fn no_write_has_too_many_slices() {
        let (mut gather, lent) = (Gather::default(), Lent::default());
        let piece = Bytes::from(vec![7; KEPT_BYTES_MIN * SLICES_MAX]);
        lent.lend(1, piece.clone());
        let taken = piece
            .chunks(KEPT_BYTES_MIN)
            .take_while(|frame| gather.take(&[IoSlice::new(b"h"), IoSlice::new(frame)], 1 + frame.len(), &lent))
            .count();
        assert!(taken > 1 && taken < SLICES_MAX);
        let mut most = 0;
        let all = gather.poll_drain(|slices| {
            most = most.max(slices.len());
            Poll::Ready(Ok(slices.iter().map(|slice| slice.len()).sum()))
        });
        assert!(matches!(all, Poll::Ready(Ok(()))) && most <= SLICES_MAX && most >= 2 * taken);
    }
}
