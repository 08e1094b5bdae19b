//! Tickets: what a stream is of, signed and for a while.
//!
//! A ticket is a JSON object and the signature behind it, so its first byte is `{` and no Flight SQL ticket is mistaken for it.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use tonic::Status;

use crate::auth::Signer;
use crate::command::{ScanCommand, is_json};

/// What a stream is of. The command names a version.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ScanTicket {
    pub(crate) scan: ScanCommand,
    expires_unix_s: u64,
}

fn now_unix_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

impl ScanTicket {
    pub(crate) fn new(scan: ScanCommand, age_max: Duration) -> Self {
        Self { scan, expires_unix_s: now_unix_s().saturating_add(age_max.as_secs()) }
    }

    pub(crate) fn sign(&self, signer: &Signer) -> Result<Vec<u8>, Status> {
        let json = serde_json::to_vec(self).map_err(|e| Status::internal(format!("write a ticket: {e}")))?;
        Ok(signer.sign(&json))
    }

    pub(crate) fn open(ticket: &[u8], signer: &Signer) -> Result<Self, Status> {
        let json = signer
            .open(ticket)
            .filter(|json| is_json(json))
            .ok_or_else(|| Status::invalid_argument("malformed ticket: it was not made by this server"))?;
        let ticket: Self =
            serde_json::from_slice(json).map_err(|e| Status::invalid_argument(format!("malformed ticket: {e}")))?;
        if ticket.expires_unix_s < now_unix_s() {
            return Err(Status::failed_precondition("the ticket has expired: call GetFlightInfo again"));
        }
        Ok(ticket)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_ours_and_only_for_a_while() {
        let signer = Signer::generate().unwrap();
        let scan = ScanCommand { dataset: Some("a@1".into()), ..ScanCommand::default() };
        let ticket = ScanTicket::new(scan, Duration::from_secs(60));
        let mut bytes = ticket.sign(&signer).unwrap();
        assert_eq!(bytes[0], b'{');
        assert_eq!(ScanTicket::open(&bytes, &signer).unwrap(), ticket);
        let other = Signer::generate().unwrap();
        assert_eq!(ScanTicket::open(&bytes, &other).unwrap_err().code(), tonic::Code::InvalidArgument);
        for at in [1, bytes.len() - 1] {
            bytes[at] ^= 1;
            assert!(ScanTicket::open(&bytes, &signer).is_err(), "byte {at} was changed");
            bytes[at] ^= 1;
        }
        for short in [&b""[..], b"{", b"{}"] {
            assert!(ScanTicket::open(short, &signer).is_err());
        }
        let old = ScanTicket { expires_unix_s: 1, ..ticket };
        let refused = ScanTicket::open(&old.sign(&signer).unwrap(), &signer).unwrap_err();
        assert_eq!(refused.code(), tonic::Code::FailedPrecondition);
    }
}
