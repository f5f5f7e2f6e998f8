//! Certificates for servers under test.

use std::path::{Path, PathBuf};

use holdfast_libs_transport::tls::TlsFiles;

/// Makes a CA and a certificate of it for 127.0.0.1 and localhost, as files in `folder`.
///
/// # Panics
/// When the files cannot be written.
pub fn certificates(folder: &Path) -> TlsFiles {
    let mut ca = rcgen::CertificateParams::new(Vec::new()).expect("no name is wrong");
    // Another name than the server's, or OpenSSL takes the server's certificate for a self-signed one.
    ca.distinguished_name.push(rcgen::DnType::CommonName, "test CA");
    ca.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    ca.key_usages = vec![rcgen::KeyUsagePurpose::KeyCertSign, rcgen::KeyUsagePurpose::CrlSign];
    let ca_key = key();
    let ca_certificate = ca.self_signed(&ca_key).expect("the CA signs itself");
    let leaf_key = key();
    let names = vec!["127.0.0.1".to_owned(), "localhost".to_owned()];
    let mut leaf = rcgen::CertificateParams::new(names).expect("both are names");
    leaf.use_authority_key_identifier_extension = true;
    let certificate = leaf.signed_by(&leaf_key, &rcgen::Issuer::new(ca, ca_key)).expect("the CA signs");
    TlsFiles {
        certificate: write(folder, "certificate.pem", &certificate.pem()),
        key: write(folder, "key.pem", &leaf_key.serialize_pem()),
        ca: write(folder, "ca.pem", &ca_certificate.pem()),
    }
}

fn key() -> rcgen::KeyPair {
    rcgen::KeyPair::generate().expect("a key can be made")
}

fn write(folder: &Path, name: &str, text: &str) -> PathBuf {
    let path = folder.join(name);
    std::fs::write(&path, text).expect("the folder takes files");
    path
}
