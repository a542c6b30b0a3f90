//! Whom a client certificate names.

use crate::{Refusal, RefusalReason};
use haar_schema::EdgeId;
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

/// The edge that a certificate (DER) was issued to: its first subject alternative name of type
/// `dNSName` (RFC 5280 section 4.2.1.6). The chain has been verified by TLS before.
pub(crate) fn certified_edge(certificate: &[u8]) -> Result<EdgeId, Refusal> {
    let (_, certificate) = X509Certificate::from_der(certificate)
        .map_err(|_| refused("the client certificate is not X.509".to_owned()))?;
    let names = certificate
        .subject_alternative_name()
        .map_err(|_| refused("the client certificate's extensions are malformed".to_owned()))?;
    let name = names
        .iter()
        .flat_map(|extension| &extension.value.general_names)
        .find_map(|name| match name {
            GeneralName::DNSName(name) => Some(*name),
            _ => None,
        })
        .ok_or_else(|| {
            refused("issue a client certificate with the edge's id as a dNSName".to_owned())
        })?;
    name.parse().map_err(|error| refused(format!("the certificate's dNSName: {error}")))
}

fn refused(advice: String) -> Refusal {
    Refusal::new(RefusalReason::Identity, advice)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{CertificateParams, KeyPair};

    fn certificate(names: &[&str]) -> Vec<u8> {
        let key = KeyPair::generate().unwrap();
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        CertificateParams::new(names).unwrap().self_signed(&key).unwrap().der().to_vec()
    }

    #[test]
    fn the_first_dns_name_is_the_edge() {
        let edge = certified_edge(&certificate(&["127.0.0.1", "edge-7", "edge-8"])).unwrap();
        assert_eq!(edge.as_str(), "edge-7");
    }

    #[test]
    fn a_certificate_without_a_usable_name_is_nobody() {
        for bytes in [certificate(&["127.0.0.1"]), certificate(&["*.ward"]), vec![1, 2, 3]] {
            assert_eq!(certified_edge(&bytes).unwrap_err().reason, RefusalReason::Identity);
        }
    }
}
