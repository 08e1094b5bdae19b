//! Who calls, and what he may do (docs/security.md).
//!
//! [`Authenticator`] decides from a request's headers and the connection's certificate which [`Principal`] it is;
//! [`AuthLayer`] does so for every request before a service sees it. [`Signer`] makes what clients are handed and give
//! back: tickets, prepared handles, bearer tokens.

mod authenticator;
mod basic;
mod certificate;
mod credentials;
mod layer;
mod pattern;
mod principal;
mod secret;
mod signer;

pub use authenticator::Authenticator;
pub use certificate::common_name;
pub use credentials::{CertificateEntry, Credentials, CredentialsError, Rights, TokenEntry};
pub use layer::{AuthLayer, AuthService, HANDSHAKE_PATH};
pub use pattern::{Pattern, PatternError};
pub use principal::Principal;
pub use secret::{Secret, SecretHash};
pub use signer::Signer;
