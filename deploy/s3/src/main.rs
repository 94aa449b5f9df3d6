//! An S3 server over one folder. It stands for an off-site provider in the quickstart and in tests: the protocol and the
//! check of signatures (SigV4) are real, the durability is that of this machine's disk.
//!
//! What it does for that role:
//! - every request must be signed with a key of the access-key file (0600); each key may do what the file says, so a
//!   backup writer's key can be kept from deleting and overwriting, as it would be at a provider;
//! - an answer to PUT is sent after the bytes, their sidecar files and the folders have been synced to disk;
//! - PUTs of one key are serialised, so `If-None-Match: *` is atomic;
//! - connections, header time and object size are bounded; SIGTERM and SIGINT end it after the requests in flight.
//!
//! What it is not: replicated, versioned or lockable (no object lock), nor a server for the open network. It speaks HTTP
//! and listens on loopback unless told otherwise. An object is a file below its bucket's folder: a key that is none (with an empty or
//! dotted part, longer than 166 bytes, or where a folder stands) is refused before anything is written.

#![deny(clippy::print_stdout, clippy::print_stderr)]

mod access_keys;
mod bucket;
mod keys;
mod serve;

use anyhow::Context;
use clap::Parser;
use std::net::SocketAddr;
use std::path::PathBuf;

/// An S3 server over a folder: each folder inside ROOT is a bucket.
///
/// It stands for an off-site provider in the quickstart and in tests. It is no protection: what it keeps lies on this
/// machine.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    /// Address and port to listen on; port 0 takes a free one and prints it.
    #[arg(long, value_name = "ADDR:PORT")]
    listen: SocketAddr,
    /// The folder that holds the buckets; it is made when it is missing.
    #[arg(long, value_name = "DIR")]
    root: PathBuf,
    /// TOML file (mode 0600) of `[[key]]` tables with access_key, secret_key and may = ["read", "create", "overwrite",
    /// "delete"].
    #[arg(long, value_name = "FILE")]
    access_key_file: PathBuf,
    /// Make this bucket at start; may be repeated.
    #[arg(long = "bucket", value_name = "NAME")]
    buckets: Vec<String>,
    /// Listen on an address that other machines can reach, although requests and answers travel unencrypted.
    #[arg(long)]
    allow_remote: bool,
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    if !arguments.listen.ip().is_loopback() && !arguments.allow_remote {
        anyhow::bail!(
            "--listen {}: other machines could reach this address and the traffic is unencrypted; use 127.0.0.1, or add \
             --allow-remote behind a proxy that encrypts",
            arguments.listen
        );
    }
    let keys = access_keys::AccessKeys::load(&arguments.access_key_file)?;
    let bucket = bucket::Buckets::open(&arguments.root, &arguments.buckets, keys.rights())
        .with_context(|| format!("--root {}", arguments.root.display()))?;
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .context("the runtime cannot start")?
        .block_on(serve::serve(arguments.listen, bucket, keys.into_auth()))
}
