//! What Flight SQL asks of this server: who calls, and whether a handle is the server's own.

use std::sync::Arc;

use tonic::{Extensions, Status};

use crate::auth::{Principal, Signer};
use crate::sql::{Caller, Gate};

/// The caller is who the authentication layer says.
pub(crate) struct RequestGate {
    signer: Signer,
    read_only: bool,
}

impl RequestGate {
    pub(crate) fn new(signer: &Signer, read_only: bool) -> Self {
        Self { signer: signer.derive("pheon sql handle"), read_only }
    }
}

/// A principal's rights, on a server that may be read-only.
#[derive(Debug)]
pub(crate) struct Rights {
    principal: Principal,
    read_only: bool,
}

impl Rights {
    pub(crate) fn new(principal: Principal, read_only: bool) -> Self {
        Self { principal, read_only }
    }
}

impl pheon_sql::Access for Rights {
    fn may_read(&self, dataset: &str) -> bool {
        self.principal.may_read(dataset)
    }

    fn may_write(&self, dataset: &str) -> bool {
        !self.read_only && self.principal.may_write(dataset)
    }

    fn may_admin(&self, dataset: &str) -> bool {
        !self.read_only && self.principal.may_admin(dataset)
    }
}

impl Gate for RequestGate {
    fn caller(&self, request: &Extensions) -> Result<Caller, Status> {
        let principal = request.get::<Principal>().cloned();
        let principal = principal.ok_or_else(|| Status::unauthenticated("nobody said who calls"))?;
        let name = principal.name().to_owned();
        Ok(Caller { name, access: Arc::new(Rights::new(principal, self.read_only)) })
    }

    fn sign(&self, payload: &[u8]) -> Vec<u8> {
        self.signer.sign(payload)
    }

    fn open(&self, signed: &[u8]) -> Option<Vec<u8>> {
        self.signer.open(signed).map(<[u8]>::to_vec)
    }
}
