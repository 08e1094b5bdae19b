//! Tokens, the handshake, certificates: through a real connection.

use arrow_flight::flight_service_client::FlightServiceClient;
use arrow_flight::{Criteria, HandshakeRequest};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use pheon_flight::auth::Credentials;
use pheon_flight::connection::{ClientCertificates, TlsFiles};
use pheon_flight::limits::Limits;
use tonic::transport::Channel;
use tonic::{Code, Request, Status};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;

use super::server::{Certificates, Running, token};

/// What the server calls us.
pub(crate) async fn whoami(channel: Channel, authorization: Option<&str>) -> Result<String, Status> {
    let mut request = Request::new(Criteria::default());
    if let Some(value) = authorization {
        request.metadata_mut().insert("authorization", value.parse().unwrap());
    }
    let mut flights = FlightServiceClient::new(channel).list_flights(request).await?.into_inner();
    let info = flights.message().await?.expect("one flight");
    Ok(String::from_utf8(info.app_metadata.to_vec()).unwrap())
}

#[tokio::test]
async fn tokens() {
    let (entry, secret) = token("alice");
    let server = Running::start(Some(Credentials::parse(&entry).unwrap()), None, Limits::default()).await;
    let channel = server.channel().await;
    let bearer = format!("Bearer {}", secret.reveal());
    assert_eq!(whoami(channel.clone(), Some(&bearer)).await.unwrap(), "alice");
    for wrong in [None, Some("Bearer x"), Some("Basic eDp5"), Some(&*format!("{bearer}x"))] {
        let status = whoami(channel.clone(), wrong).await.unwrap_err();
        assert_eq!(status.code(), Code::Unauthenticated, "{wrong:?}");
        assert!(!status.message().contains(secret.reveal()));
    }
    let health = HealthClient::new(channel).check(HealthCheckRequest::default()).await.unwrap();
    assert_eq!(health.into_inner().status, 1, "serving, and told without credentials");
    server.stop().await;
}

#[tokio::test]
async fn without_credentials_everybody_is_everyone() {
    let server = Running::start(None, None, Limits::default()).await;
    assert_eq!(whoami(server.channel().await, None).await.unwrap(), "everyone");
    server.stop().await;
}

#[tokio::test]
async fn the_handshake_gives_a_token() {
    let (entry, secret) = token("alice");
    let server = Running::start(Some(Credentials::parse(&entry).unwrap()), None, Limits::default()).await;
    let channel = server.channel().await;
    let login = async |password: &str| {
        let mut request = Request::new(futures::stream::iter([HandshakeRequest::default()]));
        let basic = format!("Basic {}", STANDARD.encode(format!("alice:{password}")));
        request.metadata_mut().insert("authorization", basic.parse().unwrap());
        FlightServiceClient::new(channel.clone()).handshake(request).await
    };
    let answer = login(secret.reveal()).await.unwrap();
    let issued = answer.metadata().get("authorization").unwrap().to_str().unwrap().to_owned();
    assert!(!issued.contains(secret.reveal()));
    assert_eq!(whoami(channel.clone(), Some(&issued)).await.unwrap(), "alice");
    assert_eq!(login("wrong").await.unwrap_err().code(), Code::Unauthenticated);
    server.stop().await;
}

#[tokio::test]
async fn tls_and_client_certificates() {
    let certificates = Certificates::new();
    let entry = "[[certificate]]\ncommon_name = \"worker-1\"\nread = [\"*\"]\n";
    let connect = async |server: &Running, client: Option<&str>| {
        let endpoint = server.endpoint("https").tls_config(certificates.client(client)).unwrap();
        let channel = endpoint.connect().await.map_err(|e| Status::unavailable(e.to_string()))?;
        whoami(channel, None).await
    };

    let server = Running::start(None, Some(&certificates.files()), Limits::default()).await;
    assert_eq!(connect(&server, None).await.unwrap(), "everyone");
    assert!(whoami(server.endpoint("http").connect_lazy(), None).await.is_err(), "no plaintext beside TLS");
    server.stop().await;

    let credentials = || Some(Credentials::parse(entry).unwrap());
    let server = Running::start(credentials(), Some(&certificates.files_of_mutual_tls()), Limits::default()).await;
    assert_eq!(connect(&server, Some("worker-1")).await.unwrap(), "worker-1");
    assert_eq!(connect(&server, Some("worker-2")).await.unwrap_err().code(), Code::Unauthenticated);
    assert_ne!(connect(&server, None).await.unwrap_err().code(), Code::Unauthenticated, "TLS itself refuses");
    let strangers = Certificates::new();
    let (certificate, key) = strangers.signed("worker-1");
    let stranger = certificates.client(None).identity(tonic::transport::Identity::from_pem(certificate, key));
    let channel = server.endpoint("https").tls_config(stranger).unwrap().connect_lazy();
    assert!(whoami(channel, None).await.is_err(), "another CA has signed it");
    server.stop().await;

    let optional = TlsFiles { client_certificates: ClientCertificates::Optional, ..certificates.files_of_mutual_tls() };
    let server = Running::start(credentials(), Some(&optional), Limits::default()).await;
    assert_eq!(connect(&server, Some("worker-1")).await.unwrap(), "worker-1");
    assert_eq!(connect(&server, None).await.unwrap_err().code(), Code::Unauthenticated);
    server.stop().await;
}
