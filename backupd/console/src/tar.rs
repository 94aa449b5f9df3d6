//! A tar archive (POSIX ustar) of a few small files, so that an auditor takes everything with one click.

const BLOCK: usize = 512;
const NAME_BYTES_MAX: usize = 100;
/// The folder stands in a field of its own, the name's prefix.
const FOLDER_BYTES_MAX: usize = 155;

/// All `files` in one folder, with one modification time (Unix seconds). `None` when a name does not fit the format.
pub fn archive(folder: &str, modified_unix_s: u64, files: &[(String, Vec<u8>)]) -> Option<Vec<u8>> {
    let mut out = Vec::new();
    for (name, bytes) in files {
        out.extend_from_slice(&header(folder, name, modified_unix_s, bytes.len())?);
        out.extend_from_slice(bytes);
        out.resize(out.len().next_multiple_of(BLOCK), 0);
    }
    out.resize(out.len() + 2 * BLOCK, 0);
    Some(out)
}

fn header(folder: &str, name: &str, modified_unix_s: u64, size: usize) -> Option<[u8; BLOCK]> {
    if name.len() > NAME_BYTES_MAX || folder.len() > FOLDER_BYTES_MAX || size as u64 >= 1 << 33 {
        return None;
    }
    let mut block = [0u8; BLOCK];
    let mut put = |at: usize, bytes: &[u8]| block.get_mut(at..at + bytes.len()).map(|to| to.copy_from_slice(bytes));
    put(0, name.as_bytes())?;
    put(100, b"0000644\0")?;
    put(108, b"0000000\0")?;
    put(116, b"0000000\0")?;
    put(124, format!("{size:011o}\0").as_bytes())?;
    put(136, format!("{:011o}\0", modified_unix_s & ((1 << 33) - 1)).as_bytes())?;
    put(148, b"        ")?;
    put(156, b"0")?;
    put(257, b"ustar\x0000")?;
    put(345, folder.as_bytes())?;
    let sum: u32 = block.iter().map(|b| u32::from(*b)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    Some(block)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_systems_tar_reads_it() {
        let folder = tempfile::tempdir().unwrap();
        let long = format!("{}.statement", "x".repeat(90));
        let files = [("a.json".to_owned(), b"{}\n".to_vec()), ("b.sig".to_owned(), vec![7; 513]), (long, vec![1])];
        let folder_name = "report-".repeat(6);
        let path = folder.path().join("x.tar");
        std::fs::write(&path, archive(&folder_name, 1_700_000_000, &files).unwrap()).unwrap();
        let done = std::process::Command::new("tar").arg("-xf").arg(&path).arg("-C").arg(folder.path()).status();
        assert!(done.unwrap().success());
        for (name, bytes) in &files {
            assert_eq!(&std::fs::read(folder.path().join(&folder_name).join(name)).unwrap(), bytes);
        }
        assert!(archive(&"x".repeat(156), 0, &files).is_none());
    }
}
