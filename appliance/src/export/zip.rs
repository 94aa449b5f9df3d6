//! A ZIP archive that is written as it goes (APPNOTE 6.3.10): members are stored, not compressed, each known whole when it is
//! written, with the 64-bit records where an archive outgrows the others.

use super::Sink;
use crate::store::StoreError;
use bytes::Bytes;

const LOCAL: u32 = 0x0403_4b50;
const CENTRAL: u32 = 0x0201_4b50;
const END: u32 = 0x0605_4b50;
const END_64: u32 = 0x0606_4b50;
const LOCATOR_64: u32 = 0x0706_4b50;
/// Names are UTF-8.
const FLAGS: u16 = 0x0800;
/// 1 January 1980: an archive of the same records is the same archive.
const DOS_DATE: u16 = 0x0021;

/// An archive whose pieces go to `out` in order.
pub struct Zip<W> {
    out: W,
    /// Bytes written.
    at: u64,
    members: u64,
    directory: Vec<u8>,
}

impl<W: FnMut(Bytes) -> Result<(), StoreError>> Zip<W> {
    pub fn new(out: W) -> Zip<W> {
        Zip { out, at: 0, members: 0, directory: Vec::new() }
    }

    /// Writes the directory; without it the archive is not whole, which every reader notices.
    pub fn finish(mut self) -> Result<(), StoreError> {
        let directory = std::mem::take(&mut self.directory);
        let (begin, length, members) = (self.at, directory.len() as u64, self.members);
        self.put(directory)?;
        let mut end = Vec::new();
        if members > 0xffff || begin > 0xffff_ffff || length > 0xffff_ffff {
            let place = self.at;
            end.extend(END_64.to_le_bytes());
            end.extend(44u64.to_le_bytes());
            end.extend([45, 0, 45, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
            for number in [members, members, length, begin] {
                end.extend(number.to_le_bytes());
            }
            end.extend(LOCATOR_64.to_le_bytes());
            end.extend(0u32.to_le_bytes());
            end.extend(place.to_le_bytes());
            end.extend(1u32.to_le_bytes());
        }
        let short = u16::try_from(members).unwrap_or(u16::MAX);
        end.extend(END.to_le_bytes());
        end.extend([0; 4]);
        end.extend(short.to_le_bytes());
        end.extend(short.to_le_bytes());
        end.extend(u32::try_from(length).unwrap_or(u32::MAX).to_le_bytes());
        end.extend(u32::try_from(begin).unwrap_or(u32::MAX).to_le_bytes());
        end.extend([0; 2]);
        self.put(end)
    }

    fn put(&mut self, bytes: Vec<u8>) -> Result<(), StoreError> {
        self.at += bytes.len() as u64;
        (self.out)(Bytes::from(bytes))
    }
}

impl<W: FnMut(Bytes) -> Result<(), StoreError>> Sink for Zip<W> {
    fn file(&mut self, path: &str, bytes: Vec<u8>) -> Result<(), StoreError> {
        let too_long = || StoreError::invalid("a part is too large for the archive", "export");
        let size = u32::try_from(bytes.len()).map_err(|_| too_long())?;
        let name = u16::try_from(path.len()).map_err(|_| too_long())?;
        let sum = crc32(&bytes);
        let place = self.at;
        // Needs 2.0, or 4.5 where its place does not fit into 32 bits.
        let (needs, far) = match u32::try_from(place) {
            Ok(_) => (20u16, Vec::new()),
            Err(_) => (45, [&1u16.to_le_bytes()[..], &8u16.to_le_bytes(), &place.to_le_bytes()].concat()),
        };
        let mut common = Vec::new();
        for number in [FLAGS, 0, 0, DOS_DATE] {
            common.extend(number.to_le_bytes());
        }
        for number in [sum, size, size] {
            common.extend(number.to_le_bytes());
        }
        common.extend(name.to_le_bytes());
        let mut local = [&LOCAL.to_le_bytes()[..], &20u16.to_le_bytes(), &common, &0u16.to_le_bytes()].concat();
        local.extend(path.as_bytes());
        self.directory.extend(CENTRAL.to_le_bytes());
        // Made by 4.5 on Unix.
        self.directory.extend([45, 3]);
        self.directory.extend(needs.to_le_bytes());
        self.directory.extend(common);
        self.directory.extend(u16::try_from(far.len()).unwrap_or(0).to_le_bytes());
        self.directory.extend([0; 6]);
        // A plain file that its owner reads and writes.
        self.directory.extend((0o100_600u32 << 16).to_le_bytes());
        self.directory.extend(u32::try_from(place).unwrap_or(u32::MAX).to_le_bytes());
        self.directory.extend(path.as_bytes());
        self.directory.extend(far);
        self.members += 1;
        self.put(local)?;
        self.put(bytes)
    }
}

const TABLE: [u32; 256] = table();

const fn table() -> [u32; 256] {
    let mut table = [0; 256];
    let mut at = 0;
    while at < 256 {
        let (mut value, mut bit) = (at as u32, 0);
        while bit < 8 {
            value = if value & 1 == 1 { 0xedb8_8320 ^ (value >> 1) } else { value >> 1 };
            bit += 1;
        }
        table[at] = value;
        at += 1;
    }
    table
}

fn crc32(bytes: &[u8]) -> u32 {
    let step = |sum: u32, byte: &u8| {
        let at = usize::from(sum as u8 ^ byte);
        TABLE.get(at).copied().unwrap_or(0) ^ (sum >> 8)
    };
    !bytes.iter().fold(u32::MAX, step)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::process::Command;

    #[test]
    fn the_checksum_is_that_of_the_standard() {
        assert_eq!(crc32(b"123456789"), 0xcbf4_3926);
    }

    /// Read with a reader that was not written here.
    #[test]
    fn another_reader_finds_every_member() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.zip");
        let mut file = std::fs::File::create(&path).unwrap();
        let mut zip = Zip::new(|bytes: Bytes| file.write_all(&bytes).map_err(StoreError::io("archive")));
        for number in 0..70_000 {
            zip.file(&format!("many/{number}"), number.to_string().into_bytes()).unwrap();
        }
        zip.file("Grüße.txt", "Müller".into()).unwrap();
        zip.finish().unwrap();
        let script = "import sys, zipfile\nz = zipfile.ZipFile(sys.argv[1])\nassert z.testzip() is None\n\
                      print(len(z.namelist()), z.read('many/69999').decode(), z.read('Grüße.txt').decode())";
        let told = Command::new("python3").args(["-c", script]).arg(&path).output().unwrap();
        assert_eq!(String::from_utf8_lossy(&told.stdout).trim(), "70001 69999 Müller", "{told:?}");
    }

    #[test]
    fn a_member_beyond_four_gigabytes_is_found() {
        let mut kept = Vec::new();
        let mut zip = Zip::new(|bytes: Bytes| {
            kept.extend_from_slice(&bytes);
            Ok(())
        });
        zip.file("near", b"a".to_vec()).unwrap();
        let near = zip.at;
        zip.at = 5 << 30;
        zip.file("far", b"b".to_vec()).unwrap();
        zip.finish().unwrap();
        let sparse = tempfile::NamedTempFile::new().unwrap();
        let file = sparse.as_file();
        let (head, tail) = kept.split_at(near as usize);
        std::os::unix::fs::FileExt::write_all_at(file, head, 0).unwrap();
        std::os::unix::fs::FileExt::write_all_at(file, tail, 5 << 30).unwrap();
        let script = "import sys, zipfile\nz = zipfile.ZipFile(sys.argv[1])\nprint(z.read('near').decode(), z.read('far').decode())";
        let told = Command::new("python3").args(["-c", script]).arg(sparse.path()).output().unwrap();
        assert_eq!(String::from_utf8_lossy(&told.stdout).trim(), "a b", "{told:?}");
    }
}
