//! Names of a snapshot as a terminal shows them: nothing that was backed up can move the cursor or pretend to be text.

use super::render::{Usage, table_time};
use crate::names::kind_word;
use anyhow::Context;
use backup_engine::EntryKind;
use backupd_api::{DiffDone, DiffRow, FoundRow, LsRow, Name, UnreadableRow};
use indicatif::HumanBytes;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// A path that a person typed, as the snapshot has it: no leading `./` or `/`, no trailing `/`; `.` is everything.
pub fn plain(path: &OsStr) -> Vec<u8> {
    let parts = path.as_bytes().split(|byte| *byte == b'/').filter(|part| !part.is_empty() && *part != b".");
    parts.collect::<Vec<_>>().join(&b'/')
}

/// A path for a daemon's message.
pub fn text(path: &OsStr) -> anyhow::Result<String> {
    let plain = String::from_utf8(plain(path)).ok();
    Ok(plain.context("").map_err(|_| Usage("a path that is not UTF-8 needs --repo".to_owned()))?)
}

/// Where a restore goes, absolute; what is there already has to be a folder.
pub fn target(into: &Path) -> anyhow::Result<PathBuf> {
    let into = std::path::absolute(into).context("--into")?;
    let fits = into.is_dir() || into.symlink_metadata().is_err();
    let refusal = || Usage(format!("--into {}: it is no folder: name one, or a new path", into.display()));
    anyhow::ensure!(fits, refusal());
    Ok(into)
}

/// Bytes as one line of text: what is not plainly printable is shown as `\n`, `\x1b`, `\u{202e}`; a backslash is `\\`.
pub fn shown(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            match c {
                '\\' => out.push_str("\\\\"),
                '\n' => out.push_str("\\n"),
                '\t' => out.push_str("\\t"),
                c if c.is_ascii_control() => out.push_str(&format!("\\x{:02x}", c as u32)),
                c if misleads(c) => out.push_str(&c.escape_unicode().to_string()),
                c => out.push(c),
            }
        }
        for byte in chunk.invalid() {
            out.push_str(&format!("\\x{byte:02x}"));
        }
    }
    out
}

/// Characters that change how others are shown, or are not seen at all.
fn misleads(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

/// The kind that a letter of `--type` stands for.
fn kind_of_letter(letter: char) -> Option<EntryKind> {
    Some(match letter {
        'f' => EntryKind::File,
        'd' => EntryKind::Directory,
        'l' => EntryKind::Symlink,
        'p' => EntryKind::Fifo,
        's' => EntryKind::Socket,
        'c' => EntryKind::CharDevice,
        'b' => EntryKind::BlockDevice,
        _ => return None,
    })
}

pub fn show_entry(row: &LsRow, long: bool) {
    let path = shown(&row.name.bytes());
    if !long {
        say!("{path}");
        return;
    }
    let arrow = row.target.as_ref().map(|target| format!(" -> {}", shown(&target.bytes()))).unwrap_or_default();
    let (mode, time) = (mode_text(&row.kind, row.mode), table_time(row.modified_unix_ms));
    let owner = |name: &Option<Name>, number: u32| {
        name.as_ref().map_or_else(|| number.to_string(), |name| shown(&name.bytes()))
    };
    let (user, group) = (owner(&row.user, row.uid), owner(&row.group, row.gid));
    say!("{mode} {user:<8} {group:<8} {:>13} {time} {path}{arrow}", row.bytes);
}

/// Type and permissions as `ls -l` shows them.
fn mode_text(kind: &str, mode: u32) -> String {
    let letter = match kind {
        "directory" => 'd',
        "symlink" => 'l',
        "fifo" => 'p',
        "socket" => 's',
        "char-device" => 'c',
        "block-device" => 'b',
        _ => '-',
    };
    let mut out = String::from(letter);
    for (shift, special, set, unset) in [(6, 0o4000, 's', 'S'), (3, 0o2000, 's', 'S'), (0, 0o1000, 't', 'T')] {
        let bits = mode >> shift;
        out.push(if bits & 4 != 0 { 'r' } else { '-' });
        out.push(if bits & 2 != 0 { 'w' } else { '-' });
        out.push(match (mode & special != 0, bits & 1 != 0) {
            (true, true) => set,
            (true, false) => unset,
            (false, true) => 'x',
            (false, false) => '-',
        });
    }
    out
}

pub fn show_unreadable(count: u64, files: &[UnreadableRow]) {
    if count == 0 {
        say!("The snapshot holds every file as it was.");
    }
    for file in files {
        say!("{:12} {}", file.reason, shown(&file.name.bytes()));
    }
    let more = count.saturating_sub(files.len() as u64);
    if more > 0 {
        say!("and {more} more, which are counted and not listed");
    }
}

pub fn show_difference(row: &DiffRow) {
    let slash = if row.kind == "directory" { "/" } else { "" };
    say!("{} {}{slash}", row.mark, shown(&row.name.bytes()));
}

pub fn show_diff_done(done: &DiffDone) {
    say!(
        "{} added (+{}), {} removed (-{}), {} modified ({} new in them), {} of another type, {} with other attributes, \
         {} with another time only",
        done.added,
        HumanBytes(done.bytes_added),
        done.removed,
        HumanBytes(done.bytes_removed),
        done.modified,
        HumanBytes(done.bytes_modified),
        done.retyped,
        done.attributes,
        done.times
    );
}

pub fn show_found(row: &FoundRow) {
    let short = |id: &String| id.get(..8).unwrap_or(id).to_owned();
    let held = match row.snapshots.as_slice() {
        [one] => short(one),
        [newest, .., oldest] => format!("{}..{} ({})", short(oldest), short(newest), row.snapshots.len()),
        [] => String::new(),
    };
    let (time, path) = (table_time(row.entry.modified_unix_ms), shown(&row.entry.name.bytes()));
    say!("{:>13} {time} {path}  [{held}]", row.entry.bytes);
}

/// The words for the letters of `--type`.
pub fn kinds(letters: &str) -> anyhow::Result<Vec<String>> {
    let word = |letter| kind_of_letter(letter).map(|kind| kind_word(kind).to_owned());
    let words: Option<Vec<String>> = letters.chars().filter(|letter| *letter != ',').map(word).collect();
    Ok(words.ok_or_else(|| Usage("--type knows f, d, l, p, s, c and b".to_owned()))?)
}

/// `4096`, `10k`, `5M`, `2G`, `1T`: powers of 1024.
pub fn size(text: &str) -> anyhow::Result<u64> {
    let (digits, unit) = match text.char_indices().find(|(_, c)| !c.is_ascii_digit()) {
        Some((at, _)) => text.split_at(at),
        None => (text, ""),
    };
    let shift = match unit.to_ascii_lowercase().as_str() {
        "" | "b" => 0,
        "k" | "kib" => 10,
        "m" | "mib" => 20,
        "g" | "gib" => 30,
        "t" | "tib" => 40,
        _ => 64,
    };
    let bytes = digits.parse::<u64>().ok().and_then(|number| number.checked_mul(1u64.checked_shl(shift)?));
    Ok(bytes.ok_or_else(|| Usage(format!("`{text}` is no size: write 4096, 10k, 5M or 2G")))?)
}

/// A day, a minute (UTC), or so long before `now_unix_ms`.
pub fn time(text: &str, now_unix_ms: i64) -> anyhow::Result<i64> {
    let ago = || {
        let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
        let seconds = match unit {
            "s" => 1,
            "m" => 60,
            "h" => 3600,
            "d" => 86_400,
            "w" => 7 * 86_400,
            _ => return None,
        };
        now_unix_ms.checked_sub(digits.parse::<i64>().ok()?.checked_mul(seconds * 1000)?)
    };
    let moment = || {
        let day = chrono::NaiveDate::parse_from_str(text, "%Y-%m-%d").ok().and_then(|day| day.and_hms_opt(0, 0, 0));
        let plain = text.trim_end_matches('Z').replace('T', " ");
        let forms = ["%Y-%m-%d %H:%M", "%Y-%m-%d %H:%M:%S"];
        let exact = || forms.iter().find_map(|form| chrono::NaiveDateTime::parse_from_str(&plain, form).ok());
        Some(day.or_else(exact)?.and_utc().timestamp_millis())
    };
    let found = ago().or_else(moment);
    Ok(found.ok_or_else(|| Usage(format!("`{text}` is no time: write 2026-11-25, `2026-11-25 14:30`, 12h or 7d")))?)
}

/// The same for a look back.
pub fn past(text: &str, now_unix_ms: i64) -> anyhow::Result<i64> {
    let at = time(text, now_unix_ms)?;
    if at > now_unix_ms {
        return Err(Usage(format!("`{text}` is yet to come: without --as-of you get what there is now")).into());
    }
    Ok(at)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_look_back_does_not_go_forward() {
        let now = time("2026-11-25 14:30", 0).unwrap();
        assert_eq!(past("12h", now).unwrap(), now - 12 * 3_600_000);
        assert_eq!(past("2026-11-25 14:30", now).unwrap(), now);
        assert!(past("2026-11-26", now).unwrap_err().to_string().contains("yet to come"));
        assert!(past("-3h", now).is_err());
    }

    #[test]
    fn nothing_that_was_backed_up_moves_the_cursor() {
        for (bytes, text) in [
            (b"plain name".as_slice(), "plain name"),
            (b"new\nline", "new\\nline"),
            (b"\x1b[2Jgone", "\\x1b[2Jgone"),
            (b"back\\slash", "back\\\\slash"),
            (b"not-\xff-utf8", "not-\\xff-utf8"),
            ("r\u{202e}fdp.exe".as_bytes(), "r\\u{202e}fdp.exe"),
            ("\u{9b}31m".as_bytes(), "\\u{9b}31m"),
            ("Müller.pdf".as_bytes(), "Müller.pdf"),
        ] {
            assert_eq!(shown(bytes), text);
        }
    }

    #[test]
    fn permissions_look_as_ls_shows_them() {
        assert_eq!(mode_text("file", 0o4755), "-rwsr-xr-x");
        assert_eq!(mode_text("directory", 0o1777), "drwxrwxrwt");
        assert_eq!(mode_text("file", 0o2640), "-rw-r-S---");
        assert_eq!(mode_text("symlink", 0o777), "lrwxrwxrwx");
    }

    #[test]
    fn sizes_times_and_paths_are_read_as_people_write_them() {
        assert_eq!((size("4096").unwrap(), size("10k").unwrap(), size("2G").unwrap()), (4096, 10240, 2 << 30));
        assert!(size("ten").is_err() && size("5X").is_err() && size("99999999999T").is_err());
        let now = 1_800_000_000_000;
        assert_eq!(time("7d", now).unwrap(), now - 7 * 86_400_000);
        assert_eq!(time("1970-01-02", now).unwrap(), 86_400_000);
        assert_eq!(time("1970-01-01 01:00", now).unwrap(), 3_600_000);
        assert!(time("yesterday", now).is_err() && time("d", now).is_err() && time("", now).is_err());
        for typed in ["./a/b/", "/a/b", "a//b", "a/./b"] {
            assert_eq!(plain(OsStr::new(typed)), b"a/b");
        }
        assert!(plain(OsStr::new(".")).is_empty());
    }
}
