//! Servers that fall silent, drip, or say too much.

use std::{
    io::{BufRead, BufReader, Write},
    net::{TcpListener, TcpStream},
    sync::{Arc, atomic::AtomicUsize},
    thread,
};

use super::*;

/// Answers requests without a body on one connection until `count` in all are answered, then none.
fn answer(stream: TcpStream, count: &AtomicUsize) -> Option<()> {
    let mut lines = BufReader::new(stream.try_clone().ok()?).lines();
    let mut stream = stream;
    loop {
        while !lines.next()?.ok()?.is_empty() {}
        if count.fetch_sub(1, Relaxed) == 0 {
            // Open, and silent: until the other side goes.
            while lines.next()?.is_ok() {}
            return None;
        }
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").ok()?;
    }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap()
}

/// What is made of an answer of a server that sends these pieces, each after a pause.
fn answered(pieces: Vec<Vec<u8>>, pause: Duration, range: &str) -> Result<usize, HttpError> {
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = server.local_addr().unwrap();
    thread::spawn(move || {
        let (mut stream, _) = server.accept().unwrap();
        let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
        while !lines.next().unwrap().unwrap().is_empty() {}
        for piece in pieces {
            if stream.write_all(&piece).is_err() {
                break;
            }
            thread::sleep(pause);
        }
    });
    let read = Duration::from_millis(400);
    let connector = Connector { connect: read, read, metadata: &[] };
    let agent = connector.agent().max_idle_connections(0).build();
    // As after a first limit was reached: only a request over `kept` has a limit in all.
    let client = Client { has_stalled: AtomicBool::new(true), ..connector.client(agent) };
    let request = http::Request::get(format!("http://{address}/")).header("range", range);
    let runtime = runtime();
    let answer = runtime.block_on(client.call(request.body(Vec::new().into()).unwrap()));
    // A thread that reads a head which drips ends with its connection.
    let answer = answer.map(|answer| {
        runtime.block_on(answer.into_body().collect()).map(|body| body.to_bytes().len())
    });
    runtime.shutdown_background();
    answer.and_then(|len| len)
}

/// The bytes of an answer one by one, behind a head that comes at once.
fn one_by_one(head: &str, body: &str) -> Vec<Vec<u8>> {
    let body = body.bytes().map(|byte| vec![byte]);
    std::iter::once(head.as_bytes().to_vec()).chain(body).collect()
}

#[test]
fn a_server_that_drips_is_not_waited_for_without_end() {
    const HEAD: &str = "HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n";
    let long = "x".repeat(500);
    let pause = Duration::from_millis(100);
    // A body, and a head.
    for pieces in
        [one_by_one(HEAD, &long), one_by_one("", &format!("HTTP/1.1 200 OK\r\nX: {long}"))]
    {
        let start = Instant::now();
        let error = answered(pieces, pause, "bytes=0-499").unwrap_err();
        assert_eq!(error.kind(), HttpErrorKind::Timeout);
        assert!(format!("{error:?}").contains("Drips"), "{error:?}");
        assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
    }
    // What is short comes through.
    let head = HEAD.replace("500", "3");
    assert_eq!(answered(one_by_one(&head, "abc"), pause, "bytes=0-2").unwrap(), 3);
}

#[test]
fn no_more_is_read_than_was_asked_for() {
    let (none, long) = (Duration::ZERO, "x".repeat(300_000));
    let stated = format!("HTTP/1.1 206 OK\r\nContent-Length: 300000\r\n\r\n{long}");
    let unstated = format!("HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n{long}");
    for answer in [&stated, &unstated] {
        let asked = |range| answered(vec![answer.clone().into_bytes()], none, range);
        let error = asked("bytes=0-99999").unwrap_err();
        assert_eq!(error.kind(), HttpErrorKind::Decode);
        let text = format!("{error:?}");
        assert!(text.contains("TooMuch(100000)"), "{text}");
        assert_eq!(asked("bytes=100000-399999").unwrap(), 300_000);
    }
}

#[test]
fn a_server_that_falls_silent_on_a_connection_used_again_is_not_waited_for_without_end() {
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = server.local_addr().unwrap();
    let count = Arc::new(AtomicUsize::new(3));
    let connections = Arc::new(AtomicUsize::new(0));
    thread::spawn({
        let connections = Arc::clone(&connections);
        move || {
            for stream in server.incoming().flatten() {
                connections.fetch_add(1, Relaxed);
                let count = Arc::clone(&count);
                thread::spawn(move || answer(stream, &count));
            }
        }
    });
    let read = Duration::from_millis(300);
    let connector = Connector { connect: read, read, metadata: &[] };
    let client = connector.connect(&ClientOptions::new()).unwrap();
    let runtime = runtime();
    let ask = || {
        let request = http::Request::get(format!("http://{address}/")).body(Vec::new().into());
        runtime.block_on(client.execute(request.unwrap())).map(|answer| answer.status())
    };
    for _ in 0..3 {
        assert!(ask().unwrap().is_success());
    }
    assert_eq!(connections.load(Relaxed), 1, "it is used again");
    assert_eq!(ask().unwrap_err().kind(), HttpErrorKind::Timeout);
    assert!(ask().unwrap().is_success(), "another connection answers");
    assert_eq!(connections.load(Relaxed), 2);
}
