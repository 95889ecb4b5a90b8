//! Addresses of one node, one file each: the name is the address, the content the pod's uid. Making the file is the
//! allocation, so a crash at any point neither loses nor doubles one.

use std::collections::BTreeMap;
use std::fs;
use std::io::{ErrorKind, Write};
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use ipnet::Ipv4Net;

use crate::pod_network::{NetworkError, Result};

pub struct Ipam {
    dir: PathBuf,
    cidr: Ipv4Net,
    /// Where the search goes on, so that a freed address is not reused at once.
    next: u32,
    taken: BTreeMap<Ipv4Addr, String>,
}

impl Ipam {
    /// Addresses outside `cidr` (of an earlier podCIDR) are dropped.
    pub fn open(dir: &Path, cidr: Ipv4Net) -> Result<Self> {
        fs::create_dir_all(dir).map_err(NetworkError::at("make address directory"))?;
        let mut taken = BTreeMap::new();
        for entry in fs::read_dir(dir).map_err(NetworkError::at("read address directory"))? {
            let entry = entry.map_err(NetworkError::at("read address directory"))?;
            let Ok(address) = entry.file_name().to_string_lossy().parse::<Ipv4Addr>() else { continue };
            let uid = fs::read_to_string(entry.path()).map_err(NetworkError::at("read address file"))?;
            if uid.is_empty() || !cidr.contains(&address) {
                // Empty: a crash came between making and writing; nobody was told this address.
                remove_file(&entry.path())?;
            } else {
                taken.insert(address, uid);
            }
        }
        let next = taken.keys().next_back().map_or(0, |a| u32::from(*a) - u32::from(cidr.network()));
        Ok(Self { dir: dir.to_owned(), cidr, next, taken })
    }

    pub fn cidr(&self) -> Ipv4Net {
        self.cidr
    }

    /// The first host address, which the node keeps for itself.
    pub fn gateway(&self) -> Ipv4Addr {
        Ipv4Addr::from(u32::from(self.cidr.network()) + 1)
    }

    pub fn of(&self, uid: &str) -> Option<Ipv4Addr> {
        self.taken.iter().find(|(_, owner)| *owner == uid).map(|(address, _)| *address)
    }

    pub fn allocate(&mut self, uid: &str) -> Result<Ipv4Addr> {
        if let Some(address) = self.of(uid) {
            return Ok(address);
        }
        let size = u32::from(self.cidr.broadcast()) - u32::from(self.cidr.network());
        for step in 1..=size {
            // Offsets 2 … size − 1: network, gateway and broadcast are not for pods.
            let offset = (self.next + step) % size;
            if offset < 2 {
                continue;
            }
            let address = Ipv4Addr::from(u32::from(self.cidr.network()) + offset);
            if self.taken.contains_key(&address) {
                continue;
            }
            let mut file = fs::File::create(self.dir.join(address.to_string()))
                .map_err(NetworkError::at("make address file"))?;
            file.write_all(uid.as_bytes()).map_err(NetworkError::at("write address file"))?;
            self.taken.insert(address, uid.to_owned());
            self.next = offset;
            return Ok(address);
        }
        Err(NetworkError::Exhausted(self.cidr))
    }

    pub fn release(&mut self, uid: &str) -> Result<()> {
        if let Some(address) = self.of(uid) {
            remove_file(&self.dir.join(address.to_string()))?;
            self.taken.remove(&address);
        }
        Ok(())
    }

    /// The uids that hold an address but are not among `live`.
    pub fn strangers(&self, live: &[String]) -> Vec<String> {
        self.taken.values().filter(|uid| !live.contains(uid)).cloned().collect()
    }
}

fn remove_file(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(e) if e.kind() != ErrorKind::NotFound => Err(NetworkError::at("free address file")(e)),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cidr(text: &str) -> Ipv4Net {
        text.parse().unwrap()
    }

    #[test]
    fn addresses_are_stable_unique_and_survive_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let mut ipam = Ipam::open(dir.path(), cidr("10.1.2.0/29")).unwrap();
        let a = ipam.allocate("a").unwrap();
        let b = ipam.allocate("b").unwrap();
        assert_eq!((a.to_string(), b.to_string()), ("10.1.2.2".to_owned(), "10.1.2.3".to_owned()));
        assert_eq!(ipam.allocate("a").unwrap(), a);
        let mut again = Ipam::open(dir.path(), cidr("10.1.2.0/29")).unwrap();
        assert_eq!(again.allocate("b").unwrap(), b);
        assert_eq!(again.allocate("c").unwrap().to_string(), "10.1.2.4");
    }

    #[test]
    fn a_freed_address_is_the_last_to_be_used_again_and_a_full_range_says_so() {
        let dir = tempfile::tempdir().unwrap();
        let mut ipam = Ipam::open(dir.path(), cidr("10.1.2.0/29")).unwrap();
        let first = ipam.allocate("0").unwrap();
        ipam.release("0").unwrap();
        ipam.release("0").unwrap();
        for uid in ["1", "2", "3", "4"] {
            assert_ne!(ipam.allocate(uid).unwrap(), first);
        }
        assert_eq!(ipam.allocate("5").unwrap(), first);
        assert!(matches!(ipam.allocate("6"), Err(NetworkError::Exhausted(_))));
        assert_eq!(ipam.strangers(&["1".into(), "2".into(), "5".into()]), ["3", "4"]);
    }

    #[test]
    fn half_made_and_foreign_addresses_are_dropped() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("10.1.2.2"), "").unwrap();
        fs::write(dir.path().join("10.9.9.9"), "old").unwrap();
        let mut ipam = Ipam::open(dir.path(), cidr("10.1.2.0/29")).unwrap();
        assert_eq!(ipam.of("old"), None);
        assert_eq!(ipam.allocate("a").unwrap().to_string(), "10.1.2.2");
        assert!(!dir.path().join("10.9.9.9").exists());
    }
}
