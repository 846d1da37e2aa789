//! What does not work says where, why, and what to do.

use std::fmt::Write as _;

use super::*;

#[test]
fn a_wrong_secret_is_refused_and_named_without_it() {
    let server = S3::new();
    let error = s3_with(&server, "another").check().unwrap_err();
    assert!(matches!(error, RemoteError::Refused { .. }), "{error}");
    assert!(error.help().unwrap().contains("AWS_ACCESS_KEY_ID"));
    assert!(!format!("{error} {error:?}").contains("another"));
}

#[test]
fn without_credentials_it_says_where_they_come_from() {
    // A port at which nobody listens, as at the address of a cloud's machines outside of one.
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let connector =
        Connector { connect: QUICK.connect, read: QUICK.read, metadata: &["127.0.0.1"] };
    let objects = AmazonS3Builder::new()
        .with_endpoint("http://localhost:1")
        .with_metadata_endpoint(format!("http://{nobody}"))
        .with_bucket_name("bucket")
        .with_http_connector(connector)
        .with_retry(Bucket::retry(QUICK))
        .build()
        .unwrap();
    let remote = Remote::over(Bucket::of(objects, QUICK), "s3://bucket/".into()).unwrap();
    let error = remote.check().unwrap_err();
    assert!(matches!(error, RemoteError::NoCredentials { service: Service::S3 }), "{error}");
    let help = error.help().unwrap();
    assert!(help.contains("AWS_SECRET_ACCESS_KEY") && !help.contains("AZURE"), "{help}");
}

#[test]
fn an_address_is_shown_without_its_secrets() {
    let url = parse("s3://key:secret@bucket/folder?sig=abc").unwrap();
    assert_eq!(public(&url), "s3://bucket/folder");
    let error = Remote::open("ftp://user:secret@host/x", QUICK).unwrap_err();
    assert!(matches!(&error, RemoteError::Address { scheme } if scheme == "ftp"), "{error}");
}

/// How a push, which writes, fails at a server.
fn pushed(remote: &Remote) -> RemoteError {
    let here = Machine::new();
    remote.push(&here.store, &[here.make("clips", &[b"one"])], &HOW).unwrap_err()
}

#[test]
fn what_a_server_says_is_told_with_what_to_check() {
    let cases = [
        (Fault::Says("403 Forbidden", "AccessDenied", "Access Denied."), "refuses"),
        (Fault::Says("400 Bad Request", "AuthorizationHeaderMalformed", "Wrong region"), "refuses"),
        (Fault::Says("301 Moved Permanently", "PermanentRedirect", "Elsewhere"), "refuses"),
        (Fault::Says("404 Not Found", "NoSuchBucket", "No such bucket"), "no bucket"),
        (Fault::Broken, "fails"),
    ];
    let mut told = String::new();
    for (fault, word) in cases {
        let (server, remote) = s3();
        for _ in 0..3 * (QUICK.retries + 1) {
            server.fault("PUT /bucket/format", fault);
        }
        let error = pushed(&remote);
        assert!(error.to_string().contains(word), "{error}");
        let _ = writeln!(told, "{error}\n  {}", error.help().unwrap());
    }
    insta::assert_snapshot!(told, @"
    the remote cache `s3://bucket/` refuses: 403 Forbidden, AccessDenied: Access Denied
      see that `AWS_ACCESS_KEY_ID` and `AWS_SECRET_ACCESS_KEY` belong to an account that may read and write there, that `AWS_REGION` is the bucket's (`us-east-1` if not set), and that `AWS_ENDPOINT_URL` names the server if it is not Amazon's; profiles in `~/.aws` are not read
    the remote cache `s3://bucket/` refuses: 400 Bad Request, AuthorizationHeaderMalformed: Wrong region
      see that `AWS_ACCESS_KEY_ID` and `AWS_SECRET_ACCESS_KEY` belong to an account that may read and write there, that `AWS_REGION` is the bucket's (`us-east-1` if not set), and that `AWS_ENDPOINT_URL` names the server if it is not Amazon's; profiles in `~/.aws` are not read
    the remote cache `s3://bucket/` refuses: it redirects to nowhere, as for a bucket of another region
      see that `AWS_ACCESS_KEY_ID` and `AWS_SECRET_ACCESS_KEY` belong to an account that may read and write there, that `AWS_REGION` is the bucket's (`us-east-1` if not set), and that `AWS_ENDPOINT_URL` names the server if it is not Amazon's; profiles in `~/.aws` are not read
    there is no bucket for the remote cache `s3://bucket/`: 404 Not Found, NoSuchBucket: No such bucket
      create the bucket with the tools of its server, or correct the address: `pipe` makes folders in a bucket, but no buckets
    the remote cache `s3://bucket/` fails: 500 Internal Server Error
      try again later: the fault is the server's, unless another kind of server is at this address
    ");
}

/// Who only reads is not told that a cache would be made there.
#[test]
fn a_bucket_that_is_not_there_is_no_empty_cache() {
    let (server, remote) = s3();
    for _ in 0..2 {
        server.fault("GET /bucket", Fault::Says("404 Not Found", "NoSuchBucket", "No such bucket"));
    }
    for error in [remote.check().unwrap_err(), remote.check_is_there().unwrap_err()] {
        assert!(matches!(error, RemoteError::NoBucket { .. }), "{error}");
        assert!(error.help().unwrap().starts_with("create the bucket"));
    }
    assert!(!remote.check().unwrap());
}

#[test]
fn who_cannot_be_reached_is_named_with_the_server() {
    let endpoint = "http://127.0.0.1:9".to_owned();
    for service in [Service::S3, Service::Google, Service::Azure] {
        let place = Place { address: "x://b/f".into(), endpoint: Some(endpoint.clone()), service };
        let refused = std::io::Error::from(std::io::ErrorKind::ConnectionRefused);
        let source = object_store::client::HttpError::new(
            object_store::client::HttpErrorKind::Connect,
            refused,
        );
        let error = object_store::Error::Generic { store: "S3", source: Box::new(source) };
        let error = RemoteError::of(&error, &place);
        assert_eq!(
            error.to_string(),
            "the remote cache `x://b/f` at `http://127.0.0.1:9` cannot be reached: connection refused"
        );
        assert!(error.help().unwrap().contains("HTTPS_PROXY"));
    }
}

#[cfg(unix)]
#[test]
fn a_path_may_go_up_as_the_system_reads_it() {
    let root = tempfile::tempdir().unwrap();
    let root = root.path().canonicalize().unwrap();
    std::fs::create_dir_all(root.join("a/b")).unwrap();
    std::os::unix::fs::symlink(root.join("a/b"), root.join("link")).unwrap();
    let parsed = |path: &str| {
        let url = super::super::parse(root.join(path).to_str().unwrap()).unwrap();
        url.to_file_path().unwrap()
    };
    assert_eq!(parsed("a/../x/y"), root.join("x/y"));
    assert_eq!(parsed("a/b/../../x"), root.join("x"));
    // Behind a link it is another folder than by the names.
    assert_eq!(parsed("link/../x"), root.join("a/x"));
    // What is not there is no link.
    assert_eq!(parsed("new/../x"), root.join("x"));
    assert_eq!(parsed("new//b/../../link/../c"), root.join("a/c"));
}
