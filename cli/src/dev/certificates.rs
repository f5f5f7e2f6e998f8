//! A CA for the dev cell, and one certificate for its listeners.

use anyhow::Context;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
};

use crate::dev::layout::Layout;
use crate::profile::write_private;

/// The names that the listeners' certificate is for.
const NAMES: [&str; 3] = ["127.0.0.1", "::1", "localhost"];

/// Makes the CA and the certificate, unless they are there.
///
/// # Errors
/// When they cannot be made or written.
pub fn ensure(layout: &Layout) -> anyhow::Result<()> {
    if layout.ca().exists() && layout.etc("server.pem").exists() && layout.etc("server-key.pem").exists() {
        return Ok(());
    }
    make(layout).context("cannot make the dev cell's certificates")
}

fn make(layout: &Layout) -> anyhow::Result<()> {
    let ca_key = KeyPair::generate()?;
    let mut ca = CertificateParams::new(Vec::<String>::new())?;
    ca.distinguished_name.push(DnType::CommonName, "Holdfast dev CA");
    ca.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    ca.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let ca_certificate = ca.self_signed(&ca_key)?;
    let issuer = Issuer::new(ca, ca_key);

    let key = KeyPair::generate()?;
    let mut server = CertificateParams::new(NAMES.map(str::to_owned).to_vec())?;
    server.distinguished_name.push(DnType::CommonName, "Holdfast dev");
    server.use_authority_key_identifier_extension = true;
    server.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    server.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let certificate = server.signed_by(&key, &issuer)?;

    // The CA's own key is not kept: nothing else is ever signed with it.
    write_private(&layout.etc("server-key.pem"), key.serialize_pem().as_bytes())?;
    write_private(&layout.etc("server.pem"), certificate.pem().as_bytes())?;
    write_private(&layout.ca(), ca_certificate.pem().as_bytes())
}
