//! What `--repo` can name, and the credentials that the cloud tools' usual variables give.

use super::render::Usage;
use anyhow::ensure;
use backup_engine::{AzureAccess, StoreLocation};
use std::path::{Path, PathBuf};

/// A service account's key is a small file.
const SERVICE_ACCOUNT_BYTES_MAX: usize = 16 << 10;

pub fn location(repo: &str) -> anyhow::Result<StoreLocation> {
    let Some((scheme, rest)) = repo.split_once("://") else {
        ensure!(!repo.is_empty(), wrong_place());
        return Ok(StoreLocation::Folder { path: std::path::absolute(repo)? });
    };
    let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
    let (bucket, prefix) = (bucket.to_owned(), prefix.trim_matches('/').to_owned());
    let named = |what: &str| {
        let example = if what == "container" { "container" } else { "bucket" };
        ensure!(!bucket.is_empty(), Usage(format!("--repo {scheme}://{example}/prefix: the {what} is missing")));
        Ok(())
    };
    match scheme {
        "s3" => named("bucket").and_then(|()| s3(bucket.clone(), prefix)),
        "az" => named("container").and_then(|()| azure(bucket.clone(), prefix)),
        "gs" => named("bucket").and_then(|()| gcs(bucket.clone(), prefix)),
        _ => Err(wrong_place().into()),
    }
}

fn wrong_place() -> Usage {
    Usage("--repo is a folder, s3://bucket/prefix, az://container/prefix or gs://bucket/prefix".to_owned())
}

fn s3(bucket: String, prefix: String) -> anyhow::Result<StoreLocation> {
    let endpoint = variable("AWS_ENDPOINT_URL_S3").or_else(|| variable("AWS_ENDPOINT_URL"));
    let profile = Profile::find()?;
    let region = variable("AWS_REGION").or_else(|| variable("AWS_DEFAULT_REGION")).or(profile.region);
    let missing = |name: &str| Usage(format!("set {name} (or AWS_PROFILE) for an s3:// repository"));
    Ok(StoreLocation::S3 {
        allow_http: endpoint.as_deref().is_some_and(|e| e.starts_with("http://")),
        endpoint,
        bucket,
        prefix,
        region: region.unwrap_or_else(|| "us-east-1".to_owned()),
        access_key: profile.access_key.ok_or_else(|| missing("AWS_ACCESS_KEY_ID"))?,
        secret_key: profile.secret_key.ok_or_else(|| missing("AWS_SECRET_ACCESS_KEY"))?,
        session_token: profile.session_token,
    })
}

fn azure(container: String, prefix: String) -> anyhow::Result<StoreLocation> {
    let account = variable("AZURE_STORAGE_ACCOUNT").or_else(|| variable("AZURE_STORAGE_ACCOUNT_NAME"));
    let key = variable("AZURE_STORAGE_KEY").or_else(|| variable("AZURE_STORAGE_ACCOUNT_KEY"));
    let access = match (variable("AZURE_STORAGE_SAS_TOKEN"), key) {
        (Some(signature), _) => AzureAccess::Signature(signature),
        (None, Some(key)) => AzureAccess::AccountKey(key),
        (None, None) => {
            let remedy = "set AZURE_STORAGE_SAS_TOKEN or AZURE_STORAGE_KEY for an az:// repository";
            anyhow::bail!(Usage(remedy.to_owned()))
        }
    };
    Ok(StoreLocation::Azure {
        endpoint: variable("AZURE_STORAGE_SERVICE_ENDPOINT"),
        account: account.ok_or_else(|| Usage("set AZURE_STORAGE_ACCOUNT for an az:// repository".to_owned()))?,
        container,
        prefix,
        access,
    })
}

fn gcs(bucket: String, prefix: String) -> anyhow::Result<StoreLocation> {
    let endpoint = variable("STORAGE_EMULATOR_HOST");
    let service_account = match variable("GOOGLE_APPLICATION_CREDENTIALS") {
        Some(file) => Some(service_account(Path::new(&file))?),
        // An emulator asks nobody who they are.
        None if endpoint.is_some() => None,
        None => {
            let remedy = "set GOOGLE_APPLICATION_CREDENTIALS to a service account's JSON key for a gs:// repository";
            anyhow::bail!(Usage(remedy.to_owned()))
        }
    };
    Ok(StoreLocation::Gcs { endpoint, bucket, prefix, service_account })
}

fn service_account(file: &Path) -> anyhow::Result<String> {
    let text = std::fs::read_to_string(file).map_err(|e| {
        Usage(format!("the file that GOOGLE_APPLICATION_CREDENTIALS names cannot be read ({})", e.kind()))
    })?;
    let is_account = |key: serde_json::Value| key.get("type").is_some_and(|word| word == "service_account");
    ensure!(
        text.len() <= SERVICE_ACCOUNT_BYTES_MAX && serde_json::from_str(&text).is_ok_and(is_account),
        Usage("GOOGLE_APPLICATION_CREDENTIALS must name a service account's key in JSON".to_owned())
    );
    Ok(text)
}

pub fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// Credentials as the usual variables give them, else the profile of `~/.aws`.
#[derive(Default)]
struct Profile {
    access_key: Option<String>,
    secret_key: Option<String>,
    session_token: Option<String>,
    region: Option<String>,
}

impl Profile {
    fn find() -> anyhow::Result<Self> {
        let (access_key, secret_key) = (variable("AWS_ACCESS_KEY_ID"), variable("AWS_SECRET_ACCESS_KEY"));
        let named = variable("AWS_PROFILE");
        if named.is_none() && (access_key.is_some() || secret_key.is_some()) {
            return Ok(Self { access_key, secret_key, session_token: variable("AWS_SESSION_TOKEN"), region: None });
        }
        let file = |name: &str, usual: &str| {
            variable(name).map(PathBuf::from).or_else(|| variable("HOME").map(|home| PathBuf::from(home).join(usual)))
        };
        let read = |path: Option<PathBuf>| path.and_then(|path| std::fs::read_to_string(path).ok()).unwrap_or_default();
        let credentials = read(file("AWS_SHARED_CREDENTIALS_FILE", ".aws/credentials"));
        let config = read(file("AWS_CONFIG_FILE", ".aws/config"));
        let wanted = named.as_deref().unwrap_or("default");
        let found = Self::parse(wanted, &credentials, &config);
        ensure!(
            named.is_none() || found.access_key.is_some(),
            Usage(
                "AWS_PROFILE names a profile without aws_access_key_id in ~/.aws/credentials: check its name"
                    .to_owned()
            )
        );
        Ok(found)
    }

    /// The profile `wanted` of both files; the credentials file comes first.
    fn parse(wanted: &str, credentials: &str, config: &str) -> Self {
        let value = |key: &str| {
            let config_section = if wanted == "default" { wanted.to_owned() } else { format!("profile {wanted}") };
            setting(credentials, wanted, key).or_else(|| setting(config, &config_section, key))
        };
        Self {
            access_key: value("aws_access_key_id"),
            secret_key: value("aws_secret_access_key"),
            session_token: value("aws_session_token"),
            region: value("region"),
        }
    }
}

/// The value of a key in a section of an INI file.
fn setting(text: &str, section: &str, key: &str) -> Option<String> {
    let mut here = false;
    for line in text.lines().map(str::trim) {
        if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            here = name.trim() == section;
        } else if here
            && let Some((name, value)) = line.split_once('=')
            && name.trim() == key
        {
            return Some(value.trim().to_owned());
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_profile_is_read_as_the_cloud_tools_write_it() {
        let credentials = "[default]\naws_access_key_id = A\naws_secret_access_key=B\n\n[ night ]\naws_access_key_id=C\n\
                           aws_secret_access_key = D=\naws_session_token = E\n";
        let config =
            "[default]\nregion = eu-central-1\n[profile night]\nregion=eu-west-1\naws_access_key_id=not-this\n";
        let usual = Profile::parse("default", credentials, config);
        assert_eq!((usual.access_key.as_deref(), usual.region.as_deref()), (Some("A"), Some("eu-central-1")));
        let night = Profile::parse("night", credentials, config);
        assert_eq!((night.access_key.as_deref(), night.secret_key.as_deref()), (Some("C"), Some("D=")));
        assert_eq!((night.session_token.as_deref(), night.region.as_deref()), (Some("E"), Some("eu-west-1")));
        assert_eq!(Profile::parse("nobody", credentials, config).access_key, None);
    }

    #[test]
    fn places_that_this_release_does_not_know_are_refused_in_one_sentence() {
        for place in ["az://", "gs:///p", "az://c/p", "gs://b/p", "ftp://x", "", "s3://"] {
            let refused = location(place).err().unwrap();
            assert!(refused.is::<Usage>() && !refused.to_string().contains('\n'), "{place}: {refused}");
        }
        assert!(matches!(location("./here").unwrap(), StoreLocation::Folder { path } if path.is_absolute()));
    }
}
