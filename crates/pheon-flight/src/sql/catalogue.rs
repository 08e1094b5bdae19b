//! The catalogue commands: which tables there are, and their keys.

use std::sync::{Arc, LazyLock};

use arrow_array::{ArrayRef, Int32Array, RecordBatch, StringArray};
use arrow_flight::sql::{CommandGetDbSchemas, CommandGetPrimaryKeys, CommandGetTableTypes, CommandGetTables};
use arrow_schema::{ArrowError, DataType, Field, Schema, SchemaRef};
use pheon_sql::{CATALOG, SCHEMA, Session, SqlError};
use tonic::Status;

use super::sql_status::failed;

/// The only type of table.
const TABLE_TYPE: &str = "TABLE";

/// Of the answer to GetPrimaryKeys.
pub(super) static PRIMARY_KEYS: LazyLock<SchemaRef> = LazyLock::new(|| {
    Arc::new(Schema::new(vec![
        Field::new("catalog_name", DataType::Utf8, true),
        Field::new("db_schema_name", DataType::Utf8, true),
        Field::new("table_name", DataType::Utf8, false),
        Field::new("column_name", DataType::Utf8, false),
        Field::new("key_name", DataType::Utf8, true),
        Field::new("key_sequence", DataType::Int32, false),
    ]))
});

/// Of the answers about foreign keys, of which there are none.
pub(super) static FOREIGN_KEYS: LazyLock<SchemaRef> = LazyLock::new(|| {
    let mut fields = Vec::new();
    for side in ["pk", "fk"] {
        fields.push(Field::new(format!("{side}_catalog_name"), DataType::Utf8, true));
        fields.push(Field::new(format!("{side}_db_schema_name"), DataType::Utf8, true));
        fields.push(Field::new(format!("{side}_table_name"), DataType::Utf8, false));
        fields.push(Field::new(format!("{side}_column_name"), DataType::Utf8, false));
    }
    fields.push(Field::new("key_sequence", DataType::Int32, false));
    fields.push(Field::new("fk_key_name", DataType::Utf8, true));
    fields.push(Field::new("pk_key_name", DataType::Utf8, true));
    fields.push(Field::new("update_rule", DataType::UInt8, false));
    fields.push(Field::new("delete_rule", DataType::UInt8, false));
    Arc::new(Schema::new(fields))
});

fn built(batch: Result<RecordBatch, impl std::fmt::Display>) -> Result<RecordBatch, Status> {
    batch.map_err(|e| Status::invalid_argument(e.to_string()))
}

pub(super) fn catalogs() -> Result<RecordBatch, Status> {
    let mut builder = arrow_flight::sql::CommandGetCatalogs {}.into_builder();
    builder.append(CATALOG);
    built(builder.build())
}

pub(super) fn db_schemas(command: CommandGetDbSchemas) -> Result<RecordBatch, Status> {
    let mut builder = command.into_builder();
    builder.append(CATALOG, SCHEMA);
    built(builder.build())
}

pub(super) fn table_types(command: CommandGetTableTypes) -> Result<RecordBatch, Status> {
    let mut builder = command.into_builder();
    builder.append(TABLE_TYPE);
    built(builder.build())
}

pub(super) async fn tables(session: &Session, command: CommandGetTables) -> Result<RecordBatch, Status> {
    let facts = facts(session).await?;
    let mut builder = command.into_builder();
    for table in facts {
        let added = builder.append(CATALOG, SCHEMA, &table.name, TABLE_TYPE, &table.schema);
        added.map_err(|e| Status::internal(e.to_string()))?;
    }
    built(builder.build())
}

/// The keys of a table, if each occurs once; a key with several rows is no primary key.
pub(super) async fn primary_keys(session: &Session, command: &CommandGetPrimaryKeys) -> Result<RecordBatch, Status> {
    let ours = command.catalog.as_ref().is_none_or(|c| c.is_empty() || c == CATALOG)
        && command.db_schema.as_ref().is_none_or(|s| s.is_empty() || s == SCHEMA);
    let facts = if ours { facts(session).await? } else { Vec::new() };
    let key: Vec<String> =
        facts.into_iter().find(|t| t.name == command.table && t.unique).map(|t| t.key).unwrap_or_default();
    let same = |text: &str| Arc::new(StringArray::from(vec![text; key.len()])) as ArrayRef;
    let columns = vec![
        same(CATALOG),
        same(SCHEMA),
        same(&command.table),
        Arc::new(StringArray::from(key.clone())) as ArrayRef,
        Arc::new(StringArray::from(vec![None::<&str>; key.len()])),
        Arc::new(Int32Array::from_iter_values(1..=key.len() as i32)),
    ];
    let batch: Result<_, ArrowError> = RecordBatch::try_new(PRIMARY_KEYS.clone(), columns);
    built(batch)
}

async fn facts(session: &Session) -> Result<Vec<pheon_sql::TableFacts>, Status> {
    let session = session.clone();
    let done = tokio::task::spawn_blocking(move || session.tables()).await;
    done.unwrap_or_else(|e| Err(SqlError::Source { problem: e.to_string() })).map_err(failed)
}
