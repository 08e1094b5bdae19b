//! Pieces of messages that a connection may write from where they lie.
//!
//! HTTP/2 hands a connection borrowed slices. Whoever put the pieces of a message into a response lends them to the
//! connection too: a slice that lies within one of these can be kept, by counting a reference instead of copying bytes.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

use bytes::Bytes;

/// So many pieces are remembered; slices of older ones are copied.
const PIECES_MAX: usize = 256;

/// One piece, of the response with this number.
struct Piece {
    response: u64,
    bytes: Bytes,
}

#[derive(Default)]
struct Pieces {
    kept: VecDeque<Piece>,
    responses: u64,
}

/// What is lent to one connection.
#[derive(Default)]
pub(super) struct Lent(Mutex<Pieces>);

impl Lent {
    fn pieces(&self) -> std::sync::MutexGuard<'_, Pieces> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A number for a response.
    pub(super) fn begin(&self) -> u64 {
        let mut pieces = self.pieces();
        pieces.responses += 1;
        pieces.responses
    }

    pub(super) fn lend(&self, response: u64, bytes: Bytes) {
        let mut pieces = self.pieces();
        if pieces.kept.len() == PIECES_MAX {
            pieces.kept.pop_front();
        }
        pieces.kept.push_back(Piece { response, bytes });
    }

    /// Nothing more comes of this response.
    pub(super) fn end(&self, response: u64) {
        self.pieces().kept.retain(|piece| piece.response != response);
    }

    /// `slice` as a part of the piece that it lies in. A piece is forgotten with its last byte.
    pub(super) fn find(&self, slice: &[u8]) -> Option<Bytes> {
        let wanted = slice.as_ptr_range();
        let mut pieces = self.pieces();
        let at = pieces.kept.iter().position(|piece| {
            let range = piece.bytes.as_ptr_range();
            range.start <= wanted.start && wanted.end <= range.end
        })?;
        let piece = &pieces.kept[at].bytes;
        let found = piece.slice_ref(slice);
        if piece.as_ptr_range().end == wanted.end {
            pieces.kept.remove(at);
        }
        Some(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slice_is_found_in_its_piece_until_the_last_byte() {
        let lent = Lent::default();
        let (one, two) = (Bytes::from(vec![1; 100]), Bytes::from(vec![2; 100]));
        let response = lent.begin();
        lent.lend(response, one.clone());
        lent.lend(response, two.clone());
        let found = lent.find(&two[10..20]).unwrap();
        assert_eq!((found.as_ptr(), found.len()), (two[10..].as_ptr(), 10));
        assert_eq!(lent.find(&[2; 10]), None, "the same bytes elsewhere are no part of it");
        assert!(lent.find(&two[20..]).is_some() && lent.find(&two[20..]).is_none());
        assert!(lent.find(&one[..1]).is_some());
    }

    #[test]
    fn an_ended_response_leaves_nothing() {
        let lent = Lent::default();
        let (one, two) = (Bytes::from(vec![1; 100]), Bytes::from(vec![2; 100]));
        let (first, second) = (lent.begin(), lent.begin());
        lent.lend(first, one.clone());
        lent.lend(second, two.clone());
        lent.end(first);
        assert!(lent.find(&one).is_none() && lent.find(&two).is_some());
    }

    #[test]
    fn the_oldest_makes_room() {
        let lent = Lent::default();
        let pieces: Vec<_> = (0..=PIECES_MAX).map(|_| Bytes::from(vec![0; 2])).collect();
        pieces.iter().for_each(|piece| lent.lend(1, piece.clone()));
        assert!(lent.find(&pieces[0]).is_none() && lent.find(&pieces[1]).is_some());
    }
}
