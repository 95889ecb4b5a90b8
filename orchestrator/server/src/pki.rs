//! The cluster's certificate authority: made once under `DIR/`, kept for ever, and the certificates it issues.
//!
//! Keys are ECDSA P-256 with mode 0600; every file appears whole or not at all; an existing file is never
//! overwritten unless it has expired, and a damaged one is an error that says which.

use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, SanType, date_time_ymd,
};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use x509_parser::prelude::{FromDer as _, GeneralName, X509Certificate};

const CA_NAME: &str = "loadline-ca";
const CA_YEARS: i32 = 10;
const LEAF_YEARS: i32 = 2;
/// A leaf that ends sooner than this is issued anew at the next start.
const RENEW_BEFORE_SECONDS: i64 = 60 * 24 * 3600;

#[derive(Debug, thiserror::Error)]
pub enum PkiError {
    #[error("{step} {path}: {source}")]
    Io { step: &'static str, path: PathBuf, source: std::io::Error },
    #[error(
        "{path} is damaged: {why}; restore it, or remove the whole pki directory to make a new authority"
    )]
    Damaged { path: PathBuf, why: String },
    #[error("issue certificate for {subject}: {source}")]
    Issue { subject: String, source: rcgen::Error },
}

type Result<T, E = PkiError> = std::result::Result<T, E>;

/// A certificate and its key, as PEM.
#[derive(Clone)]
pub struct Issued {
    pub cert_pem: String,
    pub key_pem: String,
}

impl std::fmt::Debug for Issued {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Issued").finish_non_exhaustive()
    }
}

impl Issued {
    /// The same in the form that rustls takes.
    pub fn rustls(&self) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)> {
        let damaged = |why: String| PkiError::Damaged { path: "certificate".into(), why };
        let certs: Vec<_> = CertificateDer::pem_slice_iter(self.cert_pem.as_bytes())
            .collect::<Result<_, _>>()
            .map_err(|e| damaged(e.to_string()))?;
        let key =
            PrivateKeyDer::from_pem_slice(self.key_pem.as_bytes()).map_err(|e| damaged(e.to_string()))?;
        Ok((certs, key))
    }
}

/// The authority. Issuing is CPU work of well under a millisecond.
pub struct Pki {
    dir: PathBuf,
    issuer: Issuer<'static, KeyPair>,
    ca_pem: String,
}

impl Pki {
    /// Reads the authority from `dir`, or makes it there.
    pub fn open(dir: &Path) -> Result<Self> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(|source| PkiError::Io {
            step: "create",
            path: dir.to_owned(),
            source,
        })?;
        let issued = match read_pair(dir, "ca")? {
            Some(pair) => pair,
            None => {
                let pair = make_ca()?;
                write_pair(dir, "ca", &pair)?;
                pair
            }
        };
        let damaged = |file: &str, why: String| PkiError::Damaged { path: dir.join(file), why };
        let key = KeyPair::from_pem(&issued.key_pem).map_err(|e| damaged("ca.key", e.to_string()))?;
        let info = LeafInfo::read(&issued.cert_pem).map_err(|why| damaged("ca.crt", why))?;
        if info.public_key != key.public_key_raw() {
            return Err(damaged("ca.key", "it does not belong to ca.crt".to_owned()));
        }
        let issuer =
            Issuer::from_ca_cert_pem(&issued.cert_pem, key).map_err(|e| damaged("ca.crt", e.to_string()))?;
        Ok(Self { dir: dir.to_owned(), issuer, ca_pem: issued.cert_pem })
    }

    /// The authority's certificate, for kubeconfigs and trust stores.
    pub fn ca_pem(&self) -> &str {
        &self.ca_pem
    }

    /// A client certificate: `cn` is the user, `orgs` the groups.
    pub fn issue_client(&self, cn: &str, orgs: &[&str]) -> Result<Issued> {
        self.issue(cn, orgs, &[], ExtendedKeyUsagePurpose::ClientAuth)
    }

    /// A serving certificate; each of `sans` is an IP address or a DNS name.
    pub fn issue_server(&self, cn: &str, sans: &[String]) -> Result<Issued> {
        self.issue(cn, &[], sans, ExtendedKeyUsagePurpose::ServerAuth)
    }

    /// [`Pki::issue_client`], kept in `NAME.crt` and `NAME.key` and read from there the next time.
    pub fn client(&self, name: &str, cn: &str, orgs: &[&str]) -> Result<Issued> {
        self.kept(name, &[], || self.issue_client(cn, orgs))
    }

    /// [`Pki::issue_server`], kept likewise; issued anew when `sans` has a name that the kept one lacks.
    pub fn server(&self, name: &str, cn: &str, sans: &[String]) -> Result<Issued> {
        self.kept(name, sans, || self.issue_server(cn, sans))
    }

    fn kept(&self, name: &str, sans: &[String], issue: impl FnOnce() -> Result<Issued>) -> Result<Issued> {
        if let Some(pair) = read_pair(&self.dir, name)? {
            let path = self.dir.join(format!("{name}.crt"));
            let info = LeafInfo::read(&pair.cert_pem)
                .map_err(|why| PkiError::Damaged { path: path.clone(), why })?;
            let key = KeyPair::from_pem(&pair.key_pem)
                .map_err(|e| PkiError::Damaged { path: path.with_extension("key"), why: e.to_string() })?;
            if info.public_key != key.public_key_raw() {
                let why = "it does not belong to the certificate beside it".to_owned();
                return Err(PkiError::Damaged { path: path.with_extension("key"), why });
            }
            let fresh = info.not_after > jiff::Timestamp::now().as_second() + RENEW_BEFORE_SECONDS;
            if fresh && sans.iter().all(|s| info.sans.contains(s)) {
                return Ok(pair);
            }
        }
        let pair = issue()?;
        write_pair(&self.dir, name, &pair)?;
        Ok(pair)
    }

    fn issue(
        &self,
        cn: &str,
        orgs: &[&str],
        sans: &[String],
        usage: ExtendedKeyUsagePurpose,
    ) -> Result<Issued> {
        let failed = |source| PkiError::Issue { subject: cn.to_owned(), source };
        let mut params = params(cn, orgs, LEAF_YEARS);
        for san in sans {
            params.subject_alt_names.push(match san.parse() {
                Ok(ip) => SanType::IpAddress(ip),
                Err(_) => SanType::DnsName(san.as_str().try_into().map_err(failed)?),
            });
        }
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyEncipherment];
        params.extended_key_usages = vec![usage];
        params.use_authority_key_identifier_extension = true;
        let key = KeyPair::generate().map_err(failed)?;
        let cert = params.signed_by(&key, &self.issuer).map_err(failed)?;
        Ok(Issued { cert_pem: cert.pem(), key_pem: key.serialize_pem() })
    }
}

fn make_ca() -> Result<Issued> {
    let failed = |source| PkiError::Issue { subject: CA_NAME.to_owned(), source };
    let mut params = params(CA_NAME, &[], CA_YEARS);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages =
        vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign, KeyUsagePurpose::DigitalSignature];
    let key = KeyPair::generate().map_err(failed)?;
    let cert = params.self_signed(&key).map_err(failed)?;
    Ok(Issued { cert_pem: cert.pem(), key_pem: key.serialize_pem() })
}

fn params(cn: &str, orgs: &[&str], years: i32) -> CertificateParams {
    let mut params = CertificateParams::default();
    let mut name = DistinguishedName::new();
    for org in orgs {
        name.push(DnType::OrganizationName, *org);
    }
    name.push(DnType::CommonName, cn);
    params.distinguished_name = name;
    // Whole days, from yesterday: clocks of other hosts may be behind.
    let today = jiff::Timestamp::now().to_zoned(jiff::tz::TimeZone::UTC).date();
    let from = today.yesterday().unwrap_or(today);
    let day =
        |year: i16, month: i8, day: i8| date_time_ymd(year.into(), month.unsigned_abs(), day.unsigned_abs());
    params.not_before = day(from.year(), from.month(), from.day());
    let until = i16::try_from(i32::from(from.year()) + years).unwrap_or(i16::MAX);
    params.not_after = day(until, from.month(), from.day().min(28));
    params
}

/// What must be known of a certificate before it is used again.
struct LeafInfo {
    sans: Vec<String>,
    not_after: i64,
    public_key: Vec<u8>,
}

impl LeafInfo {
    fn read(pem: &str) -> Result<Self, String> {
        let der = CertificateDer::from_pem_slice(pem.as_bytes()).map_err(|e| e.to_string())?;
        let (_, cert) = X509Certificate::from_der(&der).map_err(|e| e.to_string())?;
        let mut sans = Vec::new();
        if let Ok(Some(ext)) = cert.subject_alternative_name() {
            for name in &ext.value.general_names {
                match name {
                    GeneralName::DNSName(n) => sans.push((*n).to_owned()),
                    GeneralName::IPAddress(b) => {
                        if let Ok(v4) = <[u8; 4]>::try_from(*b) {
                            sans.push(std::net::Ipv4Addr::from(v4).to_string());
                        } else if let Ok(v6) = <[u8; 16]>::try_from(*b) {
                            sans.push(std::net::Ipv6Addr::from(v6).to_string());
                        }
                    }
                    _ => {}
                }
            }
        }
        Ok(Self {
            sans,
            not_after: cert.validity().not_after.timestamp(),
            public_key: cert.public_key().subject_public_key.data.to_vec(),
        })
    }
}

fn read_pair(dir: &Path, name: &str) -> Result<Option<Issued>> {
    let cert = read(&dir.join(format!("{name}.crt")))?;
    let key = read(&dir.join(format!("{name}.key")))?;
    match (cert, key) {
        (Some(cert_pem), Some(key_pem)) => Ok(Some(Issued { cert_pem, key_pem })),
        // The key is written first, so a key alone is a start that was cut short.
        (None, _) => Ok(None),
        (Some(_), None) => Err(PkiError::Damaged {
            path: dir.join(format!("{name}.key")),
            why: "it is missing although the certificate exists".to_owned(),
        }),
    }
}

fn read(path: &Path) -> Result<Option<String>> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(source) if source.kind() == std::io::ErrorKind::InvalidData => {
            Err(PkiError::Damaged { path: path.to_owned(), why: "it is not text".to_owned() })
        }
        Err(source) => Err(PkiError::Io { step: "read", path: path.to_owned(), source }),
    }
}

fn write_pair(dir: &Path, name: &str, pair: &Issued) -> Result<()> {
    write_atomic(&dir.join(format!("{name}.key")), &pair.key_pem, 0o600)?;
    write_atomic(&dir.join(format!("{name}.crt")), &pair.cert_pem, 0o644)
}

/// Writes a file that is there whole or not at all, also after a power cut.
pub fn write_atomic(path: &Path, text: &str, mode: u32) -> Result<()> {
    let step = |step: &'static str| move |source| PkiError::Io { step, path: path.to_owned(), source };
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(format!(".{}.tmp", std::process::id()));
    let temporary = PathBuf::from(temporary);
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(mode)
        .open(&temporary)
        .map_err(step("create"))?;
    file.write_all(text.as_bytes()).map_err(step("write"))?;
    file.sync_all().map_err(step("sync"))?;
    fs::rename(&temporary, path).map_err(step("rename"))?;
    if let Some(dir) = path.parent() {
        fs::File::open(dir).and_then(|d| d.sync_all()).map_err(step("sync the folder of"))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn authority_and_certificates_survive_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let first = Pki::open(dir.path()).unwrap();
        let sans = vec!["127.0.0.1".to_owned(), "kubernetes.default".to_owned()];
        let cert = first.server("apiserver", "kube-apiserver", &sans).unwrap();
        let again = Pki::open(dir.path()).unwrap();
        assert_eq!(first.ca_pem(), again.ca_pem());
        assert_eq!(again.server("apiserver", "kube-apiserver", &sans).unwrap().cert_pem, cert.cert_pem);
        let more = vec!["127.0.0.1".to_owned(), "10.96.0.1".to_owned()];
        assert_ne!(again.server("apiserver", "kube-apiserver", &more).unwrap().cert_pem, cert.cert_pem);
        let mode = fs::metadata(dir.path().join("ca.key")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn a_damaged_file_is_named_and_kept() {
        let dir = tempfile::tempdir().unwrap();
        drop(Pki::open(dir.path()).unwrap());
        fs::write(dir.path().join("ca.crt"), "not a certificate").unwrap();
        let error = Pki::open(dir.path()).err().unwrap().to_string();
        assert!(error.contains("ca.crt") && error.contains("damaged"), "{error}");
        assert_eq!(fs::read_to_string(dir.path().join("ca.crt")).unwrap(), "not a certificate");
        fs::remove_file(dir.path().join("ca.key")).unwrap();
        assert!(Pki::open(dir.path()).err().unwrap().to_string().contains("ca.key"));
    }
}
