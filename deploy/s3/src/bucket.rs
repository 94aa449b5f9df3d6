//! The buckets of one folder: s3s-fs, with rights per key, atomic creation and durable answers added.

use crate::access_keys::{Right, Rights};
use crate::keys::{require_place, require_plain};
use base64::Engine;
use s3s::dto::*;
use s3s::{S3, S3Request, S3Response, S3Result, s3_error};
use s3s_fs::FileSystem;
use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::path::{Path, PathBuf};
use tokio::sync::{Mutex, MutexGuard};

/// The largest object accepted; a pack has 16 MiB at most.
const OBJECT_BYTES_MAX: i64 = 1 << 30;
/// What the file system allows.
const FILE_NAME_BYTES_MAX: usize = 255;
/// Where s3s-fs finds each bucket under a short name, and keeps its own files.
const SHORT_NAMES: &str = ".buckets";
/// Locks over which the object keys are spread.
const STRIPES: usize = 256;

pub struct Buckets {
    root: PathBuf,
    files: FileSystem,
    /// What each bucket is called in [`SHORT_NAMES`].
    short: BTreeMap<String, String>,
    rights: Rights,
    stripes: Vec<Mutex<()>>,
}

impl Buckets {
    pub fn open(root: &Path, buckets: &[String], rights: Rights) -> io::Result<Self> {
        std::fs::create_dir_all(root)?;
        let root = root.canonicalize()?;
        for bucket in buckets {
            if bucket.len() < 3 || !bucket.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-') {
                let what = "a bucket's name has 3 or more small letters, digits and hyphens";
                return Err(io::Error::new(io::ErrorKind::InvalidInput, what));
            }
            std::fs::create_dir_all(root.join(bucket))?;
        }
        let short = short_names(&root.join(SHORT_NAMES), buckets)?;
        std::fs::File::open(&root)?.sync_all()?;
        let files =
            FileSystem::new(root.join(SHORT_NAMES)).map_err(|_| io::Error::other("the folder cannot be opened"))?;
        Ok(Self { root, files, short, rights, stripes: (0..STRIPES).map(|_| Mutex::new(())).collect() })
    }

    fn allows<T>(&self, req: &S3Request<T>, right: Right) -> bool {
        let rights = req.credentials.as_ref().and_then(|who| self.rights.get(&who.access_key));
        rights.is_some_and(|rights| rights.contains(&right))
    }

    fn require<T>(&self, req: &S3Request<T>, right: Right) -> S3Result<()> {
        if self.allows(req, right) {
            Ok(())
        } else {
            Err(s3_error!(AccessDenied, "this key lacks the right to do that"))
        }
    }

    /// A bucket's name for s3s-fs.
    fn short(&self, bucket: &str) -> S3Result<String> {
        self.short.get(bucket).cloned().ok_or_else(|| s3_error!(NoSuchBucket))
    }

    async fn one_at_a_time(&self, bucket: &str, key: &str) -> MutexGuard<'_, ()> {
        let mut hasher = DefaultHasher::new();
        (bucket, key).hash(&mut hasher);
        self.stripes[usize::try_from(hasher.finish() % STRIPES as u64).unwrap_or(0)].lock().await
    }

    /// Refuses to overwrite without the right to; a conditional request hears what S3 says to it.
    fn require_absent(&self, input: &PutObjectInput) -> S3Result<()> {
        if !object_path(&self.root, &input.bucket, &input.key)?.exists() {
            return Ok(());
        }
        match input.if_none_match {
            Some(_) => Err(s3_error!(PreconditionFailed, "the object is there already")),
            None => Err(s3_error!(AccessDenied, "this key may not overwrite")),
        }
    }

    fn require_place(&self, bucket: &str, key: &str) -> S3Result<()> {
        require_place(&self.root.join(bucket), &object_path(&self.root, bucket, key)?)
    }

    /// Whether a folder stands there, because other keys go on below this one: as an object, it is not there.
    fn is_folder(&self, bucket: &str, key: &str) -> S3Result<bool> {
        Ok(object_path(&self.root, bucket, key)?.is_dir())
    }

    /// Syncs an object, its sidecars and every folder up to the root.
    async fn sync(&self, bucket: &str, key: &str) -> S3Result<()> {
        let (root, object) = (self.root.clone(), object_path(&self.root, bucket, key)?);
        let sidecars = sidecars(&root, &self.short(bucket)?, key);
        tokio::task::spawn_blocking(move || sync_to_root(&root, &object, &sidecars))
            .await
            .map_err(|_| s3_error!(InternalError, "the sync was interrupted"))?
            .map_err(|_| s3_error!(InternalError, "the bytes could not be synced to disk"))
    }
}

fn object_path(root: &Path, bucket: &str, key: &str) -> S3Result<PathBuf> {
    require_plain(bucket)?;
    require_plain(key)?;
    Ok(root.join(bucket).join(key))
}

/// s3s-fs writes files beside the buckets that carry the names of a bucket and a key in theirs. So that the longest name of a
/// repository fits whatever the bucket is called, it finds each bucket under a name of one letter or two.
fn short_names(folder: &Path, buckets: &[String]) -> io::Result<BTreeMap<String, String>> {
    std::fs::create_dir_all(folder)?;
    let mut names = BTreeMap::new();
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        let target = std::fs::read_link(entry.path()).ok();
        let bucket = target.as_ref().and_then(|target| target.file_name()?.to_str());
        if let (Some(bucket), Ok(short)) = (bucket, entry.file_name().into_string()) {
            names.insert(bucket.to_owned(), short);
        }
    }
    for bucket in buckets {
        if !names.contains_key(bucket) {
            let free = (0..).map(|number: u32| format!("{number:x}")).find(|name| !names.values().any(|n| n == name));
            let short = free.ok_or(io::ErrorKind::InvalidInput)?;
            std::os::unix::fs::symlink(Path::new("..").join(bucket), folder.join(&short))?;
            names.insert(bucket.clone(), short);
        }
    }
    std::fs::File::open(folder)?.sync_all()?;
    Ok(names)
}

/// What the names of all files begin with that s3s-fs writes for one object.
fn sidecar_stem(short: &str, key: &str) -> String {
    let encode = |text: &str| base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(text);
    format!(".bucket-{}.object-{}", encode(short), encode(key))
}

/// What s3s-fs writes for one object. A torn one would make the object unreadable after a power failure, so they are synced
/// like the object.
fn sidecars(root: &Path, short: &str, key: &str) -> [PathBuf; 2] {
    let stem = sidecar_stem(short, key);
    [".metadata.json", ".internal.json"].map(|end| root.join(SHORT_NAMES).join(format!("{stem}{end}")))
}

/// The sidecars carry the key in their names, so it has to be shorter than S3's own limit.
fn require_short(short: &str, key: &str) -> S3Result<()> {
    if sidecar_stem(short, key).len() + ".metadata.json".len() > FILE_NAME_BYTES_MAX {
        return Err(s3_error!(KeyTooLongError, "this server keeps keys of 166 bytes: use a shorter prefix, or none"));
    }
    Ok(())
}

/// While an object is sent in parts, its sidecar carries the upload's id as well.
fn require_short_of_upload(short: &str, key: &str) -> S3Result<()> {
    const ENDING: &str = ".upload-00000000-0000-0000-0000-000000000000.metadata.json";
    if sidecar_stem(short, key).len() + ENDING.len() > FILE_NAME_BYTES_MAX {
        return Err(s3_error!(KeyTooLongError, "this server takes so long a key in one piece only"));
    }
    Ok(())
}

fn sync_to_root(root: &Path, object: &Path, sidecars: &[PathBuf]) -> io::Result<()> {
    std::fs::File::open(object)?.sync_all()?;
    for sidecar in sidecars {
        match std::fs::File::open(sidecar) {
            Ok(file) => file.sync_all()?,
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => return Err(e),
        }
    }
    for folder in object.ancestors().skip(1).take_while(|folder| folder.starts_with(root)) {
        std::fs::File::open(folder)?.sync_all()?;
    }
    Ok(())
}

/// Only what a backup store needs is answered; s3s says NotImplemented to the rest.
#[async_trait::async_trait]
impl S3 for Buckets {
    async fn put_object(&self, mut req: S3Request<PutObjectInput>) -> S3Result<S3Response<PutObjectOutput>> {
        match req.input.content_length {
            None => return Err(s3_error!(MissingContentLength)),
            Some(bytes) if bytes > OBJECT_BYTES_MAX => return Err(s3_error!(EntityTooLarge)),
            Some(_) => {}
        }
        self.require(&req, Right::Create)?;
        let (bucket, key) = (req.input.bucket.clone(), req.input.key.clone());
        let short = self.short(&bucket)?;
        require_short(&short, &key)?;
        if !self.root.join(&bucket).is_dir() {
            return Err(s3_error!(NoSuchBucket));
        }
        let _guard = self.one_at_a_time(&bucket, &key).await;
        self.require_place(&bucket, &key)?;
        if !self.allows(&req, Right::Overwrite) {
            self.require_absent(&req.input)?;
        }
        req.input.bucket = short;
        let response = self.files.put_object(req).await?;
        self.sync(&bucket, &key).await?;
        Ok(response)
    }

    async fn get_object(&self, mut req: S3Request<GetObjectInput>) -> S3Result<S3Response<GetObjectOutput>> {
        self.require(&req, Right::Read)?;
        let short = self.short(&req.input.bucket)?;
        if self.is_folder(&req.input.bucket, &req.input.key)? {
            return Err(s3_error!(NoSuchKey));
        }
        req.input.bucket = short;
        self.files.get_object(req).await
    }

    async fn head_object(&self, mut req: S3Request<HeadObjectInput>) -> S3Result<S3Response<HeadObjectOutput>> {
        self.require(&req, Right::Read)?;
        let short = self.short(&req.input.bucket)?;
        if self.is_folder(&req.input.bucket, &req.input.key)? {
            return Err(s3_error!(NoSuchKey));
        }
        req.input.bucket = short;
        self.files.head_object(req).await
    }

    async fn head_bucket(&self, mut req: S3Request<HeadBucketInput>) -> S3Result<S3Response<HeadBucketOutput>> {
        self.require(&req, Right::Read)?;
        req.input.bucket = self.short(&req.input.bucket)?;
        self.files.head_bucket(req).await
    }

    async fn get_bucket_location(
        &self,
        mut req: S3Request<GetBucketLocationInput>,
    ) -> S3Result<S3Response<GetBucketLocationOutput>> {
        self.require(&req, Right::Read)?;
        req.input.bucket = self.short(&req.input.bucket)?;
        self.files.get_bucket_location(req).await
    }

    async fn list_objects_v2(
        &self,
        mut req: S3Request<ListObjectsV2Input>,
    ) -> S3Result<S3Response<ListObjectsV2Output>> {
        self.require(&req, Right::Read)?;
        // S3 takes an empty delimiter for none; s3s-fs would answer with no key at all.
        req.input.delimiter = req.input.delimiter.filter(|delimiter| !delimiter.is_empty());
        let bucket = std::mem::take(&mut req.input.bucket);
        req.input.bucket = self.short(&bucket)?;
        let mut response = self.files.list_objects_v2(req).await?;
        response.output.name = Some(bucket);
        Ok(response)
    }

    async fn delete_object(&self, mut req: S3Request<DeleteObjectInput>) -> S3Result<S3Response<DeleteObjectOutput>> {
        self.require(&req, Right::Delete)?;
        let short = self.short(&req.input.bucket)?;
        if self.is_folder(&req.input.bucket, &req.input.key)? {
            return Ok(S3Response::new(DeleteObjectOutput::default()));
        }
        req.input.bucket = short;
        self.files.delete_object(req).await
    }

    async fn delete_objects(
        &self,
        mut req: S3Request<DeleteObjectsInput>,
    ) -> S3Result<S3Response<DeleteObjectsOutput>> {
        self.require(&req, Right::Delete)?;
        let bucket = std::mem::take(&mut req.input.bucket);
        req.input.bucket = self.short(&bucket)?;
        // All of these keys are looked at before the first object goes.
        let (mut there, mut gone) = (Vec::new(), Vec::new());
        for object in std::mem::take(&mut req.input.delete.objects) {
            let is_there = object_path(&self.root, &bucket, &object.key)?.is_file();
            if is_there { there.push(object) } else { gone.push(object) }
        }
        req.input.delete.objects = there;
        let mut response = self.files.delete_objects(req).await?;
        let gone = gone.into_iter().map(|object| DeletedObject { key: Some(object.key), ..Default::default() });
        response.output.deleted.get_or_insert_default().extend(gone);
        Ok(response)
    }

    async fn create_multipart_upload(
        &self,
        mut req: S3Request<CreateMultipartUploadInput>,
    ) -> S3Result<S3Response<CreateMultipartUploadOutput>> {
        self.require(&req, Right::Create)?;
        let bucket = std::mem::take(&mut req.input.bucket);
        req.input.bucket = self.short(&bucket)?;
        require_short_of_upload(&req.input.bucket, &req.input.key)?;
        self.require_place(&bucket, &req.input.key)?;
        let mut response = self.files.create_multipart_upload(req).await?;
        response.output.bucket = Some(bucket);
        Ok(response)
    }

    async fn upload_part(&self, mut req: S3Request<UploadPartInput>) -> S3Result<S3Response<UploadPartOutput>> {
        self.require(&req, Right::Create)?;
        req.input.bucket = self.short(&req.input.bucket)?;
        self.files.upload_part(req).await
    }

    async fn complete_multipart_upload(
        &self,
        mut req: S3Request<CompleteMultipartUploadInput>,
    ) -> S3Result<S3Response<CompleteMultipartUploadOutput>> {
        self.require(&req, Right::Create)?;
        let (bucket, key) = (req.input.bucket.clone(), req.input.key.clone());
        let short = self.short(&bucket)?;
        require_short_of_upload(&short, &key)?;
        let _guard = self.one_at_a_time(&bucket, &key).await;
        self.require_place(&bucket, &key)?;
        if !self.allows(&req, Right::Overwrite) && object_path(&self.root, &bucket, &key)?.exists() {
            return Err(s3_error!(AccessDenied, "this key may not overwrite"));
        }
        req.input.bucket = short;
        let mut response = self.files.complete_multipart_upload(req).await?;
        self.sync(&bucket, &key).await?;
        response.output.bucket = Some(bucket);
        Ok(response)
    }

    async fn abort_multipart_upload(
        &self,
        mut req: S3Request<AbortMultipartUploadInput>,
    ) -> S3Result<S3Response<AbortMultipartUploadOutput>> {
        self.require(&req, Right::Create)?;
        req.input.bucket = self.short(&req.input.bucket)?;
        self.files.abort_multipart_upload(req).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_cannot_leave_its_bucket() {
        let root = Path::new("/srv");
        assert_eq!(object_path(root, "practice", "packs/ab").unwrap(), Path::new("/srv/practice/packs/ab"));
        for key in ["../other/x", "/etc/passwd", "a/../../b", "a/.", ""] {
            assert!(object_path(root, "practice", key).is_err(), "{key}");
        }
    }

    #[test]
    fn every_bucket_has_a_short_name_and_keeps_it() {
        let folder = tempfile::tempdir().unwrap();
        let open = |buckets: &[&str]| {
            let buckets: Vec<String> = buckets.iter().map(|bucket| (*bucket).to_owned()).collect();
            Buckets::open(folder.path(), &buckets, Rights::new()).unwrap().short
        };
        let first = open(&["practice", "another-practice"]);
        let second = open(&["third", "another-practice", "practice"]);
        assert!(first.iter().all(|(bucket, short)| second.get(bucket) == Some(short)), "{first:?} {second:?}");
        let names: std::collections::BTreeSet<&String> = second.values().collect();
        assert_eq!(names.len(), 3);
    }

    #[test]
    fn buckets_have_names_that_s3_allows() {
        let folder = tempfile::tempdir().unwrap();
        for bad in ["ab", "UPPER", "a/b", "../x"] {
            assert!(Buckets::open(folder.path(), &[bad.to_owned()], Rights::new()).is_err(), "{bad}");
        }
        assert!(Buckets::open(folder.path(), &["practice".to_owned()], Rights::new()).is_ok());
    }
}
