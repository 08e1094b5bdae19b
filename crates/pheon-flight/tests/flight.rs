//! The server with the stock arrow-rs client.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use arrow_array::cast::AsArray;
use arrow_array::types::{Int32Type, Int64Type};
use arrow_array::{
    ArrayRef, BooleanArray, DictionaryArray, Int64Array, LargeStringArray, ListArray, RecordBatch, RecordBatchIterator,
    StringArray, StructArray,
};
use arrow_flight::encode::FlightDataEncoderBuilder;
use arrow_flight::error::FlightError;
use arrow_flight::{Action, FlightClient, FlightDescriptor};
use arrow_schema::{DataType, Field};
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt, stream};
use pheon::{PutOptions, Store, Value};
use pheon_flight::{ServeConfig, Server};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tonic::transport::Endpoint;

struct Running {
    store: Store,
    client: FlightClient,
    stop: oneshot::Sender<()>,
    serving: JoinHandle<()>,
    _dir: tempfile::TempDir,
}

impl Running {
    async fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("store");
        let store = Store::open(&path).unwrap();
        let server = Server::bind(ServeConfig::loopback(path)).unwrap();
        let address = server.local_addr();
        let (stop, stopped) = oneshot::channel();
        let serving = tokio::spawn(async move {
            server.run(async move { drop(stopped.await) }).await.unwrap();
        });
        let channel = Endpoint::from_shared(format!("http://{address}")).unwrap().connect().await.unwrap();
        Self { store, client: FlightClient::new(channel), stop, serving, _dir: dir }
    }

    fn publish(&self, name: &str, batch: &RecordBatch, options: PutOptions) {
        let reader = RecordBatchIterator::new([Ok(batch.clone())], batch.schema());
        self.store.put(name, reader, options).unwrap();
    }

    async fn get(&mut self, command: &str) -> Vec<RecordBatch> {
        let descriptor = FlightDescriptor::new_cmd(command.to_owned());
        let info = self.client.get_flight_info(descriptor).await.unwrap();
        let schema = info.clone().try_decode_schema().unwrap();
        let ticket = info.endpoint[0].ticket.clone().unwrap();
        let batches: Vec<RecordBatch> = self.client.do_get(ticket).await.unwrap().try_collect().await.unwrap();
        assert!(batches.iter().all(|batch| *batch.schema() == schema), "the advertised schema is that of the stream");
        assert_eq!(batches.iter().map(|b| b.num_rows() as i64).sum::<i64>(), info.total_records);
        batches
    }

    async fn end(self) {
        drop(self.client);
        self.stop.send(()).unwrap();
        self.serving.await.unwrap();
    }
}

fn nested(rows: i64) -> RecordBatch {
    let texts: ArrayRef =
        Arc::new((0..rows).map(|i| (i % 5 != 2).then(|| format!("text {i}"))).collect::<LargeStringArray>());
    let truths: ArrayRef = Arc::new((0..rows).map(|i| (i % 3 != 1).then_some(i % 2 == 0)).collect::<BooleanArray>());
    let lists = ListArray::from_iter_primitive::<Int32Type, _, _>(
        (0..rows).map(|i| (i % 4 != 1).then(|| (0..i % 6).map(|v| Some(v as i32)).collect::<Vec<_>>())),
    );
    let names: Vec<String> = (0..rows).map(|i| format!("name {}", i % 7)).collect();
    let dictionary: DictionaryArray<Int32Type> = names.iter().map(String::as_str).collect();
    let inner = Field::new("inner", DataType::LargeUtf8, true);
    let structs = StructArray::from(vec![(Arc::new(inner), texts.clone())]);
    RecordBatch::try_from_iter_with_nullable([
        ("id", Arc::new(Int64Array::from_iter_values(0..rows)) as ArrayRef, false),
        ("text", texts, true),
        ("truth", truths, true),
        ("list", Arc::new(lists), true),
        ("dictionary", Arc::new(dictionary), true),
        ("struct", Arc::new(structs), true),
    ])
    .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn slices_of_nested_columns_arrive_as_they_are() {
    let mut running = Running::start().await;
    running.publish("t", &nested(1000), PutOptions::table(["id"]));
    let stored = running.store.table("t").unwrap();
    for (offset, limit) in [(0, 1000), (1, 1), (3, 13), (517, 400)] {
        let command = format!(r#"{{"dataset": "t", "offset": {offset}, "limit": {limit}}}"#);
        let batches = running.get(&command).await;
        let got = arrow_select::concat::concat_batches(&batches[0].schema(), &batches).unwrap();
        let expected = stored.slice(offset, limit).to_batch().unwrap();
        assert_eq!(got.num_rows(), expected.num_rows());
        for (a, b) in got.columns().iter().zip(expected.columns()) {
            assert_eq!(a.as_ref(), b.as_ref(), "{offset} {limit}");
        }
    }
    running.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn large_tables_come_in_messages_of_two_mebibytes() {
    let mut running = Running::start().await;
    let rows = 2_000_000;
    let ids: ArrayRef = Arc::new(Int64Array::from_iter_values(0..rows));
    running.publish("t", &RecordBatch::try_from_iter([("id", ids)]).unwrap(), PutOptions::table(Vec::<String>::new()));
    let batches = running.get(r#"{"dataset": "t"}"#).await;
    assert!(batches.len() >= 8, "{} messages", batches.len());
    assert!(batches.iter().all(|batch| batch.num_rows() * 8 <= 2 << 20));
    let all = batches.iter().flat_map(|batch| batch.column(0).as_primitive::<Int64Type>().values().to_vec());
    assert!(all.eq(0..rows));
    running.end().await;
}

fn words(batch: &[(&str, i64)]) -> RecordBatch {
    let keys: ArrayRef = Arc::new(StringArray::from_iter_values(batch.iter().map(|(key, _)| key)));
    let values: ArrayRef = Arc::new(Int64Array::from_iter_values(batch.iter().map(|(_, value)| *value)));
    RecordBatch::try_from_iter([("key", keys), ("value", values)]).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_breaks_publishes_nothing() {
    let mut running = Running::start().await;
    let put = |batches: BoxStream<'static, Result<RecordBatch, FlightError>>, command: &str| {
        FlightDataEncoderBuilder::new()
            .with_flight_descriptor(Some(FlightDescriptor::new_cmd(command.to_owned())))
            .build(batches)
    };
    let command = r#"{"put": "m", "key": ["key"], "value": ["value"]}"#;
    // Dropped in the middle, as a client does that goes away: the server sees a reset.
    let endless = stream::iter([Ok(words(&[("a", 1)]))]).chain(stream::pending()).boxed();
    let call = running.client.do_put(put(endless, command));
    assert!(tokio::time::timeout(Duration::from_millis(300), call).await.is_err(), "it never ends");
    let whole = vec![Ok(words(&[("b", 2), ("a", 1)])), Ok(words(&[("c", 3)]))];
    let whole = stream::iter(whole).boxed();
    let results: Vec<_> = running.client.do_put(put(whole, command)).await.unwrap().try_collect().await.unwrap();
    assert_eq!(results[0].app_metadata, br#"{"dataset":"m","rows":3,"version":1}"#.as_slice());
    assert!(matches!(running.store.map("m").unwrap().get("c").unwrap(), Some(Value::Int(3))));
    running.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn lookups_are_aligned() {
    let mut running = Running::start().await;
    running.publish("m", &words(&[("a", 1), ("b", 2)]), PutOptions::map("key"));
    let keys = RecordBatch::try_from_iter([(
        "key",
        Arc::new(StringArray::from(vec![Some("b"), Some("none"), None, Some("a")])) as ArrayRef,
    )])
    .unwrap();
    let asked = FlightDataEncoderBuilder::new()
        .with_flight_descriptor(Some(FlightDescriptor::new_path(vec!["m".into()])))
        .build(stream::iter([Ok(keys.clone()), Ok(keys.slice(3, 1))]))
        .filter_map(|data| std::future::ready(data.ok()));
    let asked = asked.map(Ok::<_, FlightError>);
    let answers: Vec<RecordBatch> = running.client.do_exchange(asked).await.unwrap().try_collect().await.unwrap();
    let values = |batch: &RecordBatch| batch.column(0).as_primitive::<Int64Type>().iter().collect::<Vec<_>>();
    assert_eq!(values(&answers[0]), [Some(2), None, None, Some(1)]);
    assert_eq!(values(&answers[1]), [Some(1)]);
    running.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn live_maps_are_changed_looked_up_and_scanned() {
    let mut running = Running::start().await;
    let location = pheon_live::Place::Store { path: running.store.path().to_owned() }.location("counters");
    let map = pheon_live::LiveMap::open(&location, &pheon_live::LiveOptions::default()).unwrap();
    // ["counters", [["set", "a" -> 1], ["increment", "a", 2], ["get", "b"], ["len"]]]
    let body = b"\x92\xa8counters\x94\
        \x93\xa3set\xc4\x02\xa1a\xc4\x01\x01\
        \x93\xa9increment\xc4\x02\xa1a\xc4\x01\x02\
        \x92\xa3get\xc4\x02\xa1b\
        \x91\xa3len";
    let results: Vec<_> =
        running.client.do_action(Action::new("live", body.as_slice())).await.unwrap().try_collect().await.unwrap();
    assert_eq!(results[0], b"\x94\x92\xc2\xc0\x92\xc3\xc4\x01\x03\x92\xc2\xc0\x01".as_slice());
    assert_eq!(map.get(b"\xa1a").unwrap().as_deref(), Some(&[3][..]));
    let malformed = running.client.do_action(Action::new("live", b"\x92\xa8counters\x91\x91\xa3set".as_slice())).await;
    let refused = match malformed {
        Ok(results) => results.try_collect::<Vec<_>>().await.is_err(),
        Err(_) => true,
    };
    assert!(refused);
    let descriptor = FlightDescriptor::new_path(vec!["live".into(), "counters".into()]);
    let info = running.client.get_flight_info(descriptor).await.unwrap();
    let ticket = info.endpoint[0].ticket.clone().unwrap();
    let rows: Vec<RecordBatch> = running.client.do_get(ticket).await.unwrap().try_collect().await.unwrap();
    let metadata = HashMap::from([("pheon.encoding".to_owned(), "live-values".to_owned())]);
    assert_eq!(rows[0].schema().metadata(), &metadata);
    assert_eq!(rows[0].column(0).as_binary::<i64>().value(0), b"\xa1a");
    assert_eq!(rows[0].column(1).as_binary::<i64>().value(0), [3]);
    running.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn plaintext_for_other_hosts_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    Store::open(dir.path().join("store")).unwrap();
    let mut config = ServeConfig::loopback(dir.path().join("store"));
    config.listen = "0.0.0.0:0".parse().unwrap();
    assert!(matches!(Server::bind(config), Err(pheon_flight::ServeError::Insecure { .. })));
    let missing = ServeConfig::loopback(dir.path().join("none"));
    assert!(matches!(Server::bind(missing), Err(pheon_flight::ServeError::Store(_))));
}
