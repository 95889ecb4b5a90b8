//! Writes the tar archives that images are imported from: a few regular files, directories and symlinks.
//!
//! It writes POSIX ustar headers and nothing newer; names are at most 100 bytes long. It never reads archives.

use bytes::Bytes;

const BLOCK: usize = 512;

#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum TarError {
    #[error("archive path {0:?} must be relative, without `..`, and 1 to 100 bytes long")]
    Path(String),
    #[error("{0:?} is too large for a ustar entry")]
    Size(String),
}

/// An archive under construction.
#[derive(Debug, Default)]
pub struct Archive {
    bytes: Vec<u8>,
}

impl Archive {
    pub fn new() -> Self {
        Self::default()
    }

    pub fn directory(&mut self, path: &str, mode: u32) -> Result<(), TarError> {
        self.header(path, mode, 0, b'5', "")
    }

    pub fn file(&mut self, path: &str, mode: u32, content: &[u8]) -> Result<(), TarError> {
        self.header(path, mode, content.len(), b'0', "")?;
        self.bytes.extend_from_slice(content);
        self.bytes.resize(self.bytes.len().next_multiple_of(BLOCK), 0);
        Ok(())
    }

    pub fn symlink(&mut self, path: &str, target: &str) -> Result<(), TarError> {
        if target.is_empty() || target.len() > 100 {
            return Err(TarError::Path(target.into()));
        }
        self.header(path, 0o777, 0, b'2', target)
    }

    /// Two empty blocks end an archive.
    pub fn finish(mut self) -> Bytes {
        self.bytes.resize(self.bytes.len() + 2 * BLOCK, 0);
        self.bytes.into()
    }

    fn header(&mut self, path: &str, mode: u32, size: usize, kind: u8, target: &str) -> Result<(), TarError> {
        let climbs = path.split('/').any(|part| part == "..");
        if path.is_empty() || path.len() > 100 || path.starts_with('/') || climbs {
            return Err(TarError::Path(path.into()));
        }
        // Twelve bytes hold eleven octal digits.
        if size >= 1 << 33 {
            return Err(TarError::Size(path.into()));
        }
        let mut block = [0u8; BLOCK];
        put(&mut block, 0, path.as_bytes());
        put(&mut block, 100, format!("{mode:07o}").as_bytes());
        put(&mut block, 108, b"0000000");
        put(&mut block, 116, b"0000000");
        put(&mut block, 124, format!("{size:011o}").as_bytes());
        // Time zero: the same content is the same layer, whenever it is written.
        put(&mut block, 136, b"00000000000");
        put(&mut block, 148, b"        ");
        put(&mut block, 156, &[kind]);
        put(&mut block, 157, target.as_bytes());
        put(&mut block, 257, b"ustar\x0000");
        let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
        put(&mut block, 148, format!("{sum:06o}\0 ").as_bytes());
        self.bytes.extend_from_slice(&block);
        Ok(())
    }
}

fn put(block: &mut [u8; BLOCK], at: usize, bytes: &[u8]) {
    block[at..at + bytes.len()].copy_from_slice(bytes);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writes_what_tar_reads() {
        let mut archive = Archive::new();
        archive.directory("bin", 0o755).unwrap();
        archive.file("bin/hello", 0o755, b"content").unwrap();
        archive.symlink("bin/hi", "hello").unwrap();
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.tar");
        std::fs::write(&path, archive.finish()).unwrap();
        let listing = std::process::Command::new("tar").arg("-tvf").arg(&path).output().unwrap();
        let text = String::from_utf8_lossy(&listing.stdout).into_owned();
        assert!(listing.status.success(), "{}", String::from_utf8_lossy(&listing.stderr));
        for expected in ["drwxr-xr-x", "bin/hello", "bin/hi -> hello", " 7 "] {
            assert!(text.contains(expected), "{expected:?} not in {text}");
        }
    }

    #[test]
    fn refuses_bad_paths() {
        let long = "x".repeat(101);
        for path in ["", "/etc/passwd", "../up", "a/../../b", long.as_str()] {
            let refused = Archive::new().file(path, 0o644, b"");
            assert_eq!(refused, Err(TarError::Path(path.into())), "{path:?}");
        }
    }
}
