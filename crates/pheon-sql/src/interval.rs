//! Sets of key values, as intervals.

/// A value of a key column, in an order that is the engine's.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum KeyValue {
    /// Integers, booleans, dates, times, and the unscaled values of decimals.
    Number(i128),
    /// Strings and bytes.
    Bytes(Vec<u8>),
}

/// A place between values: before all, just before or just after one, after all.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Cut {
    Start,
    /// Before the value; with `true` after it.
    At(KeyValue, bool),
    End,
}

/// The values between two cuts. Never empty: `low < high`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Interval {
    pub(crate) low: Cut,
    pub(crate) high: Cut,
}

impl Interval {
    /// The only value in it, if there is one and it was given as such.
    pub(crate) fn point(&self) -> Option<&KeyValue> {
        match (&self.low, &self.high) {
            (Cut::At(a, false), Cut::At(b, true)) if a == b => Some(a),
            _ => None,
        }
    }
}

/// A set of values: disjoint intervals, ascending.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Intervals(Vec<Interval>);

impl Intervals {
    pub(crate) fn all() -> Self {
        Self::between(Cut::Start, Cut::End)
    }

    pub(crate) fn none() -> Self {
        Self(Vec::new())
    }

    pub(crate) fn between(low: Cut, high: Cut) -> Self {
        if low < high { Self(vec![Interval { low, high }]) } else { Self::none() }
    }

    pub(crate) fn of_points(mut points: Vec<KeyValue>) -> Self {
        points.sort_unstable();
        points.dedup();
        Self(points.into_iter().map(|v| Interval { low: Cut::At(v.clone(), false), high: Cut::At(v, true) }).collect())
    }

    /// Byte strings that begin with `prefix`.
    pub(crate) fn with_prefix(prefix: &[u8]) -> Self {
        let high = match successor(prefix) {
            Some(next) => Cut::At(KeyValue::Bytes(next), false),
            None => Cut::End,
        };
        Self::between(Cut::At(KeyValue::Bytes(prefix.to_vec()), false), high)
    }

    pub(crate) fn as_slice(&self) -> &[Interval] {
        &self.0
    }

    /// All values, if each interval is a single one.
    pub(crate) fn points(&self) -> Option<Vec<&KeyValue>> {
        self.0.iter().map(Interval::point).collect()
    }

    pub(crate) fn intersect(&self, other: &Self) -> Self {
        let mut out = Vec::new();
        let (mut i, mut j) = (0, 0);
        while let (Some(a), Some(b)) = (self.0.get(i), other.0.get(j)) {
            let (low, high) = ((&a.low).max(&b.low), (&a.high).min(&b.high));
            if low < high {
                out.push(Interval { low: low.clone(), high: high.clone() });
            }
            if a.high <= b.high {
                i += 1;
            } else {
                j += 1;
            }
        }
        Self(out)
    }

    /// What of this set lies in `domain`, one interval, whose ends become those of everything.
    pub(crate) fn within(&self, domain: &Self) -> Self {
        let mut out = self.intersect(domain);
        if let [Interval { low, high }] = domain.0.as_slice() {
            if let Some(first) = out.0.first_mut().filter(|first| first.low == *low) {
                first.low = Cut::Start;
            }
            if let Some(last) = out.0.last_mut().filter(|last| last.high == *high) {
                last.high = Cut::End;
            }
        }
        out
    }

    pub(crate) fn union(&self, other: &Self) -> Self {
        let mut all: Vec<Interval> = self.0.iter().chain(&other.0).cloned().collect();
        all.sort_by(|a, b| a.low.cmp(&b.low));
        let mut out: Vec<Interval> = Vec::with_capacity(all.len());
        for next in all {
            match out.last_mut() {
                Some(last) if next.low <= last.high => {
                    if next.high > last.high {
                        last.high = next.high;
                    }
                }
                _ => out.push(next),
            }
        }
        Self(out)
    }

    pub(crate) fn complement(&self) -> Self {
        let mut out = Vec::with_capacity(self.0.len() + 1);
        let mut low = Cut::Start;
        for Interval { low: next, high } in &self.0 {
            if low < *next {
                out.push(Interval { low, high: next.clone() });
            }
            low = high.clone();
        }
        if low < Cut::End {
            out.push(Interval { low, high: Cut::End });
        }
        Self(out)
    }
}

/// The least byte string that is greater than all that begin with `prefix`, if there is one.
pub(crate) fn successor(prefix: &[u8]) -> Option<Vec<u8>> {
    let last = prefix.iter().rposition(|&b| b != 0xFF)?;
    let mut next = prefix[..=last].to_vec();
    next[last] += 1;
    Some(next)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Values that sets in tests are made of; membership is asked for all in between.
    const RANGE: i128 = 8;

    fn contains(set: &Intervals, value: i128) -> bool {
        let (before, after) = (Cut::At(KeyValue::Number(value), false), Cut::At(KeyValue::Number(value), true));
        set.as_slice().iter().any(|i| i.low <= before && i.high >= after)
    }

    fn is_normal(set: &Intervals) -> bool {
        set.as_slice().iter().all(|i| i.low < i.high) && set.as_slice().windows(2).all(|w| w[0].high < w[1].low)
    }

    fn set() -> impl Strategy<Value = Intervals> {
        let cut = prop_oneof![
            Just(Cut::Start),
            Just(Cut::End),
            (0..RANGE, any::<bool>()).prop_map(|(v, after)| Cut::At(KeyValue::Number(v), after)),
        ];
        prop::collection::vec((cut.clone(), cut), 0..5).prop_map(|pairs| {
            pairs.into_iter().fold(Intervals::none(), |set, (a, b)| {
                let (low, high) = if a < b { (a, b) } else { (b, a) };
                set.union(&Intervals::between(low, high))
            })
        })
    }

    proptest! {
        #[test]
        fn sets_behave_as_sets(a in set(), b in set()) {
            prop_assert!(is_normal(&a) && is_normal(&a.intersect(&b)) && is_normal(&a.complement()));
            for v in -1..=RANGE {
                prop_assert_eq!(contains(&a.union(&b), v), contains(&a, v) || contains(&b, v));
                prop_assert_eq!(contains(&a.intersect(&b), v), contains(&a, v) && contains(&b, v));
                prop_assert_eq!(contains(&a.complement(), v), !contains(&a, v));
            }
        }
    }

    #[test]
    fn prefixes_and_successors() {
        assert_eq!(successor(b"ab"), Some(b"ac".to_vec()));
        assert_eq!(successor(b"a\xFF\xFF"), Some(b"b".to_vec()));
        assert_eq!(successor(b"\xFF"), None);
        assert_eq!(Intervals::with_prefix(b""), {
            Intervals::between(Cut::At(KeyValue::Bytes(vec![]), false), Cut::End)
        });
    }

    #[test]
    fn points_are_sorted_and_single() {
        let set = Intervals::of_points([3, 1, 3].map(KeyValue::Number).to_vec());
        assert_eq!(set.points(), Some(vec![&KeyValue::Number(1), &KeyValue::Number(3)]));
        assert_eq!(Intervals::all().points(), None);
    }
}
