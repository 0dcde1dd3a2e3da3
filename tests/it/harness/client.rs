//! A client that sends what it is told, byte for byte, and reads answers strictly.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use super::SOON;
use super::parse::{Message, Reader, Stop};

/// One connection.
pub struct Raw {
    reader: Reader<TcpStream>,
}

impl Raw {
    pub fn connect(to: SocketAddr) -> Raw {
        let stream = TcpStream::connect_timeout(&to, SOON).expect("the gateway listens");
        stream.set_read_timeout(Some(SOON)).expect("a timeout");
        stream.set_write_timeout(Some(SOON)).expect("a timeout");
        stream.set_nodelay(true).expect("no delay");
        Raw {
            reader: Reader::new(stream),
        }
    }

    pub fn stream(&self) -> &TcpStream {
        self.reader.get_ref()
    }

    /// Sends all of it.
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) -> &mut Raw {
        self.try_send(bytes).expect("the gateway takes it");
        self
    }

    /// Sends what the other side still takes.
    pub fn try_send(&mut self, bytes: impl AsRef<[u8]>) -> std::io::Result<()> {
        self.reader.get_mut().write_all(bytes.as_ref())
    }

    /// No more bytes from this side.
    pub fn finish(&mut self) -> &mut Raw {
        self.stream()
            .shutdown(Shutdown::Write)
            .expect("it was open");
        self
    }

    pub fn response(&mut self) -> Message {
        self.try_response().expect("an answer")
    }

    pub fn response_to_head(&mut self) -> Message {
        self.reader.response(true).expect("an answer")
    }

    pub fn try_response(&mut self) -> Result<Message, Stop> {
        self.reader.response(false)
    }

    /// Head and body apart, interim answers too.
    pub fn reader(&mut self) -> &mut Reader<TcpStream> {
        &mut self.reader
    }

    /// Whether the other side ends the connection within `time`, without another byte.
    pub fn closed_within(&mut self, time: Duration) -> bool {
        let end = Instant::now() + time;
        self.stream()
            .set_read_timeout(Some(time))
            .expect("a timeout");
        let mut byte = [0];
        let closed = loop {
            match self.reader.get_mut().read(&mut byte) {
                Ok(0) => break self.reader.buffer.is_empty(),
                Ok(_) => break false,
                Err(error) if error.kind() == ErrorKind::ConnectionReset => break true,
                Err(_) if Instant::now() < end => {}
                Err(_) => break false,
            }
        };
        self.stream()
            .set_read_timeout(Some(SOON))
            .expect("a timeout");
        closed
    }

    /// Everything up to the end of the connection, or until `time` has passed.
    pub fn rest(&mut self, time: Duration) -> Vec<u8> {
        let mut all = std::mem::take(&mut self.reader.buffer);
        self.stream()
            .set_read_timeout(Some(time))
            .expect("a timeout");
        let mut piece = [0; 65536];
        while let Ok(n @ 1..) = self.reader.get_mut().read(&mut piece) {
            all.extend_from_slice(&piece[..n]);
        }
        all
    }
}

/// One GET on a connection of its own.
pub fn get(to: SocketAddr, target: &str) -> Message {
    ask(
        to,
        &format!("GET {target} HTTP/1.1\r\nHost: t.test\r\nConnection: close\r\n\r\n"),
    )
}

/// One request on a connection of its own.
pub fn ask(to: SocketAddr, request: &str) -> Message {
    Raw::connect(to).send(request).response()
}
