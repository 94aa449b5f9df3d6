//! The conformance suite on real servers: every kind of store answers alike.

use crate::conformance::{Shape, conforms};
use crate::stores;
use crate::stores::proxy::{Act, Proxy};
use anyhow::{Result, ensure};
use backup_engine::{AzureAccess, StoreLocation};
use bytes::Bytes;
use holdfast_tests::servers::{S3_KEY, S3Server, Server};
use object_store::azure::{AzureAccessKey, AzureAuthorizer, AzureCredential};
use object_store::client::HttpRequest;

#[tokio::test(flavor = "multi_thread")]
async fn s3_server_is_a_store() -> Result<()> {
    let server = S3Server::start("practice")?;
    conforms(&*stores::s3_location(&server.url, "practice", S3_KEY).open()?, Shape::default()).await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn ceph_is_a_store() -> Result<()> {
    let Some(url) = stores::ceph("ceph_is_a_store") else { return Ok(()) };
    stores::bucket(url, "conformance", &[]).await?;
    conforms(&*stores::s3_location(url, "conformance", stores::OWNER).open()?, Shape::default()).await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn ceph_with_versions_and_locks_is_a_store() -> Result<()> {
    let Some(url) = stores::ceph("ceph_with_versions_and_locks_is_a_store") else { return Ok(()) };
    stores::bucket(url, "conformance-locked", &[("x-amz-bucket-object-lock-enabled", "true")]).await?;
    conforms(&*stores::s3_location(url, "conformance-locked", stores::OWNER).open()?, Shape::default()).await;
    Ok(())
}

/// What the emulator's only account is called everywhere; it is no secret.
const AZURITE_ACCOUNT: &str = "devstoreaccount1";
const AZURITE_KEY: &str = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==";

#[tokio::test(flavor = "multi_thread")]
async fn azure_blob_is_a_store() -> Result<()> {
    let Some(server) = Server::script("azurite", &[])? else {
        holdfast_tests::skip("azure_blob_is_a_store", "Azurite is not installed");
        return Ok(());
    };
    let endpoint = format!("{}/{AZURITE_ACCOUNT}", server.url);
    let credential = AzureCredential::AccessKey(AzureAccessKey::try_new(AZURITE_KEY)?);
    let request = http::Request::builder()
        .method(http::Method::PUT)
        .uri(format!("{endpoint}/practice?restype=container"))
        .header("x-ms-version", "2023-11-03");
    let sign = |request: &mut HttpRequest| {
        AzureAuthorizer::new(&credential, AZURITE_ACCOUNT).try_authorize(request).expect("it is signed");
    };
    let (status, body) = stores::send(request, Bytes::new(), sign).await?;
    ensure!(status.is_success(), "{status}: {}", String::from_utf8_lossy(&body));
    let location = StoreLocation::Azure {
        endpoint: Some(endpoint),
        account: AZURITE_ACCOUNT.to_owned(),
        container: "practice".to_owned(),
        prefix: "holdfast".to_owned(),
        access: AzureAccess::AccountKey(AZURITE_KEY.to_owned()),
    };
    // Azure gives 5000 names in a page, and the emulator takes a minute for as many: the second page is for the night.
    let listed = if std::env::var_os("HOLDFAST_NIGHTLY").is_some() { 5100 } else { Shape::default().listed };
    println!("a listing of {listed} objects");
    conforms(&*location.open()?, Shape { listed, ..Shape::default() }).await;
    Ok(())
}

/// Not seen on the real service. Google's XML interface is the S3 protocol with other headers; Ceph answers it for a
/// bucket that is open to everybody, once the empty token of a client without a key is taken off. What this does not show:
/// how a service account's key is exchanged for a token.
#[tokio::test(flavor = "multi_thread")]
async fn google_cloud_storage_is_a_store() -> Result<()> {
    let Some(url) = stores::ceph("google_cloud_storage_is_a_store") else { return Ok(()) };
    stores::bucket(url, "conformance-google", &[]).await?;
    let everybody = r#"{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":"*","Action":"s3:*",
        "Resource":["arn:aws:s3:::conformance-google","arn:aws:s3:::conformance-google/*"]}]}"#;
    let policy = format!("{url}/conformance-google?policy=");
    stores::s3(stores::OWNER, http::Method::PUT, &policy, &[], everybody).await?;
    let proxy = Proxy::before(url).await;
    proxy.plan(|_| Act::Anonymously);
    let location = StoreLocation::Gcs {
        endpoint: Some(proxy.url.clone()),
        bucket: "conformance-google".to_owned(),
        prefix: String::new(),
        service_account: None,
    };
    conforms(&*location.open()?, Shape::default()).await;
    Ok(())
}
