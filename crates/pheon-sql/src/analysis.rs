//! What a planned statement is, and whether it is allowed.

use std::sync::Arc;

use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::common::{Constraint, TableReference};
use datafusion::datasource::source_as_provider;
use datafusion::logical_expr::dml::InsertOp;
use datafusion::logical_expr::{DdlStatement, LogicalPlan, TableScan, WriteOp};

use crate::access::Access;
use crate::catalog::{CATALOG, Pinned, SCHEMA, dataset_of, resolve};
use crate::error::SqlError;
use crate::provider::PheonTable;
use crate::session::Session;
use crate::syntax::Conflict;

/// What becomes of rows whose key comes in again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Present {
    /// Where each key occurs once, that is an error; elsewhere they stay beside the new ones.
    Error,
    /// They go, and the new ones take their place.
    Replace,
    /// They stay, and the new ones are left out.
    Keep,
    /// The new ones are what they become. Each key occurs once.
    Change,
}

/// A statement, by what it does.
#[derive(Debug, Clone)]
pub(crate) enum Action {
    /// Rows.
    Query(LogicalPlan),
    /// Rows for a dataset that is there.
    Insert {
        name: String,
        rows: LogicalPlan,
        present: Present,
        conflict: Option<Conflict>,
    },
    /// All columns of the rows that change, as they become; `None`: they all go.
    Update {
        name: String,
        rows: LogicalPlan,
    },
    /// The rows that go; `None`: all.
    Delete {
        name: String,
        rows: Option<LogicalPlan>,
    },
    Create {
        name: String,
        rows: LogicalPlan,
        if_not_exists: bool,
        replace: bool,
        key: Vec<String>,
    },
    Drop {
        name: String,
        if_exists: bool,
    },
}

impl Action {
    pub(crate) fn of(plan: LogicalPlan, conflict: Option<Conflict>) -> Result<Self, SqlError> {
        let unsupported = |what: &str| Err(SqlError::Unsupported { problem: format!("{what} is not supported") });
        Ok(match plan {
            LogicalPlan::Dml(dml) => {
                let name = dataset_name(&dml.table_name)?;
                let rows = Arc::unwrap_or_clone(dml.input);
                match dml.op {
                    WriteOp::Insert(op @ (InsertOp::Append | InsertOp::Replace)) => {
                        let present = match (op, &conflict) {
                            (_, Some(conflict)) if conflict.keep => Present::Keep,
                            (InsertOp::Replace, _) => Present::Replace,
                            _ => Present::Error,
                        };
                        Self::Insert { name, rows, present, conflict }
                    }
                    WriteOp::Insert(InsertOp::Overwrite) => return unsupported("INSERT OVERWRITE"),
                    WriteOp::Update => Self::Update { name, rows },
                    WriteOp::Delete if matches!(rows, LogicalPlan::TableScan(_)) => Self::Delete { name, rows: None },
                    WriteOp::Delete => Self::Delete { name, rows: Some(rows) },
                    WriteOp::Truncate => Self::Delete { name, rows: None },
                    other => return unsupported(other.name()),
                }
            }
            LogicalPlan::Ddl(DdlStatement::CreateMemoryTable(create)) => {
                if !create.column_defaults.is_empty() {
                    return unsupported("DEFAULT");
                }
                let mut key = Vec::new();
                for constraint in create.constraints.iter() {
                    match constraint {
                        Constraint::PrimaryKey(columns) => {
                            let names = columns.iter().map(|&c| create.input.schema().field(c).name().clone());
                            key = names.collect();
                        }
                        Constraint::Unique(_) => return unsupported("UNIQUE; use PRIMARY KEY"),
                    }
                }
                Self::Create {
                    name: dataset_name(&create.name)?,
                    rows: Arc::unwrap_or_clone(create.input),
                    if_not_exists: create.if_not_exists,
                    replace: create.or_replace,
                    key,
                }
            }
            LogicalPlan::Ddl(DdlStatement::DropTable(drop)) => {
                Self::Drop { name: dataset_name(&drop.name)?, if_exists: drop.if_exists }
            }
            LogicalPlan::Ddl(other) => return unsupported(other.name()),
            LogicalPlan::Copy(_) => return unsupported("COPY"),
            LogicalPlan::Statement(other) => return unsupported(other.name()),
            query => Self::Query(query),
        })
    }

    /// The dataset that it changes.
    pub(crate) fn target(&self) -> Option<&str> {
        match self {
            Self::Query(_) => None,
            Self::Insert { name, .. }
            | Self::Update { name, .. }
            | Self::Delete { name, .. }
            | Self::Create { name, .. }
            | Self::Drop { name, .. } => Some(name),
        }
    }

    /// The plan of its rows.
    pub(crate) fn rows(&self) -> Option<&LogicalPlan> {
        match self {
            Self::Query(rows)
            | Self::Insert { rows, .. }
            | Self::Update { rows, .. }
            | Self::Create { rows, .. }
            | Self::Delete { rows: Some(rows), .. } => Some(rows),
            Self::Delete { rows: None, .. } | Self::Drop { .. } => None,
        }
    }

    pub(crate) fn rows_mut(&mut self) -> Option<&mut LogicalPlan> {
        match self {
            Self::Query(rows)
            | Self::Insert { rows, .. }
            | Self::Update { rows, .. }
            | Self::Create { rows, .. }
            | Self::Delete { rows: Some(rows), .. } => Some(rows),
            Self::Delete { rows: None, .. } | Self::Drop { .. } => None,
        }
    }

    /// Rights on everything that is read and changed; and that what rows come from changes nothing itself. Names stand for
    /// the datasets that were opened by them.
    pub(crate) fn check(&self, access: &dyn Access, session: &Session, pinned: &Pinned) -> Result<(), SqlError> {
        if let Some(rows) = self.rows() {
            check_rows(rows, access)?;
        }
        let (allowed, action, dataset) = match self {
            Self::Query(_) => return Ok(()),
            Self::Create { name, .. } => (access.may_write(name), "write", name.clone()),
            Self::Insert { name, .. } => {
                let dataset = pinned.dataset_named(name);
                (access.may_write(&dataset), "write", dataset)
            }
            Self::Update { name, .. } | Self::Delete { name, .. } => {
                let dataset = pinned.dataset_named(name);
                (access.may_write(&dataset) && access.may_read(&dataset), "write", dataset)
            }
            Self::Drop { name, .. } => {
                let dataset = resolve(session.engine().store(), access, name)?.unwrap_or_else(|| name.clone());
                (access.may_admin(&dataset), "drop", dataset)
            }
        };
        if !allowed {
            return Err(SqlError::Denied { action, dataset });
        }
        if session.is_read_only() { Err(SqlError::ReadOnly) } else { Ok(()) }
    }

    /// Whether its rows tell which datasets there are, which depends on rights.
    pub(crate) fn tells_names(&self) -> Result<bool, SqlError> {
        let mut tells = false;
        if let Some(rows) = self.rows() {
            rows.apply_with_subqueries(|node| {
                if let LogicalPlan::TableScan(scan) = node {
                    tells |= table_of(scan)?.is_none();
                }
                Ok(TreeNodeRecursion::Continue)
            })?;
        }
        Ok(tells)
    }
}

/// The dataset's name that a scan reads, if it reads one; there are also those of the catalogue itself, of functions, and
/// of a recursion's own rows.
fn table_of(scan: &TableScan) -> datafusion::common::Result<Option<String>> {
    let provider = source_as_provider(&scan.source)?;
    Ok(provider.downcast_ref::<PheonTable>().map(|table| table.table().name().to_owned()))
}

fn check_rows(plan: &LogicalPlan, access: &dyn Access) -> Result<(), SqlError> {
    plan.apply_with_subqueries(|node| {
        let refused = match node {
            LogicalPlan::TableScan(scan) => table_of(scan)?
                .filter(|dataset| !access.may_read(dataset))
                .map(|dataset| SqlError::Denied { action: "read", dataset }),
            LogicalPlan::Ddl(_) | LogicalPlan::Dml(_) | LogicalPlan::Copy(_) | LogicalPlan::Statement(_) => {
                let problem = "a statement that changes something within another one is not supported".to_owned();
                Some(SqlError::Unsupported { problem })
            }
            _ => None,
        };
        refused.map_or(Ok(TreeNodeRecursion::Continue), |e| Err(e.into_datafusion()))
    })?;
    Ok(())
}

/// The dataset that a name in a statement writes to.
fn dataset_name(name: &TableReference) -> Result<String, SqlError> {
    let ours = name.catalog().is_none_or(|c| c == CATALOG) && name.schema().is_none_or(|s| s == SCHEMA);
    if !ours {
        let problem = format!("{name} is not in {CATALOG}.{SCHEMA}, where all tables are");
        return Err(SqlError::Unsupported { problem });
    }
    if dataset_of(name.table()) != name.table() {
        let problem = format!("{:?} is a version; versions never change", name.table());
        return Err(SqlError::Unsupported { problem });
    }
    Ok(name.table().to_owned())
}
