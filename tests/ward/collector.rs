//! An OTLP collector that keeps the spans it is sent: HTTP/1.1 and protobuf
//! (<https://opentelemetry.io/docs/specs/otlp/#otlphttp>), as much of either as the exporter uses.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

/// The longest request that is read.
const MAX_BODY_BYTES: usize = 16 * 1024 * 1024;

/// A span, as much of it as the tests look at.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Span {
    /// `service.name` of the process.
    pub service: String,
    pub name: String,
    pub trace: Vec<u8>,
    pub id: Vec<u8>,
    /// Empty at the root.
    pub parent: Vec<u8>,
}

/// A collector on a free port, for as long as this process lives.
pub struct Collector {
    pub port: u16,
    spans: Arc<Mutex<Vec<Span>>>,
}

impl Collector {
    /// Listens.
    pub fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let spans = Arc::new(Mutex::new(Vec::new()));
        let kept = spans.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let kept = kept.clone();
                std::thread::spawn(move || serve(stream.unwrap(), &kept));
            }
        });
        Self { port, spans }
    }

    /// What has come so far.
    pub fn spans(&self) -> Vec<Span> {
        self.spans.lock().unwrap().clone()
    }
}

/// One request a connection.
fn serve(mut stream: TcpStream, kept: &Mutex<Vec<Span>>) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let mut length = 0;
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).unwrap_or(0) == 0 {
            return;
        }
        let line = line.trim().to_ascii_lowercase();
        if let Some(value) = line.strip_prefix("content-length:") {
            length = value.trim().parse().unwrap();
        }
        if line.is_empty() {
            break;
        }
    }
    assert!(length <= MAX_BODY_BYTES, "{length} bytes");
    let mut body = vec![0; length];
    reader.read_exact(&mut body).unwrap();
    kept.lock().unwrap().extend(decode(&body));
    // The exporter may have gone.
    let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
}

/// The spans of an `ExportTraceServiceRequest`.
fn decode(request: &[u8]) -> Vec<Span> {
    let mut spans = Vec::new();
    for resource_spans in all(request, 1) {
        let service = all(resource_spans, 1)
            .into_iter()
            .flat_map(|resource| all(resource, 1))
            .find(|attribute| all(attribute, 1).first() == Some(&&b"service.name"[..]))
            .and_then(|attribute| all(all(attribute, 2).first()?, 1).first().map(|v| v.to_vec()));
        let service = String::from_utf8(service.unwrap_or_default()).unwrap();
        for span in all(resource_spans, 2).into_iter().flat_map(|scope| all(scope, 2)) {
            let field = |number| all(span, number).first().map(|v| v.to_vec()).unwrap_or_default();
            spans.push(Span {
                service: service.clone(),
                name: String::from_utf8(field(5)).unwrap(),
                trace: field(1),
                id: field(2),
                parent: field(4),
            });
        }
    }
    spans
}

/// The values of a length-delimited protobuf field
/// (<https://protobuf.dev/programming-guides/encoding/>).
fn all(mut message: &[u8], wanted: u64) -> Vec<&[u8]> {
    let mut found = Vec::new();
    while !message.is_empty() {
        let tag = varint(&mut message);
        let bytes = match tag & 7 {
            0 => {
                varint(&mut message);
                continue;
            }
            1 => 8,
            2 => varint(&mut message) as usize,
            5 => 4,
            other => panic!("wire type {other}"),
        };
        let (value, rest) = message.split_at(bytes);
        message = rest;
        if tag & 7 == 2 && tag >> 3 == wanted {
            found.push(value);
        }
    }
    found
}

fn varint(message: &mut &[u8]) -> u64 {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = message.split_first().unwrap();
        *message = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            break;
        }
    }
    value
}
