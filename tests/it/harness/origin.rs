//! An upstream that records what it is sent and answers as the test says.

use std::io::Write;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::parse::{Message, Reader, Stop};

/// What the origin does after a request.
pub enum Reply {
    /// These bytes, and the connection stays.
    Bytes(Vec<u8>),
    /// These bytes, then the end (FIN).
    Close(Vec<u8>),
    /// These bytes, then a reset (RST).
    Reset(Vec<u8>),
    /// Nothing for so long, then the next.
    After(Duration, Box<Reply>),
    /// Whatever is done with the socket; the connection stays if it says so.
    Act(Box<dyn FnOnce(&mut TcpStream) -> bool + Send>),
}

/// A plain 200 with this body.
pub fn ok(body: &str) -> Reply {
    let length = body.len();
    Reply::Bytes(format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n{body}").into_bytes())
}

/// 200, the request's `x-nonce` and its body's length given back.
pub fn echo(request: &Message) -> Reply {
    let nonce = request.get("x-nonce").unwrap_or("-").to_owned();
    let body = format!(
        "{} {} {}",
        request.method(),
        request.target(),
        request.body.len()
    );
    let length = body.len();
    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\nX-Nonce: {nonce}\r\n\r\n");
    Reply::Bytes((head + &body).into_bytes())
}

/// A recording origin. Ends with its last connection.
pub struct Origin {
    pub address: SocketAddr,
    record: Arc<Record>,
}

#[derive(Default)]
struct Record {
    requests: Mutex<Vec<Message>>,
    bad: Mutex<Vec<String>>,
    connections: AtomicUsize,
    open: AtomicUsize,
    stop: AtomicBool,
}

impl Origin {
    /// Answers each request as `reply` says, with the number of the request before it.
    pub fn start(reply: impl Fn(&Message, usize) -> Reply + Send + Sync + 'static) -> Origin {
        Origin::at(
            TcpListener::bind("127.0.0.1:0").expect("a free port"),
            reply,
        )
    }

    /// As [`Origin::start`], on a socket of the test's own.
    pub fn at(
        listener: TcpListener,
        reply: impl Fn(&Message, usize) -> Reply + Send + Sync + 'static,
    ) -> Origin {
        let address = listener.local_addr().expect("bound");
        let record = Arc::new(Record::default());
        let (recorded, reply) = (record.clone(), Arc::new(reply));
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if recorded.stop.load(SeqCst) {
                    return;
                }
                let (record, reply) = (recorded.clone(), reply.clone());
                record.connections.fetch_add(1, SeqCst);
                std::thread::spawn(move || {
                    record.open.fetch_add(1, SeqCst);
                    serve(stream, &record, &*reply);
                    record.open.fetch_sub(1, SeqCst);
                });
            }
        });
        Origin { address, record }
    }

    /// Echoes.
    pub fn echo() -> Origin {
        Origin::start(|request, _| echo(request))
    }

    /// Every complete request, in the order of arrival.
    pub fn requests(&self) -> Vec<Message> {
        self.record.requests.lock().expect("no panic").clone()
    }

    /// What was no request: a fault of the gateway's, or a body that was broken off.
    pub fn bad(&self) -> Vec<String> {
        self.record.bad.lock().expect("no panic").clone()
    }

    /// Connections so far.
    pub fn connections(&self) -> usize {
        self.record.connections.load(SeqCst)
    }

    /// Connections that are open.
    pub fn open(&self) -> usize {
        self.record.open.load(SeqCst)
    }

    /// Forgets what was recorded.
    pub fn clear(&self) {
        self.record.requests.lock().expect("no panic").clear();
        self.record.bad.lock().expect("no panic").clear();
    }
}

impl Drop for Origin {
    fn drop(&mut self) {
        self.record.stop.store(true, SeqCst);
        drop(TcpStream::connect(self.address));
    }
}

fn serve(stream: TcpStream, record: &Record, reply: &dyn Fn(&Message, usize) -> Reply) {
    stream
        .set_read_timeout(Some(Duration::from_secs(120)))
        .expect("a timeout");
    stream.set_nodelay(true).expect("no delay");
    let mut reader = Reader::new(stream);
    loop {
        match reader.request() {
            Ok(request) => {
                let count = {
                    let mut requests = record.requests.lock().expect("no panic");
                    requests.push(request.clone());
                    requests.len() - 1
                };
                if !act(reader.get_mut(), reply(&request, count)) {
                    break;
                }
            }
            Err(Stop::End) => break,
            Err(Stop::Cut(why) | Stop::Bad(why)) => {
                record.bad.lock().expect("no panic").push(why);
                break;
            }
        }
    }
}

/// Whether the connection stays.
fn act(stream: &mut TcpStream, reply: Reply) -> bool {
    match reply {
        Reply::Bytes(bytes) => stream.write_all(&bytes).is_ok(),
        Reply::Close(bytes) => {
            drop(stream.write_all(&bytes));
            drop(stream.shutdown(Shutdown::Both));
            false
        }
        Reply::Reset(bytes) => {
            drop(stream.write_all(&bytes));
            // What was written gets out before the reset wipes it.
            std::thread::sleep(Duration::from_millis(20));
            let socket = socket2::SockRef::from(&*stream);
            socket.set_linger(Some(Duration::ZERO)).expect("linger");
            false
        }
        Reply::After(time, reply) => {
            std::thread::sleep(time);
            act(stream, *reply)
        }
        Reply::Act(act) => act(stream),
    }
}
