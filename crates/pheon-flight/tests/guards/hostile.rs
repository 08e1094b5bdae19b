//! Clients that mean no good. After each of them a new client is served.

use std::time::Duration;

use arrow_flight::flight_service_client::FlightServiceClient;
use arrow_flight::{FlightData, Ticket};
use pheon_flight::limits::Limits;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tonic::{Code, Request};

use super::credentials::whoami;
use super::server::{Certificates, Running, WATCHDOG};

fn limits(set: &[(&str, &str)]) -> Limits {
    let mut limits = Limits::default();
    for (name, value) in set {
        limits.set(name, value).unwrap();
    }
    limits
}

async fn serves(server: &Running) {
    let served = async { whoami(server.channel().await, None).await.unwrap() };
    assert_eq!(tokio::time::timeout(WATCHDOG, served).await.expect("a new client is served"), "everyone");
}

/// Reads until the server closes the connection; what came.
async fn read_to_end(stream: &mut TcpStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    // A reset is an end too.
    let _ = tokio::time::timeout(WATCHDOG, stream.read_to_end(&mut bytes)).await.expect("the server ends it");
    bytes
}

#[tokio::test]
async fn silent_connections_are_ended() {
    let server = Running::start(None, None, limits(&[("handshake_timeout", "50ms")])).await;
    let mut silent = TcpStream::connect(server.address).await.unwrap();
    let mut half = TcpStream::connect(server.address).await.unwrap();
    half.write_all(b"PRI * HTTP/2.0").await.unwrap();
    read_to_end(&mut silent).await;
    read_to_end(&mut half).await;
    server.expect_metric("pheon_connections_closed_total{reason=\"handshake\"} 2").await;
    serves(&server).await;
    server.stop().await;
}

#[tokio::test]
async fn silent_tls_handshakes_keep_nobody_out() {
    let certificates = Certificates::new();
    let set = limits(&[("connections_max", "8"), ("handshake_timeout", "60s")]);
    let server = Running::start(None, Some(&certificates.files()), set).await;
    let mut silent = Vec::new();
    for _ in 0..32 {
        silent.push(TcpStream::connect(server.address).await.unwrap());
    }
    let endpoint = server.endpoint("https").tls_config(certificates.client(None)).unwrap();
    let served = async { whoami(endpoint.connect().await.unwrap(), None).await.unwrap() };
    assert_eq!(tokio::time::timeout(WATCHDOG, served).await.expect("served"), "everyone");
    assert!(server.connections.len() <= 8);
    drop(silent);
    server.stop().await;
}

#[tokio::test]
async fn silent_tls_handshakes_have_a_deadline() {
    let certificates = Certificates::new();
    let server = Running::start(None, Some(&certificates.files()), limits(&[("handshake_timeout", "50ms")])).await;
    let mut silent = TcpStream::connect(server.address).await.unwrap();
    read_to_end(&mut silent).await;
    let mut nonsense = TcpStream::connect(server.address).await.unwrap();
    nonsense.write_all(&[0xFF; 64]).await.unwrap();
    read_to_end(&mut nonsense).await;
    server.expect_metric("pheon_connections 0").await;
    server.stop().await;
}

#[tokio::test]
async fn idle_connections_are_ended() {
    let server = Running::start(None, None, limits(&[("idle_timeout", "1s")])).await;
    let channel = server.channel().await;
    assert_eq!(whoami(channel.clone(), None).await.unwrap(), "everyone");
    server.expect_some("pheon_connections_closed_total{reason=\"idle\"}").await;
    // A call that meets the end of the connection fails with it; the next one connects again.
    let again = match whoami(channel.clone(), None).await {
        Err(_) => whoami(channel, None).await,
        done => done,
    };
    assert_eq!(again.unwrap(), "everyone", "a client connects again by itself");
    server.stop().await;
}

#[tokio::test]
async fn readers_that_do_not_read_are_ended() {
    let server = Running::start(None, None, limits(&[("stall_timeout", "2s")])).await;
    let mut client = FlightServiceClient::new(server.channel().await);
    let mut stream = client.do_get(Ticket::default()).await.unwrap().into_inner();
    assert!(stream.message().await.is_ok());
    serves(&server).await;
    server.expect_some("pheon_connections_closed_total{reason=\"stalled\"}").await;
    let mut last = Ok(None);
    for _ in 0..1000 {
        last = stream.message().await;
        if last.is_err() {
            break;
        }
    }
    assert!(last.is_err(), "its stream breaks, it does not end");
    serves(&server).await;
    server.stop().await;
}

#[tokio::test]
async fn writers_that_do_not_write_are_ended_and_exchanges_may_wait() {
    let server = Running::start(None, None, limits(&[("stall_timeout", "2s")])).await;
    let mut exchange_client = FlightServiceClient::new(server.channel().await);
    let (question, questions) = futures::channel::mpsc::unbounded::<FlightData>();
    question.unbounded_send(FlightData::default()).unwrap();
    let mut answers = exchange_client.do_exchange(questions).await.unwrap().into_inner();
    assert!(answers.message().await.unwrap().is_some());

    let mut client = FlightServiceClient::new(server.channel().await);
    let (sender, messages) = futures::channel::mpsc::unbounded::<FlightData>();
    sender.unbounded_send(FlightData::default()).unwrap();
    let mut results = client.do_put(messages).await.unwrap().into_inner();
    assert!(results.message().await.unwrap().is_some());
    server.expect_some("pheon_connections_closed_total{reason=\"stalled\"}").await;
    assert!(results.message().await.is_err());

    question.unbounded_send(FlightData::default()).unwrap();
    assert!(answers.message().await.unwrap().is_some(), "the exchange has been waiting longer than that");
    server.stop().await;
}

#[tokio::test]
async fn floods_of_resets_end_the_connection() {
    let server = Running::start(None, None, limits(&[("resets_max", "10")])).await;
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    frame(&mut bytes, 4, 0, 0, &[]); // SETTINGS
    // HPACK: POST, http, and a literal path and authority.
    let mut headers = vec![0x83, 0x86, 0x44, 2];
    headers.extend_from_slice(b"/x");
    headers.extend_from_slice(&[0x41, 1, b'x']);
    for n in 0..5000u32 {
        let id = 2 * n + 1;
        frame(&mut bytes, 1, 4, id, &headers); // HEADERS, END_HEADERS
        frame(&mut bytes, 3, 0, id, &8u32.to_be_bytes()); // RST_STREAM, CANCEL
    }
    let _ = stream.write_all(&bytes).await;
    let answer = read_to_end(&mut stream).await;
    // GOAWAY with ENHANCE_YOUR_CALM, unless the reset of the connection has overtaken it.
    if let Some(at) = answer.windows(4).position(|w| w == [8, 7, 0, 0]) {
        assert_eq!(answer.get(at + 10..at + 14), Some(&11u32.to_be_bytes()[..]));
    }
    serves(&server).await;
    server.stop().await;
}

fn frame(bytes: &mut Vec<u8>, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
    bytes.extend_from_slice(&(payload.len() as u32).to_be_bytes()[1..]);
    bytes.extend_from_slice(&[kind, flags]);
    bytes.extend_from_slice(&stream.to_be_bytes());
    bytes.extend_from_slice(payload);
}

#[tokio::test]
async fn nonsense_oversized_metadata_and_messages() {
    let set = limits(&[("message_bytes_max", "64KiB"), ("metadata_bytes_max", "8KiB"), ("handshake_timeout", "1s")]);
    let server = Running::start(None, None, set).await;
    for nonsense in [
        &b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"[..],
        &[0; 100],
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\xff\xff\xff\xff\xff\xff\xff\xff\xff",
    ] {
        let mut stream = TcpStream::connect(server.address).await.unwrap();
        stream.write_all(nonsense).await.unwrap();
        read_to_end(&mut stream).await;
    }
    let big = format!("Bearer {}", "x".repeat(32 << 10));
    assert!(whoami(server.channel().await, Some(&big)).await.is_err());

    let mut client = FlightServiceClient::new(server.channel().await);
    let put = |bytes: usize| FlightData { data_body: vec![0; bytes].into(), ..FlightData::default() };
    let mut results = client.do_put(Request::new(futures::stream::iter([put(1000)]))).await.unwrap().into_inner();
    assert_eq!(results.message().await.unwrap().unwrap().app_metadata, "1000");
    let refused = match client.do_put(Request::new(futures::stream::iter([put(100 << 10)]))).await {
        Ok(answer) => answer.into_inner().message().await.unwrap_err(),
        Err(status) => status,
    };
    assert_eq!(refused.code(), Code::OutOfRange);
    serves(&server).await;
    server.stop().await;
}

#[tokio::test]
async fn stopping_does_not_wait_for_those_that_never_end() {
    let server = Running::start(None, None, Limits::default()).await;
    let mut client = FlightServiceClient::new(server.channel().await);
    let mut stream = client.do_get(Ticket::default()).await.unwrap().into_inner();
    assert!(stream.message().await.is_ok());
    let address = server.address;
    tokio::time::timeout(Duration::from_secs(60), server.stop()).await.expect("it stops");
    assert!(TcpStream::connect(address).await.is_err(), "nobody listens any more");
}
