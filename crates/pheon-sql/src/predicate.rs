//! What a filter says about one column of the key.
//!
//! Only what is certain counts: a filter that this module does not understand says nothing, and stays above the scan.

use datafusion::common::Column;
use datafusion::logical_expr::expr::{Between, BinaryExpr, Cast, InList, Like, ScalarFunction};
use datafusion::logical_expr::{Expr, Operator};
use datafusion::scalar::ScalarValue;

use crate::interval::{Cut, Intervals, KeyValue};
use crate::key_part::{KeyPart, Literal};

/// Intervals that a filter is turned into at most, unless all of them are single values.
const INTERVALS_MAX: usize = 4096;

/// The values of one key column for which a filter may hold.
#[derive(Debug, Clone)]
pub(crate) struct Constraint {
    /// Which of the key's columns.
    pub(crate) part: usize,
    pub(crate) values: Intervals,
    /// The filter holds for all of `values`.
    pub(crate) exact: bool,
    /// And is false, not null, for all others.
    definite: bool,
}

impl Constraint {
    /// What `filter` says about one of `key`'s columns, if anything.
    pub(crate) fn of(filter: &Expr, key: &[KeyPart]) -> Option<Self> {
        let found = read(filter, key)?;
        let values = found.values.within(&key[found.part].domain());
        let usable = values.as_slice().len() <= INTERVALS_MAX || values.points().is_some();
        usable.then_some(Self { values, ..found })
    }

    fn exact(part: usize, values: Intervals) -> Self {
        Self { part, values, exact: true, definite: true }
    }

    /// Comparisons with null hold for nothing, and neither do their negations.
    fn null(part: usize) -> Self {
        Self { part, values: Intervals::none(), exact: true, definite: false }
    }

    fn and(self, other: Self) -> Self {
        if self.part != other.part {
            return Self { exact: false, ..self };
        }
        Self {
            part: self.part,
            values: self.values.intersect(&other.values),
            exact: self.exact && other.exact,
            definite: self.definite && other.definite,
        }
    }

    fn or(self, other: Self) -> Option<Self> {
        (self.part == other.part).then(|| Self {
            part: self.part,
            values: self.values.union(&other.values),
            exact: self.exact && other.exact,
            definite: self.definite && other.definite,
        })
    }

    fn not(self) -> Option<Self> {
        (self.exact && self.definite).then(|| Self { values: self.values.complement(), ..self })
    }
}

/// The key column that an expression is, or is a cast of without loss.
fn part_of(expr: &Expr, key: &[KeyPart]) -> Option<usize> {
    let named = |column: &Column| key.iter().position(|part| part.name == column.name);
    match expr {
        Expr::Column(column) => named(column),
        Expr::Cast(Cast { expr, field }) => match expr.as_ref() {
            Expr::Column(column) => named(column).filter(|&p| key[p].casts_without_loss(field.data_type())),
            _ => None,
        },
        _ => None,
    }
}

fn literal_of(expr: &Expr) -> Option<&ScalarValue> {
    match expr {
        Expr::Literal(value, _) => Some(value),
        _ => None,
    }
}

fn read(expr: &Expr, key: &[KeyPart]) -> Option<Constraint> {
    match expr {
        Expr::BinaryExpr(BinaryExpr { left, op: Operator::And, right }) => match (read(left, key), read(right, key)) {
            (Some(a), Some(b)) => Some(a.and(b)),
            (Some(one), None) | (None, Some(one)) => Some(Constraint { exact: false, ..one }),
            (None, None) => None,
        },
        Expr::BinaryExpr(BinaryExpr { left, op: Operator::Or, right }) => read(left, key)?.or(read(right, key)?),
        Expr::BinaryExpr(BinaryExpr { left, op, right }) => match (part_of(left, key), part_of(right, key)) {
            (Some(part), None) => compared(part, *op, literal_of(right)?, key),
            (None, Some(part)) => compared(part, op.swap()?, literal_of(left)?, key),
            _ => None,
        },
        Expr::Between(Between { expr, negated, low, high }) => {
            let part = part_of(expr, key)?;
            let low = compared(part, Operator::GtEq, literal_of(low)?, key)?;
            let high = compared(part, Operator::LtEq, literal_of(high)?, key)?;
            let both = low.and(high);
            if *negated { both.not() } else { Some(both) }
        }
        Expr::InList(InList { expr, list, negated }) => {
            let part = part_of(expr, key)?;
            let mut points = Vec::with_capacity(list.len());
            let mut definite = true;
            for item in list {
                match key[part].literal(literal_of(item)?) {
                    Literal::Value(value) => points.push(value),
                    Literal::Null => definite = false,
                    Literal::Foreign => return None,
                }
            }
            let found = Constraint { definite, ..Constraint::exact(part, Intervals::of_points(points)) };
            if *negated { found.not() } else { Some(found) }
        }
        Expr::Like(Like { negated: false, expr, pattern, escape_char: None, case_insensitive: false }) => {
            let part = part_of(expr, key)?;
            let (Literal::Value(KeyValue::Bytes(pattern)), Some(_)) =
                (key[part].literal(literal_of(pattern)?), literal_of(pattern)?.try_as_str())
            else {
                return None;
            };
            like(part, &pattern)
        }
        Expr::ScalarFunction(ScalarFunction { func, args }) if func.name() == "starts_with" => {
            let [text, prefix] = args.as_slice() else { return None };
            let part = part_of(text, key)?;
            match key[part].literal(literal_of(prefix)?) {
                Literal::Value(KeyValue::Bytes(prefix)) => {
                    Some(Constraint::exact(part, Intervals::with_prefix(&prefix)))
                }
                Literal::Null => Some(Constraint::null(part)),
                _ => None,
            }
        }
        Expr::Not(inner) => read(inner, key)?.not(),
        Expr::IsNotNull(inner) => Some(Constraint::exact(part_of(inner, key)?, Intervals::all())),
        Expr::IsNull(inner) => Some(Constraint::exact(part_of(inner, key)?, Intervals::none())),
        // A key column that is itself the condition.
        Expr::Column(_) => {
            let part = part_of(expr, key)?;
            Some(Constraint::exact(part, Intervals::of_points(vec![KeyValue::Number(1)])))
        }
        _ => None,
    }
}

fn compared(part: usize, op: Operator, scalar: &ScalarValue, key: &[KeyPart]) -> Option<Constraint> {
    let value = match key[part].literal(scalar) {
        Literal::Value(value) => value,
        Literal::Null => {
            let plain = matches!(
                op,
                Operator::Eq | Operator::NotEq | Operator::Lt | Operator::LtEq | Operator::Gt | Operator::GtEq
            );
            return plain.then(|| Constraint::null(part));
        }
        Literal::Foreign => return None,
    };
    let point = Intervals::of_points(vec![value.clone()]);
    let values = match op {
        Operator::Eq | Operator::IsNotDistinctFrom => point,
        Operator::NotEq | Operator::IsDistinctFrom => point.complement(),
        Operator::Lt => Intervals::between(Cut::Start, Cut::At(value, false)),
        Operator::LtEq => Intervals::between(Cut::Start, Cut::At(value, true)),
        Operator::Gt => Intervals::between(Cut::At(value, true), Cut::End),
        Operator::GtEq => Intervals::between(Cut::At(value, false), Cut::End),
        _ => return None,
    };
    Some(Constraint::exact(part, values))
}

/// `LIKE 'abc%'` is a prefix; of another pattern what stands before its first wildcard narrows the search.
fn like(part: usize, pattern: &[u8]) -> Option<Constraint> {
    if pattern.contains(&b'\\') {
        return None;
    }
    match pattern.iter().position(|b| matches!(b, b'%' | b'_')) {
        None => Some(Constraint::exact(part, Intervals::of_points(vec![KeyValue::Bytes(pattern.to_vec())]))),
        Some(0) => None,
        Some(at) => {
            let whole = pattern[at..].iter().all(|&b| b == b'%');
            let found = Constraint::exact(part, Intervals::with_prefix(&pattern[..at]));
            Some(Constraint { exact: whole, ..found })
        }
    }
}
