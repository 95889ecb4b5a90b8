//! Mounts of the pod directory: tmpfs volumes and subPath binds, and their removal. A subPath is opened component by
//! component without following links, and what was opened is what gets bound, so a container that renames
//! directories meanwhile cannot lead the mount out of its volume.

use std::fs;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Component, Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{OFlag, open, openat};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::stat::{Mode, SFlag, fstat, mkdirat};

/// Binds `base/sub` to `target` and returns `target`. A missing `sub` is made as a directory.
pub(super) fn bind(base: &Path, sub: &Path, target: &Path) -> io::Result<PathBuf> {
    if is_mount(target)? {
        return Ok(target.to_owned());
    }
    let base = fs::canonicalize(base)?;
    // Links inside the volume are allowed (the atomic writer makes them) as long as they stay inside.
    let resolved = match fs::canonicalize(base.join(sub)) {
        Ok(path) => path.strip_prefix(&base).map(Path::to_owned).map_err(|_| outside(sub))?,
        Err(e) if e.kind() == io::ErrorKind::NotFound => sub.to_owned(),
        Err(e) => return Err(e),
    };
    let opened = open_beneath(&base, &resolved)?;
    let is_dir = kind(&opened)? == SFlag::S_IFDIR;
    if let Some(parent) = target.parent() {
        fs::create_dir_all(parent)?;
    }
    if is_dir {
        fs::create_dir_all(target)?;
    } else {
        fs::OpenOptions::new().create(true).append(true).open(target)?;
    }
    let source = format!("/proc/self/fd/{}", opened.as_raw_fd());
    mount(Some(source.as_str()), target, None::<&str>, MsFlags::MS_BIND | MsFlags::MS_REC, None::<&str>)?;
    Ok(target.to_owned())
}

fn outside(sub: &Path) -> io::Error {
    io::Error::other(format!("subPath {} leads out of its volume", sub.display()))
}

fn kind(fd: &OwnedFd) -> io::Result<SFlag> {
    Ok(SFlag::from_bits_truncate(fstat(fd)?.st_mode) & SFlag::S_IFMT)
}

fn open_beneath(base: &Path, relative: &Path) -> io::Result<OwnedFd> {
    let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let mut at = open(base, flags | OFlag::O_DIRECTORY, Mode::empty())?;
    for component in relative.components() {
        let Component::Normal(name) = component else { return Err(outside(relative)) };
        let next = match openat(&at, name, flags, Mode::empty()) {
            Err(Errno::ENOENT) => {
                mkdirat(&at, name, Mode::from_bits_truncate(0o755))?;
                openat(&at, name, flags, Mode::empty())?
            }
            other => other?,
        };
        if kind(&next)? == SFlag::S_IFLNK {
            return Err(outside(relative));
        }
        at = next;
    }
    Ok(at)
}

pub(super) fn mount_tmpfs(path: &Path, size: Option<i64>) -> io::Result<()> {
    let options = size.filter(|s| *s > 0).map(|s| format!("size={s}"));
    mount(Some("tmpfs"), path, Some("tmpfs"), MsFlags::empty(), options.as_deref())?;
    Ok(())
}

pub(super) fn is_mount(path: &Path) -> io::Result<bool> {
    Ok(mounts_below(path)?.iter().any(|m| m == path))
}

/// Mount points at or below `dir`, the innermost first.
fn mounts_below(dir: &Path) -> io::Result<Vec<PathBuf>> {
    let dir = match fs::canonicalize(dir) {
        Ok(dir) => dir,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(e),
    };
    let table = fs::read_to_string("/proc/self/mountinfo")?;
    let mut found: Vec<PathBuf> = table
        .lines()
        .filter_map(|l| l.split(' ').nth(4))
        .map(unescape)
        .filter(|p| p.starts_with(&dir))
        .collect();
    found.reverse();
    Ok(found)
}

/// The kernel writes blanks and backslashes as octal.
fn unescape(text: &str) -> PathBuf {
    let mut out = String::new();
    let mut rest = text;
    while let Some(at) = rest.find('\\') {
        out.push_str(&rest[..at]);
        let code = rest.get(at + 1..at + 4).and_then(|o| u8::from_str_radix(o, 8).ok());
        match code {
            Some(code) => {
                out.push(char::from(code));
                rest = &rest[at + 4..];
            }
            None => {
                out.push('\\');
                rest = &rest[at + 1..];
            }
        }
    }
    out.push_str(rest);
    PathBuf::from(out)
}

pub(super) fn remove_tree(dir: &Path) -> io::Result<()> {
    for path in mounts_below(dir)? {
        umount2(&path, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW)?;
    }
    // A mount that is still there would have its contents deleted.
    if let Some(left) = mounts_below(dir)?.first() {
        return Err(io::Error::other(format!("{} is still mounted", left.display())));
    }
    match fs::remove_dir_all(dir) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn links_do_not_lead_out() {
        let temp = tempfile::tempdir().unwrap();
        let base = temp.path().join("volume");
        fs::create_dir_all(base.join("in/side")).unwrap();
        symlink("/etc", base.join("evil")).unwrap();
        symlink("in", base.join("good")).unwrap();
        assert!(open_beneath(&base, Path::new("in/side")).is_ok());
        assert!(open_beneath(&base, Path::new("new/deep")).is_ok());
        assert!(base.join("new/deep").is_dir());
        assert!(open_beneath(&base, Path::new("evil/passwd")).is_err());
        assert!(open_beneath(&base, Path::new("evil")).is_err());
        assert!(open_beneath(&base, Path::new("../x")).is_err());
        assert!(bind(&base, Path::new("evil"), &temp.path().join("target")).is_err());
        assert!(!temp.path().join("target").exists());
    }

    #[test]
    fn octal_escapes() {
        assert_eq!(unescape("/a\\040b\\134c"), PathBuf::from("/a b\\c"));
        assert_eq!(unescape("/plain\\x"), PathBuf::from("/plain\\x"));
    }

    #[test]
    fn trees_go_and_missing_ones_are_fine() {
        let temp = tempfile::tempdir().unwrap();
        let dir = temp.path().join("pod");
        fs::create_dir_all(dir.join("a/b")).unwrap();
        remove_tree(&dir).unwrap();
        remove_tree(&dir).unwrap();
        assert!(!dir.exists());
    }
}
