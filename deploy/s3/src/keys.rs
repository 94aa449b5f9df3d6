//! Which keys this server takes: those that name one file below their bucket, and the same one whoever reads them. It is
//! decided before anything is read or written.

use s3s::access::{S3Access, S3AccessContext};
use s3s::path::S3Path;
use s3s::{S3Result, s3_error};
use std::path::Path;

/// Looks at the key of every request, whatever it asks for, before its operation begins.
pub struct KeyCheck;

#[async_trait::async_trait]
impl S3Access for KeyCheck {
    async fn check(&self, cx: &mut S3AccessContext<'_>) -> S3Result<()> {
        if cx.credentials().is_none() {
            return Err(s3_error!(AccessDenied, "a request must be signed"));
        }
        match cx.s3_path() {
            S3Path::Object { key, .. } => require_plain(key),
            S3Path::Root | S3Path::Bucket { .. } => Ok(()),
        }
    }
}

/// To the file system `a//b`, `a/./b` and `c/../a/b` are the file `a/b`, and enough dots lead out of the bucket. Here each of
/// them would be another object, so none of them is one.
pub fn require_plain(key: &str) -> S3Result<()> {
    let plain = |part: &str| !matches!(part, "" | "." | "..") && !part.contains('\0');
    if key.split('/').all(plain) {
        Ok(())
    } else {
        Err(s3_error!(InvalidArgument, "the key has an empty or a dotted part, or a zero byte"))
    }
}

/// A file cannot stand where a folder does, nor below another file.
pub fn require_place(bucket: &Path, object: &Path) -> S3Result<()> {
    if object.is_dir() {
        return Err(s3_error!(
            InvalidArgument,
            "this server keeps objects as files, and other keys go on below this one"
        ));
    }
    let mut above = object.ancestors().skip(1).take_while(|folder| *folder != bucket);
    if above.any(|folder| folder.exists() && !folder.is_dir()) {
        return Err(s3_error!(InvalidArgument, "this server keeps objects as files, and one stands above this key"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_plain_parts_with_a_slash_between() {
        for key in ["a", "packs/ab/cd.1", "..a/b..", "...", "a b+ü", ".hidden"] {
            assert!(require_plain(key).is_ok(), "{key}");
        }
        for key in ["", "/a", "a/", "a//b", ".", "a/.", "./a", "..", "a/../b", "../../etc/x", "a\0b"] {
            assert!(require_plain(key).is_err(), "{key:?}");
        }
    }

    #[test]
    fn a_file_takes_no_folders_place_and_stands_below_none() {
        let bucket = tempfile::tempdir().unwrap();
        let bucket = bucket.path();
        std::fs::create_dir(bucket.join("folder")).unwrap();
        std::fs::write(bucket.join("folder/file"), "x").unwrap();
        for (key, fits) in [("folder", false), ("folder/file/below/it", false), ("folder/file", true), ("new/x", true)]
        {
            assert_eq!(require_place(bucket, &bucket.join(key)).is_ok(), fits, "{key}");
        }
    }
}
