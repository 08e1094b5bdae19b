//! Merging segments: a policy that says which, as data, and the work itself.

use std::ops::Range;

use super::Exclusive;
use crate::build::{PutOptions, SegmentBuilder};
use crate::error::WriteError;
use crate::version::Version;
use crate::version::merge::{Merger, Run};

/// So many neighbouring segments of a size class are merged into one of the next.
const FAN_IN: usize = 8;
/// So many of any classes up to one are merged too: sizes that go up and down could gather more of them.
const NEWEST_MAX: usize = 4 * FAN_IN;
/// Segments with no more rows than this are of the lowest class: merging them costs little.
const CLASS_ROWS_MIN: u64 = 1 << 12;
/// A segment is written anew when more of its rows are hidden than are shown, unless it is of the lowest class.
const HIDDEN_SHARE_MAX: f64 = 0.5;
/// A merged segment stays below the rows that a segment can hold.
const MERGED_ROWS_MAX: u64 = u32::MAX as u64 - 1;
/// Rows that are handed to the builder at once.
const BATCH_ROWS: u32 = 1 << 16;

/// What the policy looks at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Size {
    /// Rows that the version shows.
    pub(super) live: u64,
    /// Rows that the segment stores.
    pub(super) stored: u64,
}

/// The neighbouring segments that are due to be merged, oldest first as in a version; `None`: all is well.
///
/// Size-tiered: as soon as eight of the newest segments are of one size class, with none larger between them, they become
/// one, which then is of the next class. So there are about 7 x log8(rows) segments at most, and a row is written anew
/// log8(rows) times; smaller segments between the eight go with them. (P. O'Neil, E. Cheng, D. Gawlick, E. O'Neil, "The log-structured merge-tree", Acta Informatica 33, 1996.)
pub(super) fn plan(sizes: &[Size]) -> Option<Range<usize>> {
    let mut due = None;
    for class in 0..=u64::BITS {
        let newest = sizes.iter().rev().take_while(|s| class_of(s.live) <= class).count();
        let alike = sizes.iter().rev().take(newest).filter(|s| class_of(s.live) == class).count();
        let range = sizes.len() - newest..sizes.len();
        if (alike >= FAN_IN || newest >= NEWEST_MAX) && fits(&sizes[range.clone()]) {
            due = Some(range);
        }
        if newest == sizes.len() {
            break;
        }
    }
    due.or_else(|| {
        let worn = |s: &Size| {
            let hidden = s.stored - s.live;
            hidden > CLASS_ROWS_MIN && hidden as f64 > HIDDEN_SHARE_MAX * s.stored as f64
        };
        sizes.iter().position(worn).map(|at| at..at + 1)
    })
}

/// Whether these can be one segment.
fn fits(sizes: &[Size]) -> bool {
    sizes.iter().map(|s| s.live).sum::<u64>() <= MERGED_ROWS_MAX
}

/// The power of eight that a number of rows reaches.
fn class_of(rows: u64) -> u32 {
    (rows / CLASS_ROWS_MIN).checked_ilog2().map_or(0, |log| log / FAN_IN.ilog2() + 1)
}

/// The segments of a version that are due.
pub(super) fn due(version: &Version) -> Option<Range<usize>> {
    let size = |part: &crate::version::Part| Size { live: part.live_rows(), stored: part.segment.rows as u64 };
    plan(&version.parts.iter().map(size).collect::<Vec<_>>())
}

/// Publishes a version in which the segments of `range` are one; returns its number.
pub(super) fn compact(
    exclusive: &Exclusive,
    base: &Version,
    range: Range<usize>,
    options: &PutOptions,
) -> Result<u64, WriteError> {
    let rows: u64 = base.parts[range.clone()].iter().map(|part| part.live_rows()).sum();
    if rows > MERGED_ROWS_MAX {
        return Err(WriteError::Limit {
            problem: format!("{:?} has {rows} rows, more than one segment holds ({MERGED_ROWS_MAX})", base.name()),
        });
    }
    let temporary = exclusive.temporary_dir()?;
    let merged = write(exclusive, base, &range, temporary.clone(), options)
        .and_then(|record| exclusive.adopt(&temporary, record, None))
        .and_then(|record| {
            let mut segments = base.manifest.segments.clone();
            segments.splice(range, [record]);
            exclusive.publish(base.manifest.key.clone(), base.manifest.unique, "compact".to_owned(), segments)
        });
    merged.map_err(|e| {
        // Whatever of it has a name by now.
        let _ = exclusive.remove_leftovers();
        super::named(exclusive.dataset(), e)
    })
}

fn write(
    exclusive: &Exclusive,
    base: &Version,
    range: &Range<usize>,
    dir: std::path::PathBuf,
    options: &PutOptions,
) -> Result<crate::manifest::SegmentRecord, WriteError> {
    let schema = base.schema();
    let mut options = options.clone();
    options.key.clone_from(&base.manifest.key);
    options.unique = base.manifest.unique;
    options.on_duplicate = crate::build::OnDuplicate::Error;
    let mut builder = SegmentBuilder::new(exclusive.dataset().fs().clone(), dir, schema.clone(), &options)?;
    let columns: Vec<usize> = (0..schema.fields().len()).collect();
    let ranges: Vec<Range<u32>> = base
        .parts
        .iter()
        .enumerate()
        .map(|(i, part)| if range.contains(&i) { part.all_rows() } else { 0..0 })
        .collect();
    let mut merger = Merger::new(&base.parts, &ranges, !base.manifest.key.is_empty())?;
    let mut pending: Vec<Run> = Vec::new();
    let mut rows = 0;
    loop {
        let run = merger.next()?;
        if let Some(run) = run {
            rows += run.len;
            pending.push(run);
        }
        if run.is_none() || rows >= BATCH_ROWS {
            for batch in base.batches(pending.drain(..), &columns, schema)? {
                builder.write(&batch)?;
            }
            rows = 0;
        }
        if run.is_none() {
            return builder.finish();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sizes(rows: &[u64]) -> Vec<Size> {
        rows.iter().map(|&rows| Size { live: rows, stored: rows }).collect()
    }

    #[test]
    fn few_segments_stay() {
        assert_eq!(plan(&[]), None);
        assert_eq!(plan(&sizes(&[10])), None);
        assert_eq!(plan(&sizes(&[10; 7])), None);
        assert_eq!(plan(&sizes(&[1 << 30, 10, 10, 10])), None);
    }

    #[test]
    fn eight_alike_become_one() {
        assert_eq!(plan(&sizes(&[10; 8])), Some(0..8));
        let mut rows = vec![1 << 30];
        rows.extend([10_000; 8]);
        assert_eq!(plan(&sizes(&rows)), Some(1..9));
        // Smaller ones behind do not keep them apart; larger ones between do.
        let mixed = [10_000, 10_000, 10, 10_000, 10, 10, 10_000, 10_000, 10_000, 10_000, 10_000];
        assert_eq!(plan(&sizes(&mixed)), Some(0..11));
        assert_eq!(plan(&sizes(&mixed[1..])), None);
        assert_eq!(plan(&sizes(&[10, 10, 10, 10, 1 << 30, 10, 10, 10, 10])), None);
    }

    #[test]
    fn a_segment_that_is_mostly_hidden_is_written_anew() {
        let worn = Size { live: 40_000, stored: 100_000 };
        assert_eq!(plan(&[Size { live: 100, stored: 100 }, worn]), Some(1..2));
        assert_eq!(plan(&[Size { live: 60_000, stored: 100_000 }]), None);
        assert_eq!(plan(&[Size { live: 40, stored: 100 }, Size { live: 0, stored: 0 }]), None);
    }

    #[test]
    fn no_segment_outgrows_its_row_numbers() {
        assert_eq!(plan(&sizes(&[u64::from(u32::MAX) / 4; 8])), None);
    }

    #[test]
    fn sizes_that_go_up_and_down_do_not_gather() {
        let mut random = 1u64;
        let mut segments: Vec<Size> = Vec::new();
        for _ in 0..20_000 {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let live = 1 << (random >> 60);
            segments.push(Size { live: live << 4, stored: live << 4 });
            while let Some(range) = plan(&segments) {
                let rows = segments[range.clone()].iter().map(|s| s.live).sum();
                segments.splice(range, [Size { live: rows, stored: rows }]);
            }
            assert!(segments.len() < 2 * NEWEST_MAX, "{} segments", segments.len());
        }
    }

    #[test]
    fn a_thousand_appends_leave_few_segments_and_rewrite_each_row_few_times() {
        let (mut segments, mut written, mut most) = (Vec::new(), 0, 0);
        for _ in 0..1000 {
            segments.push(Size { live: 10_000, stored: 10_000 });
            while let Some(range) = plan(&segments) {
                let rows = segments[range.clone()].iter().map(|s| s.live).sum();
                written += rows;
                segments.splice(range, [Size { live: rows, stored: rows }]);
            }
            most = most.max(segments.len());
        }
        assert_eq!(segments.iter().map(|s| s.live).sum::<u64>(), 10_000_000);
        assert!(most <= 28, "{most} segments");
        assert!(written <= 4 * 10_000_000, "{written} rows were written anew");
    }
}
