//! The atomic writer: all files of a volume change in one step. User-visible names are links into `..data`, which is
//! itself a link to a directory that is never changed once it is linked.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::path::Path;

use super::{File, Files};

const DATA: &str = "..data";
const DATA_NEXT: &str = "..data_tmp";

/// Brings `dir` to hold exactly `files`; does nothing when it does already.
pub(super) fn write(dir: &Path, files: &Files, group: Option<u32>) -> io::Result<()> {
    fs::create_dir_all(dir)?;
    let data = dir.join(DATA);
    let old = fs::read_link(&data).ok();
    if old.is_some() && is_same(&data, files) {
        return Ok(());
    }
    let name = fresh_name(dir, old.as_deref());
    let staging = dir.join(&name);
    // What is left of a write that a crash cut short.
    let _ = fs::remove_dir_all(&staging);
    fs::create_dir(&staging)?;
    for (path, file) in files {
        write_file(&staging.join(path), file, group)?;
    }
    fs::set_permissions(&staging, fs::Permissions::from_mode(0o755))?;
    let next = dir.join(DATA_NEXT);
    let _ = fs::remove_file(&next);
    symlink(&name, &next)?;
    fs::rename(&next, &data)?;
    link_names(dir, files)?;
    if let Some(old) = old {
        let _ = fs::remove_dir_all(dir.join(old));
    }
    Ok(())
}

fn fresh_name(dir: &Path, old: Option<&Path>) -> String {
    let mut n = 0;
    loop {
        let name = format!("..version-{n}");
        if old != Some(Path::new(&name)) && !dir.join(&name).exists() {
            return name;
        }
        n += 1;
    }
}

fn write_file(path: &Path, file: &File, group: Option<u32>) -> io::Result<()> {
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent)?;
    }
    fs::write(path, &file.data)?;
    // A group that owns the volume may read what its owner may.
    let mode = if group.is_some() { file.mode | 0o440 } else { file.mode };
    if group.is_some() {
        chown(path, None, group)?;
    }
    fs::set_permissions(path, fs::Permissions::from_mode(mode))
}

/// One link for each first component; links that lead nowhere any more go.
fn link_names(dir: &Path, files: &Files) -> io::Result<()> {
    let wanted: BTreeSet<&str> = files.keys().filter_map(|p| p.split('/').next()).collect();
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if !name.starts_with("..") && !wanted.contains(name.as_ref()) {
            fs::remove_file(entry.path())?;
        }
    }
    for name in wanted {
        let link = dir.join(name);
        if fs::symlink_metadata(&link).is_err() {
            symlink(Path::new(DATA).join(name), link)?;
        }
    }
    Ok(())
}

fn is_same(data: &Path, files: &Files) -> bool {
    let same = |(path, file): (&String, &File)| fs::read(data.join(path)).is_ok_and(|d| d == file.data);
    files.iter().all(same) && count(data).is_ok_and(|n| n == files.len())
}

fn count(dir: &Path) -> io::Result<usize> {
    let mut n = 0;
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        n += if entry.file_type()?.is_dir() { count(&entry.path())? } else { 1 };
    }
    Ok(n)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(list: &[(&str, &str)]) -> Files {
        let file = |text: &str| File { data: text.as_bytes().to_vec(), mode: 0o640 };
        list.iter().map(|(name, text)| ((*name).to_owned(), file(text))).collect()
    }

    #[test]
    fn changes_are_one_step_and_removed_keys_go() {
        let temp = tempfile::tempdir().unwrap();
        let dir = temp.path().join("v");
        write(&dir, &files(&[("a", "1"), ("d/e/f", "2"), ("gone", "x")]), None).unwrap();
        assert_eq!(fs::read_to_string(dir.join("a")).unwrap(), "1");
        assert_eq!(fs::read_to_string(dir.join("d/e/f")).unwrap(), "2");
        assert_eq!(fs::metadata(dir.join("a")).unwrap().permissions().mode() & 0o777, 0o640);
        let before = fs::read_link(dir.join(DATA)).unwrap();
        write(&dir, &files(&[("a", "1"), ("d/e/f", "2"), ("gone", "x")]), None).unwrap();
        assert_eq!(fs::read_link(dir.join(DATA)).unwrap(), before, "nothing changed");
        write(&dir, &files(&[("a", "9"), ("d/e/f", "2")]), None).unwrap();
        assert_eq!(fs::read_to_string(dir.join("a")).unwrap(), "9");
        assert!(fs::symlink_metadata(dir.join("gone")).is_err());
        let versions = fs::read_dir(&dir).unwrap().flatten();
        let versions = versions.filter(|e| e.file_name().to_string_lossy().starts_with("..version"));
        assert_eq!(versions.count(), 1, "the old version is gone");
    }
}
