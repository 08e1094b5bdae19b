//! Flight SQL from the client of arrow-rs, against a running server.

use std::sync::Arc;

use arrow_array::{ArrayRef, BooleanArray, Int64Array, NullArray, RecordBatch, RecordBatchIterator, StringArray};
use arrow_flight::flight_service_server::FlightServiceServer;
use arrow_flight::sql::client::{FlightSqlServiceClient, PreparedStatement};
use arrow_flight::sql::{
    ActionBeginSavepointRequest, ActionCancelQueryRequest, ActionCancelQueryResult, ActionEndSavepointRequest, Any,
    CommandGetDbSchemas, CommandGetPrimaryKeys, CommandGetTables, CommandGetXdbcTypeInfo,
    CommandStatementIngest as CommandIngest, ProstMessageExt as _, SqlInfo,
};
use arrow_flight::{Action, CancelFlightInfoRequest, CancelFlightInfoResult, CancelStatus, FlightInfo};
use arrow_schema::Schema;
use futures::TryStreamExt;
use pheon::{PutOptions, Store};
use pheon_flight::sql::{Caller, Gate, HandleLimits, SqlService};
use pheon_sql::{Access, Engine, EngineOptions};
use prost::Message;
use tokio::sync::oneshot;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::transport::Channel;
use tonic::{Code, Extensions, Status};

/// Signs by a prefix, and lets nobody touch `secret`.
struct TestGate;

#[derive(Debug)]
struct NoSecrets;

impl Access for NoSecrets {
    fn may_read(&self, dataset: &str) -> bool {
        dataset != "secret"
    }

    fn may_write(&self, dataset: &str) -> bool {
        dataset != "secret"
    }

    fn may_admin(&self, dataset: &str) -> bool {
        dataset != "secret"
    }
}

impl Gate for TestGate {
    fn caller(&self, _: &Extensions) -> Result<Caller, Status> {
        Ok(Caller { name: "test".to_owned(), access: Arc::new(NoSecrets) })
    }

    fn sign(&self, payload: &[u8]) -> Vec<u8> {
        [b"signed", payload].concat()
    }

    fn open(&self, signed: &[u8]) -> Option<Vec<u8>> {
        signed.strip_prefix(b"signed").map(<[u8]>::to_vec)
    }
}

struct Fixture {
    client: FlightSqlServiceClient<Channel>,
    store: Store,
    stop: oneshot::Sender<()>,
    server: tokio::task::JoinHandle<Result<(), tonic::transport::Error>>,
    _dir: tempfile::TempDir,
}

impl Fixture {
    async fn new() -> Self {
        Self::with(HandleLimits::default()).await
    }

    async fn with(limits: HandleLimits) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path().join("store")).unwrap();
        for name in ["numbers", "secret"] {
            let batch = RecordBatch::try_from_iter_with_nullable([
                ("n", Arc::new(Int64Array::from_iter_values(0..1000)) as _, false),
                ("name", Arc::new(StringArray::from_iter_values((0..1000).map(|n| format!("name {n}")))) as _, true),
            ])
            .unwrap();
            let schema = batch.schema();
            store.put(name, RecordBatchIterator::new([Ok(batch)], schema), PutOptions::map("n")).unwrap();
        }
        let engine = Engine::new(store.clone(), EngineOptions::default()).unwrap();
        let service = SqlService::new(engine, Arc::new(TestGate), limits).unwrap();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let (stop, stopped) = oneshot::channel();
        let server = tokio::spawn(
            tonic::transport::Server::builder()
                .add_service(FlightServiceServer::new(service))
                .serve_with_incoming_shutdown(TcpListenerStream::new(listener), async {
                    let _ = stopped.await;
                }),
        );
        let channel = Channel::from_shared(address).unwrap().connect().await.unwrap();
        Self { client: FlightSqlServiceClient::new(channel), store, stop, server, _dir: dir }
    }

    async fn end(self) {
        drop(self.client);
        let _ = self.stop.send(());
        self.server.await.unwrap().unwrap();
    }

    /// The result of `CancelQuery` for the bytes of a FlightInfo.
    async fn cancel_the_old_way(&mut self, info: bytes::Bytes) -> Result<i32, Status> {
        let body = ActionCancelQueryRequest { info }.as_any().encode_to_vec().into();
        let action = Action { r#type: "CancelQuery".to_owned(), body };
        let results = self.client.inner_mut().do_action(action).await?.into_inner();
        let results: Vec<_> = results.try_collect().await?;
        let result: Option<ActionCancelQueryResult> = Any::decode(&*results[0].body).unwrap().unpack().unwrap();
        Ok(result.unwrap().result)
    }

    /// The rows of a FlightInfo, whose schema must be exactly the one announced.
    async fn rows(&mut self, info: FlightInfo) -> Result<Vec<RecordBatch>, Status> {
        let announced: Schema = info.clone().try_decode_schema().unwrap();
        let ticket = info.endpoint[0].ticket.clone().unwrap();
        let failed = |e: arrow_flight::error::FlightError| match e {
            arrow_flight::error::FlightError::Tonic(status) => *status,
            e => Status::internal(e.to_string()),
        };
        let mut stream = self.client.do_get(ticket).await.map_err(|e| match e {
            arrow_flight::error::FlightError::Tonic(status) => *status,
            e => Status::internal(e.to_string()),
        })?;
        let mut batches = Vec::new();
        while let Some(batch) = stream.try_next().await.map_err(failed)? {
            assert_eq!(*batch.schema(), announced);
            batches.push(batch);
        }
        assert_eq!(stream.schema().map(|s| s.as_ref().clone()), Some(announced));
        Ok(batches)
    }

    async fn query(&mut self, sql: &str) -> Result<Vec<RecordBatch>, Status> {
        let info = self.client.execute(sql.to_owned(), None).await.map_err(status)?;
        self.rows(info).await
    }
}

/// The status within a client's error, by its text: the client keeps nothing else of it.
fn status(e: impl std::fmt::Debug) -> Status {
    let text = format!("{e:?}");
    let codes = [
        ("NotFound", Code::NotFound),
        ("PermissionDenied", Code::PermissionDenied),
        ("InvalidArgument", Code::InvalidArgument),
        ("AlreadyExists", Code::AlreadyExists),
        ("Unimplemented", Code::Unimplemented),
        ("FailedPrecondition", Code::FailedPrecondition),
        ("ResourceExhausted", Code::ResourceExhausted),
    ];
    let code = codes.iter().find(|(name, _)| text.contains(&format!("code: {name}")) || text.contains(name));
    Status::new(code.map_or(Code::Unknown, |(_, code)| *code), text)
}

/// Executes a prepared statement for these keys.
async fn bind(
    statement: &mut PreparedStatement<Channel>,
    keys: i64,
) -> Result<FlightInfo, arrow_flight::error::FlightError> {
    let keys = Arc::new(Int64Array::from_iter_values(0..keys)) as _;
    statement.set_parameters(RecordBatch::try_from_iter([("k", keys)]).unwrap()).unwrap();
    statement.execute().await
}

fn rows_in(batches: &[RecordBatch]) -> usize {
    batches.iter().map(RecordBatch::num_rows).sum()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn announced_schemas_are_those_of_the_stream() {
    let mut server = Fixture::new().await;
    for (sql, rows) in [
        ("select * from numbers", 1000),
        ("select * from numbers where n = 5", 1),
        ("select n from numbers where false", 0),
        ("select count(*), min(name) from numbers", 1),
        ("select n % 3 as m, sum(n), avg(n) from numbers group by 1", 3),
        ("select a.n, b.name from numbers a left join numbers b on a.n = b.n + 990", 1000),
        ("select upper(name), substr(name, 2), n::text, cast(n as decimal(10, 2)) d, null from numbers limit 7", 7),
        ("select arrow_cast(name, 'Dictionary(Int32, Utf8)') d, arrow_cast(name, 'Utf8View') v from numbers", 1000),
        ("select case when n > 1 then name end, [n, 1], named_struct('a', n) from numbers limit 2", 2),
        ("select now(), date '2020-01-01', interval '1 day', 1.5, true, x'00'", 1),
        ("explain select * from numbers", 2),
        ("show tables", 9),
        ("describe numbers", 2),
        ("values (1, 'a'), (2, null)", 2),
    ] {
        let found = server.query(sql).await.unwrap_or_else(|e| panic!("{sql}: {e}"));
        if sql == "show tables" {
            assert!(rows_in(&found) > 1, "{sql}");
        } else {
            assert_eq!(rows_in(&found), rows, "{sql}");
        }
    }
    server.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn prepared_statements_bind_execute_and_close() {
    let mut server = Fixture::new().await;
    let mut statement = server.client.prepare("select name from numbers where n = ?".to_owned(), None).await.unwrap();
    assert_eq!(statement.parameter_schema().unwrap().fields().len(), 1);
    let keys = RecordBatch::try_from_iter([("k", Arc::new(Int64Array::from(vec![7, 5000, 3])) as _)]).unwrap();
    statement.set_parameters(keys.clone()).unwrap();
    let info = statement.execute().await.unwrap();
    let rows = server.rows(info.clone()).await.unwrap();
    let names: Vec<String> = rows
        .iter()
        .flat_map(|b| arrow_cast::cast(b.column(0), &arrow_schema::DataType::Utf8).ok())
        .flat_map(|c| {
            arrow_array::cast::AsArray::as_string::<i32>(&c).iter().flatten().map(str::to_owned).collect::<Vec<_>>()
        })
        .collect();
    assert_eq!(names, ["name 7", "name 3"]);
    statement.close().await.unwrap();
    assert_eq!(server.rows(info).await.unwrap_err().code(), Code::NotFound);
    let mut insert = server.client.prepare("insert into numbers values (?, ?)".to_owned(), None).await.unwrap();
    let rows = RecordBatch::try_from_iter([
        ("a", Arc::new(Int64Array::from(vec![1000, 1001])) as _),
        ("b", Arc::new(StringArray::from(vec!["x", "y"])) as _),
    ])
    .unwrap();
    insert.set_parameters(rows).unwrap();
    assert_eq!(insert.execute_update().await.unwrap(), 2);
    insert.close().await.unwrap();
    assert_eq!(server.store.table("numbers").unwrap().version(), 2);
    assert_eq!(server.client.execute_update("delete from numbers where n >= 1000".to_owned(), None).await.unwrap(), 2);
    server.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_caller_holds_so_much_and_no_more() {
    let mut limits = HandleLimits::default();
    limits.caller_count_max = 3;
    limits.caller_transactions_max = 1;
    limits.caller_bytes_max = 64 << 10;
    let mut server = Fixture::with(limits).await;
    let select = "select name from numbers where n = ?".to_owned();
    let mut first = server.client.prepare(select.clone(), None).await.unwrap();
    let transaction = server.client.begin_transaction().await.unwrap();
    let refused = status(server.client.begin_transaction().await.unwrap_err());
    assert!(refused.message().contains("too many transactions"), "{refused}");
    // Statements that were not prepared take each other's place.
    let mut infos = Vec::new();
    for i in 0..5 {
        infos.push(server.client.execute(format!("select {i}"), None).await.unwrap());
    }
    assert_eq!(server.rows(infos[0].clone()).await.unwrap_err().code(), Code::NotFound);
    for _ in 0..2 {
        assert_eq!(rows_in(&server.rows(infos[4].clone()).await.unwrap()), 1, "some clients fetch twice");
    }
    let second = server.client.prepare(select.clone(), None).await.unwrap();
    let refused = status(server.client.prepare(select.clone(), None).await.map(|_| ()).unwrap_err());
    assert_eq!(refused.code(), Code::ResourceExhausted);
    assert!(refused.message().contains("holds too many open statements; close some"), "{refused}");
    second.close().await.unwrap();
    server.client.end_transaction(transaction, arrow_flight::sql::EndTransaction::Commit).await.unwrap();
    // Parameters that were used make room for others, those that are waiting do not.
    let mut third = server.client.prepare(select, None).await.unwrap();
    let info = bind(&mut first, 5000).await.unwrap();
    let refused = status(bind(&mut third, 5000).await.unwrap_err());
    assert!(refused.message().contains("bytes in open statements"), "{refused}");
    assert_eq!(rows_in(&server.rows(info.clone()).await.unwrap()), 1000);
    let other = bind(&mut third, 5000).await.unwrap();
    assert_eq!(rows_in(&server.rows(other).await.unwrap()), 1000);
    assert_eq!(server.rows(info).await.unwrap_err().code(), Code::InvalidArgument, "its parameters are gone");
    server.end().await;
}

/// Rows of few bytes: each of them becomes a value.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn parameters_of_many_rows_are_refused() {
    let mut limits = HandleLimits::default();
    limits.parameter_bytes_max = 1 << 20;
    limits.caller_bytes_max = 128 << 10;
    let mut server = Fixture::with(limits).await;
    let sql = "select 1 where $1 is not null".to_owned();
    let mut statement = server.client.prepare(sql, None).await.unwrap();
    let rows = 1 << 20;
    for column in [Arc::new(NullArray::new(rows)) as ArrayRef, Arc::new(BooleanArray::from(vec![true; rows]))] {
        statement.set_parameters(RecordBatch::try_from_iter([("p", column.clone())]).unwrap()).unwrap();
        let refused = status(statement.execute().await.unwrap_err());
        assert_eq!(refused.code(), Code::ResourceExhausted, "{refused}");
        // What a caller holds is counted the same way.
        let fewer = column.slice(0, 64 << 10);
        statement.set_parameters(RecordBatch::try_from_iter([("p", fewer)]).unwrap()).unwrap();
        let refused = status(statement.execute().await.unwrap_err());
        assert!(refused.message().contains("bytes in open statements"), "{refused}");
    }
    server.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_handle_is_of_one_process() {
    let (mut one, mut other) = (Fixture::new().await, Fixture::new().await);
    let ours = one.client.execute("select 1".to_owned(), None).await.unwrap();
    let theirs = other.client.execute("select 2".to_owned(), None).await.unwrap();
    assert_eq!(one.rows(theirs).await.unwrap_err().code(), Code::NotFound);
    assert_eq!(rows_in(&one.rows(ours).await.unwrap()), 1);
    let done = one.client.execute("delete from numbers where n = 1".to_owned(), None).await.unwrap();
    assert_eq!(other.rows(done.clone()).await.unwrap_err().code(), Code::NotFound);
    assert_eq!(rows_in(&one.rows(done).await.unwrap()), 0);
    one.end().await;
    other.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_catalogue_tells_tables_and_keys() {
    let mut server = Fixture::new().await;
    let info = server.client.get_catalogs().await.unwrap();
    assert_eq!(rows_in(&server.rows(info).await.unwrap()), 1);
    let schemas = CommandGetDbSchemas { catalog: None, db_schema_filter_pattern: None };
    let info = server.client.get_db_schemas(schemas).await.unwrap();
    assert_eq!(rows_in(&server.rows(info).await.unwrap()), 1);
    let tables = |include_schema| CommandGetTables {
        catalog: Some("pheon".to_owned()),
        db_schema_filter_pattern: None,
        table_name_filter_pattern: Some("%".to_owned()),
        table_types: vec![],
        include_schema,
    };
    for include_schema in [true, false] {
        let info = server.client.get_tables(tables(include_schema)).await.unwrap();
        let found = server.rows(info).await.unwrap();
        assert_eq!((rows_in(&found), found[0].num_columns()), (1, 4 + usize::from(include_schema)), "no secret");
    }
    let info = server.client.get_table_types().await.unwrap();
    assert_eq!(rows_in(&server.rows(info).await.unwrap()), 1);
    for (table, keys) in [("numbers", 1), ("secret", 0), ("none", 0)] {
        let command = CommandGetPrimaryKeys { catalog: None, db_schema: None, table: table.to_owned() };
        let info = server.client.get_primary_keys(command).await.unwrap();
        assert_eq!(rows_in(&server.rows(info).await.unwrap()), keys, "{table}");
    }
    let info = server.client.get_sql_info(vec![SqlInfo::FlightSqlServerName]).await.unwrap();
    assert_eq!(rows_in(&server.rows(info).await.unwrap()), 1);
    let info = server.client.get_sql_info(vec![]).await.unwrap();
    assert!(rows_in(&server.rows(info).await.unwrap()) > 40);
    let types = CommandGetXdbcTypeInfo { data_type: None };
    let info = server.client.get_xdbc_type_info(types).await.unwrap();
    assert_eq!(rows_in(&server.rows(info).await.unwrap()), 13);
    server.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn failures_have_statuses() {
    let mut server = Fixture::new().await;
    for (sql, code) in [
        ("select * from nothing", Code::NotFound),
        ("select * from secret", Code::PermissionDenied),
        ("selec 1", Code::InvalidArgument),
        ("select nothing from numbers", Code::InvalidArgument),
        ("copy numbers to '/tmp/x.csv'", Code::Unimplemented),
        ("create table numbers (a int)", Code::AlreadyExists),
        ("insert into numbers values (1, 'x')", Code::AlreadyExists),
        ("select 1 / (n - 5) from numbers", Code::InvalidArgument),
        ("select repeat('x', 1000000000)", Code::ResourceExhausted),
    ] {
        let failed = server.query(sql).await.unwrap_err();
        assert_eq!(failed.code(), code, "{sql}: {failed}");
    }
    assert_eq!(server.store.table("numbers").unwrap().version(), 1);
    server.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn transactions_are_snapshots_and_statements_can_be_cancelled() {
    let mut server = Fixture::new().await;
    let transaction = server.client.begin_transaction().await.unwrap();
    let count = "select n from numbers".to_owned();
    let info = server.client.execute(count.clone(), Some(transaction.clone())).await.unwrap();
    assert_eq!(rows_in(&server.rows(info).await.unwrap()), 1000);
    server.client.execute_update("delete from numbers where n < 10".to_owned(), None).await.unwrap();
    let info = server.client.execute(count.clone(), Some(transaction.clone())).await.unwrap();
    assert_eq!(rows_in(&server.rows(info).await.unwrap()), 1000);
    let refused = server.client.execute_update("delete from numbers".to_owned(), Some(transaction.clone())).await;
    assert_eq!(status(refused.unwrap_err()).code(), Code::FailedPrecondition);
    server.client.end_transaction(transaction.clone(), arrow_flight::sql::EndTransaction::Commit).await.unwrap();
    assert!(server.client.execute(count.clone(), Some(transaction)).await.is_err());
    assert_eq!(rows_in(&server.query(&count).await.unwrap()), 990);
    let info = server.client.execute("select * from numbers".to_owned(), None).await.unwrap();
    let body = CancelFlightInfoRequest::new(info.clone()).encode_to_vec().into();
    let action = Action { r#type: "CancelFlightInfo".to_owned(), body };
    let results = server.client.inner_mut().do_action(action).await.unwrap().into_inner();
    let results: Vec<_> = results.try_collect().await.unwrap();
    let result = CancelFlightInfoResult::decode(&*results[0].body).unwrap();
    assert_eq!(result.status(), CancelStatus::Cancelled);
    assert_eq!(server.rows(info).await.unwrap_err().code(), Code::Cancelled);
    server.end().await;
}

/// The action that clients called before `CancelFlightInfo` was there.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn statements_can_be_cancelled_the_old_way() {
    const CANCELLED: i32 = 1;
    let mut server = Fixture::new().await;
    let nonsense = server.cancel_the_old_way(b"no information".as_slice().into()).await;
    assert_eq!(nonsense.unwrap_err().code(), Code::InvalidArgument);
    let info = server.client.execute("select * from numbers".to_owned(), None).await.unwrap();
    assert_eq!(server.cancel_the_old_way(info.encode_to_vec().into()).await.unwrap(), CANCELLED);
    assert_eq!(server.rows(info).await.unwrap_err().code(), Code::Cancelled);
    server.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn savepoints_are_refused_and_say_why() {
    let mut server = Fixture::new().await;
    let transaction_id = server.client.begin_transaction().await.unwrap();
    let begin = ActionBeginSavepointRequest { transaction_id, name: "here".to_owned() };
    let end = ActionEndSavepointRequest { savepoint_id: "here".into(), action: 1 };
    for (kind, body) in [("BeginSavepoint", begin.as_any()), ("EndSavepoint", end.as_any())] {
        let action = Action { r#type: kind.to_owned(), body: body.encode_to_vec().into() };
        let refused = server.client.inner_mut().do_action(action).await.unwrap_err().to_string();
        assert!(refused.contains("snapshot"), "{refused}");
    }
    server.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bulk_ingest_makes_and_keeps_keys() {
    let mut server = Fixture::new().await;
    let rows = RecordBatch::try_from_iter([
        ("id", Arc::new(Int64Array::from(vec![2, 1])) as _),
        ("name", Arc::new(StringArray::from(vec!["b", "a"])) as _),
    ])
    .unwrap();
    let mut ingest = async |options: &[(&str, &str)]| {
        let command = CommandIngest {
            table: "made".to_owned(),
            options: options.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
            ..CommandIngest::default()
        };
        let rows = futures::stream::iter([Ok(rows.clone())]);
        server.client.execute_ingest(command, rows).await
    };
    assert_eq!(ingest(&[("pheon.key", "id")]).await.unwrap(), 2);
    assert!(ingest(&[]).await.is_err(), "the keys are there");
    assert_eq!(ingest(&[("pheon.on_conflict", "nothing")]).await.unwrap(), 0);
    assert_eq!(ingest(&[("pheon.on_conflict", "replace")]).await.unwrap(), 2);
    for wrong in [("pheon.on_conflict", "never"), ("pheon.key", "[1]"), ("pheon.key", "name"), ("other", "x")] {
        assert!(ingest(&[wrong]).await.is_err(), "{wrong:?}");
    }
    let made = server.store.table("made").unwrap();
    assert_eq!((made.key(), made.is_unique(), made.num_rows()), (&["id".to_owned()][..], true, 2));
    server.end().await;
}
