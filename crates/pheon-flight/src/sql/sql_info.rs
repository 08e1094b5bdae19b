//! What the server says of itself, and of the types that SQL has here.

use std::sync::LazyLock;
use std::time::Duration;

use arrow_flight::sql::metadata::{
    SqlInfoData, SqlInfoDataBuilder, XdbcTypeInfo, XdbcTypeInfoData, XdbcTypeInfoDataBuilder,
};
use arrow_flight::sql::{
    Nullable, Searchable, SqlInfo, SqlNullOrdering, SqlOuterJoinsSupportLevel, SqlSupportedCaseSensitivity,
    SqlSupportedGroupBy, SqlSupportedSubqueries, SqlSupportedTransaction, SqlSupportedUnions,
    SqlTransactionIsolationLevel, XdbcDataType, XdbcDatetimeSubcode,
};

/// The answer to GetSqlInfo.
pub(super) fn sql_info(read_only: bool, time_max: Duration, statement_bytes_max: usize) -> SqlInfoData {
    // Flags, by the number of their bit.
    let flags = |bits: &[i32]| bits.iter().fold(0i32, |sum, bit| sum | 1 << bit);
    let mut info = SqlInfoDataBuilder::new();
    info.append(SqlInfo::FlightSqlServerName, "Pheon");
    info.append(SqlInfo::FlightSqlServerVersion, env!("CARGO_PKG_VERSION"));
    info.append(SqlInfo::FlightSqlServerArrowVersion, "1.3");
    info.append(SqlInfo::FlightSqlServerReadOnly, read_only);
    info.append(SqlInfo::FlightSqlServerSql, true);
    info.append(SqlInfo::FlightSqlServerSubstrait, false);
    // Snapshots, which take no changes.
    info.append(SqlInfo::FlightSqlServerTransaction, SqlSupportedTransaction::Transaction as i32);
    info.append(SqlInfo::FlightSqlServerCancel, true);
    info.append(SqlInfo::FlightSqlServerBulkIngestion, !read_only);
    info.append(SqlInfo::FlightSqlServerIngestTransactionsSupported, false);
    info.append(SqlInfo::FlightSqlServerStatementTimeout, i32::try_from(time_max.as_millis()).unwrap_or(i32::MAX));
    info.append(SqlInfo::FlightSqlServerTransactionTimeout, 0i32);
    info.append(SqlInfo::SqlDdlCatalog, false);
    info.append(SqlInfo::SqlDdlSchema, false);
    info.append(SqlInfo::SqlDdlTable, !read_only);
    info.append(SqlInfo::SqlIdentifierCase, i64::from(SqlSupportedCaseSensitivity::SqlCaseSensitivityLowercase as i32));
    info.append(SqlInfo::SqlIdentifierQuoteChar, "\"");
    let as_written = SqlSupportedCaseSensitivity::SqlCaseSensitivityCaseInsensitive;
    info.append(SqlInfo::SqlQuotedIdentifierCase, i64::from(as_written as i32));
    info.append(SqlInfo::SqlAllTablesAreSelectable, true);
    info.append(SqlInfo::SqlNullOrdering, i64::from(SqlNullOrdering::SqlNullsSortedHigh as i32));
    info.append(SqlInfo::SqlSearchStringEscape, "\\");
    info.append(SqlInfo::SqlSupportsColumnAliasing, true);
    info.append(SqlInfo::SqlNullPlusNullIsNull, true);
    info.append(SqlInfo::SqlSupportsTableCorrelationNames, true);
    info.append(SqlInfo::SqlSupportsDifferentTableCorrelationNames, false);
    info.append(SqlInfo::SqlSupportsExpressionsInOrderBy, true);
    info.append(SqlInfo::SqlSupportsOrderByUnrelated, true);
    info.append(SqlInfo::SqlSupportedGroupBy, flags(&[SqlSupportedGroupBy::SqlGroupByUnrelated as i32]));
    info.append(SqlInfo::SqlSupportsLikeEscapeClause, true);
    info.append(SqlInfo::SqlSupportsNonNullableColumns, true);
    info.append(SqlInfo::SqlOuterJoinsSupportLevel, flags(&[SqlOuterJoinsSupportLevel::SqlFullOuterJoins as i32]));
    info.append(SqlInfo::SqlSchemaTerm, "schema");
    info.append(SqlInfo::SqlCatalogTerm, "catalog");
    info.append(SqlInfo::SqlCatalogAtStart, true);
    info.append(SqlInfo::SqlSelectForUpdateSupported, false);
    info.append(SqlInfo::SqlStoredProceduresSupported, false);
    let subqueries = [
        SqlSupportedSubqueries::SqlSubqueriesInComparisons as i32,
        SqlSupportedSubqueries::SqlSubqueriesInExists as i32,
        SqlSupportedSubqueries::SqlSubqueriesInIns as i32,
    ];
    info.append(SqlInfo::SqlSupportedSubqueries, flags(&subqueries));
    info.append(SqlInfo::SqlCorrelatedSubqueriesSupported, true);
    let unions = [SqlSupportedUnions::SqlUnion as i32, SqlSupportedUnions::SqlUnionAll as i32];
    info.append(SqlInfo::SqlSupportedUnions, flags(&unions));
    info.append(SqlInfo::SqlMaxStatementLength, i64::try_from(statement_bytes_max).unwrap_or(i64::MAX));
    info.append(SqlInfo::SqlTransactionsSupported, true);
    let serializable = SqlTransactionIsolationLevel::SqlTransactionSerializable as i32;
    info.append(SqlInfo::SqlDefaultTransactionIsolation, i64::from(serializable));
    info.append(SqlInfo::SqlSupportedTransactionsIsolationLevels, flags(&[serializable]));
    info.append(SqlInfo::SqlDataDefinitionCausesTransactionCommit, false);
    info.append(SqlInfo::SqlDataDefinitionsInTransactionsIgnored, false);
    info.append(SqlInfo::SqlBatchUpdatesSupported, true);
    info.append(SqlInfo::SqlSavepointsSupported, false);
    info.append(SqlInfo::SqlNamedParametersSupported, false);
    info.build().expect("each entry has the type of its kind")
}

/// The answer to GetXdbcTypeInfo.
pub(super) static TYPE_INFO: LazyLock<XdbcTypeInfoData> = LazyLock::new(|| {
    use XdbcDataType as X;
    let mut types = XdbcTypeInfoDataBuilder::new();
    for (name, data_type, size, quoted, radix) in [
        ("boolean", X::XdbcBit, 1, false, None),
        ("tinyint", X::XdbcTinyint, 3, false, Some(10)),
        ("smallint", X::XdbcSmallint, 5, false, Some(10)),
        ("int", X::XdbcInteger, 10, false, Some(10)),
        ("bigint", X::XdbcBigint, 19, false, Some(10)),
        ("real", X::XdbcFloat, 24, false, Some(2)),
        ("double", X::XdbcDouble, 53, false, Some(2)),
        ("decimal", X::XdbcDecimal, 38, false, Some(10)),
        ("varchar", X::XdbcVarchar, i32::MAX, true, None),
        ("bytea", X::XdbcVarbinary, i32::MAX, true, None),
        ("date", X::XdbcDate, 10, true, None),
        ("time", X::XdbcTime, 18, true, None),
        ("timestamp", X::XdbcTimestamp, 29, true, None),
    ] {
        let quote = quoted.then(|| "'".to_owned());
        // The subcode of dates is 1, which FlightSql.proto calls a year.
        let (sql_data_type, datetime_subcode) = match data_type {
            X::XdbcDate => (X::XdbcDatetime, Some(XdbcDatetimeSubcode::XdbcSubcodeYear)),
            X::XdbcTime => (X::XdbcDatetime, Some(XdbcDatetimeSubcode::XdbcSubcodeTime)),
            X::XdbcTimestamp => (X::XdbcDatetime, Some(XdbcDatetimeSubcode::XdbcSubcodeTimestamp)),
            other => (other, None),
        };
        types.append(XdbcTypeInfo {
            type_name: name.to_owned(),
            data_type,
            column_size: Some(size),
            literal_prefix: quote.clone(),
            literal_suffix: quote,
            create_params: (name == "decimal").then(|| vec!["precision".to_owned(), "scale".to_owned()]),
            nullable: Nullable::NullabilityNullable,
            case_sensitive: name == "varchar",
            searchable: Searchable::Full,
            unsigned_attribute: radix.map(|_| false),
            fixed_prec_scale: false,
            auto_increment: Some(false),
            local_type_name: Some(name.to_owned()),
            minimum_scale: None,
            maximum_scale: (name == "decimal").then_some(38),
            sql_data_type,
            datetime_subcode,
            num_prec_radix: radix,
            interval_precision: None,
        });
    }
    types.build().expect("each column has the same length")
});
