//! A throwaway certificate authority, so that even the demo's uplink is mutual TLS.

use crate::failure::Failure;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, KeyUsagePurpose};
use std::path::{Path, PathBuf};

/// Where the demo's certificates and keys lie.
pub struct Pki {
    pub ca: PathBuf,
    pub fog_cert: PathBuf,
    pub fog_key: PathBuf,
    pub edge_cert: PathBuf,
    pub edge_key: PathBuf,
}

impl Pki {
    /// Makes an authority and one certificate each for fog and edge in `dir`; the authority's key is
    /// dropped, so nobody can sign another.
    pub fn make(dir: &Path, fog: &str, edge: &str) -> Result<Self, Failure> {
        std::fs::create_dir_all(dir)?;
        let mut params = CertificateParams::new(Vec::<String>::new())?;
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let authority = CertifiedIssuer::self_signed(params, KeyPair::generate()?)?;
        let path = |name: &str| dir.join(name);
        let pki = Self {
            ca: path("ca.pem"),
            fog_cert: path("fog.pem"),
            fog_key: path("fog.key"),
            edge_cert: path("edge.pem"),
            edge_key: path("edge.key"),
        };
        std::fs::write(&pki.ca, authority.pem())?;
        let sides = [
            (vec![fog.to_owned(), "127.0.0.1".to_owned()], &pki.fog_cert, &pki.fog_key),
            (vec![edge.to_owned()], &pki.edge_cert, &pki.edge_key),
        ];
        for (names, cert_file, key_file) in sides {
            let key = KeyPair::generate()?;
            let cert = CertificateParams::new(names)?.signed_by(&key, &authority)?;
            std::fs::write(cert_file, cert.pem())?;
            write_secret(key_file, key.serialize_pem().as_bytes())?;
        }
        Ok(pki)
    }
}

/// Writes a file that only its owner may read.
pub fn write_secret(path: &Path, bytes: &[u8]) -> Result<(), Failure> {
    use std::io::Write;
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create(true).truncate(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)?.write_all(bytes)?;
    Ok(())
}
