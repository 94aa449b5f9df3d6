//! Keys that are no file of their bucket: every request about one is refused before anything is written.

#[path = "support/signed.rs"]
mod signed;
mod support;

use signed::Answer;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use support::{OWNER, Server, WRITER};

/// Keys that the file system would take for other files than they name, or for none; also as they may be encoded.
const NO_FILES: [&str; 12] = [
    "p/../ok",
    "%2e%2e/practice/ok",
    "../../etc/x",
    "..",
    "./ok",
    "a/.",
    "a/%2E",
    "/lead",
    "p//ok",
    "a/",
    "a/b/..",
    "a%00b",
];

/// Every file below the server's root with its content, and every folder.
fn files(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.symlink_metadata().unwrap().is_dir() {
            found.insert(path.clone(), Vec::new());
            found.extend(files(&path));
        } else if path.is_file() {
            let content = std::fs::read(&path).unwrap();
            found.insert(path, content);
        }
    }
    found
}

fn refused(answer: &Answer, code: &str, what: &str) {
    assert_eq!((answer.status, answer.element("Code")), (400, code), "{what}: {}", answer.body);
}

/// A server with the objects `ok` and `folder/file`, which its owner wrote.
fn server() -> Server {
    let server = Server::start();
    for key in ["ok", "folder/file"] {
        let path = format!("/practice/{key}");
        assert_eq!(server.ask(OWNER, "PUT", &path, "", "", "kept").status, 200, "{key}");
        assert_eq!(server.ask(WRITER, "GET", &path, "", "", "").body, "kept", "{key}");
    }
    server
}

#[test]
fn a_key_that_is_no_file_is_refused_whoever_asks_whatever() {
    let server = server();
    let before = files(server.folder.path());
    let upload = "11111111-2222-3333-4444-555555555555";
    let part = format!("partNumber=1&uploadId={upload}");
    let whole = format!("uploadId={upload}");
    let parts =
        "<CompleteMultipartUpload><Part><PartNumber>1</PartNumber><ETag>x</ETag></Part></CompleteMultipartUpload>";
    let copy = "x-amz-copy-source: /practice/ok\r\n";
    let requests = [
        ("PUT", "", "", "over"),
        ("GET", "", "", ""),
        ("HEAD", "", "", ""),
        ("DELETE", "", "", ""),
        ("PUT", "", copy, ""),
        ("POST", "uploads=", "", ""),
        ("PUT", part.as_str(), "", "over"),
        ("PUT", part.as_str(), copy, ""),
        ("POST", whole.as_str(), "", parts),
        ("DELETE", whole.as_str(), "", ""),
    ];
    for key in NO_FILES {
        for (method, query, extra, body) in requests {
            for who in [OWNER, WRITER] {
                let answer = server.ask(who, method, &format!("/practice/{key}"), query, extra, body);
                let what = format!("{method} {key}?{query} {extra} as {}", who.0);
                // The answer to HEAD has no body to say it in.
                let code = if method == "HEAD" { "" } else { "InvalidArgument" };
                refused(&answer, code, &what);
            }
        }
    }
    let many = "<Delete><Object><Key>ok</Key></Object><Object><Key>p/../folder/file</Key></Object></Delete>";
    refused(&server.ask(OWNER, "POST", "/practice", "delete=", "", many), "InvalidArgument", "a list of keys");
    assert_eq!(files(server.folder.path()), before, "and nothing was written or deleted");
}

#[test]
fn a_folder_is_no_object_and_no_object_takes_its_place() {
    let server = server();
    let before = files(server.folder.path());
    for key in ["folder", "ok/below/it"] {
        let path = format!("/practice/{key}");
        for who in [OWNER, WRITER] {
            refused(&server.ask(who, "PUT", &path, "", "", "over"), "InvalidArgument", key);
            refused(&server.ask(who, "POST", &path, "uploads=", "", ""), "InvalidArgument", key);
            let get = server.ask(who, "GET", &path, "", "", "");
            assert_eq!((get.status, get.element("Code")), (404, "NoSuchKey"), "{key}: {}", get.body);
            assert_eq!(server.ask(who, "HEAD", &path, "", "", "").status, 404, "{key}");
        }
        // As with every key that is not there.
        assert_eq!(server.ask(OWNER, "DELETE", &path, "", "", "").status, 204, "{key}");
        let many = format!("<Delete><Object><Key>{key}</Key></Object></Delete>");
        let gone = server.ask(OWNER, "POST", "/practice", "delete=", "", &many);
        assert_eq!((gone.status, gone.element("Key")), (200, key), "{}", gone.body);
    }
    assert_eq!(files(server.folder.path()), before);
}

#[test]
fn parts_are_put_together_under_a_key_that_fits_and_no_other() {
    let server = server();
    let long = "k".repeat(150);
    let too_long = server.ask(OWNER, "POST", &format!("/practice/{long}"), "uploads=", "", "");
    refused(&too_long, "KeyTooLongError", "its id does not fit beside the key");
    let begun = server.ask(OWNER, "POST", "/practice/new", "uploads=", "", "");
    assert_eq!(begun.status, 200, "{}", begun.body);
    let id = begun.element("UploadId");
    let part = server.ask(OWNER, "PUT", "/practice/new", &format!("partNumber=1&uploadId={id}"), "", "content");
    assert_eq!(part.status, 200, "{}", part.body);
    let parts = "<CompleteMultipartUpload><Part><PartNumber>1</PartNumber></Part></CompleteMultipartUpload>";
    let complete = |path: &str| server.ask(OWNER, "POST", path, &format!("uploadId={id}"), "", parts);
    refused(&complete("/practice/p/../ok"), "InvalidArgument", "another key");
    refused(&complete("/practice/folder"), "InvalidArgument", "a folder");
    assert_eq!(complete("/practice/new").status, 200);
    assert_eq!(server.ask(WRITER, "GET", "/practice/new", "", "", "").body, "content");
    assert_eq!(server.ask(WRITER, "GET", "/practice/ok", "", "", "").body, "kept");
}
