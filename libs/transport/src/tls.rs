//! TLS from PEM files, TLS 1.2 and 1.3, HTTP/1.1 only.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::{ClientConfig, RootCertStore, ServerConfig};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

/// The `[tls]` section of every daemon's configuration.
#[derive(Debug, Clone, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TlsFiles {
    /// The listener's certificate chain, PEM.
    pub certificate: PathBuf,
    /// Its private key, PEM.
    pub key: PathBuf,
    /// The cell's CA, PEM: whom this daemon trusts when it calls others.
    pub ca: PathBuf,
}

impl TlsFiles {
    /// The server side of the daemon's listener.
    ///
    /// # Errors
    /// See [`TlsError`].
    pub fn server(&self) -> Result<Arc<ServerConfig>, TlsError> {
        server_config(&self.certificate, &self.key)
    }

    /// The trust of the daemon's calls.
    ///
    /// # Errors
    /// See [`TlsError`].
    pub fn client(&self) -> Result<Arc<ClientConfig>, TlsError> {
        client_config(&self.ca)
    }
}

/// A certificate or key file that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The file is missing or is not PEM.
    #[error("{path}: not a readable PEM {what}: {detail}")]
    File {
        /// The file.
        path: PathBuf,
        /// What it should hold.
        what: &'static str,
        /// What was wrong.
        detail: String,
    },
    /// The files are readable but do not fit together.
    #[error("certificate {path} cannot be used: {source}")]
    Refused {
        /// The certificate file.
        path: PathBuf,
        /// What rustls says.
        source: rustls::Error,
    },
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let bad = |detail: String| TlsError::File { path: path.to_owned(), what: "certificate", detail };
    let found: Result<Vec<_>, _> = CertificateDer::pem_file_iter(path).map_err(|e| bad(e.to_string()))?.collect();
    let found = found.map_err(|e| bad(e.to_string()))?;
    if found.is_empty() { Err(bad("no certificate in the file".to_owned())) } else { Ok(found) }
}

fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

/// The server side of a listener.
///
/// # Errors
/// See [`TlsError`].
pub fn server_config(certificate: &Path, key: &Path) -> Result<Arc<ServerConfig>, TlsError> {
    let refused = |source| TlsError::Refused { path: certificate.to_owned(), source };
    let chain = certificates(certificate)?;
    let key = PrivateKeyDer::from_pem_file(key).map_err(|e| TlsError::File {
        path: key.to_owned(),
        what: "private key",
        detail: e.to_string(),
    })?;
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(refused)?
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .map_err(refused)?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

/// A client that trusts the CA certificates in `ca` and no others.
///
/// # Errors
/// See [`TlsError`].
pub fn client_config(ca: &Path) -> Result<Arc<ClientConfig>, TlsError> {
    let refused = |source| TlsError::Refused { path: ca.to_owned(), source };
    let mut roots = RootCertStore::empty();
    for certificate in certificates(ca)? {
        roots.add(certificate).map_err(refused)?;
    }
    let config = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(refused)?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(Arc::new(config))
}
