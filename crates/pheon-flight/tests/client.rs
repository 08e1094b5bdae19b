//! The client with the real server, mostly by its blocking calls.

use std::io::Read;
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use arrow_array::cast::AsArray;
use arrow_array::types::Int64Type;
use arrow_array::{ArrayRef, Int64Array, LargeStringArray, RecordBatch, RecordBatchIterator};
use pheon::{PutOptions, Store};
use pheon_flight::client::blocking::Client;
use pheon_flight::client::{ClientError, ClientOptions, LiveAnswer, LiveOperation, LookupOptions, Put, Refusal, Scan};
use pheon_flight::{ServeConfig, Server};
use tokio::sync::oneshot;

/// A server on a thread of its own.
struct Running {
    address: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Running {
    fn start(config: ServeConfig) -> Self {
        let server = Server::bind(config).unwrap();
        let address = server.local_addr();
        let (stop, stopped) = oneshot::channel();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
            runtime.block_on(server.run(async move { drop(stopped.await) })).unwrap();
        });
        Self { address, stop: Some(stop), thread: Some(thread) }
    }

    fn connect(&self) -> Client {
        Client::connect(&format!("grpc://{}", self.address), ClientOptions::default(), None).unwrap()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        drop(self.stop.take());
        self.thread.take().unwrap().join().unwrap();
    }
}

fn store() -> (tempfile::TempDir, PathBuf, Store) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store");
    let store = Store::open(&path).unwrap();
    (dir, path, store)
}

fn entries(range: std::ops::Range<i64>) -> RecordBatch {
    let keys: ArrayRef = Arc::new(LargeStringArray::from_iter_values(range.clone().map(|i| format!("key {i:07}"))));
    let values: ArrayRef = Arc::new(range.map(|i| (i % 5 != 0).then_some(i)).collect::<Int64Array>());
    RecordBatch::try_from_iter_with_nullable([("key", keys, false), ("value", values, true)]).unwrap()
}

fn publish(store: &Store, name: &str, batch: &RecordBatch) {
    store.put(name, RecordBatchIterator::new([Ok(batch.clone())], batch.schema()), PutOptions::map("key")).unwrap();
}

fn keys(texts: impl Iterator<Item = String>) -> RecordBatch {
    RecordBatch::try_from_iter([("key", Arc::new(LargeStringArray::from_iter_values(texts)) as ArrayRef)]).unwrap()
}

#[test]
fn lookups_equal_local_ones_and_tell_missing_from_null() {
    let (_dir, path, store) = store();
    publish(&store, "m", &entries(0..50_000));
    let running = Running::start(ServeConfig::loopback(path));
    let client = running.connect();
    // Every second key is missing; many batches, of which several are under way.
    let asked = keys((0..100_000).map(|i| format!("key {:07}", (i * 7919) % 100_000)));
    let expected = store.map("m").unwrap().get_many(asked.column(0)).unwrap();
    let found = store.map("m").unwrap().contains_many(asked.column(0)).unwrap();
    let options = LookupOptions::dataset("m").version(1).found(true);
    for round in 0..2 {
        // The second time on the lookup that lies idle, which knows by then how small answers are.
        let (schema, answers) = client.lookup(&options, &asked).unwrap();
        assert!(round > 0 || answers.len() > 1, "{}", answers.len());
        let all = arrow_select::concat::concat_batches(&schema, &answers).unwrap();
        assert_eq!(all.column(0).as_primitive::<Int64Type>(), expected.as_primitive::<Int64Type>());
        assert_eq!(all.column(1).as_boolean(), &found);
        assert_eq!(all.num_columns(), 2);
    }
    // Keys of which one batch is more than one message may hold.
    let long = keys((0..4096).map(|i| format!("{i}{}", "x".repeat(2000))));
    let (_, answers) = client.lookup(&options, &long).unwrap();
    assert_eq!(answers.iter().map(|a| a.column(1).as_boolean().false_count()).sum::<usize>(), 4096);
    let none = client.lookup(&options, &keys(std::iter::empty())).unwrap().1;
    assert_eq!(none.iter().map(RecordBatch::num_rows).sum::<usize>(), 0);
}

#[test]
fn scans_have_the_rows_that_were_asked_for() {
    let (_dir, path, store) = store();
    publish(&store, "m", &entries(0..300_000));
    let running = Running::start(ServeConfig::loopback(path));
    let client = running.connect();
    let rows = |scan: &Scan| {
        let info = client.scan_info(scan).unwrap();
        let mut rows = client.scan(scan).unwrap();
        let mut all = Vec::new();
        while let Some(batch) = rows.next_batch().unwrap() {
            assert_eq!(batch.schema(), info.schema);
            all.extend(batch.column(0).as_string::<i64>().iter().map(|k| k.unwrap().to_owned()));
        }
        assert_eq!(info.rows, Some(all.len() as u64));
        all
    };
    assert_eq!(rows(&Scan::dataset("m")).len(), 300_000);
    assert_eq!(
        rows(&Scan::version("m", 1).from_key("key 0000005").to_key("key 0000007")),
        ["key 0000005", "key 0000006"]
    );
    assert_eq!(rows(&Scan::dataset("m").prefix("key 000001").limit(2)), ["key 0000010", "key 0000011"]);
    assert_eq!(rows(&Scan::dataset("m").keys(["key 0000009", "no", "key 0000003"])), ["key 0000009", "key 0000003"]);
    let schema = client.scan_info(&Scan::dataset("m").columns(["value"])).unwrap().schema;
    assert_eq!(schema.fields().iter().map(|f| f.name().as_str()).collect::<Vec<_>>(), ["value"]);
    assert_eq!(client.schema("m").unwrap(), store.table("m").unwrap().schema());
    // A reader that stops early leaves the client usable.
    let mut some = client.scan(&Scan::dataset("m")).unwrap();
    assert!(some.next_batch().unwrap().is_some());
    drop(some);
    assert_eq!(rows(&Scan::dataset("m").offset(299_999)), ["key 0299999"]);
}

#[test]
fn only_what_is_committed_is_published() {
    let (_dir, path, store) = store();
    let running = Running::start(ServeConfig::loopback(path));
    let client = running.connect();
    let rows = entries(0..10);
    let put = Put::publish("m").key(["key"]).map(true);
    for batches in [0, 1, 20] {
        let mut writer = client.put(&put, rows.schema()).unwrap();
        for _ in 0..batches {
            writer.write(entries(0..50_000)).unwrap();
        }
        drop(writer);
    }
    let mut writer = client.put(&put, rows.schema()).unwrap();
    writer.write(rows.clone()).unwrap();
    let done = writer.commit().unwrap();
    // Had one that was given up been published, this would be a later version.
    assert_eq!((done.dataset.as_str(), done.version, done.rows), ("m", 1, 10));
    assert!(store.map("m").unwrap().contains("key 0000009").unwrap());

    let change = |put: Put, batch: RecordBatch| {
        let mut writer = client.put(&put, batch.schema()).unwrap();
        writer.write(batch)?;
        writer.commit()
    };
    assert_eq!(change(Put::append("m"), entries(10..12)).unwrap().version, 2);
    let twice = change(Put::append("m"), entries(3..4)).unwrap_err();
    assert!(matches!(&twice, ClientError::Refused { reason: Refusal::Exists, .. }), "{twice}");
    assert!(change(Put::upsert("m"), entries(3..14)).is_ok());
    assert_eq!(store.map("m").unwrap().len(), 14);
    let gone = change(Put::delete("m"), keys(["key 0000000", "no"].map(str::to_owned).into_iter())).unwrap();
    assert_eq!(gone.rows, 1);
    assert_eq!(store.map("m").unwrap().len(), 13);
    let unfit = RecordBatch::try_from_iter([("other", Arc::new(Int64Array::from(vec![1])) as ArrayRef)]).unwrap();
    let unfit = change(Put::append("m"), unfit).unwrap_err();
    assert!(matches!(&unfit, ClientError::Refused { reason: Refusal::Invalid, .. }), "{unfit}");
}

#[test]
fn live_maps_change_together() {
    let (_dir, path, store) = store();
    let location = pheon_live::Place::Store { path: store.path().to_owned() }.location("counters");
    let map = pheon_live::LiveMap::open(&location, &pheon_live::LiveOptions::default()).unwrap();
    let running = Running::start(ServeConfig::loopback(path));
    let client = running.connect();
    let (a, b, one, two) = (b"\xa1a".to_vec(), b"\xa1b".to_vec(), vec![1], vec![2]);
    let answers = client.live(
        "counters",
        &[
            LiveOperation::Set(a.clone(), one.clone()),
            LiveOperation::Increment(a.clone(), one.clone()),
            LiveOperation::Get(b.clone()),
            LiveOperation::CompareAndSet(b.clone(), None, Some(one.clone())),
            LiveOperation::CompareAndSet(b.clone(), Some(two.clone()), None),
            LiveOperation::Len,
        ],
    );
    assert_eq!(
        answers.unwrap(),
        [
            LiveAnswer::Entry(false, None),
            LiveAnswer::Entry(true, Some(two.clone())),
            LiveAnswer::Entry(false, None),
            LiveAnswer::Entry(true, None),
            LiveAnswer::Entry(false, Some(one)),
            LiveAnswer::Count(2),
        ]
    );
    assert_eq!(map.get_with(&a, |entry| entry.value().to_vec()).unwrap(), Some(two));
    assert_eq!(client.live_names().unwrap(), ["counters"]);
    let missing = client.live("nothing", &[LiveOperation::Len]).unwrap_err();
    assert!(matches!(&missing, ClientError::Refused { reason: Refusal::NotFound, .. }), "{missing}");
}

#[test]
fn refusals_have_their_reason() {
    let (_dir, path, store) = store();
    publish(&store, "m", &entries(0..10));
    let running = Running::start(ServeConfig::loopback(path));
    let client = running.connect();
    let reason = |error: ClientError| match error {
        ClientError::Refused { reason, .. } => reason,
        other => panic!("{other}"),
    };
    assert_eq!(reason(client.scan_info(&Scan::dataset("nothing")).unwrap_err()), Refusal::NotFound);
    assert_eq!(reason(client.scan_info(&Scan::version("m", 9)).unwrap_err()), Refusal::NotFound);
    assert_eq!(reason(client.scan_info(&Scan::dataset("m").columns(["no"])).unwrap_err()), Refusal::Invalid);
    let numbers = RecordBatch::try_from_iter([("key", Arc::new(Int64Array::from(vec![1])) as ArrayRef)]).unwrap();
    assert_eq!(reason(client.lookup(&LookupOptions::dataset("m"), &numbers).unwrap_err()), Refusal::Invalid);
    assert_eq!(client.store().unwrap().uuid, store.uuid());
}

#[test]
fn it_comes_back_after_the_server_does() {
    let (_dir, path, store) = store();
    publish(&store, "m", &entries(0..10));
    let mut running = Running::start(ServeConfig::loopback(path.clone()));
    let (address, client) = (running.address, running.connect());
    let asked = keys(["key 0000001".to_owned()].into_iter());
    let options = LookupOptions::dataset("m");
    client.lookup(&options, &asked).unwrap();
    drop(running);
    let down = client.lookup(&options, &asked).unwrap_err();
    assert!(down.is_connection(), "{down}");
    let mut config = ServeConfig::loopback(path);
    config.listen = address;
    running = Running::start(config);
    let (_, answers) = client.lookup(&options, &asked).unwrap();
    assert_eq!(answers[0].column(0).as_primitive::<Int64Type>().value(0), 1);
    assert_eq!(client.store().unwrap().uuid, store.uuid());
    drop(running);
}

/// A port that takes connections and never answers.
fn silent() -> (std::net::TcpListener, String) {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let uri = format!("grpc://{}", listener.local_addr().unwrap());
    (listener, uri)
}

#[test]
fn waiting_ends() {
    let (_listener, uri) = silent();
    let options = ClientOptions::default().timeout(Duration::from_millis(100));
    let late = Client::lazy(&uri, options, None).store().unwrap_err();
    assert!(matches!(late, ClientError::Deadline { .. }), "{late}");

    let asked = Arc::new(AtomicBool::new(false));
    let interrupt = Arc::clone(&asked);
    let client =
        Client::lazy(&uri, ClientOptions::default(), Some(Arc::new(move || interrupt.swap(true, Ordering::Relaxed))));
    let stopped = client.store().unwrap_err();
    assert!(matches!(stopped, ClientError::Interrupted { .. }), "{stopped}");
    assert!(asked.load(Ordering::Relaxed));

    let (listener, uri) = silent();
    drop(listener);
    let nobody = Client::connect(&uri, ClientOptions::default(), None).unwrap_err();
    assert!(nobody.is_connection(), "{nobody}");
    assert!(matches!(Client::connect("nonsense", ClientOptions::default(), None), Err(ClientError::Options { .. })));
}

/// Waits for a call on each connection, and closes it in place of an answer. Counts the calls.
fn breaks_off() -> (SocketAddr, Arc<AtomicUsize>) {
    const PREFACE_BYTES: usize = 24;
    const FRAME_HEAD_BYTES: usize = 9;
    const HEADERS: u8 = 1;
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let calls = Arc::new(AtomicUsize::new(0));
    let counted = calls.clone();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
            let mut bytes = vec![0; PREFACE_BYTES];
            stream.read_exact(&mut bytes).unwrap();
            loop {
                let mut head = [0; FRAME_HEAD_BYTES];
                stream.read_exact(&mut head).unwrap();
                if head[3] == HEADERS {
                    counted.fetch_add(1, Ordering::SeqCst);
                    break;
                }
                bytes.resize(u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize, 0);
                stream.read_exact(&mut bytes).unwrap();
            }
        }
    });
    (address, calls)
}

#[test]
fn only_what_reads_is_asked_for_again() {
    for (sql, expected) in [("select 1", 2), ("insert into t values (1)", 1), ("with a as (select 1) select 1", 1)] {
        let (address, calls) = breaks_off();
        let client = Client::connect(&format!("grpc://{address}"), ClientOptions::default(), None).unwrap();
        let failed = client.query(sql, None).unwrap_err();
        assert!(failed.is_connection(), "{failed}");
        assert_eq!(calls.load(Ordering::SeqCst), expected, "{sql}");
    }
}
